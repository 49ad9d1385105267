"""Small worlds of bench/causes.py, and extremes made by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from causes import BAD, NUM_GOOD, World, simulate

from tuneful.errors import DataError
from tuneful.feedback.causes import MIN_JUDGMENTS, Cause, _others, causes
from tuneful.feedback.consensus import consensus
from tuneful.feedback.votes import Block
from tuneful.records import Judgment


@cache
def world(seed: int, num_judgments: int = 120) -> World:
    return simulate((*NUM_GOOD * ("good",), *BAD), num_judgments=num_judgments, seed=seed)


@pytest.mark.parametrize("seed", range(2))
def test_causes_are_named_and_good_raters_left_alone(seed: int) -> None:
    seen = world(seed)
    found = seen.causes()
    assert set(found) == set(seen.kinds)
    right = [kind in {c.name for c in found[rater]} for rater, kind in seen.kinds.items() if kind != "good"]
    assert sum(right) >= len(BAD) - 1
    assert sum(bool(found[rater]) for rater, kind in seen.kinds.items() if kind == "good") <= 1


def test_nothing_is_said_on_a_handful_of_judgments() -> None:
    seen = world(0)
    rows = sorted((j for j in seen.judgments if j.criterion == "helpful"), key=lambda j: (j.item, j.id))
    kept: dict[str, int] = {}
    few = []
    for j in rows:
        kept[j.rater] = kept.get(j.rater, 0) + 1
        if kept[j.rater] < MIN_JUDGMENTS:
            few.append(j)
    assert set(causes(few, consensus(few), seen.lengths).values()) == {()}


def test_order_of_judgments_means_nothing_to_causes() -> None:
    seen = world(0, 40)
    rows = [j for j in seen.judgments if j.criterion == "helpful"]
    shuffled = [rows[n] for n in np.random.default_rng(0).permutation(len(rows))]
    assert causes(shuffled, consensus(rows), seen.lengths) == causes(rows, consensus(rows), seen.lengths)


GOOD = ("ann", "ben", "cid", "dan", "eva")
NUM_ITEMS = 120
VALUES = np.random.default_rng(7).normal(size=(600, 4))
WORDS = np.random.default_rng(8).integers(20, 200, size=(600, 4))


def crowd(
    rank: Callable[[int, tuple[int, ...]], tuple[int, ...]],
    *,
    criterion: str = "preference",
    num_items: int = NUM_ITEMS,
    late_noise: float = 0.7,
) -> list[Judgment]:
    """Five who rank by value with a little noise, and Fay, who ranks by `rank` of the item and the shown positions."""
    rng = np.random.default_rng(3)
    rows = []
    for item in range(num_items):
        late = 2 * item >= num_items
        ids = tuple(f"{item}-{k}" for k in range(4))
        for rater in (*GOOD, "fay"):
            shown = tuple(int(k) for k in rng.permutation(4))
            noise = late_noise if late else 0.7
            noisy = np.argsort(np.argsort(-VALUES[item] - noise * rng.gumbel(size=4))) + 1
            rows.append(
                Judgment(
                    id=f"{criterion}-{item}-{rater}",
                    item=f"i{item}",
                    prompt=f"p{item}",
                    completions=ids,
                    rater=rater,
                    ranks=rank(item, shown) if rater == "fay" else tuple(noisy.tolist()),
                    criterion=criterion,
                    shown_order=tuple(ids[k] for k in shown),
                    seconds=float(60 * rng.lognormal(sigma=0.3)),
                    instructions="v2" if late else "v1",
                    created_at=f"2026-0{2 if late else 1}-01T00:00:00+00:00",
                )
            )
    return rows


LENGTHS = {f"{i}-{k}": float(words) for (i, k), words in np.ndenumerate(WORDS)}


def of_fay(rows: list[Judgment]) -> tuple[Cause, ...]:
    """Fay's causes, where nobody else has any."""
    found = causes(rows, consensus(rows), LENGTHS)
    assert {rater: told for rater, told in found.items() if told and rater != "fay"} == {}
    return found["fay"]


