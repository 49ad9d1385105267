"""Claims and submits on either database: what the rules of the store say, also when many ask at once."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from sqlalchemy import Connection, select, update

from tests.feedback.store.people import within_overlap
from tuneful.errors import StoreError
from tuneful.feedback.assignment import LEASE_SECONDS, claim, extend, save_draft, skip
from tuneful.feedback.gold import Gold
from tuneful.feedback.items import add_gold, add_items
from tuneful.feedback.judgments import read_judgments, write_judgments
from tuneful.feedback.pages import asked_of, judged_everywhere
from tuneful.feedback.projects import (
    Progress,
    add_rater,
    create_project,
    judgments,
    progress,
    progress_of,
    publish_instructions,
    set_overlap,
)
from tuneful.feedback.store import Store
from tuneful.feedback.submission import Said, submit
from tuneful.feedback.tables import assignment, draft, item
from tuneful.records import Candidates, Completion, Prompt

AFTER = LEASE_SECONDS + 1


@pytest.fixture
def project(store: Store) -> str:
    return create_project(store, "helpful", now=0.0)


def candidates(num: int) -> list[Candidates]:
    answers = tuple(Completion(text, id=text) for text in ("yes", "no", "maybe"))
    return [Candidates(Prompt(f"question {k}"), answers) for k in range(num)]


def said(ranks: tuple[int | None, ...] = (1, 2, 3), **more: object) -> Said:
    return Said(**{"id": str(uuid.uuid4()), "ranks": ranks, "flags": {}, "values": {}} | more)  # type: ignore[arg-type]


def test_a_rater_keeps_what_they_have_until_they_judge_it(store: Store, project: str) -> None:
    add_items(store, project, candidates(2), overlap=1, now=0.0)
    ann = add_rater(store, project, now=0.0)
    first = claim(store, project, ann, now=0.0)
    assert first is not None
    assert claim(store, project, ann, now=1.0) == first
    receipt = submit(store, first.id, ann, said(), now=2.0)
    assert (receipt.counted, receipt.late, receipt.again) == (True, False, False)
    second = claim(store, project, ann, now=3.0)
    assert second is not None
    assert second.item != first.item
    submit(store, second.id, ann, said(), now=4.0)
    assert claim(store, project, ann, now=5.0) is None
    assert progress(store, project).done == 2


def test_nothing_is_left_only_where_nothing_is_left(store: Store, project: str) -> None:
    """Another transaction holds the only open item, to move it in the queue: the claim waits for it."""
    (only,) = add_items(store, project, candidates(1), overlap=1, now=0.0)
    ann, holds = add_rater(store, project, now=0.0), Event()

    def move(connection: Connection) -> None:
        connection.execute(update(item).where(item.c.id == only).values(priority=1))
        holds.set()
        time.sleep(0.3)

    with ThreadPoolExecutor(1) as beside:
        moved = beside.submit(store.write, move)
        assert holds.wait(10)
        given = claim(store, project, ann, now=1.0)
        moved.result()
    assert given is not None and given.item == only


def test_saying_it_again_is_saying_it_once(store: Store, project: str) -> None:
    add_items(store, project, candidates(1), overlap=2, now=0.0)
    ann = add_rater(store, project, now=0.0)
    given = claim(store, project, ann, now=0.0)
    assert given is not None
    word = said()
    assert not submit(store, given.id, ann, word, now=1.0).again
    assert submit(store, given.id, ann, word, now=AFTER).again
    assert [one.id for one in judgments(store, project)] == [word.id]
    assert progress(store, project).have == 1


def test_a_judgment_comes_back_as_it_was_said(store: Store, project: str, tmp_path: Path) -> None:
    """And as a file's row, which is the same record."""
    add_items(store, project, candidates(1), overlap=1, now=0.0)
    ann = add_rater(store, project, now=0.0)
    given = claim(store, project, ann, now=0.0)
    assert given is not None
    flagged = asked_of(store, given.id, ann)[1][1]
    word = said((2, None, 1), flags={flagged: ("unsafe",)}, values={"confidence": 2}, seconds=12.5, note="clear")
    submit(store, given.id, ann, word, now=86_400.25)
    (found,) = judgments(store, project)
    assert (found.id, found.item, found.rater, found.kind) == (word.id, given.item, ann, "ranking")
    assert (found.ranks, found.flags, found.values) == ((2, None, 1), {flagged: ("unsafe",)}, {"confidence": 2})
    assert found.note == "clear"
    assert (found.seconds, found.created_at) == (12.5, "1970-01-02T00:00:00.250+00:00")
    assert found.shown_order == given.shown_order
    write_judgments(tmp_path / "judgments.jsonl", [found])
    assert read_judgments(tmp_path / "judgments.jsonl") == [found]


