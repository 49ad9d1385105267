"""A project that people have judged, for tests of what its lead does then."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from tuneful.feedback.assignment import claim
from tuneful.feedback.items import add_items
from tuneful.feedback.projects import add_rater, create_project
from tuneful.feedback.store import Store
from tuneful.feedback.submission import Said, submit
from tuneful.feedback.tables import judgment
from tuneful.records import Candidates, Completion, JudgmentKind, Prompt

TEXTS = ("yes", "no", "maybe")


def project_of(
    store: Store, items: int = 2, *, kind: JudgmentKind = "ranking", texts: Sequence[str] = TEXTS, overlap: int = 2
) -> tuple[str, list[str]]:
    """A project and its items, "question 0" and so on, each with these answers."""
    made = create_project(store, f"{kind} {uuid.uuid4()}", kind, criteria=("helpful",), now=0.0)
    answers = tuple(Completion(text, id=text, model="secret-model") for text in texts)
    asked = [Candidates(Prompt(f"question {n}"), answers) for n in range(items)]
    return made, add_items(store, made, asked, overlap=overlap, now=0.0)


def judge(store: Store, project: str, **said: Any) -> str:
    """The id of a new labeler, who says the same of every item there is for them."""
    rater = add_rater(store, project, now=0.0)
    judge_as(store, project, rater, **said)
    return rater


def within_overlap(store: Store, project: str) -> list[tuple[str, str]]:
    """Item and rater of each judgment that counts, of revisions the latest."""
    later = judgment.alias()
    counts = (judgment.c.project == project, judgment.c.counted, ~judgment.c.quiz)
    replaced = select(later.c.id).where(later.c.replaces == judgment.c.id).exists()
    with store.read() as connection:
        rows = connection.execute(select(judgment.c.item, judgment.c.rater).where(*counts, ~replaced))
        return [(row.item, row.rater) for row in rows]


def judge_as(store: Store, project: str, rater: str, *, points: int = 0, **said: Any) -> None:
    """points: of each answer, in a project that asks for ratings."""
    while (given := claim(store, project, rater, now=1.0)) is not None:
        values = dict.fromkeys(given.shown_order, points) if points else {}
        word = {"ranks": (), "flags": {}, "values": values, "criterion": "helpful"} | said
        submit(store, given.id, rater, Said(id=str(uuid.uuid4()), **word), now=2.0)
