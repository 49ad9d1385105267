"""What is broken in a file that a command reads, told line by line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

SHOWN: Final = 100
"""Faults of a refused file that are told one by one."""


def refuse_broken(file: Path, faults: Sequence[str], *, mend: str) -> None:
    """Where there are faults, each on a line of standard error, SHOWN at most, and DataError."""
    from tuneful.feedback import whole_rows

    tell(faults[:SHOWN])
    if len(faults) > SHOWN:
        tell([f"and {len(faults) - SHOWN} more"])
    whole_rows.refuse_broken(file, faults, mend=mend, told=0)


def refuse_unless_skipped(file: Path, faults: Sequence[str], *, skip_broken: bool) -> None:
    """`refuse_broken`; where the rest of the file is wanted, all faults on standard error alone."""
    if skip_broken:
        tell(faults)
    else:
        refuse_broken(file, faults, mend="mend them, or take the rest with --skip-broken")


def tell(lines: Sequence[str]) -> None:
    for line in lines:
        print(line, file=sys.stderr)
