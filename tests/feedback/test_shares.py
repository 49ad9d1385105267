"""Shares and their intervals: numbers by hand, and SciPy's interval."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis.strategies import integers
from scipy.stats import binomtest

from tuneful.feedback.shares import clustered, wilson


@given(integers(1, 500), integers(0, 500))
def test_wilson_is_that_of_scipy(num: int, right: int) -> None:
    right = min(num, right)
    found, other = wilson(right / num, num), binomtest(right, num).proportion_ci(0.95, method="wilson")
    assert (found.value, found.of) == (right / num, num)
    assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=1e-9)


def test_wilson_60_of_100() -> None:
    # z 1.96: centre (.6 + 3.8415/200) / 1.038415 = .59629, half sqrt(.0024 + .000096) * 1.96 / 1.038415 = .09431
    found = wilson(0.6, 100)
    assert (found.low, found.high) == pytest.approx((0.5020, 0.6906), abs=5e-5)


def test_wilson_stays_within_zero_and_one() -> None:
    # 0 of 10: upper end z^2 / (n + z^2) = 3.8415 / 13.8415
    assert wilson(0, 10).low == 0
    assert wilson(0, 10).high == pytest.approx(0.27753, abs=5e-6)
    assert wilson(1, 10).high == pytest.approx(1)


def shares(right: list[float], cluster: list[int]) -> tuple[float, float]:
    found = clustered(np.array(right), np.ones(len(right)), np.array(cluster))
    assert found is not None
    assert (found.value, found.of) == (sum(right) / len(right), len(right))
    return found.low, found.high


def test_cases_of_a_cluster_that_say_the_same_are_worth_one() -> None:
    # By cluster the rests are +1 and -1: variance 2 / 1 * (1 + 1) / 4^2 = 1/4, as of 1/4 / (1/4) = 1 case.
    # Wilson's of 1/2 of n is 1/2 +- z / (2 sqrt(n + z^2)): .44536 for n = 1.
    assert shares([1, 1, 0, 0], [0, 0, 1, 1]) == pytest.approx((0.05462, 0.94538), abs=2e-5)


def test_clusters_of_one_are_cases() -> None:
    # Four rests of 1/2: variance 4 / 3 * 4 / 4 / 4^2 = 1/12, as of 1/4 * 12 = 3 cases:
    # 1.95996 / (2 sqrt(6.84146)) = .37466.
    assert shares([1, 1, 0, 0], [0, 1, 2, 3]) == pytest.approx((0.12534, 0.87466), abs=2e-5)


def test_where_all_agree_a_cluster_is_a_case() -> None:
    # Both of two: the lower end is 2 / (2 + z^2) = 2 / 5.84146.
    assert shares([1, 1, 1], [0, 0, 1]) == pytest.approx((0.34238, 1), abs=2e-5)


def test_nothing_asked_is_no_share() -> None:
    assert clustered(np.zeros(2), np.zeros(2), np.array([0, 1])) is None


def test_what_was_not_asked_has_no_part() -> None:
    with_more = clustered(np.array([1.0, 0.0, 0.0]), np.array([1.0, 1.0, 0.0]), np.array([0, 1, 2]))
    assert with_more == clustered(np.array([1.0, 0.0]), np.array([1.0, 1.0]), np.array([0, 1]))
