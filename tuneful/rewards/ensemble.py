"""Several reward models as one: what they agree on is worth more than what one of them has taken a liking to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from tuneful.errors import ConfigError
from tuneful.records import Completion, Prompt
from tuneful.rewards.reward import Reward, checked
from tuneful.settings import require_at_least

Combine = Literal["mean", "worst", "mean_minus_variance"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ensemble:
    """Rewards that judge together, which must be on one scale: nothing here brings them to one."""

    ensemble: tuple[Annotated[str, "rewards"], ...]
    """Its members: `@stage`, a reward model, a rule or `./file.py:function`."""
    combine: Combine = "mean"
    """Their mean, the worst of them, or their mean less `variance_coef` times their variance."""
    variance_coef: float | None = None
    """What disagreement costs with `mean_minus_variance`, which needs it."""

    def __post_init__(self) -> None:
        if len(self.ensemble) < 2:
            raise ConfigError(
                f"ensemble: needs at least 2 members, got {len(self.ensemble)}; write a single one as reward itself"
            )
        if (self.combine == "mean_minus_variance") != (self.variance_coef is not None):
            raise ConfigError('ensemble: variance_coef goes with combine = "mean_minus_variance", and neither alone')
        require_at_least(0, self, "ensemble: ", "variance_coef")


def combined(scores: Tensor, combine: Combine, variance_coef: float | None = None) -> Tensor:
    """float [N] from the scores [K, N] of K members (Coste et al. 2023, arXiv 2310.02743).

    mean; worst: min over the members (WCO); mean_minus_variance: mean - variance_coef * variance (UWO), the variance
    being the mean square about the mean.
    """
    if combine == "worst":
        return scores.min(dim=0).values
    mean = scores.mean(dim=0)
    if combine == "mean":
        return mean
    assert variance_coef is not None
    return mean - variance_coef * scores.var(dim=0, correction=0)


@dataclass(frozen=True, slots=True)
class EnsembleReward:
    """Loaded members and how their scores become one."""

    members: tuple[Reward, ...]
    combine: Combine = "mean"
    variance_coef: float | None = None

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
        """float32 [N] scores of N completions."""
        scores = torch.stack([checked(member, prompts, completions).cpu() for member in self.members])
        return combined(scores, self.combine, self.variance_coef)
