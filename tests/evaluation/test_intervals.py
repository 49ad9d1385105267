"""Intervals against closed forms, worked numbers and simulated coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneful.errors import DataError
from tuneful.evaluation.intervals import (
    bootstrap_mean,
    hierarchical_difference,
    paired_difference,
    win_rate,
)


def test_bootstrap_agrees_with_the_normal_interval() -> None:
    # 400 standard normal values: standard error .05, so 1.96 x .05 = .098 to either side, up to simulation error
    values = np.random.default_rng(1).normal(size=400)
    measured = bootstrap_mean(values)
    half = 1.96 * values.std() / 20
    assert measured.mean == pytest.approx(values.mean())
    assert measured.low == pytest.approx(values.mean() - half, abs=0.006)
    assert measured.high == pytest.approx(values.mean() + half, abs=0.006)
    assert measured.n == 400


def test_ninety_five_percent_intervals_hold_the_truth_in_about_95_of_100_sets() -> None:
    # 1,000 sets of 60 prompts x 2 samples that share their prompt's effect; the truth is 0
    rng = np.random.default_rng(7)
    prompts = np.repeat(np.arange(60), 2)
    held = 0
    for _ in range(1000):
        values = rng.normal(size=60)[prompts] + rng.normal(size=120)
        measured = bootstrap_mean(values, prompts, num_resamples=1000)
        held += measured.low <= 0 <= measured.high
    assert 930 <= held <= 970


def test_copies_of_a_prompts_value_add_no_certainty() -> None:
    values = np.random.default_rng(2).normal(size=50)
    once = bootstrap_mean(values, [f"p{i}" for i in range(50)])
    four_times = bootstrap_mean(np.repeat(values, 4), np.repeat(np.arange(50), 4))
    assert four_times.n == once.n == 50
    # the groups of "once" are sorted as strings, so only the distribution of the draws agrees
    assert four_times.high - four_times.low == pytest.approx(once.high - once.low, rel=0.04)
    assert bootstrap_mean(np.repeat(values, 4)).high - bootstrap_mean(np.repeat(values, 4)).low < 0.6 * (
        once.high - once.low
    )


def test_every_value_weighs_the_same_in_groups_of_unequal_size() -> None:
    # (1 + 1 + 1 + 5) / 4 = 2; a resample is all of group a (1), all of b (5), or both (2)
    measured = bootstrap_mean([1, 1, 1, 5], ["a", "a", "a", "b"])
    assert (measured.mean, measured.low, measured.high, measured.n) == (2, 1, 5, 2)


def test_pairing_removes_what_both_sides_share() -> None:
    rng = np.random.default_rng(3)
    difficulty = rng.normal(scale=10, size=200)
    change = paired_difference(difficulty + 1 + rng.normal(scale=0.1, size=200), difficulty)
    assert change.mean == pytest.approx(1, abs=0.03)
    assert change.high - change.low < 0.04


def test_same_seed_same_interval() -> None:
    values = [0.1, 0.5, -0.3, 0.9]
    assert bootstrap_mean(values, seed=4) == bootstrap_mean(values, seed=4)


def test_hierarchical_interval_is_as_wide_as_the_seeds_differ() -> None:
    # seeds at 0 and 2 with no spread inside: resamples average 0, 1 or 2, each end with probability 1/4
    measured = hierarchical_difference([[0.0] * 20, [2.0] * 20])
    assert (measured.mean, measured.low, measured.high, measured.n) == (1, 0, 2, 2)


def test_hierarchical_interval_holds_the_spread_over_prompts_too() -> None:
    # both seeds centred on 0 with values +-1 over 100 prompts: standard error .1 / sqrt(2) from prompts alone
    seeds = [[1.0, -1.0] * 50, [1.0, -1.0] * 50]
    measured = hierarchical_difference(seeds)
    assert measured.high == pytest.approx(1.96 * 0.1 / np.sqrt(2), rel=0.06)


def test_hierarchical_needs_two_seeds() -> None:
    with pytest.raises(DataError, match="at least 2 seeds, got 1"):
        hierarchical_difference([[1.0, 2.0]])


def test_win_rate_counts_ties_as_one_half() -> None:
    # win, loss, tie, win: (1 + 0 + 1/2 + 1) / 4
    assert win_rate([2, 0, 1, 3], [1, 1, 1, 1]).mean == 0.625


def test_a_judge_that_always_says_the_same_gives_one_half() -> None:
    rate = win_rate([7.0] * 30, [7.0] * 30)
    assert (rate.mean, rate.low, rate.high) == (0.5, 0.5, 0.5)


def test_rounding_does_not_break_a_tie() -> None:
    assert 0.1 + 0.2 + 0.3 != 0.3 + 0.2 + 0.1
    assert win_rate([0.1 + 0.2 + 0.3] * 2, [0.3 + 0.2 + 0.1] * 2).mean == 0.5


@given(st.lists(st.integers(-5, 5), min_size=2, max_size=12), st.lists(st.integers(-5, 5), min_size=2, max_size=12))
def test_win_rates_of_both_sides_add_to_one(first: list[int], second: list[int]) -> None:
    n = min(len(first), len(second))
    there = win_rate(first[:n], second[:n], num_resamples=10).mean
    back = win_rate(second[:n], first[:n], num_resamples=10).mean
    assert there + back == pytest.approx(1)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20))
def test_the_interval_lies_within_the_values(values: list[float]) -> None:
    measured = bootstrap_mean(values, num_resamples=50)
    slack = 1e-9
    assert min(values) - slack <= measured.low <= measured.high <= max(values) + slack


def test_json_form() -> None:
    assert bootstrap_mean([1, 1, 1]).as_json() == {"mean": 1.0, "interval": [1.0, 1.0], "n": 3}


@pytest.mark.parametrize(
    ("values", "groups", "message"),
    [
        ([], None, "at least one entry"),
        ([1.0], None, "at least 2 prompts, got 1"),
        ([1.0, 2.0], ["a", "a"], "at least 2 prompts, got 1"),
        ([1.0, float("nan")], None, r"values\[1\] is nan"),
        ([1.0, 2.0, 3.0], ["a", "b"], "2 labels for 3 values"),
    ],
)
def test_refusals(values: list[float], groups: list[str] | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        bootstrap_mean(values, groups)


def test_unaligned_pairs_are_refused() -> None:
    with pytest.raises(DataError, match="after has 2, before 3"):
        paired_difference([1, 2], [1, 2, 3])
