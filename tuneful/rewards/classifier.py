"""A sequence classifier as a reward: how much one of its labels is that of a completion.

The reward is the raw logit and not the probability: dp / dz = p (1 - p) dies where p nears 1, so that good and better
would look alike. One logit is not all of it, for adding c to every logit leaves the classifier as it is; the log-odds
are free of that c.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from tuneful.data.batching import TOKENS_PER_PASS
from tuneful.errors import RewardError
from tuneful.models.forward import class_logits, shares_prompts
from tuneful.models.loading import head_of, is_adapter, is_scorer, load_scorer, load_tokenizer
from tuneful.models.roles import Role
from tuneful.records import Completion, Prompt
from tuneful.rewards.learned import context_of, encode_pair, in_batches

Output = Literal["logit", "logodds", "probability"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Classifier:
    """A classifier of two or more labels, one of which counts."""

    classifier: Annotated[str, "models"]
    """Model directory or hub id."""
    label: str | int | None = None
    """The label that counts, by name or number; left out, the error lists what there is."""
    output: Output = "logit"
    """Its raw logit, its log-odds against all others, or its probability."""
    with_prompt: bool = False
    """Read the prompt too, as a segment of its own; without it, the completion alone."""


def class_scores(logits: Tensor, label: int, output: Output, *, independent: bool = False) -> Tensor:
    """float [N] of logits [N, C]: z of the label; z - logsumexp of the other labels; or the sigmoid of that, which is
    the softmax. independent: labels do not exclude each other, so that z is the log-odds of each.
    """
    logit = logits[:, label]
    if output == "logit":
        return logit
    others = torch.cat([logits[:, :label], logits[:, label + 1 :]], dim=1)
    logodds = logit if independent else logit - others.logsumexp(-1)
    return logodds if output == "logodds" else logodds.sigmoid()


@dataclass(frozen=True, slots=True)
class ClassifierReward:
    """A loaded classifier. Completions longer than its context are cut at their end; prompts lose their beginning."""

    role: Role
    tokenizer: Any
    label: int
    output: Output = "logit"
    with_prompt: bool = False
    tokens_per_batch: int = TOKENS_PER_PASS
    padding: Literal["right", "left"] = "right"
    """Which side short rows are filled on; scores do not depend on it, and the start-up check shows it."""

    @classmethod
    def load(cls, given: Classifier, path: str | Path) -> ClassifierReward:
        """The classifier in directory `path` (or hub id) with the settings `given`.

        Raises RewardError, with the labels there are, for a label there is not; and for what is no classifier.
        """
        if is_adapter(path) or not is_scorer(path):
            raise RewardError(f"{path}: no sequence classifier of its own; an adapter must be merged into its base")
        model = load_scorer(path)
        labels = [model.config.id2label[i] for i in range(model.config.num_labels)]
        if len(labels) == 1:
            raise RewardError(f'{path}: gives one score and no labels; write it as a reward model, reward = "{path}"')
        head = head_of(model)
        tokenizer = load_tokenizer(path, needs_end=head is not None and given.with_prompt)
        if not hasattr(tokenizer, "backend_tokenizer"):
            raise RewardError(f"{path}: has no fast tokenizer; save one with it as tokenizer.json")
        label = _number(given.label, labels, str(path))
        return cls(Role("classifier", model, head=head), tokenizer, label, given.output, given.with_prompt)

    @torch.no_grad()
    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
        """float32 [N] scores of N completions."""
        rows = [self.encode(p, c) for p, c in zip(prompts, completions, strict=True)]
        independent = self.role.model.config.problem_type == "multi_label_classification"

        def read(first: list[list[int]], second: list[list[int]]) -> Tensor:
            logits = class_logits(self.role, first, second, padding=self.padding)
            return class_scores(logits, self.label, self.output, independent=independent)

        return in_batches(read, rows, self.tokens_per_batch, shared=shares_prompts(self.role, self.padding))

    def encode(self, prompt: Prompt, completion: Completion) -> tuple[list[int], list[int]]:
        """Ids of the first and of the second segment, special tokens where the model's own tokenizer puts them.

        A decoder that reads the prompt too is given both in the chat form.
        """
        if self.with_prompt and self.role.head is not None:
            return encode_pair(prompt, completion.text, self.tokenizer, self.role, ended=completion.ended)
        backend = self.tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True  # a special token spelled in a text is text
        room = context_of(self.role, self.tokenizer) - backend.num_special_tokens_to_add(self.with_prompt)
        answer = backend.encode(completion.text, add_special_tokens=False)
        answer.truncate(room)
        row, end = backend.post_process(answer), self.tokenizer.eos_token_id
        if self.with_prompt:
            question = backend.encode(prompt.text, add_special_tokens=False)
            question.truncate(room - len(answer.ids), direction="left")
            row = backend.post_process(question, answer)
        places = zip(row.ids, row.type_ids, row.special_tokens_mask, strict=True)
        # T5's tokenizer cannot spell its end token, and its classifier reads the score at the last one.
        kept = [(token, segment) for token, segment, special in places if special or token != end]
        # A decoder's tokenizer may add nothing to an empty answer, and a row must have a token.
        ids = [token for token, _ in kept] or [end or 0]
        first = next((place for place, (_, segment) in enumerate(kept) if segment == 1), len(ids))
        return ids[:first], ids[first:]


def _number(label: str | int | None, labels: Sequence[str], path: str) -> int:
    """The number of a label that is given by name or number."""
    offered = ", ".join(f'{i} = "{name}"' for i, name in enumerate(labels))
    if label is None:
        raise RewardError(
            f'{path}: say which label counts, for example label = "{labels[0]}"; its labels are {offered}'
        )
    if isinstance(label, int):
        if not 0 <= label < len(labels):
            raise RewardError(f"{path}: no label {label}; its labels are {offered}")
        return label
    if label not in labels:
        raise RewardError(f'{path}: no label "{label}"; its labels are {offered}')
    if labels.count(label) > 1:
        raise RewardError(f'{path}: {labels.count(label)} labels are called "{label}"; give its number: {offered}')
    return labels.index(label)
