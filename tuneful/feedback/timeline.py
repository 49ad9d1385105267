"""Agreement over time, in windows of equal numbers of judgments, with the moments at which instructions changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np

from tuneful.feedback.points import Points
from tuneful.feedback.shares import Share, clustered
from tuneful.records import Judgment

MOST_WINDOWS: Final = 20
FEWEST_JUDGMENTS: Final = 25
"""In a window; with fewer an interval says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Some judgments in a row. agreement: the share of other words on the same points that are alike, whenever these
    were said; its interval resamples items. None where nobody else spoke of the same."""

    first: float
    last: float
    judgments: int
    agreement: Share | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A version of the instructions, published at `at`, after so many of the judgments."""

    version: int
    at: float
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    windows: tuple[Window, ...]
    marks: tuple[Mark, ...]


def timeline(points: Points, versions: Sequence[tuple[int, float]]) -> Timeline:
    """versions: (version, time) of the instructions; those published before the first judgment changed nothing."""
    times = np.array([said_at(one) for one in points.judgments])
    order = np.argsort(times, kind="stable")
    number = min(max(len(order) // FEWEST_JUDGMENTS, 1), MOST_WINDOWS)
    window = np.empty(len(order), np.int64)
    window[order] = np.arange(len(order)) * number // len(order)
    met, alike = points.others()
    windows = []
    for n in range(number):
        mine, here = times[window == n], window[points.judgment] == n
        agreement = clustered(alike[here], met[here], points.item[here])
        windows.append(
            Window(first=float(mine.min()), last=float(mine.max()), judgments=len(mine), agreement=agreement)
        )
    after = [int((times < at).sum()) for _, at in versions]
    marks = [Mark(version=v, at=at, after=n) for (v, at), n in zip(versions, after, strict=True) if n]
    return Timeline(windows=tuple(windows), marks=tuple(marks))


def said_at(judgment: Judgment) -> float:
    """Seconds since 1970."""
    return datetime.fromisoformat(judgment.created_at).timestamp()
