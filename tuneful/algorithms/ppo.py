"""Proximal policy optimization for language models (Schulman et al. 2017; Ziegler et al. 2019; Ouyang et al. 2022).

per step:  sample completions, score them, subtract kl_coef * (log policy - log reference) from each token's reward
           advantages by GAE, whitened over the batch
           `epochs` passes in `minibatches` optimizer steps: clipped policy loss + value_coef * clipped value loss
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

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
    require_discounts,
    require_minibatches,
    shaped_returns,
    token_rewards,
)
from tuneful.algorithms.sft import nll_loss
from tuneful.data.batching import shuffled_batches
from tuneful.engines.protocol import Batch, Engine, Metrics
from tuneful.errors import ConfigError
from tuneful.functional.advantages import gae
from tuneful.functional.masking import masked_mean, masked_sum, whiten
from tuneful.functional.policy_losses import kl_loss, ppo_clip_loss
from tuneful.functional.value_losses import clipped_value_loss, explained_variance
from tuneful.generation.rollout import Rollout
from tuneful.models.forward import Outputs
from tuneful.records import Prompt
from tuneful.rewards.reward import Reward
from tuneful.settings import require_above, require_at_least


@dataclass(frozen=True, kw_only=True, slots=True)
class PPOConfig(OnPolicyConfig):
    """Settings of PPO. Counts are per step of the whole run, not per device."""

    table: ClassVar[str] = "ppo."

    epochs: int = 4
    """Passes over each step's completions."""
    minibatches: int = 1
    """Optimizer steps per epoch, each on all samples of its prompts, of which some steps may have one more than others;
    on parts of them where prompts are fewer."""
    max_update_kl: float | None = None
    """Nats per token from the policy that sampled, beyond which the rest of a step's updates is left out; None: none
    is. Classic PPO takes .015."""
    clip: float = 0.2
    """The probability ratio is held within [1 - clip, 1 + clip]."""
    value_clip: float = 0.2
    """Values are held within this of what they were at collection; 0: not held."""
    value_coef: float = 0.1
    """Weight of the value loss beside the policy loss."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus, which keeps variety while training."""
    gamma: float = 1.0
    """Discount per token."""
    lam: float = 0.95
    """GAE's lambda: 1 is the Monte-Carlo return, 0 the one-step error."""
    kl_estimator: Literal["k1", "k2"] = "k1"
    """Where the KL penalty is: k1 in the reward of each token, k2 in the loss."""
    whiten_rewards: bool = False
    """Divide the rewards of tokens by their standard deviation over the step; this shortens completions."""
    whiten_advantages: bool = True
    """Bring advantages to mean 0 and standard deviation 1 over the step. With k2 this weighs the reward anew against
    the KL penalty in every step."""
    ptx_coef: float = 0.0
    """Weight of the log-likelihood of pretraining rows beside the policy loss (PPO-ptx); InstructGPT takes 27.8."""
    ptx_rows: int = 64
    """Pretraining rows of each optimizer step, where ptx_coef is above 0."""

    def __post_init__(self) -> None:
        OnPolicyConfig.__post_init__(self)
        require_minibatches(self)
        require_clip(self)
        require_discounts(self)
        require_at_least(1, self, self.table, "ptx_rows")
        optional = ("value_clip", "value_coef", "entropy_coef", "ptx_coef")
        require_at_least(0, self, self.table, *optional, hint="0 leaves it out")
        require_above(0, self, self.table, "max_update_kl", hint="classic PPO takes 0.015")

    @property
    def updates(self) -> int:
        """Optimizer steps of the whole run, if none is left out."""
        return self.num_steps * self.epochs * self.minibatches


def require_pretraining(config: PPOConfig, rows: object) -> None:
    """Refuse pretraining rows that nothing weighs, and a weight of none."""
    if (config.ptx_coef > 0) != bool(rows):
        raise ConfigError(f"{config.table}ptx_coef and pretraining go together: give both, or neither")


class PPO(OnPolicyLearner):
    """Learner over prompts and a reward; with `ptx_coef` also over pretraining rows (prompt ids, completion ids)."""

    config: PPOConfig

    def __init__(
        self,
        engine: Engine,
        prompts: Sequence[Prompt],
        reward: Reward,
        config: PPOConfig,
        pretraining: Sequence[tuple[list[int], list[int]]] = (),
    ) -> None:
        require_pretraining(config, pretraining)
        super().__init__(engine, prompts, reward, config, with_values=True)
        self.pretraining = pretraining

    def learn(self, rollout: Rollout) -> Metrics:
        metrics = update(
            self.engine,
            rollout,
            self.config,
            kl_coef=self.collector.kl.coef,
            seed=self.collector.seed("update"),
            pretraining=self.pretraining,
        )
        return self.collector.finish(rollout, metrics)

    def read(self, rollout: Rollout) -> Reading:
        return read(rollout, self.config, kl_coef=self.collector.kl.coef)


@dataclass(frozen=True, slots=True)
class Experience:
    """What the loss reads of a rollout, [N, T], all recorded before the first gradient step."""

    logprobs: Tensor
    """Of the distribution drawn from, whose ratio to the trained one is 1 at the first update."""
    reference_logprobs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    mask: Tensor


