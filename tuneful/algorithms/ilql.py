"""Implicit Q-learning for language (Snell et al. 2022, arXiv 2206.11871): a policy from scored completions alone.

No completion is sampled. For each token a_t of given completions, r_t the score at the last token and 0 before:

    value      expectile loss of min Q_target(s_t, a_t) - V(s_t): V nears the best that the data do in s_t
    q          (Q_i(s_t, a_t) - r_t - gamma V(s_{t+1}))^2 for both heads, V after the end 0
    cql        cross-entropy of Q_i as logits at a_t, which holds down the values of tokens that nobody took
    awac       cross-entropy of the policy at a_t, weighed by e^(awac_beta (Q - V)): the policy learns the data

The policy then speaks with pi(a | s) e^(guide_scale (Q(s, a) - V(s))) over its `top_k` likeliest tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tuneful.data.batching import shuffled_batches
from tuneful.engines.local import LocalEngine
from tuneful.engines.optimization import Optimization
from tuneful.engines.protocol import Batch, Engine, Metrics
from tuneful.errors import ConfigError
from tuneful.functional.advantages import rewards_at_end
from tuneful.functional.head import head_logprobs
from tuneful.functional.q_losses import expectile_loss, next_values
from tuneful.generation.guided import Guide
from tuneful.generation.rollout import Scored
from tuneful.models.forward import Outputs
from tuneful.models.q_heads import QHeads
from tuneful.settings import require_above, require_at_least, require_seed


@dataclass(frozen=True, kw_only=True, slots=True)
class ILQLConfig:
    """Settings of ILQL."""

    completions_per_step: int = 64
    """Completions per optimizer step."""
    epochs: int = 1
    """Passes over the completions."""
    max_tokens: int = 1024
    """Prompt and completion together, in a recipe at most the model's context; longer prompts are cut on the left."""
    tau: float = 0.7
    """Expectile of the state value: 1/2 is the value of the data's own choices, towards 1 that of the best of them."""
    gamma: float = 0.99
    """Discount per token."""
    cql_coef: float = 0.1
    """Weight of the cross-entropy that holds down the values of tokens that were not taken."""
    awac_coef: float = 1.0
    """Weight of the policy's cross-entropy."""
    awac_beta: float = 0.0
    """How much more the policy imitates tokens that are better than expected; 0: all alike."""
    polyak: float = 0.005
    """How far the target heads go towards the heads after each optimizer step."""
    guide_scale: float = 4.0
    """What a unit of advantage counts when the policy speaks."""
    top_k: int = 20
    """The policy's likeliest tokens, among which the values choose."""
    max_grad_norm: float = 1.0
    """The gradient is clipped to this norm."""
    optimization: Optimization = Optimization(learning_rate=5e-5)
    """Optimizer and schedule."""
    seed: int = 0
    """Order of the completions."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "ilql.", "completions_per_step", "epochs", "max_tokens", "top_k")
        require_at_least(0, self, "ilql.", "cql_coef", "awac_coef", "awac_beta", "guide_scale", hint="0 leaves it out")
        require_above(0, self, "ilql.", "max_grad_norm", hint="1 is usual")
        require_seed(self, "ilql.")
        if not 0 < self.tau < 1:
            raise ConfigError(f"ilql.tau must lie between 0 and 1, got {self.tau}; the paper uses 0.6 to 0.8")
        for name, usual in (("gamma", 0.99), ("polyak", 0.005)):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(
                    f"ilql.{name} must be above 0 and at most 1, got {getattr(self, name)}; {usual} is usual"
                )

    def num_steps(self, num_completions: int) -> int:
        """Optimizer steps of the whole run."""
        return -(-num_completions * self.epochs // self.completions_per_step)


class ILQL:
    """Learner over scored completions. Needs a LocalEngine whose roles have `QHeads`."""

    def __init__(self, engine: Engine, scored: Sequence[Scored], config: ILQLConfig) -> None:
        if not isinstance(engine, LocalEngine) or not isinstance(engine.roles.heads, QHeads):
            raise ConfigError("ilql needs the LocalEngine and roles with QHeads: it speaks by value")
        if not scored:
            raise ConfigError("ilql: no scored completions to learn from")
        self.engine: Engine = engine
        self.config = config
        self.scored = scored
        self.heads = engine.roles.heads
        self.batch = shuffled_batches(len(scored), config.completions_per_step, config.seed)
        self.steps = 0
        engine.beside |= {f"target.{name}": weight for name, weight in self.heads.target.named_parameters()}
        engine.guide = Guide(heads=self.heads, scale=config.guide_scale, top_k=config.top_k, target=True)

    def step(self) -> Metrics:
        scored = [self.scored[k] for k in self.batch(self.steps)]
        metrics = update(self.engine, self.heads, scored, self.config)
        self.engine.publish_weights()
        self.steps += 1
        return metrics

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def restore(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


def update(engine: Engine, heads: QHeads, scored: Sequence[Scored], config: ILQLConfig) -> Metrics:
    """One optimizer step on these completions."""
    batch = Batch(
        role="policy",
        prompts=[one.prompt for one in scored],
        completions=[one.completion for one in scored],
        with_states=True,
    )
    num_tokens = sum(one.weight * len(one.completion) for one in scored)
    loss = partial(ilql_loss, heads=heads, scored=scored, config=config, num_tokens=num_tokens)
    metrics = engine.forward_backward(batch, loss)
    metrics["grad_norm"] = engine.step(config.max_grad_norm)
    heads.follow(config.polyak)
    return metrics


def ilql_loss(
    outputs: Outputs,
    rows: list[int],
    *,
    heads: QHeads,
    scored: Sequence[Scored],
    config: ILQLConfig,
    num_tokens: float,
) -> tuple[Tensor, Metrics]:
    """The four losses of rows `rows` of `scored`, each a mean over the tokens of the step by their completion's weight.

    num_tokens: of the step, each counted as its completion weighs.
    """
    assert outputs.states is not None and outputs.logprobs is not None
    states, mask, some = outputs.states, outputs.mask, [scored[row] for row in rows]
    actions = torch.tensor([token for one in some for token in one.completion], device=states.device)
    rewards = rewards_at_end(torch.tensor([one.score for one in some], device=states.device), mask)
    share = torch.tensor([one.weight / num_tokens for one in some for _ in one.completion], device=states.device)
    q = heads.both(states, actions)
    value = heads.value(states)
    follows = heads.least(states, actions[:, None], target=True).squeeze(-1).detach()
    target = (rewards + config.gamma * next_values(outputs.spread(value.detach()), mask))[mask]
    taken = [head_logprobs(head, states.float(), actions, weights=list(head.parameters()))[0] for head in heads.q]
    weight = (config.awac_beta * (follows - value.detach())).exp()
    losses = {
        "q_loss": (share * sum((one - target).square() for one in q)).sum(),
        "value_loss": (share * expectile_loss(follows - value, config.tau)).sum(),
        "cql_loss": -(share * sum(taken)).sum(),
        "policy_loss": -(share * weight * outputs.logprobs[mask]).sum(),
    }
    total = (
        losses["q_loss"]
        + losses["value_loss"]
        + config.cql_coef * losses["cql_loss"]
        + config.awac_coef * losses["policy_loss"]
    )
    metrics = losses | {
        "q": (share * q[0]).sum(),
        "state_value": (share * value).sum(),
        "advantage": (share * (follows - value)).sum(),
    }
    return total, {name: float(number.detach()) for name, number in metrics.items()}
