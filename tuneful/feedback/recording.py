"""Judgments that were made elsewhere, put into a project of the store: files of other tools, simulated raters."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Final

from sqlalchemy import Connection, distinct, func, insert, select, update

from tuneful.errors import StoreError
from tuneful.feedback import trail
from tuneful.feedback.assignment import lock_item
from tuneful.feedback.items import EVERYBODY, Stored, next_position, put_item, require_storable_items
from tuneful.feedback.judgments import seconds_of
from tuneful.feedback.matchups import keep_unless_known
from tuneful.feedback.projects import Role, project_named, put_project
from tuneful.feedback.recorded_decisions import Place, id_here, record_decisions
from tuneful.feedback.settling import Decision
from tuneful.feedback.store import Store, require_storable, upsert
from tuneful.feedback.submission import ORDERED
from tuneful.feedback.tables import account, item, judgment, membership, project, rater
from tuneful.records import Candidates, Judgment, JudgmentKind, RaterKind, content_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """judgments, items, raters, decisions: how many were new. left_out: a line for each decision that was not taken."""

    judgments: int
    items: int
    raters: int
    decisions: int = 0
    left_out: tuple[str, ...] = ()


def record(
    store: Store,
    project_id: str,
    candidates: Sequence[Candidates],
    judgments: Sequence[Judgment],
    *,
    room: int = 0,
    by: str | None = None,
    now: float,
) -> Recorded:
    """Put judgments into a project, with the prompts and completions they are about; all of them or none.

    Ids stay what they are in the file, unless they mean something else here (`id_here`, `_rater`). What was recorded
    before is not recorded twice. An item wants as many raters as have judged it, models apart, and `room` more.

    Raises StoreError for a judgment of completions that `candidates` lack, of another kind or criterion than the
    project's, at a time that is none, or with an id that means another judgment of the project.
    """
    offered = _offered(candidates, judgments)
    return store.write(
        lambda connection: _record(connection, project_id, offered, judgments, room=room, by=by, now=now), alone=True
    )


def record_in_named(
    store: Store,
    name: str,
    candidates: Sequence[Candidates],
    judgments: Sequence[Judgment],
    decided: Sequence[Decision] = (),
    *,
    by: str | None = None,
    now: float,
) -> dict[str, Recorded]:
    """`record` into the project of this name, which is made when it is not there; what was new, by project.

    Judgments of several questions go into a project each, "NAME (ranking by helpful)". All of it is done or nothing.
    decided: what was settled of the items (feedback.recorded_decisions).
    """
    offered = _offered(candidates, judgments)
    asked: dict[tuple[JudgmentKind, str], list[Judgment]] = {}
    for said in judgments:
        asked.setdefault((said.kind, said.criterion), []).append(said)

    def work(connection: Connection) -> dict[str, Recorded]:
        made = {}
        for (kind, criterion), alike in asked.items():
            called = name if len(asked) == 1 else f"{name} ({kind} by {criterion})"
            known = project_named(connection, called)
            into = known or put_project(connection, called, kind, (criterion,), by=by, now=now)
            mine = [one for one in decided if one.criterion == criterion and bool(one.ranks) == (kind in ORDERED)]
            made[called] = _record(connection, into, offered, alike, mine, room=0, by=by, now=now)
        return made

    return store.write(work, alone=True)


_Offered = Mapping[tuple[str, ...], Candidates]

_UNIQUE: Final = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{16}")
"""Ids that the store gives to raters: a UUID, or a hash that the id of a project went into."""


def _offered(candidates: Sequence[Candidates], judgments: Sequence[Judgment]) -> _Offered:
    """The candidates by what judgments name. Raises StoreError for a judgment of others."""
    require_storable_items(candidates)
    offered = {_key(one.prompt.id, (c.id for c in one.completions)): one for one in candidates}
    for said in judgments:
        for text in (said.text, said.note):
            require_storable(text, f'judgment "{said.id}"')
        if _key(said.prompt, said.completions) not in offered:
            raise StoreError(f'judgment "{said.id}": its completions are no item of the file they came with')
    return offered


def _record(
    connection: Connection,
    project_id: str,
    offered: _Offered,
    judgments: Sequence[Judgment],
    decided: Sequence[Decision] = (),
    *,
    room: int,
    by: str | None,
    now: float,
) -> Recorded:
    _require_project(connection, project_id, judgments)
    # Where a file tells no times its order is kept, a microsecond apart.
    times = {said.id: _time(said, now + place * 1e-6) for place, said in enumerate(judgments)}
    place, items, raters, new = next_position(connection, project_id), 0, 0, 0
    seen, places = Counter[str](), dict[str, Place]()
    for about in _by_item(judgments):
        given = offered[_key(about[0].prompt, about[0].completions)]
        row = {"overlap": EVERYBODY, "position": place + items}
        stored = put_item(connection, project_id, given, row, wanted=about[0].item, keep_ids=True, now=now)
        items += stored.is_new
        keep_unless_known(connection, project_id, given, stored.id, stored.completions, seen, now=now)
        ids = _in_stored_order(connection, stored, given)
        places[about[0].item] = Place(stored.id, ids)
        for said in about:
            who, came = _rater(connection, project_id, said.rater, said.rater_kind, "labeler", now)
            raters += came
            new += _judgment(connection, project_id, stored.id, who, said, ids, times[said.id])
        _count(connection, stored.id, room, is_new=stored.is_new)
    if new:
        counts = {"judgments": new, "items": items, "raters": raters}
        trail.add(connection, "judgments recorded", project=project_id, rater=by, about=counts, now=now)

    def lead(name: str) -> str:
        return _rater(connection, project_id, name, "human", "lead", now)[0]

    def at(one: Decision) -> float:
        return _time(one, now, "decision")

    settled, left_out = record_decisions(connection, project_id, decided, places, lead, at, by=by, now=now)
    return Recorded(judgments=new, items=items, raters=raters, decisions=settled, left_out=tuple(left_out))


def _in_stored_order(connection: Connection, stored: Stored, given: Candidates) -> dict[str, str]:
    """Stored id of each completion by its id in the file, in the order of the item, which may have come in another."""
    named = dict(zip(stored.completions, (one.id for one in given.completions), strict=True))
    kept = select(item.c.completions).where(item.c.id == stored.id)
    order = stored.completions if stored.is_new else connection.scalars(kept).one()
    return {named[one]: one for one in order}


def _key(prompt_id: str, completions: Iterable[str]) -> tuple[str, ...]:
    return (prompt_id, *sorted(completions))


def _require_project(connection: Connection, project_id: str, judgments: Sequence[Judgment]) -> None:
    """All of the project's kind and criterion: a consensus is of one question."""
    asks = connection.execute(select(project.c.kind, project.c.criteria).where(project.c.id == project_id)).one()
    for said in judgments:
        if said.kind != asks.kind or said.criterion not in asks.criteria:
            raise StoreError(
                f'judgment "{said.id}": a {said.kind} by "{said.criterion}", and the project asks for a {asks.kind} by '
                f'"{asks.criteria[0]}"; take another project'
            )