def by_value(item: int, shown: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(r) + 1 for r in np.argsort(np.argsort(-VALUES[item])))


def guess(item: int, shown: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(r) + 1 for r in np.random.default_rng(item).permutation(4))


def test_who_knows_the_truth_is_not_accused() -> None:
    assert of_fay(crowd(by_value)) == ()


def test_upside_down() -> None:
    (cause,) = of_fay(crowd(upside_down))
    assert cause.name == "inverted"
    assert cause.interval[0] < cause.effect < cause.interval[1] < -0.5
    assert "the other way round" in cause.sentence


def test_guessing() -> None:
    (cause,) = of_fay(crowd(guess))
    assert cause.name == "random"
    assert cause.interval[0] < 0 < cause.interval[1] < 0.5


def test_a_noisy_rater_does_not_guess() -> None:
    """Fay is right on two items of ten and guesses the others: far below the others, and shown to be above 0."""
    rows = crowd(lambda item, shown: by_value(item, shown) if item % 10 < 2 else guess(item, shown), num_items=600)
    assert of_fay(rows) == ()


def test_everything_tied() -> None:
    (cause,) = of_fay(crowd(lambda item, shown: (1, 1, 1, 1)))
    assert cause.name == "ties"
    assert (cause.effect, cause.interval) == (1, (1, 1))
    assert cause.sentence == "Ties 100% of pairs; the others tie 0% of them."


