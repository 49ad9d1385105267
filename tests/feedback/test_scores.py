from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import norm

from tuneful.feedback.consensus import consensus
from tuneful.feedback.scores import Choices, choice_derivatives, fit_scores, invert
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
    block = Block(("i",), (("a", "b"),), np.zeros(count, np.int64), np.zeros(count, np.int64), ranks)
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
