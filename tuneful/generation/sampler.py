"""The in-process sampler: rows that leave when they finish, every number recorded on the way.

What a model computes for them, and the cache that it keeps, is in decoding.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tuneful.data.templates import completion_text, prompt_ids
from tuneful.errors import GenerationError
from tuneful.generation.decoding import begin_decoding, rows_together
from tuneful.generation.rollout import Rollout
from tuneful.generation.sampling import Sampling, draw, uniforms
from tuneful.models.forward import lm_logits
from tuneful.models.loading import context_length
from tuneful.models.roles import Role
from tuneful.records import Finish, Prompt

Choose = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits [R, V] after temperature, hidden [R, d], row numbers [R]) -> logits [R, V]; -inf forbids a token."""


class Sampler:
    """Samples completions from a policy role. `value` is read off the same hidden states when it shares the trunk."""

    def __init__(self, policy: Role, tokenizer: Any, *, value: Role | None = None, version: int = 0) -> None:
        self.policy = policy
        self.tokenizer = tokenizer
        self.value = value
        self.version = version
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
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Rollout:
        """`sampling.num_samples` completions of every prompt, rows ordered prompt by prompt.

        on_progress: told how many completions of how many are done.

        Raises GenerationError when a prompt leaves no room for `max_new_tokens` in the model's context.
        """
        ids = [prompt_ids(prompt, self.tokenizer, max_tokens=sampling.max_prompt_tokens) for prompt in prompts]
        for prompt, tokens in zip(prompts, ids, strict=True):
            if self.context is not None and len(tokens) + sampling.max_new_tokens > self.context:
                raise GenerationError(
                    f'prompt "{prompt.text[:40]}…" has {len(tokens)} tokens and max_new_tokens is '
                    f"{sampling.max_new_tokens}, but the model's context is {self.context}; set max_prompt_tokens"
                )
        decoded: list[_Row] = []
        longest = max(map(len, ids)) + sampling.max_new_tokens
        for chunk in _chunks(ids, rows_together(self.policy.model, longest) // sampling.num_samples or 1):
            decoded += self._decode(chunk, ids, sampling, seed, values, choose)
            if on_progress is not None:
                on_progress(len(decoded), len(prompts) * sampling.num_samples)
        decoded.sort(key=lambda row: (row.prompt, row.sample))
        return self._collect(prompts, ids, decoded, sampling, values)

    def _decode(
        self,
        chunk: list[int],
        ids: list[list[int]],
        sampling: Sampling,
        seed: int,
        values: bool,
        choose: Choose | None,
    ) -> list[_Row]:
        rows = [_Row(prompt, sample) for prompt in chunk for sample in range(sampling.num_samples)]
        decoding = begin_decoding(self.policy, [ids[i] for i in chunk], sampling.num_samples)
        hidden = decoding.hidden
        alive = list(range(len(rows)))
        for step in range(sampling.max_new_tokens):
            chosen, facts = self._choose_tokens(hidden, [rows[r] for r in alive], step, sampling, seed, values, choose)
            for r, fact in zip(alive, facts, strict=True):
                rows[r].add(fact)
                rows[r].finish = self._finished(rows[r], step, sampling)
            keep = [k for k, r in enumerate(alive) if rows[r].finish is None]
            if not keep:
                break
            if len(keep) < len(alive):
                index = torch.tensor(keep, device=self.policy.device)
                decoding.keep(index)
                alive, chosen = [alive[k] for k in keep], chosen[index]
            hidden = decoding.step(chosen)
        return rows

    def _choose_tokens(
        self,
        hidden: Tensor,
        rows: list[_Row],
        step: int,
        sampling: Sampling,
        seed: int,
        values: bool,
        choose: Choose | None,
    ) -> tuple[Tensor, list[_Fact]]:
        logits = lm_logits(self.policy.model, hidden).float() / (sampling.temperature or 1.0)
        prompt, sample = (np.array([getattr(row, key) for row in rows]) for key in ("prompt", "sample"))
        limited = logits
        if choose is not None:
            limited = choose(logits, hidden, torch.from_numpy(prompt * sampling.num_samples + sample))
        if sampling.temperature == 0:
            ids = limited.argmax(-1)
        else:
            ids = draw(limited, uniforms(seed, prompt, sample, step))
        logprobs = logits.log_softmax(-1).gather(-1, ids[:, None]).squeeze(-1)
        sampled = limited.log_softmax(-1).gather(-1, ids[:, None]).squeeze(-1) if choose is not None else logprobs
        value = [0.0] * len(rows)
        if values and self.value is not None and self.value.head is not None and self.value.shares_trunk(self.policy):
            head = self.value.head
            value = head(hidden.to(head.weight.dtype)).squeeze(-1).float().tolist()
        allowed: list[list[int] | None] = [None] * len(rows)
        if choose is not None:
            allowed = [row.isfinite().nonzero().squeeze(-1).tolist() for row in limited]
        facts = zip(ids.tolist(), logprobs.tolist(), sampled.tolist(), value, allowed, strict=True)
        return ids, list(facts)

    def _finished(self, row: _Row, step: int, sampling: Sampling) -> Finish | None:
        if row.ids[-1] == self.tokenizer.eos_token_id:
            return "eos"
        if sampling.stop:
            text = self.tokenizer.decode(row.ids, skip_special_tokens=True)
            if any(stop in text for stop in sampling.stop):
                return "stop"
        return "length" if step + 1 == sampling.max_new_tokens else None

    def _collect(
        self, prompts: Sequence[Prompt], ids: list[list[int]], rows: list[_Row], sampling: Sampling, values: bool
    ) -> Rollout:
        device = self.policy.device
        texts = [completion_text(prompts[row.prompt], row.ids, self.tokenizer) for row in rows]
        for k, row in enumerate(rows):
            if row.finish == "stop":
                # None is left where the stop string was the template's own, which `completion_text` took away.
                cuts = [texts[k].find(stop) for stop in sampling.stop if stop in texts[k]]
                texts[k] = texts[k][: min(cuts, default=None)]
        width = max(len(row.ids) for row in rows)
        mask = torch.tensor([[t < len(row.ids) for t in range(width)] for row in rows], device=device)

        def numbers(lists: Iterator[list[float]]) -> Tensor:
            return torch.tensor([line + [0.0] * (width - len(line)) for line in lists], device=device)

        with_values = values and self.value is not None and self.value.shares_trunk(self.policy)
        has_limits = any(limit is not None for row in rows for limit in row.allowed)
        return Rollout(
            prompts=[ids[row.prompt] for row in rows],
            completions=[row.ids for row in rows],
            texts=texts,
            group=torch.tensor([row.prompt for row in rows], device=device),
            finish=[row.finish or "abort" for row in rows],
            version=torch.full((len(rows),), self.version, device=device),
            temperature=sampling.temperature or 1.0,  # greedy: the logprobs are those of the policy itself
            logprobs=numbers(row.logprobs for row in rows),
            sampled_logprobs=numbers(row.sampled for row in rows),
            mask=mask,
            values=numbers(row.values for row in rows) if with_values else None,
            allowed=[[limit or [] for limit in row.allowed] for row in rows] if has_limits else None,
        )


_Fact = tuple[int, float, float, float, list[int] | None]


class _Row:
    """One completion while it grows."""

    def __init__(self, prompt: int, sample: int) -> None:
        self.prompt = prompt
        self.sample = sample
        self.finish: Finish | None = None
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.sampled: list[float] = []
        self.values: list[float] = []
        self.allowed: list[list[int] | None] = []

    def add(self, fact: _Fact) -> None:
        for history, item in zip((self.ids, self.logprobs, self.sampled, self.values, self.allowed), fact, strict=True):
            history.append(item)  # type: ignore[attr-defined]


def _chunks(ids: list[list[int]], size: int) -> Iterator[list[int]]:
    """Prompt numbers in runs of like length, so that little is padded."""
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    for start in range(0, len(order), size):
        yield order[start : start + size]
