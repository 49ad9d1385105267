"""The optimizer's settings, which recipes name and engines follow."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from tuneful.settings import require_above, require_at_least


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimization:
    """AdamW (arXiv 1711.05101) and its schedule."""

    learning_rate: float = 1e-5
    """Peak learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """After the warm-up, from the peak to 0 where the run ends (linear, cosine), or not at all."""
    warmup_steps: int = 0
    """Optimizer steps with a rising rate, from peak / `warmup_steps` in the first to the peak in the last. A stage with
    no more steps than these takes a tenth of its own, and says so."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    adam_eps: float = 1e-5
    """Adam's epsilon; 1e-5 as in PPO's reference code."""

    def __post_init__(self) -> None:
        require_above(0, self, "optimization.", "learning_rate", "adam_eps")
        require_at_least(0, self, "optimization.", "warmup_steps", "weight_decay")

    def within(self, total_steps: int) -> Optimization:
        """The same for a run of `total_steps`: a warm-up that would not end before it does becomes a tenth of it."""
        return self if self.warmup_steps < total_steps else replace(self, warmup_steps=total_steps // 10)

    def rate(self, step: int, total_steps: int) -> float:
        """Learning rate of optimizer step `step` (from 0) out of `total_steps`."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(total_steps - self.warmup_steps, 1)
        if self.schedule == "linear":
            return self.learning_rate * max(1 - done, 0.0)
        if self.schedule == "cosine":
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
        return self.learning_rate
