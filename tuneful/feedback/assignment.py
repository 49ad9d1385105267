"""Who judges what: an item goes to as many raters as were asked for, under leases that end by themselves.

A lease is a time, not a lock: once it is over the place counts as free inside the next claim, and no daemon has to
notice. Work is never thrown away: what comes late counts while there is room and is kept as surplus when there is none.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, and_, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from tuneful.errors import StoreError
from tuneful.feedback.store import Store
from tuneful.feedback.tables import assignment, draft, instructions, item, judgment, membership, project

LEASE_SECONDS: Final = 600.0
"""The shortest lease."""

LEASE_OF_MEDIAN: Final = 3.0
"""A rater who takes long gets a lease of this many times the median of their last judgments."""

RECENT: Final = 25
"""Judgments of a rater whose median is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """An item in a rater's hands until `lease_until`, its completions in the order in which they are shown."""

    id: str
    item: str
    rater: str
    lease_until: float
    shown_order: tuple[str, ...]
    instructions: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a rater said of an item; `id` is made by the client, so that saying it twice is saying it once.

    ranks, in the order in which the item stores its completions: 1 is best, equal numbers tie, None was not ranked.
    replaces: the judgment that this one revises.
    """

    id: str
    ranks: tuple[int | None, ...] = ()
    flags: Mapping[str, tuple[str, ...]]
    values: Mapping[str, float]
    criterion: str = "preference"
    instructions: str | None = None
    note: str = ""
    seconds: float | None = None
    replaces: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What became of a judgment. counted: within the item's overlap. late: its lease was over. again: it had been
    stored before, and this is the same answer once more."""

    judgment: str
    counted: bool
    late: bool
    again: bool


def claim(store: Store, project_id: str, rater_id: str, *, now: float) -> Assignment | None:
    """The item that the rater has, else the next open one; None when there is none for them.

    Raises StoreError when the rater is no member of the project.
    """

    def work(connection: Connection) -> Assignment | None:
        _require_member(connection, project_id, rater_id)
        _release_expired(connection, rater_id, now)
        held = connection.execute(
            select(assignment)
            .join(item, item.c.id == assignment.c.item)
            .where(assignment.c.rater == rater_id, assignment.c.state == "live", item.c.project == project_id)
            .order_by(assignment.c.created_at)
        ).first()
        if held is not None:
            return _assignment(held._mapping)
        chosen = _next_open(connection, project_id, rater_id, now)
        return None if chosen is None else _assign(connection, chosen, project_id, rater_id, now)

    return store.write(work)


def submit(store: Store, assignment_id: str, rater_id: str, said: Said, *, now: float) -> Receipt:
    """Store a judgment. The same id again gives the same receipt, `again` apart, and changes nothing.

    Raises StoreError for an assignment of somebody else, a judgment that does not fit the item, an id that means
    another judgment already, and a revision of what has been revised.
    """

    def work(connection: Connection) -> Receipt:
        # Held until the end, so that the same word said twice at once is stored by one of the two.
        given = connection.execute(
            select(assignment, item.c.project, item.c.completions)
            .join(item, item.c.id == assignment.c.item)
            .where(assignment.c.id == assignment_id, assignment.c.rater == rater_id)
            .with_for_update(of=assignment)
        ).first()
        stored = connection.execute(select(judgment).where(judgment.c.id == said.id)).first()
        if stored is not None:
            if given is None or (stored.item, stored.rater) != (given.item, rater_id):
                raise StoreError(f'judgment "{said.id}": the id belongs to another one; make a new UUID')
            return Receipt(judgment=said.id, counted=stored.counted, late=stored.late, again=True)
        if given is None:
            raise StoreError(f'assignment "{assignment_id}": not one of rater "{rater_id}"')
        _require_fit(said, given.completions)
        late = given.state == "released" or (given.state == "live" and given.lease_until <= now)
        place, state = _stands_for(connection, given)
        judged = state in ("submitted", "surplus")
        replaces = _latest(connection, place) if judged else None
        if said.replaces not in (None, replaces):
            latest = "there is none yet" if replaces is None else f'the latest is "{replaces}"'
            raise StoreError(f'judgment "{said.id}": it revises "{said.replaces}", but {latest}')
        counted = state == "submitted" if judged else _take_place(connection, given.item, place, now)
        if not judged:
            now_is = "submitted" if counted else "surplus"
            connection.execute(update(assignment).where(assignment.c.id == place).values(state=now_is))
        connection.execute(
            insert(judgment).values(
                id=said.id,
                project=given.project,
                item=given.item,
                rater=rater_id,
                assignment=place,
                ranks=list(said.ranks),
                flags={name: list(flags) for name, flags in said.flags.items()},
                values=dict(said.values),
                criterion=said.criterion,
                shown_order=given.shown_order,
                instructions=said.instructions or given.instructions,
                note=said.note,
                seconds=said.seconds,
                late=late,
                counted=counted,
                replaces=replaces,
                created_at=now,
            )
        )
        connection.execute(draft.delete().where(draft.c.assignment.in_([assignment_id, place])))
        return Receipt(judgment=said.id, counted=counted, late=late, again=False)

    return store.write(work)


