"""Known items and the quiz: what can be known, and what becomes of labelers who were there before it was set."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

import pytest
from sqlalchemy import update

from tests.feedback.store.people import judge_as
from tuneful.errors import StoreError
from tuneful.feedback.assignment import Assignment, claim, skip
from tuneful.feedback.gold import Gold
from tuneful.feedback.items import add_gold, add_items, candidates
from tuneful.feedback.projects import add_rater, create_project, find_project, set_quiz
from tuneful.feedback.quality import measure
from tuneful.feedback.quiz import teach, trying
from tuneful.feedback.review import look
from tuneful.feedback.store import Store
from tuneful.feedback.submission import Feedback, Said, submit
from tuneful.feedback.tables import item
from tuneful.feedback.tables import project as project_table
from tuneful.records import Candidates, Completion, JudgmentKind, Prompt

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


KNOWN = Gold(Candidates(Prompt("known"), (Completion("yes", id="y"), Completion("no", id="n"))), ranks=RIGHT)


def test_known_items_and_their_quiz_are_set_together_or_not_at_all(store: Store) -> None:
    made = create_project(store, "helpful", now=0.0)
    known = [Gold(asked(f"known {n}"), ranks=RIGHT) for n in range(3)]
    numbers = {"pass_share": 0.7, "gold_every": 0, "now": 1.0}
    with pytest.raises(StoreError, match="a quiz of 5 items, and 3 have a known answer"):
        teach(store, made, known, quiz=5, **numbers)
    assert candidates(store, made) == []
    assert teach(store, made, known, quiz=3, **numbers) == 3
    assert find_project(store, made).quiz == 3


def test_a_known_item_that_is_there_already_stays_as_it_is(store: Store) -> None:
    """Given once more with its answers in the other order, and then with the other answer."""
    made = create_project(store, "helpful", now=0.0)
    [first] = add_gold(store, made, [KNOWN], now=1.0)
    yes, no = KNOWN.candidates.completions
    turned = Gold(Candidates(Prompt("known"), (no, yes)), ranks=(2, 1))
    assert add_gold(store, made, [KNOWN, turned], now=2.0) == [first, first]
    assert look(store, made, first).gold == {"ranks": [1, 2], "values": {}, "why": ""}
    other = [Gold(KNOWN.candidates, ranks=WRONG), Gold(asked("new"), ranks=RIGHT)]
    with pytest.raises(StoreError, match="prompt 'known': is a gold item already, with another answer"):
        add_gold(store, made, other, now=3.0)
    assert len(candidates(store, made)) == 1


def test_all_items_that_are_no_known_ones_are_named(store: Store) -> None:
    made = create_project(store, "helpful", now=0.0)
    add_items(store, made, [asked(f"question {n}") for n in range(4)], overlap=1, now=1.0)
    with pytest.raises(StoreError) as refused:
        add_gold(store, made, [Gold(asked(f"question {n}"), ranks=RIGHT) for n in range(4)], now=2.0)
    told = "; ".join(f"prompt 'question {n}': is an item already; a gold item is one of its own" for n in range(3))
    assert str(refused.value) == f"{told}; and 1 more"


@pytest.mark.parametrize(
    ("kind", "ranks", "values", "told"),
    [
        ("ranking", (), {}, "its answer is missing"),
        ("ranking", (1,), {}, "1 ranks for 2 completions"),
        ("ranking", (1, 2), {"helpful": 1.0}, "a ranking has ranks"),
        ("rating", (1, 2), {}, "a rating has values"),
        ("rating", (), {"yes": 7}, 'a value for "yes"; the completions have the ids y, n'),
        ("rating", (), {"y": "7"}, "'7' for \"y\"; give a number"),
        ("binary", (), {"honest": 1}, 'a value for "honest"; the project asks by helpful'),
        ("binary", (), {"helpful": 2}, '2 for "helpful"; give 0 or 1'),
    ],
)
def test_an_answer_that_nobody_could_give_is_no_known_answer(
    store: Store, kind: JudgmentKind, ranks: tuple[int, ...], values: Mapping[str, float], told: str
) -> None:
    made = create_project(store, kind, kind, criteria=("helpful",), now=0.0)
    with pytest.raises(StoreError) as refused:
        add_gold(store, made, [Gold(KNOWN.candidates, ranks=ranks, values=values)], now=1.0)
    assert told in str(refused.value)
    assert candidates(store, made) == []


def test_what_is_written_cannot_be_known(store: Store) -> None:
    made = create_project(store, "written", "demonstration", criteria=("helpful",), now=0.0)
    for refused in (
        lambda: add_gold(store, made, [KNOWN], now=1.0),
        lambda: set_quiz(store, made, quiz=1, now=1.0),
        lambda: set_quiz(store, made, quiz=0, gold_every=2, now=1.0),
    ):
        with pytest.raises(StoreError, match="not for a demonstration: nothing that is written is right or wrong"):
            refused()
    set_quiz(store, made, quiz=0, now=1.0)


def test_a_quiz_that_nobody_can_pass_is_not_asked(store: Store) -> None:
    """A project of demonstrations as an earlier version made it, with a known item and a quiz of it."""
    made = create_project(store, "written", "demonstration", criteria=("helpful",), now=0.0)
    known, question = add_items(store, made, [asked("known"), asked("question")], overlap=5, now=1.0)
    gold = {"ranks": [1, 2], "values": {}, "why": ""}
    store.write(lambda to: to.execute(update(item).where(item.c.id == known).values(gold=gold)))
    numbers = {"quiz": 1, "gold_every": 2}
    store.write(lambda to: to.execute(update(project_table).where(project_table.c.id == made).values(**numbers)))
    ann = add_rater(store, made, now=0.0)
    assert trying(store, made) == {}
    given = given_to(store, made, ann)
    assert (given.item, given.quiz) == (question, False)
    word = Said(id=str(uuid.uuid4()), text="Written.", flags={}, values={}, criterion="helpful")
    assert submit(store, given.id, ann, word, now=6.0).feedback is None
    assert claim(store, made, ann, now=7.0) is None
    assert [card.gold for card in measure(store, made, now=8.0).cards] == [None]
