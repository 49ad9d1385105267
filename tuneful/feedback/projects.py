"""Projects of the store: what is asked (instructions), about what (items), and of whom (raters)."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from sqlalchemy import Connection, bindparam, case, func, insert, or_, select, update

from tuneful.errors import MissingError, StoreError, did_you_mean
from tuneful.feedback import trail
from tuneful.feedback.gold import require_knowable
from tuneful.feedback.store import Store, require_name, require_storable
from tuneful.feedback.tables import account, event, instructions, item, judgment, membership, project, rater
from tuneful.records import Judgment, JudgmentKind, RaterKind, content_hash

Role = Literal["lead", "labeler"]

LONGEST_NAME: Final = 120
"""Characters of a project's name."""

LONGEST_INSTRUCTIONS: Final = 100_000
"""Characters; nobody reads more, and a page of several such versions takes browsers seconds to lay out."""

LONGEST_CRITERION: Final = 80
"""Characters of what is judged."""

MOST_OVERLAP: Final = 100
"""Raters that an item may be asked of in the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """One question asked about many items. quiz, pass_share, gold_every: see `set_quiz`; most_overlap, sure: see
    `set_overlap`."""

    id: str
    name: str
    kind: JudgmentKind
    criteria: tuple[str, ...]
    quiz: int
    pass_share: float
    gold_every: int
    most_overlap: int
    sure: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """items: in all; done: with as many judgments as are asked for now; wanted, have: judgments of all items; up_to:
    that may be wanted in the end, where an overlap adapts, else as many as wanted.

    Gold items have no part in it, nor have judgments of models.
    """

    items: int
    done: int
    wanted: int
    up_to: int
    have: int


def create_project(
    store: Store,
    name: str,
    kind: JudgmentKind = "ranking",
    *,
    criteria: Sequence[str] = ("preference",),
    by: str | None = None,
    now: float,
) -> str:
    """A new project's id. by, here and below: the rater who does it, for the trail; None for the command line.

    Raises StoreError when the name is taken, empty or longer than LONGEST_NAME characters, or a criterion is too long.
    """
    return store.write(lambda connection: put_project(connection, name, kind, criteria, by=by, now=now))


def put_project(
    connection: Connection, name: str, kind: JudgmentKind, criteria: Sequence[str], *, by: str | None, now: float
) -> str:
    """`create_project` within a transaction."""
    name = name.strip()
    if not name:
        raise StoreError("a project needs a name")
    require_name(name, "project name", longest=LONGEST_NAME)
    for criterion in criteria:
        require_name(criterion, "criterion", longest=LONGEST_CRITERION)
    if project_named(connection, name) is not None:
        raise StoreError(f'project "{name}": there is one of that name; choose another')
    made = str(uuid.uuid4())
    about = {"name": name, "kind": kind, "criteria": list(criteria)}
    connection.execute(insert(project).values(id=made, **about, created_at=now))
    trail.add(connection, "project made", project=made, rater=by, about=about, now=now)
    return made


def project_named(connection: Connection, name: str) -> str | None:
    """The id of the project of this name."""
    return connection.execute(select(project.c.id).where(project.c.name == name)).scalar()


def set_quiz(
    store: Store,
    project_id: str,
    *,
    quiz: int,
    pass_share: float = 0.7,
    gold_every: int = 0,
    by: str | None = None,
    now: float,
) -> None:
    """What labelers begin with, and how often they meet a known item later.

    quiz: gold items that a labeler begins with, to be told the answer after each and to get `pass_share` of it right.
    gold_every: afterwards one item in so many is a gold one, which the labeler cannot tell; 0: none.

    Raises StoreError for a quiz of more items than have a known answer, which nobody could pass, for a kind of project
    whose answers cannot be known, and for numbers that mean nothing.
    """
    row: dict[str, Any] = {"quiz": quiz, "pass_share": pass_share, "gold_every": gold_every}
    store.write(lambda connection: put_quiz(connection, project_id, row, by=by, now=now))


def put_quiz(connection: Connection, project_id: str, row: Mapping[str, Any], *, by: str | None, now: float) -> None:
    """`set_quiz` within a transaction; row: its three numbers."""
    quiz, gold_every = row["quiz"], row["gold_every"]
    if quiz < 0 or gold_every < 0 or gold_every == 1 or not 0 <= row["pass_share"] <= 1:
        told = ", ".join(f"{name} {value}" for name, value in row.items())
        raise StoreError(f"{told}: none below 0, a share up to 1")
    if quiz or gold_every:
        require_knowable(connection.execute(select(project.c.kind).where(project.c.id == project_id)).scalar_one())
    known = (item.c.project == project_id, item.c.gold.is_not(None))
    gold = connection.execute(select(func.count()).select_from(item).where(*known)).scalar_one()
    if quiz > gold:
        raise StoreError(f"a quiz of {quiz} items, and {gold} have a known answer; add some, or ask less")
    connection.execute(update(project).where(project.c.id == project_id).values(**row))
    trail.add(connection, "quiz set", project=project_id, rater=by, about=row, now=now)


def set_overlap(store: Store, project_id: str, *, most: int, sure: float, by: str | None = None, now: float) -> None:
    """How far the overlap of an item may grow while its order is unsure (feedback.adaptive).

    most: up to so many raters are asked, while less than the share `sure` of the item's pairs is expected to be in the
    right order; 0: as many as the item says. What was raised already stays.

    Raises StoreError as `require_overlap` does, and changes nothing then.
    """

    def work(connection: Connection) -> None:
        of_project = project.c.id == project_id
        asked = select(project.c.kind, project.c.most_overlap, project.c.sure).where(of_project)
        found = connection.execute(asked).one()
        require_overlap(found.kind, most, sure)
        if (found.most_overlap, found.sure) == (most, sure):
            return
        connection.execute(update(project).where(of_project).values(most_overlap=most, sure=sure))
        about = {"most": most, "sure": sure}
        trail.add(connection, "overlap set", project=project_id, rater=by, about=about, now=now)

    store.write(work)


def require_overlap(kind: JudgmentKind, most: int, sure: float) -> None:
    """StoreError for numbers that mean nothing, and where judgments order nothing that could be unsure."""
    if not 0 <= most <= MOST_OVERLAP:
        raise StoreError(f"most overlap {most}: a number of raters up to {MOST_OVERLAP}, or 0 for a fixed overlap")
    if not 0.5 < sure < 1:
        raise StoreError(f"sure {sure}: a share of pairs between 0.5, which is guessing, and 1, which is never reached")
    if most and kind not in ("ranking", "comparison"):
        raise StoreError(f"most overlap {most}: a {kind} orders nothing; an overlap adapts to rankings and comparisons")


def projects(store: Store) -> list[Project]:
    """All of them, oldest first."""
    with store.read() as connection:
        rows = connection.execute(select(project).order_by(project.c.created_at, project.c.id)).mappings().all()
    return [project_from_row(row) for row in rows]


_NAMED: Final = select(project).where(or_(project.c.id == bindparam("name"), project.c.name == bindparam("name")))


def find_project(store: Store, name_or_id: str) -> Project:
    """Raises MissingError, naming those there are, when there is none of that name or id."""
    with store.read() as connection:
        row = connection.execute(_NAMED, {"name": name_or_id}).mappings().first()
    if row is not None:
        return project_from_row(row)
    names = [one.name for one in projects(store)]
    known = did_you_mean(name_or_id, names) or "; there is none yet, make one with `tuneful label create`"
    raise MissingError(f'project "{name_or_id}": unknown{known}')


def project_from_row(row: Any) -> Project:
    names = (field.name for field in dataclasses.fields(Project))
    return Project(**{name: row[name] for name in names} | {"criteria": tuple(row["criteria"])})


def publish_instructions(
    store: Store, project_id: str, text: str, *, seen: int | None = None, by: str | None = None, now: float
) -> str:
    """The id of a new version of the instructions, or of the newest when it says the same. Older ones stay.

    seen: the version that the writer had before them, 0 for none; None where nobody looked. Raises StoreError when
    another one has been published since, so that of two leads who write at once neither takes back the other's words,
    and for a text of nothing but space, or of more than LONGEST_INSTRUCTIONS characters.
    """
    require_storable(text, "the instructions")
    if len(text) > LONGEST_INSTRUCTIONS:
        raise StoreError(f"instructions: {len(text):,} characters; give {LONGEST_INSTRUCTIONS:,} at most")
    if not text.strip():
        raise StoreError("instructions: there is no text in them; write what labelers are to look at")

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
        if newest is not None and seen not in (None, newest.version):
            raise StoreError(_published_since(connection, project_id, newest.version))
        made, version = str(uuid.uuid4()), 1 if newest is None else newest.version + 1
        row = {"id": made, "project": project_id, "version": version, "text": text, "hash": digest, "created_at": now}
        connection.execute(insert(instructions).values(**row))
        about = {"version": version, "hash": digest}
        trail.add(connection, "instructions published", project=project_id, rater=by, about=about, now=now)
        return made

    return store.write(work)


def _published_since(connection: Connection, project_id: str, version: int) -> str:
    wrote = select(event.c.rater, rater.c.name, account.c.login).where(
        event.c.project == project_id, event.c.what == "instructions published"
    )
    people = event.outerjoin(rater, rater.c.id == event.c.rater).outerjoin(account, account.c.rater == rater.c.id)
    last = connection.execute(wrote.select_from(people).order_by(event.c.number.desc()).limit(1)).first()
    who = "a command" if last is None or last.rater is None else last.name or last.login or last.rater[:8]
    return f"version {version} of the instructions was published a moment ago by {who}: look at it first"


def add_rater(
    store: Store,
    project_id: str,
    *,
    kind: RaterKind = "human",
    role: Role = "labeler",
    name: str = "",
    by: str | None = None,
    now: float,
) -> str:
    """The id, a pseudonym, of a new rater of the project."""

    def work(connection: Connection) -> str:
        made = str(uuid.uuid4())
        row: dict[str, Any] = {"id": made, "kind": kind, "name": name or None, "groups": [], "created_at": now}
        connection.execute(insert(rater).values(**row))
        _add_member(connection, project_id, made, role, by, now)
        return made

    return store.write(work)


def member_named(store: Store, project_id: str, name: str, *, kind: RaterKind, now: float) -> str:
    """The id of the member of this kind and name, a new one where there is none: a model that rates once more."""
    found = known_member(store, project_id, name, kind=kind)
    return found or add_rater(store, project_id, kind=kind, name=name, now=now)


def known_member(store: Store, project_id: str, name: str, *, kind: RaterKind) -> str | None:
    """The id of the member of this kind and name."""
    with store.read() as connection:
        return connection.execute(
            select(rater.c.id)
            .join(membership, membership.c.rater == rater.c.id)
            .where(membership.c.project == project_id, rater.c.kind == kind, rater.c.name == name)
        ).scalar()


def add_member(store: Store, project_id: str, rater_id: str, *, role: Role, by: str | None = None, now: float) -> None:
    """Somebody who is a rater elsewhere, in this project too."""
    store.write(lambda connection: _add_member(connection, project_id, rater_id, role, by, now))


def _add_member(connection: Connection, project_id: str, rater_id: str, role: Role, by: str | None, now: float) -> None:
    row = {"project": project_id, "rater": rater_id, "role": role, "created_at": now}
    connection.execute(insert(membership).values(**row))
    about = {"rater": rater_id, "role": role}
    trail.add(connection, "role given", project=project_id, rater=by, about=about, now=now)


def progress(store: Store, project_id: str) -> Progress:
    return progress_of(store, [project_id])[project_id]


def progress_of(store: Store, project_ids: Collection[str]) -> dict[str, Progress]:
    """How far projects are, counted in one pass over their items; one without items has nothing to do."""
    counts = (
        select(
            item.c.project,
            func.count().label("items"),
            func.sum(case((item.c.submitted == item.c.overlap, 1), else_=0)).label("done"),
            func.sum(item.c.overlap).label("wanted"),
            func.sum(
                case((item.c.overlap < project.c.most_overlap, project.c.most_overlap), else_=item.c.overlap)
            ).label("up_to"),
            func.sum(item.c.submitted).label("have"),
        )
        .join(project, project.c.id == item.c.project)
        .where(item.c.project.in_(project_ids), item.c.gold.is_(None))
        .group_by(item.c.project)
    )
    with store.read() as connection:
        rows = connection.execute(counts).mappings().all()
    found = {row["project"]: {name: int(row[name]) for name in row if name != "project"} for row in rows}
    nothing = dict.fromkeys(("items", "done", "wanted", "up_to", "have"), 0)
    return {one: Progress(**found.get(one, nothing)) for one in project_ids}


def judgments(store: Store, project_id: str, *, all_revisions: bool = False) -> list[Judgment]:
    """The latest revision of every judgment of a project, oldest first, as files have them; those of a quiz left out,
    and those of a gold item that is a copy of another item, which would weigh twice.
    """
    later = judgment.alias()
    query = (
        select(judgment, item.c.prompt, item.c.completions, rater.c.kind.label("rater_kind"), project.c.kind)
        .join(item, item.c.id == judgment.c.item)
        .join(rater, rater.c.id == judgment.c.rater)
        .join(project, project.c.id == judgment.c.project)
        .where(judgment.c.project == project_id, ~judgment.c.quiz, item.c.gold["copy_of"].as_string().is_(None))
        .order_by(judgment.c.created_at, judgment.c.id)
    )
    if not all_revisions:
        query = query.where(~select(later.c.id).where(later.c.replaces == judgment.c.id).exists())
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
            text=row["text"],
            criterion=row["criterion"],
            shown_order=tuple(row["shown_order"]),
            instructions=row["instructions"] or "",
            seconds=row["seconds"],
            created_at=datetime.fromtimestamp(row["created_at"], UTC).isoformat(timespec="milliseconds"),
            replaces=row["replaces"],
            note=row["note"],
        )
        for row in rows
    ]
