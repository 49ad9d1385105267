"""Small plots as SVG text for the report: no files, no global state, colours named by CSS variables.

matplotlib draws with stand-in colours that are then exchanged for the page's variables, so one drawing serves the light
and the dark page. Labels inside a plot are fixed words; names from data stand in the page around it.

All plots have one frame, wide enough for any number an axis shows: finding the best frame would be drawing everything
twice. Curves are remembered, since while a run goes on the page of a stage and that of the whole run show the same.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from itertools import combinations
from statistics import median
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Points = tuple[tuple[float, float], ...]

FAR = 3.0
"""How many times the median cost is still drawn to scale in a plot of learners."""

MARK = 11.0
"""Points between the numbers of two learners."""

_INK, _RULE, _BEFORE, _AFTER, _GROUND = "#010203", "#040506", "#070809", "#0a0b0c", "#0d0e0f"
_VARIABLES = {_INK: "--faint", _RULE: "--rule", _BEFORE: "--before", _AFTER: "--after", _GROUND: "--ground"}
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 8.5,
    "font.family": "DejaVu Sans",
    "axes.edgecolor": _RULE,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": _RULE,
    "grid.linewidth": 0.5,
    "xtick.color": _RULE,
    "ytick.color": _RULE,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.solid_capstyle": "round",
}


@lru_cache(maxsize=32)
def over_steps(train: Points, evaluations: Points, *, name: str) -> str:
    """A measure over training steps: the rollouts as a line, evaluations as dots joined by a line."""

    def draw(axes: Axes) -> None:
        if train:
            axes.plot(*zip(*train, strict=True), color=_BEFORE, linewidth=1.1, alpha=0.9)
        if evaluations:
            axes.plot(*zip(*evaluations, strict=True), color=_AFTER, linewidth=1.6)
            axes.plot(*zip(*evaluations, strict=True), "o", color=_AFTER, markersize=3.6, markeredgecolor=_GROUND)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("step")

    return _svg(draw, title=f"{name} over training steps")


@lru_cache(maxsize=32)
def frontier(points: Points, *, name: str) -> str:
    """Reward (y) against KL in nats (x), in the order of training; the last point is filled."""

    def draw(axes: Axes) -> None:
        axes.plot(*zip(*points, strict=True), color=_AFTER, linewidth=1.1, alpha=0.55)
        axes.plot(*zip(*points, strict=True), "o", color=_GROUND, markersize=4.2, markeredgecolor=_AFTER)
        axes.plot(*points[-1], "o", color=_AFTER, markersize=5, markeredgecolor=_GROUND)
        axes.set_xlabel("KL from the reference, nats per completion")

    return _svg(draw, title=name)


@dataclass(frozen=True, slots=True)
class Series:
    """A learner in a plot of several: the moments of its run, and where it ended, with the interval of its height."""

    curve: Points
    end: tuple[float, float]
    interval: tuple[float, float] | None = None


def learners(series: Sequence[Series], *, start: float | None, over: str, name: str) -> str:
    """Where each learner ended (y), marked with its number from 1, against `over` (x), with the run that led there.

    start: the height before any training, as a line. Learners that end beyond `FAR` times the median stand at the
    right with an arrow and what they came to, so that one of them does not press all others together.
    """
    spent = [one.end[0] for one in series if one.end[0] > 0] or [1.0]  # who spent nothing says nothing of the scale
    width = max(x for x in spent if x <= FAR * median(spent))

    def draw(axes: Axes) -> None:
        if start is not None:
            axes.axhline(start, color=_BEFORE, linewidth=1.0, linestyle=(0, (4, 3)))
        for one in series:
            axes.plot(*zip(*one.curve, strict=True), color=_AFTER, linewidth=0.8, alpha=0.4)
            if one.interval is not None:
                axes.plot((one.end[0],) * 2, one.interval, color=_AFTER, linewidth=1.2, alpha=0.7)
        axes.margins(y=0.12)
        axes.set_ylim(axes.get_ylim())
        right = (1.25 if max(spent) > width else 1.1) * width
        axes.set_xlim(-0.04 * width, right)
        ends_here = [(min(x, 0.97 * right), y) for x, y in (one.end for one in series)]
        scale = 72 / axes.get_figure(root=True).dpi  # type: ignore[union-attr]
        places = [(scale * x, scale * y) for x, y in axes.transData.transform(ends_here)]
        for number, (one, at, place, free) in enumerate(
            zip(series, ends_here, places, _apart(places, MARK), strict=True), start=1
        ):
            beyond = one.end[0] > right
            axes.annotate(
                f"{number}: {one.end[0]:,.0f} →" if beyond else str(number),
                at,
                (free[0] - place[0], free[1] - place[1]),
                textcoords="offset points",
                color=_AFTER,
                fontsize=6.5,
                ha="right" if beyond else "center",
                va="center_baseline",
                bbox={
                    "boxstyle": f"{'round' if beyond else 'circle'},pad=0.22",
                    "fc": _GROUND,
                    "ec": _AFTER,
                    "lw": 0.9,
                },
                arrowprops={"arrowstyle": "-", "color": _AFTER, "lw": 0.6, "alpha": 0.6, "shrinkA": 0, "shrinkB": 0},
                zorder=3,
            )
        axes.set_xlabel(over)

    return _svg(draw, title=name)


def _apart(places: Sequence[tuple[float, float]], distance: float) -> list[tuple[float, float]]:
    """The places, moved until each has `distance` to every other, or as far as some rounds of pushing bring them."""
    moved = [complex(x, y) + 0.01 * k for k, (x, y) in enumerate(places)]  # what lies at one point parts, too
    for _ in range(200):
        for one, other in combinations(range(len(moved)), 2):
            between = moved[one] - moved[other]
            push = (distance - abs(between)) / 2
            if push > 0:
                moved[one] += push * between / abs(between)
                moved[other] -= push * between / abs(between)
    return [(place.real, place.imag) for place in moved]


def growth(points: Points, *, of: str) -> str:
    """Seconds of a step (y) against the amount of what grows (x), named `of`, both from 0: a line through the corner is
    a cost in proportion."""

    def draw(axes: Axes) -> None:
        axes.plot(
            *zip(*points, strict=True), "o-", color=_AFTER, linewidth=1.6, markersize=3.6, markeredgecolor=_GROUND
        )
        axes.set(xlim=(0, None), ylim=(0, None), xlabel=of, ylabel="seconds per step")

    return _svg(draw, title=f"seconds per step over {of}")


def distributions(edges: Sequence[float], before: Sequence[float], after: Sequence[float], *, name: str) -> str:
    """Two histograms over the same bins, each as a share of its own side."""

    def draw(axes: Axes) -> None:
        for counts, colour, alpha in ((before, _BEFORE, 0.35), (after, _AFTER, 0.3)):
            total = sum(counts) or 1
            shares = [c / total for c in counts]
            axes.stairs(shares, edges, fill=True, color=colour, alpha=alpha, linewidth=0)
            axes.stairs(shares, edges, color=colour, linewidth=1.2)
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g} %")
        axes.grid(False, axis="x")
        axes.set_ylim(bottom=0)

    return _svg(draw, title=f"{name}: distribution before and after")


def _svg(draw: Callable[[Axes], None], *, title: str) -> str:
    """One plot as an <svg> element that scales with its container and names itself to screen readers."""
    buffer = io.StringIO()
    with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": title}):
        figure = Figure(figsize=(4.6, 2.5))
        figure.subplots_adjust(left=0.125, right=0.97, bottom=0.19, top=0.93)
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.spines["left"].set_visible(False)
        draw(axes)
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    return _inline(buffer.getvalue(), title)


def _inline(svg: str, title: str) -> str:
    """A drawing as matplotlib writes it, made fit to stand inside a page beside others."""
    body = svg[svg.index("<svg") :].partition(">")[2]
    box = re.search(r'viewBox="[^"]*"', svg)
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)  # it would reach the whole page
    body = re.sub(r"font-family: [^;]*; ", "", body)  # the page's own font
    used = set(re.findall(r'#(\w+)[)"]', body))
    body = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", body)
    body = body.replace("xlink:href", "href")
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    name = escape(title)
    return f'<svg {box[0] if box else ""} role="img" aria-label="{name}"><title>{name}</title>{body}'
