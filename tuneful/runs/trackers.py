"""Trackers: TensorBoard, Weights & Biases and Trackio are shown what a run's logs hold, each row once.

The logs are what happened and a tracker is their mirror. A row is known by its number in the logs of all stages, one
after the other, which is the same however often a run was killed and continued. So after a resume a tracker is shown
the rows that it has not seen, and no step stands in it twice.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from tuneful.errors import ConfigError, did_you_mean
from tuneful.runs.logs import JsonLog

PROJECT = "tuneful"
_ID = ".tracker-id"


class Tracker(Protocol):
    """Where measures are shown, continued from an earlier process where there was one."""

    rows_seen: int
    """So many rows it has from earlier processes; rows of lower numbers are not added again."""

    def add(self, number: int, stage: str, step: int, measures: Mapping[str, float]) -> None:
        """One row of a stage's log: `number` counts rows over the whole run, `step` the steps of the stage."""
        ...

    def close(self, *, failed: bool) -> None:
        """Returns when everything is shown."""
        ...


class TensorBoard:
    """Event files in `tensorboard/` of the run's directory.

    A kill loses what was not written out yet. So each process shows all rows from the first, and its first event tells
    TensorBoard to forget those of the processes before.
    """

    rows_seen = 0

    def __init__(self, out: Path, config: Mapping[str, Any]) -> None:
        writer = import_module("tensorboard.summary.writer.event_file_writer")
        self._event = import_module("tensorboard.compat.proto.event_pb2")
        self._summary = import_module("tensorboard.compat.proto.summary_pb2")
        tensor = import_module("tensorboard.compat.proto.tensor_pb2")
        types = import_module("tensorboard.compat.proto.types_pb2")
        self._writer = writer.EventFileWriter(str(out / "tensorboard"), flush_secs=10)
        start = self._event.SessionLog(status=self._event.SessionLog.START)
        self._writer.add_event(self._event.Event(step=0, session_log=start))  # forgets steps from 0 on
        text = "    " + json.dumps(config, indent=2, ensure_ascii=False).replace("\n", "\n    ")  # Markdown for code
        recipe = self._summary.Summary.Value(
            tag="recipe",
            metadata={"plugin_data": {"plugin_name": "text"}},
            tensor=tensor.TensorProto(dtype=types.DT_STRING, string_val=[text.encode()]),
        )
        self._write(0, [recipe])

    def add(self, number: int, stage: str, step: int, measures: Mapping[str, float]) -> None:
        self._write(step, [self._summary.Summary.Value(tag=tag, simple_value=x) for tag, x in measures.items()])

    def close(self, *, failed: bool) -> None:
        self._writer.close()

    def _write(self, step: int, values: list[Any]) -> None:
        summary = self._summary.Summary(value=values)
        self._writer.add_event(self._event.Event(wall_time=time.time(), step=step, summary=summary))


class WandB:
    """A run of Weights & Biases whose id stands in the run's directory; the project is $WANDB_PROJECT or `tuneful`."""

    def __init__(self, out: Path, config: Mapping[str, Any]) -> None:
        self._run = import_module("wandb").init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=_id(out),
            name=out.resolve().name,
            resume="allow",
            dir=str(out),
            config=dict(config),
        )
        self.rows_seen = int(self._run.step)
        self._stages: set[str] = set()

    def add(self, number: int, stage: str, step: int, measures: Mapping[str, float]) -> None:
        if stage not in self._stages:  # W&B's own steps only grow, ours begin anew with each stage
            self._run.define_metric(f"{stage}/step", hidden=True)
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
            self._stages.add(stage)
        self._run.log({**measures, f"{stage}/step": step}, step=number)

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class Trackio:
    """A run of Trackio in the project `tuneful`, named after the run's directory with an id that stands in it."""

    def __init__(self, out: Path, config: Mapping[str, Any]) -> None:
        self._run = import_module("trackio").init(
            project=PROJECT,
            name=f"{out.resolve().name}-{_id(out)}",
            resume="allow",
            config=dict(config),
            embed=False,
        )
        # Nothing public says how far a run is that is continued.
        self.rows_seen = int(self._run._next_step)

    def add(self, number: int, stage: str, step: int, measures: Mapping[str, float]) -> None:
        self._run.log({**measures, f"{stage}/step": step}, step=number)

    def close(self, *, failed: bool) -> None:
        self._run.finish()


