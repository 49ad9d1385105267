from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tuneful.errors import DataError
from tuneful.feedback.agreement import (
    Distance,
    interval,
    krippendorff_alpha,
    nominal,
    ordinal,
    pair_agreement,
    ranking_alpha,
)
from tuneful.records import Judgment

# Four observers, twelve units, missing values: the example of Krippendorff (2011), "Computing Krippendorff's
# Alpha-Reliability", section D, which states the three values below.
OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]


@pytest.mark.parametrize(("distance", "alpha"), [(nominal, 0.743), (ordinal, 0.815), (interval, 0.849)])
def test_published_example(distance: Distance, alpha: float) -> None:
    found = krippendorff_alpha(zip(*OBSERVERS, strict=True), distance)
    assert found.value == pytest.approx(alpha, abs=5e-4)
    assert found.num_units == 11  # the last unit has one value
    assert found.interval is not None
    low, high = found.interval
    assert low < alpha < high <= 1


def test_a_distance_of_ones_own() -> None:
    def within_one(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return (np.abs(values[:, None] - values) > 1).astype(float)

    # 1 and 2 count as equal, so observed disagreement is 0
    assert krippendorff_alpha([[1, 2], [4, 4]], within_one).value == 1


@pytest.mark.parametrize(
    ("units", "reason"), [([[1, 1], [1, 1]], "every value given is the same"), ([[1, None], [2]], "no unit has values")]
)
def test_undefined_alpha_says_why(units: list[list[float | None]], reason: str) -> None:
    found = krippendorff_alpha(units)
    assert found.value is None
    assert found.interval is None
    assert reason in found.reason


def ranking(rater: str, ranks: tuple[int | None, ...], item: str = "i") -> Judgment:
    completions = tuple(f"{item}-{k}" for k in range(len(ranks)))
    return Judgment(id=f"{rater}-{item}", item=item, prompt="p", completions=completions, rater=rater, ranks=ranks)


def test_ranking_alpha_by_hand() -> None:
    # (1, 2, 3) and (2, 1, 3): one pair of three is turned around. Observed 1/3, by chance 1/2, so alpha = 1 - 2/3.
    assert ranking_alpha([ranking("ann", (1, 2, 3)), ranking("ben", (2, 1, 3))]).value == pytest.approx(1 / 3)
    # (1, 1, 2) and (1, 2, 3): on one pair a tie against an order, 1/2; observed 1/6; six votes with one tie, which
    # cannot meet another tie, so chance stays 1/2 and alpha = 1 - 1/3
    assert ranking_alpha([ranking("ann", (1, 1, 2)), ranking("ben", (1, 2, 3))]).value == pytest.approx(2 / 3)
    # (1, 1, 2) twice: nothing observed; chance is below 1/2, two votes of six being ties, but not 0
    assert ranking_alpha([ranking("ann", (1, 1, 2)), ranking("ben", (1, 1, 2))]).value == 1


def test_rankings_turned_around_are_below_chance() -> None:
    assert ranking_alpha([ranking("ann", (1, 2, 3)), ranking("ben", (3, 2, 1))]).value == -1


def test_ranking_alpha_does_not_see_the_stored_order() -> None:
    # the stored order is best first in every item: agreement is full, and chance must not be taken for it
    rows = [ranking(rater, (1, 2, 3), item) for rater in ("ann", "ben") for item in ("i", "k", "m")]
    found = ranking_alpha(rows)
    assert found.value == 1
    assert found.interval == (1, 1)


def test_undefined_ranking_alpha_says_why() -> None:
    assert "no two judgments" in ranking_alpha([ranking("ann", (1, 2))]).reason
    tied = ranking_alpha([ranking("ann", (1, 1)), ranking("ben", (1, 1))])
    assert tied.value is None
    assert "tie" in tied.reason


def test_careful_raters_agree_as_people_do_and_alpha_says_the_same(simulate: Callable[..., Any]) -> None:
    world = simulate(["careful", "careful"], seed=0, num_items=2000, raters_per_item=2)
    one, other = world.kinds
    agreement = pair_agreement(world.judgments, one, other)
    assert agreement.num_pairs == 12_000
    assert agreement.share == pytest.approx(0.73, abs=0.015)
    alpha = ranking_alpha(world.judgments)
    assert alpha.value == pytest.approx(2 * agreement.share - 1)  # no ties, two raters: 1 - (1 - share) / (1/2)
    assert alpha.interval is not None
    assert alpha.interval[0] < 0.46 < alpha.interval[1]


def test_pair_agreement_by_hand() -> None:
    rows = [ranking("ann", (1, 2, 2)), ranking("ben", (1, 2, 3)), ranking("cid", (None, 1, 2))]
    found = pair_agreement(rows, "ann", "ben")
    assert (found.share, found.num_pairs) == (pytest.approx(2.5 / 3), 3)
    assert pair_agreement(rows, "ben", "cid").share == 1
    apart = pair_agreement([ranking("ann", (1, 2)), ranking("ben", (1, 2), "k")], "ann", "ben")
    assert (apart.share, apart.num_pairs) == (None, 0)


def test_an_unknown_rater_is_named() -> None:
    with pytest.raises(DataError, match='"bob" has no ranking here; raters: ann'):
        pair_agreement([ranking("ann", (1, 2))], "ann", "bob")
