"""REINFORCE with a baseline (Williams 1992), and RLOO, whose baseline is the other samples (arXiv 2402.14740).

A completion is one action: its reward is R = score - kl_coef * sum of (log policy - log reference), its advantage
R - b.

per step:  sample completions, score them
           loss = - mean over completions of (R - b) log policy(completion), in `minibatches` optimizer steps

baseline b:  "running"        mean R of earlier steps, decaying by `baseline_decay`
             "leave-one-out"  mean R of the prompt's other completions
             "none"           0
From the second optimizer step on, log policy becomes the ratio to the policy that sampled, clipped as in PPO.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from tuneful.algorithms.metrics import MetricMean
from tuneful.algorithms.on_policy import (
    OnPolicyConfig,
    OnPolicyLearner,
    Reading,
    batch_of,
    minibatches,
    old_logprobs,
    require_clip,
    require_minibatches,
    shaped_returns,
)
from tuneful.engines.protocol import Engine, Metrics
from tuneful.errors import ConfigError
from tuneful.functional.advantages import leave_one_out
from tuneful.functional.masking import masked_sum
from tuneful.functional.policy_losses import ppo_clip_loss
from tuneful.generation.rollout import Rollout
from tuneful.models.forward import Outputs
from tuneful.records import Prompt
from tuneful.rewards.reward import Reward
from tuneful.settings import refuse_idle, require_at_least


@dataclass(frozen=True, kw_only=True, slots=True)
class WholeCompletionConfig(OnPolicyConfig):
    """What REINFORCE and RLOO have in common. Counts are per step of the whole run, not per device."""

    epochs: int = 1
    """Passes over each step's completions."""
    minibatches: int = 1
    """Optimizer steps per epoch, each on all samples of its prompts."""
    clip: float = 0.2
    """The ratio of a whole completion is held within [1 - clip, 1 + clip]; it is 1 in a step's first update."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus, which keeps variety while training."""

    def __post_init__(self) -> None:
        OnPolicyConfig.__post_init__(self)
        require_minibatches(self)
        require_clip(self)
        require_at_least(0, self, self.table, "entropy_coef", hint="0 leaves it out")

    @property
    def updates(self) -> int:
        """Optimizer steps of the whole run."""
        return self.num_steps * self.epochs * self.minibatches


