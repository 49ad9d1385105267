"""The report of a run: `report.json` for programs, and `report.html`, one file without scripts or outside requests.

Texts in a report come from models and from strangers. They are cleaned once, on the way in (`shown`), and escaped by
the template; a content policy in the page forbids whatever might still slip through.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeGuard

import jinja2
from markupsafe import Markup

from tuneful.errors import DataError, RunError
from tuneful.evaluation import plots
from tuneful.visible import visible

MAX_CHARACTERS = 2_000
MAX_SAMPLES = 12
MAX_ROWS = 40

_MAIN_MEASURES = ("reward", "true_utility", "kl", "loss", "accuracy")
_CAPITALS = frozenset(
    "kl eos ece nll cg cql sft dpo ipo orpo kto rloo grpo a2c ppo nlpo trpo raft dqn ilql reinforce".split()
)
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_BOOKKEEPING = frozenset({"stage", "step", "kind", "seconds", "version", "epoch", "seed"})


def write_json(path: Path, report: Mapping[str, Any]) -> None:
    """Write `report` as strict JSON. Raises DataError naming the field of a number that is not finite."""
    plain = _plain(report, "report")
    text = json.dumps(plain, ensure_ascii=False, allow_nan=False, indent=2)
    _write(path, text + "\n", errors="backslashreplace")  # a lone surrogate becomes its JSON escape


def write_report(
    path: Path,
    report: Mapping[str, Any],
    *,
    metrics: Sequence[Mapping[str, Any]] = (),
    samples: Sequence[Mapping[str, Any]] = (),
    title: str = "Run report",
    refresh: int | None = None,
) -> None:
    """Write `report` as a page that shows whatever parts are there (docs/decisions/0002 names them).

    metrics: rows {"step", "kind": "train" | "evaluation", measure: number}; rows that name their "stage" are drawn
    apart, stage by stage. samples: rows {"prompt", "before", "after", "before_score", "after_score"}, shown side by
    side, and rows {"step", "prompt", "completion", "score", "kl"}, of which the latest are shown. refresh: seconds
    after which an open page loads itself anew, for a run that goes on.

    A report with "live" in it (pipeline/live.py says what that holds) is of a run that has not ended: its page says how
    far the run is, draws the main measures and gives the newest numbers of all. It is quick to make.
    """
    seen = _cleaned(report)
    rows, texts = _cleaned(list(metrics)), _cleaned(list(samples))
    pairs = [s for s in texts if "after" in s]
    rollouts = [s for s in texts if "completion" in s]
    live = "live" in seen
    html = _template().render(
        title=shown(title),
        refresh=refresh,
        report=seen,
        changes=_changes(seen),
        unmeasured=[name for name, value in (seen.get("after") or {}).items() if value is None],
        curves=_curves(rows, main_only=live),
        newest=_newest(rows) if live else [],
        frontiers=_frontiers(rows),
        distributions=_distributions(seen.get("distributions") or {}),
        labelers=_labelers(seen.get("labelers") or []),
        learners=learner_plots(seen),
        stages=_stages(seen.get("seconds") or {}),
        pairs=pairs[:MAX_SAMPLES],
        rollouts=rollouts[-MAX_SAMPLES:],
    )
    _write(path, html, errors="replace")


def shown(text: str) -> str:
    """`text` fit for a page: what is not seen is named (`visible`), and what is long is cut."""
    if len(text) > MAX_CHARACTERS:
        text = f"{text[:MAX_CHARACTERS]} … ({len(text) - MAX_CHARACTERS:,} more characters)"
    return visible(text)


def number(value: object, digits: int = 3) -> str:
    """A number for people: `digits` significant digits, a true minus sign. What is no number is shown as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "not measured" if value is None else str(value)
    if not math.isfinite(value):
        return "not finite"
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if isinstance(value, int) and size < 6:
        text = f"{value:,d}"
    elif -5 < size < 6:
        text = f"{value:,.{max(0, digits - 1 - max(size, 0) + max(-size - 1, 0))}f}"
    else:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        text = f"{mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    return text.replace("-", "\N{MINUS SIGN}").replace(",", "\N{NARROW NO-BREAK SPACE}")


