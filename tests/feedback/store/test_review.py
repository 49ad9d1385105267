"""What a lead looks at, on either database: which items stand in which table, and how people do on the gold ones."""

from __future__ import annotations

import uuid

import pytest

from tests.feedback.store.people import judge, project_of
from tuneful.errors import MissingError
from tuneful.feedback.assignment import claim, skip
from tuneful.feedback.decisions import decide, make_gold
from tuneful.feedback.gold import Gold
from tuneful.feedback.items import add_gold, add_items
from tuneful.feedback.overview import agreement
from tuneful.feedback.projects import add_rater, set_quiz
from tuneful.feedback.quality import measure
from tuneful.feedback.review import PAGE, known_items, lines, look
from tuneful.feedback.store import Store
from tuneful.feedback.submission import Said, submit
from tuneful.records import Candidates, Completion, Prompt


def asked(prompt: str) -> Candidates:
    return Candidates(Prompt(prompt), tuple(Completion(text, id=text) for text in ("a", "b", "c")))


def test_each_table_has_its_items(store: Store) -> None:
    project, items = project_of(store, 5)
    ann = judge(store, project, ranks=(1, 2, 3))
    decide(store, items[1], by=ann, ranks=(1, 2, 3), now=3.0)
    gold = make_gold(store, items[1], by=ann, why="", now=3.0)
    ben = add_rater(store, project, now=3.0)
    given = claim(store, project, ben, now=3.0)
    assert given is not None
    flags = {given.shown_order[0]: ("error",)}
    submit(store, given.id, ben, Said(id="b" * 32, ranks=(3, 2, 1), flags=flags, values={}), now=4.0)
    doubts = {items[0]: 0.2, items[1]: 0.5, items[2]: 0.4, items[3]: 0.05, items[4]: 0.4}

    def shown(show: str) -> tuple[list[str], int]:
        rows, total = lines(store, project, show, doubts)  # type: ignore[arg-type]
        return [row.item for row in rows], total

    assert shown("all") == ([*items, gold], 6)
    assert shown("decided") == ([items[1]], 1)
    assert shown("flagged") == ([given.item], 1)
    assert shown("gold") == ([gold], 1)
    assert shown("unsure") == ([*sorted((items[2], items[4])), items[0]], 3)  # most doubtful first, decided ones out
    of = {row.item: row for row in lines(store, project, "all", doubts)[0]}
    assert (of[items[0]].submitted, of[items[0]].flagged, of[items[0]].doubt) == (2, 1, 0.2)
    assert (of[items[1]].decided, of[items[1]].gold, of[gold].gold, of[gold].doubt) == (True, False, True, None)


def test_a_table_has_pages(store: Store) -> None:
    project, items = project_of(store, PAGE + 3)
    pages = [lines(store, project, "all", {}, page=number) for number in (1, 2, 3)]
    assert [[row.item for row in rows] for rows, _ in pages] == [items[:PAGE], items[PAGE:], []]
    assert [total for _, total in pages] == 3 * [PAGE + 3]
    doubts = {one: 1 - n / 1000 for n, one in enumerate(items)}
    assert [row.item for row in lines(store, project, "unsure", doubts, page=2)[0]] == items[PAGE:]


def test_a_long_prompt_is_cut_in_the_table_and_whole_on_its_page(store: Store) -> None:
    project, _ = project_of(store)
    (known,) = add_gold(store, project, [Gold(asked(1000 * "long "), ranks=(1, 2, 3))], now=0.0)
    (row,) = lines(store, project, "gold", {})[0]
    assert len(row.prompt) < 200
    assert look(store, project, known).prompt[0].content == 1000 * "long "


def test_an_item_shows_who_said_what_in_its_last_revision(store: Store) -> None:
    project, (item, _) = project_of(store)
    ann = add_rater(store, project, now=0.0)
    given = claim(store, project, ann, now=0.0)
    assert given is not None
    assert given.item == item
    for number, ranks in enumerate(((1, 2, 3), (3, 2, 1))):
        word = Said(id=str(number) * 32, ranks=ranks, flags={}, values={}, note=f"note {number}", seconds=3)
        submit(store, given.id, ann, word, now=float(number))
    ben = add_rater(store, project, now=0.0)
    other = claim(store, project, ben, now=2.0)
    assert other is not None
    skip(store, other.id, ben, "cannot tell")
    seen = look(store, project, item)
    (word,) = seen.words
    assert (word.rater, tuple(word.ranks), word.note, word.seconds, word.revised) == (ann, (3, 2, 1), "note 1", 3, True)
    assert seen.skips == ((ben, "cannot tell"),)
    assert [(answer.text, answer.model) for answer in seen.answers] == [
        (text, "secret-model") for text in ("yes", "no", "maybe")
    ]
    other_project, _ = project_of(store)
    with pytest.raises(MissingError):
        look(store, other_project, item)


