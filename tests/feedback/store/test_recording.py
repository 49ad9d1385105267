"""Judgments of a file in the store, and out of it again as they were."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tuneful.errors import StoreError
from tuneful.feedback.assignment import claim
from tuneful.feedback.items import candidates
from tuneful.feedback.projects import add_rater, create_project, judgments, progress
from tuneful.feedback.recording import record
from tuneful.feedback.store import Store
from tuneful.records import Candidates, Completion, Judgment, Prompt

HOUSE = Candidates(Prompt.user("My house is too hot."), tuple(Completion(text, id=f"h{text}") for text in "abc"))
DOOR = Candidates(Prompt.user("The door squeaks."), tuple(Completion(text, id=f"d{text}") for text in "ab"))


def said(id_: str, about: Candidates, rater: str, ranks: tuple[int, ...], **more: object) -> Judgment:
    ids = tuple(c.id for c in about.completions)
    whole: dict[str, object] = {"id": id_, "item": f"item {ids[0]}", "prompt": about.prompt.id, "completions": ids}
    whole |= {"rater": rater, "rater_kind": "simulated", "ranks": ranks, "shown_order": ids[::-1], "seconds": 3.5}
    whole |= {"instructions": "guide-1"}
    return Judgment(**whole | {"created_at": "2026-11-20T10:00:00.000+00:00"} | more)  # type: ignore[arg-type]


WORDS = [
    said("1", HOUSE, "ann", (1, 2, 3), flags={"hc": ("unsafe",)}),
    said("2", HOUSE, "bo", (2, 1, 2)),
    said("3", DOOR, "ann", (2, 1), values={"sure": 0.5}),
    said("4", DOOR, "ann", (1, 2), replaces="3", created_at="2026-11-20T10:01:00.000+00:00"),
]


@pytest.fixture
def project(store: Store) -> str:
    return create_project(store, "helpful", now=0.0)


def test_ids_ranks_and_times_come_back_as_they_were(store: Store, project: str) -> None:
    new = record(store, project, [HOUSE, DOOR], WORDS, now=5.0)
    assert (new.judgments, new.items, new.raters) == (4, 2, 2)
    assert judgments(store, project) == [WORDS[0], WORDS[1], WORDS[3]]  # the third was revised
    assert candidates(store, project) == [HOUSE, DOOR]
    assert progress(store, project).have == progress(store, project).wanted == 3


@pytest.mark.parametrize("keep", [True, False])
def test_an_item_that_is_there_in_another_order_is_ranked_as_it_was_said(
    store: Store, project: str, *, keep: bool
) -> None:
    """b before c before a, told of answers that come c, b, a, by their ids or by others."""
    record(store, project, [HOUSE], WORDS[:1], now=5.0)
    turned = replace(HOUSE, completions=HOUSE.completions[::-1])
    if not keep:
        turned = replace(turned, completions=tuple(replace(c, id=f"other {c.id}") for c in turned.completions))
    record(store, project, [turned], [said("9", turned, "cy", (2, 1, 3), item="item ha")], now=6.0)
    (found,) = (one for one in judgments(store, project) if one.id == "9")
    texts = {c.id: c.text for c in HOUSE.completions}
    assert {texts[one]: rank for one, rank in zip(found.completions, found.ranks, strict=True)} == {
        "b": 1,
        "c": 2,
        "a": 3,
    }


def test_room_for_a_person(store: Store, project: str) -> None:
    record(store, project, [HOUSE], WORDS[:2], room=1, now=5.0)
    me = add_rater(store, project, now=5.0)
    assert claim(store, project, me, now=6.0) is not None
    assert progress(store, project).wanted == 3


def test_recording_again_changes_nothing_and_adds_what_is_new(store: Store, project: str) -> None:
    record(store, project, [HOUSE, DOOR], WORDS[:2], now=5.0)
    assert record(store, project, [HOUSE, DOOR], WORDS, now=6.0).judgments == 2
    assert record(store, project, [HOUSE, DOOR], WORDS, now=7.0).judgments == 0
    assert len(judgments(store, project)) == 3


def test_ranks_in_another_order_of_the_same_completions(store: Store, project: str) -> None:
    other = replace(WORDS[1], completions=("hc", "ha", "hb"), ranks=(3, 1, 2))
    record(store, project, [HOUSE], [WORDS[0], other], now=5.0)
    assert judgments(store, project)[1].ranks == (1, 2, 3)


def test_two_projects_may_use_the_same_ids(store: Store, project: str) -> None:
    record(store, project, [HOUSE], WORDS[:2], now=5.0)
    second = create_project(store, "harmless", now=5.0)
    with pytest.raises(StoreError, match=r'"1".*new id'):
        record(store, second, [HOUSE], WORDS[:1], now=6.0)
    record(store, second, [HOUSE], [replace(WORDS[0], id="9")], now=6.0)
    (found,) = judgments(store, second)
    assert found.ranks == (1, 2, 3)
    assert found.rater != "ann"
    assert [c.text for c in candidates(store, second)[0].completions] == ["a", "b", "c"]
    assert len(judgments(store, project)) == 2


@pytest.mark.parametrize(
    ("word", "named"),
    [
        (replace(WORDS[0], kind="rating", values={"ha": 3.0}), "rating"),
        (replace(WORDS[0], completions=("x", "hb", "hc")), "no item"),
    ],
    ids=["kind", "completions"],
)
def test_what_does_not_fit_is_refused_and_nothing_is_taken(
    store: Store, project: str, word: Judgment, named: str
) -> None:
    with pytest.raises(StoreError, match=named):
        record(store, project, [HOUSE, DOOR], [WORDS[1], word], now=5.0)
    assert judgments(store, project) == []