def test_a_revision_is_another_row_and_the_last_word_counts(store: Store, project: str) -> None:
    add_items(store, project, candidates(1), overlap=1, now=0.0)
    ann = add_rater(store, project, now=0.0)
    given = claim(store, project, ann, now=0.0)
    assert given is not None
    first, second, third = said((1, 2, 3)), said((3, 2, 1)), said((2, 1, 1))
    submit(store, given.id, ann, first, now=1.0)
    submit(store, given.id, ann, second, now=2.0)
    (latest,) = judgments(store, project)
    assert (latest.ranks, latest.replaces) == ((3, 2, 1), first.id)
    with pytest.raises(StoreError, match="the latest is"):
        submit(store, given.id, ann, said(replaces=first.id), now=3.0)
    submit(store, given.id, ann, third, now=4.0)
    (latest,) = judgments(store, project)
    assert (latest.id, latest.replaces) == (third.id, second.id)
    assert progress(store, project).have == 1


def test_a_lease_that_is_over_is_free_and_late_work_is_kept(store: Store, project: str) -> None:
    add_items(store, project, candidates(1), overlap=1, now=0.0)
    ann, bob = (add_rater(store, project, now=0.0) for _ in range(2))
    of_ann = claim(store, project, ann, now=0.0)
    assert of_ann is not None
    assert claim(store, project, bob, now=LEASE_SECONDS - 1) is None
    of_bob = claim(store, project, bob, now=AFTER)
    assert of_bob is not None
    assert of_bob.item == of_ann.item
    late = submit(store, of_ann.id, ann, said(), now=AFTER)
    assert (late.counted, late.late) == (False, True)
    assert submit(store, of_bob.id, bob, said(), now=AFTER + 1).counted
    assert len(judgments(store, project)) == 2
    assert within_overlap(store, project) == [(of_bob.item, bob)]


def test_late_work_counts_while_there_is_room(store: Store, project: str) -> None:
    add_items(store, project, candidates(1), overlap=1, now=0.0)
    ann = add_rater(store, project, now=0.0)
    given = claim(store, project, ann, now=0.0)
    assert given is not None
    receipt = submit(store, given.id, ann, said(), now=AFTER)
    assert (receipt.counted, receipt.late) == (True, True)


def test_late_work_under_an_old_lease_finds_the_new_one(store: Store, project: str) -> None:
    """The page was offline, its rater opened the item once more elsewhere, then the outbox arrived, and again."""
    add_items(store, project, candidates(1), overlap=1, now=0.0)
    ann = add_rater(store, project, now=0.0)
    old, new = claim(store, project, ann, now=0.0), claim(store, project, ann, now=AFTER)
    assert old is not None
    assert new is not None
    assert (new.item, new.id != old.id) == (old.item, True)
    word = said((3, 2, 1))
    receipt = submit(store, old.id, ann, word, now=AFTER + 1)
    assert (receipt.counted, receipt.late, receipt.again) == (True, True, False)
    assert submit(store, old.id, ann, word, now=AFTER + 2).again
    submit(store, new.id, ann, said((1, 2, 3)), now=AFTER + 3)
    (latest,) = judgments(store, project)
    assert (latest.ranks, latest.replaces) == ((1, 2, 3), word.id)
    assert progress(store, project).have == 1


def test_a_revision_of_nothing_is_refused(store: Store, project: str) -> None:
    add_items(store, project, candidates(1), overlap=1, now=0.0)
    ann = add_rater(store, project, now=0.0)
    given = claim(store, project, ann, now=0.0)
    assert given is not None
    with pytest.raises(StoreError, match="there is none yet"):
        submit(store, given.id, ann, said(replaces="elsewhere"), now=1.0)
    assert progress(store, project).have == 0


def test_a_lease_is_extended_while_nobody_else_has_the_place(store: Store, project: str) -> None:
    add_items(store, project, candidates(1), overlap=1, now=0.0)
    ann, bob = (add_rater(store, project, now=0.0) for _ in range(2))
    given = claim(store, project, ann, now=0.0)
    assert given is not None
    assert extend(store, given.id, ann, now=100.0) == 100.0 + LEASE_SECONDS
    assert extend(store, given.id, ann, now=1_000.0) == 1_000.0 + LEASE_SECONDS
    assert claim(store, project, bob, now=3_000.0) is not None
    with pytest.raises(StoreError, match="another rater"):
        extend(store, given.id, ann, now=3_001.0)


