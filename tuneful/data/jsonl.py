"""Files of JSON lines: rows that know where they stand, read one by one and written whole or not at all.

`.gz` files are unpacked while they are read. A bad row is a DataError that names file, line and field.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from tuneful.errors import DataError


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a JSONL file, and where it stands."""

    path: Path
    line: int
    fields: Mapping[str, Any]

    def error(self, problem: str, mend: str, field: str | None = None) -> DataError:
        """The DataError `file:line: field "x": problem; mend`."""
        place = f'field "{field}": ' if field else ""
        return DataError(f"{self.path}:{self.line}: {place}{problem}; {mend}")

    def value(self, field: str) -> Any:
        """The value of a field that must be there."""
        if field not in self.fields:
            raise self.error("missing", "the first row of the file has it, so every row must", field)
        return self.fields[field]


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a JSONL file in order; blank lines are passed over but counted.

    Raises DataError when the file is missing, damaged or empty, or a line is not a JSON object in UTF-8.
    """
    num_rows = 0
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            num_rows += 1
            yield _row(path, number, line)
    if not num_rows:
        raise DataError(f"{path}: holds no rows; write one JSON object per line")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]], *, force: bool = False) -> int:
    """Writes rows as JSON lines (packed when the name ends in .gz) and returns how many.

    The file appears whole or not at all: it is written beside, synced and renamed, where a symlink points to when
    `path` is one. Raises DataError as `refuse_existing` does, when a row is not JSON (NaN is not), and when the disk
    refuses.
    """
    refuse_existing(path, force=force)
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            num_rows = _write_lines(file, path, rows)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written: {error.strerror or error}; free space or choose another place"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return num_rows


def refuse_existing(path: Path, *, force: bool) -> None:
    """DataError for a path that may not be written: what exists without `force`, and what is no file even with it."""
    if path.exists() and not path.is_file():
        kind = "a directory" if path.is_dir() else "a device or pipe"
        raise DataError(f"{path}: is {kind}, which is not replaced by a file; choose another name")
    if path.exists() and not force:
        raise DataError(f"{path}: exists already; choose another name or use --force to replace it")


def json_kind(value: Any) -> str:
    """What a value that was read from JSON is, in words: "an object", "text"; a number with a fraction is shown."""
    if isinstance(value, float):
        return str(value)
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number"}
    return names.get(type(value), "null")


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield from file
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the name") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip file: {error}; fetch it again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}; give a file that can be opened") from None


def _row(path: Path, number: int, line: bytes) -> Row:
    row = Row(path, number, {})
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        fields = json.loads(text, object_pairs_hook=partial(_object, row))
    except UnicodeDecodeError as error:
        raise row.error(f"not UTF-8: byte {error.start + 1} of the line", "save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise row.error(
            f"not valid JSON: {error.msg} at column {error.colno}", "write one JSON object per line"
        ) from None
    except RecursionError:
        raise row.error("not valid JSON: nested too deeply", "write one flat JSON object per line") from None
    if not isinstance(fields, dict):
        raise row.error(f"expected an object, got {json_kind(fields)}", "write one JSON object per line")
    return Row(path, number, fields)


def _object(row: Row, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these keys and values; of a key that stands twice, json would keep the last in silence."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise row.error("stands twice in one object", "keep one of the two", key)
    return fields


def _write_lines(file: IO[bytes], path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    # No name and no time inside the packed file, so equal rows give equal bytes.
    packed = gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) if path.suffix == ".gz" else None
    num_rows = 0
    for num_rows, row in enumerate(rows, start=1):
        try:
            line = json.dumps(dict(row), ensure_ascii=False, allow_nan=False).encode() + b"\n"
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{path}: row {num_rows} cannot be written as JSON: {error}; write text and finite numbers"
            ) from None
        (packed or file).write(line)
    if packed is not None:
        packed.close()
    return num_rows
