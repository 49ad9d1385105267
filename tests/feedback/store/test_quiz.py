"""The quiz, for labelers who were there before it was set."""

from __future__ import annotations

import uuid

from tests.feedback.store.people import judge_as
from tuneful.feedback.assignment import Assignment, claim, skip
from tuneful.feedback.gold import Gold
from tuneful.feedback.items import add_gold, add_items
from tuneful.feedback.projects import add_rater, create_project, set_quiz
from tuneful.feedback.store import Store
from tuneful.feedback.submission import Feedback, Said, submit
from tuneful.records import Candidates, Completion, Prompt

RIGHT, WRONG = (1, 2), (2, 1)


def asked(name: str) -> Candidates:
    return Candidates(Prompt(name), (Completion("yes"), Completion("no")))


def project_with(store: Store, *, known: int, items: int) -> tuple[str, str, list[str]]:
    """A project that asks a known item after each other one, a labeler of it, and the known items."""
    project = create_project(store, "helpful", criteria=("helpful",), now=0.0)
    gold = add_gold(store, project, [Gold(asked(f"known {n}"), ranks=RIGHT) for n in range(known)], now=0.0)
    add_items(store, project, [asked(f"question {n}") for n in range(items)], overlap=5, now=0.0)
    set_quiz(store, project, quiz=0, gold_every=2, now=0.0)
    return project, add_rater(store, project, now=0.0), gold


def given_to(store: Store, project: str, rater: str) -> Assignment:
    given = claim(store, project, rater, now=5.0)
    assert given is not None
    return given


def answer(store: Store, given: Assignment, ranks: tuple[int, ...], *, at: float) -> Feedback | None:
    word = Said(id=str(uuid.uuid4()), ranks=ranks, flags={}, values={}, criterion="helpful")
    return submit(store, given.id, given.rater, word, now=at).feedback


def test_who_met_every_known_item_before_the_quiz_and_was_right_has_passed(store: Store) -> None:
    project, ann, _ = project_with(store, known=2, items=2)
    judge_as(store, project, ann, ranks=RIGHT)
    set_quiz(store, project, quiz=2, pass_share=1.0, now=3.0)
    add_items(store, project, [asked("one more")], overlap=5, now=4.0)
    assert not given_to(store, project, ann).quiz


def test_who_met_every_known_item_before_the_quiz_and_was_wrong_has_not(store: Store) -> None:
    project, ann, _ = project_with(store, known=2, items=3)
    judge_as(store, project, ann, ranks=WRONG)
    set_quiz(store, project, quiz=2, pass_share=0.5, now=3.0)
    assert claim(store, project, ann, now=5.0) is None
    add_gold(store, project, [Gold(asked("one more"), ranks=RIGHT)], now=6.0)
    last = answer(store, given_to(store, project, ann), RIGHT, at=7.0)
    assert last is not None and last.passed  # of the last two, one: a half


def test_one_known_item_met_before_leaves_one_to_pass_the_quiz_with(store: Store) -> None:
    project, ann, gold = project_with(store, known=2, items=2)
    for _ in range(2):
        answer(store, given_to(store, project, ann), RIGHT, at=2.0)
    set_quiz(store, project, quiz=2, pass_share=1.0, now=3.0)
    given = given_to(store, project, ann)
    assert (given.item, given.quiz) == (gold[1], True)
    last = answer(store, given, RIGHT, at=6.0)
    assert last is not None and last.passed


def test_a_known_item_that_was_skipped_before_the_quiz_is_asked_in_it(store: Store) -> None:
    project, ann, gold = project_with(store, known=1, items=2)
    answer(store, given_to(store, project, ann), RIGHT, at=2.0)
    skipped = given_to(store, project, ann)
    assert skipped.item == gold[0]
    skip(store, skipped.id, ann)
    set_quiz(store, project, quiz=1, pass_share=1.0, now=3.0)
    given = given_to(store, project, ann)
    assert (given.item, given.quiz) == (gold[0], True)
    last = answer(store, given, RIGHT, at=6.0)
    assert last is not None and last.passed
