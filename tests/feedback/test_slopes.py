from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import norm

from tuneful.feedback.slopes import PRIOR_SLOPE, PRIOR_SLOPE_SD, MarginalLikelihood, davidson, fit_slopes
from tuneful.feedback.votes import PairVotes, tabulate


def votes_on_pairs(rows: list[tuple[int, int, int]], num_raters: int) -> PairVotes:
    """From (pair, rater, outcome), every pair an item of its own."""
    pair, rater, outcome = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    num_pairs = int(pair.max()) + 1
    return PairVotes(pair, pair, rater, outcome, num_pairs=num_pairs, num_items=num_pairs, num_raters=num_raters)


def test_davidson_by_hand() -> None:
    # equal completions, nu 1: three answers of the same chance
    _, tie, lead = davidson(np.array([0.0]), 1.0)
    assert (tie[0], lead[0]) == pytest.approx((1 / 3, 0))
    # eta 2 log 2, nu 1: e^(eta/2) = 2, so Z = 2 + 1/2 + 1 = 7/2; P(tie) = 2/7, lead = (4/7 - 1/7) / 2 = 3/14
    log_z, tie, lead = davidson(np.array([2 * np.log(2)]), 1.0)
    assert (log_z[0], tie[0], lead[0]) == pytest.approx((np.log(3.5), 2 / 7, 3 / 14))
    # no ties: P(first) = 4/5, so the lead is 3/10
    assert davidson(np.array([2 * np.log(2)]), 0.0)[2][0] == pytest.approx(0.3)


def test_davidson_stands_far_scores() -> None:
    log_z, tie, lead = davidson(np.array([-4000.0, 4000.0]), 0.5)
    assert log_z.tolist() == [2000, 2000]
    assert tie.tolist() == [0, 0]
    assert lead.tolist() == [-0.5, 0.5]


@pytest.mark.parametrize("slope", [-2.0, 0.0, 1.7])
def test_a_vote_alone_on_its_pair_says_nothing_of_its_rater(slope: float) -> None:
    value, gradient = MarginalLikelihood(votes_on_pairs([(0, 0, 1)], 1))(np.array([slope, 0.0]))
    assert value == pytest.approx(np.log(2))  # either order is as likely before anything is known
    assert gradient[0] == pytest.approx(0, abs=1e-12)


def test_likelihood_is_the_integral_over_the_difference() -> None:
    slopes, nu = np.array([1.7, -0.6, 0.9]), 0.4
    votes = votes_on_pairs([(0, 0, 1), (0, 1, 0), (0, 2, -1)], 3)

    def product(d: float) -> float:
        first, tie, second = np.exp(slopes * d / 2), nu, np.exp(-slopes * d / 2)
        z = first + tie + second
        return float(first[0] / z[0] * tie / z[1] * second[2] / z[2] * norm.pdf(d, scale=np.sqrt(2)))

    value, _ = MarginalLikelihood(votes)(np.append(slopes, np.log(nu)))
    assert value == pytest.approx(-np.log(quad(product, -12, 12)[0]), abs=1e-3)


