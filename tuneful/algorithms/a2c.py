"""Advantage actor-critic (Mnih et al. 2016, arXiv 1602.01783): a policy gradient with a learned value function.

per step:  sample completions, score them, subtract kl_coef * (log policy - log reference) from each token's reward
           A = return - value, the return from the end of the completion (lam = 1) or sooner on the value
           one optimizer step: - A log policy + value_coef (return - V)^2 - entropy_coef * entropy, a mean over tokens
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor

from tuneful.algorithms.on_policy import (
    OnPolicyConfig,
    OnPolicyLearner,
    Reading,
    batch_of,
    estimated,
    require_discounts,
)
from tuneful.engines.protocol import Engine, Metrics
from tuneful.functional.masking import masked_mean, masked_sum
from tuneful.functional.value_losses import explained_variance
from tuneful.generation.rollout import Rollout
from tuneful.models.forward import Outputs
from tuneful.records import Prompt
from tuneful.rewards.reward import Reward
from tuneful.settings import require_at_least


@dataclass(frozen=True, kw_only=True, slots=True)
class A2CConfig(OnPolicyConfig):
    """Settings of A2C. Counts are per step of the whole run, not per device."""

    table: ClassVar[str] = "a2c."

    value_coef: float = 0.1
    """Weight of the squared error of values beside the policy loss, of all of it, where PPO weighs half; 0.5 in classic
    A2C, less on a trunk that both share."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus, which keeps variety while training."""
    gamma: float = 1.0
    """Discount per token."""
    lam: float = 1.0
    """1 is the Monte-Carlo return, 0 the one-step error, between them GAE."""

    def __post_init__(self) -> None:
        OnPolicyConfig.__post_init__(self)
        require_at_least(0, self, self.table, "value_coef", "entropy_coef", hint="0 leaves it out")
        require_discounts(self)


class A2C(OnPolicyLearner):
    """Learner over prompts and a reward."""

    config: A2CConfig

    def __init__(self, engine: Engine, prompts: Sequence[Prompt], reward: Reward, config: A2CConfig) -> None:
        super().__init__(engine, prompts, reward, config, with_values=True)

    def learn(self, rollout: Rollout) -> Metrics:
        return self.collector.finish(rollout, update(self.engine, rollout, self.config, kl_coef=self.collector.kl.coef))

    def read(self, rollout: Rollout) -> Reading:
        rewards, advantages, _ = estimated(
            rollout, kl_coef=self.collector.kl.coef, gamma=self.config.gamma, lam=self.config.lam
        )
        return Reading(rewards, advantages)


def update(engine: Engine, rollout: Rollout, config: A2CConfig, *, kl_coef: float) -> Metrics:
    """One A2C iteration over a collected rollout; kl_coef is the controller's current value."""
    assert rollout.values is not None
    _, advantages, returns = estimated(rollout, kl_coef=kl_coef, gamma=config.gamma, lam=config.lam)
    batch = batch_of(rollout, range(len(rollout)), with_values=True, entropy_grad=config.entropy_coef > 0)
    loss = partial(a2c_loss, advantages=advantages, returns=returns, mask=rollout.mask, config=config)
    metrics = engine.forward_backward(batch, loss)
    metrics["grad_norm"] = engine.step(config.max_grad_norm)
    return metrics | {
        "value": float(masked_mean(rollout.values, rollout.mask)),
        "explained_variance": float(explained_variance(rollout.values, returns, rollout.mask)),
    }


def a2c_loss(
    outputs: Outputs, rows: list[int], *, advantages: Tensor, returns: Tensor, mask: Tensor, config: A2CConfig
) -> tuple[Tensor, Metrics]:
    """Policy, value and entropy loss of some rows of the step; advantages, returns, mask: [N, T] of all of them."""
    assert outputs.logprobs is not None and outputs.values is not None and outputs.entropy is not None
    num_tokens, counted = int(mask.sum()), mask[rows]
    metrics = {
        "policy_loss": -masked_sum(advantages[rows] * outputs.logprobs, counted) / num_tokens,
        "value_loss": masked_sum((returns[rows] - outputs.values).square(), counted) / num_tokens,
        "entropy": masked_sum(outputs.entropy, counted) / num_tokens,
    }
    loss = metrics["policy_loss"] + config.value_coef * metrics["value_loss"] - config.entropy_coef * metrics["entropy"]
    return loss, {name: float(value.detach()) for name, value in metrics.items()}
