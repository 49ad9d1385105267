"""What a look at something comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tuneful.algorithms import start_up
from tuneful.errors import TunefulError

Status = Literal["ok", "note", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. A "note" is worth mending, a "fail" must be mended before training."""

    about: str
    name: str
    value: str | int | float | bool | None
    status: Status = "ok"
    mend: str = ""


def found(about: str, name: str, value: str | int | float | bool | None, mend: str, *, fails: bool = False) -> Finding:
    """A finding that is well where there is nothing to mend."""
    if not mend:
        return Finding(about, name, value)
    return Finding(about, name, value, "fail" if fails else "note", mend)


def from_error(about: str, name: str, error: TunefulError) -> Finding:
    """What a user can mend, as the errors of tuneful tell it: the problem before the first semicolon, then the mend."""
    problem, _, mend = str(error).partition("; ")
    return Finding(about, name, problem, "fail", mend)


def judged(about: str, measured: start_up.Finding) -> Finding:
    """A start-up check's finding as the doctor tells it."""
    mend = "" if measured.passed else measured.cause
    return found(about, measured.name, measured.value, mend, fails=not measured.warning)
