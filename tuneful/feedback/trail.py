"""A trail of what leads and admins did: events, each with a hash over itself and the hash of the one before.

Whoever changes an event or takes one out breaks every hash after it, and whoever writes all of them anew ends at
another head than the one that earlier datasets name. What labelers judge is not in it: those rows are never changed,
and a dataset's manifest has their hash. An event names people by their pseudonyms alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, insert, select, text

from tuneful.feedback.store import Store
from tuneful.feedback.tables import event

BEGINNING: Final = "0" * 64
"""What stands for the hash before the first event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """rater: who did it; None for what was done on the server's own command line. at: seconds since 1970."""

    number: int
    project: str | None
    rater: str | None
    what: str
    about: Mapping[str, Any]
    at: float
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trail:
    """head: the hash of the last event. broken: the number of the first one that is missing or not what was written;
    None when all are."""

    head: str
    count: int
    broken: int | None


def add(
    connection: Connection,
    what: str,
    *,
    project: str | None = None,
    rater: str | None = None,
    about: Mapping[str, Any],
    now: float,
) -> None:
    """One more event, in the transaction of what it tells of: both are there or neither.

    about: JSON, without anything personal. Best called last: on PostgreSQL others wait for the trail from here on.
    """
    if connection.dialect.name == "postgresql":
        # A number that another one takes meanwhile is an error that is tried again once, and many may come at once.
        connection.execute(text("LOCK TABLE event IN SHARE ROW EXCLUSIVE MODE"))
    last = connection.execute(select(event.c.number, event.c.hash).order_by(event.c.number.desc()).limit(1)).first()
    row = {
        "number": 1 if last is None else last.number + 1,
        "project": project,
        "rater": rater,
        "what": what,
        "about": dict(about),
        "previous": BEGINNING if last is None else last.hash,
        "created_at": float(now),
    }
    connection.execute(insert(event).values(**row, hash=_hash(row)))


def check(store: Store) -> Trail:
    """Reads every event and says whether each is what was written, in its place."""
    head, count, broken = BEGINNING, 0, None
    with store.read() as connection:
        for row in connection.execute(select(event).order_by(event.c.number)).mappings():
            count += 1
            whole = row["number"] == count and row["previous"] == head and row["hash"] == _hash(row)
            if broken is None and not whole:
                broken = count
            head = row["hash"]
    return Trail(head=head, count=count, broken=broken)


def head(store: Store) -> tuple[int, str]:
    """Number and hash of the last event; 0 and `BEGINNING` before there is one."""
    with store.read() as connection:
        last = connection.execute(select(event.c.number, event.c.hash).order_by(event.c.number.desc()).limit(1)).first()
    return (0, BEGINNING) if last is None else (last.number, last.hash)


def holds(store: Store, number: int, hash_: str) -> bool:
    """Whether the event of this number has this hash, as somebody wrote down earlier."""
    if number == 0:
        return hash_ == BEGINNING
    with store.read() as connection:
        return connection.execute(select(event.c.hash).where(event.c.number == number)).scalar() == hash_


def events(store: Store, project_id: str | None = None, *, last: int = 50) -> list[Event]:
    """The newest events of a project, or of the whole store, oldest of them first."""
    asked = select(event).order_by(event.c.number.desc()).limit(last)
    if project_id is not None:
        asked = asked.where(event.c.project == project_id)
    with store.read() as connection:
        rows = connection.execute(asked).all()
    return [
        Event(
            number=row.number,
            project=row.project,
            rater=row.rater,
            what=row.what,
            about=row.about,
            at=row.created_at,
            hash=row.hash,
        )
        for row in reversed(rows)
    ]


def _hash(row: Mapping[Any, Any]) -> str:
    """SHA-256 of everything that stands in the row but its hash."""
    told = {name: row[name] for name in ("number", "project", "rater", "what", "about", "previous", "created_at")}
    return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
