"""What leads decide, on either database: once, by one of them, about what people have judged; and gold items of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.feedback.store.people import judge, judge_as, project_of
from tuneful.errors import MissingError, StoreError
from tuneful.feedback.assignment import claim
from tuneful.feedback.consensus import consensus
from tuneful.feedback.decisions import decide, decisions, make_gold, mend_gold
from tuneful.feedback.items import candidates
from tuneful.feedback.projects import add_rater, judgments, progress, set_quiz
from tuneful.feedback.review import look
from tuneful.feedback.settling import settle
from tuneful.feedback.store import Store
from tuneful.records import JudgmentKind


def test_a_decision_is_kept_as_it_was_made_and_so_is_the_one_that_replaces_it(store: Store) -> None:
    project, (first, second) = project_of(store)
    for ranks in ((1, 2, 3), (3, 2, 1)):
        judge(store, project, ranks=ranks)
    lead = add_rater(store, project, role="lead", now=0.0)
    one = decide(store, first, by=lead, ranks=(2, 1, 2), why="Say no.", now=10.0)
    two = decide(store, first, by=lead, ranks=(1, 2, 2), why="Say yes.", replaces=one, now=11.0)
    three = decide(store, second, by=lead, ranks=(1, 1, 1), now=12.0)
    made = decisions(store, project)
    assert [(m.id, m.item, m.ranks, m.why, m.rater, m.replaces) for m in made] == [
        (one, first, (2, 1, 2), "Say no.", lead, None),
        (two, first, (1, 2, 2), "Say yes.", lead, one),
        (three, second, (1, 1, 1), "", lead, None),
    ]
    assert made[0].created_at == "1970-01-01T00:00:10.000+00:00"
    texts = {c.id: c.text for item in candidates(store, project) for c in item.completions}
    assert [texts[one] for one in made[0].completions] == ["yes", "no", "maybe"]
    settled = settle(consensus(judgments(store, project)), made)
    ahead = {(texts[pair.first], texts[pair.second]) for pair in settled.pairs if pair.item == first and pair.p == 1}
    assert ahead == {("yes", "no"), ("yes", "maybe")}


@pytest.mark.parametrize(
    ("kind", "answer", "told"),
    [
        ("ranking", {"ranks": (1, 2)}, "2 ranks for 3 answers"),
        ("ranking", {}, "0 ranks for 3 answers"),
        ("ranking", {"ranks": (0, 1, 2)}, "from 1"),
        ("ranking", {"ranks": (1, 2, 3), "values": {"x": 1.0}}, "ranks for 3"),
        ("binary", {"values": {"helpful": 0.5}}, "0 or 1"),
        ("binary", {"values": {"honest": 1.0}}, "helpful"),
        ("binary", {"ranks": (1,), "values": {"helpful": 1.0}}, "one number"),
        ("rating", {"values": {"helpful": 3.0}}, "one number to each of 3"),
        ("demonstration", {}, "written"),
    ],
    ids=str,
)
def test_an_answer_that_does_not_fit_is_refused(
    store: Store, kind: JudgmentKind, answer: dict[str, Any], told: str
) -> None:
    texts = ("yes",) if kind == "binary" else ("yes", "no", "maybe")
    project, (item, _) = project_of(store, kind=kind, texts=texts)
    rater = said_something(store, project, kind)
    with pytest.raises(StoreError, match=told):
        decide(store, item, by=rater, **answer, now=1.0)
    assert decisions(store, project) == []


def said_something(store: Store, project: str, kind: JudgmentKind) -> str:
    said: dict[str, Any] = {
        "ranking": {"ranks": (1, 2, 3)},
        "binary": {"values": {"helpful": 1.0}},
        "rating": {"points": 1},
        "demonstration": {"text": "written"},
    }[kind]
    return judge(store, project, **said)


def test_what_cannot_be_decided_is_refused(store: Store) -> None:
    project, (item, _) = project_of(store)
    lead = add_rater(store, project, role="lead", now=0.0)
    with pytest.raises(StoreError, match="nobody has judged"):
        decide(store, item, by=lead, ranks=(1, 2, 3), now=1.0)
    with pytest.raises(MissingError, match="nothing"):
        decide(store, "nothing", by=lead, ranks=(1, 2, 3), now=1.0)
    judge(store, project, ranks=(1, 2, 3))
    with pytest.raises(StoreError, match="decided a moment ago"):
        decide(store, item, by=lead, ranks=(1, 2, 3), replaces="nothing", now=1.0)
    with pytest.raises(StoreError, match="NUL"):
        decide(store, item, by=lead, ranks=(1, 2, 3), why="\x00", now=1.0)
    with pytest.raises(StoreError, match="decide the item first"):
        make_gold(store, item, by=lead, why="", now=1.0)


def test_of_two_leads_who_decide_at_once_one_is_told(store: Store) -> None:
    project, (item, _) = project_of(store)
    lead = judge(store, project, ranks=(1, 2, 3))

    def one(n: int) -> str:
        try:
            return decide(store, item, by=lead, ranks=(1, 2, 3), now=float(n))
        except StoreError as error:
            return f"refused: {error}"

    with ThreadPoolExecutor(6) as threads:
        came = list(threads.map(one, range(6)))
    assert [made.id for made in decisions(store, project)] == [one for one in came if not one.startswith("refused")]
    assert sum("decided a moment ago" in one for one in came) == 5


def test_a_gold_item_of_a_decided_one_is_a_copy_that_hurts_nobody(store: Store) -> None:
    project, (item, _) = project_of(store, overlap=3)
    ann, ben = (judge(store, project, ranks=ranks) for ranks in ((1, 2, 3), (3, 2, 1)))
    before = progress(store, project), judgments(store, project)
    decide(store, item, by=ann, ranks=(2, 1, 3), why="No.", now=5.0)
    made = make_gold(store, item, by=ann, why="Because.", now=6.0)
    seen = look(store, project, made)
    assert made != item
    assert [answer.text for answer in seen.answers] == ["yes", "no", "maybe"]
    assert seen.gold == {"ranks": [2, 1, 3], "values": {}, "why": "Because.", "copy_of": item}
    assert look(store, project, item).copy == made
    assert (progress(store, project), judgments(store, project)) == before
    set_quiz(store, project, quiz=1, pass_share=1.0, now=7.0)
    given = claim(store, project, ben, now=8.0)  # who judged the item can still pass a quiz of its copy
    assert given is not None
    assert (given.item, given.quiz) == (made, True)
    judge_as(store, project, ben, ranks=(2, 1, 3))
    set_quiz(store, project, quiz=0, gold_every=2, now=9.0)
    judge(store, project, ranks=(1, 1, 2))  # meets it outside of the quiz, as the second
    assert sorted(word.quiz for word in look(store, project, made).words) == [False, True]
    assert {one.item for one in judgments(store, project)} == {one.item for one in before[1]}
    with pytest.raises(StoreError, match="already"):
        make_gold(store, item, by=ann, why="", now=10.0)
    with pytest.raises(StoreError, match="known"):
        decide(store, made, by=ann, ranks=(1, 2, 3), now=10.0)


def test_a_gold_item_of_ratings_names_its_own_answers(store: Store) -> None:
    project, (item, _) = project_of(store, kind="rating")
    ids = [answer.id for answer in look(store, project, item).answers]
    ann = judge(store, project, points=4)
    decide(store, item, by=ann, values=dict(zip(ids, (1.0, 2.0, 3.0), strict=True)), now=5.0)
    seen = look(store, project, make_gold(store, item, by=ann, why="", now=6.0))
    assert seen.gold is not None
    assert [seen.gold["values"][answer.id] for answer in seen.answers] == [1.0, 2.0, 3.0]


def test_a_known_answer_can_be_mended(store: Store) -> None:
    project, (item, _) = project_of(store)
    ann = judge(store, project, ranks=(1, 2, 3))
    decide(store, item, by=ann, ranks=(2, 1, 3), now=5.0)
    made = make_gold(store, item, by=ann, why="", now=6.0)
    mend_gold(store, made, by=ann, ranks=(1, 2, 2), why="Yes.", now=7.0)
    assert look(store, project, made).gold == {"ranks": [1, 2, 2], "values": {}, "why": "Yes.", "copy_of": item}
    with pytest.raises(StoreError, match="no gold item"):
        mend_gold(store, item, by=ann, ranks=(1, 2, 2), why="", now=7.0)
    with pytest.raises(StoreError, match="2 ranks for 3"):
        mend_gold(store, made, by=ann, ranks=(1, 2), why="", now=7.0)
