"""The report of a run that goes on: a page that shows how far it is, rewritten now and then and loading itself anew.

Nothing in a run depends on it. It listens to what a display is told and to what a stage logs, keeps a few rows of the
log evenly spread over the run, and spends a small share of the run's time on its pages. A page cannot know that its
process is gone, so it says when it was written and how long it took between two writings at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from tuneful.errors import RunError
from tuneful.evaluation.report import MAX_SAMPLES, write_report
from tuneful.pipeline.context import Display
from tuneful.pipeline.recipe import Stage
from tuneful.runs.directory import RunDirectory
from tuneful.runs.logs import newest_rows

REFRESH = 10
"""Seconds after which an open page loads itself anew."""

REWRITE = 15.0
"""Seconds after which a page is written again when there was no evaluation to do it for."""

SHARE = 0.03
"""Of a run's time, at most this share goes into its pages."""

KEPT = 400
"""At least as many rows of each kind are kept once there have been as many, and fewer than twice as many."""


class Sparse:
    """Rows evenly spread over all that came, the first among them, and the newest one."""

    def __init__(self) -> None:
        self._rows: list[Mapping[str, Any]] = []
        self._every = 1
        self._count = 0
        self._newest: Mapping[str, Any] | None = None

    def add(self, row: Mapping[str, Any]) -> None:
        """Takes the row; of all that are kept, every other one is dropped when they have become too many."""
        if self._count % self._every == 0:
            self._rows.append(row)
        if len(self._rows) == 2 * KEPT:
            self._rows = self._rows[::2]
            self._every *= 2
        self._count += 1
        self._newest = row

    def rows(self) -> list[Mapping[str, Any]]:
        """What is kept, in the order it came."""
        newest = [] if self._newest is None or self._rows[-1:] == [self._newest] else [self._newest]
        return [*self._rows, *newest]


class _Work(NamedTuple):
    """How far one kind of work in a stage is."""

    unit: str
    """What is counted: steps or answers."""
    done: int
    total: int

    def goes_on_as(self, other: _Work) -> bool:
        """Whether `other`, told later, is further on in the same work."""
        return (other.unit, other.total) == (self.unit, self.total) and other.done > self.done


@dataclass(slots=True)
class _Running:
    """The stage that runs, as far as its pages show it."""

    stage: Stage
    record: RunDirectory
    seconds: Mapping[str, float]
    """What the stages before took."""
    started: datetime
    written: float
    """When the last page was, by the clock."""
    cost: float = 0.0
    """Seconds that it took."""
    longest: float = 0.0
    """Seconds between two pages, at most."""
    rows: dict[str, Sparse] = field(default_factory=lambda: {"evaluation": Sparse(), "train": Sparse()})
    alarm: Mapping[str, Any] | None = None
    continued: int | None = None
    """The step at which an earlier process had left it."""
    work: _Work | None = None
    work_began: tuple[int, float] = (0, 0.0)
    """What was done when the work at hand was first heard of, and when that was."""

    def add(self, row: Mapping[str, Any]) -> None:
        if row["kind"] == "alarm":
            self.alarm = self.alarm or {key: row[key] for key in ("step", "reason", "action")}
        else:
            self.rows[row["kind"]].add(row)

    def tell(self, work: _Work, at: float) -> None:
        if self.work is None or not self.work.goes_on_as(work):
            self.work_began = (work.done, at)
        self.work = work

    def left(self, at: float) -> float | None:
        """Seconds until the work at hand is done, at the pace since it was first heard of; None before a pace."""
        if self.work is None:
            return None
        first, began = self.work_began
        done = self.work.done
        return (at - began) / (done - first) * (self.work.total - done) if done > first else None


