"""What leads decide in the store: the last word on an item, and gold items that are made of such items."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import Connection, insert, select, update

from tuneful.errors import MissingError, StoreError
from tuneful.feedback import trail
from tuneful.feedback.assignment import lock_item
from tuneful.feedback.items import EVERYBODY, next_position, put_item
from tuneful.feedback.settling import Decision
from tuneful.feedback.store import Store, require_storable
from tuneful.feedback.submission import LAST_RANK, ORDERED
from tuneful.feedback.tables import completion, decision, item, judgment, project, prompt
from tuneful.records import Candidates, Completion, Prompt, content_hash

_NONE: Final[Mapping[str, float]] = MappingProxyType({})


def decide(
    store: Store,
    item_id: str,
    *,
    by: str,
    ranks: Sequence[int] = (),
    values: Mapping[str, float] = _NONE,
    why: str = "",
    replaces: str | None = None,
    now: float,
) -> str:
    """The id of a new decision about an item that people have judged.

    replaces: the decision that stands; None where there is none, so that of two leads who decide at once one is told.

    Raises MissingError for an unknown item; StoreError for a gold item, one that nobody has judged, an answer that does
    not fit it, and a decision that another one has replaced.
    """
    require_storable(why, "the reason")

    def work(connection: Connection) -> str:
        asked = asked_by(connection, item_id)
        if asked["gold"] is not None:
            raise StoreError("a gold item's answer is known; change it there")
        if connection.execute(select(judgment.c.id).where(judgment.c.item == item_id).limit(1)).first() is None:
            raise StoreError("nobody has judged this item, so there is nothing to settle; label it yourself")
        require_answer(asked, ranks, values)
        stands = standing_of(connection, item_id)
        if stands != replaces:
            raise StoreError("the item was decided a moment ago; look at that decision first")
        made = str(uuid.uuid4())
        said = {"ranks": list(ranks), "values": dict(values), "why": why}
        row = {"id": made, "project": asked["project"], "item": item_id, "rater": by, "replaces": replaces}
        connection.execute(insert(decision).values(**row, **said, created_at=now))
        about = {"decision": made, "item": item_id, "hash": content_hash(said)}
        trail.add(connection, "item decided", project=asked["project"], rater=by, about=about, now=now)
        return made

    return store.write(work)


def decisions(store: Store, project_id: str) -> list[Decision]:
    """All decisions of a project, oldest first, also those that were replaced."""
    asked = (
        select(decision, item.c.prompt, item.c.completions, project.c.criteria)
        .join(item, item.c.id == decision.c.item)
        .join(project, project.c.id == decision.c.project)
        .where(decision.c.project == project_id)
        .order_by(decision.c.created_at, decision.c.id)
    )
    with store.read() as connection:
        rows = connection.execute(asked).mappings().all()
    return [
        Decision(
            id=row["id"],
            item=row["item"],
            prompt=row["prompt"],
            completions=tuple(row["completions"]),
            criterion=row["criteria"][0],
            rater=row["rater"],
            ranks=tuple(row["ranks"]),
            values=row["values"],
            why=row["why"],
            created_at=datetime.fromtimestamp(row["created_at"], UTC).isoformat(timespec="milliseconds"),
            replaces=row["replaces"],
        )
        for row in rows
    ]


def make_gold(store: Store, item_id: str, *, by: str, why: str, now: float) -> str:
    """The id of a new gold item, which asks what a decided one asks and has its decision as the known answer.

    It is a copy, and the item stays what it is. An item that people have judged cannot be made gold itself: it would
    drop out of the project's progress, they would be held to an answer that nobody knew when they judged, and, since
    nobody is asked the same item twice, they could never pass a quiz that counts it. What is said of the copy is in no
    consensus and no dataset (`projects.judgments`), for its pairs would weigh twice.

    why: what a labeler in the quiz is told. Raises MissingError for an unknown item; StoreError for one that is not
    decided or has such a copy already.
    """
    require_storable(why, "the reason")

    def work(connection: Connection) -> str:
        asked = asked_by(connection, item_id)
        said = connection.execute(select(decision).where(decision.c.id == standing_of(connection, item_id))).first()
        if said is None:
            raise StoreError("decide the item first; a gold item's answer is the decision")
        row = {"overlap": EVERYBODY, "priority": 0, "position": next_position(connection, asked["project"])}
        given = _candidates(connection, asked)
        wanted = gold_copy(item_id)
        stored = put_item(connection, asked["project"], given, row, wanted=wanted, now=now)
        if not stored.is_new or stored.id != wanted:
            raise StoreError("there is a gold item of it already; change its answer there")
        ids = dict(zip(asked["completions"], stored.completions, strict=True))
        values = {ids.get(name, name): value for name, value in said._mapping["values"].items()}
        _put_gold(connection, asked, wanted, {"ranks": said.ranks, "values": values, "why": why}, by, now, item_id)
        return wanted

    return store.write(work)


def gold_copy(item_id: str) -> str:
    """The id of the gold item that is, or would be, a copy of this one."""
    return content_hash("gold", item_id)


def mend_gold(
    store: Store,
    item_id: str,
    *,
    by: str,
    ranks: Sequence[int] = (),
    values: Mapping[str, float] = _NONE,
    why: str,
    now: float,
) -> None:
    """Another known answer of a gold item. Who has passed the quiz has passed it; results are counted by the new one.

    Raises MissingError for an unknown item; StoreError for one that is not gold, and an answer that does not fit.
    """
    require_storable(why, "the reason")

    def work(connection: Connection) -> None:
        asked = asked_by(connection, item_id)
        if asked["gold"] is None:
            raise StoreError("this is no gold item")
        require_answer(asked, ranks, values)
        known = {"ranks": list(ranks), "values": dict(values), "why": why}
        _put_gold(connection, asked, item_id, known, by, now, asked["gold"].get("copy_of"))

    store.write(work)


def _put_gold(
    connection: Connection,
    asked: Mapping[str, Any],
    item_id: str,
    known: Mapping[str, Any],
    by: str,
    now: float,
    copy_of: str | None,
) -> None:
    whole = dict(known) if copy_of is None else {**known, "copy_of": copy_of}
    connection.execute(update(item).where(item.c.id == item_id).values(gold=whole))
    about = {"item": item_id, "hash": content_hash(whole)}
    trail.add(connection, "gold answer set", project=asked["project"], rater=by, about=about, now=now)


def asked_by(connection: Connection, item_id: str) -> Mapping[str, Any]:
    """The item, which nobody else decides until the transaction ends, with what its project asks."""
    lock_item(connection, item_id)
    row = connection.execute(
        select(item.c.project, item.c.prompt, item.c.completions, item.c.gold, project.c.kind, project.c.criteria)
        .join(project, project.c.id == item.c.project)
        .where(item.c.id == item_id)
    ).first()
    if row is None:
        raise MissingError(f'item "{item_id}": unknown')
    return row._asdict()


def standing_of(connection: Connection, item_id: str) -> str | None:
    """The id of the decision that no other one replaces."""
    later = decision.alias()
    stands = ~select(later.c.id).where(later.c.replaces == decision.c.id).exists()
    return connection.execute(select(decision.c.id).where(decision.c.item == item_id, stands)).scalar()


def _candidates(connection: Connection, asked: Mapping[str, Any]) -> Candidates:
    content = connection.execute(
        select(prompt.c.content).where(prompt.c.id == asked["prompt"], prompt.c.project == asked["project"])
    ).scalar_one()
    rows = connection.execute(select(completion).where(completion.c.id.in_(asked["completions"]))).all()
    texts = {row.id: Completion(row.text, model=row.model, id=row.id) for row in rows}
    return Candidates(Prompt.from_json(content), tuple(texts[one] for one in asked["completions"]))


def require_answer(asked: Mapping[str, Any], ranks: Sequence[int], values: Mapping[str, float]) -> None:
    """StoreError unless it says everything that the item asks, and nothing else."""
    kind, names, criterion = asked["kind"], asked["completions"], asked["criteria"][0]
    if kind == "demonstration":
        raise StoreError("demonstrations are written, not decided")
    if kind in ORDERED:
        if len(ranks) != len(names) or values:
            raise StoreError(f"{len(ranks)} ranks for {len(names)} answers; give one to each, equal ones for a tie")
        if not all(1 <= rank <= LAST_RANK for rank in ranks):
            raise StoreError(f"a rank is a number from 1 (best) to {LAST_RANK}")
        return
    wanted = [criterion] if kind == "binary" else names
    if sorted(values) != sorted(wanted) or ranks:
        raise StoreError(f"give one number to each of {len(wanted)}: {', '.join(wanted)}")
    if not all(math.isfinite(value) for value in values.values()):
        raise StoreError("a value is a finite number")
    if kind == "binary" and values[criterion] not in (0, 1):
        raise StoreError("the value of a 0/1 item is 0 or 1")