def _count(connection: Connection, item_id: str, room: int, *, is_new: bool) -> None:
    """The item's judgments that count, and at least so many raters wanted; of a new item as many, and `room` more, and
    one where only models have judged it."""
    lock_item(connection, item_id)
    of_item = (judgment.c.item == item_id, judgment.c.counted)
    count = connection.execute(select(func.count(distinct(judgment.c.rater))).where(*of_item)).scalar_one()
    wanted = connection.execute(select(item.c.overlap).where(item.c.id == item_id)).scalar_one()
    overlap = max(count + room, 1) if is_new else max(count, wanted)
    connection.execute(update(item).where(item.c.id == item_id).values(overlap=overlap, submitted=count))


def _by_item(judgments: Iterable[Judgment]) -> list[list[Judgment]]:
    """Judgments of each item, in order of appearance, those that are revised before their revisions.

    Raises StoreError for one item of different completions, and revisions of each other.
    """
    found: dict[str, list[Judgment]] = {}
    for said in judgments:
        found.setdefault(said.item, []).append(said)
    for about in found.values():
        for said in about:
            if set(said.completions) != set(about[0].completions):
                raise StoreError(f'judgment "{said.id}": other completions than "{about[0].id}" of the same item')
    return [_earlier_first(about) for about in found.values()]


