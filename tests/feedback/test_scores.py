from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import norm

from tuneful.feedback.consensus import consensus
from tuneful.feedback.scores import Choices, choice_derivatives, fit_scores, invert, soft_weight
from tuneful.feedback.votes import Block


def log_probability(eta: NDArray[np.float64], ranks: list[int], nu: float) -> float:
    """The formula of the module, group by group, over all pairs of the rest."""
    total = 0.0
    for rank in sorted({r for r in ranks if r}):
        group = [k for k, r in enumerate(ranks) if r == rank]
        rest = [k for k, r in enumerate(ranks) if r >= rank]
        z = sum(np.exp(eta[k]) for k in rest)
        z += nu * sum(np.exp((eta[i] + eta[j]) / 2) for i, j in combinations(rest, 2))
        total += sum(eta[k] for k in group) / len(group) - np.log(z)  # a power of nu does not move with eta
    return float(total)


@pytest.mark.parametrize(
    "ranks", [[2, 1], [1, 1], [3, 1, 2], [1, 2, 2], [2, 2, 1, 3], [1, 1, 1], [2, 0, 1], [0, 1, 1, 2]]
)
@pytest.mark.parametrize("nu", [0.0, 0.7])
def test_derivatives_against_finite_differences(ranks: list[int], nu: float) -> None:
    size = len(ranks)
    eta = np.random.default_rng(0).normal(0, 2, size)
    choices = Choices.of(np.array([ranks]))
    order = choices.order[:, 0]
    gradient, hessian = choice_derivatives(eta[order][:, None], choices, nu)
    step = 1e-4

    def value(*bumps: tuple[int, float]) -> float:
        moved = eta.copy()
        for k, amount in bumps:
            moved[k] += amount
        return -log_probability(moved, ranks, nu)

    for a, i in enumerate(order):
        assert gradient[a, 0] == pytest.approx((value((i, step)) - value((i, -step))) / (2 * step), abs=1e-6)
        for b, j in enumerate(order):
            plus = value((i, step), (j, step)) - value((i, step), (j, -step))
            minus = value((i, -step), (j, step)) - value((i, -step), (j, -step))
            assert hessian[a, b, 0] == pytest.approx((plus - minus) / (4 * step**2), abs=1e-5)


def test_inverse_of_every_block() -> None:
    factors = np.random.default_rng(0).normal(size=(7, 5, 5))
    blocks = factors @ factors.transpose(0, 2, 1) + np.eye(5)
    assert invert(blocks.transpose(1, 2, 0)) == pytest.approx(np.linalg.inv(blocks).transpose(1, 2, 0))


@pytest.mark.parametrize("wins", [(1, 0), (2, 0), (3, 0), (2, 1)])
def test_posterior_against_numerical_integration(wins: tuple[int, int]) -> None:
    won, lost = wins
    ranks = np.array([[1, 2]] * won + [[2, 1]] * lost)
    count = len(ranks)
    alone = np.zeros(count, np.int64)
    block = Block(("i",), (("a", "b"),), alone, alone, ranks, np.full((count, 1), np.nan))
    found = fit_scores(block, np.array([1.7]), 0.0)

    def moment(power: int) -> float:
        def density(d: float) -> float:
            return float(d**power * expit(1.7 * d) ** won * expit(-1.7 * d) ** lost * norm.pdf(d, scale=np.sqrt(2)))

        return quad(density, -12, 12)[0]

    mean = moment(1) / moment(0)
    variance = moment(2) / moment(0) - mean**2
    contrast = np.array([1.0, -1.0])
    # no Gaussian is the posterior; this one stays near, where the mode of a (1, 0) posterior is .17 below the mean
    assert contrast @ found.mean[:, 0] == pytest.approx(mean, abs=0.05)
    assert np.sqrt(contrast @ found.covariance[:, :, 0] @ contrast) == pytest.approx(np.sqrt(variance), abs=0.07)
    assert found.mean.sum() == pytest.approx(0, abs=1e-9)  # the prior holds the level at 0


def soft_block(q: list[list[float]], size: int = 2) -> Block:
    """An item for each row, its completions in order, judged by a model of its own."""
    count, names = len(q), tuple(str(n) for n in range(len(q)))
    ranks = np.tile(np.arange(1, size + 1), (count, 1))
    completions = tuple(tuple(f"{name}-{k}" for k in range(size)) for name in names)
    return Block(names, completions, np.arange(count), np.arange(count), ranks, np.array(q, np.float64))


