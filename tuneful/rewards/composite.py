"""A weighted sum of rewards, each held within its bounds first, so that none of them can drown the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tuneful.records import Completion, Prompt
from tuneful.rewards.reward import Reward, checked


@dataclass(frozen=True, slots=True)
class WeightedReward:
    """One part of a sum: weight * clamp(score, -clip, clip)."""

    name: str
    reward: Reward
    weight: float = 1.0
    clip: float | None = None

    def counted(self, scores: Tensor) -> Tensor:
        """What `scores` of this part add to the sum."""
        return self.weight * (scores if self.clip is None else scores.clamp(-self.clip, self.clip))


@dataclass(frozen=True, slots=True)
class Composite:
    """The sum of its parts, whose names differ."""

    parts: tuple[WeightedReward, ...]

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
        """float32 [N] scores of N completions."""
        scores = self.scores(prompts, completions)
        return torch.stack([part.counted(scores[part.name]) for part in self.parts]).sum(dim=0)

    def scores(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> dict[str, Tensor]:
        """float32 [N] of each part by its name, before clip and weight."""
        return {part.name: checked(part.reward, prompts, completions).cpu() for part in self.parts}
