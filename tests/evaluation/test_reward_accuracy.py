"""Accuracy and calibration of rewards against worked numbers and a simulated Bradley-Terry world."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tuneful.errors import DataError
from tuneful.evaluation.reward_accuracy import (
    accuracy,
    accuracy_by_margin,
    calibration,
    evaluate_reward,
    length_correlation,
    length_matched,
)


def test_accuracy_counts_ties_as_one_half() -> None:
    assert accuracy([2, 1, 1, 0], [1, 2, 1, -1]).mean == 0.625


def test_accuracy_by_margin_by_hand() -> None:
    # sorted by margin: .1 right, .2 wrong | .5 right, .9 right
    low, high = accuracy_by_margin([1, 0, 1, 1], [0, 1, 0, 0], [0.5, 0.2, 0.9, 0.1], num_bins=2)
    assert (low.low, low.high, low.accuracy, low.n) == (0.1, 0.2, 0.5, 2)
    assert (high.low, high.high, high.accuracy, high.n) == (0.5, 0.9, 1.0, 2)


def test_calibration_error_by_hand() -> None:
    # ten pairs with difference log 3, so confidence 3/4; eight of ten right: error |.8 - .75|
    chosen = [math.log(3)] * 8 + [0.0] * 2
    rejected = [0.0] * 8 + [math.log(3)] * 2
    fit = calibration(chosen, rejected, num_bins=1)
    assert fit.ece == pytest.approx(0.05)
    # at the best temperature sigmoid(log 3 / T) = .8, so T = log 3 / log 4 and nothing is left
    assert fit.temperature == pytest.approx(math.log(3) / math.log(4), abs=1e-3)
    assert fit.ece_fitted == pytest.approx(0, abs=1e-3)


def test_calibration_error_of_four_pairs() -> None:
    """Confidences .9 .9 .6 .6, three right: two of four pairs are .1 too low, and of the others half are right."""
    certain, unsure = math.log(9), math.log(1.5)
    assert calibration([certain, certain, unsure, 0], [0, 0, 0, unsure]).ece == pytest.approx(0.1)


def test_pairs_of_one_tenth_share_a_bin() -> None:
    """.62 right and .68 wrong: half right at .65; .95 right alone: (2 x .15 + .05) / 3."""
    a, b, c = (math.log(p / (1 - p)) for p in (0.62, 0.68, 0.95))
    assert calibration([a, 0, c], [0, b, 0]).ece == pytest.approx(0.35 / 3)


def test_scores_three_times_too_large_are_found() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(size=20_000)
    first = rng.random(20_000) < 1 / (1 + np.exp(-true))
    chosen, rejected = np.where(first, 3 * true, 0), np.where(first, 0, 3 * true)
    fit = calibration(chosen, rejected)
    assert fit.temperature == pytest.approx(3, rel=0.05)
    assert fit.ece > 0.1
    assert fit.ece_fitted < 0.015


def test_length_correlation() -> None:
    rising = length_correlation([1, 2, 3, 10], [5, 6, 7, 8])
    assert rising is not None
    assert rising.mean == pytest.approx(1)
    # ranks 1 2 3 4 5 against 2 1 4 3 5: rho = 1 - 6 * 4 / (5 * 24) = .8
    mixed = length_correlation([1, 2, 3, 4, 5], [20, 10, 40, 30, 50])
    assert mixed is not None
    assert mixed.mean == pytest.approx(0.8)
    # Fisher z .8 is 1.098612; half width 1.959964 * sqrt(1.32 / 2) = 1.592274
    assert mixed.low == pytest.approx(math.tanh(1.098612 - 1.592274), abs=1e-5)


def test_a_constant_has_no_correlation() -> None:
    assert length_correlation([1, 2, 3, 4, 5], [7, 7, 7, 7, 7]) is None


def test_length_matched_within_a_fifth_of_the_longer() -> None:
    assert length_matched([10, 8, 10, 0], [8, 10, 7, 0]).tolist() == [True, True, False, True]


def test_the_reward_block() -> None:
    # the shorter side is chosen in all pairs but the last; scores are right in the first three of four prompts
    block = evaluate_reward([1, 1, 1, 0], [0, 0, 0, 1], [4, 4, 9, 9], [8, 8, 10, 8], ["a", "b", "c", "d"])
    assert block["heldout_accuracy"]["mean"] == 0.75
    assert block["baselines"]["shorter_wins"]["mean"] == 0.75
    assert block["baselines"]["longer_wins"]["mean"] == 0.25
    assert block["above_shorter_wins"]["mean"] == 0
    assert block["accuracy_length_matched"]["mean"] == 0.5
    assert block["accuracy_length_matched"]["n"] == 2


def test_without_matched_pairs_that_accuracy_is_not_measured() -> None:
    assert evaluate_reward([1, 1], [0, 0], [1, 1], [9, 9])["accuracy_length_matched"] is None


def test_refusals() -> None:
    with pytest.raises(DataError, match="shapes"):
        accuracy([1, 2], [1])
    with pytest.raises(DataError, match="pair 1 has a score that is not finite"):
        accuracy([1, float("inf")], [0, 0])
    with pytest.raises(DataError, match="3 lengths for 2 pairs"):
        evaluate_reward([1, 1], [0, 0], [1, 1, 1], [9, 9, 9])
