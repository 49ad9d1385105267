"""Decisions that were made elsewhere, put beside the judgments of the same items."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, insert, select

from tuneful.errors import StoreError
from tuneful.feedback import trail
from tuneful.feedback.decisions import asked_by, require_answer, standing_of
from tuneful.feedback.settling import Decision
from tuneful.feedback.store import require_storable
from tuneful.feedback.tables import decision
from tuneful.records import content_hash


@dataclass(frozen=True, slots=True)
class Place:
    """Where an item of a file is in the store: its id there, and the ids of its completions by those of the file."""

    item: str
    completions: Mapping[str, str]


def record_decisions(
    connection: Connection,
    project_id: str,
    made: Iterable[Decision],
    places: Mapping[str, Place],
    rater_of: Callable[[str], str],
    at: Callable[[Decision], float],
    *,
    by: str | None,
    now: float,
) -> tuple[int, list[str]]:
    """How many were new, and a line for each that is left out: of an item that stands on another decision here.

    Of other items than `places` has nothing is taken. What was recorded before is not recorded twice.
    rater_of: the rater here who is the one that the file names; at: when it was made.

    Raises StoreError for one that does not fit its item, and for an id that means another decision of the project.
    """
    new, left_out = list[dict[str, Any]](), list[str]()
    for one in _earlier_first([one for one in made if one.item in places]):
        place = places[one.item]
        row = _row(connection, one, place)
        id_ = id_here(connection, decision, project_id, one.id)
        replaces = None if one.replaces is None else id_here(connection, decision, project_id, one.replaces)
        known = connection.execute(select(decision).where(decision.c.id == id_)).mappings().first()
        if known is not None:
            if any(known[name] != value for name, value in row.items()):
                raise StoreError(f'decision "{one.id}": the id belongs to another one here; give this one a new id')
            continue
        if asked_by(connection, place.item)["gold"] is not None:
            left_out.append(f'decision "{one.id}": left out: its item is a gold item here, whose answer is known')
        elif standing_of(connection, place.item) != replaces:
            left_out.append(f'decision "{one.id}": left out: it does not follow on what was decided of its item here')
        else:
            row |= {"id": id_, "project": project_id, "rater": rater_of(one.rater), "replaces": replaces}
            connection.execute(insert(decision).values(**row, created_at=at(one)))
            new.append(row)
    if new:
        about = {"decisions": len(new), "hash": content_hash(new)}
        trail.add(connection, "decisions recorded", project=project_id, rater=by, about=about, now=now)
    return len(new), left_out


def id_here(connection: Connection, table: Table, project_id: str, id_: str) -> str:
    """The id in this project of what a file calls so: the same, or, where it belongs to another project, one that
    follows from the two, so that the same file read again means the same rows."""
    of = connection.execute(select(table.c.project).where(table.c.id == id_)).scalar()
    return id_ if of in (None, project_id) else str(uuid.uuid5(uuid.UUID(project_id), id_))


def _row(connection: Connection, one: Decision, place: Place) -> dict[str, Any]:
    """What it says, in the order and by the ids of the item here."""
    require_storable(one.why, f'decision "{one.id}"')
    if set(one.completions) != set(place.completions):
        raise StoreError(f'decision "{one.id}": its completions are not those of its item')
    asked = asked_by(connection, place.item)
    ranks = dict(zip((place.completions[name] for name in one.completions), one.ranks, strict=False))
    placed = [ranks[name] for name in asked["completions"]] if ranks else []
    values = {place.completions.get(name, name): value for name, value in one.values.items()}
    try:
        require_answer(asked, placed, values)
    except StoreError as error:
        raise StoreError(f'decision "{one.id}": {error}') from None
    return {"ranks": placed, "values": values, "item": place.item, "why": one.why}


def _earlier_first(made: Iterable[Decision]) -> list[Decision]:
    """In their order, but none before the one that it replaces. Those that replace each other come last."""
    left, ordered, written = list(made), list[Decision](), set[str]()
    while left:
        waits_for = {one.id for one in left}
        wave = [one for one in left if one.replaces not in waits_for] or left
        ordered += wave
        written |= {one.id for one in wave}
        left = [one for one in left if one.id not in written]
    return ordered
