"""The rows of a file that are whole, and a line on each that is not: one broken row does not hide those after it.

A file is a list of objects in JSON, or JSON lines, either packed as `.gz`; or Parquet.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from tuneful.data.jsonl import lines
from tuneful.data.parquet import read_parquet
from tuneful.data.row import Row, json_kind
from tuneful.errors import DataError, StoreError

OnProblem = Literal["refuse", "skip"]
"""What becomes of a file with broken rows: nothing of it is taken, or all that is whole."""

TOLD: Final = 3
"""Faults in the message of a file that is refused."""

_WHITE = re.compile(r"[ \t\r\n]*")


class Faults:
    """What is broken in a file, a line for each row or part of one."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @contextmanager
    def attempt(self, row: Row, name: str = "") -> Iterator[None]:
        """A DataError or StoreError of the block becomes a fault, told with the `name` of what is broken; the file goes
        on."""
        try:
            yield
        except (DataError, StoreError) as error:
            place = f"{row.path}:{row.line}: "
            said = str(error).removeprefix(place)
            self.lines.append(one_line(f"{place}{name}{': ' if name else ''}{said}"))

    def refuse(self, path: Path, *, mend: str) -> None:
        """`refuse_broken` the file where there are any."""
        refuse_broken(path, self.lines, mend=mend)


def refuse_broken(path: Path, faults: Sequence[str], *, mend: str, told: int = TOLD) -> None:
    """DataError where there are faults: how many, the first `told` of them, and the way out.

    told: 0 where they stand beside the message.
    """
    number = len(faults)
    if number:
        more = [f"and {number - told} more"] if 0 < told < number else []
        listed = " | ".join([*faults[:told], *more])
        raise DataError(
            f"{path}: {number} broken {'part' if number == 1 else 'parts'}, so nothing was taken"
            f"{': ' if listed else ''}{listed}; {mend}"
        )


def one_line(text: str) -> str:
    """Names of fields are strangers' words, too: what would end the line, or change its direction, is spelled out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def whole_rows(path: Path, faults: Faults) -> Iterator[Row]:
    """The rows of a file; what is broken among them becomes a fault. Raises DataError for one that cannot be read."""
    if path.suffix == ".parquet":
        return read_parquet(path)
    content = b"".join(lines(path))
    opening = content.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if opening == b"[":
        return _elements(path, content, faults)
    single = _single_object(path, content) if opening == b"{" else None
    return _lines(path, content, faults) if single is None else iter([single])


def _single_object(path: Path, content: bytes) -> Row | None:
    """The object that a whole file is, over several lines: a task as Label Studio keeps it in cloud storage."""
    row = Row(path, 1, {})
    try:
        text = _decoded(row, content)
        value, end = _value(row, text, _past_white(text, 0))
        return None if _past_white(text, end) < len(text) else _object(row, value)
    except DataError:
        return None  # and then its first line says what is wrong


def _lines(path: Path, content: bytes, faults: Faults) -> Iterator[Row]:
    for number, line in enumerate(content.split(b"\n"), start=1):
        row = Row(path, number, {})
        with faults.attempt(row):
            text = _decoded(row, line)
            start = _past_white(text, 0)
            if start < len(text):
                value, end = _value(row, text, start)
                if _past_white(text, end) < len(text):
                    raise row.error("something stands behind the object", "write one JSON object per line")
                row = _object(row, value)
        if row.fields:
            yield row


def _elements(path: Path, content: bytes, faults: Faults) -> Iterator[Row]:
    """The objects of a list in JSON, each with the line that it begins on."""
    text = _decoded(Row(path, 1, {}), content)
    at, line, counted = text.index("[") + 1, 1, 0
    while text[(at := _past_white(text, at)) : at + 1] != "]":
        line, counted = line + text.count("\n", counted, at), at
        row, end = Row(path, line, {}), -1
        with faults.attempt(row):
            value, end = _value(row, text, at)
            following = _past_white(text, end)
            if text[following : following + 1] not in (",", "]"):
                raise row.error("the list is cut off behind this row", "export it anew")
            at = following + (text[following] == ",")
            row = _object(row, value)
        if row.fields:
            yield row
        if at <= end or end < 0:
            return  # nothing behind what is no JSON can be found


def _decoded(row: Row, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig" if row.line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise row.error(f"not UTF-8: byte {error.start + 1}", "save the file as UTF-8") from None


@dataclass(frozen=True, slots=True)
class _Twice:
    """Stands for an object in which a key stands twice; of the two values, json would keep the last in silence."""

    key: str


def _value(row: Row, text: str, at: int) -> tuple[Any, int]:
    """The value that begins at a place of a text, and where it ends."""
    twice: list[_Twice] = []

    def fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
            twice.append(_Twice(key))
        return found

    try:
        value, end = json.JSONDecoder(object_pairs_hook=fields).raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise row.error(f"not valid JSON: {error.msg}", "export it anew") from None
    except ValueError:  # after JSONDecodeError, which is one: Python's own limit on the digits of an integer
        raise row.error("an integer of too many digits", "write it as text") from None
    except RecursionError:
        raise row.error("not valid JSON: nested too deeply", "export it anew") from None
    return twice[0] if twice else value, end


def _object(row: Row, value: Any) -> Row:
    if isinstance(value, _Twice):
        raise row.error("stands twice in one object", "keep one of the two", value.key)
    if not isinstance(value, dict) or not value:
        found = "an empty object" if isinstance(value, dict) else json_kind(value)
        raise row.error(f"expected an object, got {found}", "write one object per row")
    return Row(row.path, row.line, value)


def _past_white(text: str, at: int) -> int:
    found = _WHITE.match(text, at)
    return at if found is None else found.end()