def duration(seconds: float) -> str:
    """A time for people, in its two largest units: "40 s", "3 min 20 s", "2 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def label(name: object) -> str:
    """`true_utility` -> "True utility"; abbreviations keep their capitals."""
    words = str(name).replace("_", " ").strip().split(" ")
    text = " ".join("SimPO" if w == "simpo" else w.upper() if w in _CAPITALS else w for w in words)
    return text[:1].upper() + text[1:]


def _changes(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One entry per measure taken before and after, with the positions (0 to 100) of both on a common line."""
    before, after = report.get("before") or {}, report.get("after") or {}
    difference = report.get("difference") or {}
    changes = []
    for name, new in after.items():
        old = before.get(name)
        if not (_is_measured(old) and _is_measured(new)) or old["interval"] == new["interval"] == [0, 0]:
            continue
        place = _scale([*old["interval"], *new["interval"]])
        changes.append(
            {
                "name": name,
                "before": old,
                "after": new,
                "difference": difference.get(name),
                "before_at": [place(x) for x in (old["interval"][0], old["mean"], old["interval"][1])],
                "after_at": [place(x) for x in (new["interval"][0], new["mean"], new["interval"][1])],
            }
        )
    return changes


def _curves(rows: Sequence[Mapping[str, Any]], *, main_only: bool) -> dict[str, list[dict[str, Any]]]:
    """Plots and tables of the measures of each stage over its steps: the main ones, and the rest."""
    curves: dict[str, list[dict[str, Any]]] = {"main": [], "more": []}
    for stage, own in _by_stage(rows).items():
        names = _measures(own)
        more = [] if main_only else [n for n in names if n not in _MAIN_MEASURES]
        for name in [*(n for n in _MAIN_MEASURES if n in names), *more]:
            train = _points(own, "step", name, evaluation=False)
            evaluations = _points(own, "step", name, evaluation=True)
            if len(train) < 2 and len(evaluations) < 2:
                continue
            title = _titled(stage, label(name))
            plot = plots.over_steps(train, evaluations, name=title)
            steps = _steps(train, evaluations)
            table = [(int(step), dict(train).get(step), dict(evaluations).get(step)) for step in steps]
            curve = {"title": title, "plot": Markup(plot), "table": table, "train": train, "evaluations": evaluations}
            curves["main" if name in _MAIN_MEASURES else "more"].append(curve)
    return curves


