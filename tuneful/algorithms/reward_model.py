"""Reward modelling: a scalar that agrees with what people said of answers, in one of three ways.

pairs       which of two is better: Bradley-Terry (InstructGPT, arXiv 2203.02155)
rankings    a rater's order of several: Plackett-Luce, each place a choice among those that are left
labels      whether one answer is good: a classifier on direct feedback, whose log-odds is the reward

All that was said of one prompt is one batch element: its completions run once each, and its pairs, rankings or labels
share weight 1 however many there are. Shuffling pairs apart would show a completion N - 1 times per epoch and overfit
within one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tuneful.data.batching import shuffled_batches
from tuneful.engines.optimization import Optimization
from tuneful.engines.protocol import Batch, Engine, Loss, Metrics
from tuneful.errors import ConfigError
from tuneful.functional.preference_losses import bradley_terry_loss, classifier_loss, pair_accuracy, plackett_luce_loss
from tuneful.models.forward import Outputs
from tuneful.models.roles import Role
from tuneful.records import Comparison, Prompt, Ranking, UnpairedPreference
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
    """Weight of (r_chosen + r_rejected)^2 of pairs, which keeps scores near 0 (arXiv 2312.09244 uses 0.01)."""
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


def require_no_center(config: RewardModelConfig) -> None:
    """Refuse a `center_coef` where there are no pairs."""
    if config.center_coef > 0:
        raise ConfigError("reward.center_coef is of the two sides of pairs; leave it out for rankings and labels")


@dataclass(slots=True)
class PromptRows:
    """One prompt's completions, each once."""

    prompts: list[list[int]] = field(default_factory=list)
    completions: list[list[int]] = field(default_factory=list)


@dataclass(slots=True)
class PromptPairs(PromptRows):
    """The pairs among them by row number."""

    chosen: list[int] = field(default_factory=list)
    rejected: list[int] = field(default_factory=list)
    p: list[float] = field(default_factory=list)
    weight: list[float] = field(default_factory=list)
    margin: list[float] = field(default_factory=list)


@dataclass(slots=True)
class PromptRankings(PromptRows):
    """Orders of some of them: of each the row numbers, their ranks from 1, and the rater's slope."""

    rows: list[list[int]] = field(default_factory=list)
    ranks: list[list[int]] = field(default_factory=list)
    slope: list[float] = field(default_factory=list)


@dataclass(slots=True)
class PromptLabels(PromptRows):
    """Of each, as often as it was labeled: its row number, the probability that it is good, and the label's weight."""

    rows: list[int] = field(default_factory=list)
    good: list[float] = field(default_factory=list)
    weight: list[float] = field(default_factory=list)


Groups = Sequence[PromptPairs] | Sequence[PromptRankings] | Sequence[PromptLabels]


