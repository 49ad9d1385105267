"""Direct preference optimization (Rafailov et al. 2023, arXiv 2305.18290): preferences straight into the policy.

loss = -log sigmoid(beta * h), h = (log policy - log reference)(chosen) - (log policy - log reference)(rejected), with
log-probabilities summed over the completion and the reference's computed once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tuneful.algorithms.metrics import MetricMean
from tuneful.data.batching import shuffled_batches
from tuneful.data.templates import pair_ids
from tuneful.engines.optimization import Optimization
from tuneful.engines.protocol import Batch, Engine, Metrics
from tuneful.errors import ConfigError
from tuneful.functional.preference_losses import dpo_loss, pair_accuracy
from tuneful.generation.rollout import Rollout
from tuneful.models.forward import Outputs
from tuneful.records import Comparison
from tuneful.settings import require_above, require_at_least, require_seed


@dataclass(frozen=True, kw_only=True, slots=True)
class DPOConfig:
    """Settings of DPO."""

    beta: float = 0.1
    """Strength of the leash: reward units per nat in the reward DPO implies."""
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
        require_above(0, self, "dpo.", "beta", hint="the DPO paper uses 0.1")
        require_at_least(1, self, "dpo.", "pairs_per_step", "epochs", "max_tokens")
        require_seed(self, "dpo.")
        require_above(0, self, "dpo.", "max_grad_norm", hint="1 is usual")

    def num_steps(self, num_pairs: int) -> int:
        """Optimizer steps of the whole run."""
        return -(-num_pairs * self.epochs // self.pairs_per_step)


@dataclass(frozen=True, slots=True)
class Pairs:
    """P encoded comparisons: rows 2k and 2k + 1 are the chosen and rejected sides of pair k."""

    prompts: list[list[int]]
    completions: list[list[int]]
    p: Tensor
    weight: Tensor
    """float32 [P]: what each pair counts; the pairs of one prompt share weight 1."""
    reference: Tensor
    """float32 [2P]: the reference's log-probability of each row."""


class DPO:
    """Learner over comparisons."""

    def __init__(self, engine: Engine, comparisons: Sequence[Comparison], config: DPOConfig, tokenizer: Any) -> None:
        if not comparisons:
            raise ConfigError("dpo: no comparisons to learn from")
        self.engine = engine
        self.config = config
        self.pairs = encode(engine, comparisons, tokenizer, config.max_tokens)
        self.batch = shuffled_batches(len(comparisons), config.pairs_per_step, config.seed)
        self.steps = 0

    def step(self) -> Metrics:
        pairs = self.batch(self.steps)
        rows = [row for k in pairs for row in (2 * k, 2 * k + 1)]
        batch = Batch(
            role="policy",
            prompts=[self.pairs.prompts[r] for r in rows],
            completions=[self.pairs.completions[r] for r in rows],
            units=[k for k in range(len(pairs)) for _ in range(2)],
        )
        loss = partial(pair_loss, pairs=self.pairs, rows=rows, beta=self.config.beta)
        seen = MetricMean()
        seen.add(self.engine.forward_backward(batch, loss), grad_norm=self.engine.step(self.config.max_grad_norm))
        self.engine.publish_weights()
        self.steps += 1
        return seen.mean()

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def restore(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


def pair_loss(
    outputs: Outputs, part: list[int], *, pairs: Pairs, rows: Sequence[int], beta: float
) -> tuple[Tensor, Metrics]:
    """DPO loss of the pairs whose rows are in this micro-batch, by weight, over all pairs of the step."""
    assert outputs.logprobs is not None
    order = sorted(range(len(part)), key=lambda k: part[k])
    at = torch.tensor([rows[part[k]] for k in order], device=outputs.logprobs.device)
    policy = outputs.logprobs.sum(-1)[order]
    reference = pairs.reference[at]
    chosen, rejected = policy[0::2], policy[1::2]
    number = at[0::2] // 2
    losses = dpo_loss(chosen, rejected, reference[0::2], reference[1::2], beta=beta, p=pairs.p[number])
    total = float(pairs.weight[torch.tensor(rows[0::2], device=at.device) // 2].sum())
    share = pairs.weight[number] / total
    margin = beta * ((chosen - reference[0::2]) - (rejected - reference[1::2]))
    metrics = {
        "loss": (losses * share).sum(),
        "accuracy": (pair_accuracy(margin) * share).sum(),
        "margin": (margin * share).sum(),
        "chosen_logprob": (chosen * share).sum(),
        "rejected_logprob": (rejected * share).sum(),
    }
    return metrics["loss"], {name: float(value.detach()) for name, value in metrics.items()}


def encode(engine: Engine, comparisons: Sequence[Comparison], tokenizer: Any, max_tokens: int) -> Pairs:
    """Ids of both sides, and the reference's log-probabilities of them, computed once."""
    prompts: list[list[int]] = []
    completions: list[list[int]] = []
    for comparison in comparisons:
        for text in (comparison.chosen, comparison.rejected):
            prompt, completion = pair_ids(comparison.prompt, text, tokenizer, max_tokens=max_tokens)
            prompts.append(prompt)
            completions.append(completion)
    reference = engine.score("reference", _as_rollout(prompts, completions)).sum(-1)
    p = torch.tensor([c.p for c in comparisons], device=reference.device)
    totals: dict[str, float] = defaultdict(float)
    for c in comparisons:
        totals[c.group_key] += c.weight
    weight = torch.tensor([c.weight / totals[c.group_key] for c in comparisons], device=reference.device)
    return Pairs(prompts, completions, p, weight, reference)


def _as_rollout(prompts: list[list[int]], completions: list[list[int]]) -> Rollout:
    """Given rows in the form an engine scores."""
    width = max(len(c) for c in completions)
    mask = torch.tensor([[t < len(c) for t in range(width)] for c in completions])
    zeros = torch.zeros(mask.shape)
    return Rollout(
        prompts=prompts,
        completions=completions,
        texts=[""] * len(completions),
        group=torch.arange(len(completions)) // 2,
        finish=["eos"] * len(completions),
        version=torch.zeros(len(completions), dtype=torch.int64),
        temperature=1.0,
        logprobs=zeros,
        sampled_logprobs=zeros,
        mask=mask,
    )
