"""Who judges what: an item goes to as many raters as were asked for, under leases that end by themselves.

A lease is a time, not a lock: once it is over the place counts as free inside the next claim, and no daemon has to
notice. Work is never thrown away: what comes late counts while there is room and is kept as surplus when there is none.

A model is asked about every item once, beside the people and whether they have finished or not (`unasked`, `take`).
Its lease is over at once, so it holds no place, and what it says is kept as surplus: places are for people, and for
raters who simulate them.

Statements of a claim are built once, as constants with named parameters: SQLAlchemy takes 70 to 130 microseconds to
build one, and 25 to ask it, and whoever holds SQLite's lock makes all others wait (docs/experiments.md).
"""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, Select, and_, bindparam, distinct, func, insert, select, update

from tuneful.errors import AccessError, GoneError, StoreError
from tuneful.feedback.quiz import Standing, ask_skipped_again, standing, try_to_pass
from tuneful.feedback.store import Store, require_storable, upsert
from tuneful.feedback.tables import assignment, draft, instructions, item, judgment

LEASE_SECONDS: Final = 600.0
"""The shortest lease."""

LEASE_OF_MEDIAN: Final = 3.0
"""A rater who takes long gets a lease of this many times the median of their last judgments."""

RECENT: Final = 25
"""Judgments of a rater whose median is taken."""

SOME: Final = 5
"""Judgments that tell a median."""

LONGEST_LEASE: Final = 3600.0
"""A judgment that lay open over night must not hold the next item as long."""

