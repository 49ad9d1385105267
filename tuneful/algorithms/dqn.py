"""Token-level double DQN (Mnih et al. 2015; van Hasselt et al. 2016, arXiv 1509.06461), leashed to the reference.

per step:  complete prompts, choosing each token by its action value among the `top_k` likeliest of the reference; keep
           the completions with their scores in a replay buffer
           `updates_per_step` times, on `completions_per_update` drawn from it:
           y_t = r_t + gamma r_{t+1} + … + gamma^n V(s_{t+n}), the Huber loss of both Q(s_t, a_t) - y_t
           the target heads follow by `polyak`

leash "soft":  V(s) = beta log sum of pi_ref(a) e^(Q / beta), beta = kl_coef; tokens are drawn from pi_ref e^(Q / beta)
      "none":  V(s) = Q_target(s, argmax Q); the best token is taken, but for a share `epsilon`
Q is the smaller of two heads. They start at 0, where the soft form draws from the reference itself. The buffer may
begin with stored completions; `offline`, it is they alone that are learned from.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from tuneful.algorithms.metrics import MetricMean
from tuneful.algorithms.on_policy import OnPolicyConfig, OnPolicyLearner
from tuneful.engines.local import LocalEngine
from tuneful.engines.protocol import Batch, Engine, Metrics
from tuneful.errors import ConfigError
from tuneful.functional.advantages import rewards_at_end
from tuneful.functional.q_losses import n_step_targets, soft_values
from tuneful.generation.guided import Guide, possible
from tuneful.generation.rollout import Rollout, Scored
from tuneful.generation.sampler import Choose
from tuneful.models.forward import Outputs, top_tokens
from tuneful.models.q_heads import QHeads
from tuneful.models.roles import Role
from tuneful.records import Prompt
from tuneful.rewards.reward import Reward
from tuneful.settings import refuse_idle, require_above, require_at_least


@dataclass(frozen=True, kw_only=True, slots=True)
class DQNConfig(OnPolicyConfig):
    """Settings of DQN. Counts are per step of the whole run, not per device."""

    table: ClassVar[str] = "dqn."

    leash: Literal["soft", "none"] = "soft"
    """Whether `kl_coef` holds the policy to the reference; without it nothing does but `top_k`."""
    top_k: int = 20
    """The reference's likeliest tokens, among which one is chosen."""
    epsilon: float = 1.0
    """With leash = "none", the share of tokens that are drawn from the reference's proposals at first."""
    epsilon_end: float = 0.05
    """That share from `epsilon_share` of the run on."""
    epsilon_share: float = 0.5
    """Share of the run in which it falls."""
    replay: int = 10_000
    """Completions that are kept, the newest."""
    updates_per_step: int = 4
    """Optimizer steps after each step's sampling."""
    completions_per_update: int = 64
    """Completions of each optimizer step."""
    offline: bool = False
    """Learn from stored completions alone; none is sampled but in evaluations."""
    reward_steps: int | None = 4
    """Rewards that a target counts before it asks for a value (n); None: all to the end."""
    gamma: float = 1.0
    """Discount per token."""
    polyak: float = 0.01
    """How far the target heads go towards the heads after each optimizer step."""

    def __post_init__(self) -> None:
        OnPolicyConfig.__post_init__(self)
        counts = ("top_k", "replay", "updates_per_step", "completions_per_update", "reward_steps")
        require_at_least(1, self, self.table, *counts)
        for name in ("epsilon", "epsilon_end"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"{self.table}{name} must lie between 0 and 1, got {getattr(self, name)}; 0 explores nothing"
                )
        for name, usual in (("epsilon_share", 0.5), ("gamma", 1), ("polyak", 0.01)):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(
                    f"{self.table}{name} must be above 0 and at most 1, got {getattr(self, name)}; {usual} is usual"
                )
        if self.leash == "soft":
            require_above(0, self, self.table, "kl_coef", hint='leash = "none" takes the best token')
            why = 'leash = "soft", whose draws explore by themselves'
            refuse_idle(self, self.table, "epsilon", why, 'choose leash = "none"')
        else:
            refuse_idle(self, self.table, "kl_", 'leash = "none"', 'choose leash = "soft"')
        if self.offline:
            why = "offline = true, which samples nothing to learn from"
            for name in ("epsilon", "prompts_per_step", "samples_per_prompt", "kl_target", "replay"):
                refuse_idle(self, self.table, name, why, "set offline = false")

    @property
    def updates(self) -> int:
        """Optimizer steps of the whole run."""
        return self.num_steps * self.updates_per_step

    @property
    def drawn_per_step(self) -> int:
        return 0 if self.offline else self.completions_per_step


