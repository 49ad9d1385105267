"""Files of JSON lines, read row by row and written whole or not at all.

`.gz` files are unpacked while they are read. A bad row is a DataError that names file, line and field.
"""

from __future__ import annotations

import gzip
import json
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

from tuneful.data.row import Row, json_kind
from tuneful.data.writing import written_whole
from tuneful.errors import DataError


def read_jsonl(path: Path) -> Iterator[Row]:
    """The rows of a JSONL file in order; blank lines are passed over but counted.

    Raises DataError when the file is missing, damaged or empty, or a line is not a JSON object in UTF-8.
    """
    num_rows = 0
    for number, line in enumerate(lines(path), start=1):
        if line.strip():
            num_rows += 1
            yield _row(path, number, line)
    if not num_rows:
        raise DataError(f"{path}: holds no rows; write one JSON object per line")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]], *, force: bool = False) -> int:
    """Writes rows as JSON lines (packed when the name ends in .gz) and returns how many.

    The file appears whole or not at all. Raises DataError as `written_whole` does, when a row is not JSON (NaN is not),
    and for a name that means another kind of file.
    """
    if path.suffix == ".parquet":
        raise DataError(f"{path}: is to hold JSON lines; give it a name that ends in .jsonl")
    with written_whole(path, force=force) as file:
        return _write_lines(file, path, rows)


def json_line(path: Path, number: int, row: Mapping[str, Any]) -> bytes:
    """Row `number` of the file `path` as it stands in JSON lines. Raises DataError when it is not JSON."""
    try:
        return json.dumps(dict(row), ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{path}: row {number} cannot be written as JSON: {error}; write text and finite numbers"
        ) from None


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, unpacked when its name ends in .gz. Raises DataError when it is missing or damaged."""
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
    except ValueError:  # after JSONDecodeError, which is one: Python's own limit on the digits of an integer
        raise row.error(f"an integer of more than {sys.get_int_max_str_digits()} digits", "write it as text") from None
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
        (packed or file).write(json_line(path, num_rows, row))
    if packed is not None:
        packed.close()
    return num_rows
