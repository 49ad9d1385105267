"""The quality of a project measured on both databases: planted labelers, known items, groups, snapshots."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select, update

from tests.feedback.rankings import said
from tests.feedback.store.people import judge, project_of
from tuneful.errors import DataError, MissingError
from tuneful.feedback.assignment import claim
from tuneful.feedback.decisions import decide, make_gold
from tuneful.feedback.gold import Gold
from tuneful.feedback.items import add_gold
from tuneful.feedback.projects import add_rater, create_project, publish_instructions, set_quiz
from tuneful.feedback.quality import METHOD, Quality, keep, latest, measure, measure_and_keep, num_rows
from tuneful.feedback.recording import record
from tuneful.feedback.store import Store
from tuneful.feedback.submission import Said, submit
from tuneful.feedback.tables import assignment, item, rater, snapshot
from tuneful.records import Candidates, Completion, Judgment, JudgmentKind, Prompt
from tuneful.settings import as_table


def filled(store: Store, rows: Sequence[Judgment], *, kind: JudgmentKind = "ranking", name: str = "project") -> str:
    """A project that holds `rows`, whose prompts and completions are made up here."""
    criteria = list(dict.fromkeys(one.criterion for one in rows))
    made = create_project(store, name, kind, criteria=criteria, now=0.0)
    offered = {
        one.item: Candidates(
            Prompt.user(f"How is {one.item}?"),
            tuple(Completion(f"answer {id_} in some words", id=id_) for id_ in one.completions),
        )
        for one in rows
    }
    placed = [replace(one, prompt=offered[one.item].prompt.id) for one in rows]
    record(store, made, list(offered.values()), placed, now=1000.0)
    return made


def of_group(store: Store, name: str, raters: Sequence[str]) -> None:
    query = update(rater).where(rater.c.id.in_(raters)).values(groups=[name])
    store.write(lambda connection: connection.execute(query))


HAND = [
    said("ann", "house", 1, 2, 3, at=1, seconds=10),
    said("bo", "house", 1, 3, 2, at=2, seconds=20),
    said("ann", "door", 2, 1, at=3, seconds=30),
    said("bo", "door", 2, 1, at=4),
]
"""Two people: of the pairs of "house" two alike and one not, that of "door" alike."""


def test_a_small_world_by_hand(store: Store) -> None:
    project = filled(store, HAND)
    found = measure(store, project, now=5.0)
    assert (found.judgments, found.rows, found.people, found.kind, found.group) == (4, 4, 2, "ranking", None)
    assert [(card.rater, card.judgments, card.pace.seconds) for card in found.cards] == [("ann", 2, 20), ("bo", 2, 20)]
    (criterion,) = found.criteria
    assert criterion.matrix is not None
    assert criterion.matrix.alike[0][1] == 0.75
    assert criterion.timeline is not None
    (window,) = criterion.timeline.windows
    assert window.agreement is not None
    assert (window.agreement.value, window.judgments) == (0.75, 4)
    assert [(hard.item, hard.agreement) for hard in criterion.hardest] == [("house", 2 / 3), ("door", 1)]
    follows = {card.rater: card.standings[0].follows for card in found.cards}
    assert {name: (one.value, one.of) for name, one in follows.items() if one} == {"ann": (0.75, 4), "bo": (0.75, 4)}


def test_nothing_judged_is_measured_too(store: Store) -> None:
    project = create_project(store, "empty", now=0.0)
    found = measure(store, project, now=1.0)
    assert (found.judgments, found.cards, found.criteria, found.pace.seconds) == (0, (), (), None)
    with pytest.raises(MissingError):
        measure(store, "nowhere", now=1.0)


def test_planted_labelers_appear_with_their_verdict(store: Store, simulate: Callable[..., Any]) -> None:
    simulated = simulate(["careful"] * 8 + ["inverted", "random"], seed=5, num_items=400)
    project = filled(store, [replace(one, rater_kind="human") for one in simulated.judgments])
    found = measure(store, project, now=5.0)
    verdicts = {(simulated.kinds[card.rater], card.standings[0].verdict) for card in found.cards}
    assert verdicts == {("careful", "reliable"), ("inverted", "inverted"), ("random", "random")}
    causes = {
        (simulated.kinds[card.rater], one.name, bool(one.advice)) for card in found.cards for one in card.findings
    }
    assert {("inverted", "inverted", True), ("random", "random", True)} == causes
    assert {simulated.kinds[card.rater] for card in found.cards[:2]} == {"inverted", "random"}  # talk to these first
    assert found.criteria[0].matrix is not None
    outsider = next(rater_ for rater_, kind in simulated.kinds.items() if kind == "inverted")
    assert outsider in (found.criteria[0].matrix.raters[0], found.criteria[0].matrix.raters[-1])


def test_a_change_of_instructions_is_marked_and_named_by_its_number(store: Store) -> None:
    project = filled(store, HAND)
    for text, at in (("one", 0.0), ("two", 2.5)):
        publish_instructions(store, project, text, now=at)
    (criterion,) = measure(store, project, now=5.0).criteria
    assert criterion.timeline is not None
    assert [(mark.version, mark.after) for mark in criterion.timeline.marks] == [(2, 2)]


def test_known_items_count_once_each_and_the_quiz_apart(store: Store) -> None:
    """Right on the first item of the quiz and wrong on the second; right on the one that comes later."""
    project = create_project(store, "gold", now=0.0)
    answers = (Completion("a", id="a"), Completion("b", id="b"))
    known = [Candidates(Prompt.user(f"known {n}"), answers) for n in range(3)]
    ids = add_gold(store, project, [Gold(one, ranks=(1, 2)) for one in known], now=0.0)
    set_quiz(store, project, quiz=2, pass_share=0.5, now=0.0)
    ann = add_rater(store, project, now=0.0)
    judge_next(store, project, ann, "1", (1, 2), at=1.0)
    judge_next(store, project, ann, "2", (2, 1), at=2.0)
    assert measure(store, project, now=3.0).cards == ()  # what is said in the quiz is no judgment
    tried = set(claimed(store, project))
    later = next(n for n, id_ in enumerate(ids) if id_ not in tried)
    about = replace(said("ann", ids[later], 1, 2), rater=ann, id="3", prompt=known[later].prompt.id)
    record(store, project, [known[later]], [replace(about, completions=("a", "b"))], now=4.0)
    (card,) = measure(store, project, now=5.0).cards
    assert card.quiz is not None
    assert (card.quiz.value, card.quiz.of) == (0.5, 2)
    assert card.gold is not None
    assert (card.gold.value, card.gold.of) == (1, 1)


def test_known_items_that_are_copies_of_others_count_on_cards_and_nowhere_else(store: Store) -> None:
    """Ann decides her item the other way round and makes a gold item of it, which Bo meets and gets right."""
    project, (one, _) = project_of(store, items=2, texts=("yes", "no"))
    ann = judge(store, project, ranks=(1, 2))
    decide(store, one, by=ann, ranks=(2, 1), now=3.0)
    made = make_gold(store, one, by=ann, why="", now=4.0)
    set_quiz(store, project, quiz=0, gold_every=2, now=5.0)
    bo = judge(store, project, ranks=(2, 1))
    found = measure(store, project, now=6.0)
    cards = {card.rater: card for card in found.cards}
    assert found.judgments == 4
    assert {rater_: card.judgments for rater_, card in cards.items()} == {ann: 2, bo: 2}
    assert made in claimed(store, project)
    assert cards[ann].gold is None
    known = cards[bo].gold
    assert known is not None and (known.value, known.of) == (1, 1)


def claimed(store: Store, project: str) -> list[str]:
    with store.read() as connection:
        asked = select(assignment.c.item).join(item, item.c.id == assignment.c.item).where(item.c.project == project)
        return list(connection.execute(asked).scalars())


def judge_next(store: Store, project: str, who: str, id_: str, ranks: tuple[int, ...], *, at: float) -> None:
    given = claim(store, project, who, now=at)
    assert given is not None
    submit(store, given.id, who, Said(id=id_, ranks=ranks, flags={}, values={}), now=at)


def test_ratings_are_looked_at_as_numbers_and_as_orders(store: Store) -> None:
    """Ann rates from 1 to 3 and Bo from 5 to 7, in the same order: nothing in common as numbers, all as orders."""
    rows = [
        replace(said(who, f"i{n}", 1, 1, 1, kind="rating"), ranks=(), values=values, seconds=4.0)
        for n in range(6)
        for who, least in (("ann", 1), ("bo", 5))
        for values in [{f"i{n}-{k}": float(least + (k + n) % 3) for k in range(3)}]
    ]
    (criterion,) = measure(store, filled(store, rows, kind="rating"), now=5.0).criteria
    assert criterion.alpha.value is not None and criterion.alpha.value < 0
    assert criterion.ordinal is not None and criterion.ordinal.value is not None
    assert criterion.scales is not None
    assert criterion.scales.standardised.value == pytest.approx(1)
    assert criterion.scales.implied.value == pytest.approx(1)
    assert [(one.rater, one.mean, one.lowest, one.highest) for one in criterion.scales.raters] == [
        ("ann", 2, 1, 3),
        ("bo", 6, 5, 7),
    ]
    assert criterion.matrix is not None
    assert criterion.matrix.alike[0][1] == 1


def test_single_answers_are_rated_and_ordered_by_nobody(store: Store) -> None:
    rows = [
        replace(said(who, f"i{n}", kind="rating"), values={f"i{n}-0": float(value)})
        for n, values in enumerate([(1, 1), (7, 7), (4, 4)])
        for who, value in zip(("ann", "bo"), values, strict=True)
    ]
    found = measure(store, filled(store, rows, kind="rating"), now=5.0)
    (criterion,) = found.criteria
    assert criterion.alpha.value == 1
    assert (criterion.problem, criterion.matrix, criterion.hardest) == ("", None, ())
    assert [card.standings for card in found.cards] == [(), ()]


def test_questions_of_yes_and_no(store: Store) -> None:
    """On ten items all three agree, five yes and five no; on two more Cy says the opposite."""
    rows = [
        said(who, f"i{n:02}", kind="binary", values={"preference": int((n < 6) != (who == "cy" and n in (5, 11)))})
        for n in range(12)
        for who in ("ann", "bo", "cy")
    ]
    found = measure(store, filled(store, rows, kind="binary"), now=5.0)
    (criterion,) = found.criteria
    assert criterion.yes_no is not None
    assert criterion.yes_no.cohen_pairs == 3
    assert criterion.yes_no.cohen == pytest.approx((1 + 2 * (10 / 12 - 0.5) / 0.5) / 3)
    assert criterion.yes_no.fleiss.value is not None
    assert {hard.item for hard in criterion.hardest[:2]} == {"i05", "i11"}
    cy = next(card for card in found.cards if card.rater == "cy")
    assert cy.standings[0].follows is not None
    assert (cy.standings[0].follows.value, cy.standings[0].follows.of) == (pytest.approx(10 / 12), 12)


def test_several_criteria_are_looked_at_each_for_itself(store: Store) -> None:
    rows = [
        replace(said(who, f"i{n}", 1, 2), criterion=criterion, id=f"{who} {n} {criterion}")
        for criterion in ("helpful", "harmless")
        for n in range(2)
        for who in ("ann", "bo")
    ]
    found = measure(store, filled(store, rows), now=5.0)
    assert [(one.name, one.judgments) for one in found.criteria] == [("helpful", 4), ("harmless", 4)]
    assert [one.criterion for one in found.cards[0].standings] == ["helpful", "harmless"]


def test_demonstrations_have_a_pace_and_no_agreement(store: Store) -> None:
    rows = [replace(said(who, "x", kind="demonstration", seconds=9), text="I would …") for who in ("ann", "bo")]
    found = measure(store, filled(store, rows, kind="demonstration"), now=5.0)
    assert (found.criteria, [card.pace.seconds for card in found.cards]) == ((), [9, 9])


@pytest.fixture
def grouped(store: Store) -> str:
    """Five nurses who prefer the first answer of three items, five bakers who prefer the second; one is a queen."""
    nurses, bakers = ("n1", "n2", "n3", "n4", "n5"), ("b1", "b2", "b3", "b4", "b5")
    rows = [
        said(who, f"i{n}", *((1, 2) if who in nurses else (2, 1))) for n in range(3) for who in (*nurses, *bakers, "q")
    ]
    project = filled(store, rows)
    for name, raters in (("nurse", nurses), ("baker", bakers), ("queen", ["q"])):
        of_group(store, name, raters)
    return project


def test_groups_are_set_side_by_side(store: Store, grouped: str) -> None:
    found = measure(store, grouped, now=5.0)
    assert found.groups == {"baker": 5, "nurse": 5}
    (criterion,) = found.criteria
    assert criterion.audiences is not None
    assert criterion.audiences.hidden == 1
    (pair,) = criterion.audiences.between
    assert (pair.one, pair.other, pair.alike and pair.alike.value, pair.differ and pair.differ.value) == (
        *("baker", "nurse"),
        *(0, 1),
    )


def test_a_group_alone_tells_of_nobody_alone(store: Store, grouped: str) -> None:
    found = measure(store, grouped, group="nurse", now=5.0)
    assert (found.group, found.people, found.judgments, found.rows, found.cards) == ("nurse", 5, 15, 33, ())
    (criterion,) = found.criteria
    assert criterion.alpha.value == 1
    assert not any(f'"{name}"' in json.dumps(as_table(found)) for name in ("n1", "n2", "n3", "n4", "n5", "q"))
    for name in ("queen", "nobody"):
        with pytest.raises(DataError, match="fewer than 5 of the people"):
            measure(store, grouped, group=name, now=5.0)


def test_a_snapshot_comes_back_as_it_was_kept(store: Store, grouped: str) -> None:
    assert latest(store, grouped) is None
    first, second = (measure(store, grouped, now=at) for at in (5.0, 6.0))
    keep(store, grouped, second)
    keep(store, grouped, first)
    found = latest(store, grouped)
    assert isinstance(found, Quality)
    assert found == second
    assert latest(store, grouped, group="nurse") is None
    measure_and_keep(store, grouped, group="nurse", now=7.0)
    assert latest(store, grouped, group="nurse") == measure(store, grouped, group="nurse", now=7.0)
    assert latest(store, grouped) == second


def test_a_snapshot_of_every_kind_comes_back(store: Store) -> None:
    binary = [said(who, "x", kind="binary", values={"preference": 1}) for who in ("ann", "bo")]
    rated = [
        replace(said(who, "y", 1, 1, kind="rating"), ranks=(), values={"y-0": 3.0, "y-1": 4.0}) for who in ("cy", "di")
    ]
    for kind, rows in (("binary", binary), ("rating", rated)):
        project = filled(store, rows, kind=kind, name=kind)  # type: ignore[arg-type]
        found = measure(store, project, now=5.0)
        keep(store, project, found)
        assert latest(store, project) == found


def test_one_that_was_measured_in_another_way_is_not_read(store: Store, grouped: str) -> None:
    measure_and_keep(store, grouped, now=5.0)
    store.write(lambda connection: connection.execute(update(snapshot).values(method=f"{METHOD}0", result={"a": 1})))
    assert latest(store, grouped) is None


def test_what_came_since_is_counted_with_revisions(store: Store) -> None:
    project = filled(store, HAND)
    found = measure(store, project, now=5.0)
    again = replace(HAND[0], id="again", ranks=(3, 2, 1), replaces=HAND[0].id)
    about = Candidates(
        Prompt.user("How is house?"),
        tuple(Completion(f"answer {id_} in some words", id=id_) for id_ in again.completions),
    )
    record(store, project, [about], [replace(again, prompt=about.prompt.id)], now=6.0)
    later = measure(store, project, now=7.0)
    assert (later.judgments, num_rows(store, project) - found.rows) == (4, 1)
    assert later.inputs != found.inputs