@pytest.mark.parametrize("q", [0.53, 0.8, 0.999, 0.2])
def test_posterior_of_a_soft_vote_against_numerical_integration(q: float) -> None:
    found = fit_scores(soft_block([[q]]), np.array([1.7]), 0.0)

    def moment(power: int) -> float:
        def density(d: float) -> float:
            return float(d**power * expit(1.7 * d) ** q * expit(-1.7 * d) ** (1 - q) * norm.pdf(d, scale=np.sqrt(2)))

        return quad(density, -12, 12)[0]

    assert found.mean[0, 0] - found.mean[1, 0] == pytest.approx(moment(1) / moment(0), abs=0.05)


def test_many_soft_votes_bring_p_to_their_q() -> None:
    """4,000 models of slope 1.7 give .8: log(.8 / .2) / 1.7 = .8155 apart; and half as far with twice the slope.

    With ties, nu .7 and y = e^(eta / 2): P(first) + P(tie) / 2 = .8 where .4 y^2 - .42 y - 1.6 = 0, so y = 2.5928 and
    eta / 1.7 = 2 log(y) / 1.7 = 1.1209.
    """
    block = soft_block([[0.8]] * 4000)
    block = replace(block, items=("i",), completions=(("a", "b"),), item=np.zeros(4000, np.int64))
    for slope, nu, expected in ((1.7, 0.0, 0.8155), (3.4, 0.0, 0.4077), (1.7, 0.7, 1.1209)):
        found = fit_scores(block, np.full(4000, slope), nu)
        assert found.mean[0, 0] - found.mean[1, 0] == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("nu", [0.0, 0.7])
def test_soft_votes_of_one_and_nought_are_firm_ones(nu: float) -> None:
    block, slopes = soft_block([[1.0], [0.0]]), np.array([1.7, -0.6])
    firm = replace(block, ranks=np.array([[1, 2], [2, 1]]), q=np.full((2, 1), np.nan))
    soft, hard = fit_scores(block, slopes, nu), fit_scores(firm, slopes, nu)
    assert soft.mean == pytest.approx(hard.mean, abs=1e-12)
    assert soft.covariance == pytest.approx(hard.covariance, abs=1e-12)


def test_probabilities_that_scores_could_give_are_met_by_these_scores() -> None:
    """Of four completions, q of each pair from scores 1, 1/2, 0 and -3/2, and so many judges that the prior is gone."""
    scores, count = np.array([1.0, 0.5, 0.0, -1.5]), 3000
    q = [float(expit(1.7 * (scores[a] - scores[b]))) for a, b in combinations(range(4), 2)]
    block = soft_block([q] * count, 4)
    block = replace(block, items=("i",), completions=(tuple("abcd"),), item=np.zeros(count, np.int64))
    found = fit_scores(block, np.full(count, 1.7), 0.0)
    assert found.mean[:, 0] == pytest.approx(scores, abs=5e-3)


def test_the_pairs_of_a_soft_ranking_weigh_as_much_as_a_ranking() -> None:
    """By hand: 1 of two, and of three 4 (3 - 11/6) / 6 = 7/9. The curvature of equal completions is the same."""
    assert soft_weight(np.array([2, 3])).tolist() == pytest.approx([1, 7 / 9])
    for size in (2, 3, 4):
        orders = np.array(list(permutations(range(1, size + 1))))
        choices = Choices.of(orders)
        _, hessian = choice_derivatives(np.zeros((size, len(orders))), choices, 0.0)
        mean = np.zeros((size, size))
        for n, order in enumerate(choices.order.T):
            mean[np.ix_(order, order)] += hessian[:, :, n] / len(orders)
        pairs = (size * np.eye(size) - 1) / 4  # of each pair 1/4 on the diagonal and -1/4 beside it
        assert mean == pytest.approx(soft_weight(np.array([size]))[0] * pairs)


def test_a_ranking_counts_as_one_and_not_as_its_pairs(simulate: Callable[..., Any]) -> None:
    excess: dict[str, list[float]] = {"ranking": [], "pairs": []}
    for seed in range(3):
        world = simulate(["careful"] * 5, seed=seed, num_items=100, num_completions=9)
        split = [
            replace(
                j,
                id=f"{j.id}-{a}-{b}",
                completions=(j.completions[a], j.completions[b]),
                ranks=(j.ranks[a], j.ranks[b]),
            )
            for j in world.judgments
            for a, b in combinations(range(9), 2)
        ]
        for name, judgments in (("ranking", world.judgments), ("pairs", split)):
            pairs = consensus(judgments).pairs
            right = np.mean([world.difference(pair.first, pair.second) > 0 for pair in pairs])
            excess[name].append(float(np.mean([pair.confidence for pair in pairs]) - right))
    assert abs(np.mean(excess["ranking"])) < 0.02
    assert np.mean(excess["pairs"]) > 0.04