@pytest.mark.parametrize("ties", [False, True])
def test_gradient_against_finite_differences(ties: bool) -> None:
    rng = np.random.default_rng(0)
    answers = [-1, 0, 1] if ties else [-1, 1]
    rows = [(n // 4, int(rng.integers(5)), int(rng.choice(answers))) for n in range(160)]
    likelihood = MarginalLikelihood(votes_on_pairs(rows, 5))
    point = np.append(rng.normal(0, 1.5, 5), -0.3)
    _, gradient = likelihood(point)
    step = 1e-5
    for k in range(6):
        off = step * (np.arange(6) == k)
        numeric = (likelihood(point + off)[0] - likelihood(point - off)[0]) / (2 * step)
        assert gradient[k] == pytest.approx(numeric, rel=1e-6, abs=1e-6)


def test_one_rater_is_taken_at_the_prior() -> None:
    slopes = fit_slopes(votes_on_pairs([(n, 0, 1) for n in range(50)], 1))
    assert (slopes.value[0], slopes.sd[0], slopes.nu) == pytest.approx((PRIOR_SLOPE, PRIOR_SLOPE_SD, 0))


def test_two_raters_of_the_prior_slope_agree_as_people_do() -> None:
    # P(both the same) = E[sigma^2 + (1 - sigma)^2] over d ~ N(0, 2)
    def alike(d: float) -> float:
        p = float(expit(PRIOR_SLOPE * d))
        return (p * p + (1 - p) * (1 - p)) * float(norm.pdf(d, scale=np.sqrt(2)))

    assert quad(alike, -12, 12)[0] == pytest.approx(0.73, abs=0.005)


def test_the_mirror_image_with_a_positive_sum_is_kept() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for pair in range(400):
        truth = int(rng.choice([-1, 1]))
        rows += [(pair, 0, truth), (pair, 1, truth), (pair, 2, -truth)]
    slopes = fit_slopes(votes_on_pairs(rows, 3)).value
    assert slopes[0] > 1
    assert slopes[1] > 1
    assert slopes[2] < -1


def test_ties_are_learned_and_a_rater_who_only_ties_has_no_slope() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for pair, d in enumerate(rng.normal(0, np.sqrt(2), 2000)):
        for rater in range(3):
            first, second = np.exp(0.85 * d), np.exp(-0.85 * d)  # slope 1.7, nu 1/2
            chance = np.array([second, 0.5, first]) / (first + second + 0.5)
            rows.append((pair, rater, int(rng.choice([-1, 0, 1], p=chance))))
    slopes = fit_slopes(votes_on_pairs(rows, 3))
    assert slopes.nu == pytest.approx(0.5, abs=0.1)
    assert slopes.value == pytest.approx([1.7] * 3, abs=0.3)


def test_intervals_are_honest_though_pairs_of_a_ranking_are_not_independent(simulate: Callable[..., Any]) -> None:
    honest, naive = [], []
    for seed in range(12):
        world = simulate(["careful"] * 5 + ["random"] * 2, seed=seed, num_items=300, num_completions=9)
        votes = tabulate(world.judgments)
        pairs = votes.pair_votes()
        slopes = fit_slopes(pairs)
        off = slopes.value - [1.7 if world.kinds[rater] == "careful" else 0.0 for rater in votes.raters]
        curvature, _ = MarginalLikelihood(pairs).information(np.append(slopes.value, 0.0))
        honest.append(off / slopes.sd)
        naive.append(off / np.sqrt(np.diag(np.linalg.inv(curvature[:-1, :-1] + np.eye(7)))))
    # 84 errors in units of their standard error: about 1 if that is right, the sd of such a sd being .08
    assert 0.75 < np.sqrt(np.mean(np.square(honest))) < 1.25
    assert np.sqrt(np.mean(np.square(naive))) > 1.35


def test_a_busier_pair_gets_finer_nodes() -> None:
    # 30 votes of slope 1.7 on one pair: the integrand is narrow, and the integral must still be right
    rows = [(0, n, 1) for n in range(20)] + [(0, n, -1) for n in range(20, 30)]

    def product(d: float) -> float:
        return float(expit(1.7 * d) ** 20 * expit(-1.7 * d) ** 10 * norm.pdf(d, scale=np.sqrt(2)))

    value, _ = MarginalLikelihood(votes_on_pairs(rows, 30))(np.append(np.full(30, 1.7), 0.0))
    assert value == pytest.approx(-np.log(quad(product, -8, 8, points=[0.4])[0]), abs=1e-3)


def test_more_votes_narrow_the_slope(simulate: Callable[..., Any]) -> None:
    widths = []
    for num_items in (50, 200, 800):
        world = simulate(["careful"] * 6, seed=0, num_items=num_items)
        widths.append(fit_slopes(tabulate(world.judgments).pair_votes()).sd.mean())
    assert all(wide > narrow for wide, narrow in pairwise(widths))