class DQN(OnPolicyLearner):
    """Learner over prompts and a reward, or over stored completions. Needs a LocalEngine whose roles have `QHeads`."""

    config: DQNConfig
    engine: LocalEngine

    def __init__(
        self,
        engine: Engine,
        prompts: Sequence[Prompt],
        reward: Reward,
        config: DQNConfig,
        *,
        stored: Sequence[Scored] = (),
    ) -> None:
        """stored: completions with their scores that the replay begins with."""
        if not isinstance(engine, LocalEngine) or not isinstance(engine.roles.heads, QHeads):
            raise ConfigError("dqn needs the LocalEngine and roles with QHeads: it chooses tokens by value")
        if config.offline and not stored:
            raise ConfigError("dqn: no stored completions to learn from offline")
        if len(stored) > config.replay and not config.offline:
            raise ConfigError(
                f"dqn.replay keeps {config.replay} completions, of {len(stored)} stored ones the others would never be "
                "read; raise it, or give fewer"
            )
        super().__init__(engine, prompts, reward, config)
        self.heads = engine.roles.heads
        self.replay = list(stored)
        engine.beside |= {f"target.{name}": weight for name, weight in self.heads.target.named_parameters()}
        engine.guide = self._guide()

    def step(self) -> Metrics:
        if not self.config.offline:
            return super().step()
        metrics = self._updates()
        self.engine.publish_weights()
        self.collector.steps += 1
        return metrics

    def draw(self) -> Rollout:
        return self.collector.next_rollout(self._choose)

    def learn(self, rollout: Rollout) -> Metrics:
        self.replay = [*self.replay, *_scored(rollout)][-self.config.replay :]
        metrics = self._updates() | {"epsilon": self._epsilon()}
        metrics = self.collector.finish(rollout, metrics, logprobs=rollout.sampled_logprobs)
        self.engine.guide = self._guide()  # with a kl_target its scale has moved
        return metrics

    def _updates(self) -> Metrics:
        """This step's updates on what lies in the replay."""
        draw = random.Random(self.collector.seed("replay"))
        beta = self.collector.kl.coef if self.config.leash == "soft" else None
        seen = MetricMean()
        for _ in range(self.config.updates_per_step):
            batch = draw.sample(self.replay, min(self.config.completions_per_update, len(self.replay)))
            seen.add(update(self.engine, self.heads, batch, self.config, beta=beta))
        return seen.mean() | {"replay": float(len(self.replay))}

    def _guide(self) -> Guide:
        """How the policy chooses, exploration left out."""
        scale = 1 / self.collector.kl.coef if self.config.leash == "soft" else math.inf
        return Guide(
            heads=self.heads,
            scale=scale,
            top_k=self.config.top_k,
            base=self.engine.roles.reference,
            temperature=self.config.temperature,
        )

    def _choose(self, prompts: Sequence[Prompt]) -> Choose:
        ids = self.collector.prompt_ids(prompts, self.engine.tokenizer)
        return self._guide().choose(ids, self.config.sampling, epsilon=self._epsilon())

    def _epsilon(self) -> float:
        if self.config.leash == "soft":
            return 0.0
        done = min(self.collector.steps / (self.config.epsilon_share * self.config.num_steps), 1.0)
        return self.config.epsilon + done * (self.config.epsilon_end - self.config.epsilon)

    def state(self) -> dict[str, Any]:
        return self.collector.state() | {"replay": self.replay}

    def restore(self, state: dict[str, Any]) -> None:
        self.collector.restore(state)
        self.replay = [Scored(*one) for one in state["replay"]]
        self.engine.guide = self._guide()


