"""Kahneman-Tversky optimization (Ethayarajh et al. 2024, arXiv 2402.01306): from single answers, good or bad.

loss = lambda_D (1 - sigmoid(beta (l - z0))) for a desirable answer and lambda_U (1 - sigmoid(beta (z0 - l))) for an
undesirable one, l = log policy - log reference. z0 is the mean l of prompts with the answers to other prompts, at least
0: an estimate of the KL, by which people are taken to judge what is a gain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tuneful.algorithms.pairs import shared_weights, summed_logprobs
from tuneful.data.batching import shuffled_batches
from tuneful.data.templates import pair_ids
from tuneful.engines.optimization import Optimization
from tuneful.engines.protocol import Batch, Engine, Metrics
from tuneful.errors import ConfigError
from tuneful.functional.preference_losses import kto_loss, pair_accuracy
from tuneful.models.forward import Outputs
from tuneful.records import Comparison, Prompt, UnpairedPreference
from tuneful.settings import require_above, require_at_least, require_seed

BALANCED = (1.0, 1.5)
"""What `pull` is to lie between (eq. 9 of the published paper; its first version, and TRL, end at 4/3)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KTOConfig:
    """Settings of KTO."""

    beta: float = 0.1
    """Strength of the leash: reward units per nat of log-ratio."""
    desirable_weight: float = 1.0
    """Weight of the loss of good answers: the paper's lambda_D."""
    undesirable_weight: float = 1.0
    """Weight of the loss of bad answers: the paper's lambda_U."""
    answers_per_step: int = 32
    """Answers per optimizer step, at least 2: each prompt is also read with an answer to another."""
    epochs: int = 1
    """Passes over the answers."""
    max_tokens: int = 1024
    """Prompt and completion together, in a recipe at most the model's context; longer prompts are cut on the left."""
    max_grad_norm: float = 1.0
    """The gradient is clipped to this norm."""
    optimization: Optimization = Optimization(learning_rate=5e-6, warmup_steps=150)
    """Optimizer and schedule."""
    seed: int = 0
    """Order of the answers."""

    def __post_init__(self) -> None:
        require_above(0, self, "kto.", "beta", hint="the KTO paper uses 0.1")
        require_above(0, self, "kto.", "desirable_weight", "undesirable_weight", hint="1 is usual")
        require_at_least(2, self, "kto.", "answers_per_step", hint="an answer alone would be its own reference point")
        require_at_least(1, self, "kto.", "epochs", "max_tokens")
        require_seed(self, "kto.")
        require_above(0, self, "kto.", "max_grad_norm", hint="1 is usual")

    def num_steps(self, num_answers: int) -> int:
        """Optimizer steps of the whole run."""
        return -(-num_answers * self.epochs // self.answers_per_step)


@dataclass(frozen=True, slots=True)
class Answers:
    """N encoded answers."""

    prompts: list[list[int]]
    completions: list[list[int]]
    p: list[float]
    """[N]: probability that the answer is a good one."""
    weight: list[float]
    """[N]: what each answer counts."""
    reference: Tensor
    """float32 [N]: the reference's log-probability of each answer."""


class KTO:
    """Learner over single answers."""

    def __init__(
        self, engine: Engine, preferences: Sequence[UnpairedPreference], config: KTOConfig, tokenizer: Any
    ) -> None:
        if len(preferences) < 2:
            raise ConfigError(f"kto: no answers to learn from: it takes two at least, got {len(preferences)}")
        self.engine = engine
        self.config = config
        self.preferences = preferences
        self.tokenizer = tokenizer
        rows = [self._encoded(one.prompt, one.completion) for one in preferences]
        prompts, completions = [prompt for prompt, _ in rows], [completion for _, completion in rows]
        self.answers = Answers(
            prompts=prompts,
            completions=completions,
            p=[one.goodness for one in preferences],
            weight=[one.weight for one in preferences],
            reference=summed_logprobs(engine, "reference", prompts, completions),
        )
        self.batch = shuffled_batches(len(preferences), config.answers_per_step, config.seed)
        self.steps = 0

    def step(self) -> Metrics:
        numbers = self.batch(self.steps)
        point = self.reference_point(numbers)
        batch = Batch(
            role="policy",
            prompts=[self.answers.prompts[k] for k in numbers],
            completions=[self.answers.completions[k] for k in numbers],
        )
        loss = partial(answer_loss, answers=self.answers, numbers=numbers, reference_point=point, config=self.config)
        metrics = self.engine.forward_backward(batch, loss)
        metrics |= {"reference_point": point, "grad_norm": self.engine.step(self.config.max_grad_norm)}
        self.engine.publish_weights()
        self.steps += 1
        return metrics

    def reference_point(self, numbers: Sequence[int]) -> float:
        """z0 of a step: the mean log-ratio of each of its prompts with the next answer to another prompt, at least 0.

        Of the whole step at once, before its backward pass, so micro-batches have no part in it. In a step of one
        prompt alone it is the next answer.
        """
        rows = []
        for place, number in enumerate(numbers):
            prompt = self.preferences[number].prompt
            following = [self.preferences[k] for k in (*numbers[place + 1 :], *numbers[:place])]
            said = next((one for one in following if one.prompt != prompt), following[0])
            rows.append(self._encoded(prompt, said.completion))
        mismatched = [prompt for prompt, _ in rows], [completion for _, completion in rows]
        of_policy = summed_logprobs(self.engine, "policy", *mismatched)
        of_reference = summed_logprobs(self.engine, "reference", *mismatched)
        return max(0.0, float((of_policy - of_reference).mean()))

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def restore(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]

    def _encoded(self, prompt: Prompt, completion: str) -> tuple[list[int], list[int]]:
        return pair_ids(prompt, completion, self.tokenizer, max_tokens=self.config.max_tokens)


def answer_loss(
    outputs: Outputs,
    part: list[int],
    *,
    answers: Answers,
    numbers: Sequence[int],
    reference_point: float,
    config: KTOConfig,
) -> tuple[Tensor, Metrics]:
    """KTO loss of the answers in this micro-batch, by weight, over all answers of the step.

    numbers: the answers of the step. What is logged of good and bad answers apart is left out in a step that has none.
    """
    assert outputs.logprobs is not None
    policy = outputs.logprobs.sum(-1)
    own = [numbers[k] for k in part]

    def tensor(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, device=policy.device)

    log_ratio = policy - answers.reference.to(policy.device)[torch.tensor(own, device=policy.device)]
    p = tensor([answers.p[k] for k in own])
    share = tensor([answers.weight[k] for k in own]) / sum(answers.weight[k] for k in numbers)
    loss = kto_loss(
        log_ratio,
        p,
        beta=config.beta,
        reference_point=reference_point,
        desirable_weight=config.desirable_weight,
        undesirable_weight=config.undesirable_weight,
    )
    gain = pair_accuracy(log_ratio - reference_point)
    sums = {
        "loss": (loss * share).sum(),
        "accuracy": ((p * gain + (1 - p) * (1 - gain)) * share).sum(),
    }
    good, bad = _sums_by_label(answers, numbers)
    weight = tensor([answers.weight[k] for k in own])
    if good > 0:
        sums["desirable_logprob"] = (policy * p * weight).sum() / good
    if bad > 0:
        sums["undesirable_logprob"] = (policy * (1 - p) * weight).sum() / bad
    if good > 0 and bad > 0:
        sums["margin"] = (config.beta * log_ratio * weight * (p / good - (1 - p) / bad)).sum()
    return sums["loss"], {name: float(value.detach()) for name, value in sums.items()}


def pull(preferences: Sequence[UnpairedPreference], config: KTOConfig) -> float:
    """How much harder good answers pull than bad ones: lambda_D n_D / (lambda_U n_U), by weight; inf without bad ones.

    It is to lie within `BALANCED`.
    """
    good = sum(one.weight * one.goodness for one in preferences)
    bad = sum(one.weight * (1 - one.goodness) for one in preferences)
    return config.desirable_weight * good / (config.undesirable_weight * bad) if bad > 0 else float("inf")


def unpair(comparisons: Sequence[Comparison]) -> list[UnpairedPreference]:
    """Every answer of the comparisons once, good with the probability that it is preferred.

    An answer's weight is the sum of those of its pairs, where the pairs of one prompt share weight 1; its probability
    is their mean by weight. So the loss is that of each pair's two sides as a good and a bad answer, as in TRL, but an
    answer in several pairs is read once.
    """
    places: dict[tuple[str, str], int] = {}
    prompts: list[tuple[Prompt, str]] = []
    weight: list[float] = []
    good: list[float] = []
    for comparison, share in zip(comparisons, shared_weights(comparisons), strict=True):
        for text, p in ((comparison.chosen, comparison.p), (comparison.rejected, 1 - comparison.p)):
            place = places.setdefault((comparison.group_key, text), len(prompts))
            if place == len(prompts):
                prompts.append((comparison.prompt, text))
                weight.append(0.0)
                good.append(0.0)
            weight[place] += share
            good[place] += share * p
    return [
        UnpairedPreference(prompt, text, label=2 * won >= total, p=won / total, weight=total)
        for (prompt, text), total, won in zip(prompts, weight, good, strict=True)
    ]


def _sums_by_label(answers: Answers, numbers: Sequence[int]) -> tuple[float, float]:
    """The weight of good and of bad answers in a step."""
    good = sum(answers.weight[k] * answers.p[k] for k in numbers)
    return good, sum(answers.weight[k] * (1 - answers.p[k]) for k in numbers)
