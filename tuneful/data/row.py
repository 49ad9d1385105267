"""A row of a file, and where it stands: what every reader of data starts from."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneful.errors import DataError


class Skipped(str):
    """The line on something left out, "place: skipped: reason", with its parts for those who count them."""

    place: str
    """The file and the line of the row; of several, of the first."""
    reason: str
    times: int
    """How often it holds."""

    def __new__(cls, place: str, reason: str, times: int = 1) -> Skipped:
        more = f" (and {times - 1} more)" if times > 1 else ""
        line = super().__new__(cls, f"{place}: skipped: {reason}{more}")
        line.place, line.reason, line.times = place, reason, times
        return line


Skip = Callable[[Skipped], None]
"""Is told, one line each, where something was left out and why."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a JSONL file or one row of a Parquet file, counted from 1."""

    path: Path
    line: int
    fields: Mapping[str, Any]

    def error(self, problem: str, mend: str, field: str | None = None) -> DataError:
        """The DataError `file:line: field "x": problem; mend`."""
        place = f'field "{field}": ' if field else ""
        return DataError(f"{self.path}:{self.line}: {place}{problem}; {mend}")

    def skipped(self, reason: str, times: int = 1) -> Skipped:
        """What is said of a row, or of a part of it, that is left out; of several, of the first of so many `times`."""
        return Skipped(f"{self.path}:{self.line}", reason, times)

    def value(self, field: str) -> Any:
        """The value of a field that must be there."""
        if field not in self.fields:
            raise self.error("missing", "the first row of the file has it, so every row must", field)
        return self.fields[field]


def is_finite(value: Any) -> bool:
    """Whether a value that was read from JSON is a number, and one that a float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def json_kind(value: Any) -> str:
    """What a value that was read from JSON is, in words: "an object", "text"; a number with a fraction is shown."""
    if isinstance(value, float):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool) and not is_finite(value):
        return "a number too large for a float"
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number"}
    return names.get(type(value), "null")
