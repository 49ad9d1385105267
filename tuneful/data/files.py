"""Files of rows, in the kind that their name ends in: `.parquet`, else JSON lines, packed for `.gz`.

A `.txt` file that does not begin as JSON lines do holds a prompt on each line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tuneful.data.jsonl import read_jsonl, write_jsonl
from tuneful.data.parquet import need_pyarrow, read_parquet, write_parquet
from tuneful.data.prompt_lines import is_plain_text, read_prompt_lines
from tuneful.data.row import Row
from tuneful.data.writing import refuse_existing


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file in order. Raises DataError as `read_jsonl` and `read_parquet` do."""
    if _is_parquet(path):
        return read_parquet(path)
    return read_prompt_lines(path) if is_plain_text(path) else read_jsonl(path)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], *, force: bool = False) -> int:
    """Writes rows and returns how many. Raises DataError as `write_jsonl` and `write_parquet` do."""
    write = write_parquet if _is_parquet(path) else write_jsonl
    return write(path, rows, force=force)


def refuse_unwritable(path: Path, *, force: bool) -> None:
    """DataError for a path that `write_rows` would refuse, to be asked before the work that gives the rows."""
    refuse_existing(path, force=force)
    if _is_parquet(path):
        need_pyarrow(path)


def _is_parquet(path: Path) -> bool:
    return path.suffix == ".parquet"