class LiveReport:
    """A display that passes on what it is told, and shows it on the page of the run and that of the stage that runs.

    It follows the metrics of that stage. clock: seconds that never go back; now: the time of day.
    """

    def __init__(
        self,
        display: Display,
        out: Path,
        stages: Sequence[Stage],
        *,
        title: str,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    ) -> None:
        self.display = display
        self.out = out
        self.stages = stages
        self.title = title
        self._clock = clock
        self._now = now
        self._started = now()
        self._running: _Running | None = None
        self._refused = False

    def stage(self, name: str, kind: str) -> None:
        """Passed on: the page learns of a stage by `follow`."""
        self.display.stage(name, kind)

    def note(self, text: str) -> None:
        """Passed on: the page has no place for it."""
        self.display.note(text)

    def step(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        """Passed on, and shown on the pages when they are due; work without metrics counts answers."""
        self.display.step(done, total, metrics)
        if self._running is not None:
            self._running.tell(_Work("steps" if metrics else "answers", done, total), self._clock())
            if self._clock() - self._running.written >= REWRITE:
                self._rewrite()

    @contextmanager
    def follow(self, stage: Stage, record: RunDirectory, seconds: Mapping[str, float]) -> Iterator[None]:
        """Shows the stage that runs inside the block, after others that took `seconds`; an error is its last word."""
        self._running = _Running(stage, record, dict(seconds), self._now(), self._clock())
        self._write()
        record.metrics.follow(self)
        try:
            yield
        except KeyboardInterrupt:
            self._write(stopped="interrupted by Ctrl-C")
            raise
        except Exception as error:
            self._write(stopped=f"{type(error).__name__}: {error}")
            raise
        finally:
            self._running = None

    def begin(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Takes the rows that an earlier process of the stage logged, up to the step from which this one goes on."""
        if self._running is not None:
            for row in rows:
                self._running.add(row)
                self._running.continued = row["step"]
            self._write()

    def write(self, row: Mapping[str, Any]) -> None:
        """Takes a row of metrics as it is logged; an evaluation, or the first alarm, is shown at once."""
        if self._running is not None:
            rang = self._running.alarm is not None
            self._running.add(row)
            if row["kind"] == "evaluation":
                self._rewrite()
            elif row["kind"] == "alarm" and not rang:
                self._write()

    def _rewrite(self) -> None:
        """Writes the pages, unless the last writing was so recent that they would take too much of the run's time."""
        assert self._running is not None
        if self._clock() - self._running.written >= self._running.cost * (1 - SHARE) / SHARE:
            self._write()

    def _write(self, stopped: str | None = None) -> None:
        """The page of the whole run and, where a stage trains and will write a report itself, that of the stage."""
        running = self._running
        assert running is not None
        began = self._clock()
        running.longest = max(running.longest, began - running.written)
        pages = [(self.out, "", self.title)]
        if running.stage.config is not None:
            pages.append((running.record.path, "../", running.stage.name))
        metrics = [row for rows in running.rows.values() for row in rows.rows()]
        alarm = {} if running.alarm is None else {"alarm": running.alarm}
        try:
            samples = newest_rows(running.record.samples.path, MAX_SAMPLES)
            for folder, up, title in pages:
                write_report(
                    folder / "report.html",
                    {"live": self._status(running, up, stopped), **alarm},
                    metrics=metrics,
                    samples=samples,
                    title=title,
                    refresh=None if stopped else REFRESH,
                )
        except RunError as error:
            if not self._refused:
                self.display.note(f"the run goes on without its live report: {error}")
            self._refused = True
        running.written = self._clock()
        running.cost = running.written - began

    def _status(self, running: _Running, up: str, stopped: str | None) -> dict[str, Any]:
        """What the page calls "live"; `up` leads from the folder of the page to that of the run."""
        place = self.stages.index(running.stage)
        unit, done, total = running.work or (None, 0, 0)
        return {
            "stage": running.stage.name,
            "number": place + 1,
            "work": unit,
            "done": done,
            "total": total,
            "left": running.left(self._clock()),
            "started": _text(self._started),
            "stage_started": _text(running.started),
            "continued": running.continued,
            "updated": _text(self._now()),
            "longest": running.longest,
            "stopped": stopped,
            "stages": [
                {
                    "name": stage.name,
                    "state": "done" if k < place else "now" if k == place else "to come",
                    "seconds": running.seconds.get(stage.name) if k < place else None,
                    "href": self._href(stage, up) if k < place else None,
                }
                for k, stage in enumerate(self.stages)
            ],
        }

    def _href(self, stage: Stage, up: str) -> str | None:
        page = f"{stage.name}/report.html"
        return up + page if (self.out / page).exists() else None


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S %Z")
