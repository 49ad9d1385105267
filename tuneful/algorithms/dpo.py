"""Direct preference optimization (Rafailov et al. 2023, arXiv 2305.18290): preferences straight into the policy.

loss = -log sigmoid(beta * h), h = (log policy - log reference)(chosen) - (log policy - log reference)(rejected), with
log-probabilities summed over the completion and the reference's computed once. Two variants take the labels to be
wrong at times, and IPO (arXiv 2310.12036) gives h a target in place of a slope.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

from torch import Tensor

from tuneful.algorithms.pairs import Pairs, PairsConfig, encode, learn_pairs, sides, summed_logprobs, weighed
from tuneful.data.batching import shuffled_batches
from tuneful.engines.protocol import Engine, Metrics
from tuneful.errors import ConfigError
from tuneful.functional.preference_losses import dpo_loss, ipo_loss, robust_dpo_loss
from tuneful.models.forward import Outputs
from tuneful.records import Comparison
from tuneful.settings import require_above


@dataclass(frozen=True, kw_only=True, slots=True)
class DPOConfig(PairsConfig):
    """Settings of DPO and IPO."""

    table: ClassVar[str] = "dpo."

    loss: Literal["dpo", "robust", "ipo"] = "dpo"
    """"dpo": -log sigma(beta h), conservative where there is `label_noise`; "robust": the same freed of that noise in
    the mean; "ipo": (h - 1 / (2 beta))^2, with h of log-probabilities per token."""
    beta: float = 0.1
    """Strength of the leash: reward units per nat in the reward DPO implies. For "ipo" it is the paper's tau, and h is
    to reach 1 / (2 beta)."""
    label_noise: float = 0.0
    """Probability that a label is the wrong way round. "dpo" then goes for p (1 - label_noise) + (1 - p) label_noise in
    place of p, "robust" for (p - label_noise) / (1 - 2 label_noise)."""

    def __post_init__(self) -> None:
        PairsConfig.__post_init__(self)
        require_above(0, self, self.table, "beta", hint="the DPO paper uses 0.1")
        if not 0 <= self.label_noise < 0.5:
            raise ConfigError(
                f"dpo.label_noise must lie between 0 and 1/2, got {self.label_noise}; "
                "labels that are wrong half of the time say nothing"
            )
        if self.loss == "robust" and self.label_noise == 0:
            raise ConfigError('dpo.loss = "robust" needs label_noise, without which it is "dpo"; 0.1 is usual')
        if self.loss == "ipo" and self.label_noise > 0:
            raise ConfigError('dpo.label_noise is not for loss = "ipo"; leave it out, or choose "dpo" or "robust"')


class DPO:
    """Learner over comparisons."""

    def __init__(self, engine: Engine, comparisons: Sequence[Comparison], config: DPOConfig, tokenizer: Any) -> None:
        if not comparisons:
            raise ConfigError("dpo: no comparisons to learn from")
        self.engine = engine
        self.config = config
        self.pairs = encode(comparisons, tokenizer, config.max_tokens)
        self.reference = summed_logprobs(engine, "reference", self.pairs.prompts, self.pairs.completions)
        self.batch = shuffled_batches(len(comparisons), config.pairs_per_step, config.seed)
        self.steps = 0

    def step(self) -> Metrics:
        numbers = self.batch(self.steps)
        loss = partial(pair_loss, pairs=self.pairs, numbers=numbers, reference=self.reference, config=self.config)
        metrics = learn_pairs(self.engine, self.pairs, numbers, loss, max_grad_norm=self.config.max_grad_norm)
        self.steps += 1
        return metrics

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def restore(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


def pair_loss(
    outputs: Outputs, part: list[int], *, pairs: Pairs, numbers: Sequence[int], reference: Tensor, config: DPOConfig
) -> tuple[Tensor, Metrics]:
    """Loss of the pairs whose rows are in this micro-batch, by weight, over all pairs of the step.

    reference: float32 [2P], the reference's log-probability of each row of `pairs`.
    """
    both = sides(outputs, part, pairs, numbers)
    of_reference = reference.to(both.chosen.device).view(-1, 2)[both.number]
    logprobs = [both.chosen, both.rejected, of_reference[:, 0], of_reference[:, 1]]
    beta = config.beta
    if config.loss == "ipo":
        tokens = (both.chosen_tokens, both.rejected_tokens)
        logprobs = [each / count for each, count in zip(logprobs, tokens * 2, strict=True)]
        loss = ipo_loss(*logprobs, beta=beta, p=both.p)
    elif config.loss == "robust":
        loss = robust_dpo_loss(*logprobs, beta=beta, label_noise=config.label_noise, p=both.p)
    else:
        p = both.p * (1 - config.label_noise) + (1 - both.p) * config.label_noise
        loss = dpo_loss(*logprobs, beta=beta, p=p)
    chosen, rejected, reference_chosen, reference_rejected = logprobs
    margin = beta * ((chosen - reference_chosen) - (rejected - reference_rejected))
    return weighed(both, loss, margin)
