"""Processes that work together as torchrun would start them, without its own process and the seconds that takes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

ALONE = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "MKL_NUM_THREADS": "1"}
"""One thread for each process, asleep while it has nothing to do."""

ROOT = Path(__file__).resolve().parents[2]


def start_ranks(module: str, *arguments: Path | str, errors: Path) -> list[subprocess.Popen[str]]:
    """The two ranks of `python -m module arguments`, on this machine; rank k writes its stderr to `errors/k`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    errors.mkdir(parents=True, exist_ok=True)
    started = []
    for rank in ("0", "1"):
        environment = {**os.environ, **ALONE, **meeting, "RANK": rank, "LOCAL_RANK": rank}
        with (errors / rank).open("w") as stderr:
            command = [sys.executable, "-m", module, *map(str, arguments)]
            started.append(subprocess.Popen(command, cwd=ROOT, stderr=stderr, env=environment, text=True))
    return started