def update(
    engine: Engine,
    rollout: Rollout,
    config: PPOConfig,
    *,
    kl_coef: float,
    seed: int,
    pretraining: Sequence[tuple[list[int], list[int]]] = (),
) -> Metrics:
    """One PPO iteration over a collected rollout; kl_coef is the controller's current value."""
    experience = experience_of(rollout, config, kl_coef=kl_coef)
    in_loss = kl_coef if config.kl_estimator == "k2" else 0.0
    draw = shuffled_batches(len(pretraining), config.ptx_rows, seed) if pretraining else None
    seen = MetricMean()
    batches = minibatches(rollout.group.tolist(), epochs=config.epochs, parts=config.minibatches, seed=seed)
    for number, rows in enumerate(batches):
        batch = batch_of(rollout, rows, with_values=True, entropy_grad=config.entropy_coef > 0)
        num_tokens = int(rollout.mask[rows].sum())
        loss = partial(
            ppo_loss, experience=experience, rows=rows, config=config, num_tokens=num_tokens, kl_coef=in_loss
        )
        metrics = engine.forward_backward(batch, loss)
        # The first update goes on from the policy that sampled, whose distance is rounding.
        if config.max_update_kl is not None and number > 0 and metrics["approx_kl"] > config.max_update_kl:
            engine.leave_out(config.epochs * config.minibatches - number)
            break
        if draw is not None:
            metrics |= _imitate(engine, [pretraining[k] for k in draw(number)], config.ptx_coef)
        seen.add(metrics, grad_norm=engine.step(config.max_grad_norm))
        taken = number + 1
    done = {} if config.max_update_kl is None else {"updates": taken}
    return seen.mean() | {
        **done,
        "score_total": float(shaped_returns(rollout, kl_coef=kl_coef).mean()),
        "value": float(masked_mean(experience.values, rollout.mask)),
        "explained_variance": float(explained_variance(experience.values, experience.returns, rollout.mask)),
    }


def experience_of(rollout: Rollout, config: PPOConfig, *, kl_coef: float) -> Experience:
    """Rewards of tokens, advantages and returns of a collected rollout."""
    assert rollout.values is not None and rollout.reference_logprobs is not None
    mask = rollout.mask
    rewards = _rewards(rollout, config, kl_coef)
    advantages, returns = gae(rewards, rollout.values, mask, gamma=config.gamma, lam=config.lam)
    if config.whiten_advantages:
        advantages = whiten(advantages, mask)
    return Experience(old_logprobs(rollout), rollout.reference_logprobs, rollout.values, advantages, returns, mask)


def read(rollout: Rollout, config: PPOConfig, *, kl_coef: float) -> Reading:
    """The rewards and advantages of `experience_of`."""
    return Reading(_rewards(rollout, config, kl_coef), experience_of(rollout, config, kl_coef=kl_coef).advantages)


def _rewards(rollout: Rollout, config: PPOConfig, kl_coef: float) -> Tensor:
    rewards = token_rewards(rollout, kl_coef=kl_coef if config.kl_estimator == "k1" else 0.0)
    return whiten(rewards, rollout.mask, shift_mean=False) if config.whiten_rewards else rewards


def ppo_loss(
    outputs: Outputs,
    part: list[int],
    *,
    experience: Experience,
    rows: Sequence[int],
    config: PPOConfig,
    num_tokens: int,
    kl_coef: float = 0.0,
) -> tuple[Tensor, Metrics]:
    """Clipped policy loss, value loss, entropy bonus and, by `kl_coef`, the KL of some rows of a minibatch.

    outputs: of rows `part` of the minibatch, which are rows `rows[part]` of the rollout.
    """
    assert outputs.logprobs is not None and outputs.values is not None and outputs.entropy is not None
    at = [rows[k] for k in part]
    mask = experience.mask[at]
    pi = ppo_clip_loss(
        outputs.logprobs,
        experience.logprobs[at],
        experience.advantages[at],
        mask,
        clip=config.clip,
        num_tokens=num_tokens,
    )
    v = clipped_value_loss(
        outputs.values,
        experience.values[at],
        experience.returns[at],
        mask,
        clip=config.value_clip or None,
        num_tokens=num_tokens,
    )
    entropy = masked_sum(outputs.entropy, mask) / num_tokens
    loss = pi.loss + config.value_coef * v.loss - config.entropy_coef * entropy
    if kl_coef > 0:
        of_tokens = kl_loss(
            outputs.logprobs, experience.logprobs[at], experience.reference_logprobs[at], estimator="k2"
        )
        loss = loss + kl_coef * masked_sum(of_tokens, mask) / num_tokens
    metrics = {
        "policy_loss": pi.loss,
        "value_loss": v.loss,
        "entropy": entropy,
        "clip_fraction": pi.clip_fraction,
        "approx_kl": pi.approx_kl,
        "ratio_mean": pi.ratio_mean,
        "ratio_var": pi.ratio_var,
        "value_clip_fraction": v.clip_fraction,
    }
    return loss, {name: float(value.detach()) for name, value in metrics.items()}


def _imitate(engine: Engine, rows: Sequence[tuple[list[int], list[int]]], coef: float) -> Metrics:
    """Add the gradient of `coef` times the mean negative log-likelihood of these rows' completion tokens."""
    batch = Batch(role="policy", prompts=[p for p, _ in rows], completions=[c for _, c in rows])
    num_tokens = sum(len(c) for c in batch.completions)

    def loss(outputs: Outputs, part: list[int]) -> tuple[Tensor, Metrics]:
        nll, _ = nll_loss(outputs, part, num_tokens=num_tokens)
        return coef * nll, {"ptx_loss": float(nll.detach())}

    return engine.forward_backward(batch, loss)