def extend(store: Store, assignment_id: str, rater_id: str, *, now: float) -> float:
    """Begin the lease anew; returns when it ends. Also one that is over, while nobody else has the place.

    Raises StoreError when it is not the rater's, is finished, or has been given away.
    """

    def work(connection: Connection) -> float:
        held = _own(connection, assignment_id, rater_id)
        if held.state != "live":
            raise StoreError(f'assignment "{assignment_id}": {held.state}, not in hand any more')
        if held.lease_until <= now and not _room(connection, held.item, assignment_id, now):
            raise StoreError(f'assignment "{assignment_id}": its time was over and another rater has it now')
        until = now + _lease(connection, rater_id)
        connection.execute(update(assignment).where(assignment.c.id == assignment_id).values(lease_until=until))
        return until

    return store.write(work)


def skip(store: Store, assignment_id: str, rater_id: str) -> None:
    """Give the item back for good: this rater is not asked again.

    Raises StoreError when it is not the rater's or not in hand.
    """

    def work(connection: Connection) -> None:
        held = _own(connection, assignment_id, rater_id)
        if held.state != "live":
            raise StoreError(f'assignment "{assignment_id}": {held.state}, not in hand any more')
        connection.execute(update(assignment).where(assignment.c.id == assignment_id).values(state="skipped"))

    store.write(work)


def save_draft(store: Store, assignment_id: str, rater_id: str, content: Mapping[str, Any], *, now: float) -> None:
    """Keep what a rater has so far; the last one saved is kept.

    Raises StoreError when the assignment is not the rater's.
    """

    def work(connection: Connection) -> None:
        _own(connection, assignment_id, rater_id)
        put = postgresql.insert(draft) if connection.dialect.name == "postgresql" else sqlite.insert(draft)
        row = {"content": dict(content), "saved_at": now}
        connection.execute(
            put.values(assignment=assignment_id, **row).on_conflict_do_update(index_elements=["assignment"], set_=row)
        )

    store.write(work)


def _stands_for(connection: Connection, given: Any) -> tuple[str, str]:
    """Id and state of the assignment that holds the rater's place on the item: of one that was released and claimed
    again the new one, so that work sent late under the old one finds its place."""
    if given.state != "released":
        return given.id, given.state
    again = connection.execute(
        select(assignment.c.id, assignment.c.state)
        .where(assignment.c.item == given.item, assignment.c.rater == given.rater, assignment.c.state != "released")
        .with_for_update()
    ).first()
    return (given.id, given.state) if again is None else (again.id, again.state)


def _own(connection: Connection, assignment_id: str, rater_id: str) -> Any:
    held = connection.execute(
        select(assignment).where(assignment.c.id == assignment_id, assignment.c.rater == rater_id)
    ).first()
    if held is None:
        raise StoreError(f'assignment "{assignment_id}": not one of rater "{rater_id}"')
    return held


def _require_member(connection: Connection, project_id: str, rater_id: str) -> None:
    """Also makes claims of one rater wait for each other, so that two tabs do not take two items."""
    found = connection.execute(
        select(membership.c.role)
        .where(membership.c.project == project_id, membership.c.rater == rater_id)
        .with_for_update()
    ).first()
    if found is None:
        known = connection.execute(select(project.c.id).where(project.c.id == project_id)).first()
        missing = f'rater "{rater_id}" is no member of it' if known else "there is no such project"
        raise StoreError(f'project "{project_id}": {missing}')


def _release_expired(connection: Connection, rater_id: str, now: float) -> None:
    connection.execute(
        update(assignment)
        .where(assignment.c.rater == rater_id, assignment.c.state == "live", assignment.c.lease_until <= now)
        .values(state="released")
    )


def _live(now: float) -> Any:
    return and_(assignment.c.item == item.c.id, assignment.c.state == "live", assignment.c.lease_until > now)