def _newest(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each measure its first and newest evaluation and its newest value in training; None where it has none."""
    newest = []
    for name in _measures(rows):
        evaluations = _points(rows, "step", name, evaluation=True)
        train = _points(rows, "step", name, evaluation=False)
        if evaluations or train:
            newest.append(
                {
                    "name": name,
                    "first": evaluations[0][1] if evaluations else None,
                    "evaluation": evaluations[-1][1] if evaluations else None,
                    "train": train[-1][1] if train else None,
                }
            )
    return newest


def _measures(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of what was measured, in the order in which they first appear."""
    return list(dict.fromkeys(name for row in rows for name in row if name not in _BOOKKEEPING))


def _frontiers(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Reward against KL of each stage, over its evaluations or, where there are none, over its training steps."""
    frontiers = []
    for stage, own in _by_stage(rows).items():
        points = _points(own, "kl", "reward", evaluation=True) or _points(own, "kl", "reward", evaluation=False)
        if len(points) >= 2:
            title = _titled(stage, "Reward against KL")
            plot = plots.frontier(points, name=title)
            frontiers.append({"title": title, "plot": Markup(plot), "table": _thinned(points)})
    return frontiers


def _by_stage(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The rows of each stage, in order; those of no stage, as in a stage's own report, under ""."""
    stages: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        stages.setdefault(row.get("stage", ""), []).append(row)
    return stages


def _titled(stage: str, title: str) -> str:
    return f"{label(stage)}: {title}" if stage else title


def _distributions(distributions: Mapping[str, Any]) -> list[dict[str, Any]]:
    drawn = []
    for name, bins in distributions.items():
        edges, before, after = bins["edges"], bins["before"], bins["after"]
        plot = plots.distributions(edges, before, after, name=label(name))
        table = list(zip(edges[:-1], edges[1:], before, after, strict=True))
        drawn.append({"name": name, "plot": Markup(plot), "table": table})
    return drawn


def _labelers(labelers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Labelers from the most reliable down, with positions (0 to 100) of reliability, interval and zero."""
    ends = [x for r in labelers for x in [r["reliability"], *(r.get("interval") or [])]]
    place = _scale([0.0, *ends])
    return [
        {
            **rater,
            "at": place(rater["reliability"]),
            "interval_at": [place(x) for x in rater.get("interval") or [rater["reliability"]] * 2],
            "zero_at": place(0.0),
        }
        for rater in sorted(labelers, key=lambda r: -r["reliability"])
    ]


_COSTS = {
    "kl": "KL from the reference, nats per completion",
    "samples": "completions drawn",
    "seconds": "seconds of training",
}
"""What the gain of a learner is drawn against."""


def learner_plots(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Plots of what several learners reached against what it cost; none for a report of something else."""
    rows, drawn = report.get("learners") or [], []
    measure = str(report.get("measure"))
    for cost, axis in _COSTS.items():
        placed = [(row, _value(row[cost])) for row in rows]
        series = [_series(row, at, cost, measure) for row, at in placed if at is not None]
        if len(series) == len(rows) > 0:
            starts = {round(row["before"][measure], 9) for row in rows}
            title = f"{label(measure)} against {cost if cost != 'kl' else 'KL'}"
            plot = plots.learners(
                series,
                start=starts.pop() if len(starts) == 1 else None,
                over=axis,
                name=title,
            )
            drawn.append({"title": title, "plot": Markup(plot)})
    return drawn


def _series(row: Mapping[str, Any], at: float, cost: str, measure: str) -> plots.Series:
    """A learner's line: its curve as it was measured on dev prompts, its end as on the prompts of the evaluation."""
    before, gain = row["before"][measure], row["difference"][measure]
    low, high = gain["interval"]
    curve = tuple((point[cost], point["measure"]) for point in row["curve"])
    return plots.Series(curve, (at, before + gain["mean"]), (before + low, before + high))


def _stages(seconds: Mapping[str, Any]) -> list[dict[str, Any]]:
    longest = max((s for name, s in seconds.items() if name != "total"), default=0) or 1
    return [{"name": n, "seconds": s, "share": 100 * s / longest} for n, s in seconds.items() if n != "total"]


def _points(rows: Sequence[Mapping[str, Any]], x: str, y: str, *, evaluation: bool) -> plots.Points:
    """(x, y) of the rows of one kind that hold both as finite numbers, or as measured quantities."""
    kind = [row for row in rows if (row.get("kind") == "evaluation") == evaluation]
    points = [(_value(row.get(x)), _value(row.get(y))) for row in kind]
    return tuple((a, b) for a, b in points if a is not None and b is not None)


def _value(entry: object) -> float | None:
    if isinstance(entry, Mapping):
        entry = entry.get("mean")
    if isinstance(entry, bool) or not isinstance(entry, int | float) or not math.isfinite(entry):
        return None
    return float(entry)


def _steps(*series: plots.Points) -> Sequence[float]:
    return _thinned(sorted({step for points in series for step, _ in points}))


def _thinned(rows: Sequence[Any]) -> Sequence[Any]:
    """At most MAX_ROWS entries, evenly spaced, first and last among them."""
    if len(rows) <= MAX_ROWS:
        return rows
    return [rows[round(i * (len(rows) - 1) / (MAX_ROWS - 1))] for i in range(MAX_ROWS)]


def _scale(values: Sequence[float]) -> Any:
    """A function from a value to its place in percent, with a margin at both ends of the range of `values`."""
    low, high = min(values), max(values)
    span = high - low or 1.0
    return lambda value: round(4 + 92 * (value - low) / span, 2)


def _is_measured(entry: object) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(entry, Mapping) and "mean" in entry and "interval" in entry


def _cleaned(value: Any) -> Any:
    """A copy of JSON-like `value` whose every string, keys included, is `shown`."""
    if hasattr(value, "as_json"):
        value = value.as_json()
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, Mapping):
        return {shown(str(k)): _cleaned(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(v) for v in value]
    return value.item() if hasattr(value, "item") else value


def _plain(value: Any, place: str) -> Any:
    """`value` as JSON types; `place` is the path to it for errors."""
    if hasattr(value, "as_json"):
        value = value.as_json()
    if hasattr(value, "tolist"):  # numpy arrays and scalars
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(k): _plain(v, f"{place}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, f"{place}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"{place} is {value}; a report holds finite numbers, or null for what was not measured")
    if value is None or isinstance(value, str | int | float):
        return value
    raise DataError(f"{place} is a {type(value).__name__}, which JSON cannot hold; convert it first")


def _write(path: Path, text: str, *, errors: str) -> None:
    """Write beside and rename, so that a reader never sees half a report."""
    beside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(text.encode("utf-8", errors))
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from None


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tuneful.evaluation"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, label=label, duration=duration)
    environment.tests["measured"] = _is_measured
    return environment.get_template("report.html")