def test_a_slow_reader_has_three_times_their_median(store: Store, project: str) -> None:
    add_items(store, project, candidates(6), overlap=1, now=0.0)
    ann = add_rater(store, project, now=0.0)
    for seconds in (300.0, 1_000.0, 400.0, 10.0, 1_000.0):
        given = claim(store, project, ann, now=0.0)
        assert given is not None
        submit(store, given.id, ann, said(seconds=seconds), now=0.0)
    given = claim(store, project, ann, now=0.0)
    assert given is not None
    assert given.lease_until == 1_200.0


def test_a_skipped_item_is_for_others(store: Store, project: str) -> None:
    add_items(store, project, candidates(1), overlap=1, now=0.0)
    ann, bob = (add_rater(store, project, now=0.0) for _ in range(2))
    given = claim(store, project, ann, now=0.0)
    assert given is not None
    skip(store, given.id, ann)
    assert claim(store, project, ann, now=1.0) is None
    assert claim(store, project, bob, now=1.0) is not None


def test_priority_before_age(store: Store, project: str) -> None:
    add_items(store, project, candidates(2), overlap=1, now=0.0)
    (urgent,) = add_items(store, project, [candidates(3)[2]], overlap=1, priority=5, now=1.0)
    given = claim(store, project, add_rater(store, project, now=0.0), now=2.0)
    assert given is not None
    assert given.item == urgent


def test_orders_on_the_screen_differ_and_stay(store: Store, project: str) -> None:
    """Of 3 completions each of 40 raters sees one of 6 orders; all would see one and the same by chance 6 ** -39."""
    add_items(store, project, candidates(1), overlap=40, now=0.0)
    orders = []
    for _ in range(40):
        rater = add_rater(store, project, now=0.0)
        given = claim(store, project, rater, now=0.0)
        assert given is not None
        assert claim(store, project, rater, now=1.0) == given
        orders.append(given.shown_order)
    assert len(set(orders)) > 1
    assert len({tuple(sorted(order)) for order in orders}) == 1


def test_the_version_that_was_seen_is_stored(store: Store, project: str) -> None:
    add_items(store, project, candidates(1), overlap=1, now=0.0)
    ann = add_rater(store, project, now=0.0)
    old = publish_instructions(store, project, "Prefer the shorter answer.", now=0.0)
    given = claim(store, project, ann, now=1.0)
    assert given is not None
    new = publish_instructions(store, project, "Prefer the truer answer.", now=2.0)
    assert publish_instructions(store, project, "Prefer the truer answer.", now=3.0) == new != old
    submit(store, given.id, ann, said(), now=4.0)
    assert judgments(store, project)[0].instructions == old


def test_a_draft_is_kept_until_the_judgment(store: Store, project: str) -> None:
    add_items(store, project, candidates(1), overlap=1, now=0.0)
    ann = add_rater(store, project, now=0.0)
    given = claim(store, project, ann, now=0.0)
    assert given is not None
    for ranks in ([1], [1, 2]):
        save_draft(store, given.id, ann, {"ranks": ranks}, now=1.0)
    with store.read() as connection:
        assert connection.execute(select(draft.c.content)).scalar_one() == {"ranks": [1, 2]}
    submit(store, given.id, ann, said(), now=2.0)
    with store.read() as connection:
        assert connection.execute(select(draft)).first() is None


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ({"ranks": (1, 2)}, "2 ranks for 3 completions"),
        ({"flags": {"elsewhere": ("unsafe",)}}, "no completion of the item"),
    ],
)
def test_what_does_not_fit_is_refused_whole(store: Store, project: str, word: dict[str, object], told: str) -> None:
    add_items(store, project, candidates(1), overlap=1, now=0.0)
    ann = add_rater(store, project, now=0.0)
    given = claim(store, project, ann, now=0.0)
    assert given is not None
    with pytest.raises(StoreError, match=told):
        submit(store, given.id, ann, said(**word), now=1.0)  # type: ignore[arg-type]
    assert judgments(store, project) == []
    assert progress(store, project).have == 0


def test_strangers_are_refused(store: Store, project: str) -> None:
    add_items(store, project, candidates(1), overlap=1, now=0.0)
    ann, bob = (add_rater(store, project, now=0.0) for _ in range(2))
    other = add_rater(store, create_project(store, "harmless", now=0.0), now=0.0)
    given = claim(store, project, ann, now=0.0)
    assert given is not None
    with pytest.raises(StoreError, match="no member"):
        claim(store, project, other, now=0.0)
    with pytest.raises(StoreError, match="no such project"):
        claim(store, "nowhere", ann, now=0.0)
    with pytest.raises(StoreError, match="not one of rater"):
        submit(store, given.id, bob, said(), now=1.0)
    word = said()
    submit(store, given.id, ann, word, now=1.0)
    with pytest.raises(StoreError, match="belongs to another"):
        submit(store, "elsewhere", ann, word, now=1.0)


