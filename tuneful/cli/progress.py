"""What a person sees while a run goes on: one bar per stage, with the numbers that matter."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SHOWN = ("reward", "kl", "loss", "accuracy", "length_tokens")
"""Metrics beside the bar, in this order."""


INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 + SIGINT, as shells count."""


@contextmanager
def resumable() -> Iterator[None]:
    """Ctrl-C inside ends the command with a word on how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        print("stopped; the same command continues from the last checkpoint", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


class RichDisplay:
    """A Display on the terminal; on a pipe, rich prints plain lines."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.fields[stage]:<10}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=self.console,
        )
        self._stage = ""

    def __enter__(self) -> RichDisplay:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish_stage()
        self._progress.stop()

    def stage(self, name: str, kind: str) -> None:
        self._finish_stage()
        self._stage = name
        self._task = self._progress.add_task(name, stage=name, numbers=kind, total=None)

    def step(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        numbers = "  ".join(f"{name} {metrics[name]:.3g}" for name in SHOWN if name in metrics)
        self._progress.update(self._task, completed=done, total=total, numbers=numbers)

    def note(self, text: str) -> None:
        self._progress.console.print(f"[yellow]·[/] {text}", highlight=False)

    def _finish_stage(self) -> None:
        if self._stage:
            task = self._progress.tasks[self._task]
            self._progress.update(self._task, total=task.total or 1, completed=task.total or 1)
