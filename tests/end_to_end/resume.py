"""What the resume tests share: runs of `small_run.py` that can be killed, and what two runs must have in common."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.end_to_end import small_run
from tests.end_to_end.small_run import EVALUATE_EVERY, NUM_STEPS, SAVE_EVERY, Trained

PROGRAM = Path(small_run.__file__)
NUM_ROWS = NUM_STEPS + 1 + NUM_STEPS // EVALUATE_EVERY
"""Rows of metrics of a whole run: its steps, and its evaluations with the one before the first step."""


class Runner:
    """One process that forks a run for each `start`."""

    def __init__(self, process: subprocess.Popen[str], errors: Path) -> None:
        self._process = process
        self._errors = errors

    def start(self, out: Path, *, full_disk: bool = False) -> int:
        """The process number of a new run in `out`."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{out}{' full' if full_disk else ''}\n")
        self._process.stdin.flush()
        return self._number()

    def wait(self) -> int:
        """The exit status of the run, minus the signal for one that was killed."""
        return self._number()

    def run(self, out: Path) -> None:
        self.start(out)
        assert self.wait() == 0, self.errors()

    def errors(self) -> str:
        return self._errors.read_text()

    def _number(self) -> int:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self.errors()
        return int(line)


@contextmanager
def runner(model: Path, errors: Path, trained: Trained = "weights") -> Iterator[Runner]:
    with (
        errors.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(model), trained],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        ) as process,
    ):
        yield Runner(process, errors)
        assert process.stdin is not None
        process.stdin.close()


def kill(runner: Runner, out: Path, when: Callable[[], bool], signal_number: int = signal.SIGKILL) -> int:
    """Start a run and send it a signal as soon as `when()`; its exit status, minus the signal where that ended it."""
    process = runner.start(out)
    while not when() and not (out / "checkpoints" / "step-00000012").exists():
        time.sleep(0.0002)
    with suppress(ProcessLookupError):  # it may have ended by itself just now
        os.kill(process, signal_number)
    return runner.wait()


def logged(out: Path, rows: int, seconds: float = 0.0) -> Callable[[], bool]:
    """True `seconds` after `rows` rows of metrics have been logged."""
    log = out / "metrics.jsonl"
    return _since(lambda: rows == 0 or (log.exists() and log.read_bytes().count(b"\n") >= rows), seconds)


def saving(out: Path, step: int, seconds: float) -> Callable[[], bool]:
    """True `seconds` after the folder of checkpoint `step` has come into being under its unfinished name."""
    return _since((out / "checkpoints" / f".step-{step:08d}.part").exists, seconds)


def _since(happened: Callable[[], bool], seconds: float) -> Callable[[], bool]:
    seen: list[float] = []

    def when() -> bool:
        if not seen and happened():
            seen.append(time.monotonic())
        return bool(seen) and time.monotonic() >= seen[0] + seconds

    return when


def moments(count: int, seed: int) -> Iterator[tuple[str, Callable[[Path], Callable[[], bool]]]]:
    """`count` moments to kill at, by turns anywhere in the run and while a checkpoint is being written."""
    draw = random.Random(seed)
    for k in range(count):
        if k % 2 == 0:
            rows, seconds = draw.randrange(NUM_ROWS), draw.uniform(0, 0.02)
            yield f"{seconds:.4f} s after row {rows}", lambda out, n=rows, s=seconds: logged(out, n, s)
        else:
            step, seconds = draw.randrange(SAVE_EVERY, NUM_STEPS + 1, SAVE_EVERY), draw.uniform(0, 0.01)
            yield f"{seconds:.4f} s into saving step {step}", lambda out, n=step, s=seconds: saving(out, n, s)


def outcome(out: Path) -> dict[str, Any]:
    """Everything a run leaves that must not depend on interruptions; tensors as bytes, rows without their times."""
    import torch

    last = out / "checkpoints" / "step-00000012"
    engine = torch.load(last / "engine.pt", weights_only=True)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {
        "weights": {name: w.detach().numpy().tobytes() for name, w in engine["weights"].items()},
        "moments": {
            (place, name): number.numpy().tobytes()
            for place, state in engine["optimizer"]["state"].items()
            for name, number in state.items()
        },
        "learner": json.loads((last / "learner.json").read_text()),
        "samples": (out / "samples.jsonl").read_bytes(),
        "metrics": [{name: value for name, value in row.items() if name != "seconds"} for row in rows],
        # An older checkpoint may stay behind when the kill came just before its removal; nothing unfinished may.
        "unfinished": [path.name for path in out.rglob("*.part")],
    }
