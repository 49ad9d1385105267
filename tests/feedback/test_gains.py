"""What one more judgment is worth, against integrals done another way, and which items are worth one."""

from __future__ import annotations

from collections.abc import Callable
from math import asin, exp, pi, sqrt
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.stats import multivariate_normal, norm

from tuneful.feedback.consensus import consensus
from tuneful.feedback.gains import Outlook, equal_margin, first_gain, outlooks, pair_gain, wanted
from tuneful.records import Judgment

Floats = NDArray[np.float64]


def gain(mean: float, sd: float, slope: float, nu: float = 0.0) -> float:
    return float(pair_gain(np.array([mean]), np.array([sd]), slope, nu)[0])


def information(mean: float, sd: float, slope: float, nu: float) -> float:
    """Of an answer in d, expected: the variance of the slope's share of its log-probability, by adaptive quadrature."""

    def at(d: float) -> float:
        weights = np.array([exp(slope * d / 2), nu, exp(-slope * d / 2)])
        chance, half = weights / weights.sum(), np.array([0.5, 0, -0.5])
        return float(slope**2 * (chance @ half**2 - (chance @ half) ** 2) * norm.pdf(d, mean, sd))

    return quad(at, mean - 10 * sd, mean + 10 * sd, limit=200)[0]


def gain_by_two_normals(mean: float, sd: float, slope: float, nu: float) -> float:
    """The difference d and the mean M that will be believed are jointly normal; wrong is where their signs differ."""
    learned = 1 - 1 / (1 + sd**2 * information(mean, sd, slope, nu))
    believed = mean / (sd * sqrt(learned))
    both = multivariate_normal([0, 0], [[1, sqrt(learned)], [sqrt(learned), 1]]).cdf([believed, mean / sd])
    wrong = norm.cdf(believed) + norm.cdf(mean / sd) - 2 * both
    return float(norm.cdf(-abs(mean) / sd) - wrong)


def test_an_answer_that_tells_nothing_puts_nothing_right() -> None:
    assert gain(0, 1, slope=0) == pytest.approx(0, abs=1e-6)
    assert gain(2, 1, slope=0) == pytest.approx(0, abs=1e-6)
    assert gain(0, 1, slope=1.7, nu=1e12) == pytest.approx(0, abs=1e-5)  # everybody ties everything


def test_of_a_new_pair_by_hand() -> None:
    """Where nothing is known, half of the orders are wrong. The share r of the variance that is learned is the squared
    correlation of belief and truth, whose signs then differ with probability 1/2 - arcsin(sqrt(r)) / pi."""
    answer = quad(lambda d: 1.7**2 / (2 + 2 * np.cosh(1.7 * d)) * norm.pdf(d, scale=sqrt(2)), -15, 15)[0]
    learned = 1 - (1 / 2) / (1 / 2 + answer)  # precision 1/2 before, 1/2 + answer after
    assert gain(0, sqrt(2), 1.7) == pytest.approx(asin(sqrt(learned)) / pi, abs=1e-4)


@pytest.mark.parametrize("mean", [0.0, 0.3, 1.0, 2.5])
@pytest.mark.parametrize("sd", [0.2, 0.7, 1.4])
@pytest.mark.parametrize(("slope", "nu"), [(1.7, 0.0), (1.7, 1.0), (0.5, 0.2), (4.0, 3.0)])
def test_against_two_normals(mean: float, sd: float, slope: float, nu: float) -> None:
    assert gain(mean, sd, slope, nu) == pytest.approx(gain_by_two_normals(mean, sd, slope, nu), abs=1e-3)
    assert gain(-mean, sd, slope, nu) == pytest.approx(gain(mean, sd, slope, nu), abs=1e-9)


