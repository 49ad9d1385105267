"""Trust region policy optimization (Schulman et al. 2015, arXiv 1502.05477): the longest step that a KL bound allows.

per step:  sample completions, score them, subtract kl_coef * (log policy - log reference) from each token's reward
           advantages by GAE, whitened; g = gradient of the mean of ratio * A over tokens
           x solves (F + damping) x = g by conjugate gradient, F the Fisher matrix of the completions
           policy <- policy + length * x, the length cut to .8, .64 … of itself until the KL is below max_kl and the
           surrogate has risen; else nothing moves
           `value_epochs` passes of the value function over the returns, which do not touch the policy

F is never formed: F v is the gradient of (gradient of the KL) . v. That needs gradients of gradients, which fused
attention and log-probabilities in parts do not have, so this pass runs transformers' eager attention on whole logits.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from tuneful.algorithms.metrics import MetricMean
from tuneful.algorithms.on_policy import (
    OnPolicyConfig,
    OnPolicyLearner,
    Reading,
    batch_of,
    estimated,
    minibatches,
    require_discounts,
)
from tuneful.engines import ranks
from tuneful.engines.local import LocalEngine
from tuneful.engines.protocol import Engine, Metrics
from tuneful.errors import ConfigError
from tuneful.functional.masking import masked_mean, masked_sum, whiten
from tuneful.functional.trust_region import conjugate_gradient, fisher_kl, longest_step
from tuneful.functional.value_losses import clipped_value_loss, explained_variance
from tuneful.generation.rollout import Rollout
from tuneful.models.forward import Outputs, attend_eagerly, plain_logits, policy_kl
from tuneful.models.roles import Role, follow, own_weights, second_policy
from tuneful.records import Prompt
from tuneful.rewards.reward import Reward
from tuneful.settings import require_above, require_at_least

BACKTRACK = 0.8
"""What each further try of the line search takes of the length before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TRPOConfig(OnPolicyConfig):
    """Settings of TRPO. Counts are per step of the whole run.

    `optimization` is that of the value function, and its schedule, over steps, shrinks `max_kl` as it does the rate.
    """

    table: ClassVar[str] = "trpo."

    max_kl: float = 0.01
    """Nats per token that a step may move the policy, at the peak of the schedule."""
    damping: float = 0.1
    """Added to the Fisher matrix, which is singular where an adapter starts."""
    cg_iterations: int = 15
    """Of the conjugate gradient, at most."""
    cg_residual: float = 0.01
    """Where it ends before: what is left of the gradient, as a share of it. Each iteration is dear, and what is left
    is far below the noise of the gradient."""
    tries: int = 10
    """Lengths that the line search tries, each 0.8 of the one before."""
    fisher_share: float = 1.0
    """Share of a step's completions that the Fisher matrix is taken over; of many thousands a tenth will do."""
    value_epochs: int = 10
    """Passes of the value function over a step's completions."""
    gamma: float = 1.0
    """Discount per token."""
    lam: float = 0.95
    """GAE's lambda: 1 is the Monte-Carlo return, 0 the one-step error."""

    def __post_init__(self) -> None:
        OnPolicyConfig.__post_init__(self)
        require_above(0, self, self.table, "max_kl", "damping", hint="the paper's step is 0.01, damping 0.1")
        require_at_least(1, self, self.table, "cg_iterations", "tries")
        require_at_least(0, self, self.table, "value_epochs", hint="0 leaves the value function as it starts")
        require_above(0, self, self.table, "cg_residual", hint="1e-5 is as far as float32 goes")
        require_discounts(self)
        if not 0 < self.fisher_share <= 1:
            raise ConfigError(
                f"{self.table}fisher_share must be above 0 and at most 1, got {self.fisher_share}; 1 takes all"
            )

    @property
    def updates(self) -> int:
        """Optimizer steps of the value function in the whole run."""
        return self.num_steps * self.value_epochs