TRACKERS: Mapping[str, Callable[[Path, Mapping[str, Any]], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "trackio": Trackio,
}


class Mirror:
    """The trackers of one run. One that fails is warned of once and left out from there on; the run goes on.

    warn: told a line for people.
    """

    def __init__(self, names: Sequence[str], warn: Callable[[str], None]) -> None:
        refuse_missing(names)
        self._names = tuple(dict.fromkeys(names))
        self._warn = warn
        self._trackers: dict[str, Tracker] = {}
        self._num_rows = 0

    @contextmanager
    def opened(self, out: Path, config: Mapping[str, Any]) -> Iterator[None]:
        """The trackers are open within the block. config: the recipe, shown beside the measures."""
        for name in self._names:
            with self._guarded(name), redirect_stdout(sys.stderr):  # our own stdout is for results
                self._trackers[name] = TRACKERS[name](out, config)
        failed = True
        try:
            yield
            failed = False
        finally:
            for name, tracker in list(self._trackers.items()):
                with self._guarded(name), redirect_stdout(sys.stderr):
                    tracker.close(failed=failed)
            self._trackers.clear()

    @contextmanager
    def following(self, stage: str, log: JsonLog) -> Iterator[None]:
        """Rows written to the `log` of `stage` are shown at once, and at the end of the block all that it holds."""
        if not self._trackers:
            yield
            return
        rows = _Numbered(self._num_rows, lambda number, row: self._show(number, stage, row))
        log.follow(rows)
        yield
        if not rows.begun:  # done in an earlier process
            rows.begin(log.rows())
        self._num_rows = rows.next

    def _show(self, number: int, stage: str, row: Mapping[str, Any]) -> None:
        measures = {
            f"{stage}/{row['kind']}/{name}": float(value)
            for name, value in row.items()
            if name != "step" and _is_number(value)
        }
        for name, tracker in list(self._trackers.items()):
            if measures and number >= tracker.rows_seen:
                with self._guarded(name):
                    tracker.add(number, stage, row["step"], measures)

    @contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  # whatever a tracker's own code or server brings up
            self._trackers.pop(name, None)
            first_line = str(error).partition("\n")[0]
            self._warn(f"warning: {name} has failed and is left out from here on: {type(error).__name__}: {first_line}")


class _Numbered:
    """A follower of a log that shows each row with its number, the first being `first`."""

    def __init__(self, first: int, show: Callable[[int, Mapping[str, Any]], None]) -> None:
        self.begun = False
        self.next = self._first = first
        self._show = show

    def begin(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self.begun, self.next = True, self._first
        for row in rows:
            self.write(row)

    def write(self, row: Mapping[str, Any]) -> None:
        self._show(self.next, row)
        self.next += 1


def refuse_missing(names: Sequence[str]) -> None:
    """ConfigError for a tracker that is not known, and for one whose package is not installed."""
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(f'--track "{name}" is not known{did_you_mean(name, TRACKERS)}')
        try:
            import_module(name)
        except ImportError as error:
            raise ConfigError(f"--track {name}: {error}; pip install 'tuneful[{name}]'") from None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _id(out: Path) -> str:
    """The id of the run in `out`; it goes where the directory goes, and another run there (--force) has another."""
    file = out / _ID
    if not file.exists():
        file.write_text(secrets.token_hex(4) + "\n", encoding="utf-8")
    return file.read_text(encoding="utf-8").strip()