@dataclass(frozen=True, kw_only=True, slots=True)
class ReinforceConfig(WholeCompletionConfig):
    """Settings of REINFORCE. Counts are per step of the whole run, not per device."""

    table: ClassVar[str] = "reinforce."

    baseline: Literal["running", "leave-one-out", "none"] = "running"
    """What is subtracted from the reward: the mean of earlier steps, of the prompt's other completions, or nothing."""
    baseline_decay: float = 0.9
    """How much of the running baseline each step keeps."""

    def __post_init__(self) -> None:
        WholeCompletionConfig.__post_init__(self)
        if not 0 <= self.baseline_decay < 1:
            raise ConfigError(
                f"{self.table}baseline_decay must be at least 0 and below 1, got {self.baseline_decay}; 0.9 is usual"
            )
        if self.baseline != "running":
            why = f'baseline = "{self.baseline}"'
            refuse_idle(self, self.table, "baseline_decay", why, 'choose baseline = "running"')
        if self.baseline == "leave-one-out":
            require_others(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class RLOOConfig(WholeCompletionConfig):
    """Settings of RLOO, whose baseline is the mean reward of the prompt's other completions."""

    table: ClassVar[str] = "rloo."
    baseline: ClassVar[Literal["leave-one-out"]] = "leave-one-out"

    samples_per_prompt: int = 4
    """Completions of each prompt."""

    def __post_init__(self) -> None:
        WholeCompletionConfig.__post_init__(self)
        require_others(self)


def require_others(config: WholeCompletionConfig) -> None:
    """Refuse a prompt's only completion where the baseline is the mean of its others."""
    hint = "the baseline is the mean of a prompt's other completions, and RLOO takes 2 to 4"
    require_at_least(2, config, config.table, "samples_per_prompt", hint=hint)


class Reinforce(OnPolicyLearner):
    """Learner over prompts and a reward."""

    config: ReinforceConfig | RLOOConfig

    def __init__(
        self, engine: Engine, prompts: Sequence[Prompt], reward: Reward, config: ReinforceConfig | RLOOConfig
    ) -> None:
        super().__init__(engine, prompts, reward, config)
        self.baseline = 0.0

    def learn(self, rollout: Rollout) -> Metrics:
        returns = shaped_returns(rollout, kl_coef=self.collector.kl.coef)
        baseline = self._baseline(returns)
        metrics = update(self.engine, rollout, returns - baseline, self.config, seed=self.collector.seed("update"))
        self._remember(returns)
        return self.collector.finish(rollout, metrics | {"baseline": float(baseline.mean())})

    def read(self, rollout: Rollout) -> Reading:
        coef = self.collector.kl.coef
        returns = shaped_returns(rollout, kl_coef=coef)
        return self.collector.reading(rollout, returns - self._baseline(returns), kl_coef=coef)

    def _baseline(self, returns: Tensor) -> Tensor:
        """What each completion is compared with, [N]."""
        if self.config.baseline == "leave-one-out":
            return leave_one_out(returns, self.config.samples_per_prompt)
        return torch.full_like(returns, self.baseline)

    def _remember(self, returns: Tensor) -> None:
        if self.config.baseline != "running":
            return
        kept = self.config.baseline_decay if self.collector.steps > 0 else 0.0
        self.baseline = kept * self.baseline + (1 - kept) * float(returns.mean())

    def state(self) -> dict[str, Any]:
        return self.collector.state() | {"baseline": self.baseline}

    def restore(self, state: dict[str, Any]) -> None:
        self.collector.restore(state)
        self.baseline = state["baseline"]


def update(
    engine: Engine, rollout: Rollout, advantages: Tensor, config: WholeCompletionConfig, *, seed: int
) -> Metrics:
    """One iteration over a collected rollout; advantages: float [N], of whole completions."""
    seen = MetricMean()
    for rows in minibatches(rollout.group.tolist(), epochs=config.epochs, parts=config.minibatches, seed=seed):
        batch = batch_of(rollout, rows, entropy_grad=config.entropy_coef > 0)
        num_tokens = int(rollout.mask[rows].sum())
        loss = partial(
            completion_loss, rollout=rollout, advantages=advantages, rows=rows, config=config, num_tokens=num_tokens
        )
        seen.add(engine.forward_backward(batch, loss), grad_norm=engine.step(config.max_grad_norm))
    return seen.mean() | {"advantage_spread": float(advantages.std(correction=0))}


def completion_loss(
    outputs: Outputs,
    part: list[int],
    *,
    rollout: Rollout,
    advantages: Tensor,
    rows: Sequence[int],
    config: WholeCompletionConfig,
    num_tokens: int,
) -> tuple[Tensor, Metrics]:
    """Clipped policy loss of whole completions, averaged over the minibatch's, and the entropy bonus of tokens.

    outputs: of rows `part` of the minibatch, which are rows `rows[part]` of the rollout.
    """
    assert outputs.logprobs is not None and outputs.entropy is not None
    at = [rows[k] for k in part]
    mask = rollout.mask[at]
    new, old = (
        logprobs.masked_fill(~mask, 0.0).sum(-1, keepdim=True)
        for logprobs in (outputs.logprobs, old_logprobs(rollout)[at])
    )
    whole = torch.ones_like(new, dtype=torch.bool)
    pi = ppo_clip_loss(new, old, advantages[at, None], whole, clip=config.clip, num_tokens=len(rows))
    entropy = masked_sum(outputs.entropy, mask) / num_tokens
    loss = pi.loss - config.entropy_coef * entropy
    metrics = {
        "policy_loss": pi.loss,
        "entropy": entropy,
        "clip_fraction": pi.clip_fraction,
        "approx_kl": pi.approx_kl,
    }
    return loss, {name: float(value.detach()) for name, value in metrics.items()}
