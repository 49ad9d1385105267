"""The quiz: known items that a labeler begins with, and what is enough to pass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, Connection, bindparam, func, select, update

from tuneful.errors import AccessError
from tuneful.feedback.gold import UNKNOWABLE, Gold, share_right
from tuneful.feedback.items import MANY, put_gold
from tuneful.feedback.projects import put_quiz
from tuneful.feedback.store import Store
from tuneful.feedback.tables import assignment, item, judgment, membership, project, rater


@dataclass(frozen=True, slots=True)
class Standing:
    """What a project asks of its labelers, and whether this one has passed its quiz or has none to pass, as a lead and
    a model."""

    quiz: int
    pass_share: float
    gold_every: int
    passed: bool
    is_ai: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Trying:
    """How far a labeler is in a quiz that is not passed. quiz: known items that it asks; answered: of those that there
    are, which may be more; right: mean share right in the last `quiz` of them, None before the first; pass_share: what
    that has to reach once so many are answered."""

    quiz: int
    pass_share: float
    answered: int
    right: float | None


# Built once, as in `assignment`.
_STANDING: Final = (
    select(
        membership.c.role,
        membership.c.passed_at,
        project.c.kind,
        project.c.quiz,
        project.c.pass_share,
        project.c.gold_every,
        (rater.c.kind == "ai").label("is_ai"),
    )
    .join(project, project.c.id == membership.c.project)
    .join(rater, rater.c.id == membership.c.rater)
    .where(membership.c.project == bindparam("project"), membership.c.rater == bindparam("rater"))
    .with_for_update(of=membership)
)


def standing(connection: Connection, project_id: str, rater_id: str) -> Standing:
    """Also makes claims of one rater wait for each other, so that two tabs do not take two items."""
    found = connection.execute(_STANDING, {"project": project_id, "rater": rater_id}).first()
    if found is None:
        known = connection.execute(select(project.c.id).where(project.c.id == project_id)).first()
        missing = f'rater "{rater_id}" is no member of it' if known else "there is no such project"
        raise AccessError(f'project "{project_id}": {missing}')
    if found.kind in UNKNOWABLE:  # a quiz that was set when that was not refused yet
        return Standing(0, found.pass_share, 0, passed=True, is_ai=found.is_ai)
    passed = found.quiz == 0 or found.passed_at is not None or found.role == "lead" or found.is_ai
    return Standing(found.quiz, found.pass_share, found.gold_every, passed, found.is_ai)


def try_to_pass(connection: Connection, project_id: str, rater_id: str, tried: Standing, now: float) -> bool:
    """Whether the rater's last first words on known items are enough, and then they have passed.

    Words from before there was a quiz count too: nobody is asked an item twice, so whoever had met most of the known
    items by then would have too few left.
    """
    shares = _shares(connection, project_id, judgment.c.rater == rater_id).get(rater_id, [])[: tried.quiz]
    passed = len(shares) == tried.quiz and sum(shares) / len(shares) >= tried.pass_share
    if passed:
        mine = (membership.c.project == project_id, membership.c.rater == rater_id)
        connection.execute(update(membership).where(*mine).values(passed_at=now))
    return passed


def trying(store: Store, project_id: str, *, rater_id: str | None = None) -> dict[str, Trying]:
    """The members of a project who have a quiz to pass, by rater; of one rater where one is named."""
    members = (
        select(membership.c.rater)
        .join(project, project.c.id == membership.c.project)
        .where(membership.c.project == project_id, project.c.quiz > 0)
        .join(rater, rater.c.id == membership.c.rater)
        .where(membership.c.passed_at.is_(None), membership.c.role != "lead", rater.c.kind != "ai")
    )
    if rater_id is not None:
        members = members.where(membership.c.rater == rater_id)
    with store.read() as connection:
        raters = connection.execute(members).scalars().all()
        numbers = select(project.c.kind, project.c.quiz, project.c.pass_share).where(project.c.id == project_id)
        asked = connection.execute(numbers).first()
        if not raters or asked is None or asked.kind in UNKNOWABLE:
            return {}
        shares = _shares(connection, project_id, judgment.c.rater.in_(raters))
    found = {}
    for one in raters:
        mine = shares.get(one, [])
        last = mine[: asked.quiz]
        right = sum(last) / len(last) if last else None
        found[one] = Trying(quiz=asked.quiz, pass_share=asked.pass_share, answered=len(mine), right=right)
    return found


def _shares(connection: Connection, project_id: str, of: ColumnElement[bool]) -> Mapping[str, list[float]]:
    """By rater, what was right in the first words on known items, the newest first."""
    rows = connection.execute(
        select(judgment.c.rater, judgment.c.ranks, judgment.c["values"], item.c.gold)
        .join(item, item.c.id == judgment.c.item)
        .where(judgment.c.project == project_id, of, item.c.gold.is_not(None))
        # The first word, for the answer is known after it. Not IS NULL: SQLite would read all first words of the store.
        .where(func.coalesce(judgment.c.replaces, "") == "")
        .order_by(judgment.c.created_at.desc(), judgment.c.id)
    ).all()
    shares = defaultdict[str, list[float]](list)
    for row in rows:
        shares[row.rater].append(share_right(row.gold, row.ranks, row._mapping["values"]))
    return shares


def teach(
    store: Store,
    project_id: str,
    known: Sequence[Gold],
    *,
    quiz: int,
    pass_share: float,
    gold_every: int,
    by: str | None = None,
    now: float,
) -> int:
    """Known items and the quiz that begins with them, both or neither; how many of the items were not there yet.

    Raises StoreError as `add_gold` and `set_quiz` do.
    """
    row = {"quiz": quiz, "pass_share": pass_share, "gold_every": gold_every}

    def work(connection: Connection) -> int:
        made = put_gold(connection, project_id, known, by=by, now=now) if known else []
        put_quiz(connection, project_id, row, by=by, now=now)
        return sum(stored.is_new for stored in made)

    return store.write(work, alone=len(known) > MANY)


def ask_skipped_again(connection: Connection, project_id: str, rater_id: str) -> bool:
    """Whether there were known items that the rater skipped, as one could before there was a quiz; they are open now.

    In the quiz none is skipped.
    """
    known = select(item.c.id).where(item.c.project == project_id, item.c.gold.is_not(None))
    skipped = (assignment.c.rater == rater_id, assignment.c.state == "skipped", assignment.c.item.in_(known))
    return connection.execute(update(assignment).where(*skipped).values(state="released")).rowcount > 0
