"""The weight of the KL penalty: held fixed, or steered so that the KL stays near a target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Protocol

from tuneful.errors import ConfigError


class KLController(Protocol):
    """Holds the KL coefficient of the next step; its state is saved with the checkpoint."""

    @property
    def coef(self) -> float:
        """Score units per nat of sequence KL."""
        ...

    def update(self, kl: float, num_completions: int) -> None:
        """Tell the mean KL in nats per sequence that was measured over `num_completions` completions."""
        ...

    def state(self) -> dict[str, float]:
        """What `restore` needs, as JSON."""
        ...

    def restore(self, state: Mapping[str, float]) -> None:
        """Go on from what `state` returned."""
        ...


@dataclass(slots=True)
class FixedKL:
    """The same coefficient at every step.

    Raises ConfigError unless `coef` is a number of at least 0.
    """

    coef: float
    """Score units per nat of sequence KL."""

    def __post_init__(self) -> None:
        if not (isfinite(self.coef) and self.coef >= 0):
            raise ConfigError(f"kl_coef must be at least 0, got {self.coef}; 0 trains without a leash")

    def update(self, kl: float, num_completions: int) -> None:
        """Nothing moves it."""

    def state(self) -> dict[str, float]:
        return {"coef": self.coef}

    def restore(self, state: Mapping[str, float]) -> None:
        self.coef = state["coef"]


@dataclass(slots=True)
class AdaptiveKL:
    """A coefficient that rises when the KL is above its target and falls when it is below.

    coef <- coef (1 + e n / horizon) with e = clip(kl / target - 1, -0.2, 0.2) and n the completions of the step
    (Ziegler et al. 2019, section 2.2). Raises ConfigError for a setting with which this cannot steer.
    """

    coef: float
    """Score units per nat of sequence KL; the value of the first step."""
    target: float
    """Nats per sequence to hold."""
    horizon: float
    """Completions over which the coefficient answers; the paper uses 10000."""

    def __post_init__(self) -> None:
        if not (isfinite(self.coef) and self.coef > 0):
            raise ConfigError(f"kl_coef must be above 0 to be adapted, got {self.coef}; the paper starts at 0.2")
        if not (isfinite(self.target) and self.target > 0):
            raise ConfigError(f"kl_target must be above 0 nats per sequence, got {self.target}; the paper uses 6")
        if not (isfinite(self.horizon) and self.horizon > 0):
            raise ConfigError(f"kl_horizon must be above 0 completions, got {self.horizon}; the paper uses 10000")

    def check_step(self, num_completions: int) -> None:
        """Raises ConfigError when one step of `num_completions` could turn the coefficient negative."""
        if 0.2 * num_completions >= self.horizon:
            raise ConfigError(
                f"kl_horizon counts completions and must exceed a fifth of a step's {num_completions}, got "
                f"{self.horizon}; the paper uses 10000"
            )

    def update(self, kl: float, num_completions: int) -> None:
        self.check_step(num_completions)
        error = min(max(kl / self.target - 1, -0.2), 0.2)
        self.coef *= 1 + error * num_completions / self.horizon

    def state(self) -> dict[str, float]:
        return {"coef": self.coef}

    def restore(self, state: Mapping[str, float]) -> None:
        self.coef = state["coef"]
