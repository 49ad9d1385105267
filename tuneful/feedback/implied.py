"""The order that ratings of several answers imply: the one with more points is better, equal points tie."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from tuneful.records import Judgment


def implied_ranks(values: Sequence[float | None]) -> tuple[int | None, ...]:
    """1 for the highest value, None for None."""
    given = [value for value in values if value is not None]
    return tuple(None if value is None else 1 + sum(other > value for other in given) for value in values)


def as_ranking(rated: Judgment) -> Judgment | None:
    """The order that a rating implies, with all else that the judgment holds; None of fewer than two rated answers."""
    values = [rated.values.get(one) for one in rated.completions]
    given = len(values) - values.count(None)
    return replace(rated, kind="ranking", ranks=implied_ranks(values)) if given > 1 else None


def orders(judgments: Iterable[Judgment]) -> list[Judgment]:
    """Judgments as a consensus of orders takes them: a rating of two answers or more as the ranking that it implies."""
    return [(as_ranking(one) if one.kind == "rating" else None) or one for one in judgments]
