from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tuneful.errors import DataError
from tuneful.feedback.scales import implied_rankings, scales
from tuneful.records import Judgment


def rating(rater: str, values: tuple[float, ...], item: str = "i") -> Judgment:
    completions = tuple(f"{item}-{k}" for k in range(len(values)))
    return Judgment(
        id=f"rate {rater} {item}",
        item=item,
        prompt=f"prompt {item}",
        completions=completions,
        rater=rater,
        kind="rating",
        values=dict(zip(completions, values, strict=True)),
    )


def ranking(rater: str, ranks: tuple[int | None, ...], item: str = "i") -> Judgment:
    completions = tuple(f"{item}-{k}" for k in range(len(ranks)))
    return Judgment(
        id=f"rank {rater} {item}",
        item=item,
        prompt=f"prompt {item}",
        completions=completions,
        rater=rater,
        ranks=ranks,
    )


RANKINGS = [ranking("ann", (1, 2, 3)), ranking("ben", (1, 2, 3))]


def test_two_scales_and_one_order_by_hand() -> None:
    """Ann gives 1, 2, 3 and Ben 5, 6, 7 to the same answers.

    Raw: observed squares are 16 three times, twice each in 3 units of 2: mean 16. By chance, of 6 values on 1, 2, 3, 5,
    6, 7: sum of squares 124, sum 24, so 2 (6 * 124 - 24^2) / (6 * 5) = 336 / 30 = 11.2; alpha = 1 - 16 / 11.2 = -3/7.
    Standardised both are -1, 0, 1: full agreement, and so is the order.
    """
    found = scales([rating("ann", (3, 2, 1)), rating("ben", (7, 6, 5)), *RANKINGS])
    assert found.num_items == 1
    assert found.ratings.value == pytest.approx(-3 / 7)
    assert found.ratings.num_units == 3
    assert (found.standardised.value, found.implied.value, found.rankings.value) == pytest.approx((1, 1, 1))
    ann, ben = found.raters
    assert (ann.rater, ann.num_ratings, ann.mean, ann.spread) == ("ann", 3, 2, pytest.approx(1))
    assert (ann.lowest, ann.highest, ann.used) == (1, 3, 3)
    assert (ben.mean, ben.spread) == (6, pytest.approx(1))


def test_implied_rankings_by_hand() -> None:
    (found,) = implied_rankings([rating("ann", (3, 7, 3, 1))])
    assert found.completions == ("i-0", "i-1", "i-2", "i-3")
    assert found.ranks == (2, 1, 2, 4)
    assert (found.rater, found.item, found.prompt, found.kind) == ("ann", "i", "prompt i", "ranking")


def test_ratings_in_several_judgments_are_one_ranking() -> None:
    one = rating("ann", (3,))
    other = replace(one, id="more", completions=("i-1",), values={"i-1": 5})
    (found,) = implied_rankings([one, other])
    assert dict(zip(found.completions, found.ranks, strict=True)) == {"i-0": 2, "i-1": 1}
    assert implied_rankings([one]) == []


def test_orders_that_differ_by_hand() -> None:
    """Ratings turn one pair of three around, 1 - (1/3) / (1/2) = 1/3 (as in test_agreement); rankings agree."""
    found = scales([rating("ann", (7, 5, 1)), rating("ben", (4, 6, 2)), *RANKINGS])
    assert found.implied.value == pytest.approx(1 / 3)
    assert found.rankings.value == 1


def test_a_rater_without_spread_is_left_out_of_the_standardised() -> None:
    rows = [rating("ann", (3, 2, 1)), rating("ben", (7, 6, 5)), rating("cid", (4, 4, 4)), *RANKINGS]
    found = scales(rows, num_resamples=0)
    assert found.raters[2].spread == 0
    assert found.raters[2].used == 1
    assert found.standardised.value == pytest.approx(1)
    assert found.ratings.value is not None  # raw, he counts


def test_alphas_are_of_the_items_that_have_both() -> None:
    apart = [rating("ann", (1, 7), "k"), rating("ben", (7, 1), "k"), ranking("ann", (1, 2), "m")]
    together = [rating("ann", (3, 2, 1)), rating("ben", (7, 6, 5)), *RANKINGS]
    found, without = scales([*together, *apart]), scales(together)
    assert found.num_items == 1
    assert (found.ratings, found.standardised) == (without.ratings, without.standardised)
    assert (found.implied, found.rankings) == (without.implied, without.rankings)
    assert [r.num_ratings for r in found.raters] == [5, 5]  # the table of raters is of all ratings


def test_ratings_alone_say_why_there_is_no_alpha() -> None:
    found = scales([rating("ann", (3, 2, 1))])
    assert found.num_items == 0
    assert found.ratings.value is None
    assert "no item has both" in found.rankings.reason
    assert found.raters[0].mean == 2
    assert scales([rating("ann", (3,))]).raters[0].spread is None


def test_one_completion_each_implies_no_order() -> None:
    rows = [rating("ann", (3,)), rating("ben", (4,)), ranking("ann", (1, 2))]
    assert "two completions of one item" in scales(rows).implied.reason


def test_revisions_and_other_kinds() -> None:
    first = rating("ann", (1, 1, 7))
    last = replace(first, id="later", values={"i-0": 3, "i-1": 2, "i-2": 1}, replaces=first.id)
    shrug = replace(ranking("cid", (1, None, None)), id="shrug")
    found = scales([first, last, rating("ben", (7, 6, 5)), shrug, *RANKINGS])
    assert found.implied.value == 1


def test_order_of_judgments_means_nothing_to_scales() -> None:
    rng = np.random.default_rng(0)
    rows = [
        row
        for n in range(12)
        for rater in ("ann", "ben", "cid")
        for row in (
            rating(rater, tuple(float(v) for v in rng.integers(1, 8, 3)), f"i{n}"),
            ranking(rater, tuple(int(r) for r in rng.integers(1, 4, 3)), f"i{n}"),
        )
    ]
    shuffled = [rows[n] for n in rng.permutation(len(rows))]
    one, other = scales(rows), scales(shuffled)
    assert [r.rater for r in other.raters] == ["ann", "ben", "cid"]
    assert one.num_items == other.num_items == 12
    for name in ("ratings", "standardised", "implied", "rankings"):
        assert getattr(other, name).value == pytest.approx(getattr(one, name).value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (RANKINGS, "none is a rating"),
        ([rating("ann", (1, 2)), rating("ann", (1, 2))], "comes twice"),
        ([rating("ann", (1, 2)), replace(ranking("ann", (1, 2)), criterion="honest")], "several criteria"),
    ],
)
def test_what_has_no_scale_is_refused(rows: list[Judgment], message: str) -> None:
    with pytest.raises(DataError, match=message):
        scales(rows)
