"""A copy of a store as it was at one moment, taken while people go on judging, and put back into an empty one.

The copy is a store itself, a SQLite file, whichever database it was taken from; so a backup is also the way from SQLite
to PostgreSQL and back. Packed files of datasets are left out: they may be larger than all the rest, and can be written
anew from it, byte by byte.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, func, insert, select

from tuneful.errors import StoreError
from tuneful.feedback import trail
from tuneful.feedback.store import Store
from tuneful.feedback.tables import dataset_part, dataset_version, decision, judgment, metadata

ROWS_AT_ONCE: Final = 1000


def back_up(store: Store, path: Path) -> dict[str, int]:
    """Copy all but packed datasets into a new file; returns the rows of each table. StoreError when it exists."""
    if path.exists():
        raise StoreError(f"{path}: exists; a backup is a new file")
    unfinished = path.with_name(f"{path.name}.unfinished")
    for left in (unfinished, *_beside(unfinished)):
        left.unlink(missing_ok=True)
    target = Store.open(unfinished)
    try:
        counts = copy(store, target)
    finally:
        target.close()
    unfinished.rename(path)
    return counts


def restore(path: Path, store: Store, *, now: float) -> dict[str, int]:
    """Copy a backup into a store that holds nothing; returns the rows of each table. Its trail goes on here.

    Raises StoreError when the file is no store, and when the store holds anything: nothing is ever overwritten.
    """
    if not path.is_file():
        raise StoreError(f"{path}: there is no such file")
    with tempfile.TemporaryDirectory() as folder:
        taken = Path(folder) / "backup.db"  # opened, an old one is brought to the newest form: the copy, not the backup
        shutil.copyfile(path, taken)
        _require_store(path, taken)
        source = Store.open(taken)
        try:
            with source.read() as reading:
                return store.write(lambda writing: _restore(reading, writing, now), alone=True)
        finally:
            source.close()


def _require_store(path: Path, taken: Path) -> None:
    try:
        with closing(sqlite3.connect(taken)) as opened:
            opened.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.DatabaseError:
        raise StoreError(f"{path}: is no backup of a store") from None


def copy(source: Store, target: Store) -> dict[str, int]:
    """All rows of one moment, or none of them. Raises StoreError when `target` holds any."""
    with source.read() as reading:
        return target.write(lambda writing: _copy(reading, writing), alone=True)


def _restore(reading: Connection, writing: Connection, now: float) -> dict[str, int]:
    counts = _copy(reading, writing)
    about = {name: counts[name] for name in ("project", "item", "judgment", "event")}
    trail.add(writing, "restored", about=about, now=now)
    return counts


def _copy(reading: Connection, writing: Connection) -> dict[str, int]:
    for table in metadata.sorted_tables:
        if writing.execute(select(func.count()).select_from(table)).scalar_one():
            raise StoreError(f'it holds rows of "{table.name}" already; take an empty store')
    counts = {}
    for table in metadata.sorted_tables:
        if table is dataset_part:
            continue
        rows = [dict(row) for row in reading.execute(select(table)).mappings()]
        if table is dataset_version:
            rows = [row | {"size": None} for row in rows]
        for wave in _earlier_first(rows) if table in (judgment, decision) else [rows]:
            for start in range(0, len(wave), ROWS_AT_ONCE):
                writing.execute(insert(table), wave[start : start + ROWS_AT_ONCE])
        counts[table.name] = len(rows)
    return counts


def _earlier_first(rows: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Judgments, or decisions, before those that replace them."""
    written: set[str | None] = {None}
    while rows:
        wave = [row for row in rows if row["replaces"] in written]
        if not wave:
            raise StoreError(f'"{rows[0]["id"]}": what it revises is not there')
        yield wave
        written |= {row["id"] for row in wave}
        rows = [row for row in rows if row["id"] not in written]


def _beside(path: Path) -> list[Path]:
    """SQLite's own files beside a database."""
    return [path.with_name(path.name + end) for end in ("-wal", "-shm")]