class RewardModel:
    """Learner over pairs, rankings or labels, grouped by prompt."""

    def __init__(self, engine: Engine, groups: Groups, config: RewardModelConfig) -> None:
        if not groups:
            raise ConfigError("reward: nothing to learn from")
        if not isinstance(groups[0], PromptPairs):
            require_no_center(config)
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
        loss = self._loss(groups, Places(units, starts))
        metrics = self.engine.forward_backward(batch, loss)
        metrics["grad_norm"] = self.engine.step(self.config.max_grad_norm)
        self.engine.publish_weights()
        self.steps += 1
        return metrics

    def _loss(self, groups: list[Any], places: Places) -> Loss:
        if isinstance(groups[0], PromptPairs):
            return partial(pair_loss, groups=groups, places=places, center_coef=self.config.center_coef)
        return partial(
            ranking_loss if isinstance(groups[0], PromptRankings) else label_loss, groups=groups, places=places
        )

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def restore(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


@dataclass(frozen=True, slots=True)
class Places:
    """Where the completions of a step's prompts stand. units: the prompt of each row; starts: the first row of each."""

    units: Sequence[int]
    starts: Mapping[int, int]

    def inside(self, rows: Sequence[int]) -> list[int]:
        """The prompts in a micro-batch, which has all rows of each."""
        return sorted({self.units[row] for row in rows})

    def find(self, rows: Sequence[int], own: Iterable[tuple[int, int]]) -> Tensor:
        """Where in the micro-batch `rows` the k-th completion of prompt u stands, of all (u, k), int64 [len(own)]."""
        place = {row: number for number, row in enumerate(rows)}
        return torch.tensor([place[self.starts[u] + k] for u, k in own])


def pair_loss(
    outputs: Outputs, rows: list[int], *, groups: Sequence[PromptPairs], places: Places, center_coef: float
) -> tuple[Tensor, Metrics]:
    """Bradley-Terry loss of the prompts in this micro-batch, each of weight 1, over all prompts of the step."""
    assert outputs.scores is not None
    scores, inside = outputs.scores, places.inside(rows)

    def side(name: str) -> Tensor:
        return scores[places.find(rows, [(u, k) for u in inside for k in getattr(groups[u], name)]).to(scores.device)]

    def numbers(name: str) -> Tensor:
        return torch.tensor([x for u in inside for x in getattr(groups[u], name)], device=scores.device)

    chosen, rejected, weight = side("chosen"), side("rejected"), numbers("weight")
    loss = bradley_terry_loss(
        chosen,
        rejected,
        p=numbers("p"),
        margin=numbers("margin"),
        weight=weight,
        center_coef=center_coef,
        num_groups=len(groups),
    )
    share, margin = weight / len(groups), chosen - rejected
    metrics = {
        "loss": loss.detach(),
        "accuracy": (pair_accuracy(margin) * share).sum(),
        "margin": (margin * share).sum(),
    }
    return loss, {name: float(value.detach()) for name, value in metrics.items()}


def ranking_loss(
    outputs: Outputs, rows: list[int], *, groups: Sequence[PromptRankings], places: Places
) -> tuple[Tensor, Metrics]:
    """Plackett-Luce loss of the prompts in this micro-batch, the mean over the rankings of each, over all prompts of
    the step; accuracy is of the pairs that a ranking orders, as a rater with a slope above 0 orders them."""
    assert outputs.scores is not None
    device, inside = outputs.scores.device, places.inside(rows)
    orders = [(u, own, ranks) for u in inside for own, ranks in zip(groups[u].rows, groups[u].ranks, strict=True)]
    at = pad_sequence([places.find(rows, [(u, k) for k in own]) for u, own, _ in orders], batch_first=True)
    ranks = pad_sequence([torch.tensor(of) for *_, of in orders], batch_first=True).to(device)
    slope = torch.tensor([x for u in inside for x in groups[u].slope], device=device)[:, None]
    share = torch.tensor([1 / len(groups[u].rows) for u, *_ in orders], device=device) / len(groups)
    scores = outputs.scores[at.to(device)]
    loss = (plackett_luce_loss(slope * scores, ranks) * share).sum()

    ordered = (ranks[:, :, None] > 0) & (ranks[:, :, None] < ranks[:, None, :])
    right = pair_accuracy((scores[:, :, None] - scores[:, None, :]) * slope[:, :, None].sign())
    accuracy = (right * ordered).sum((1, 2)) / ordered.sum((1, 2)).clamp_min(1)
    return loss, {"loss": float(loss.detach()), "accuracy": float((accuracy * share).sum())}


def label_loss(
    outputs: Outputs, rows: list[int], *, groups: Sequence[PromptLabels], places: Places
) -> tuple[Tensor, Metrics]:
    """Cross-entropy of the labels of the prompts in this micro-batch, each prompt of weight 1, over all prompts of the
    step; accuracy is of scores above and below 0."""
    assert outputs.scores is not None
    device, inside = outputs.scores.device, places.inside(rows)
    own = [(u, k) for u in inside for k in groups[u].rows]
    scores = outputs.scores[places.find(rows, own).to(device)]
    good = torch.tensor([x for u in inside for x in groups[u].good], device=device)
    share = torch.tensor([x for u in inside for x in groups[u].weight], device=device) / len(groups)
    loss = (classifier_loss(scores, good) * share).sum()
    accuracy = pair_accuracy(scores * (good - 0.5))
    return loss, {"loss": float(loss.detach()), "accuracy": float((accuracy * share).sum())}


class _Encoded:
    """Rows of each prompt, every text encoded once."""

    def __init__(self, make: Callable[[], Any], role: Role, tokenizer: Any, max_tokens: int) -> None:
        self.groups: dict[str, Any] = defaultdict(make)
        self._rows: dict[tuple[str, str], int] = {}
        self._encode = partial(encode_pair, tokenizer=tokenizer, role=role, max_tokens=max_tokens)

    def row(self, key: str, prompt: Prompt, text: str) -> int:
        """The row number of a text among those of its prompt."""
        group = self.groups[key]
        if (key, text) not in self._rows:
            own, completion = self._encode(prompt, text)
            self._rows[key, text] = len(group.completions)
            group.prompts.append(own)
            group.completions.append(completion)
        return self._rows[key, text]


def group_pairs(comparisons: Sequence[Comparison], role: Role, tokenizer: Any, max_tokens: int) -> list[PromptPairs]:
    """Comparisons gathered by prompt (or `group`), weights scaled to sum to 1 in each.

    Pairs whose two sides are the same ids after truncation say nothing and are left out.
    """
    encoded = _Encoded(PromptPairs, role, tokenizer, max_tokens)
    for comparison in comparisons:
        key = comparison.group_key
        chosen, rejected = (encoded.row(key, comparison.prompt, t) for t in (comparison.chosen, comparison.rejected))
        group: PromptPairs = encoded.groups[key]
        if group.completions[chosen] == group.completions[rejected]:
            continue
        group.chosen.append(chosen)
        group.rejected.append(rejected)
        group.p.append(comparison.p)
        group.weight.append(comparison.weight)
        group.margin.append(comparison.margin or 0.0)
    kept: list[PromptPairs] = [group for group in encoded.groups.values() if group.chosen]
    _share(kept)
    return kept


def group_rankings(rankings: Sequence[Ranking], role: Role, tokenizer: Any, max_tokens: int) -> list[PromptRankings]:
    """Rankings gathered by prompt; those that order no two different texts say nothing and are left out."""
    encoded = _Encoded(PromptRankings, role, tokenizer, max_tokens)
    for ranking in rankings:
        ranked = [(t, r) for t, r in zip(ranking.completions, ranking.ranks, strict=True) if r is not None]
        if len({rank for _, rank in ranked}) < 2 or ranking.slope == 0:
            continue
        key = ranking.prompt.id
        own = [encoded.row(key, ranking.prompt, text) for text, _ in ranked]
        group: PromptRankings = encoded.groups[key]
        group.rows.append(own)
        group.ranks.append([rank for _, rank in ranked])
        group.slope.append(ranking.slope)
    return list(encoded.groups.values())


def group_labels(
    answers: Sequence[UnpairedPreference], role: Role, tokenizer: Any, max_tokens: int
) -> list[PromptLabels]:
    """Labels gathered by prompt, weights scaled to sum to 1 in each."""
    encoded = _Encoded(PromptLabels, role, tokenizer, max_tokens)
    for answer in answers:
        row = encoded.row(answer.prompt.id, answer.prompt, answer.completion)
        group: PromptLabels = encoded.groups[answer.prompt.id]
        group.rows.append(row)
        group.good.append(answer.goodness)
        group.weight.append(answer.weight)
    kept: list[PromptLabels] = list(encoded.groups.values())
    _share(kept)
    return kept


def _share(groups: Sequence[PromptPairs] | Sequence[PromptLabels]) -> None:
    """Scale the weights of each group to sum to 1."""
    for group in groups:
        total = sum(group.weight)
        group.weight = [w / total for w in group.weight]
