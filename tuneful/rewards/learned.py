"""A trained reward model as a reward: decoder or encoder, normalised by the gain and bias it was saved with."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from tuneful.data.batching import TOKENS_PER_PASS, token_budget_batches
from tuneful.data.templates import pair_ids, text_ids
from tuneful.errors import ConfigError, ModelError, RewardError
from tuneful.models.forward import reward_scores, shares_prompts
from tuneful.models.loading import head_of, is_scorer, load_scorer, load_tokenizer, read_reward_file
from tuneful.models.roles import Role, reward_on
from tuneful.records import Completion, Prompt
from tuneful.rewards.rules import longer


@dataclass(frozen=True, slots=True)
class LearnedReward:
    """score = gain * (raw - length_slope * words) + bias, of mean 0 on reference completions (InstructGPT, arXiv
    2203.02155), here of standard deviation 1 too."""

    role: Role
    tokenizer: Any
    gain: float = 1.0
    bias: float = 0.0
    length_slope: float = 0.0
    """What a word more is worth on reference completions, in raw scores, and is taken off; 0 leaves length alone."""
    max_tokens: int | None = None
    """Longest prompt + completion; prompts are cut on the left first (`encode`). None: the model's context."""
    tokens_per_batch: int = TOKENS_PER_PASS
    padding: Literal["right", "left"] = "right"
    """Which side short rows are filled on; scores do not depend on it, and the start-up check shows it."""

    @classmethod
    def load(cls, path: str | Path, *, base: Role | None = None) -> LearnedReward:
        """The reward model in directory `path` (or hub id), with its `reward.json` when there is one.

        Raises RewardError for a language model, whose head would be random, and for a classifier of several labels.

        base: a role whose base model the reward, then an adapter on that base, is to share.
        """
        refuse_language_model(path)
        facts = read_reward_file(Path(path))
        if base is not None:
            role = reward_on(base, path)
        else:
            model = load_scorer(path)
            if model.config.num_labels != 1:
                raise RewardError(
                    f"{path}: gives {model.config.num_labels} labels; a reward model gives one score; of a classifier "
                    f'write which label counts, {{classifier = "{path}", label = "{model.config.id2label[0]}"}}'
                )
            role = Role("reward", model, head=head_of(model))
        return cls(
            role,
            load_tokenizer(path, needs_end=role.head is not None),
            gain=facts.get("gain", 1.0),
            bias=facts.get("bias", 0.0),
            length_slope=facts.get("length_slope", 0.0),
            max_tokens=facts.get("max_tokens"),
        )

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
        """float32 [N] normalised scores."""
        raw = self.raw(prompts, completions)
        if self.length_slope:
            raw = raw - self.length_slope * longer(prompts, completions).to(raw.device)
        return self.gain * raw + self.bias

    @torch.no_grad()
    def raw(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
        """float32 [N] scores as the head gives them."""
        rows = [self.encode(p, c) for p, c in zip(prompts, completions, strict=True)]
        read = partial(reward_scores, self.role, padding=self.padding)
        return in_batches(read, rows, self.tokens_per_batch, shared=shares_prompts(self.role, self.padding))

    def encode(self, prompt: Prompt, completion: Completion) -> tuple[list[int], list[int]]:
        """Ids of the prompt and of the completion as this model reads them.

        A completion that was cut off is scored without an end token, as it stands.
        """
        ended = completion.ended
        return encode_pair(prompt, completion.text, self.tokenizer, self.role, self.max_tokens, ended=ended)

    def normalised_on(
        self, prompts: Sequence[Prompt], completions: Sequence[Completion], *, length_control: bool = False
    ) -> LearnedReward:
        """This reward rescaled to mean 0 and standard deviation 1 on reference completions.

        length_control: what the least-squares line of their scores over their words says of length is taken off first,
        so that on them a score says nothing of length (Singhal et al. 2023, arXiv 2310.03716, on what it says else).
        """
        raw, slope = self.raw(prompts, completions), 0.0
        if length_control:
            words = longer(prompts, completions).to(raw.device)
            away = words - words.mean()
            slope = float((away * raw).sum() / away.square().sum()) if away.any() else 0.0
            raw = raw - slope * words
        spread = float(raw.std(correction=0))
        if not spread > 1e-6:
            raise RewardError(
                f"the reward model gives all {len(raw)} reference completions the score {float(raw.mean()):.3g}; "
                "it has learned nothing: more comparisons, more steps or a higher learning rate"
            )
        return replace(self, gain=1 / spread, bias=-float(raw.mean()) / spread, length_slope=slope)


def refuse_language_model(path: str | Path) -> None:
    """RewardError for a model without the head of a reward model, ModelError where there is no model at all."""
    if not is_scorer(path):
        raise RewardError(f'{path}: a language model, not a reward model; train one from it with algorithm = "reward"')


def in_batches(
    read: Callable[[list[list[int]], list[list[int]]], Tensor],
    rows: Sequence[tuple[list[int], list[int]]],
    tokens_per_batch: int,
    *,
    shared: bool,
) -> Tensor:
    """float32 [N], in the order of `rows`, of what `read` gives for the two parts of the rows in each batch.

    shared: rows of an equal first part go together. A `read` that does not share it wants rows of like length instead.
    """
    scores = torch.zeros(len(rows))
    lengths = [len(first) + len(second) for first, second in rows]
    prompts = [tuple(first) for first, _ in rows] if shared else None
    for batch in token_budget_batches(lengths, tokens_per_batch, prompts=prompts):
        found = read([rows[i][0] for i in batch], [rows[i][1] for i in batch])
        scores = scores.to(found.device)
        scores[torch.tensor(batch, device=found.device)] = found
    return scores


def context_of(role: Role, tokenizer: Any) -> int:
    """The longest row that the model of a role takes, in tokens."""
    known: int = min(tokenizer.model_max_length, sys.maxsize)  # 1e30 where it knows none
    positions: int = getattr(role.model.config.get_text_config(), "max_position_embeddings", known)
    if role.head is not None:
        return positions
    # RoBERTa counts positions from its pad id + 1, so its table is longer than its context.
    table = getattr(getattr(role.model.base_model, "embeddings", None), "position_embeddings", None)
    pad: int | None = getattr(table, "padding_idx", None)
    return min(positions if pad is None else positions - pad - 1, known)


def encode_pair(
    prompt: Prompt, completion: str, tokenizer: Any, role: Role, max_tokens: int | None = None, *, ended: bool = True
) -> tuple[list[int], list[int]]:
    """(prompt ids, completion ids) for a reward model: the chat form for decoders, else two segments (`_marks`).

    Raises ConfigError when `max_tokens` cannot hold a token of the answer and what stands around it.
    """
    context = context_of(role, tokenizer)
    limit = min(max_tokens or context, context)
    if role.head is None:
        begin, end = _marks(tokenizer, role.model.config)
        room = limit - len(begin) - 2
        if room < 1:
            raise ConfigError(
                f"an encoder reward needs room for at least {len(begin) + 3} tokens, got max_tokens = {limit}"
            )
        # An end token spelled in a text is text: a classifier may look for its score at the tokens that end the parts.
        question, answer = (text_ids(text, tokenizer, end) for text in (prompt.text, completion))
        answer = answer[:room]
        asked = question[max(len(question) - (room - len(answer)), 0) :]
        return [*begin, *asked, end], [*answer, end]
    return pair_ids(prompt, completion, tokenizer, max_tokens=limit, ended=ended)


def _marks(tokenizer: Any, config: Any) -> tuple[list[int], int]:
    """What stands before a prompt, and the token behind it and behind its answer: [CLS] prompt [SEP] answer [SEP].

    An encoder-decoder's classifier reads its score at the last end token, so that token ends both parts: BART's
    `<s> prompt </s> answer </s>`, and `prompt </s> answer </s>` for T5, whose tokenizer has no token to begin with.
    """
    begin, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    if config.is_encoder_decoder:
        return [] if begin is None else [begin], config.eos_token_id
    if begin is None or end is None:
        raise ModelError(
            f"{tokenizer.name_or_path}: the tokenizer has no cls_token or no sep_token, by which an encoder tells "
            "the prompt from the answer; set both in tokenizer_config.json"
        )
    return [begin], end