def test_what_is_known_tells_nothing_more_whichever_way_it_is_known() -> None:
    by_lead = pair_gain(np.array([0.0, 0.5, 1.0, 2.0, 4.0]), np.full(5, 0.6), 1.7, 0.0)
    by_width = pair_gain(np.zeros(5), np.array([1.4, 0.7, 0.3, 0.1, 0.01]), 1.7, 0.0)
    assert (np.diff(by_lead) < 0).all()
    assert (np.diff(by_width) < 0).all()
    assert by_width[-1] < 0.01  # a tie for certain, though its order is wrong in half of all cases


@pytest.mark.parametrize(("slope", "nu"), [(1.7, 0.0), (0.8, 1.5), (3.0, 6.0)])
def test_about_equal_is_a_careful_rater_s_three_in_five(slope: float, nu: float) -> None:
    d = equal_margin(slope, nu)
    first, second = exp(slope * d / 2), exp(-slope * d / 2)
    assert (first + nu / 2) / (first + nu + second) == pytest.approx(0.6)


def judgments(world: Any, num: int, *, of: int) -> list[Judgment]:
    """The first `num` of the `of` rankings of each item."""
    return [one for n, one in enumerate(world.judgments) if n % of < num]


def test_more_labels_leave_less_to_learn(simulate: Callable[..., Any]) -> None:
    world = simulate(["careful"] * 8, seed=0, num_items=150, raters_per_item=6)
    seen = [outlooks(consensus(judgments(world, num, of=6))) for num in range(1, 7)]
    assert all(len(one) == 150 for one in seen)
    gains, sure = (
        np.array([[getattr(o, what) for o in one.values()] for one in seen]).mean(1) for what in ("gain", "sure")
    )
    # Where two disagree a third is worth more than a second was; but none is worth as much as the first.
    assert (np.diff(gains[1:]) < 0).all()
    assert first_gain(consensus(judgments(world, 1, of=6)), 4) > gains.max()
    assert (np.diff(sure) > 0).all()


def test_sure_is_the_share_of_pairs_in_their_right_order(simulate: Callable[..., Any]) -> None:
    world = simulate(["careful"] * 8 + ["inverted"] * 2 + ["random"] * 2, seed=1, num_items=600, raters_per_item=3)
    found = consensus(world.judgments)
    right = np.mean([world.difference(pair.first, pair.second) > 0 for pair in found.pairs])
    assert np.mean([one.sure for one in outlooks(found).values()]) == pytest.approx(right, abs=0.02)


def test_who_is_asked_about() -> None:
    seen = {"sure": Outlook(0.95, 0.1), "unsure": Outlook(0.7, 0.8), "asked often": Outlook(0.7, 0.8)}
    assert wanted(seen, {"sure": 2, "unsure": 2, "asked often": 6}, sure=0.9, most=6) == {"unsure": 0.8}
    assert wanted(seen, {}, sure=0.5, most=6) == {}


def tie(num: int) -> list[Judgment]:
    """Items of two answers: thirty on which all raters agree, and one that all of them tie."""
    orders = [(f"item-{n:02}", (1, 2)) for n in range(30)] + [("tied", (1, 1))]
    return [
        Judgment(
            id=f"{item}-{rater}",
            item=item,
            prompt=item,
            completions=(f"{item}-a", f"{item}-b"),
            rater=f"rater-{rater}",
            ranks=ranks,
        )
        for item, ranks in orders
        for rater in range(num)
    ]


def test_a_tie_that_is_certain_is_sure_where_its_order_is_not() -> None:
    few, many = consensus(tie(2)), consensus(tie(40))
    (order,) = [pair.confidence for pair in many.pairs if pair.item == "tied"]
    assert order == pytest.approx(0.5, abs=1e-6)
    assert outlooks(few)["tied"].sure < outlooks(many)["tied"].sure
    assert outlooks(many)["tied"].sure > 0.8
    assert outlooks(many)["tied"].gain < outlooks(few)["tied"].gain / 2


def test_nobody_is_asked_twice_of_nothing() -> None:
    """One rater who tied everything leaves no pair."""
    assert outlooks(consensus([one for one in tie(1) if one.item == "tied"])) == {}
