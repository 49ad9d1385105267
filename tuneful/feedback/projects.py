"""Projects of the store: what is asked (instructions), about what (items), and of whom (raters)."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Connection, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from tuneful.errors import StoreError
from tuneful.feedback.store import Store
from tuneful.feedback.tables import completion, instructions, item, judgment, membership, project, prompt, rater
from tuneful.records import Candidates, Judgment, JudgmentKind, RaterKind, content_hash

Role = Literal["lead", "labeler"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """items: in all; done: with as many judgments as were asked for; wanted, have: judgments of all items."""

    items: int
    done: int
    wanted: int
    have: int


def create_project(
    store: Store, name: str, kind: JudgmentKind = "ranking", *, criteria: Sequence[str] = ("preference",), now: float
) -> str:
    """A new project's id. Raises StoreError when the name is taken."""

    def work(connection: Connection) -> str:
        if connection.execute(select(project.c.id).where(project.c.name == name)).first():
            raise StoreError(f'project "{name}": there is one of that name; choose another')
        made = str(uuid.uuid4())
        row = {"id": made, "name": name, "kind": kind, "criteria": list(criteria), "created_at": now}
        connection.execute(insert(project).values(**row))
        return made

    return store.write(work)


def publish_instructions(store: Store, project_id: str, text: str, *, now: float) -> str:
    """The id of a new version of the instructions, or of the newest when it says the same. Older ones stay."""

    def work(connection: Connection) -> str:
        digest = content_hash("instructions", text)
        newest = connection.execute(
            select(instructions)
            .where(instructions.c.project == project_id)
            .order_by(instructions.c.version.desc())
            .limit(1)
        ).first()
        if newest is not None and newest.hash == digest:
            return str(newest.id)
        made, version = str(uuid.uuid4()), 1 if newest is None else newest.version + 1
        row = {"id": made, "project": project_id, "version": version, "text": text, "hash": digest, "created_at": now}
        connection.execute(insert(instructions).values(**row))
        return made

    return store.write(work)


def add_rater(
    store: Store, project_id: str, *, kind: RaterKind = "human", role: Role = "labeler", name: str = "", now: float
) -> str:
    """The id, a pseudonym, of a new rater of the project."""

    def work(connection: Connection) -> str:
        made = str(uuid.uuid4())
        row: dict[str, Any] = {"id": made, "kind": kind, "name": name or None, "groups": [], "created_at": now}
        connection.execute(insert(rater).values(**row))
        connection.execute(insert(membership).values(project=project_id, rater=made, role=role, created_at=now))
        return made

    return store.write(work)


def add_items(
    store: Store, project_id: str, candidates: Sequence[Candidates], *, overlap: int, priority: int = 0, now: float
) -> list[str]:
    """Ids of new items, one for each prompt with its completions, to be judged by `overlap` raters each.

    All of them or none. An item that is there already, with the same completions, is left as it is.
    """

    def work(connection: Connection) -> list[str]:
        insert_new = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        first = connection.execute(
            select(func.coalesce(func.max(item.c.position) + 1, 0)).where(item.c.project == project_id)
        ).scalar_one()
        made: list[str] = []
        for place, given in enumerate(candidates):
            shared: dict[str, Any] = {"project": project_id, "created_at": now}
            asked = given.prompt.id
            prompt_row = {"id": asked, "content": given.prompt.as_json()} | shared
            connection.execute(insert_new(prompt).values(**prompt_row).on_conflict_do_nothing())
            answers = [
                {"id": content_hash(project_id, asked, one.id, one.text), "prompt": asked, "text": one.text}
                | {"model": one.model, "settings": {}}
                | shared
                for one in given.completions
            ]
            connection.execute(insert_new(completion).values(answers).on_conflict_do_nothing())
            ids = [answer["id"] for answer in answers]
            of_item = {"id": content_hash("item", project_id, asked, ids), "prompt": asked, "completions": ids}
            of_item |= {"overlap": overlap, "priority": priority, "position": first + place} | shared
            connection.execute(insert_new(item).values(**of_item).on_conflict_do_nothing())
            made.append(str(of_item["id"]))
        return made

    return store.write(work)


def progress(store: Store, project_id: str) -> Progress:
    with store.read() as connection:
        done = func.count().filter(item.c.submitted == item.c.overlap)
        counts = select(
            func.count(),
            done,
            func.coalesce(func.sum(item.c.overlap), 0),
            func.coalesce(func.sum(item.c.submitted), 0),
        ).where(item.c.project == project_id)
        items, finished, wanted, have = connection.execute(counts).one()
    return Progress(items=items, done=finished, wanted=wanted, have=have)


def judgments(store: Store, project_id: str, *, surplus: bool = True) -> list[Judgment]:
    """The latest revision of every judgment of a project, oldest first, as files have them.

    surplus: with those that came after an item had all that were asked for.
    """
    later = judgment.alias()
    query = (
        select(judgment, item.c.prompt, item.c.completions, rater.c.kind.label("rater_kind"), project.c.kind)
        .join(item, item.c.id == judgment.c.item)
        .join(rater, rater.c.id == judgment.c.rater)
        .join(project, project.c.id == judgment.c.project)
        .where(judgment.c.project == project_id, ~select(later.c.id).where(later.c.replaces == judgment.c.id).exists())
        .order_by(judgment.c.created_at, judgment.c.id)
    )
    if not surplus:
        query = query.where(judgment.c.counted)
    with store.read() as connection:
        rows = connection.execute(query).mappings().all()
    return [
        Judgment(
            id=row["id"],
            item=row["item"],
            prompt=row["prompt"],
            completions=tuple(row["completions"]),
            rater=row["rater"],
            rater_kind=row["rater_kind"],
            kind=row["kind"],
            ranks=tuple(row["ranks"]),
            flags={name: tuple(flags) for name, flags in row["flags"].items()},
            values=row["values"],
            criterion=row["criterion"],
            shown_order=tuple(row["shown_order"]),
            instructions=row["instructions"] or "",
            seconds=row["seconds"],
            created_at=datetime.fromtimestamp(row["created_at"], UTC).isoformat(timespec="milliseconds"),
            replaces=row["replaces"],
        )
        for row in rows
    ]
