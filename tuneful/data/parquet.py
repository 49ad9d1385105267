"""Parquet files: the rows of JSON lines, held in columns. Needs the package pyarrow."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from tuneful.data.jsonl import json_line
from tuneful.data.plain import plain
from tuneful.data.row import Row
from tuneful.data.writing import written_whole
from tuneful.errors import DataError

_ROWS_AT_ONCE = 1024


def read_parquet(path: Path) -> Iterator[Row]:
    """The rows of a Parquet file in order, numbered from 1; what is null in a row is not among its fields.

    Raises DataError when pyarrow is not installed, and when the file is missing, damaged or empty.
    """
    need_pyarrow(path)
    number = 0
    with _opened(path) as file:
        for number, record in enumerate(_records(path, file), start=1):
            yield Row(path, number, plain(record))
    if not number:
        raise DataError(f"{path}: holds no rows; write one row per prompt")


def write_parquet(path: Path, rows: Iterable[Mapping[str, Any]], *, force: bool = False) -> int:
    """Writes rows as a Parquet file and returns how many. They are held in memory, since a column has one type.

    The file appears whole or not at all. Raises DataError as `write_jsonl` does, and for a field that is text here and
    a list there.
    """
    need_pyarrow(path)
    arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    with written_whole(path, force=force) as file:
        held = [dict(row) for row in rows]
        for number, row in enumerate(held, start=1):
            json_line(path, number, row)  # the same rows are refused as in JSON lines
        names = dict.fromkeys(name for row in held for name in row)
        columns = {name: _column(arrow, path, name, [row.get(name) for row in held]) for name in names}
        try:
            parquet.write_table(arrow.table(columns), file)
        except arrow.ArrowException as error:
            raise DataError(f"{path}: cannot be written as Parquet: {_line(error)}; write .jsonl") from None
    return len(held)


def need_pyarrow(path: Path) -> None:
    """DataError when the package that reads and writes `path` is not installed."""
    try:
        importlib.import_module("pyarrow")
    except ImportError:
        raise DataError(f"{path}: Parquet needs pyarrow; pip install 'tuneful[parquet]' or use .jsonl") from None


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the name") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}; give a file that can be opened") from None


def _records(path: Path, file: IO[bytes]) -> Iterator[dict[str, Any]]:
    parquet = importlib.import_module("pyarrow.parquet")
    try:
        for batch in parquet.ParquetFile(file).iter_batches(_ROWS_AT_ONCE):
            yield from batch.to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's own are among these: pages that cannot be unpacked, bad footers
        raise DataError(f"{path}: damaged Parquet file: {_line(error)}; fetch it again") from None


def _column(arrow: Any, path: Path, name: str, values: list[Any]) -> Any:
    try:
        return arrow.array(values)
    except (arrow.ArrowException, TypeError, OverflowError) as error:
        mend = "give the field one type in all rows, or write .jsonl"
        raise DataError(f'{path}: field "{name}": a column of Parquet has one type: {_line(error)}; {mend}') from None


def _line(error: Exception) -> str:
    """An error's message, which may run over several lines, as part of one."""
    return " ".join(str(error).split()).rstrip(".")
