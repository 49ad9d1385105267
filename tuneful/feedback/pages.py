"""What pages show, each read from one snapshot of the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import and_, bindparam, distinct, func, or_, select

from tuneful.errors import AccessError
from tuneful.feedback.assignment import Assignment
from tuneful.feedback.projects import Project, project_from_row
from tuneful.feedback.store import Store
from tuneful.feedback.tables import (
    account,
    assignment,
    completion,
    draft,
    instructions,
    item,
    judgment,
    membership,
    project,
    prompt,
    rater,
)
from tuneful.records import Message, Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """An item as a labeler sees it: answers as (completion id, text) in the assignment's order, and no model's name."""

    criterion: str
    prompt: tuple[Message, ...]
    answers: tuple[tuple[str, str], ...]
    draft: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Guide:
    """A version of a project's instructions, and the text of the one before it."""

    id: str
    version: int
    text: str
    previous: str | None
    published_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Labeler:
    """A member of a project for its lead: a pseudonym, a name if they gave one (of a lead, else the login), and what
    they have done."""

    rater: str
    kind: str
    role: str
    name: str | None
    judged: int
    skipped: int


# What every labeler asks for again and again is built once, as in `assignment`.
_PROMPT: Final = (
    select(prompt.c.content, project.c.criteria)
    .join(item, (item.c.prompt == prompt.c.id) & (item.c.project == prompt.c.project))
    .join(project, project.c.id == item.c.project)
    .where(item.c.id == bindparam("item"))
)

_ANSWERS: Final = select(completion.c.id, completion.c.text).where(
    completion.c.id.in_(bindparam("answers", expanding=True))
)

# By item, for an assignment that was released and claimed anew goes on with what the rater had.
_DRAFT: Final = (
    select(draft.c.content)
    .join(assignment, assignment.c.id == draft.c.assignment)
    .where(assignment.c.item == bindparam("item"), assignment.c.rater == bindparam("rater"))
    .order_by(draft.c.saved_at.desc())
)


def show(store: Store, given: Assignment) -> Shown:
    with store.read() as connection:
        about = connection.execute(_PROMPT, {"item": given.item}).one()
        rows = connection.execute(_ANSWERS, {"answers": given.shown_order}).all()
        kept = connection.execute(_DRAFT, {"item": given.item, "rater": given.rater}).scalar()
    texts = {row.id: row.text for row in rows}
    asked = Prompt.from_json(about.content).content
    turns = (Message("user", asked),) if isinstance(asked, str) else asked
    answers = tuple((one, texts[one]) for one in given.shown_order)
    return Shown(criterion=about.criteria[0], prompt=turns, answers=answers, draft=kept)


_ASKED: Final = (
    select(project, item.c.completions)
    .join(item, item.c.project == project.c.id)
    .join(assignment, assignment.c.item == item.c.id)
    .where(assignment.c.id == bindparam("assignment"), assignment.c.rater == bindparam("rater"))
)


def asked_of(store: Store, assignment_id: str, rater_id: str) -> tuple[Project, list[str]]:
    """The project that an assignment belongs to, and the completions of its item in the order in which they are stored.

    Raises AccessError when it is not the rater's.
    """
    with store.read() as connection:
        row = connection.execute(_ASKED, {"assignment": assignment_id, "rater": rater_id}).first()
    if row is None:
        raise AccessError(f'assignment "{assignment_id}": not one of rater "{rater_id}"')
    return project_from_row(row._mapping), list(row.completions)


def guides(store: Store, project_id: str) -> list[Guide]:
    """Every version of a project's instructions, oldest first."""
    with store.read() as connection:
        rows = connection.execute(
            select(instructions).where(instructions.c.project == project_id).order_by(instructions.c.version)
        ).all()
    before = [None, *(row.text for row in rows)]
    return [
        Guide(id=row.id, version=row.version, text=row.text, previous=previous, published_at=row.created_at)
        for row, previous in zip(rows, before, strict=False)
    ]


def guide(store: Store, project_id: str) -> Guide | None:
    """The newest instructions; None when there are none yet."""
    return next(reversed(guides(store, project_id)), None)


def groups_of(store: Store, project_id: str) -> dict[str, list[str]]:
    """What those who are in a project, or judged in it, say of themselves, by rater. A group that people write in small
    and in large letters is one, as most of them write it."""
    belong = select(membership.c.rater).where(membership.c.project == project_id)
    judged = select(judgment.c.rater).where(judgment.c.project == project_id)
    with store.read() as connection:
        rows = connection.execute(
            select(rater.c.id, rater.c.groups).where(or_(rater.c.id.in_(belong), rater.c.id.in_(judged)))
        ).all()
    spellings: dict[str, Counter[str]] = {}
    for name in (name for row in rows for name in row.groups):
        spellings.setdefault(name.casefold(), Counter())[name] += 1
    usual = {key: min(found, key=lambda name: (-found[name], name)) for key, found in spellings.items()}
    return {row.id: list(dict.fromkeys(usual[name.casefold()] for name in row.groups)) for row in rows}


_JUDGED: Final = select(func.count(distinct(judgment.c.item))).where(
    judgment.c.project == bindparam("project"), judgment.c.rater == bindparam("rater"), ~judgment.c.quiz
)


