"""Odds ratio preference optimization (Hong et al. 2024, arXiv 2403.07691): imitation and preference in one stage.

loss = NLL(chosen) + odds_ratio_coef * -log sigmoid(log odds(chosen) - log odds(rejected)), odds = q / (1 - q), where
log q is the mean log-probability per token. There is no reference, and none is needed before: the first term is SFT.
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
from tuneful.functional.preference_losses import orpo_loss
from tuneful.models.forward import Outputs
from tuneful.records import Comparison
from tuneful.settings import require_above


@dataclass(frozen=True, kw_only=True, slots=True)
class ORPOConfig(PairsConfig):
    """Settings of ORPO."""

    table: ClassVar[str] = "orpo."

    odds_ratio_coef: float = 0.1
    """Weight of the odds ratio's loss beside the negative log-likelihood: the paper's lambda."""
    optimization: Optimization = Optimization(learning_rate=8e-6, warmup_steps=100)
    """Optimizer and schedule."""

    def __post_init__(self) -> None:
        PairsConfig.__post_init__(self)
        require_above(0, self, self.table, "odds_ratio_coef", hint="the ORPO paper uses 0.1 to 0.25")


class ORPO:
    """Learner over comparisons, without a reference."""

    def __init__(self, engine: Engine, comparisons: Sequence[Comparison], config: ORPOConfig, tokenizer: Any) -> None:
        if not comparisons:
            raise ConfigError("orpo: no comparisons to learn from")
        self.engine = engine
        self.config = config
        self.pairs = encode(comparisons, tokenizer, config.max_tokens)
        self.batch = shuffled_batches(len(comparisons), config.pairs_per_step, config.seed)
        self.steps = 0

    def step(self) -> Metrics:
        numbers = self.batch(self.steps)
        loss = partial(pair_loss, pairs=self.pairs, numbers=numbers, odds_ratio_coef=self.config.odds_ratio_coef)
        metrics = learn_pairs(self.engine, self.pairs, numbers, loss, max_grad_norm=self.config.max_grad_norm)
        self.steps += 1
        return metrics

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def restore(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


def pair_loss(
    outputs: Outputs, part: list[int], *, pairs: Pairs, numbers: Sequence[int], odds_ratio_coef: float
) -> tuple[Tensor, Metrics]:
    """ORPO loss of the pairs whose rows are in this micro-batch, by weight, over all pairs of the step."""
    both = sides(outputs, part, pairs, numbers)
    found = orpo_loss(*both.means, odds_ratio_coef=odds_ratio_coef, p=both.p)
    parts = {"nll": found.nll, "odds_ratio_loss": found.odds_ratio_loss}
    return weighed(both, found.loss, found.log_odds_ratio, **parts)
