"""A log of JSON lines that survives a kill and can be cut back to where a checkpoint was made."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from tuneful.errors import RunError

_BLOCK = 1 << 16


class Follower(Protocol):
    """Is told the rows of a log while it is written."""

    def begin(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """The log has been cut back: these are the rows that stand in it, and the only ones that ever counted."""
        ...

    def write(self, row: Mapping[str, Any]) -> None:
        """A row has been appended."""
        ...


class JsonLog:
    """Rows appended to a JSONL file; each is handed to the system whole before `write` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._followers: list[Follower] = []
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise self._failed("cannot be opened", error) from error

    def write(self, row: Mapping[str, Any]) -> None:
        """Appends one row. NaN and infinity become null: what a diverging run last measured must reach the log.

        Raises RunError when a value has no JSON form, and when the disk refuses; the rows before stay whole.
        """
        line = to_json(row, self.path) + b"\n"
        before = self.size()
        try:
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
        except OSError as error:
            if self.size() > before:
                os.ftruncate(self._file, before)
            raise self._failed("cannot be written", error) from error
        for follower in self._followers:
            follower.write(row)

    def follow(self, follower: Follower) -> None:
        """From now on `follower` is told what happens to the log."""
        self._followers.append(follower)

    def size(self) -> int:
        """Bytes written so far."""
        return os.fstat(self._file).st_size

    def cut_back(self, size: int) -> None:
        """Drops everything after the first `size` bytes; RunError when there are fewer."""
        if self.size() < size:
            raise RunError(
                f"{self.path}: {self.size()} bytes, but the checkpoint was made at {size}; "
                "put the whole file back or start anew with --force"
            )
        os.ftruncate(self._file, size)
        for follower in self._followers:
            follower.begin(self.rows())

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows written so far."""
        return read_log(self.path)

    def sync(self) -> None:
        """Returns when the rows are on the disk itself."""
        try:
            os.fsync(self._file)
        except OSError as error:
            raise self._failed("cannot be written", error) from error

    def close(self) -> None:
        os.close(self._file)

    def _failed(self, what: str, error: OSError) -> RunError:
        return RunError(f"{self.path}: {what}: {error.strerror}; free space or rights, then run again to continue")


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a log, which may still be growing; a last line that is not finished yet is left out.

    Raises RunError when the file cannot be read or a line is not JSON.
    """
    number = 0
    try:
        with path.open("rb") as file:
            for line in file:
                number += 1
                if line.endswith(b"\n"):
                    yield json.loads(line)
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}; run the stage again") from None
    except ValueError as error:
        raise RunError(f"{path}:{number}: not valid JSON: {error}; mend the line or start anew with --force") from None


def newest_rows(path: Path, count: int) -> list[dict[str, Any]]:
    """The last `count` rows of a log, oldest first, read from its end however long it is; raises as `read_log`."""
    try:
        with path.open("rb") as file:
            start = file.seek(0, os.SEEK_END)
            end = b""
            while start > 0 and end.count(b"\n") <= count:
                size = min(_BLOCK, start)
                start = file.seek(start - size)
                end = file.read(size) + end
        *lines, _unfinished = end.split(b"\n")
        return [json.loads(line) for line in lines[-count:]]
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}; run the stage again") from None
    except ValueError as error:
        raise RunError(f"{path}: not valid JSON: {error}; mend the line or start anew with --force") from None


def to_json(value: Any, path: Path, *, indent: int | None = None) -> bytes:
    """`value` as UTF-8 JSON, NaN and infinity as null; RunError naming `path` for what has no JSON form."""
    try:
        return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, indent=indent).encode()
    except (TypeError, ValueError) as error:
        raise RunError(f"{path}: cannot be written as JSON: {error}; use numbers, text, lists and tables") from error


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
