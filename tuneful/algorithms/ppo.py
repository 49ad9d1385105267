"""Proximal policy optimization for language models (Schulman et al. 2017; Ziegler et al. 2019; Ouyang et al. 2022).

per step:  sample completions, score them, subtract kl_coef * (log policy - log reference) from each token's reward
           advantages by GAE, whitened over the batch
           `epochs` passes in `minibatches` optimizer steps: clipped policy loss + value_coef * clipped value loss
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from torch import Tensor

from tuneful.algorithms.kl_control import AdaptiveKL, FixedKL, KLController
from tuneful.algorithms.metrics import MetricMean
from tuneful.data.batching import shuffled_batches, shuffled_epochs
from tuneful.engines.optimization import Optimization
from tuneful.engines.protocol import Batch, Engine, Metrics
from tuneful.errors import ConfigError
from tuneful.functional.advantages import gae, shape_rewards
from tuneful.functional.masking import masked_mean, masked_sum, whiten
from tuneful.functional.policy_losses import ppo_clip_loss
from tuneful.functional.value_losses import clipped_value_loss, explained_variance
from tuneful.generation.rollout import Rollout
from tuneful.generation.sampling import Sampling, fold
from tuneful.models.forward import Outputs
from tuneful.records import Prompt
from tuneful.rewards.reward import Reward
from tuneful.rollouts.collect import collect
from tuneful.settings import require_above, require_at_least, require_seed


@dataclass(frozen=True, kw_only=True, slots=True)
class PPOConfig:
    """Settings of PPO. Counts are per step of the whole run, not per device."""

    num_steps: int = 100
    """Steps of sampling and updating."""
    prompts_per_step: int = 64
    """Prompts sampled in each step."""
    samples_per_prompt: int = 1
    """Completions of each prompt."""
    max_new_tokens: int = 64
    """Longest completion, the end token included."""
    max_prompt_tokens: int | None = None
    """Longer prompts lose their beginning; None: they are refused when they do not fit the context."""
    temperature: float = 1.0
    """Part of the policy: logits are divided by it in sampling, training and reference alike."""
    epochs: int = 4
    """Passes over each step's completions."""
    minibatches: int = 1
    """Optimizer steps per epoch, each on all samples of its prompts, of which some steps may have one more than others;
    on parts of them where prompts are fewer."""
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
    kl_coef: float = 0.05
    """Reward units per nat of sequence KL; the start value when kl_target is set."""
    kl_target: float | None = None
    """Nats per completion that an adaptive coefficient steers to; None: the coefficient is fixed."""
    kl_horizon: int = 10_000
    """Completions over which the adaptive coefficient moves by its error."""
    missing_eos_penalty: float = 1.0
    """Taken off the score of a completion that ran into max_new_tokens."""
    max_grad_norm: float = 1.0
    """The gradient is clipped to this norm."""
    optimization: Optimization = Optimization(learning_rate=3e-6)
    """Optimizer and schedule."""
    seed: int = 0
    """Order of prompts, and what is sampled."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "ppo.", "num_steps", "prompts_per_step", "samples_per_prompt", "max_new_tokens")
        require_at_least(1, self, "ppo.", "epochs", "minibatches", "max_prompt_tokens")
        require_seed(self, "ppo.")
        if self.minibatches > self.prompts_per_step * self.samples_per_prompt:
            raise ConfigError(
                f"ppo.minibatches is {self.minibatches} but a step has only "
                f"{self.prompts_per_step * self.samples_per_prompt} completions"
            )
        if not 0 < self.clip < 1:
            raise ConfigError(f"ppo.clip must lie between 0 and 1, got {self.clip}; the PPO paper uses 0.2")
        require_above(0, self, "ppo.", "temperature", hint="greedy sampling has no ratio")
        if not 0 < self.gamma <= 1:
            raise ConfigError(
                f"ppo.gamma must be above 0 and at most 1, got {self.gamma}; completions are short, use 1"
            )
        if not 0 <= self.lam <= 1:
            raise ConfigError(f"ppo.lam must lie between 0 and 1, got {self.lam}; the PPO paper uses 0.95")
        optional = ("value_clip", "value_coef", "entropy_coef", "missing_eos_penalty")
        require_at_least(0, self, "ppo.", *optional, hint="0 leaves it out")
        require_above(0, self, "ppo.", "max_grad_norm", hint="1 is usual")
        controller = self.kl_controller()
        if isinstance(controller, AdaptiveKL):
            controller.check_step(self.prompts_per_step * self.samples_per_prompt)

    def kl_controller(self) -> KLController:
        """What weighs the KL penalty, at its start."""
        if self.kl_target is None:
            return FixedKL(self.kl_coef)
        return AdaptiveKL(self.kl_coef, self.kl_target, self.kl_horizon)

    @property
    def sampling(self) -> Sampling:
        """How completions are drawn, while training and in evaluations alike."""
        return Sampling(
            num_samples=self.samples_per_prompt,
            max_new_tokens=self.max_new_tokens,
            max_prompt_tokens=self.max_prompt_tokens,
            temperature=self.temperature,
        )

    @property
    def updates(self) -> int:
        """Optimizer steps of the whole run."""
        return self.num_steps * self.epochs * self.minibatches


class PPO:
    """Learner over prompts and a reward."""

    def __init__(self, engine: Engine, prompts: Sequence[Prompt], reward: Reward, config: PPOConfig) -> None:
        if not prompts:
            raise ConfigError("ppo: no prompts to sample from")
        self.engine = engine
        self.prompts = prompts
        self.reward = reward
        self.config = config
        self.batch = shuffled_batches(len(prompts), config.prompts_per_step, config.seed)
        self.kl = config.kl_controller()
        self.steps = 0

    def step(self) -> Metrics:
        prompts = [self.prompts[k] for k in self.batch(self.steps)]
        rollout = self.collect(prompts, seed=fold(self.config.seed, "rollout", self.steps))
        metrics = update(
            self.engine, rollout, self.config, kl_coef=self.kl.coef, seed=fold(self.config.seed, "update", self.steps)
        )
        self.kl.update(metrics["kl"], len(rollout))
        self.engine.publish_weights()
        self.steps += 1
        return metrics

    def collect(self, prompts: Sequence[Prompt], *, seed: int) -> Rollout:
        """Experience for these prompts under the current policy."""
        return collect(
            self.engine,
            prompts,
            self.config.sampling,
            self.reward,
            seed=seed,
            missing_eos_penalty=self.config.missing_eos_penalty,
            with_values=True,
        )

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps, "kl": self.kl.state()}

    def restore(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        self.kl.restore(state["kl"])


@dataclass(frozen=True, slots=True)
class Experience:
    """What the loss reads of a rollout, [N, T], all recorded before the first gradient step."""

    logprobs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    mask: Tensor


def update(engine: Engine, rollout: Rollout, config: PPOConfig, *, kl_coef: float, seed: int) -> Metrics:
    """One PPO iteration over a collected rollout; kl_coef is the controller's current value."""
    assert rollout.scores is not None and rollout.values is not None and rollout.reference_logprobs is not None
    rewards = shape_rewards(rollout.scores, rollout.logprobs, rollout.reference_logprobs, rollout.mask, kl_coef=kl_coef)
    advantages, returns = gae(rewards, rollout.values, rollout.mask, gamma=config.gamma, lam=config.lam)
    experience = Experience(rollout.logprobs, rollout.values, whiten(advantages, rollout.mask), returns, rollout.mask)
    seen = MetricMean()
    for rows in minibatches(rollout.group.tolist(), config, seed):
        batch = Batch(
            role="policy",
            prompts=[rollout.prompts[i] for i in rows],
            completions=[rollout.completions[i] for i in rows],
            width=rollout.mask.shape[1],
            with_values=True,
            entropy_grad=config.entropy_coef > 0,
            temperature=rollout.temperature,
        )
        num_tokens = int(rollout.mask[rows].sum())
        loss = partial(ppo_loss, experience=experience, rows=rows, config=config, num_tokens=num_tokens)
        seen.add(engine.forward_backward(batch, loss), grad_norm=engine.step(config.max_grad_norm))
    difference = rollout.logprobs - rollout.reference_logprobs
    return seen.mean() | {
        "reward": float(rollout.scores.mean()),
        "kl": float(masked_sum(difference, rollout.mask)) / len(rollout),
        "kl_coef": kl_coef,
        "length_tokens": float(rollout.mask.sum(-1).float().mean()),
        "eos_share": sum(f == "eos" for f in rollout.finish) / len(rollout),
        "value": float(masked_mean(rollout.values, rollout.mask)),
        "explained_variance": float(explained_variance(rollout.values, returns, rollout.mask)),
        **rollout.engine_mismatch,
    }


