"""What the learners over comparisons share: rows of both sides, the batch of a step, log-probabilities side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from tuneful.data.templates import pair_ids
from tuneful.engines.optimization import Optimization
from tuneful.engines.protocol import Batch, Engine, Loss, Metrics
from tuneful.functional.preference_losses import pair_accuracy
from tuneful.generation.rollout import Rollout
from tuneful.models.forward import Outputs
from tuneful.models.ragged import Ids
from tuneful.records import Comparison
from tuneful.settings import require_above, require_at_least, require_seed


@dataclass(frozen=True, kw_only=True, slots=True)
class PairsConfig:
    """Settings of every learner over comparisons."""

    table: ClassVar[str] = ""
    """What stands before a setting's name in errors, for example "dpo."."""

    pairs_per_step: int = 64
    """Comparisons per optimizer step."""
    epochs: int = 1
    """Passes over the comparisons."""
    max_tokens: int = 1024
    """Prompt and completion together, in a recipe at most the model's context; longer prompts are cut on the left."""
    max_grad_norm: float = 1.0
    """The gradient is clipped to this norm."""
    optimization: Optimization = Optimization(learning_rate=1e-6, warmup_steps=150)
    """Optimizer and schedule."""
    seed: int = 0
    """Order of the comparisons."""

    def __post_init__(self) -> None:
        require_at_least(1, self, self.table, "pairs_per_step", "epochs", "max_tokens")
        require_seed(self, self.table)
        require_above(0, self, self.table, "max_grad_norm", hint="1 is usual")

    def num_steps(self, num_pairs: int) -> int:
        """Optimizer steps of the whole run."""
        return -(-num_pairs * self.epochs // self.pairs_per_step)


@dataclass(frozen=True, slots=True)
class Pairs:
    """P encoded comparisons: rows 2k and 2k + 1 are the chosen and rejected sides of pair k."""

    prompts: list[list[int]]
    completions: list[list[int]]
    p: list[float]
    """[P]: probability that the chosen side is preferred."""
    weight: list[float]
    """[P]: what each pair counts; the pairs of one prompt share weight 1."""


@dataclass(frozen=True, slots=True)
class Sides:
    """The K pairs of a micro-batch, each tensor float32 [K] unless it says otherwise."""

    chosen: Tensor
    """Log-probability of the chosen completion under the policy, summed over its tokens."""
    rejected: Tensor
    """The same of the rejected one."""
    chosen_tokens: Tensor
    """Tokens of the chosen completion."""
    rejected_tokens: Tensor
    """Tokens of the rejected one."""
    p: Tensor
    """Probability that the chosen side is preferred."""
    share: Tensor
    """What each pair counts in its step, whose shares add up to 1."""
    number: Tensor
    """int64 [K]: the pair's number among `Pairs`."""

    @property
    def means(self) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the chosen and of the rejected completion per token."""
        return self.chosen / self.chosen_tokens, self.rejected / self.rejected_tokens


def encode(comparisons: Sequence[Comparison], tokenizer: Any, max_tokens: int) -> Pairs:
    """Ids of both sides of each comparison, together with their prompt at most `max_tokens` long."""
    rows = [
        pair_ids(comparison.prompt, text, tokenizer, max_tokens=max_tokens)
        for comparison in comparisons
        for text in (comparison.chosen, comparison.rejected)
    ]
    return Pairs(
        prompts=[prompt for prompt, _ in rows],
        completions=[completion for _, completion in rows],
        p=[comparison.p for comparison in comparisons],
        weight=shared_weights(comparisons),
    )


def shared_weights(comparisons: Sequence[Comparison]) -> list[float]:
    """The weight of each comparison, scaled so that those of one prompt (or `group`) add up to 1."""
    totals: dict[str, float] = defaultdict(float)
    for comparison in comparisons:
        totals[comparison.group_key] += comparison.weight
    return [comparison.weight / totals[comparison.group_key] for comparison in comparisons]


def learn_pairs(engine: Engine, pairs: Pairs, numbers: Sequence[int], loss: Loss, *, max_grad_norm: float) -> Metrics:
    """One optimizer step on the pairs of these numbers, whose sides stay together in a micro-batch."""
    rows = _rows(numbers)
    batch = Batch(
        role="policy",
        prompts=[pairs.prompts[row] for row in rows],
        completions=[pairs.completions[row] for row in rows],
        units=[k for k in range(len(numbers)) for _ in range(2)],
    )
    metrics = engine.forward_backward(batch, loss)
    metrics["grad_norm"] = engine.step(max_grad_norm)
    engine.publish_weights()
    return metrics


def sides(outputs: Outputs, part: Sequence[int], pairs: Pairs, numbers: Sequence[int]) -> Sides:
    """What a micro-batch says of its pairs.

    part: its rows in the batch of the step, in any order. numbers: the pairs of the step, as `learn_pairs` was given
    them.
    """
    assert outputs.logprobs is not None
    device = outputs.logprobs.device
    order = sorted(range(len(part)), key=lambda k: part[k])
    logprobs, tokens = outputs.logprobs.sum(-1)[order], outputs.mask.sum(-1)[order].float()
    own = [numbers[part[k] // 2] for k in order[::2]]
    total = sum(pairs.weight[number] for number in numbers)

    def of_pairs(values: Sequence[float]) -> Tensor:
        return torch.tensor([values[number] for number in own], device=device)

    return Sides(
        chosen=logprobs[0::2],
        rejected=logprobs[1::2],
        chosen_tokens=tokens[0::2],
        rejected_tokens=tokens[1::2],
        p=of_pairs(pairs.p),
        share=of_pairs(pairs.weight) / total,
        number=torch.tensor(own, device=device),
    )


def weighed(both: Sides, loss: Tensor, margin: Tensor, **more: Tensor) -> tuple[Tensor, Metrics]:
    """The micro-batch's part of a step's loss, and of its metrics: each pair counts its share.

    loss, margin and what else is to be logged: [K]. The accuracy is the share of pairs whose margin is above 0, ½ at 0.
    """
    each = {
        "loss": loss,
        "accuracy": pair_accuracy(margin),
        "margin": margin,
        "chosen_logprob": both.chosen,
        "rejected_logprob": both.rejected,
        **more,
    }
    sums = {name: (values * both.share).sum() for name, values in each.items()}
    return sums["loss"], {name: float(value.detach()) for name, value in sums.items()}


def summed_logprobs(engine: Engine, role: Literal["policy", "reference"], prompts: Ids, completions: Ids) -> Tensor:
    """Log-probability of each completion under a role, summed over its tokens, without gradient: float32 [R]."""
    return engine.score(role, _as_rollout(prompts, completions)).sum(-1)


def _rows(numbers: Sequence[int]) -> list[int]:
    return [row for k in numbers for row in (2 * k, 2 * k + 1)]


def _as_rollout(prompts: Ids, completions: Ids) -> Rollout:
    """Given rows in the form an engine scores."""
    width = max(len(c) for c in completions)
    mask = torch.tensor([[t < len(c) for t in range(width)] for c in completions])
    zeros = torch.zeros(mask.shape)
    return Rollout(
        prompts=[list(prompt) for prompt in prompts],
        completions=[list(completion) for completion in completions],
        texts=[""] * len(completions),
        group=torch.arange(len(completions)),
        finish=["eos"] * len(completions),
        version=torch.zeros(len(completions), dtype=torch.int64),
        temperature=1.0,
        logprobs=zeros,
        sampled_logprobs=zeros,
        mask=mask,
    )
