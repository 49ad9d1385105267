"""A command that runs beside this one: begun again when it ends, and ended with this one, however this one ends."""

from __future__ import annotations

import subprocess
import sys
import time
from threading import Event, Lock, Thread
from types import TracebackType

FIRST_PAUSE = 2.0
"""Seconds before a command that ended is begun again; twice as long each time, up to `LONGEST_PAUSE`."""

LONGEST_PAUSE = 60.0

STEADY = 300.0
"""Seconds after which a command has run well, and the pauses begin anew."""

GRACE = 10.0
"""Seconds that the command has to end in."""


class Companion:
    """`tuneful ARGUMENTS`, while the `with` block lasts.

    Its standard input is a pipe into which nothing is written. This process alone holds the other end, so that the pipe
    closes also when this process is killed; the command is one that ends then. What it prints goes to standard error.
    """

    def __init__(self, *arguments: str) -> None:
        self._name = f"tuneful {arguments[0]}"
        self._command = [sys.executable, "-m", "tuneful", *arguments]
        self._over = Event()
        self._starting = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = Thread(target=self._keep, daemon=True)

    def __enter__(self) -> Companion:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        with self._starting:
            process = self._process
        if process is not None:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
        self._thread.join()

    def _keep(self) -> None:
        pause = FIRST_PAUSE
        while not self._over.is_set():
            began = time.monotonic()
            ended = self._run()
            if time.monotonic() - began > STEADY:
                pause = FIRST_PAUSE
            if not self._over.is_set():
                again = f"it is started again in {pause:.0f} s"
                print(f"{self._name} ended ({ended}); {again}", file=sys.stderr, flush=True)
            self._over.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _run(self) -> str:
        """Start it, and wait until it has ended; how it did."""
        with self._starting:
            if self._over.is_set():
                return ""
            try:
                process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=sys.stderr.fileno())
            except OSError as error:
                return str(error)
            self._process = process
        status = process.wait()
        assert process.stdin is not None
        process.stdin.close()
        return f"status {status}"
