"""Judgments of a file in the store, and out of it again as they were."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest
from sqlalchemy import select

from tuneful.errors import StoreError
from tuneful.feedback.access import accept, invite
from tuneful.feedback.assignment import claim
from tuneful.feedback.items import candidates
from tuneful.feedback.members import remove_member
from tuneful.feedback.projects import add_rater, create_project, judgments, progress
from tuneful.feedback.recording import record
from tuneful.feedback.store import Store
from tuneful.feedback.tables import membership
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
    said("2", HOUSE, "bo", (2, 1, 2), note="a and c say the same"),
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


def test_what_models_said_takes_no_place(store: Store, project: str) -> None:
    record(store, project, [HOUSE], WORDS[:1], now=5.0)
    by_model = [
        said(id_, about, "judge", (1, 2, 3)[: len(about.completions)]) for id_, about in (("8", HOUSE), ("9", DOOR))
    ]
    record(store, project, [HOUSE, DOOR], [replace(one, rater_kind="ai") for one in by_model], now=6.0)
    assert len(judgments(store, project)) == 3
    seen = progress(store, project)
    # of the house one person was wanted and there; of the door, of which a model alone spoke, one is asked
    assert (seen.have, seen.wanted, seen.done) == (1, 2, 1)
    given = claim(store, project, add_rater(store, project, now=7.0), now=7.0)
    assert given is not None
    assert given.item == "item da"


def test_how_sure_a_model_was_goes_with_the_ids_that_completions_get(store: Store, project: str) -> None:
    record(store, project, [HOUSE], WORDS[:1], now=5.0)
    other = replace(
        DOOR, prompt=Prompt("Another door."), completions=(Completion("a", id="ha"), Completion("c", id="x"))
    )
    sure = {"ha>x": 0.9, "x>ha": 0.3, "sure": 1.0}
    record(store, project, [other], [said("9", other, "judge", (1, 2), rater_kind="ai", values=sure)], now=6.0)
    (kept,) = (one for one in judgments(store, project) if one.id == "9")
    first, second = kept.completions
    assert "ha" not in kept.completions  # which is one of the house's
    assert kept.values == {f"{first}>{second}": 0.9, f"{second}>{first}": 0.3, "sure": 1.0}


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


def test_the_same_judgments_go_into_a_second_project_and_are_the_same_there(store: Store, project: str) -> None:
    """Under ids of their own, by which a revision names what it revises; said again they are not new."""
    second = create_project(store, "harmless", now=5.0)
    words = [replace(word, created_at=f"2026-11-20T10:0{n}:00.000+00:00") for n, word in enumerate(WORDS)]
    for into, at in ((project, 5.0), (second, 6.0)):
        assert record(store, into, [HOUSE, DOOR], words, now=at).judgments == 4
    for into, at in ((second, 7.0), (project, 8.0)):
        assert record(store, into, [HOUSE, DOOR], words, now=at).judgments == 0
    first, copied = (judgments(store, one, all_revisions=True) for one in (project, second))
    assert [one.id for one in first] == ["1", "2", "3", "4"]
    assert not {one.id for one in copied} & {"1", "2", "3", "4"}
    assert [one.replaces for one in copied] == [None, None, None, copied[2].id]
    assert [one.ranks for one in copied] == [one.ranks for one in first]
    assert copied[0].flags == {copied[0].completions[2]: ("unsafe",)}
    assert [c.text for c in candidates(store, second)[0].completions] == ["a", "b", "c"]
    assert copied[0].rater == copied[2].rater != "ann"  # a name that two may have


def test_an_id_that_means_another_judgment_of_the_project_is_refused(store: Store, project: str) -> None:
    record(store, project, [HOUSE], WORDS[:2], now=5.0)
    with pytest.raises(StoreError, match=r'"1".*new id'):
        record(store, project, [HOUSE], [replace(WORDS[0], ranks=(3, 2, 1))], now=6.0)
    assert len(judgments(store, project)) == 2


BO, MODEL = str(uuid.UUID(int=7)), "c44c218155d117b4"
"""Ids as the store gives them to raters."""


def raters_of(store: Store, project: str) -> list[str]:
    return [one.rater for one in judgments(store, project)]


def test_who_judged_two_projects_is_one_person_wherever_both_are_imported(store: Store, project: str) -> None:
    second = create_project(store, "harmless", now=5.0)
    words = [replace(WORDS[0], rater=BO), replace(WORDS[1], rater=MODEL)]
    record(store, project, [HOUSE], words, now=5.0)
    other = [replace(one, id=f"other {one.id}") for one in words]
    assert record(store, second, [HOUSE], other, now=6.0).raters == 2
    assert raters_of(store, second) == raters_of(store, project) == [BO, MODEL]
    assert record(store, second, [HOUSE], other, now=7.0).raters == 0


def test_another_kind_of_rater_is_another_rater(store: Store, project: str) -> None:
    record(store, project, [HOUSE], [replace(WORDS[0], rater=BO)], now=5.0)
    second = create_project(store, "harmless", now=5.0)
    record(store, second, [HOUSE], [replace(WORDS[0], id="9", rater=BO, rater_kind="ai")], now=6.0)
    assert raters_of(store, second) != [BO]


def test_a_file_gives_no_words_and_no_project_to_a_person_with_an_account(store: Store, project: str) -> None:
    link = invite(store, project_id=project, role="lead", now=1.0)
    ada = accept(store, link, login="ada", password="correct horse", name="Ada", now=2.0)
    second = create_project(store, "harmless", now=5.0)
    record(store, second, [HOUSE], [replace(WORDS[0], rater=ada, rater_kind="human")], now=6.0)
    [stranger] = raters_of(store, second)
    assert stranger != ada
    with store.read() as connection:
        joined = connection.scalars(select(membership.c.project).where(membership.c.rater == ada)).all()
    assert joined == [project]


def test_of_a_rater_who_was_removed_what_comes_again_is_not_new(store: Store, project: str) -> None:
    """Neither under the name of the file nor under the one that it has in a second project; nobody comes back by it."""
    second = create_project(store, "harmless", now=5.0)
    for into in (project, second):
        record(store, into, [HOUSE], WORDS[:1], now=5.0)
        remove_member(store, into, raters_of(store, into)[0], now=6.0)
        again = record(store, into, [HOUSE], WORDS[:1], now=7.0)
        assert (again.judgments, again.raters) == (0, 0)
    with store.read() as connection:
        assert connection.scalars(select(membership.c.rater)).all() == []


@pytest.mark.parametrize(
    ("word", "named"),
    [
        (replace(WORDS[0], kind="rating", values={"ha": 3.0}), "rating"),
        (replace(WORDS[0], completions=("x", "hb", "hc")), "no item"),
        (replace(WORDS[0], created_at="yesterday"), "no time"),
    ],
    ids=["kind", "completions", "time"],
)
def test_what_does_not_fit_is_refused_and_nothing_is_taken(
    store: Store, project: str, word: Judgment, named: str
) -> None:
    with pytest.raises(StoreError, match=named):
        record(store, project, [HOUSE, DOOR], [WORDS[1], word], now=5.0)
    assert judgments(store, project) == []
