"""`tuneful worker`"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Annotated

import typer

from tuneful.cli.options import Device, StoreUrl

PAUSE = 2.0
"""Seconds before a worker without a job looks again."""

GRACE = 8.0
"""Seconds for a job that is given back before the process ends in any case; the pages wait two more for it."""


def command(
    store: StoreUrl = "judgments.db",
    once: Annotated[bool, typer.Option("--once", help="Do what waits, and end.")] = False,
    until_eof: Annotated[
        bool, typer.Option("--until-eof", help="End when standard input is closed, as by whoever started it.")
    ] = False,
    device: Device = None,
) -> None:
    """Do what the pages ask for, such as answers of models to be judged, until Ctrl-C; `tuneful web` starts one.

    It also asks for more judgments where a project's overlap may grow and its order is unsure. Quick work goes
    before long work, and in between its parts.

    A job under way is given back when the worker ends, and the next worker goes on with it.

    Example: tuneful worker --store judgments.db --once
    """
    from tuneful.errors import UnavailableError
    from tuneful.feedback.store import Store
    from tuneful.pipeline.work import run_next, tend

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    if until_eof:
        threading.Thread(target=_end_with_input, daemon=True).start()
    try:
        opened = Store.open(store, make=False)
        _note(f"waits for jobs of {opened}")
        while True:
            try:
                found = run_next(opened, note=_note) or tend(opened)
            except UnavailableError as error:
                _note(str(error))
                found = False
            if once and not found:
                break
            if not found:
                time.sleep(PAUSE)
    except KeyboardInterrupt:
        _note("ends")


def _note(text: str) -> None:
    print(f"worker: {text}", file=sys.stderr, flush=True)


def _interrupt(_number: int, _frame: object) -> None:
    """Once: Ctrl-C reaches whoever started this worker too, and closes its input then. A second Ctrl-C is the last."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    late = threading.Timer(GRACE, os._exit, (1,))  # what is raised inside a finaliser is lost
    late.daemon = True
    late.start()
    raise KeyboardInterrupt


def _end_with_input() -> None:
    """What stands at the other end may be killed, and cannot say so; but its end of the pipe is closed then."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)
