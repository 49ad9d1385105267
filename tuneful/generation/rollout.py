"""The rollout: what was sampled, token by token, and every number recorded while it was.

Ids are ragged, numbers are [N, T] with one mask (docs/decisions/0001). A rollout is never changed, only replaced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tuneful.records import Completion, Finish


class Scored(NamedTuple):
    """Token ids of a prompt and a completion, its score, and what it counts beside other completions."""

    prompt: list[int]
    completion: list[int]
    score: float
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """N completions; T tokens in the longest. Two rows, the second one token shorter:

    completions [[7, 9, 2], [5, 2]]  ->  mask [[True, True, True], [True, True, False]]
    """

    prompts: list[list[int]]
    completions: list[list[int]]
    texts: list[str]
    group: Tensor
    """int64 [N]: which prompt of the call a row answers."""
    finish: list[Finish]
    version: Tensor
    """int64 [N]: the policy version that sampled the row."""
    temperature: float
    logprobs: Tensor
    """float32 [N, T] under the policy at `temperature`."""
    sampled_logprobs: Tensor
    """float32 [N, T] under the distribution drawn from; the same unless a `choose` hook was set."""
    mask: Tensor
    """bool [N, T]: True = a token the policy chose."""
    values: Tensor | None = None
    """float32 [N, T]: of the states before each token."""
    reference_logprobs: Tensor | None = None
    """float32 [N, T] under the reference at `temperature`."""
    scores: Tensor | None = None
    """float32 [N]: reward of the whole completion."""
    allowed: list[list[list[int]]] | None = None
    """The ids that a `choose` hook left for each token of each row, in order, [] where it left all; None where it never
    forbade one, and where they are not kept. An id takes some 36 bytes: forbidding one token of a large vocabulary
    keeps all others, for each token that is sampled."""
    engine_mismatch: Mapping[str, float] = field(default_factory=dict)
    """Of a remote sampler: `engine_mismatch` and `engine_mismatch_mean`, the largest and the mean distance of a token's
    logprob there from its logprob here."""

    def __len__(self) -> int:
        return len(self.completions)

    @property
    def num_tokens(self) -> int:
        return int(self.mask.sum())

    def as_completions(self) -> list[Completion]:
        """The rows as records, tokens and finish reason kept, for rewards."""
        rows = zip(self.texts, self.completions, self.finish, strict=True)
        return [Completion(text, tuple(ids), finish) for text, ids, finish in rows]

    def rows(self, keep: Sequence[int]) -> Rollout:
        """The rollout of these rows, [N, T] numbers keep their width."""
        index = torch.as_tensor(keep, dtype=torch.int64, device=self.mask.device)

        def pick(numbers: Tensor | None) -> Tensor | None:
            return None if numbers is None else numbers[index]

        return replace(
            self,
            prompts=[self.prompts[i] for i in keep],
            completions=[self.completions[i] for i in keep],
            texts=[self.texts[i] for i in keep],
            finish=[self.finish[i] for i in keep],
            group=self.group[index],
            version=self.version[index],
            logprobs=self.logprobs[index],
            sampled_logprobs=self.sampled_logprobs[index],
            mask=self.mask[index],
            values=pick(self.values),
            reference_logprobs=pick(self.reference_logprobs),
            scores=pick(self.scores),
            allowed=None if self.allowed is None else [self.allowed[i] for i in keep],
        )

    def to(self, device: torch.device | str) -> Rollout:
        """The same rollout with its numbers on `device`."""
        held = {part.name: getattr(self, part.name) for part in fields(self)}
        moved: dict[str, Any] = {name: n.to(device) for name, n in held.items() if isinstance(n, Tensor)}
        return replace(self, **moved)


def joined(parts: Sequence[Rollout]) -> Rollout:
    """One rollout of the rows of all `parts`, in the order of their prompts' numbers.

    parts: rollouts of one policy, each as the sampler returns it for some prompts of the same call.
    """
    width = max(part.mask.shape[1] for part in parts)

    def numbers(name: str) -> Tensor:
        return torch.cat([F.pad(getattr(part, name), (0, width - part.mask.shape[1])) for part in parts])

    allowed = [rows for part in parts for rows in part.allowed or [[[] for _ in row] for row in part.completions]]
    together = Rollout(
        prompts=[row for part in parts for row in part.prompts],
        completions=[row for part in parts for row in part.completions],
        texts=[text for part in parts for text in part.texts],
        group=torch.cat([part.group for part in parts]),
        finish=[finish for part in parts for finish in part.finish],
        version=torch.cat([part.version for part in parts]),
        temperature=parts[0].temperature,
        logprobs=numbers("logprobs"),
        sampled_logprobs=numbers("sampled_logprobs"),
        mask=numbers("mask"),
        values=None if parts[0].values is None else numbers("values"),
        allowed=None if all(part.allowed is None for part in parts) else allowed,
    )
    return together.rows(together.group.argsort(stable=True).tolist())
