"""Overlaps that grow where the order is unsure, and the queue by what a judgment is worth, on either database."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest
from sqlalchemy import select

from tests.feedback.store.people import within_overlap
from tuneful.errors import StoreError
from tuneful.feedback.adaptive import Adapted, adapt, is_due
from tuneful.feedback.assignment import LEASE_SECONDS, claim, take
from tuneful.feedback.decisions import decide
from tuneful.feedback.gold import Gold
from tuneful.feedback.items import EVERYBODY, add_gold, add_items
from tuneful.feedback.projects import (
    add_rater,
    create_project,
    find_project,
    judgments,
    progress,
    set_overlap,
)
from tuneful.feedback.store import Store
from tuneful.feedback.submission import Said, submit
from tuneful.feedback.tables import item, snapshot
from tuneful.records import Candidates, Completion, Prompt

AFTER = LEASE_SECONDS + 1


def candidates(names: list[str]) -> list[Candidates]:
    answers = (Completion("yes", id="yes"), Completion("no", id="no"))
    return [Candidates(Prompt(name), answers) for name in names]


class People:
    """Raters of a project, the items of which are called by names."""

    def __init__(self, store: Store, names: list[str], *, overlap: int, most: int, sure: float = 0.8) -> None:
        self.store = store
        self.project = create_project(store, "helpful", now=0.0)
        set_overlap(store, self.project, most=most, sure=sure, now=0.0)
        ids = add_items(store, self.project, candidates(names), overlap=overlap, now=0.0)
        self.names = dict(zip(ids, names, strict=True))
        self.now = 0.0

    def one(self, second_on: tuple[str, ...] = (), *, num: int = 1_000_000) -> list[str]:
        """A new rater, who judges `num` items; prefers the second answer of some. The names, in the order of claims."""
        rater = add_rater(self.store, self.project, now=self.now)
        done: list[str] = []
        while len(done) < num and (given := claim(self.store, self.project, rater, now=self.now)) is not None:
            self.now += 1
            done.append(self.names.get(given.item, "gold"))
            ranks = (2, 1) if done[-1] in second_on else (1, 2)
            submit(self.store, given.id, rater, said(ranks), now=self.now)
        return done

    def adapt(self) -> Adapted:
        self.now += 1
        return adapt(self.store, self.project, now=self.now)

    def rows(self) -> dict[str, Any]:
        with self.store.read() as connection:
            return {self.names.get(row.id, "gold"): row for row in connection.execute(select(item)).all()}


def said(ranks: tuple[int, ...] = (1, 2)) -> Said:
    return Said(id=str(uuid.uuid4()), ranks=ranks, flags={}, values={})


CLEAR = [f"clear {n}" for n in range(6)]


def test_an_unsure_item_is_asked_of_one_more_and_a_sure_one_is_not(store: Store) -> None:
    people = People(store, [*CLEAR, "open question"], overlap=2, most=4)
    people.one()
    people.one(second_on=("open question",))
    done = people.adapt()
    assert (done.judgments, done.items, done.unsure, done.raised, done.moved) == (14, 7, 1, 1, 0)
    assert {name: row.overlap for name, row in people.rows().items()} == dict.fromkeys(CLEAR, 2) | {"open question": 3}
    counts = progress(store, people.project)
    assert (counts.wanted, counts.up_to, counts.have, counts.done) == (15, 28, 14, 6)
    assert people.adapt().raised == 0  # nobody has judged it since
    assert people.one() == ["open question"]


def test_what_a_lead_settled_is_not_asked_again(store: Store) -> None:
    people = People(store, [*CLEAR, "open question"], overlap=2, most=4)
    people.one()
    people.one(("open question",))
    (disputed,) = [id_ for id_, name in people.names.items() if name == "open question"]
    lead = add_rater(store, people.project, role="lead", now=people.now)
    decide(store, disputed, by=lead, ranks=(1, 2), now=people.now)
    done = people.adapt()
    assert (done.unsure, done.raised) == (0, 0)
    assert people.rows()["open question"].overlap == 2


def test_nobody_more_is_asked_which_of_two_equal_answers_is_better(store: Store) -> None:
    people = People(store, CLEAR, overlap=2, most=4)
    same = Candidates(Prompt("same"), (Completion("yes", id="same 1"), Completion("yes", id="same 2")))
    (added,) = add_items(store, people.project, [same], overlap=2, now=0.0)
    people.names[added] = "same"
    people.one()
    people.one(("same",))
    done = people.adapt()
    assert (done.unsure, done.raised) == (0, 0)
    assert people.rows()["same"].overlap == 2


def test_no_overlap_grows_past_the_most(store: Store) -> None:
    people = People(store, [*CLEAR, "open question"], overlap=2, most=3)
    for second_on in ((), ("open question",), (), ("open question",), ()):
        people.one(second_on)
        people.adapt()
    assert people.rows()["open question"].overlap == people.rows()["open question"].submitted == 3
    assert people.adapt().raised == 0


def test_what_came_as_surplus_counts_towards_the_most(store: Store) -> None:
    people = People(store, ["open question"], overlap=1, most=2, sure=0.99)
    ann, bob = (add_rater(store, people.project, now=0.0) for _ in range(2))
    of_ann, of_bob = claim(store, people.project, ann, now=0.0), claim(store, people.project, bob, now=AFTER)
    assert of_ann is not None
    assert of_bob is not None
    assert submit(store, of_bob.id, bob, said((1, 2)), now=AFTER).counted
    assert not submit(store, of_ann.id, ann, said((2, 1)), now=AFTER).counted
    people.now = AFTER
    done = people.adapt()
    assert (done.unsure, done.raised) == (1, 0)


def test_what_models_say_makes_an_item_unsure_and_leaves_the_most_to_people(store: Store) -> None:
    people = People(store, ["open question"], overlap=1, most=2, sure=0.99)
    people.one()
    model = add_rater(store, people.project, kind="ai", now=0.0)
    given = take(store, *people.names, model, now=people.now)
    assert given is not None
    assert not submit(store, given.id, model, said((2, 1)), now=people.now).counted
    done = people.adapt()
    assert (done.judgments, done.unsure, done.raised) == (2, 1, 1)


def test_gold_items_are_left_alone(store: Store) -> None:
    people = People(store, ["open question"], overlap=2, most=4)
    known = Candidates(Prompt("known"), (Completion("yes", id="yes"), Completion("no", id="no")))
    add_gold(store, people.project, [Gold(known, ranks=(1, 2), why="it is")], now=0.0)
    before = people.rows()["gold"]
    people.one()
    people.one(second_on=("open question",))
    assert people.adapt().items == 1
    assert people.rows()["gold"] == before
    assert before.overlap == EVERYBODY


def test_what_gains_most_comes_first(store: Store) -> None:
    """The one nobody has judged, then the one on which two disagree, then the one on which they agree."""
    people = People(store, ["clear", "open question"], overlap=3, most=4)
    people.one()
    people.one(second_on=("open question",))
    add_items(store, people.project, candidates(["new"]), overlap=3, now=people.now)
    (new,) = set(people.rows()) - {"clear", "open question"}
    assert people.adapt().moved >= 2
    assert people.adapt().moved == 0
    assert people.one() == [new, "open question", "clear"]


def test_before_anybody_judged_nothing_is_done(store: Store) -> None:
    people = People(store, CLEAR, overlap=2, most=4)
    assert people.adapt() == Adapted(judgments=0, items=6, unsure=0, raised=0, moved=0)
    with store.read() as connection:
        assert connection.execute(select(snapshot)).first() is None


def test_submits_meanwhile_leave_every_count_right(store: Store) -> None:
    """Eight raters judge at random while it adapts again and again: in the end all items have as many as may be."""
    most = 4
    people = People(store, [f"item {n}" for n in range(12)], overlap=1, most=most, sure=0.999)
    raters = [add_rater(store, people.project, now=0.0) for _ in range(8)]
    ended = Event()

    def work(rater: str) -> None:
        chance = random.Random(rater)
        while not ended.is_set():
            given = claim(store, people.project, rater, now=1.0)
            if given is not None:
                submit(store, given.id, rater, said(tuple(chance.sample((1, 2), 2))), now=1.0)

    with ThreadPoolExecutor(len(raters)) as threads:
        working = [threads.submit(work, rater) for rater in raters]
        try:
            for _ in range(400):
                adapt(store, people.project, now=2.0)
                if progress(store, people.project).have == 12 * most:
                    break
        finally:
            ended.set()
        for one in working:
            one.result()
    assert {(row.overlap, row.submitted) for row in people.rows().values()} == {(most, most)}
    kept = judgments(store, people.project)
    assert len(kept) == len(within_overlap(store, people.project))
    assert set(Counter(one.item for one in kept).values()) == {most}
    assert max(Counter((one.item, one.rater) for one in kept).values()) == 1


def test_it_is_time_when_as_many_judgments_are_new_as_items_are_open(store: Store) -> None:
    people = People(store, CLEAR, overlap=1, most=2, sure=0.99)

    def due() -> bool:
        people.now += 1
        if is_due(store, people.project, now=people.now):
            people.adapt()
            return True
        return False

    assert not due()
    people.one(num=2)
    assert not due()  # four are open
    people.one(num=2)
    assert due()  # four judgments, two open
    assert not due()  # nothing new
    people.one()
    assert due()


def test_judgments_of_the_future_make_it_no_time_before_then(store: Store) -> None:
    """As a file with wrong times brings them; it would be time again and again, for each adaptation is of now."""
    people = People(store, CLEAR, overlap=1, most=2, sure=0.99)
    people.now = 1000.0
    people.one()
    assert not is_due(store, people.project, now=1000.0)
    adapt(store, people.project, now=1000.0)
    assert not is_due(store, people.project, now=1000.0)
    assert is_due(store, people.project, now=2000.0)


def test_a_snapshot_tells_when_and_what(store: Store) -> None:
    people = People(store, ["open question"], overlap=2, most=4)
    people.one()
    people.one(second_on=("open question",))
    people.adapt()
    with store.read() as connection:
        (kept,) = connection.execute(select(snapshot)).all()
    assert (kept.project, kept.kind, kept.judgments, kept.created_at) == (people.project, "adapt", 2, people.now)
    expected = {"judgments": 2, "items": 1, "unsure": 1, "raised": 1, "moved": 0, "most_overlap": 4, "sure": 0.8}
    assert kept.result == expected


def test_a_fixed_overlap_stays(store: Store) -> None:
    people = People(store, ["open question"], overlap=1, most=0)
    people.one()
    assert not is_due(store, people.project, now=people.now)
    with pytest.raises(StoreError, match="--most-overlap"):
        people.adapt()
    assert progress(store, people.project).up_to == 1


@pytest.mark.parametrize(
    ("most", "sure", "told"),
    [(-1, 0.9, "0 for a fixed"), (101, 0.9, "up to 100"), (4, 0.5, "guessing"), (4, 1, "never")],
)
def test_numbers_that_mean_nothing_are_refused(store: Store, most: int, sure: float, told: str) -> None:
    project = create_project(store, "helpful", now=0.0)
    with pytest.raises(StoreError, match=told):
        set_overlap(store, project, most=most, sure=sure, now=0.0)
    found = find_project(store, project)
    assert (found.most_overlap, found.sure) == (0, 0.9)


def test_a_kind_that_orders_nothing_does_not_adapt(store: Store) -> None:
    project = create_project(store, "toxic", "binary", now=0.0)
    with pytest.raises(StoreError, match="a binary orders nothing"):
        set_overlap(store, project, most=4, sure=0.9, now=0.0)
