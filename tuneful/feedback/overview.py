"""A project as its lead sees it: how far it is, how people agree, how each of them judges, what they disagree on."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from tuneful.errors import DataError
from tuneful.feedback.agreement import Alpha, ranking_alpha
from tuneful.feedback.criteria import of_one
from tuneful.feedback.decisions import decisions
from tuneful.feedback.implied import orders
from tuneful.feedback.items import texts_of
from tuneful.feedback.pages import Labeler, guides, judged_at, labelers, prompts_of
from tuneful.feedback.projects import Progress, Project, find_project, judgments, progress
from tuneful.feedback.settling import standing
from tuneful.feedback.store import Store
from tuneful.feedback.tables import decision, instructions, item, judgment, membership, project
from tuneful.records import Judgment

if TYPE_CHECKING:
    from tuneful.feedback.consensus import PairConsensus, RaterReport

NUM_HARDEST = 10
"""Pairs shown as those that people agree on least."""

PACE_OF = 50
"""Judgments whose times tell the pace."""

LONGEST_PAUSE = 900.0
"""Seconds; a longer gap between two judgments is a break, and has no part in the pace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A labeler with what the consensus says of them; report is None before they have ranked anything."""

    labeler: Labeler
    report: RaterReport | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hard:
    """A pair of answers that people do not agree on."""

    prompt: str
    first: str
    second: str
    pair: PairConsensus


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """What the judgments say when they are taken together, which takes seconds where there are many.

    judgments: how many they were. left_out: a sentence on those by other criteria, where there are any. alpha: of
    rankings, and of the orders that ratings imply, None for kinds that order nothing. problem: why there is no
    consensus, where judgments should give one. reports: by rater. pairs: by item, as people judged them, also those
    that were decided. doubts: by item, the probability that it is not as it seems: of the least sure pair, or of a yes
    or no. Two answers that read the same are neither among the hardest nor in doubt: there is nothing to settle.
    """

    judgments: int = 0
    left_out: str = ""
    alpha: Alpha | None = None
    problem: str = ""
    reports: Mapping[str, RaterReport] = field(default_factory=dict)
    hardest: tuple[Hard, ...] = ()
    pairs: Mapping[str, Sequence[PairConsensus]] = field(default_factory=dict)
    doubts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """seconds_left: at the pace of people's last judgments; None while nothing tells a pace. cards: of all labelers, as
    `agreed` reports of them. times: of all judgments, oldest first. versions: (version, time) of the instructions."""

    project: Project
    progress: Progress
    seconds_left: float | None
    agreed: Agreed
    cards: tuple[Card, ...]
    times: tuple[float, ...]
    versions: tuple[tuple[int, float], ...]


def overview(store: Store, project_id: str, agreed: Agreed) -> Overview:
    """A project as it is now. agreed: what was found last by `agreement`; the rest is counted in a moment."""
    found = find_project(store, project_id)
    done = progress(store, found.id)
    times = judged_at(store, found.id)
    return Overview(
        project=found,
        progress=done,
        seconds_left=_seconds_left(times, done.wanted - done.have),
        agreed=agreed,
        cards=tuple(Card(labeler=one, report=agreed.reports.get(one.rater)) for one in labelers(store, found.id)),
        times=tuple(times),
        versions=tuple((one.version, one.published_at) for one in guides(store, found.id)),
    )


def agreement(store: Store, project_id: str) -> Agreed:
    """What the judgments of a project say together."""
    found = find_project(store, project_id)
    said, left_out = of_one(judgments(store, found.id), found.criteria)
    ordering = [one for one in orders(said) if one.kind in ("ranking", "comparison")]
    reports, pairs, problem = _agreed(ordering) if ordering else ({}, (), "")
    settled = standing(decisions(store, found.id))
    texts = texts_of(store, found.id) if pairs else {}
    apart = [pair for pair in pairs if texts[pair.first] != texts[pair.second]]
    return Agreed(
        judgments=len(said),
        left_out=left_out,
        alpha=ranking_alpha(ordering, num_resamples=200) if reports else None,
        problem=problem,
        reports=reports,
        hardest=_hardest(store, [pair for pair in apart if pair.item not in settled], texts),
        pairs=_by_item(pairs),
        doubts=_yes_or_no_doubts(said)
        if found.kind == "binary"
        else {name: 1 - min(pair.confidence for pair in theirs) for name, theirs in _by_item(apart).items()},
    )


def _by_item(pairs: Sequence[PairConsensus]) -> dict[str, list[PairConsensus]]:
    by_item: dict[str, list[PairConsensus]] = {}
    for pair in pairs:
        by_item.setdefault(pair.item, []).append(pair)
    return by_item


def overview_state(store: Store, project_id: str) -> tuple[Hashable, ...]:
    """What differs when an agreement or an overview would: quickly counted, where the agreement is fitted."""
    with store.read() as connection:
        of_project = judgment.c.project == project_id
        judged = connection.execute(select(func.count(), func.max(judgment.c.created_at)).where(of_project)).one()
        members = connection.execute(
            select(func.count(), func.max(membership.c.passed_at)).where(membership.c.project == project_id)
        ).one()
        versions = connection.execute(
            select(func.count()).select_from(instructions).where(instructions.c.project == project_id)
        ).scalar_one()
        items = connection.execute(
            select(func.count(), func.sum(item.c.overlap)).where(item.c.project == project_id)
        ).one()
        most = connection.execute(select(project.c.most_overlap).where(project.c.id == project_id)).scalar()
        settled = connection.execute(
            select(func.count()).select_from(decision).where(decision.c.project == project_id)
        ).scalar_one()
    return (*judged, *members, versions, *items, most, settled)


def _agreed(said: list[Judgment]) -> tuple[dict[str, RaterReport], tuple[PairConsensus, ...], str]:
    from tuneful.feedback.consensus import consensus  # brings scipy, which those who label do not wait for

    try:
        found = consensus(said)
    except DataError as error:
        return {}, (), str(error)
    return {report.rater: report for report in found.raters}, found.pairs, ""


def _yes_or_no_doubts(said: list[Judgment]) -> dict[str, float]:
    """Of each item, the share of the smaller side, each side with one voice more than it has."""
    votes: dict[str, list[float]] = {}
    for one in said:
        if one.criterion in one.values:
            votes.setdefault(one.item, []).append(one.values[one.criterion])
    return {name: (min(sum(all_), len(all_) - sum(all_)) + 1) / (len(all_) + 2) for name, all_ in votes.items()}


def _seconds_left(times: list[float], missing: int) -> float | None:
    gaps = sorted(later - earlier for earlier, later in pairwise(times[-PACE_OF:]) if later - earlier < LONGEST_PAUSE)
    return missing * sum(gaps) / len(gaps) if gaps else None


def _hardest(store: Store, pairs: Sequence[PairConsensus], texts: Mapping[str, str]) -> tuple[Hard, ...]:
    unsure = sorted(pairs, key=lambda pair: (pair.confidence, pair.item))[:NUM_HARDEST]
    prompts = prompts_of(store, {pair.item for pair in unsure})
    return tuple(
        Hard(prompt=prompts[pair.item], first=texts[pair.first], second=texts[pair.second], pair=pair)
        for pair in unsure
    )
