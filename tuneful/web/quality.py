"""The lead's page of quality: labelers, agreement over time and between people, hard items, groups of people."""

from __future__ import annotations

from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from tuneful.feedback.audiences import FEWEST_PEOPLE
from tuneful.feedback.criteria import Criterion
from tuneful.feedback.jobs import QUALITY, enqueue
from tuneful.feedback.overview import overview_state
from tuneful.feedback.pages import Labeler, labelers, prompts_of
from tuneful.feedback.projects import Project
from tuneful.feedback.quality import (
    FEW,
    MEANING,
    Card,
    Quality,
    grounds,
    groups_shown,
    latest,
    measure,
    measure_and_keep,
    num_rows,
)
from tuneful.feedback.scales import Scales
from tuneful.feedback.standings import Standing
from tuneful.feedback.store import Store
from tuneful.web.charts import HeatMap, Ranges, Trend, heat_map, ranges, trend
from tuneful.web.leading import Led
from tuneful.web.security import InStore, Known, Now
from tuneful.web.templating import age, page
from tuneful.web.working import place_of, work_of

router = APIRouter(include_in_schema=False)

MOST_ROWS: Final = 60
"""Labelers in a chart; the table under it has all of them."""

LONGEST_NAME: Final = 24
"""Characters of a name beside a row of a chart."""


@router.get("/lead/{project_id}/quality")
def quality_page(request: Request, store: InStore, who: Known, now: Now, found: Led, group: str = "") -> Response:
    groups = groups_shown(store, found.id)
    seen, since, moved = _seen(request, store, found.id, group or None, groups, now)
    people = labelers(store, found.id)
    names = {one.rater: _name(one) for one in people}
    judged = set() if seen is None else {card.rater for card in seen.cards}
    hard = () if seen is None else [one.item for criterion in seen.criteria for one in criterion.hardest]
    return page(
        request,
        "quality.html",
        who,
        project=found,
        group=group,
        groups=groups,
        fewest=FEWEST_PEOPLE,
        quality=seen,
        since=since,
        moved=moved,
        age="" if seen is None else age(now - seen.measured_at),
        work=work_of(store, found.id, QUALITY, now=now, shown=("group",)),
        here=_place(found, group),
        sections=[] if seen is None else [_section(criterion, seen.cards, names) for criterion in seen.criteria],
        names=names,
        idle=[names[one.rater] for one in people if one.rater not in judged],
        prompts=prompts_of(store, hard),
        meaning=MEANING,
    )


@router.post("/lead/{project_id}/quality")
def measure_again(store: InStore, who: Known, now: Now, found: Led, group: Annotated[str, Form()] = "") -> Response:
    if num_rows(store, found.id) > FEW:
        enqueue(store, found.id, QUALITY, {"group": group or None}, by=who.rater, now=now)
    else:
        measure_and_keep(store, found.id, group=group or None, now=now)
    return RedirectResponse(_place(found, group), 303)


def _seen(
    request: Request, store: Store, project_id: str, group: str | None, groups: dict[str, int], now: float
) -> tuple[Quality | None, int, bool]:
    """The newest measurement, how many judgments have come since, and whether known answers, instructions or the quiz
    are not what they were; measured for this page where judgments are few.

    One whose groups are not today's is not shown: somebody may have been forgotten since.
    """
    newest = latest(store, project_id, group=group)
    if newest is not None and newest.groups != groups:
        newest = None
    rows = num_rows(store, project_id)
    held_against = grounds(store, project_id)
    since = rows - (0 if newest is None else newest.rows)
    moved = newest is not None and newest.grounds != held_against
    if since == 0 and newest is not None and not moved:
        return newest, 0, False
    if rows > FEW:
        return newest, since, moved
    kept: dict[tuple[str, str | None], tuple[object, Quality]] = request.app.state.measured
    state = (overview_state(store, project_id), groups, held_against)
    if (project_id, group) not in kept or kept[project_id, group][0] != state:
        kept[project_id, group] = (state, measure(store, project_id, group=group, now=now))
    return kept[project_id, group][1], 0, False


def _section(criterion: Criterion, cards: tuple[Card, ...], names: dict[str, str]) -> dict[str, Any]:
    """A criterion with its standings and charts."""
    standings = [one for card in cards for one in card.standings if one.criterion == criterion.name]
    return {
        "criterion": criterion,
        "standings": standings,
        "reliability": _reliability(standings, names),
        "trend": _trend(criterion),
        "heat": _heat(criterion),
        "scales": None if criterion.scales is None else _scales(criterion.scales, names),
    }


def _trend(criterion: Criterion) -> Trend | None:
    if criterion.timeline is None:
        return None
    shares = [one.agreement for one in criterion.timeline.windows]
    return trend(
        [one.judgments for one in criterion.timeline.windows],
        [None if one is None else (one.value, one.low, one.high) for one in shares],
        [(mark.after, f"version {mark.version}") for mark in criterion.timeline.marks],
    )


def _heat(criterion: Criterion) -> HeatMap | None:
    matrix = criterion.matrix
    return heat_map(matrix.alike, matrix.common) if matrix is not None and len(matrix.raters) > 1 else None


def _reliability(standings: list[Standing], names: dict[str, str]) -> Ranges | None:
    rows = [
        (_short(names[one.rater]), one.reliability, *one.interval)
        for one in standings[:MOST_ROWS]
        if one.reliability is not None and one.interval is not None
    ]
    return ranges(rows, low=-1, high=1) if rows else None


def _scales(scales: Scales, names: dict[str, str]) -> Ranges:
    rows = [(_short(names[one.rater]), one.mean, one.lowest, one.highest) for one in scales.raters[:MOST_ROWS]]
    return ranges(rows, low=1, high=7)


def _name(labeler: Labeler) -> str:
    """The name they gave, else the beginning of their number."""
    name = labeler.name or labeler.rater[:8]
    return name if labeler.kind == "human" else f"{name} ({labeler.kind})"


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _place(found: Project, group: str) -> str:
    place = place_of(found.id, QUALITY)
    return f"{place}?{urlencode({'group': group})}" if group else place
