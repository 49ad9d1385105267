"""Natural language policy optimization (Ramamurthy et al. 2022, arXiv 2210.01241): PPO among fewer tokens.

A mask policy, the policy as it was at most `mask_every` steps ago, reads along while completions are sampled: only
tokens of its nucleus, and the end token, may be drawn. The update is PPO's with the same tokens ruled out, as they were
recorded; the KL penalty is that of the whole policy. With top_p = 1 nothing is ruled out, and NLPO is PPO.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tuneful.algorithms import ppo
from tuneful.algorithms.on_policy import OnPolicyLearner, Reading
from tuneful.algorithms.ppo import PPOConfig
from tuneful.engines.local import LocalEngine
from tuneful.engines.protocol import Engine, Metrics
from tuneful.errors import ConfigError
from tuneful.generation.lockstep import Lockstep
from tuneful.generation.nucleus import in_nucleus
from tuneful.generation.rollout import Rollout
from tuneful.generation.sampler import Choose
from tuneful.models.roles import follow, own_weights, second_policy
from tuneful.records import Prompt
from tuneful.rewards.reward import Reward
from tuneful.settings import require_at_least


@dataclass(frozen=True, kw_only=True, slots=True)
class NLPOConfig(PPOConfig):
    """Settings of NLPO: PPO's, and the mask."""

    table: ClassVar[str] = "nlpo."

    top_p: float = 0.9
    """Probability that the mask policy's nucleus holds; 1: nothing is ruled out."""
    min_tokens: int = 100
    """Tokens that are always left, the likeliest of the mask policy; the end token is, too."""
    mask_every: int = 20
    """Steps after which the mask policy becomes the policy of then; 5 to 20 in the paper."""

    def __post_init__(self) -> None:
        PPOConfig.__post_init__(self)
        require_at_least(1, self, self.table, "min_tokens", "mask_every")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"{self.table}top_p must lie above 0 and be at most 1, got {self.top_p}; 0.9 is usual")
        if self.kl_estimator == "k2":
            raise ConfigError(
                f'{self.table}kl_estimator must be "k1": a loss sees the masked policy, and the KL is of the whole one'
            )


class NLPO(OnPolicyLearner):
    """Learner over what PPO learns from. Needs the engine of this process, whose policy it copies."""

    config: NLPOConfig
    engine: LocalEngine

    def __init__(
        self,
        engine: Engine,
        prompts: Sequence[Prompt],
        reward: Reward,
        config: NLPOConfig,
        pretraining: Sequence[tuple[list[int], list[int]]] = (),
    ) -> None:
        if not isinstance(engine, LocalEngine) or engine.roles.policy is None:
            raise ConfigError("nlpo needs the LocalEngine: its mask policy reads along while the policy is sampled")
        ppo.require_pretraining(config, pretraining)
        super().__init__(engine, prompts, reward, config, with_values=True)
        self.pretraining = pretraining
        self.policy = engine.roles.policy
        self.mask_policy = second_policy(self.policy, "mask")
        engine.beside |= {f"mask.{name}": weight for name, weight in own_weights(self.mask_policy).items()}

    def draw(self) -> Rollout:
        if self.collector.steps % self.config.mask_every == 0:
            follow(self.mask_policy, self.policy)
        return self.collector.next_rollout(self._choose if self.config.top_p < 1 else None)

    def learn(self, rollout: Rollout) -> Metrics:
        metrics = ppo.update(
            self.engine,
            rollout,
            self.config,
            kl_coef=self.collector.kl.coef,
            seed=self.collector.seed("update"),
            pretraining=self.pretraining,
        )
        return self.collector.finish(rollout, metrics | {"allowed": _mean_allowed(rollout)})

    def read(self, rollout: Rollout) -> Reading:
        return ppo.read(rollout, self.config, kl_coef=self.collector.kl.coef)

    def _choose(self, prompts: Sequence[Prompt]) -> Choose:
        ids = self.collector.prompt_ids(prompts, self.engine.tokenizer)
        sampling = self.config.sampling
        beside = Lockstep(
            self.mask_policy, ids, num_samples=sampling.num_samples, max_new_tokens=sampling.max_new_tokens
        )
        return _Nucleus(beside, self.config, end=self.engine.tokenizer.eos_token_id)


class _Nucleus:
    """A `choose` that leaves the mask policy's nucleus and the end token."""

    def __init__(self, beside: Lockstep, config: NLPOConfig, *, end: int) -> None:
        self.beside, self.config, self.end = beside, config, end
        self.admit, self.drawn, self.drop = beside.admit, beside.drawn, beside.drop

    def __call__(self, logits: Tensor, hidden: Tensor, rows: Tensor) -> Tensor:
        mask_logits = self.beside.logits(rows) / self.config.temperature
        left = in_nucleus(mask_logits, self.config.top_p, min_tokens=self.config.min_tokens)
        left[:, self.end] = True
        return logits.masked_fill(~left, -torch.inf)


def _mean_allowed(rollout: Rollout) -> float:
    """Tokens left at a draw, on average over those where some were ruled out; 0 where none ever was."""
    counts = [len(ids) for row in rollout.allowed or () for ids in row if ids]
    return sum(counts) / len(counts) if counts else 0.0
