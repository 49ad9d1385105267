"""Charts as SVG made by the server: shapes in numbers that a template writes out, with the numbers in a table too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

WIDTH, HEIGHT = 640, 160


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