def ppo_loss(
    outputs: Outputs,
    part: list[int],
    *,
    experience: Experience,
    rows: Sequence[int],
    config: PPOConfig,
    num_tokens: int,
) -> tuple[Tensor, Metrics]:
    """Clipped policy loss, value loss and entropy bonus of some rows of a minibatch.

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
    metrics = {
        "policy_loss": pi.loss,
        "value_loss": v.loss,
        "entropy": entropy,
        "clip_fraction": pi.clip_fraction,
        "approx_kl": pi.approx_kl,
    }
    return loss, {name: float(value.detach()) for name, value in metrics.items()}


def minibatches(group: Sequence[int], config: PPOConfig, seed: int) -> Iterator[list[int]]:
    """Row numbers of each optimizer step: every epoch a new order, cut into `minibatches` parts.

    group: the prompt of each row (`Rollout.group`). A part has all rows of its prompts, so that a pass reads each once
    (models/ragged.py), and parts differ by the rows of one prompt at most: 5 prompts of 8 rows in 4 parts are 16, 8, 8
    and 8. Where prompts are fewer than parts, rows are cut prompt by prompt into parts that differ by one row at most,
    and a part may end one prompt and begin the next. A prompt that was drawn twice counts as two.
    """
    order = shuffled_epochs(len(group), seed)
    for epoch in range(config.epochs):
        of_prompt: dict[int, list[int]] = {}
        for place in range(len(group)):
            row = order(epoch * len(group) + place)
            of_prompt.setdefault(group[row], []).append(row)
        shuffled = list(of_prompt.values())
        if len(shuffled) < config.minibatches:
            rows = [row for samples in shuffled for row in samples]
            ends = [len(rows) * part // config.minibatches for part in range(config.minibatches + 1)]
            yield from (rows[begin:end] for begin, end in pairwise(ends))
        else:
            for part in range(config.minibatches):
                yield [row for samples in shuffled[part :: config.minibatches] for row in samples]
