"""Shares and their intervals: numbers by hand, and the package's other Wilson interval."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis.strategies import integers

from tuneful.evaluation import intervals
from tuneful.feedback.shares import clustered, wilson


@given(integers(1, 500), integers(0, 500))
def test_wilson_is_that_of_evaluations(num: int, right: int) -> None:
    right = min(num, right)
    found, other = wilson(right / num, num), intervals.wilson(right, num)
    assert (found.value, found.low, found.high) == pytest.approx((other.mean, other.low, other.high), abs=1e-9)
    assert found.of == num


def shares(right: list[float], cluster: list[int]) -> tuple[float, float]:
    found = clustered(np.array(right), np.ones(len(right)), np.array(cluster))
    assert found is not None
    assert (found.value, found.of) == (sum(right) / len(right), len(right))
    return found.low, found.high


def test_cases_of_a_cluster_that_say_the_same_are_worth_one() -> None:
    # By cluster the rests are +1 and -1: variance 2 / 1 * (1 + 1) / 4^2 = 1/4, as of 1/4 / (1/4) = 1 case.
    one = intervals.wilson(0.5, 1)
    assert shares([1, 1, 0, 0], [0, 0, 1, 1]) == pytest.approx((one.low, one.high))


def test_clusters_of_one_are_cases() -> None:
    # Four rests of 1/2: variance 4 / 3 * 4 / 4 / 4^2 = 1/12, as of 1/4 * 12 = 3 cases.
    three = intervals.wilson(1.5, 3)
    assert shares([1, 1, 0, 0], [0, 1, 2, 3]) == pytest.approx((three.low, three.high))


def test_where_all_agree_a_cluster_is_a_case() -> None:
    two = intervals.wilson(2, 2)
    assert shares([1, 1, 1], [0, 0, 1]) == pytest.approx((two.low, two.high))


def test_nothing_asked_is_no_share() -> None:
    assert clustered(np.zeros(2), np.zeros(2), np.array([0, 1])) is None


def test_what_was_not_asked_has_no_part() -> None:
    with_more = clustered(np.array([1.0, 0.0, 0.0]), np.array([1.0, 1.0, 0.0]), np.array([0, 1, 2]))
    assert with_more == clustered(np.array([1.0, 0.0]), np.array([1.0, 1.0]), np.array([0, 1]))
