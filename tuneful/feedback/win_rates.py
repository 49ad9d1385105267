"""Which of two models people prefer: wins, ties and losses of their answers to the same prompts.

What is counted is a prompt. Labelers who judge the same answers, and several samples of one prompt, resemble each
other, so they make a prompt's number surer without making more prompts: each prompt gives one number from 0 to 1, the
mean over all that was said of it, and the interval is Wilson's for as many trials as there are prompts. It is too wide
rather than too narrow, since means between 0 and 1 vary less than single wins and losses do. It says nothing of other
labelers than these: who they are is part of the question.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal

from sqlalchemy import select

from tuneful.feedback.pages import groups_of
from tuneful.feedback.projects import judgments as judgments_of
from tuneful.feedback.store import Store
from tuneful.feedback.tables import completion, item
from tuneful.records import Judgment

if TYPE_CHECKING:
    from tuneful.feedback.consensus import Consensus
    from tuneful.feedback.shares import Share


@dataclass(frozen=True, slots=True, kw_only=True)
class WinRate:
    """`first` against `second`, in the order of their names.

    wins, ties, losses: of `first`, one for each pair of answers in each judgment. prompts: on which both were judged.
    rate: the share that `first` wins, a tie counting half. weighted: the same from the consensus of all labelers, in
    which one who guesses moves nothing: the share of prompts on which a new careful labeler would prefer `first`. None
    where no labeler can be trusted.
    """

    first: str
    second: str
    wins: int
    ties: int
    losses: int
    prompts: int
    rate: Share
    weighted: Share | None


def win_rates_of(
    store: Store,
    project_id: str,
    *,
    by: Literal["people", "models"] = "people",
    audience: str | None = None,
) -> list[WinRate]:
    """Those of a project, none where its completions are of fewer than two models.

    by: whose judgments count; those of models are no human evaluation, and are looked at by themselves. audience: only
    people who say that they are of this group.

    Raises DataError as `consensus` does, for judgments by several criteria, and as `of_audience` does.
    """
    models = models_judged(store, project_id)
    if len(set(models.values())) < 2:
        return []
    said = [
        one
        for one in judgments_of(store, project_id)
        if one.kind in ("ranking", "comparison")
        and (one.rater_kind == "ai") == (by == "models")
        and len(one.ranks) - one.ranks.count(None) >= 2
    ]
    if audience is not None:
        from tuneful.feedback.dataset import of_audience

        said = of_audience(said, audience, groups_of(store, project_id))
    if not said:
        return []
    from tuneful.feedback.consensus import consensus  # brings scipy, which those who label do not wait for

    return win_rates(said, consensus(said), models)


def win_rates(judgments: Iterable[Judgment], agreed: Consensus, models: Mapping[str, str]) -> list[WinRate]:
    """Every pair of models that people have compared.

    judgments: rankings and comparisons, each in its last revision. agreed: their consensus. models: who made which
    completion, by its id; judgments of others, and of two completions of one model, say nothing here.
    """
    said: dict[tuple[str, str], dict[str, list[float]]] = {}
    for judgment in judgments:
        ranked = [
            (models[one], rank)
            for one, rank in zip(judgment.completions, judgment.ranks, strict=False)
            if rank is not None and one in models
        ]
        for (one, rank), (other, other_rank) in combinations(ranked, 2):
            _note(said, judgment.prompt, one, other, (1 + (rank < other_rank) - (rank > other_rank)) / 2)
    weighted: dict[tuple[str, str], dict[str, list[float]]] = {}
    for pair in agreed.pairs:
        if pair.first in models and pair.second in models:
            _note(weighted, pair.prompt, models[pair.first], models[pair.second], pair.p)
    trusted = agreed.slope > 0
    return [_win_rate(pair, said[pair], weighted.get(pair, {}) if trusted else None) for pair in sorted(said)]


def models_judged(store: Store, project_id: str) -> dict[str, str]:
    """The model behind every completion that has one, by its id; those of gold items, which were chosen, left out."""
    with store.read() as connection:
        items = connection.execute(
            select(item.c.completions).where(item.c.project == project_id, item.c.gold.is_(None))
        ).scalars()
        asked = {one for completions in items for one in completions}
        rows = connection.execute(
            select(completion.c.id, completion.c.model).where(
                completion.c.project == project_id, completion.c.model.is_not(None)
            )
        ).all()
    return {row.id: row.model for row in rows if row.id in asked}


def _note(said: dict[tuple[str, str], dict[str, list[float]]], prompt: str, one: str, other: str, share: float) -> None:
    """Keep what was said of a pair of models on a prompt: the share of the one whose name comes first."""
    if one == other:
        return
    pair, share = ((one, other), share) if one < other else ((other, one), 1 - share)
    said.setdefault(pair, {}).setdefault(prompt, []).append(share)


def _win_rate(
    pair: tuple[str, str],
    said: Mapping[str, Sequence[float]],
    weighted: Mapping[str, Sequence[float]] | None,
) -> WinRate:
    outcomes = [outcome for of_prompt in said.values() for outcome in of_prompt]
    # The consensus leaves out a pair that a single labeler tied.
    agreed = None if weighted is None else {prompt: weighted.get(prompt, (0.5,)) for prompt in said}
    return WinRate(
        first=pair[0],
        second=pair[1],
        wins=outcomes.count(1.0),
        ties=outcomes.count(0.5),
        losses=outcomes.count(0.0),
        prompts=len(said),
        rate=_of_prompts(said),
        weighted=None if agreed is None else _of_prompts(agreed),
    )


def _of_prompts(said: Mapping[str, Sequence[float]]) -> Share:
    from tuneful.feedback.shares import wilson  # brings numpy, which those who label do not wait for

    return wilson(sum(sum(of_prompt) / len(of_prompt) for of_prompt in said.values()) / len(said), len(said))