@pytest.mark.parametrize(("side", "ends"), [(1, ("first", "last")), (-1, ("last", "first"))])
def test_the_order_of_the_screen(side: int, ends: tuple[str, str]) -> None:
    def rank(item: int, shown: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(shown.index(k) + 1 if side > 0 else 4 - shown.index(k) for k in range(4))

    (cause,) = of_fay(crowd(rank))
    assert cause.name == "position"
    assert side * cause.effect > 0.9
    assert f"the one shown {ends[0]} to the one shown {ends[1]}" in cause.sentence


@pytest.mark.parametrize(("side", "which"), [(1, "longer"), (-1, "shorter")])
def test_the_length_of_texts(side: int, which: str) -> None:
    def rank(item: int, shown: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(int(r) + 1 for r in np.argsort(np.argsort(-side * WORDS[item])))

    (cause,) = of_fay(crowd(rank))
    assert cause.name == "length"
    assert side * cause.effect > 0.7
    assert f"prefers the {which} one" in cause.sentence


def test_without_lengths_and_orders_nothing_is_said_of_them() -> None:
    rows = [replace(j, shown_order=()) for j in crowd(lambda item, shown: shown_ranks(shown))]
    assert [cause.name for cause in causes(rows, consensus(rows))["fay"]] == ["random"]


def shown_ranks(shown: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shown.index(k) + 1 for k in range(4))


def test_all_prefer_the_longer_and_nobody_leans() -> None:
    """Length is what makes an answer good here. One other tells little of an item, so every rater leans to length
    beyond what he tells; none does so beyond the others."""
    rng = np.random.default_rng(0)
    longer = np.log(WORDS) / np.log(WORDS).std()
    rows = []
    for number in range(600):
        for rater in rng.permutation([*GOOD, "fay"])[:2]:
            ranks = np.argsort(np.argsort(-1.7 * longer[number] - rng.gumbel(size=4))) + 1
            rows.append(
                Judgment(
                    id=f"{number}-{rater}",
                    item=f"i{number}",
                    prompt="p",
                    completions=tuple(f"{number}-{k}" for k in range(4)),
                    rater=str(rater),
                    ranks=tuple(ranks.tolist()),
                )
            )
    assert set(causes(rows, consensus(rows), LENGTHS).values()) == {()}


def test_nobody_confirms_himself() -> None:
    """Fay guesses, and says the same guess twice of every item; two good raters are the others."""
    rows = [j for j in crowd(guess) if j.rater in ("ann", "ben", "cid", "fay")]
    again = [replace(j, id=f"{j.id} again") for j in rows if j.rater == "fay"]
    (cause,) = causes([*rows, *again], consensus(rows))["fay"]
    assert cause.name == "random"


def test_others_are_the_next_dozen_of_the_item_in_a_circle() -> None:
    def block(raters: list[int], items: list[int]) -> Block:
        ranks = np.ones((len(raters), 2), np.int64)
        firm = np.full((len(raters), 1), np.nan)
        return Block(("i", "k"), (("a", "b"), ("c", "d")), np.array(items), np.array(raters), ranks, firm)

    ranking, other = _others(block([0, 1, 2, 0, 1], [0, 0, 0, 1, 1]))
    assert sorted(zip(ranking.tolist(), other.tolist(), strict=True)) == [
        *((0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)),
        *((3, 4), (4, 3)),
    ]
    ranking, other = _others(block([0, 0, 1], [0, 0, 0]))  # one who ranked the item twice is not his own other
    assert sorted(zip(ranking.tolist(), other.tolist(), strict=True)) == [(0, 2), (1, 2), (2, 0), (2, 1)]
    ranking, other = _others(block(list(range(40)), 40 * [0]))
    assert np.bincount(ranking).tolist() == 40 * [12]
    assert np.bincount(other).tolist() == 40 * [12]


def test_quick_guesses_are_too_fast_and_quick_insight_is_not() -> None:
    def hurried(rows: list[Judgment]) -> list[Judgment]:
        return [replace(j, seconds=(j.seconds or 0) / 8) if j.rater == "fay" else j for j in rows]

    (cause,) = of_fay(hurried(crowd(guess)))
    assert cause.name == "too fast"
    assert cause.effect == pytest.approx(1 / 8, rel=0.15)
    assert cause.interval[0] < cause.effect < cause.interval[1] < 0.25
    assert of_fay(hurried(crowd(by_value))) == ()


def test_lost_with_the_second_version_of_the_instructions() -> None:
    def rank(item: int, shown: tuple[int, ...]) -> tuple[int, ...]:
        return by_value(item, shown) if 2 * item < NUM_ITEMS else guess(item, shown)

    (cause,) = of_fay(crowd(rank))
    assert cause.name == "changed"
    assert cause.effect < -0.6
    assert cause.sentence.startswith('Since version "v2" of the instructions')


def upside_down(item: int, shown: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(5 - r for r in by_value(item, shown))


def test_upside_down_since_the_second_version_is_a_change() -> None:
    """Over all it is more wrong than right, and yet not inverted: the first version was understood well enough."""

    def rank(item: int, shown: tuple[int, ...]) -> tuple[int, ...]:
        if 2 * item >= 600:
            return upside_down(item, shown)
        return by_value(item, shown) if item % 10 < 6 else guess(item, shown)

    assert [cause.name for cause in of_fay(crowd(rank, num_items=600))] == ["changed"]


def test_who_never_followed_did_not_fall_back() -> None:
    def rank(item: int, shown: tuple[int, ...]) -> tuple[int, ...]:
        return upside_down(item, shown) if 2 * item >= 600 else guess(item, shown)

    assert [cause.name for cause in of_fay(crowd(rank, num_items=600))] == ["inverted"]


def test_a_version_that_is_hard_for_all_is_nobodys_fault() -> None:
    rng = np.random.default_rng(1)

    def rank(item: int, shown: tuple[int, ...]) -> tuple[int, ...]:
        noise = 3.0 if 2 * item >= 600 else 0.7
        return tuple((np.argsort(np.argsort(-VALUES[item] - noise * rng.gumbel(size=4))) + 1).tolist())

    assert of_fay(crowd(rank, num_items=600, late_noise=3.0)) == ()


def test_what_nobody_else_ranked_says_nothing() -> None:
    alone = [
        Judgment(
            id=f"alone {item}",
            item=f"alone {item}",
            prompt="p",
            completions=tuple(f"{item}-{k}" for k in range(4)),
            rater="fay",
            ranks=tuple((np.argsort(np.argsort(-WORDS[item])) + 1).tolist()),
        )
        for item in range(200, 600)
    ]
    assert of_fay(crowd(by_value) + alone) == ()


def test_one_of_two_criteria_upside_down() -> None:
    rows = {"helpful": crowd(by_value, criterion="helpful"), "harmless": crowd(upside_down, criterion="harmless")}
    both = {criterion: consensus(judgments) for criterion, judgments in rows.items()}
    found = causes([j for judgments in rows.values() for j in judgments], both, LENGTHS)
    assert {rater for rater, told in found.items() if told} == {"fay"}
    (cause,) = found["fay"]
    assert cause.name == "one criterion swapped"
    assert 'Turns "harmless" upside down' in cause.sentence
    assert 'not "helpful"' in cause.sentence


def test_nobody_is_accused_by_one_other() -> None:
    """Of two who disagree nobody knows which one is right; a third must speak."""
    rows = [j for j in crowd(upside_down) if j.rater in ("ann", "fay")]
    assert set(causes(rows, consensus(rows)).values()) == {()}


def test_comparisons_are_judged_as_well() -> None:
    rows = [
        replace(
            j,
            id=f"{j.id}-{a}",
            item=f"{j.item}-{a}",
            kind="comparison",
            completions=j.completions[a : a + 2],
            ranks=tuple(int(r) for r in np.argsort(np.argsort(j.ranks[a : a + 2])) + 1),
            shown_order=tuple(c for c in j.shown_order if c in j.completions[a : a + 2]),
        )
        for j in crowd(lambda item, shown: shown_ranks(shown))
        for a in (0, 2)
    ]
    (cause,) = causes(rows, consensus(rows))["fay"]
    assert cause.name == "position"
    assert cause.effect > 0.9


def test_a_crowd_of_hundreds_on_one_item_is_read_in_part() -> None:
    """Gold items are ranked by everybody; the work must not grow with the square of them."""
    rows = []
    rng = np.random.default_rng(0)
    for rater in range(60):
        for item in range(25):
            noisy = np.argsort(np.argsort(-VALUES[item] - 0.7 * rng.gumbel(size=4))) + 1
            ranks = tuple(int(r) for r in (5 - noisy if rater == 0 else noisy))
            ids = tuple(f"{item}-{k}" for k in range(4))
            rows.append(
                Judgment(
                    id=f"{rater}-{item}", item=f"i{item}", prompt="p", completions=ids, rater=f"{rater:02}", ranks=ranks
                )
            )
    found = causes(rows, consensus(rows))
    assert [rater for rater, told in found.items() if told] == ["00"]
    assert found["00"][0].name == "inverted"


def test_of_judgments_that_order_nothing_there_is_nothing_to_say() -> None:
    rows = crowd(by_value)
    rating = replace(rows[0], id="r", kind="rating", ranks=(), rater="gus", criterion="tone", values={"0-0": 3})
    assert set(causes([*rows, rating], consensus(rows))) == {*GOOD, "fay"}
    assert causes([], {}) == {}


def test_what_does_not_fit_is_refused() -> None:
    rows = crowd(by_value)
    found = consensus(rows)
    other = [replace(j, id=f"x{j.id}", criterion="tone") for j in rows]
    with pytest.raises(DataError, match="pass a consensus for each"):
        causes([*rows, *other], found)
    with pytest.raises(DataError, match='no consensus of criterion "tone"'):
        causes(other, {"preference": found})
    stranger = [replace(j, rater="gus") if j.rater == "fay" else j for j in rows]
    with pytest.raises(DataError, match='rater "gus" is not in the consensus'):
        causes(stranger, found)
