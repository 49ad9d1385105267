"""What learners that train on answers of their own have in common: settings, and how a step's answers are collected.

per step:  the next prompts of a shuffled order are answered by the current policy and scored
           the learner updates the policy on what was recorded
           the KL controller is told how far the policy is from its reference, the sampler gets the new weights
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

from torch import Tensor

from tuneful.algorithms.kl_control import AdaptiveKL, FixedKL, KLController
from tuneful.data.batching import shuffled_batches, shuffled_epochs
from tuneful.data.templates import Tokenizer, prompt_ids
from tuneful.engines.optimization import Optimization
from tuneful.engines.protocol import Batch, Engine, Metrics
from tuneful.errors import ConfigError
from tuneful.functional.advantages import gae, shape_rewards
from tuneful.functional.masking import masked_sum
from tuneful.generation.rollout import Rollout
from tuneful.generation.sampler import Choose
from tuneful.generation.sampling import Sampling, fold
from tuneful.records import Prompt
from tuneful.rewards.reward import Reward
from tuneful.rollouts.collect import collect
from tuneful.settings import require_above, require_at_least, require_seed

Averaging = Literal["tokens", "completions", "constant"]
"""How a loss is averaged over an optimizer step: over all tokens, so that each counts the same; over the tokens of each
completion and then over completions; or its sum divided by completions times `max_new_tokens`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OnPolicyConfig:
    """Settings of learners that train on their own answers. Counts are per step of the whole run, not per device."""

    table: ClassVar[str] = ""
    """What stands before a setting's name in errors, for example "ppo."."""

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
        require_at_least(1, self, self.table, "num_steps", "prompts_per_step", "samples_per_prompt", "max_new_tokens")
        require_at_least(1, self, self.table, "max_prompt_tokens")
        require_seed(self, self.table)
        require_above(0, self, self.table, "temperature", hint="greedy sampling has no ratio")
        require_at_least(0, self, self.table, "missing_eos_penalty", hint="0 leaves it out")
        require_above(0, self, self.table, "max_grad_norm", hint="1 is usual")
        try:
            controller = self.kl_controller()
            if isinstance(controller, AdaptiveKL):
                controller.check_step(self.completions_per_step)
        except ConfigError as error:
            raise ConfigError(f"{self.table}{error}") from None

    @property
    def name(self) -> str:
        """Of the algorithm, for example "ppo"."""
        return self.table.removesuffix(".")

    def kl_controller(self) -> KLController:
        """What weighs the KL penalty, at its start."""
        if self.kl_target is None:
            return FixedKL(self.kl_coef)
        return AdaptiveKL(self.kl_coef, self.kl_target, self.kl_horizon)

    @property
    def completions_per_step(self) -> int:
        return self.prompts_per_step * self.samples_per_prompt

    @property
    def drawn_per_step(self) -> int:
        """Completions that a step draws to learn from."""
        return self.completions_per_step

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
        """Optimizer steps of the whole run, one for each step unless the learner says more."""
        return self.num_steps


def require_clip(config: Any) -> None:
    """Refuse a `clip` that leaves no ratio, or ratios below 0."""
    if not 0 < config.clip < 1:
        raise ConfigError(f"{config.table}clip must lie between 0 and 1, got {config.clip}; the PPO paper uses 0.2")


def require_minibatches(config: Any) -> None:
    """Refuse `epochs` and `minibatches` below 1, and more minibatches than a step has completions."""
    require_at_least(1, config, config.table, "epochs", "minibatches")
    if config.minibatches > config.completions_per_step:
        raise ConfigError(
            f"{config.table}minibatches is {config.minibatches} but a step has only {config.completions_per_step} "
            "completions; lower minibatches or raise prompts_per_step"
        )