def test_many_at_once_never_pass_the_overlap(store: Store, project: str) -> None:
    """12 raters in 6 threads, 10 items of 3 raters each: 30 judgments, no item more than 3, nobody one item twice."""
    add_items(store, project, candidates(10), overlap=3, now=0.0)
    raters = [add_rater(store, project, now=0.0) for _ in range(12)]

    def works(rater: str) -> int:
        num = 0
        while (given := claim(store, project, rater, now=1.0)) is not None:
            assert submit(store, given.id, rater, said(), now=2.0).counted
            num += 1
        return num

    with ThreadPoolExecutor(6) as pool:
        num_judged = sum(pool.map(works, raters))
    found = judgments(store, project)
    assert num_judged == len(found) == 30
    assert set(Counter(one.item for one in found).values()) == {3}
    assert len({(one.item, one.rater) for one in found}) == 30
    with store.read() as connection:
        assert connection.execute(select(item.c.id).where(item.c.submitted != 3)).first() is None
        assert connection.execute(select(assignment.c.id).where(assignment.c.state != "submitted")).first() is None


def test_one_rater_in_many_tabs_has_one_item(store: Store, project: str) -> None:
    add_items(store, project, candidates(20), overlap=2, now=0.0)
    ann = add_rater(store, project, now=0.0)
    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(lambda _: claim(store, project, ann, now=1.0), range(16)))
    assert len({one.id for one in given if one is not None}) == 1
    assert None not in given


def test_a_word_said_many_times_at_once_is_stored_once(store: Store, project: str) -> None:
    add_items(store, project, candidates(1), overlap=3, now=0.0)
    ann = add_rater(store, project, now=0.0)
    given = claim(store, project, ann, now=0.0)
    assert given is not None
    word, assigned = said(), given.id
    with ThreadPoolExecutor(8) as pool:
        receipts = list(pool.map(lambda _: submit(store, assigned, ann, word, now=1.0), range(16)))
    assert sorted(receipt.again for receipt in receipts) == [False] + [True] * 15
    assert all(receipt.counted for receipt in receipts)
    assert progress(store, project).have == len(judgments(store, project)) == 1


def test_items_come_once(store: Store, project: str) -> None:
    first = add_items(store, project, candidates(2), overlap=1, now=0.0)
    assert add_items(store, project, candidates(3), overlap=1, now=1.0)[:2] == first
    assert progress(store, project).items == 3


def test_a_project_name_is_taken_once(store: Store, project: str) -> None:
    with pytest.raises(StoreError, match="helpful"):
        create_project(store, "helpful", now=1.0)


def test_how_far_projects_are_is_told_of_each(store: Store, project: str) -> None:
    """Two items for three people each, of which one person judged one; none; one for two people, at most five."""
    other, third = create_project(store, "empty", now=0.0), create_project(store, "grows", now=0.0)
    ids = add_items(store, project, candidates(2), overlap=3, now=0.0)
    known = Candidates(Prompt("gold"), (Completion("yes"), Completion("no")))
    add_gold(store, project, [Gold(known, ranks=(1, 2), why="")], now=0.0)
    add_items(store, third, candidates(1), overlap=2, now=0.0)
    set_overlap(store, third, most=5, sure=0.9, now=0.0)
    ann = add_rater(store, project, now=0.0)
    given = claim(store, project, ann, now=0.0)
    assert given is not None
    assert given.item in ids
    submit(store, given.id, ann, said(), now=1.0)
    assert progress_of(store, [project, other, third]) == {
        project: Progress(items=2, done=0, wanted=6, up_to=6, have=1),
        other: Progress(items=0, done=0, wanted=0, up_to=0, have=0),
        third: Progress(items=1, done=0, wanted=2, up_to=5, have=0),
    }
    assert judged_everywhere(store, ann) == {project: 1}


def test_an_order_of_some_answers_alone_is_refused_and_takes_no_place(store: Store, project: str) -> None:
    add_items(store, project, candidates(1), overlap=1, now=0.0)
    ann = add_rater(store, project, now=0.0)
    given = claim(store, project, ann, now=0.0)
    assert given is not None
    names = asked_of(store, given.id, ann)[1]
    with pytest.raises(StoreError, match=f'no rank for "{names[1]}", "{names[2]}"; give one to each answer'):
        submit(store, given.id, ann, said((1, None, None)), now=1.0)
    assert submit(store, given.id, ann, said(), now=2.0).counted
