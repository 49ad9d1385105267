"""Decisions of a file in the store: each follows on what stands here, or is left out and told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.feedback.store.test_recording import DOOR, HOUSE, WORDS
from tuneful.errors import StoreError
from tuneful.feedback.decisions import decide, decisions
from tuneful.feedback.projects import add_rater, find_project
from tuneful.feedback.recording import Recorded, record_in_named
from tuneful.feedback.settling import Decision
from tuneful.feedback.store import Store

FIRST = Decision(
    id="d1",
    item="item ha",
    prompt=HOUSE.prompt.id,
    completions=("hc", "ha", "hb"),
    criterion="preference",
    rater="ada",
    ranks=(3, 1, 2),
    why="Cooler.",
    created_at="2026-11-20T11:00:00.000+00:00",
)
SECOND = replace(FIRST, id="d2", ranks=(1, 2, 3), replaces="d1", created_at="2026-11-20T12:00:00.000+00:00")


def recorded(store: Store, *made: Decision) -> Recorded:
    return record_in_named(store, "back", [HOUSE, DOOR], WORDS, made, now=5.0)["back"]


def test_a_decision_names_the_answers_that_it_did(store: Store) -> None:
    """The file lists the answers as c, a, b with ranks 3, 1, 2; the item stores a, b, c, whose ranks are 1, 2, 3."""
    assert recorded(store, FIRST).decisions == 1
    stored = replace(FIRST, completions=("ha", "hb", "hc"), ranks=(1, 2, 3))
    assert decisions(store, find_project(store, "back").id) == [stored]


def test_what_replaces_another_comes_after_it_in_whatever_order_the_file_has_them(store: Store) -> None:
    assert recorded(store, SECOND, FIRST).decisions == 2
    assert [(one.id, one.replaces) for one in decisions(store, find_project(store, "back").id)] == [
        *(("d1", None), ("d2", "d1"))
    ]
    again = recorded(store, FIRST, SECOND)
    assert (again.decisions, again.left_out) == (0, ())


def test_the_same_decisions_go_into_a_second_project(store: Store) -> None:
    """Under ids of their own, by which the second names the first; read again they are not new."""
    for name in ("one", "two"):
        made = [record_in_named(store, name, [HOUSE, DOOR], WORDS, [FIRST, SECOND], now=5.0)[name] for _ in range(2)]
        assert [(new.decisions, new.left_out) for new in made] == [(2, ()), (0, ())]
    first, second = (decisions(store, find_project(store, name).id) for name in ("one", "two"))
    assert [one.id for one in first] == ["d1", "d2"]
    assert not {one.id for one in second} & {"d1", "d2"}
    assert [one.replaces for one in second] == [None, second[0].id]
    assert [(one.ranks, one.why) for one in second] == [(one.ranks, one.why) for one in first]


def test_a_decision_at_a_time_that_is_none_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="'yesterday' is no time"):
        recorded(store, replace(FIRST, created_at="yesterday"))


def test_an_item_that_was_decided_here_keeps_its_decision(store: Store) -> None:
    recorded(store, FIRST)
    project = find_project(store, "back").id
    lead = add_rater(store, project, role="lead", now=2e9)
    here = decide(store, "item ha", by=lead, ranks=(1, 1, 1), replaces="d1", now=2e9)
    later = recorded(store, FIRST, SECOND)
    told = 'decision "d2": left out: it does not follow on what was decided of its item here'
    assert (later.decisions, later.left_out) == (0, (told,))
    assert [one.id for one in decisions(store, project)] == ["d1", here]


def test_decisions_that_replace_each_other_are_left_out(store: Store) -> None:
    taken = recorded(store, replace(FIRST, replaces="d2"), SECOND)
    assert (taken.decisions, len(taken.left_out)) == (0, 2)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (replace(FIRST, ranks=(1, 2, 2000)), 'decision "d1": a rank is a number from 1'),
        (replace(FIRST, completions=("hc", "ha", "hx")), 'decision "d1": its completions are not those of its item'),
        (replace(FIRST, completions=("hc", "ha"), ranks=(1, 2)), 'decision "d1": its completions are not'),
    ],
    ids=["rank", "stranger", "too few"],
)
def test_one_that_does_not_fit_is_refused_and_nothing_is_taken(store: Store, wrong: Decision, told: str) -> None:
    with pytest.raises(StoreError, match=told):
        recorded(store, wrong)
    with pytest.raises(StoreError, match="unknown"):
        find_project(store, "back")


def test_an_id_that_means_another_decision_is_refused(store: Store) -> None:
    recorded(store, FIRST)
    with pytest.raises(StoreError, match=r'decision "d1": the id belongs to another one here'):
        recorded(store, replace(FIRST, why="Warmer."))