def require_discounts(config: Any) -> None:
    """Refuse a `gamma` or `lam` that discounts nothing known."""
    if not 0 < config.gamma <= 1:
        raise ConfigError(
            f"{config.table}gamma must be above 0 and at most 1, got {config.gamma}; completions are short, use 1"
        )
    if not 0 <= config.lam <= 1:
        raise ConfigError(f"{config.table}lam must lie between 0 and 1, got {config.lam}; the PPO paper uses 0.95")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a learner makes of a rollout before it updates on it, float32 [N, T] each, for people to look at.

    rewards: of tokens, the leash's share in each where the learner has it in the reward. advantages: what the loss
    weighs a token's log-probability by; that of a whole completion stands on each of its tokens.
    """

    rewards: Tensor
    advantages: Tensor


class Collector:
    """A step's answers, and what follows an update. `steps` and the KL controller are all its state."""

    def __init__(
        self,
        engine: Engine,
        prompts: Sequence[Prompt],
        reward: Reward,
        config: OnPolicyConfig,
        *,
        with_values: bool = False,
    ) -> None:
        if not prompts:
            raise ConfigError(
                f"{config.name}: no prompts to sample from; give more prompts, or more of them to rl in splits"
            )
        self.engine = engine
        self.prompts = prompts
        self.reward = reward
        self.config = config
        self.with_values = with_values
        self.kl = config.kl_controller()
        self.steps = 0
        self._batch = shuffled_batches(len(prompts), config.prompts_per_step, config.seed)

    def seed(self, what: str) -> int:
        """The seed of something random in this step."""
        return fold(self.config.seed, what, self.steps)

    def next_rollout(self, choose: Callable[[Sequence[Prompt]], Choose] | None = None) -> Rollout:
        """What the policy answers to this step's prompts; choose: makes the sampler's hook for them."""
        prompts = [self.prompts[k] for k in self._batch(self.steps)]
        return self.rollout(prompts, seed=self.seed("rollout"), choose=choose and choose(prompts))

    def rollout(self, prompts: Sequence[Prompt], *, seed: int, choose: Choose | None = None) -> Rollout:
        """A scored rollout of these prompts under the current policy, with all that an update reads."""
        return collect(
            self.engine,
            prompts,
            self.config.sampling,
            self.reward,
            seed=seed,
            missing_eos_penalty=self.config.missing_eos_penalty,
            with_values=self.with_values,
            choose=choose,
        )

    def prompt_ids(self, prompts: Sequence[Prompt], tokenizer: Tokenizer) -> list[list[int]]:
        """The ids that the policy answers to, for what reads along while it is sampled."""
        return [prompt_ids(prompt, tokenizer, max_tokens=self.config.max_prompt_tokens) for prompt in prompts]

    def reading(self, rollout: Rollout, of_completions: Tensor, *, kl_coef: float) -> Reading:
        """That of a learner with one advantage per completion, float [N], and this much of the KL in its reward."""
        return Reading(token_rewards(rollout, kl_coef=kl_coef), of_completions[:, None].expand_as(rollout.mask))

    def finish(self, rollout: Rollout, metrics: Metrics, *, logprobs: Tensor | None = None) -> Metrics:
        """End the step in which the policy was updated on `rollout`; the update's metrics and those of the answers.

        logprobs: [N, T] of what was drawn from, where the policy is more than the model's own choice.
        """
        assert rollout.scores is not None and rollout.reference_logprobs is not None
        difference = (rollout.logprobs if logprobs is None else logprobs) - rollout.reference_logprobs
        seen = metrics | {
            "reward": float(rollout.scores.mean()),
            "kl": float(masked_sum(difference, rollout.mask)) / len(rollout),
            "kl_coef": self.kl.coef,
            "length_tokens": float(rollout.mask.sum(-1).float().mean()),
            "eos_share": sum(f == "eos" for f in rollout.finish) / len(rollout),
            **rollout.engine_mismatch,
        }
        self.kl.update(seen["kl"], len(rollout))
        self.engine.publish_weights()
        self.steps += 1
        return seen

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps, "kl": self.kl.state()}

    def restore(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        self.kl.restore(state["kl"])


class OnPolicyLearner(ABC):
    """A learner over prompts and a reward: it answers, and learns from its answers."""

    def __init__(
        self,
        engine: Engine,
        prompts: Sequence[Prompt],
        reward: Reward,
        config: OnPolicyConfig,
        *,
        with_values: bool = False,
    ) -> None:
        self.engine = engine
        self.config = config
        self.collector = Collector(engine, prompts, reward, config, with_values=with_values)

    def step(self) -> Metrics:
        return self.learn(self.draw())

    def draw(self) -> Rollout:
        """What the policy answers in this step."""
        return self.collector.next_rollout()

    @abstractmethod
    def learn(self, rollout: Rollout) -> Metrics:
        """Update on what `draw` gave, which ends the step."""

    def read(self, rollout: Rollout) -> Reading:
        """What `learn` would make of a rollout. Raises ConfigError where the learner knows no advantages."""
        raise ConfigError(f"{self.config.name} knows no advantages of tokens; it learns by their values")

    def state(self) -> dict[str, Any]:
        return self.collector.state()

    def restore(self, state: dict[str, Any]) -> None:
        self.collector.restore(state)


def batch_of(rollout: Rollout, rows: Sequence[int], *, with_values: bool = False, entropy_grad: bool = False) -> Batch:
    """Rows of a rollout as an optimizer step reads them, outputs as wide as the rollout."""
    return Batch(
        role="policy",
        prompts=[rollout.prompts[i] for i in rows],
        completions=[rollout.completions[i] for i in rows],
        width=rollout.mask.shape[1],
        with_values=with_values,
        entropy_grad=entropy_grad,
        temperature=rollout.temperature,
        allowed=None if rollout.allowed is None else [rollout.allowed[i] for i in rows],
    )


def old_logprobs(rollout: Rollout) -> Tensor:
    """What the ratio of an update is taken to, float32 [N, T]: with `choose`, of what it left, as the update's are."""
    return rollout.logprobs if rollout.allowed is None else rollout.sampled_logprobs


def token_rewards(rollout: Rollout, *, kl_coef: float) -> Tensor:
    """`shape_rewards` of a scored rollout, float32 [N, T]."""
    assert rollout.scores is not None and rollout.reference_logprobs is not None
    return shape_rewards(rollout.scores, rollout.logprobs, rollout.reference_logprobs, rollout.mask, kl_coef=kl_coef)


def shaped_returns(rollout: Rollout, *, kl_coef: float) -> Tensor:
    """score - kl_coef * (log policy - log reference of the whole completion), float32 [N]."""
    return token_rewards(rollout, kl_coef=kl_coef).sum(-1)


def estimated(rollout: Rollout, *, kl_coef: float, gamma: float, lam: float) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards of tokens, and advantages and returns by GAE, float32 [N, T] each, nothing whitened."""
    assert rollout.values is not None
    rewards = token_rewards(rollout, kl_coef=kl_coef)
    return rewards, *gae(rewards, rollout.values, rollout.mask, gamma=gamma, lam=lam)


def token_weights(mask: Tensor, averaging: Averaging, max_new_tokens: int) -> Tensor:
    """Weights with which a mean over tokens becomes this average, float32 [R, T], 0 where `mask` is False.

    mask: bool [R, T] of all rows of the optimizer step. By "constant" long completions count more than by
    "completions", and none counts less for being long (Liu et al. 2025, arXiv 2503.20783).
    """
    counts, total = mask.float(), mask.sum()
    if averaging == "completions":
        return counts * total / (len(mask) * mask.sum(-1, keepdim=True).clamp_min(1))
    if averaging == "constant":
        return counts * total / (len(mask) * max_new_tokens)
    return counts


def minibatches(group: Sequence[int], *, epochs: int, parts: int, seed: int) -> Iterator[list[int]]:
    """Row numbers of each optimizer step: every epoch a new order, cut into `parts`.

    group: the prompt of each row (`Rollout.group`). A part has all rows of its prompts, so that a pass reads each once
    (models/ragged.py), and parts differ by the rows of one prompt at most: 5 prompts of 8 rows in 4 parts are 16, 8, 8
    and 8. Where prompts are fewer than parts, rows are cut prompt by prompt into parts that differ by one row at most,
    and a part may end one prompt and begin the next. A prompt that was drawn twice counts as two.
    """
    order = shuffled_epochs(len(group), seed)
    for epoch in range(epochs):
        of_prompt: dict[int, list[int]] = {}
        for place in range(len(group)):
            row = order(epoch * len(group) + place)
            of_prompt.setdefault(group[row], []).append(row)
        shuffled = list(of_prompt.values())
        if len(shuffled) < parts:
            rows = [row for samples in shuffled for row in samples]
            ends = [len(rows) * part // parts for part in range(parts + 1)]
            yield from (rows[begin:end] for begin, end in pairwise(ends))
        else:
            for part in range(parts):
                yield [row for samples in shuffled[part::parts] for row in samples]