def update(
    engine: LocalEngine, heads: QHeads, scored: Sequence[Scored], config: DQNConfig, *, beta: float | None
) -> Metrics:
    """One optimizer step on these completions; beta: of the soft form, None for the hard one."""
    batch = Batch(
        role="policy",
        prompts=[one.prompt for one in scored],
        completions=[one.completion for one in scored],
        with_states=True,
        temperature=config.temperature,
    )
    num_tokens = sum(one.weight * len(one.completion) for one in scored)
    assert engine.roles.reference is not None
    loss = partial(
        q_loss,
        heads=heads,
        reference=engine.roles.reference,
        scored=scored,
        config=config,
        num_tokens=num_tokens,
        beta=beta,
    )
    metrics = engine.forward_backward(batch, loss)
    metrics["grad_norm"] = engine.step(config.max_grad_norm)
    heads.follow(config.polyak)
    return metrics


def q_loss(
    outputs: Outputs,
    rows: list[int],
    *,
    heads: QHeads,
    reference: Role,
    scored: Sequence[Scored],
    config: DQNConfig,
    num_tokens: float,
    beta: float | None,
) -> tuple[Tensor, Metrics]:
    """Huber loss of both heads at the tokens that were drawn, for rows `rows` of `scored`.

    num_tokens: of the step, each counted as its completion weighs.
    """
    assert outputs.states is not None
    states, mask, some = outputs.states, outputs.mask, [scored[row] for row in rows]
    prompts, completions = [one.prompt for one in some], [one.completion for one in some]
    actions = torch.tensor([token for completion in completions for token in completion], device=states.device)
    with torch.no_grad():
        proposed, logprobs = top_tokens(reference, prompts, completions, config.top_k, temperature=config.temperature)
        follows = heads.least(states, proposed, target=True)
        if beta is None:
            best = possible(heads.least(states, proposed), logprobs).argmax(-1, keepdim=True)
            values = follows.gather(-1, best).squeeze(-1)
            price = torch.zeros_like(values)
        else:
            values = soft_values(follows, logprobs, beta=beta)
            # beta * log(policy / reference) of the token drawn: what it pays for its leash where it is a later reward
            price = heads.least(states, actions[:, None], target=True).squeeze(-1) - values
        rewards = rewards_at_end(torch.tensor([one.score for one in some], device=states.device), mask)
        paid = rewards - outputs.spread(price)
        after = n_step_targets(paid, outputs.spread(values), mask, gamma=config.gamma, num_steps=config.reward_steps)
        targets = after[mask] + price
    first, second = heads.both(states, actions)
    share = torch.tensor([one.weight / num_tokens for one in some for _ in one.completion], device=states.device)
    loss = sum((share * huber_loss(q, targets, reduction="none")).sum() for q in (first, second))
    assert isinstance(loss, Tensor)
    metrics = {
        "q_loss": loss,
        "q": (share * first).sum(),
        "q_target": (share * targets).sum(),
        "q_disagreement": (share * (first - second).abs()).sum(),
        "state_value": (share * values).sum(),
    }
    return loss, {name: float(value.detach()) for name, value in metrics.items()}


def _scored(rollout: Rollout) -> list[Scored]:
    assert rollout.scores is not None
    return [Scored(*one) for one in zip(rollout.prompts, rollout.completions, rollout.scores.tolist(), strict=True)]
