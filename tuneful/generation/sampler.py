"""The in-process sampler: rows leave when they finish, waiting prompts take their place, every number is recorded.

What a model computes for them, and the cache that it keeps, is in decoding.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tuneful.data.templates import completion_text, prompt_ids
from tuneful.errors import GenerationError
from tuneful.functional.logprobs import token_logprobs
from tuneful.generation.decoding import Decoding, begin_decoding, cache_of_token, rows_together
from tuneful.generation.rollout import Rollout
from tuneful.generation.sampling import Draws, Sampling, draw, uniforms
from tuneful.models.loading import context_length
from tuneful.models.ragged import Ids
from tuneful.models.roles import Role
from tuneful.records import Finish, Prompt

Choose = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits [R, V] after temperature, hidden [R, d], row numbers [R]) -> logits [R, V]; -inf forbids a token.

The logits are a copy that the hook may write into; states and row numbers are to be read. At least one token of each
row must be left, and what is left must be finite: GenerationError otherwise.

A hook that keeps something for each row may have methods `admit` and `drop` too: they are told the numbers of the rows
that begin and of those that have ended, int64 [n]; and `drawn`, told row numbers and the ids drawn for them, int64 [R].
Where it has `waves`, which is not None, no row begins while others are under way (see decoding.Decoding).
"""


