"""Rejection-sampling fine-tuning, RAFT (Dong et al. 2023, arXiv 2304.06767): imitate the best of one's own answers.

per step:  sample completions of each prompt, score them, subtract kl_coef * log-ratio to the reference from each score
           keep the best of each prompt, or, as a control, any
           `epochs` passes over what was kept in `minibatches` optimizer steps: its mean negative log-likelihood
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor

from tuneful.algorithms.metrics import MetricMean
from tuneful.algorithms.on_policy import (
    OnPolicyConfig,
    OnPolicyLearner,
    Reading,
    batch_of,
    minibatches,
    require_minibatches,
    shaped_returns,
)
from tuneful.algorithms.sft import nll_loss
from tuneful.engines.protocol import Engine, Metrics
from tuneful.errors import ConfigError
from tuneful.generation.rollout import Rollout
from tuneful.settings import require_at_least


@dataclass(frozen=True, kw_only=True, slots=True)
class RAFTConfig(OnPolicyConfig):
    """Settings of RAFT. Counts are per step of the whole run, not per device."""

    table: ClassVar[str] = "raft."

    samples_per_prompt: int = 8
    """Completions of each prompt, of which the best are kept."""
    kept: int = 1
    """Completions of each prompt that are imitated."""
    choice: Literal["best", "random"] = "best"
    """Which are kept; "random" is the control that tells what imitation alone does."""
    kl_coef: float = 0.0
    """Score units per nat of sequence KL that a completion loses before the best are chosen."""
    epochs: int = 1
    """Passes over what was kept."""
    minibatches: int = 1
    """Optimizer steps per epoch."""

    def __post_init__(self) -> None:
        OnPolicyConfig.__post_init__(self)
        require_at_least(2, self, self.table, "samples_per_prompt", hint="of one alone there is nothing to choose")
        require_minibatches(self)
        if not 1 <= self.kept < self.samples_per_prompt:
            raise ConfigError(
                f"{self.table}kept must be at least 1 and below samples_per_prompt = {self.samples_per_prompt}, got "
                f"{self.kept}; 1 is usual"
            )
        if self.minibatches > self.prompts_per_step * self.kept:
            raise ConfigError(
                f"{self.table}minibatches is {self.minibatches} but a step keeps only "
                f"{self.prompts_per_step * self.kept} completions; lower minibatches or raise prompts_per_step"
            )

    @property
    def updates(self) -> int:
        """Optimizer steps of the whole run."""
        return self.num_steps * self.epochs * self.minibatches


class RAFT(OnPolicyLearner):
    """Learner over prompts and a reward."""

    config: RAFTConfig

    def learn(self, rollout: Rollout) -> Metrics:
        seed = self.collector.seed("update")
        returns = shaped_returns(rollout, kl_coef=self.collector.kl.coef)
        rows = chosen(returns, self.config, seed=seed)
        assert rollout.scores is not None
        metrics = update(self.engine, rollout.rows(rows), self.config, seed=seed)
        return self.collector.finish(rollout, metrics | {"kept_reward": float(rollout.scores[rows].mean())})

    def read(self, rollout: Rollout) -> Reading:
        """The advantage of what is imitated is 1, of all else 0."""
        coef = self.collector.kl.coef
        rows = chosen(shaped_returns(rollout, kl_coef=coef), self.config, seed=self.collector.seed("update"))
        kept = torch.zeros(len(rollout)).index_fill(0, torch.tensor(rows), 1.0)
        return self.collector.reading(rollout, kept.to(rollout.mask.device), kl_coef=coef)


def chosen(returns: Tensor, config: RAFTConfig, *, seed: int) -> list[int]:
    """The rows that are kept of each group of `samples_per_prompt`; returns: float [N]."""
    size = config.samples_per_prompt
    draw = random.Random(seed)
    rows: list[int] = []
    for start in range(0, len(returns), size):
        if config.choice == "best":
            best = returns[start : start + size].argsort(descending=True, stable=True)[: config.kept]
            rows += (start + best).tolist()
        else:
            rows += [start + place for place in draw.sample(range(size), config.kept)]
    return sorted(rows)


def update(engine: Engine, kept: Rollout, config: RAFTConfig, *, seed: int) -> Metrics:
    """Imitate the completions of `kept`."""
    seen = MetricMean()
    for rows in minibatches(kept.group.tolist(), epochs=config.epochs, parts=config.minibatches, seed=seed):
        loss = partial(nll_loss, num_tokens=int(kept.mask[rows].sum()))
        metrics = engine.forward_backward(batch_of(kept, rows), loss)
        seen.add(metrics, grad_norm=engine.step(config.max_grad_norm))
    return seen.mean()
