"""What a project has collected, read at one moment; and the comparisons and labels in it, which pages and commands give
alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select

from tuneful.errors import DataError
from tuneful.feedback.criteria import of_one
from tuneful.feedback.decisions import decisions
from tuneful.feedback.export import agreed_comparisons
from tuneful.feedback.implied import orders
from tuneful.feedback.items import candidates
from tuneful.feedback.labels import good_and_bad, labels
from tuneful.feedback.projects import find_project, judgments
from tuneful.feedback.settling import Decision, settle
from tuneful.feedback.store import Store
from tuneful.feedback.tables import decision, item, judgment
from tuneful.records import Candidates, Comparison, Judgment, UnpairedPreference


@dataclass(frozen=True, slots=True)
class Collected:
    """By one criterion. judgments: the latest revisions. candidates: the prompts and completions that they speak of.
    decisions: of the project's leads, those that were replaced too. left_out: a sentence on judgments by other
    criteria, where there are any."""

    judgments: Sequence[Judgment]
    candidates: Sequence[Candidates]
    decisions: Sequence[Decision]
    left_out: str = ""

    @property
    def is_yes_or_no(self) -> bool:
        """Whether all judgments are of kind binary, so that they make labels and no pairs."""
        return bool(self.judgments) and all(one.kind == "binary" for one in self.judgments)


def collected(store: Store, project_id: str, *, criterion: str | None = None) -> Collected:
    """Of a project of a store, as it is now. Raises as `criteria.of_one` does."""
    with store.snapshot() as then:
        criteria = find_project(then, project_id).criteria
        said, left_out = of_one(judgments(then, project_id), criteria, criterion)
        settled = [one for one in decisions(then, project_id) if one.criterion == (criterion or criteria[0])]
        return Collected(said, candidates(then, project_id), settled, left_out)


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much of each a project has; judgments of a quiz apart, every revision counted."""

    items: int
    judgments: int
    decisions: int


def amounts(store: Store, project_id: str) -> Amounts:
    """What there is to take home, counted and not read."""
    of_each = [
        select(func.count()).select_from(item).where(item.c.project == project_id),
        select(func.count()).select_from(judgment).where(judgment.c.project == project_id, ~judgment.c.quiz),
        select(func.count()).select_from(decision).where(decision.c.project == project_id),
    ]
    with store.read() as connection:
        return Amounts(*(int(connection.execute(one).scalar_one()) for one in of_each))


def comparisons_in(said: Collected) -> list[Comparison]:
    """The pairs of the consensus, ratings by the order that they imply, and of a decided item those of its decision.
    Raises as `agreed_comparisons` does."""
    from tuneful.feedback.consensus import consensus  # brings scipy, which those who label do not wait for

    return agreed_comparisons(settle(consensus(orders(said.judgments)), said.decisions), said.candidates)


def answers_in(said: Collected) -> tuple[list[UnpairedPreference], int]:
    """The answers that were judged good or bad by themselves, and how many are even and left out. Raises as
    `good_and_bad` does, and DataError when nobody said yes or no."""
    found = labels(said.judgments, said.decisions)
    if not found:
        raise DataError("judgments: none says yes or no; labels need kind binary")
    return good_and_bad(found, said.candidates), sum(one.is_even for one in found)