class TRPO(OnPolicyLearner):
    """Learner over prompts and a reward. Moves the policy's weights by itself, so it needs the LocalEngine."""

    config: TRPOConfig
    engine: LocalEngine

    def __init__(self, engine: Engine, prompts: Sequence[Prompt], reward: Reward, config: TRPOConfig) -> None:
        if not isinstance(engine, LocalEngine) or engine.roles.policy is None:
            raise ConfigError("trpo needs the LocalEngine: it moves the policy's weights by itself")
        if ranks.world_size() > 1:
            raise ConfigError("trpo runs in one process: its Fisher products are not shared among several")
        if engine.roles.policy.half:
            raise ConfigError("trpo needs float32, in which a gradient of a gradient is a number; leave base_dtype out")
        attend_eagerly(engine.roles.policy.model)
        super().__init__(engine, prompts, reward, config, with_values=True)
        self.old = second_policy(engine.roles.policy, "old")

    def learn(self, rollout: Rollout) -> Metrics:
        metrics = update(
            self.engine,
            self.old,
            rollout,
            self.config,
            kl_coef=self.collector.kl.coef,
            seed=self.collector.seed("update"),
            shrunk=self._schedule(),
        )
        return self.collector.finish(rollout, metrics)

    def read(self, rollout: Rollout) -> Reading:
        rewards, advantages, _ = estimated(
            rollout, kl_coef=self.collector.kl.coef, gamma=self.config.gamma, lam=self.config.lam
        )
        return Reading(rewards, whiten(advantages, rollout.mask))

    def _schedule(self) -> float:
        """The learning rate's share of its peak in this step of the run."""
        optimization = self.config.optimization.within(self.config.num_steps)
        return optimization.rate(self.collector.steps, self.config.num_steps) / optimization.learning_rate


def update(
    engine: LocalEngine, old: Role, rollout: Rollout, config: TRPOConfig, *, kl_coef: float, seed: int, shrunk: float
) -> Metrics:
    """One TRPO iteration over a collected rollout.

    old: a role that is given the weights from before the step. shrunk: the share of `max_kl` that holds in this step.
    """
    assert engine.roles.policy is not None and rollout.values is not None
    policy, mask = engine.roles.policy, rollout.mask
    follow(old, policy)
    _, advantages, returns = estimated(rollout, kl_coef=kl_coef, gamma=config.gamma, lam=config.lam)
    advantages = whiten(advantages, mask)

    weights = list(own_weights(policy).values())
    gradient, entropy = _surrogate_gradient(engine, rollout, advantages, weights)
    sample = random.Random(seed).sample(range(len(rollout)), max(1, round(config.fisher_share * len(rollout))))
    fisher = partial(fisher_product, policy, rollout.rows(sorted(sample)), weights, engine.tokens_per_microbatch)
    direction, residual = conjugate_gradient(
        lambda v: fisher(v) + config.damping * v,
        gradient,
        iterations=config.cg_iterations,
        tolerance=config.cg_residual**2,
    )
    max_kl = shrunk * config.max_kl
    step = longest_step(direction, fisher(direction), max_kl) * direction
    found = _line_search(engine, old, rollout, advantages, weights, step, max_kl=max_kl, tries=config.tries)
    value_loss = _fit_values(engine, rollout, returns, weights, config, seed)
    return (
        found
        | value_loss
        | {
            "max_kl": max_kl,
            "entropy": entropy,
            "grad_norm": float(gradient.norm()),
            "cg_residual": residual,
            "value": float(masked_mean(rollout.values, mask)),
            "explained_variance": float(explained_variance(rollout.values, returns, mask)),
        }
    )


def fisher_product(
    policy: Role, rollout: Rollout, weights: Sequence[nn.Parameter], tokens_per_microbatch: int, v: Tensor
) -> Tensor:
    """F v, float [n]: F the Fisher matrix of the policy at the tokens of `rollout`, a mean over them.

    weights: those of the policy that move, n numbers; v: float [n].
    """
    parts = _like(v, weights)
    total = torch.zeros_like(v)
    for rows in _passes(rollout, tokens_per_microbatch):
        prompts, completions = [rollout.prompts[i] for i in rows], [rollout.completions[i] for i in rows]
        logits = plain_logits(policy, prompts, completions) / rollout.temperature
        kl = fisher_kl(logits).sum() / rollout.num_tokens
        slope = torch.autograd.grad(kl, weights, create_graph=True)
        along = sum((s * part).sum() for s, part in zip(slope, parts, strict=True))
        assert isinstance(along, Tensor)
        total += _flat(torch.autograd.grad(along, weights))
    return total