class Sampler:
    """Samples completions from a policy role. `value` is read off the same hidden states when it shares the trunk."""

    def __init__(
        self, policy: Role, tokenizer: Any, *, value: Role | None = None, version: int = 0, waves: bool = False
    ) -> None:
        """waves: no row enters before all have left, also where the decoding would let it.

        Whoever keeps the model asks once whether it can be sampled from (decoding.refuse_other_cache, why_waves).
        """
        self.policy = policy
        self.tokenizer = tokenizer
        self.value = value
        self.version = version
        self.waves = waves
        self.context = context_length(policy.model)

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        *,
        seed: int,
        values: bool = False,
        choose: Choose | None = None,
        keep_allowed: bool = True,
        on_progress: Callable[[int, int], None] | None = None,
        only: Sequence[int] | None = None,
    ) -> Rollout:
        """`sampling.num_samples` completions of every prompt, rows ordered prompt by prompt.

        keep_allowed: whether the rollout tells which tokens `choose` left, up to V numbers for each token drawn.
        on_progress: told how many completions of how many are done. only: numbers of the prompts, at least one, that
        are sampled here, the same completions as among all; the others' rows are left out.

        Raises GenerationError when a prompt leaves no room for `max_new_tokens` in the model's context.
        """
        ids = [prompt_ids(prompt, self.tokenizer, max_tokens=sampling.max_prompt_tokens) for prompt in prompts]
        draws = Draws.of([(seed, number) for number in range(len(ids))])
        rollout = self._sample(prompts, ids, sampling, draws, values, choose, keep_allowed, on_progress, only)
        if only is None:
            return rollout
        samples = sampling.num_samples
        return rollout.rows([i * samples + g for i in sorted(only) for g in range(samples)])

    @torch.no_grad()
    def sample_ids(self, prompts: Ids, sampling: Sampling, draws: Draws) -> Rollout:
        """`sample` for prompts that are token ids already and that each may have a seed of its own.

        `texts` are the plain completions, what a chat template puts around them included.
        """
        shown = [Prompt(self.tokenizer.decode(ids)) for ids in prompts]
        return self._sample(shown, [[*ids] for ids in prompts], sampling, draws, False, None, False, None)

    def _sample(
        self,
        prompts: Sequence[Prompt],
        ids: list[list[int]],
        sampling: Sampling,
        draws: Draws,
        values: bool,
        choose: Choose | None,
        keep_allowed: bool,
        on_progress: Callable[[int, int], None] | None,
        only: Sequence[int] | None = None,
    ) -> Rollout:
        """Rows for all prompts; those of prompts that are not among `only` are empty."""
        for prompt, tokens in zip(prompts, ids, strict=True):
            if self.context is not None and self._reach(len(tokens), sampling.max_new_tokens) > self.context:
                raise GenerationError(
                    f'prompt "{prompt.text[:40]}…" has {len(tokens)} tokens and max_new_tokens is '
                    f"{sampling.max_new_tokens}, but the model's context is {self.context}; set max_prompt_tokens"
                )
        samples = sampling.num_samples
        longest = max(map(len, ids)) + sampling.max_new_tokens
        room = rows_together(cache_of_token(self.policy.model), longest, samples)
        waiting = sorted(range(len(ids)) if only is None else only, key=lambda i: len(ids[i]))
        total = len(waiting) * samples
        drawn = _Drawn(len(ids) * samples, keep_allowed=keep_allowed)
        decoding = begin_decoding(self.policy, rows=min(room, total), longest=longest)
        in_waves = self.waves or decoding.waves is not None or getattr(choose, "waves", None) is not None
        rows = np.empty(0, dtype=np.int64)
        hidden: Tensor | None = None
        while waiting or len(rows):
            free = (room - len(rows)) // samples
            enough = min(len(waiting), room // samples // 4 + 1)  # a few prompts cost nearly as much as many
            if waiting and (len(rows) == 0 or (not in_waves and free >= enough)):
                # The longest first: too small a memory shows at once, and like lengths go together.
                entering = [waiting.pop() for _ in range(min(free, len(waiting)))]
                begun = (np.array(entering)[:, None] * samples + np.arange(samples)).flatten()
                _tell(choose, "admit", begun)
                self.policy.activate()  # a hook may have run another role on the same base
                states = decoding.admit([ids[i] for i in entering], samples)
                hidden = states if hidden is None else torch.cat([hidden, states])
                rows = np.concatenate([rows, begun])
            assert hidden is not None
            chosen = self._choose(decoding, hidden, rows, drawn, sampling, draws, values, choose)
            _tell(choose, "drawn", rows, chosen)
            ended = np.array([self._has_ended(drawn, row, sampling) for row in rows.tolist()])
            if ended.any():
                _tell(choose, "drop", rows[ended])
                if on_progress is not None:
                    on_progress(drawn.num_finished, total)
                places = _closed_up(~ended)
                rows = rows[places]
                index = torch.from_numpy(places).to(chosen.device)
                decoding.keep(index)
                chosen = chosen[index]
            self.policy.activate()
            hidden = decoding.step(chosen) if len(rows) else None
        return self._collect(prompts, ids, drawn, sampling)

    def _reach(self, prompt: int, answer: int) -> int:
        """Positions that a prompt and an answer of so many tokens take; an encoder-decoder counts them apart."""
        return max(prompt + 1, answer) if self.policy.model.config.is_encoder_decoder else prompt + answer

    def _choose(
        self,
        decoding: Decoding,
        hidden: Tensor,
        rows: npt.NDArray[np.int64],
        drawn: _Drawn,
        sampling: Sampling,
        draws: Draws,
        values: bool,
        choose: Choose | None,
    ) -> Tensor:
        """The next token of each row, int64 [R], recorded with its numbers."""
        logits = decoding.logits(hidden).float() / (sampling.temperature or 1.0)
        limited = logits if choose is None else _limited(choose, logits, hidden, rows)
        if sampling.temperature == 0:
            ids = limited.argmax(-1)
        else:
            place, sample = np.divmod(rows, sampling.num_samples)
            ids = draw(limited, uniforms(draws.seeds[place], draws.numbers[place], sample, drawn.counts(rows)))
        logprobs = token_logprobs(logits, ids)
        sampled = logprobs if choose is None else token_logprobs(limited, ids)
        value = None
        if values and self.value is not None and self.value.head is not None and self.value.shares_trunk(self.policy):
            head = self.value.head
            value = head(hidden.to(head.weight.dtype)).squeeze(-1).float()
        drawn.add(rows, ids, logprobs, sampled, value, None if choose is None else limited)
        return ids

    def _has_ended(self, drawn: _Drawn, row: int, sampling: Sampling) -> bool:
        ids = drawn.ids[row]
        finish: Finish | None = "length" if len(ids) == sampling.max_new_tokens else None
        if ids[-1] == self.tokenizer.eos_token_id:
            finish = "eos"
        elif sampling.stop:
            text = self.tokenizer.decode(ids, skip_special_tokens=True)
            if any(stop in text for stop in sampling.stop):
                finish = "stop"
        if finish is not None:
            drawn.finish[row] = finish
            drawn.num_finished += 1
        return finish is not None

    def _collect(self, prompts: Sequence[Prompt], ids: list[list[int]], drawn: _Drawn, sampling: Sampling) -> Rollout:
        device = self.policy.device
        group = [row // sampling.num_samples for row in range(len(drawn.ids))]
        rows = zip(group, drawn.ids, drawn.finish, strict=True)
        texts = [answer_text(prompts[i], row, finish, sampling, self.tokenizer) for i, row, finish in rows]
        lengths = torch.tensor([len(row) for row in drawn.ids], device=device)
        return Rollout(
            prompts=[ids[i] for i in group],
            completions=drawn.ids,
            texts=texts,
            group=torch.tensor(group, device=device),
            finish=drawn.finish,
            version=torch.full((len(group),), self.version, device=device),
            temperature=sampling.temperature or 1.0,  # greedy: the logprobs are those of the policy itself
            logprobs=drawn.numbers("logprobs"),
            sampled_logprobs=drawn.numbers("sampled"),
            mask=torch.arange(int(lengths.max()), device=device) < lengths[:, None],
            values=drawn.numbers("values") if drawn.values else None,
            allowed=drawn.allowed if any(limit for row in drawn.allowed for limit in row) else None,
        )


def answer_text(prompt: Prompt, ids: list[int], finish: Finish, sampling: Sampling, tokenizer: Any) -> str:
    """The text of a sampled completion, cut before the stop string that ended it."""
    text = completion_text(prompt, ids, tokenizer)
    if finish != "stop":
        return text
    # None is left where the stop string was the template's own, which `completion_text` took away.
    return text[: min((text.find(stop) for stop in sampling.stop if stop in text), default=None)]


class _Drawn:
    """What was drawn so far: ids row by row, numbers step by step as they come off the device."""

    def __init__(self, num_rows: int, *, keep_allowed: bool) -> None:
        self.keep_allowed = keep_allowed
        self.ids: list[list[int]] = [[] for _ in range(num_rows)]
        self.finish: list[Finish] = ["abort"] * num_rows
        self.num_finished = 0
        self.allowed: list[list[list[int]]] = [[] for _ in range(num_rows)]
        self.places: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
        self.logprobs: list[Tensor] = []
        self.sampled: list[Tensor] = []
        self.values: list[Tensor] = []

    def counts(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Tokens of these rows so far."""
        return np.array([len(self.ids[row]) for row in rows.tolist()])

    def add(
        self,
        rows: npt.NDArray[np.int64],
        ids: Tensor,
        logprobs: Tensor,
        sampled: Tensor,
        values: Tensor | None,
        limited: Tensor | None,
    ) -> None:
        self.places.append((rows, self.counts(rows)))
        self.logprobs.append(logprobs)
        self.sampled.append(sampled)
        if values is not None:
            self.values.append(values)
        for row, token in zip(rows.tolist(), ids.tolist(), strict=True):
            self.ids[row].append(token)
        if limited is not None and self.keep_allowed:
            for row, finite in zip(rows.tolist(), limited.isfinite(), strict=True):
                self.allowed[row].append([] if finite.all() else finite.nonzero().squeeze(-1).tolist())

    def numbers(self, name: str) -> Tensor:
        """float32 [N, T] of what was recorded under this name, 0 after the end of a row."""
        rows, steps = (np.concatenate(part) for part in zip(*self.places, strict=True))
        flat = torch.cat(getattr(self, name))
        spread = flat.new_zeros(len(self.ids), max(map(len, self.ids)))
        spread[torch.from_numpy(rows).to(flat.device), torch.from_numpy(steps).to(flat.device)] = flat
        return spread


def _limited(choose: Choose, logits: Tensor, hidden: Tensor, rows: npt.NDArray[np.int64]) -> Tensor:
    """What the hook makes of a copy of the logits; GenerationError for what no token can be drawn from."""
    limited = choose(logits.clone(), hidden, torch.from_numpy(rows))
    if limited.shape != logits.shape:
        raise GenerationError(
            f"the choose hook returned logits {[*limited.shape]} for {[*logits.shape]}; return one for each token of "
            "each row, -inf for a token that it forbids"
        )
    largest = limited.amax(-1)  # NaN where one is in the row
    if not largest.isfinite().all():
        place = int((~largest.isfinite()).nonzero()[0])
        if largest[place] == -torch.inf:
            raise GenerationError(
                f"the choose hook forbids every token of row {rows[place]}; leave one, such as the end token"
            )
        raise GenerationError(
            f"the choose hook returned {float(largest[place])} for row {rows[place]}; return finite logits, and -inf "
            "for a token that it forbids"
        )
    return limited


def _tell(
    choose: Choose | None, what: Literal["admit", "drawn", "drop"], rows: npt.NDArray[np.int64], *more: Tensor
) -> None:
    if hasattr(choose, what):
        getattr(choose, what)(torch.from_numpy(rows), *more)


def _closed_up(kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Places of the rows that go on: those at the end move into the gaps, the others stay where they are."""
    count = int(kept.sum())
    places = np.arange(count)
    places[~kept[:count]] = count + np.flatnonzero(kept[count:])
    return places
