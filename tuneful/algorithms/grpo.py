"""Group relative policy optimization (Shao et al. 2024, arXiv 2402.03300), and Dr. GRPO (Liu et al. 2025, 2503.20783).

per step:  sample G completions of each prompt, score them
           A = (score - mean of the group) / standard deviation of the group, the same for all tokens of a completion
           `epochs` passes in `minibatches` optimizer steps: clipped policy loss of PPO + kl_coef * KL; no value

Dr. GRPO: spread = "none", averaging = "constant". Multiplied by G / (G - 1) its advantages are RLOO's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

from torch import Tensor

from tuneful.algorithms.metrics import MetricMean
from tuneful.algorithms.on_policy import (
    Averaging,
    OnPolicyConfig,
    OnPolicyLearner,
    Reading,
    batch_of,
    minibatches,
    old_logprobs,
    require_clip,
    require_minibatches,
    token_weights,
)
from tuneful.engines.protocol import Engine, Metrics
from tuneful.functional.advantages import group_advantages
from tuneful.functional.masking import masked_sum
from tuneful.functional.policy_losses import kl_loss, ppo_clip_loss
from tuneful.generation.rollout import Rollout
from tuneful.models.forward import Outputs
from tuneful.settings import require_at_least


@dataclass(frozen=True, kw_only=True, slots=True)
class GRPOConfig(OnPolicyConfig):
    """Settings of GRPO. Counts are per step of the whole run, not per device."""

    table: ClassVar[str] = "grpo."

    samples_per_prompt: int = 8
    """Completions of each prompt: the group that each is compared with."""
    spread: Literal["sample", "population", "none"] = "sample"
    """What advantages are divided by: the group's standard deviation over G - 1, over G, or nothing (Dr. GRPO)."""
    averaging: Averaging = "tokens"
    """How the loss is averaged: over all tokens, first over those of each completion (the GRPO paper), or as a sum
    divided by completions times max_new_tokens (Dr. GRPO)."""
    epochs: int = 1
    """Passes over each step's completions."""
    minibatches: int = 1
    """Optimizer steps per epoch, each on all samples of its prompts."""
    clip: float = 0.2
    """The probability ratio of a token is held within [1 - clip, 1 + clip]."""
    kl_estimator: Literal["k2", "k3"] = "k2"
    """The KL penalty in the loss: k2, whose gradient is that of the KL itself, or k3 as in the paper, whose gradient is
    that of the other KL, of the reference from the policy."""

    def __post_init__(self) -> None:
        OnPolicyConfig.__post_init__(self)
        require_at_least(2, self, self.table, "samples_per_prompt", hint="one alone has nothing to be compared with")
        require_minibatches(self)
        require_clip(self)

    @property
    def updates(self) -> int:
        """Optimizer steps of the whole run."""
        return self.num_steps * self.epochs * self.minibatches


class GRPO(OnPolicyLearner):
    """Learner over prompts and a reward."""

    config: GRPOConfig

    def learn(self, rollout: Rollout) -> Metrics:
        metrics = update(
            self.engine, rollout, self.config, kl_coef=self.collector.kl.coef, seed=self.collector.seed("update")
        )
        return self.collector.finish(rollout, metrics)

    def read(self, rollout: Rollout) -> Reading:
        assert rollout.scores is not None
        advantages = group_advantages(rollout.scores, self.config.samples_per_prompt, spread=self.config.spread)
        return self.collector.reading(rollout, advantages, kl_coef=0.0)


def update(engine: Engine, rollout: Rollout, config: GRPOConfig, *, kl_coef: float, seed: int) -> Metrics:
    """One GRPO iteration over a collected rollout; kl_coef is the controller's current value."""
    assert rollout.scores is not None
    size = config.samples_per_prompt
    advantages = group_advantages(rollout.scores, size, spread=config.spread)
    groups = rollout.scores.view(-1, size)
    seen = MetricMean()
    for rows in minibatches(rollout.group.tolist(), epochs=config.epochs, parts=config.minibatches, seed=seed):
        batch = batch_of(rollout, rows)
        mask = rollout.mask[rows]
        weights = token_weights(mask, config.averaging, config.max_new_tokens)
        loss = partial(
            grpo_loss,
            rollout=rollout,
            advantages=advantages,
            weights=weights,
            rows=rows,
            config=config,
            num_tokens=int(mask.sum()),
            kl_coef=kl_coef,
        )
        seen.add(engine.forward_backward(batch, loss), grad_norm=engine.step(config.max_grad_norm))
    equal = (groups == groups[:, :1]).all(-1)
    return seen.mean() | {"equal_groups": float(equal.float().mean()), "group_std": float(groups.std(-1).mean())}


def grpo_loss(
    outputs: Outputs,
    part: list[int],
    *,
    rollout: Rollout,
    advantages: Tensor,
    weights: Tensor,
    rows: Sequence[int],
    config: GRPOConfig,
    num_tokens: int,
    kl_coef: float,
) -> tuple[Tensor, Metrics]:
    """Clipped policy loss and KL penalty of some rows of a minibatch.

    outputs: of rows `part` of the minibatch, which are rows `rows[part]` of the rollout. advantages: float [N], of
    whole completions. weights: float [R, T] of the minibatch, see `token_weights`.
    """
    assert outputs.logprobs is not None and outputs.entropy is not None and rollout.reference_logprobs is not None
    at = [rows[k] for k in part]
    mask, old, weight = rollout.mask[at], old_logprobs(rollout)[at], weights[part]
    pi = ppo_clip_loss(
        outputs.logprobs, old, weight * advantages[at, None], mask, clip=config.clip, num_tokens=num_tokens
    )
    loss = pi.loss
    metrics = {
        "policy_loss": pi.loss,
        "entropy": masked_sum(outputs.entropy, mask) / num_tokens,
        "clip_fraction": pi.clip_fraction,
        "approx_kl": pi.approx_kl,
    }
    if kl_coef > 0:
        of_tokens = kl_loss(outputs.logprobs, old, rollout.reference_logprobs[at], estimator=config.kl_estimator)
        metrics["kl_loss"] = masked_sum(weight * of_tokens, mask) / num_tokens
        loss = loss + kl_coef * metrics["kl_loss"]
    return loss, {name: float(value.detach()) for name, value in metrics.items()}
