"""What a person sees while a run goes on: bars on a terminal, plain lines in a log, with the numbers that matter."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, Task, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

SHOWN = ("reward", "kl", "loss", "accuracy", "length_tokens")
"""Metrics beside the bar, in this order."""

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 + SIGINT, as shells count."""

SECONDS_BETWEEN_LINES = 30.0
"""A log gets a line of progress this often, and after each tenth of the work."""


@contextmanager
def resumable() -> Iterator[None]:
    """Ctrl-C inside ends the command with a word on how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        print("stopped; the same command continues from the last checkpoint", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


def terminal_display() -> Bars | Lines:
    """Bars when stderr is a terminal, lines when it is a file or a pipe; stdout is left to results."""
    console = Console(stderr=True)
    return Bars(console) if console.is_interactive else Lines()


class Bars:
    """A Display of one bar for each kind of work in a stage: its training, then the answers it asks for."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.fields[stage]:<10}", markup=False),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[count]}", table_column=Column(min_width=7, no_wrap=True, justify="right")),
            TimeElapsedColumn(table_column=Column(min_width=7, no_wrap=True)),
            _TimeLeft(table_column=Column(min_width=7, no_wrap=True)),
            TextColumn(
                "{task.fields[numbers]}",
                markup=False,
                table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
            ),
            console=console,
            expand=True,
        )
        self._task: TaskID | None = None
        self._work = _Work()

    def __enter__(self) -> Bars:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_stage(_outcome(kind))
        self._progress.stop()

    def stage(self, name: str, kind: str) -> None:
        self._end_stage("done")
        self._progress.start()  # not before: an error without a stage would leave an empty display behind
        self._work = _Work()
        self._task = self._add(name, kind)

    def step(self, done: int, total: int, metrics: Mapping[str, float], unit: str = "answers") -> None:
        """`done` of `total` are done; unit: of what, where there are no metrics to show."""
        assert self._task is not None
        if self._work.is_over(done, total):
            self._end_bar("")
            self._task = self._add("", "")
        self._work = _Work(done, total)
        numbers = _numbers(metrics, unit)
        self._progress.update(self._task, completed=done, total=total, count=f"{done}/{total}", numbers=numbers)

    def note(self, text: str) -> None:
        self._progress.console.print(f"[yellow]·[/] {escape(text)}", highlight=False)

    def _add(self, stage: str, numbers: str) -> TaskID:
        return self._progress.add_task("", stage=stage, count="", numbers=numbers, total=None)

    def _end_stage(self, outcome: str) -> None:
        if self._task is not None:
            self._end_bar(outcome)
            self._task = None

    def _end_bar(self, outcome: str) -> None:
        """Leaves the bar where it is; a stage without steps has none to be left at."""
        assert self._task is not None
        task = next(task for task in self._progress.tasks if task.id == self._task)
        self._progress.stop_task(self._task)
        if task.total is None:
            self._progress.update(self._task, total=1, completed=int(outcome == "done"), numbers=outcome)
        else:
            numbers = "  ".join(filter(None, (outcome, task.fields["numbers"])))
            self._progress.update(self._task, numbers=numbers)


class Lines:
    """A Display of plain lines on stderr: a stage's begin and end, and its progress now and then.

    clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stage = ""
        self._work = _Work()
        self._began = self._told_at = 0.0
        self._told = 0

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_stage(_outcome(kind))

    def stage(self, name: str, kind: str) -> None:
        self._end_stage("done")
        self._stage = name
        self._work = _Work()
        self._began = self._told_at = self._clock()
        self._told = 0
        self._print(f"{name}: begins")

    def step(self, done: int, total: int, metrics: Mapping[str, float], unit: str = "answers") -> None:
        """`done` of `total` are done; unit: of what, where there are no metrics to show."""
        if self._work.is_over(done, total):
            self._told = 0
        self._work = _Work(done, total)
        now = self._clock()
        if 10 * (done - self._told) >= total or done == total or now - self._told_at >= SECONDS_BETWEEN_LINES:
            self._told, self._told_at = done, now
            self._print(f"{self._stage}: {done}/{total}  {_numbers(metrics, unit)}".rstrip())

    def note(self, text: str) -> None:
        self._print(f"· {text}")

    def _end_stage(self, outcome: str) -> None:
        if self._stage:
            took = timedelta(seconds=round(self._clock() - self._began))
            reached = f" at {self._work.done}/{self._work.total}" if outcome != "done" and self._work.total else ""
            self._print(f"{self._stage}: {outcome}{reached} after {took}")
            self._stage = ""

    def _print(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


class _TimeLeft(TimeRemainingColumn):
    """Nothing once the work has stopped, wherever it was."""

    def render(self, task: Task) -> Text:
        return Text() if task.stop_time is not None else super().render(task)


@dataclass(frozen=True, slots=True)
class _Work:
    """How far one kind of work in a stage is."""

    done: int = 0
    total: int = 0

    def is_over(self, done: int, total: int) -> bool:
        """Whether a step told now is of other work: one that counts to another number, or begins again."""
        return self.total > 0 and (total != self.total or done <= self.done)


def _outcome(error: type[BaseException] | None) -> str:
    if error is None:
        return "done"
    return "stopped" if issubclass(error, KeyboardInterrupt) else "failed"


def _numbers(metrics: Mapping[str, float], unit: str) -> str:
    """The metrics that are shown; of work without any, what it counts."""
    return "  ".join(f"{name} {metrics[name]:.3g}" for name in SHOWN if name in metrics) if metrics else unit
