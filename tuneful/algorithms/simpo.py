"""Simple preference optimization (Meng et al. 2024, arXiv 2405.14734): DPO without a reference, per token.

loss = -log sigmoid(beta * (m(chosen) - m(rejected)) - target_margin), m the mean log-probability per token, which is
what a model is judged by when it decodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from tuneful.algorithms.pairs import Pairs, PairsConfig, encode, learn_pairs, sides, weighed
from tuneful.data.batching import shuffled_batches
from tuneful.engines.optimization import Optimization
from tuneful.engines.protocol import Engine, Metrics
from tuneful.errors import ConfigError
from tuneful.functional.preference_losses import simpo_loss
from tuneful.models.forward import Outputs
from tuneful.records import Comparison
from tuneful.settings import require_above, require_at_least


@dataclass(frozen=True, kw_only=True, slots=True)
class SimPOConfig(PairsConfig):
    """Settings of SimPO."""

    table: ClassVar[str] = "simpo."

    beta: float = 2.0
    """Reward units per nat of the mean log-probability of a token."""
    target_margin: float = 1.0
    """What the chosen side's reward is to lead by, in the same units: the paper's gamma."""
    pairs_per_step: int = 128
    """Comparisons per optimizer step."""
    optimization: Optimization = Optimization(learning_rate=5e-7, schedule="cosine", warmup_steps=50)
    """Optimizer and schedule."""

    def __post_init__(self) -> None:
        PairsConfig.__post_init__(self)
        require_above(0, self, self.table, "beta", hint="the SimPO paper uses 2 to 2.5")
        require_at_least(0, self, self.table, "target_margin", hint="the SimPO paper uses 0.5 to 1.5")


class SimPO:
    """Learner over comparisons, without a reference."""

    def __init__(self, engine: Engine, comparisons: Sequence[Comparison], config: SimPOConfig, tokenizer: Any) -> None:
        if not comparisons:
            raise ConfigError("simpo: no comparisons to learn from")
        self.engine = engine
        self.config = config
        self.pairs = encode(comparisons, tokenizer, config.max_tokens)
        self.batch = shuffled_batches(len(comparisons), config.pairs_per_step, config.seed)
        self.steps = 0

    def step(self) -> Metrics:
        numbers = self.batch(self.steps)
        loss = partial(pair_loss, pairs=self.pairs, numbers=numbers, config=self.config)
        metrics = learn_pairs(self.engine, self.pairs, numbers, loss, max_grad_norm=self.config.max_grad_norm)
        self.steps += 1
        return metrics

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def restore(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


def pair_loss(
    outputs: Outputs, part: list[int], *, pairs: Pairs, numbers: Sequence[int], config: SimPOConfig
) -> tuple[Tensor, Metrics]:
    """SimPO loss of the pairs whose rows are in this micro-batch, by weight, over all pairs of the step."""
    both = sides(outputs, part, pairs, numbers)
    chosen, rejected = both.means
    loss = simpo_loss(chosen, rejected, beta=config.beta, target_margin=config.target_margin, p=both.p)
    return weighed(both, loss, config.beta * (chosen - rejected))