AHEAD: Final = 3
"""Items of a project that one rater can have in hand: that on the page, and those the page has fetched before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """An item in a rater's hands until `lease_until`, in a model's for as long as it takes; its completions in the
    order in which they are shown.

    quiz: one of those that a labeler begins with, to learn and to be tried.
    """

    id: str
    item: str
    rater: str
    lease_until: float
    shown_order: tuple[str, ...]
    instructions: str | None
    quiz: bool = False


_HELD: Final = (
    select(assignment, item.c.gold.is_not(None).label("gold"))
    .join(item, item.c.id == assignment.c.item)
    .where(
        assignment.c.rater == bindparam("rater"),
        assignment.c.state == "live",
        item.c.project == bindparam("project"),
    )
    .order_by(assignment.c.created_at)
)


def claim(
    store: Store, project_id: str, rater_id: str, *, besides: Sequence[str] = (), now: float
) -> Assignment | None:
    """The item that the rater has, else the next open one; None when there is none for them.

    besides: assignments that the rater has in hand and does not ask for, to fetch what comes after them; more than
    `AHEAD` at once are not given. A labeler who has a quiz to pass gets its items first.

    Raises AccessError when the rater is no member of the project, StoreError for a model, which takes no place.
    """

    def work(connection: Connection) -> Assignment | None:
        tried = standing(connection, project_id, rater_id)
        if tried.is_ai:
            raise StoreError(f'rater "{rater_id}": is a model, which takes no place; `take` an item that is `unasked`')
        _release_expired(connection, rater_id, now)
        held = connection.execute(_HELD, {"rater": rater_id, "project": project_id}).all()
        for one in held:
            if one.id not in besides:
                return _assignment(one._mapping, quiz=one.gold and not tried.passed)
        if len(held) >= AHEAD:
            return None
        if not tried.passed and try_to_pass(connection, project_id, rater_id, tried, now):
            tried = standing(connection, project_id, rater_id)
        chosen = _next_item(connection, project_id, rater_id, tried, len(held), now)
        if chosen is None:
            return None
        until = now + _lease(connection, rater_id)
        return _assign(connection, chosen, project_id, rater_id, now, until=until, quiz=not tried.passed)

    return store.write(work)


def unasked(store: Store, project_id: str, rater_id: str) -> list[str]:
    """Ids of the items of a project that the rater has not judged or skipped, gold ones too, in their order: what a
    model has to do. Of a rater who is none yet, all."""
    done = select(assignment.c.id).where(
        assignment.c.item == item.c.id, assignment.c.rater == rater_id, assignment.c.state.not_in(("live", "released"))
    )
    asked = select(item.c.id).where(item.c.project == project_id, ~done.exists())
    with store.read() as connection:
        return list(connection.execute(asked.order_by(item.c.priority.desc(), item.c.position)).scalars())


def take(store: Store, item_id: str, rater_id: str, *, now: float) -> Assignment | None:
    """An item for a model, full or not, without a place on it; None when it has judged or skipped it. One that it had
    taken is in its hands still.

    Raises AccessError when it is no member of the item's project, StoreError for a rater who is no model.
    """

    def work(connection: Connection) -> Assignment | None:
        chosen = connection.execute(select(item).where(item.c.id == item_id)).one()._mapping
        if not standing(connection, chosen["project"], rater_id).is_ai:
            raise StoreError(f'rater "{rater_id}": is no model; people and who simulates them `claim` an item')
        mine = (assignment.c.item == item_id, assignment.c.rater == rater_id, assignment.c.state != "released")
        held = connection.execute(select(assignment).where(*mine)).first()
        if held is None:
            return _assign(connection, chosen, chosen["project"], rater_id, now, until=now, quiz=False)
        return _assignment(held._mapping, quiz=False) if held.state == "live" else None

    return store.write(work)


def extend(store: Store, assignment_id: str, rater_id: str, *, now: float) -> float:
    """Begin the lease anew; returns when it ends. Also one that is over, while nobody else has the place.

    Raises AccessError when it is not the rater's, GoneError when it is finished or has been given away.
    """

    def work(connection: Connection) -> float:
        held = _own(connection, assignment_id, rater_id)
        if held.state != "live":
            raise GoneError(f'assignment "{assignment_id}": {held.state}, not in hand any more')
        # Asked also of a lease that is not over by `now`, which was taken before this transaction had its turn.
        lock_item(connection, held.item)
        if not has_room(connection, held.item, assignment_id, now):
            raise GoneError(f'assignment "{assignment_id}": its time was over and another rater has it now')
        until = now + _lease(connection, rater_id)
        connection.execute(update(assignment).where(assignment.c.id == assignment_id).values(lease_until=until))
        return until

    return store.write(work)


def skip(store: Store, assignment_id: str, rater_id: str, reason: str = "") -> None:
    """Give the item back for good: this rater is not asked again. The reason is for the project's lead.

    Raises AccessError when it is not the rater's, GoneError when it is not in hand.
    """

    def work(connection: Connection) -> None:
        held = _own(connection, assignment_id, rater_id)
        if held.state == "skipped":
            return  # said again, after an answer that was lost
        if held.state != "live":
            raise GoneError(f'assignment "{assignment_id}": {held.state}, not in hand any more')
        of_item = connection.execute(select(item.c.gold, item.c.project).where(item.c.id == held.item)).one()
        if of_item.gold is not None and not standing(connection, of_item.project, rater_id).passed:
            raise StoreError("an item of the quiz cannot be skipped; judge it as well as you can")
        connection.execute(
            update(assignment).where(assignment.c.id == assignment_id).values(state="skipped", reason=reason)
        )

    store.write(work)


def save_draft(store: Store, assignment_id: str, rater_id: str, content: Mapping[str, Any], *, now: float) -> None:
    """Keep what a rater has so far; the last one saved is kept.

    Raises AccessError when the assignment is not the rater's.
    """
    require_storable(json.dumps(content, ensure_ascii=False), "the draft")

    def work(connection: Connection) -> None:
        _own(connection, assignment_id, rater_id)
        row = {"content": dict(content), "saved_at": now}
        put = upsert(connection, draft).values(assignment=assignment_id, **row)
        connection.execute(put.on_conflict_do_update(index_elements=["assignment"], set_=row))

    store.write(work)


def _own(connection: Connection, assignment_id: str, rater_id: str) -> Any:
    held = connection.execute(
        select(assignment).where(assignment.c.id == assignment_id, assignment.c.rater == rater_id).with_for_update()
    ).first()
    if held is None:
        raise AccessError(f'assignment "{assignment_id}": not one of rater "{rater_id}"')
    return held


def _next_item(
    connection: Connection, project_id: str, rater_id: str, tried: Standing, held: int, now: float
) -> RowMapping | None:
    """In the quiz a gold item; after it now and then one, if there is one left; else the next open one."""
    if not tried.passed:
        known = _next_open(connection, project_id, rater_id, now, gold=True)
        if known is None and ask_skipped_again(connection, project_id, rater_id):
            known = _next_open(connection, project_id, rater_id, now, gold=True)
        return known
    if tried.gold_every:
        of_project = (judgment.c.project == project_id, judgment.c.rater == rater_id)
        judged = connection.execute(select(func.count(distinct(judgment.c.item))).where(*of_project)).scalar_one()
        if (judged + held + 1) % tried.gold_every == 0:
            known = _next_open(connection, project_id, rater_id, now, gold=True)
            if known is not None:
                return known
    return _next_open(connection, project_id, rater_id, now, gold=False)


_RELEASE: Final = (
    update(assignment)
    .where(
        assignment.c.rater == bindparam("whose"),
        assignment.c.state == "live",
        assignment.c.lease_until <= bindparam("now"),
    )
    .values(state="released")
)


def _release_expired(connection: Connection, rater_id: str, now: float) -> None:
    connection.execute(_RELEASE, {"whose": rater_id, "now": now})


_LOCK_ITEM: Final = select(item.c.id).where(item.c.id == bindparam("item")).with_for_update(key_share=True)


def lock_item(connection: Connection, item_id: str) -> None:
    """Until the transaction ends nobody else counts or changes this item. SQLite has locked everything already."""
    if connection.dialect.name == "postgresql":
        connection.execute(_LOCK_ITEM, {"item": item_id})


def _open_items(*, gold: bool) -> Select[Any]:
    """The first item of a project that is open to a rater."""
    mine = select(assignment.c.id).where(
        assignment.c.item == item.c.id, assignment.c.rater == bindparam("rater"), assignment.c.state != "released"
    )
    live = and_(
        assignment.c.item == item.c.id, assignment.c.state == "live", assignment.c.lease_until > bindparam("now")
    )
    in_hand = select(func.count()).select_from(assignment).where(live).scalar_subquery()
    return (
        select(item)
        .where(
            item.c.project == bindparam("project"),
            item.c.gold.is_not(None) if gold else item.c.gold.is_(None),
            item.c.submitted < item.c.overlap,
            ~mine.exists(),
            item.c.submitted + in_hand < item.c.overlap,
        )
        .order_by(item.c.priority.desc(), item.c.position)
        .limit(1)
        .with_for_update(skip_locked=True, of=item, key_share=True)
    )


_OPEN_GOLD: Final = _open_items(gold=True)

_OPEN: Final = _open_items(gold=False)


def _next_open(connection: Connection, project_id: str, rater_id: str, now: float, *, gold: bool) -> RowMapping | None:
    """The first open item that no other claim is looking at, counted again once it is ours alone.

    Where others look at all that are open, their turn is waited for: "nothing left" has to be true.
    """
    query, asked = _OPEN_GOLD if gold else _OPEN, {"project": project_id, "rater": rater_id, "now": now}
    while True:
        found = connection.execute(query, asked).first()
        if found is None and connection.dialect.name == "postgresql":
            found = connection.execute(query.with_for_update(of=item, key_share=True), asked).first()
        if found is None:
            return None
        if has_room(connection, found.id, None, now):
            return found._mapping
        query = query.where(item.c.id != found.id)


_IN_HAND: Final = (
    select(func.count())
    .select_from(assignment)
    .where(
        assignment.c.item == bindparam("item"),
        assignment.c.state == "live",
        assignment.c.lease_until > bindparam("now"),
        assignment.c.id != bindparam("but"),
    )
    .scalar_subquery()
)

_ROOM: Final = select(item.c.overlap - item.c.submitted - _IN_HAND).where(item.c.id == bindparam("item"))


def has_room(connection: Connection, item_id: str, but: str | None, now: float) -> bool:
    """Whether the item wants another rater than those who have judged it or have it in hand, `but` apart."""
    return int(connection.execute(_ROOM, {"item": item_id, "but": but or "", "now": now}).scalar_one()) > 0


_NEWEST_INSTRUCTIONS: Final = (
    select(instructions.c.id)
    .where(instructions.c.project == bindparam("project"))
    .order_by(instructions.c.version.desc())
    .limit(1)
)

_ADD_ASSIGNMENT: Final = insert(assignment)


def _assign(
    connection: Connection,
    chosen: RowMapping,
    project_id: str,
    rater_id: str,
    now: float,
    *,
    until: float,
    quiz: bool,
) -> Assignment:
    shown = list(chosen["completions"])
    random.Random(f"{chosen['id']} {rater_id}").shuffle(shown)
    newest = connection.execute(_NEWEST_INSTRUCTIONS, {"project": project_id}).scalar()
    row = {
        "id": str(uuid.uuid4()),
        "item": chosen["id"],
        "rater": rater_id,
        "state": "live",
        "lease_until": until,
        "shown_order": shown,
        "instructions": newest,
        "created_at": now,
    }
    connection.execute(_ADD_ASSIGNMENT, row)
    return _assignment(row, quiz=quiz)


def _assignment(row: Mapping[str, Any] | RowMapping, *, quiz: bool) -> Assignment:
    return Assignment(
        id=row["id"],
        item=row["item"],
        rater=row["rater"],
        lease_until=row["lease_until"],
        shown_order=tuple(row["shown_order"]),
        instructions=row["instructions"],
        quiz=quiz,
    )


_LAST_SECONDS: Final = (
    select(judgment.c.seconds)
    .where(judgment.c.rater == bindparam("rater"), judgment.c.seconds.is_not(None))
    .order_by(judgment.c.created_at.desc())
    .limit(RECENT)
)


def _lease(connection: Connection, rater_id: str) -> float:
    """Seconds: ten minutes, and for a slow reader three times the median of their last judgments, an hour at most."""
    times = connection.execute(_LAST_SECONDS, {"rater": rater_id}).scalars()
    recent = sorted(times)
    median = recent[len(recent) // 2] if len(recent) >= SOME else 0.0
    return min(max(LEASE_SECONDS, LEASE_OF_MEDIAN * median), LONGEST_LEASE)
