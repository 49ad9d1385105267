"""Charts as SVG made by the server: shapes in numbers that a template writes out, with the numbers in a table too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

WIDTH, HEIGHT = 640, 160

SIDE = 44.0
"""The largest square of a heat map."""

ROW = 20.0
"""Height of a row of ranges."""

NAMES = 180.0
"""Width that the names of ranges take."""


@dataclass(frozen=True, slots=True)
class Line:
    """A rising line: `points` of an SVG polyline, marks as (x, name), and what the ends of the axes say."""

    points: str
    marks: tuple[tuple[float, str], ...]
    first: str
    last: str
    top: int


def cumulative(times: Sequence[float], marks: Sequence[tuple[int, float]]) -> Line | None:
    """How many there were at each time, and when something changed; None for less than two times."""
    if len(times) < 2 or times[-1] <= times[0]:
        return None
    first, last = times[0], times[-1]
    step = max(1, len(times) // WIDTH)
    kept = [*range(0, len(times), step), len(times) - 1]

    def across(time: float) -> float:
        return round(WIDTH * (time - first) / (last - first), 1)

    points = " ".join(f"{across(times[n])},{round(HEIGHT - HEIGHT * (n + 1) / len(times), 1)}" for n in kept)
    inside = tuple((across(at), f"instructions {version}") for version, at in marks if first <= at <= last)
    return Line(points=points, marks=inside, first=_shown(first), last=_shown(last), top=len(times))


def _shown(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M")


@dataclass(frozen=True, slots=True)
class Dot:
    """A value with its interval, in the chart's own units."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Trend:
    """Shares in windows from left to right: a line through `dots`, marks as (x, name)."""

    points: str
    dots: tuple[Dot, ...]
    marks: tuple[tuple[float, str], ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """step: 0 (never alike) over 4 (chance) to 8 (always alike), -1 where nothing is known."""

    x: float
    y: float
    step: int
    text: str
    title: str


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Squares of `side`; rows and columns bear numbers, whose middles are at `middles`."""

    side: float
    size: float
    cells: tuple[Cell, ...]
    middles: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """A row: a name, and on the axis its value with both ends."""

    name: str
    y: float
    x: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Ranges:
    """ticks: (x, what stands there)."""

    rows: tuple[Range, ...]
    ticks: tuple[tuple[float, str], ...]
    height: float


def trend(
    sizes: Sequence[int], shares: Sequence[tuple[float, float, float] | None], marks: Sequence[tuple[int, str]]
) -> Trend | None:
    """Windows of `sizes` things each, their shares as (value, low, high), and marks as (after how many things, name).

    None where no share is known.
    """
    total, begun, dots = sum(sizes), 0, []
    for size, share in zip(sizes, shares, strict=True):
        if share is not None:
            y, low, high = (round(HEIGHT * (1 - one), 1) for one in share)
            dots.append(Dot(x=_across(begun + size / 2, total), y=y, low=low, high=high))
        begun += size
    if not dots:
        return None
    points = " ".join(f"{dot.x},{dot.y}" for dot in dots)
    inside = tuple((_across(after, total), name) for after, name in marks if after < total)
    return Trend(points=points, dots=tuple(dots), marks=inside)


def heat_map(alike: Sequence[Sequence[float | None]], common: Sequence[Sequence[int]]) -> HeatMap:
    """A square for each two, by how often they are alike of `common` times; those of one with himself are left out."""
    side = min(SIDE, WIDTH / (len(alike) + 1))
    cells = [
        Cell(
            x=round(side * (column + 1), 1),
            y=round(side * (row + 1), 1),
            step=-1 if share is None else round(8 * share),
            text="" if share is None or side < SIDE / 2 else f"{100 * share:.0f}",
            title=f"{row + 1} and {column + 1}: "
            + ("nothing in common" if share is None else f"{share:.0%} of {common[row][column]} alike"),
        )
        for row, shares in enumerate(alike)
        for column, share in enumerate(shares)
        if row != column
    ]
    middles = tuple(round(side * (n + 1.5), 1) for n in range(len(alike)))
    return HeatMap(side=round(side, 1), size=round(side * (len(alike) + 1), 1), cells=tuple(cells), middles=middles)


def ranges(rows: Sequence[tuple[str, float, float, float]], *, low: float, high: float) -> Ranges:
    """Rows of (name, value, low, high) on an axis that reaches at least from `low` to `high`, in whole numbers."""
    ends = [number for row in rows for number in row[1:]]
    start, stop = math.floor(min([low, *ends])), math.ceil(max([high, *ends]))
    step = max(1, math.ceil((stop - start) / 10))

    def across(value: float) -> float:
        return round(NAMES + (WIDTH - NAMES) * (value - start) / (stop - start), 1)

    return Ranges(
        rows=tuple(
            Range(name=name, y=ROW * (n + 0.5), x=across(value), low=across(least), high=across(most))
            for n, (name, value, least, most) in enumerate(rows)
        ),
        ticks=tuple((across(value), str(value)) for value in range(start, stop + 1, step)),
        height=ROW * len(rows),
    )


def _across(done: float, total: int) -> float:
    return round(WIDTH * done / total, 1)