def _next_open(connection: Connection, project_id: str, rater_id: str, now: float) -> RowMapping | None:
    mine = select(assignment.c.id).where(
        assignment.c.item == item.c.id, assignment.c.rater == rater_id, assignment.c.state != "released"
    )
    in_hand = select(func.count()).select_from(assignment).where(_live(now)).scalar_subquery()
    query = (
        select(item)
        .where(
            item.c.project == project_id,
            item.c.submitted < item.c.overlap,
            ~mine.exists(),
            item.c.submitted + in_hand < item.c.overlap,
        )
        .order_by(item.c.priority.desc(), item.c.position)
        .limit(1)
    )
    if connection.dialect.name == "postgresql":
        return _locked(connection, query, now)
    found = connection.execute(query).first()
    return None if found is None else found._mapping


def _locked(connection: Connection, query: Any, now: float) -> RowMapping | None:
    """On PostgreSQL: the first open item that no other claim is looking at, counted again once it is ours alone."""
    while True:
        found = connection.execute(query.with_for_update(skip_locked=True, of=item)).first()
        if found is None:
            return None
        if _room(connection, found.id, None, now):
            return found._mapping
        query = query.where(item.c.id != found.id)


def _room(connection: Connection, item_id: str, but: str | None, now: float) -> bool:
    """Whether the item wants another rater than those who have judged it or have it in hand, `but` apart."""
    in_hand = (
        select(func.count())
        .select_from(assignment)
        .where(
            assignment.c.item == item_id,
            assignment.c.state == "live",
            assignment.c.lease_until > now,
            assignment.c.id != (but or ""),
        )
        .scalar_subquery()
    )
    free = select(item.c.overlap - item.c.submitted - in_hand).where(item.c.id == item_id)
    return int(connection.execute(free).scalar_one()) > 0


def _assign(connection: Connection, chosen: RowMapping, project_id: str, rater_id: str, now: float) -> Assignment:
    shown = list(chosen["completions"])
    random.Random(f"{chosen['id']} {rater_id}").shuffle(shown)
    newest = connection.execute(
        select(instructions.c.id)
        .where(instructions.c.project == project_id)
        .order_by(instructions.c.version.desc())
        .limit(1)
    ).scalar()
    row = {
        "id": str(uuid.uuid4()),
        "item": chosen["id"],
        "rater": rater_id,
        "state": "live",
        "lease_until": now + _lease(connection, rater_id),
        "shown_order": shown,
        "instructions": newest,
        "created_at": now,
    }
    connection.execute(insert(assignment).values(**row))
    return _assignment(row)


def _assignment(row: Mapping[str, Any] | RowMapping) -> Assignment:
    return Assignment(
        id=row["id"],
        item=row["item"],
        rater=row["rater"],
        lease_until=row["lease_until"],
        shown_order=tuple(row["shown_order"]),
        instructions=row["instructions"],
    )


def _lease(connection: Connection, rater_id: str) -> float:
    """Seconds: ten minutes, and for a slow reader three times the median of their last judgments."""
    times = connection.execute(
        select(judgment.c.seconds)
        .where(judgment.c.rater == rater_id, judgment.c.seconds.is_not(None))
        .order_by(judgment.c.created_at.desc())
        .limit(RECENT)
    ).scalars()
    recent = sorted(times)
    median = recent[len(recent) // 2] if recent else 0.0
    return max(LEASE_SECONDS, LEASE_OF_MEDIAN * median)


def _take_place(connection: Connection, item_id: str, assignment_id: str, now: float) -> bool:
    """One more judgment towards the item's overlap, if there is room for it."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(item.c.id).where(item.c.id == item_id).with_for_update())
    if not _room(connection, item_id, assignment_id, now):
        return False
    connection.execute(update(item).where(item.c.id == item_id).values(submitted=item.c.submitted + 1))
    return True


def _latest(connection: Connection, assignment_id: str) -> str:
    """The judgment of this assignment that no other one replaces."""
    later = judgment.alias()
    return str(
        connection.execute(
            select(judgment.c.id).where(
                judgment.c.assignment == assignment_id,
                ~select(later.c.id).where(later.c.replaces == judgment.c.id).exists(),
            )
        ).scalar_one()
    )


def _require_fit(said: Said, completions: list[str]) -> None:
    if said.ranks and len(said.ranks) != len(completions):
        raise StoreError(f'judgment "{said.id}": {len(said.ranks)} ranks for {len(completions)} completions')
    for name in said.flags:
        if name not in completions:
            raise StoreError(f'judgment "{said.id}": flags for "{name}", which is no completion of the item')