def judged_by(store: Store, project_id: str, rater_id: str) -> int:
    """Items that a rater has judged, revisions not counted."""
    with store.read() as connection:
        return int(connection.execute(_JUDGED, {"project": project_id, "rater": rater_id}).scalar_one())


def judged_everywhere(store: Store, rater_id: str) -> dict[str, int]:
    """`judged_by` of every project in which the rater has judged anything, by project."""
    counted = select(judgment.c.project, func.count(distinct(judgment.c.item)).label("num"))
    mine = (judgment.c.rater == rater_id, ~judgment.c.quiz)
    with store.read() as connection:
        rows = connection.execute(counted.where(*mine).group_by(judgment.c.project))
        return {row.project: row.num for row in rows}


def labelers(store: Store, project_id: str) -> list[Labeler]:
    """The members of a project, in the order in which they came, and behind them those who judged and were removed."""
    judged = (
        select(judgment.c.rater, func.count(distinct(judgment.c.item)).label("judged"))
        .where(judgment.c.project == project_id, ~judgment.c.quiz)
        .group_by(judgment.c.rater)
        .subquery()
    )
    skipped = (
        select(assignment.c.rater, func.count().label("skipped"))
        .join(item, item.c.id == assignment.c.item)
        .where(item.c.project == project_id, assignment.c.state == "skipped")
        .group_by(assignment.c.rater)
        .subquery()
    )
    with store.read() as connection:
        rows = connection.execute(
            select(rater, account.c.login, membership.c.role, judged.c.judged, skipped.c.skipped)
            .outerjoin(membership, and_(membership.c.rater == rater.c.id, membership.c.project == project_id))
            .outerjoin(account, account.c.rater == rater.c.id)
            .outerjoin(judged, judged.c.rater == rater.c.id)
            .outerjoin(skipped, skipped.c.rater == rater.c.id)
            .where(or_(membership.c.role.is_not(None), judged.c.judged.is_not(None)))
            .order_by(membership.c.role.is_(None), membership.c.created_at, rater.c.id)
        ).all()
    return [
        Labeler(
            rater=row.id,
            kind=row.kind,
            role=row.role or "removed",
            name=row.name or (row.login if row.role == "lead" else None),
            judged=row.judged or 0,
            skipped=row.skipped or 0,
        )
        for row in rows
    ]


def names_of(store: Store, project_id: str, rater_ids: Collection[str]) -> dict[str, str]:
    """What each rater is called on a project's pages: the name, a lead's or admin's login, the beginning of the id."""
    leads = (membership.c.project == project_id) & (membership.c.role == "lead")
    asked = (
        select(rater.c.id, rater.c.name, account.c.login, account.c.admin, membership.c.role)
        .outerjoin(account, account.c.rater == rater.c.id)
        .outerjoin(membership, (membership.c.rater == rater.c.id) & leads)
        .where(rater.c.id.in_(rater_ids))
    )
    with store.read() as connection:
        rows = connection.execute(asked).all()
    return {row.id: row.name or (row.login if row.admin or row.role else None) or row.id[:8] for row in rows}


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """What a labeler told the lead beside a judgment, or why they skipped an item."""

    rater: str
    prompt: str
    text: str
    skipped: bool


def remarks(store: Store, project_id: str, *, last: int = 30) -> list[Remark]:
    """The newest notes and reasons of a project."""
    asked = (prompt, (prompt.c.id == item.c.prompt) & (prompt.c.project == item.c.project))
    notes = (
        select(judgment.c.rater, prompt.c.content, judgment.c.note, judgment.c.created_at)
        .join(item, item.c.id == judgment.c.item)
        .join(*asked)
        .where(judgment.c.project == project_id, judgment.c.note != "")
        .order_by(judgment.c.created_at.desc())
    )
    skips = (
        select(assignment.c.rater, prompt.c.content, assignment.c.reason, assignment.c.created_at)
        .join(item, item.c.id == assignment.c.item)
        .join(*asked)
        .where(item.c.project == project_id, assignment.c.state == "skipped", assignment.c.reason != "")
        .order_by(assignment.c.created_at.desc())
    )
    with store.read() as connection:
        rows = [
            (row[3], Remark(rater=row[0], prompt=Prompt.from_json(row[1]).text, text=row[2], skipped=query is skips))
            for query in (notes, skips)
            for row in connection.execute(query.limit(last))
        ]
    return [remark for _, remark in sorted(rows, key=lambda row: -row[0])[:last]]


def prompts_of(store: Store, item_ids: Collection[str]) -> dict[str, str]:
    """The prompt of each item, as people read it."""
    asked = (
        select(item.c.id, prompt.c.content)
        .join(prompt, (prompt.c.id == item.c.prompt) & (prompt.c.project == item.c.project))
        .where(item.c.id.in_(item_ids))
    )
    with store.read() as connection:
        return {row.id: Prompt.from_json(row.content).text for row in connection.execute(asked)}


def judged_at(store: Store, project_id: str) -> list[float]:
    """When each judgment of a project was given, oldest first: those that count, without revisions and known items."""
    first = (judgment.c.counted, judgment.c.replaces.is_(None), item.c.gold.is_(None))
    asked = select(judgment.c.created_at).join(item, item.c.id == judgment.c.item)
    with store.read() as connection:
        found = asked.where(judgment.c.project == project_id, *first).order_by(judgment.c.created_at)
        return list(connection.execute(found).scalars())
