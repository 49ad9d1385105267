"""Reward modelling: a scalar that agrees with people's comparisons (Bradley-Terry; InstructGPT, arXiv 2203.02155).

All comparisons of one prompt are one batch element: its completions run once each, and its pairs share weight 1 however
many there are. Shuffling pairs apart would show a completion N - 1 times per epoch and overfit within one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tuneful.algorithms.metrics import MetricMean
from tuneful.data.batching import shuffled_batches
from tuneful.engines.optimization import Optimization
from tuneful.engines.protocol import Batch, Engine, Metrics
from tuneful.errors import ConfigError
from tuneful.functional.preference_losses import bradley_terry_loss, pair_accuracy
from tuneful.models.forward import Outputs
from tuneful.models.roles import Role
from tuneful.records import Comparison
from tuneful.rewards.learned import encode_pair
from tuneful.settings import require_above, require_at_least, require_seed


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardModelConfig:
    """Settings of reward-model training."""

    prompts_per_step: int = 64
    """Prompts, with all their comparisons, per optimizer step."""
    epochs: int = 1
    """Passes over the prompts; a second one overfits at scale (InstructGPT), small data may want it."""
    center_coef: float = 0.0
    """Weight of (r_chosen + r_rejected)^2, which keeps scores near 0 (arXiv 2312.09244 uses 0.01)."""
    max_tokens: int = 1024
    """Prompt and completion together, at most the model's context; longer prompts are cut on the left."""
    max_grad_norm: float = 1.0
    """The gradient is clipped to this norm."""
    optimization: Optimization = Optimization(learning_rate=9e-6, schedule="cosine")
    """Optimizer and schedule."""
    seed: int = 0
    """Order of the prompts."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "reward.", "prompts_per_step", "epochs", "max_tokens")
        require_seed(self, "reward.")
        require_at_least(0, self, "reward.", "center_coef", hint="0 leaves it out")
        require_above(0, self, "reward.", "max_grad_norm", hint="1 is usual")

    def num_steps(self, num_prompts: int) -> int:
        """Optimizer steps of the whole run."""
        return -(-num_prompts * self.epochs // self.prompts_per_step)


@dataclass(slots=True)
class PromptPairs:
    """One prompt's completions, each once, and the pairs among them by row number."""

    prompts: list[list[int]] = field(default_factory=list)
    completions: list[list[int]] = field(default_factory=list)
    chosen: list[int] = field(default_factory=list)
    rejected: list[int] = field(default_factory=list)
    p: list[float] = field(default_factory=list)
    weight: list[float] = field(default_factory=list)
    margin: list[float] = field(default_factory=list)


class RewardModel:
    """Learner over comparisons."""

    def __init__(self, engine: Engine, groups: Sequence[PromptPairs], config: RewardModelConfig) -> None:
        if not groups:
            raise ConfigError("reward: no comparisons to learn from")
        self.engine = engine
        self.config = config
        self.groups = groups
        self.batch = shuffled_batches(len(self.groups), config.prompts_per_step, config.seed)
        self.steps = 0

    def step(self) -> Metrics:
        groups = [self.groups[k] for k in self.batch(self.steps)]
        units = [u for u, g in enumerate(groups) for _ in g.completions]
        batch = Batch(
            role="reward",
            prompts=[p for g in groups for p in g.prompts],
            completions=[c for g in groups for c in g.completions],
            units=units,
        )
        starts = {u: units.index(u) for u in range(len(groups))}
        loss = partial(pair_loss, groups=groups, units=units, starts=starts, center_coef=self.config.center_coef)
        metrics = self.engine.forward_backward(batch, loss)
        seen = MetricMean()
        seen.add(metrics, grad_norm=self.engine.step(self.config.max_grad_norm))
        self.engine.publish_weights()
        self.steps += 1
        return seen.mean()

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def restore(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


def pair_loss(
    outputs: Outputs,
    rows: list[int],
    *,
    groups: Sequence[PromptPairs],
    units: Sequence[int],
    starts: dict[int, int],
    center_coef: float,
) -> tuple[Tensor, Metrics]:
    """Bradley-Terry loss of the prompts in this micro-batch, each of weight 1, over all prompts of the step."""
    assert outputs.scores is not None
    place = {row: k for k, row in enumerate(rows)}
    inside = sorted({units[row] for row in rows})

    def gather(name: str) -> list[float]:
        return [value for u in inside for value in getattr(groups[u], name)]

    def index(name: str) -> Tensor:
        return torch.tensor([place[starts[u] + k] for u in inside for k in getattr(groups[u], name)])

    device = outputs.scores.device
    chosen, rejected = outputs.scores[index("chosen").to(device)], outputs.scores[index("rejected").to(device)]
    weight = torch.tensor(gather("weight"), device=device)
    loss = bradley_terry_loss(
        chosen,
        rejected,
        p=torch.tensor(gather("p"), device=device),
        margin=torch.tensor(gather("margin"), device=device),
        weight=weight,
        center_coef=center_coef,
        num_groups=len(groups),
    )
    share = weight / len(groups)
    margin = chosen - rejected
    metrics = {
        "loss": loss.detach(),
        "accuracy": (pair_accuracy(margin) * share).sum(),
        "margin": (margin * share).sum(),
    }
    return loss, {name: float(value.detach()) for name, value in metrics.items()}


def group_pairs(comparisons: Sequence[Comparison], role: Role, tokenizer: Any, max_tokens: int) -> list[PromptPairs]:
    """Comparisons gathered by prompt (or `group`), weights scaled to sum to 1 in each.

    Pairs whose two sides are the same ids after truncation say nothing and are left out.
    """
    groups: dict[str, PromptPairs] = {}
    rows: dict[tuple[str, str], int] = {}
    for comparison in comparisons:
        key = comparison.group_key
        group = groups.setdefault(key, PromptPairs())
        sides = []
        for text in (comparison.chosen, comparison.rejected):
            if (key, text) not in rows:
                prompt, completion = encode_pair(comparison.prompt, text, tokenizer, role, max_tokens)
                rows[key, text] = len(group.completions)
                group.prompts.append(prompt)
                group.completions.append(completion)
            sides.append(rows[key, text])
        if group.completions[sides[0]] == group.completions[sides[1]]:
            continue
        group.chosen.append(sides[0])
        group.rejected.append(sides[1])
        group.p.append(comparison.p)
        group.weight.append(comparison.weight)
        group.margin.append(comparison.margin or 0.0)
    kept = [group for group in groups.values() if group.chosen]
    for group in kept:
        total = sum(group.weight)
        group.weight = [w / total for w in group.weight]
    return kept