def _surrogate_gradient(
    engine: LocalEngine, rollout: Rollout, advantages: Tensor, weights: Sequence[nn.Parameter]
) -> tuple[Tensor, float]:
    """Gradient [n] of the mean of ratio * advantage over tokens, at ratio 1, and the mean entropy."""
    num_tokens = rollout.num_tokens

    def loss(outputs: Outputs, rows: list[int]) -> tuple[Tensor, Metrics]:
        assert outputs.logprobs is not None and outputs.entropy is not None
        gain = masked_sum(outputs.logprobs * advantages[rows], rollout.mask[rows]) / num_tokens
        return -gain, {"entropy": float(masked_sum(outputs.entropy, rollout.mask[rows])) / num_tokens}

    seen = engine.forward_backward(batch_of(rollout, range(len(rollout))), loss)
    gradient = -_flat([torch.zeros_like(w) if w.grad is None else w.grad for w in weights])
    _drop_gradients(weights)
    return gradient, seen["entropy"]


def _line_search(
    engine: LocalEngine,
    old: Role,
    rollout: Rollout,
    advantages: Tensor,
    weights: Sequence[nn.Parameter],
    step: Tensor,
    *,
    max_kl: float,
    tries: int,
) -> Metrics:
    """Move the policy along `step` [n], or a part of it; where no try holds, it stays where it was."""
    start = [w.detach().clone() for w in weights]
    share = 1.0
    for _ in range(tries):
        _move(weights, start, share * step)
        ratio = (engine.score("policy", rollout) - rollout.logprobs).exp()
        gain = float(masked_mean((ratio - 1) * advantages, rollout.mask))
        kl = _mean_kl(engine, old, rollout)
        if kl < max_kl and gain > 0:
            return {"accepted": 1.0, "step_share": share, "surrogate_gain": gain, "update_kl": kl}
        share *= BACKTRACK
    _move(weights, start, torch.zeros_like(step))
    return {"accepted": 0.0, "step_share": 0.0, "surrogate_gain": 0.0, "update_kl": 0.0}


def _mean_kl(engine: LocalEngine, old: Role, rollout: Rollout) -> float:
    """KL(old, policy) in nats per token, exact."""
    assert engine.roles.policy is not None
    total = 0.0
    for rows in _passes(rollout, engine.tokens_per_microbatch):
        prompts, completions = [rollout.prompts[i] for i in rows], [rollout.completions[i] for i in rows]
        of_tokens, _ = policy_kl(old, engine.roles.policy, prompts, completions, temperature=rollout.temperature)
        total += float(of_tokens.sum())
    return total / rollout.num_tokens


def _fit_values(
    engine: LocalEngine,
    rollout: Rollout,
    returns: Tensor,
    weights: Sequence[nn.Parameter],
    config: TRPOConfig,
    seed: int,
) -> Metrics:
    """Mean squared error of the value function alone: gradients that reach the policy are dropped."""
    seen = MetricMean()
    for rows in minibatches(rollout.group.tolist(), epochs=config.value_epochs, parts=1, seed=seed):
        loss = partial(value_fit, returns=returns[rows], mask=rollout.mask[rows])
        metrics = engine.forward_backward(batch_of(rollout, rows, with_values=True), loss)
        _drop_gradients(weights)
        engine.step(config.max_grad_norm)
        seen.add(metrics)
    return seen.mean()


def value_fit(outputs: Outputs, part: list[int], *, returns: Tensor, mask: Tensor) -> tuple[Tensor, Metrics]:
    """Half the mean squared error of values; returns, mask: [R, T] of the batch, of which `outputs` has rows `part`."""
    assert outputs.values is not None
    fit = clipped_value_loss(
        outputs.values, outputs.values, returns[part], mask[part], clip=None, num_tokens=int(mask.sum())
    )
    return fit.loss, {"value_loss": float(fit.loss.detach())}


def _passes(rollout: Rollout, tokens_per_microbatch: int) -> Iterator[list[int]]:
    """Row numbers of each forward pass."""
    lengths = [len(p) + len(c) for p, c in zip(rollout.prompts, rollout.completions, strict=True)]
    yield from ranks.microbatches(lengths, tokens_per_microbatch)


def _drop_gradients(weights: Sequence[nn.Parameter]) -> None:
    for weight in weights:
        weight.grad = None  # AdamW passes over what has none


@torch.no_grad()
def _move(weights: Sequence[nn.Parameter], start: Sequence[Tensor], step: Tensor) -> None:
    for weight, before, part in zip(weights, start, _like(step, weights), strict=True):
        weight.copy_(before + part)


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def _like(flat: Tensor, weights: Sequence[nn.Parameter]) -> list[Tensor]:
    """Parts of `flat` [n] in the shapes of `weights`."""
    parts = torch.split(flat, [weight.numel() for weight in weights])
    return [part.view_as(weight) for part, weight in zip(parts, weights, strict=True)]
