"""Groups of people: how far each agrees in itself, how far two of them agree, and where they prefer differently.

Groups are what people say of themselves. A small one would tell of single persons what they said, so one of fewer than
FEWEST_PEOPLE who judged is not looked at alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tuneful.errors import DataError
from tuneful.feedback.points import Points
from tuneful.feedback.shares import Share, clustered, wilson
from tuneful.feedback.votes import Floats

FEWEST_PEOPLE: Final = 5
"""People that a group must have to be told of, here and in what is published: of fewer, one could tell who they are."""

_SHUFFLES: Final = 200

Who = NDArray[np.bool_]
"""Which raters of some points [W]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """A group: how many of its people judged, how much, and how far two of them agree."""

    name: str
    people: int
    judgments: int
    inside: Share | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Between:
    """Two groups. alike: how far somebody of one agrees with somebody of the other. expected: the mean of that, had the
    same people been put into the two groups at random; chance: in what share of such draws it is as low; None when
    nobody can change places. differ: the share of the items that both judged on which they put different answers first,
    which they do by chance too where few judged."""

    one: str
    other: str
    alike: Share | None
    expected: float | None
    chance: float | None
    differ: Share | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Audiences:
    """hidden: how many groups have too few people to be shown."""

    groups: tuple[Audience, ...]
    between: tuple[Between, ...]
    hidden: int


def audiences(points: Points, groups: Mapping[str, Collection[str]], *, seed: int = 0) -> Audiences:
    """groups: by rater, what they say of themselves."""
    sizes = group_sizes(points.raters, groups)
    shown = [name for name, people in sizes.items() if people >= FEWEST_PEOPLE]
    who = {name: np.array([name in groups.get(rater, ()) for rater in points.raters], np.bool_) for name in shown}
    rater_of = np.zeros(len(points.judgments), np.int64)
    rater_of[points.judgment] = points.rater
    return Audiences(
        groups=tuple(
            Audience(
                name=name,
                people=sizes[name],
                judgments=int(who[name][rater_of].sum()),
                inside=_alike(points, who[name], who[name]),
            )
            for name in shown
        ),
        between=tuple(_between(points, one, other, who, seed) for one, other in combinations(shown, 2)),
        hidden=len(sizes) - len(shown),
    )


def group_sizes(raters: Collection[str], groups: Mapping[str, Collection[str]]) -> dict[str, int]:
    """How many of `raters` there are of each group, by name."""
    names = sorted({name for rater in raters for name in groups.get(rater, ())})
    return {name: sum(name in groups.get(rater, ()) for rater in raters) for name in names}


def members(raters: Collection[str], groups: Mapping[str, Collection[str]], name: str) -> set[str]:
    """Those of `raters` who are of one group. Raises DataError when they are too few to be looked at alone."""
    found = {rater for rater in raters if name in groups.get(rater, ())}
    if len(found) < FEWEST_PEOPLE:
        raise DataError(
            f'group "{name}": fewer than {FEWEST_PEOPLE} of the people who judged say they are of it; so small a group '
            "is not looked at alone, since that would tell what single persons said"
        )
    return found


def _between(points: Points, name: str, other_name: str, who: Mapping[str, Who], seed: int) -> Between:
    one, other = who[name], who[other_name]
    alike = _alike(points, one, other)
    drawn = [] if alike is None else _drawn(points, one, other, np.random.default_rng(seed))
    differ, judged = _differ(points, one, other)
    return Between(
        one=name,
        other=other_name,
        alike=alike,
        expected=float(np.mean(drawn)) if drawn else None,
        chance=(1 + sum(share <= alike.value + 1e-9 for share in drawn)) / (1 + len(drawn))
        if alike and drawn
        else None,
        differ=wilson(differ / judged, judged) if judged else None,
    )


def _alike(points: Points, one: Who, other: Who) -> Share | None:
    alike, met = _met(points, one, other)
    item = np.zeros(len(met), np.int64)
    item[points.point] = points.item
    half = 2 if (one == other).all() else 1  # within a group every two words were met from both sides
    return clustered(alike / half, met / half, item)


def _met(points: Points, one: Who, other: Who) -> tuple[Floats, Floats]:
    """By point: of every word of `one` and every word of `other` that is not of the same person, how many are alike,
    and how many there are."""
    size = int(points.point.max()) + 1
    mine, theirs = one[points.rater], other[points.rater]
    both = mine & theirs

    def total(rows: Who, values: Floats) -> Floats:
        return np.asarray(np.bincount(points.point[rows], values[rows], size), np.float64)

    each, outcome = np.ones(len(points.point)), points.outcome.astype(np.float64)
    met = total(mine, each) * total(theirs, each) - total(both, each)
    product = total(mine, outcome) * total(theirs, outcome) - total(both, outcome**2)
    return (met + product) / 2, met


def _drawn(points: Points, one: Who, other: Who, rng: np.random.Generator) -> list[float]:
    """How far two groups of the same sizes are alike when those who are in one of them alone change places."""
    movable, number = np.flatnonzero(one ^ other), int((one & ~other).sum())
    shares = []
    for _ in range(_SHUFFLES if len(movable) else 0):
        drawn = rng.permutation(movable)
        here, there = one & other, one & other
        here[drawn[:number]] = True
        there[drawn[number:]] = True
        alike, met = _met(points, here, there)
        if met.any():
            shares.append(float(alike.sum() / met.sum()))
    return shares


def _differ(points: Points, one: Who, other: Who) -> tuple[int, int]:
    """On how many items two groups have no favourite in common, and how many both judged."""
    num_items = len(points.items)
    (best, judged), (their_best, they_judged) = _favourites(points, one), _favourites(points, other)
    shared = np.bincount(points.option_item, best & their_best, num_items) > 0
    both = judged & they_judged
    return int((both & ~shared).sum()), int(both.sum())


def _favourites(points: Points, who: Who) -> tuple[Who, Who]:
    """The options [O] that come out best of their item's, by the mean of what was said of them; items judged [I]."""
    rows = who[points.rater]
    size = len(points.option_item)
    first, second, outcome = points.first[rows], points.second[rows], points.outcome[rows]
    count = np.bincount(first, minlength=size) + np.bincount(second, minlength=size)
    lead = np.bincount(first, outcome, size) - np.bincount(second, outcome, size)
    score = np.where(count > 0, lead / np.maximum(count, 1), -np.inf)
    top = np.full(len(points.items), -np.inf)
    np.maximum.at(top, points.option_item, score)
    return (count > 0) & (score == top[points.option_item]), np.isfinite(top)
