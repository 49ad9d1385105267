"""The quiz: known items that a labeler begins with, and what is enough to pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, func, select, update

from tuneful.errors import AccessError
from tuneful.feedback.gold import share_right
from tuneful.feedback.tables import assignment, item, judgment, membership, project


@dataclass(frozen=True, slots=True)
class Standing:
    """What a project asks of its labelers, and whether this one has passed its quiz or has none to pass."""

    quiz: int
    pass_share: float
    gold_every: int
    passed: bool


# Built once, as in `assignment`.
_STANDING: Final = (
    select(membership.c.role, membership.c.passed_at, project.c.quiz, project.c.pass_share, project.c.gold_every)
    .join(project, project.c.id == membership.c.project)
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
    passed = found.quiz == 0 or found.passed_at is not None or found.role == "lead"
    return Standing(found.quiz, found.pass_share, found.gold_every, passed)


def try_to_pass(connection: Connection, project_id: str, rater_id: str, tried: Standing, now: float) -> bool:
    """Whether the rater's last first words on known items are enough, and then they have passed.

    Words from before there was a quiz count too: nobody is asked an item twice, so whoever had met most of the known
    items by then would have too few left.
    """
    rows = connection.execute(
        select(judgment.c.ranks, judgment.c["values"], item.c.gold)
        .join(item, item.c.id == judgment.c.item)
        .where(judgment.c.project == project_id, judgment.c.rater == rater_id, item.c.gold.is_not(None))
        # The first word, for the answer is known after it. Not IS NULL: SQLite would read all first words of the store.
        .where(func.coalesce(judgment.c.replaces, "") == "")
        .order_by(judgment.c.created_at.desc(), judgment.c.id)
        .limit(tried.quiz)
    ).all()
    shares = [share_right(row.gold, row.ranks, row._mapping["values"]) for row in rows]
    passed = len(shares) == tried.quiz and sum(shares) / len(shares) >= tried.pass_share
    if passed:
        mine = (membership.c.project == project_id, membership.c.rater == rater_id)
        connection.execute(update(membership).where(*mine).values(passed_at=now))
    return passed


def ask_skipped_again(connection: Connection, project_id: str, rater_id: str) -> bool:
    """Whether there were known items that the rater skipped, as one could before there was a quiz; they are open now.

    In the quiz none is skipped.
    """
    known = select(item.c.id).where(item.c.project == project_id, item.c.gold.is_not(None))
    skipped = (assignment.c.rater == rater_id, assignment.c.state == "skipped", assignment.c.item.in_(known))
    return connection.execute(update(assignment).where(*skipped).values(state="released")).rowcount > 0