def _earlier_first(about: list[Judgment]) -> list[Judgment]:
    here, ordered, written = {said.id for said in about}, list[Judgment](), set[str | None]()
    while len(ordered) < len(about):
        wave = [
            said for said in about if said.id not in written and (said.replaces in written or said.replaces not in here)
        ]
        if not wave:
            raise StoreError(f'judgment "{about[0].id}": it and others revise each other')
        ordered += wave
        written |= {said.id for said in wave}
    return ordered


def _rater(
    connection: Connection, project_id: str, name: str, kind: RaterKind, role: Role, now: float
) -> tuple[str, bool]:
    """The rater's id, and whether they are new to the project: the same as in the file, where that is safe.

    An id that only one rater in the world can have (`_UNIQUE`) is the same rater in all projects, so that whoever
    judged two of them is one person here too. Somebody else, under an id of the project's own, is whoever has
    - the id of a person with an account here, who would be given words, and a project to enter, by a file;
    - a name of another project that two may have, such as "label-studio-10", which every Label Studio calls somebody.
    """
    stand_in = content_hash("rater", project_id, name)
    for id_ in (name, stand_in):
        if _is_here(connection, project_id, id_):
            return id_, False
    known = select(rater.c.kind, account.c.login).outerjoin(account, account.c.rater == rater.c.id)
    found = connection.execute(known.where(rater.c.id == name)).first()
    same = found is not None and _UNIQUE.fullmatch(name) and found.kind == kind and found.login is None
    id_ = name if found is None or same else stand_in
    who: dict[str, Any] = {"id": id_, "kind": kind, "name": None, "groups": [], "created_at": now}
    connection.execute(upsert(connection, rater).on_conflict_do_nothing(), [who])
    row = {"project": project_id, "rater": id_, "role": role, "created_at": now}
    connection.execute(insert(membership).values(**row))
    return id_, True


def _is_here(connection: Connection, project_id: str, rater_id: str) -> bool:
    """Whether a rater belongs to the project, or did when they judged something that is in it."""
    return any(
        connection.execute(
            select(table.c.rater).where(table.c.project == project_id, table.c.rater == rater_id).limit(1)
        ).first()
        for table in (membership, judgment)
    )


def _judgment(
    connection: Connection,
    project_id: str,
    item_id: str,
    rater_id: str,
    said: Judgment,
    ids: Mapping[str, str],
    at: float,
) -> bool:
    """Whether it was new."""
    ranks = dict(zip(said.completions, said.ranks, strict=True)) if said.ranks else {}
    names = {**ids, **({f"{a}>{b}": f"{ids[a]}>{ids[b]}" for a, b in permutations(ids, 2)} if said.values else {})}
    row: dict[str, Any] = {
        "ranks": [ranks[one] for one in ids] if ranks else [],
        "flags": {ids[one]: list(flags) for one, flags in said.flags.items()},
        "values": {names.get(name, name): value for name, value in said.values.items()},
        "text": said.text,
        "item": item_id,
        "rater": rater_id,
    }
    id_ = id_here(connection, judgment, project_id, said.id)
    replaces = None if said.replaces is None else id_here(connection, judgment, project_id, said.replaces)
    stored = connection.execute(select(judgment).where(judgment.c.id == id_)).mappings().first()
    if stored is not None:
        if any(stored[name] != value for name, value in row.items()):
            raise StoreError(f'judgment "{said.id}": the id belongs to another one here; give this one a new id')
        return False
    row |= {"id": id_, "project": project_id, "assignment": None, "criterion": said.criterion}
    row |= {"counted": said.rater_kind != "ai"}
    row |= {
        "shown_order": [ids[one] for one in said.shown_order],
        "instructions": said.instructions or None,
        "seconds": said.seconds,
        "note": said.note,
    }
    row |= {"replaces": replaces, "created_at": at}
    if replaces is not None:
        earlier = select(judgment.c.id).where(judgment.c.id == replaces, judgment.c.rater == rater_id)
        if connection.execute(earlier).first() is None:
            raise StoreError(
                f'judgment "{said.id}": it revises "{said.replaces}", which is no earlier one of its rater'
            )
    connection.execute(insert(judgment).values(**row))
    return True


def _time(said: Judgment | Decision, now: float, what: str = "judgment") -> float:
    """When it was said; where the file does not tell, now."""
    try:
        return seconds_of(said.created_at) if said.created_at else now
    except ValueError as error:
        raise StoreError(f'{what} "{said.id}": created_at: {error}') from None
