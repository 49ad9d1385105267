"""Best-of-n against hand-worked numbers, counting all sets, and a simulation."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tuneful.errors import DataError
from tuneful.evaluation.best_of_n import best_of_n_curve, best_of_n_kl, expected_best, shares_of_best


@pytest.mark.parametrize(
    ("n", "kl"),
    [(1, 0.0), (2, 0.1931), (4, 0.6363), (8, 1.2044), (16, 1.8351), (64, 3.1745), (1000, 5.9088), (60000, 10.0021)],
)
def test_the_kl(n: int, kl: float) -> None:
    assert best_of_n_kl(n) == pytest.approx(kl, abs=5e-5)


def test_the_kl_bounds_that_of_two_outcomes() -> None:
    """A fair coin, best of 2: heads with 3/4, so .75 log 1.5 + .25 log .5 = .130812, below .193147."""
    of_coin = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    assert of_coin == pytest.approx(0.130812, abs=1e-6)
    assert of_coin < best_of_n_kl(2)


def test_four_samples_by_hand() -> None:
    """1, 2, 3, 4 in pairs: the best is 2 once, 3 twice, 4 three times in six."""
    assert_allclose(shares_of_best(4, 2), [0, 1 / 6, 2 / 6, 3 / 6])
    assert_allclose(expected_best([[3, 1, 4, 2]], [[3, 1, 4, 2]], 2), [3.333333], rtol=1e-6)
    assert_allclose(shares_of_best(4, 1), [0.25] * 4)
    assert_allclose(shares_of_best(4, 4), [0, 0, 0, 1])


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6])
def test_all_sets_are_counted(n: int) -> None:
    """The value of the best by reward, over every set of n of 6."""
    rng = np.random.default_rng(n)
    rewards, values = rng.normal(size=(3, 6)), rng.normal(size=(3, 6))
    for row in range(3):
        picked = [values[row][max(some, key=lambda i: rewards[row][i])] for some in combinations(range(6), n)]
        assert expected_best(rewards, values, n)[row] == pytest.approx(np.mean(picked))


def test_a_noisy_reward_gains_half_of_what_it_shows() -> None:
    """Truth X and noise Z, both N(0, 1): by X + Z, E[X | X + Z] is half of it (Gao et al. 2022, section 2)."""
    rng = np.random.default_rng(0)
    truth, noise = rng.normal(size=(4000, 16)), rng.normal(size=(4000, 16))
    curve = best_of_n_curve(truth + noise, {"reward": truth + noise, "truth": truth}, [1, 4, 16])
    for point in curve[1:]:
        assert point["measures"]["truth"]["mean"] == pytest.approx(point["measures"]["reward"]["mean"] / 2, abs=0.05)
        assert point["differences"]["truth"]["interval"][0] > 0.3
    assert curve[0]["kl"] == 0
    assert curve[0]["differences"]["reward"]["mean"] == 0


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(DataError, match="the best of 5 cannot be told from 4 samples"):
        shares_of_best(4, 5)