def test_gold_items_tell_how_many_got_them_right(store: Store) -> None:
    """Of pairs of 1, 2, 3 the labelers have all, two thirds and none right; three of them get another one all wrong."""
    project, _ = project_of(store, 0)
    known = [Gold(asked(f"known {n}"), ranks=ranks) for n, ranks in enumerate(((1, 2, 3), (3, 2, 1)))]
    right, wrong = add_gold(store, project, known, now=0.0)
    set_quiz(store, project, quiz=2, pass_share=0.6, now=0.0)
    for ranks in ((1, 2, 3), (2, 1, 3), (1, 2, 3)):
        rater = add_rater(store, project, now=0.0)
        for item in (right, wrong):
            given = claim(store, project, rater, now=1.0)
            assert given is not None
            assert given.item == item
            for said in (ranks, (1, 1, 1)):  # after the first word the answer is told, so the second counts for nothing
                word = Said(id=str(uuid.uuid4()), ranks=said, flags={}, values={})
                submit(store, given.id, rater, word, now=2.0)
    first, second = known_items(store, project)
    assert (first.item, first.asked, first.right, first.share, first.doubtful) == (
        right,
        3,
        3,
        pytest.approx((1 + 2 / 3 + 1) / 3),
        False,
    )
    assert (second.item, second.asked, second.right, second.doubtful) == (wrong, 3, 0, True)
    assert second.share == pytest.approx((0 + 1 / 3 + 0) / 3)


def test_the_doubt_of_a_ranking_is_that_of_its_least_sure_pair(store: Store) -> None:
    project, items = project_of(store, 2)
    for ranks in ((1, 2, 3), (2, 1, 3)):
        judge(store, project, ranks=ranks)
    seen = agreement(store, project)
    for item in items:
        assert seen.doubts[item] == pytest.approx(1 - min(pair.confidence for pair in seen.pairs[item]))
        texts = {answer.id: answer.text for answer in look(store, project, item).answers}
        (least,) = [pair for pair in seen.pairs[item] if 1 - pair.confidence == seen.doubts[item]]
        assert {texts[least.first], texts[least.second]} == {"yes", "no"}  # the two that they do not agree on


def test_the_doubt_of_yes_or_no_is_the_share_of_the_fewer(store: Store) -> None:
    """Two say yes and one no: the fewer have 1 of 3, and with one voice more on each side 2 of 5."""
    project, items = project_of(store, 1, kind="binary", texts=("a",), overlap=3)
    for value in (1.0, 1.0, 0.0):
        judge(store, project, values={"helpful": value})
    assert agreement(store, project).doubts == {items[0]: pytest.approx(2 / 5)}


def test_a_decided_item_is_not_among_the_hardest(store: Store) -> None:
    project, items = project_of(store, 2)
    raters = [judge(store, project, ranks=ranks) for ranks in ((1, 2, 3), (3, 2, 1))]
    decide(store, items[0], by=raters[0], ranks=(1, 2, 3), now=3.0)
    assert {hard.pair.item for hard in agreement(store, project).hardest} == {items[1]}


def test_answers_that_read_the_same_are_not_in_doubt(store: Store) -> None:
    """Two labelers are at one on "yes" before "no", and of "yes" and "yes" each puts another one first."""
    project, (item,) = project_of(store, 1)
    twice = Candidates(Prompt("twice"), tuple(Completion(text, id=str(n)) for n, text in enumerate(("y", "y", "n"))))
    same = Candidates(Prompt("same"), tuple(Completion("y", id=f"same {n}") for n in range(2)))
    mixed, alike = add_items(store, project, [twice, same], overlap=2, now=0.0)
    answers = {one: [answer.id for answer in look(store, project, one).answers] for one in (item, mixed, alike)}
    ranks = {item: [(1, 2, 3), (2, 1, 3)], mixed: [(1, 2, 3), (2, 1, 3)], alike: [(1, 2), (2, 1)]}
    for number in range(2):
        rater = add_rater(store, project, now=0.0)
        while (given := claim(store, project, rater, now=1.0)) is not None:
            word = Said(id=str(uuid.uuid4()), ranks=ranks[given.item][number], flags={}, values={})
            submit(store, given.id, rater, word, now=2.0)
    seen = agreement(store, project)
    assert {hard.pair.item for hard in seen.hardest} == {item, mixed}
    assert all(hard.first != hard.second for hard in seen.hardest)
    assert len(seen.hardest) == 3 + 2
    of = {frozenset((pair.first, pair.second)): pair.confidence for pair in seen.pairs[mixed]}
    first, second, third = answers[mixed]
    assert of[frozenset((first, second))] == pytest.approx(0.5, abs=0.01)
    apart = [of[frozenset((one, third))] for one in (first, second)]
    assert seen.doubts[mixed] == pytest.approx(1 - min(apart))
    assert alike not in seen.doubts
    (ranked,) = measure(store, project, now=3.0).criteria
    assert {hard.item for hard in ranked.hardest} == {item, mixed}
    assert next(hard.confidence for hard in ranked.hardest if hard.item == mixed) == pytest.approx(sum(apart) / 2)
    assert len(seen.pairs[alike]) == 1  # what people said of it is still told on its page
