"""Best-of-n: sample n answers and keep the one that a reward likes best. What it gains, and how far it goes.

From N samples of a prompt the gain is known for every n up to N at once, without bias: of the samples in ascending
order the i-th is the best of C(i - 1, n - 1) of the C(N, n) sets of n (Nakano et al. 2021, arXiv 2112.09332, app. I).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb, log
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tuneful.errors import DataError
from tuneful.evaluation.intervals import MeasuredJSON, bootstrap_mean, paired_difference


class BestOf(TypedDict):
    """What the best of `n` answers is like, mean over prompts, and its difference from one answer."""

    n: int
    kl: float
    measures: dict[str, MeasuredJSON]
    differences: dict[str, MeasuredJSON]


def best_of_n_kl(n: int) -> float:
    """KL in nats of the best of n answers from the model that gave them: log n - (n - 1) / n.

    Exact where no two answers have the same reward, an upper bound where some do (Beirami et al. 2024, 2401.01879).
    """
    return log(n) - (n - 1) / n


def shares_of_best(num_samples: int, n: int) -> NDArray[np.float64]:
    """[N]: how often each of N samples, in ascending order of reward, is the best of n of them.

    Raises DataError unless n lies between 1 and N.
    """
    if not 1 <= n <= num_samples:
        raise DataError(f"the best of {n} cannot be told from {num_samples} samples; take more samples or a smaller n")
    return np.array([comb(rank, n - 1) / comb(num_samples, n) for rank in range(num_samples)])


def expected_best(rewards: ArrayLike, values: ArrayLike, n: int) -> NDArray[np.float64]:
    """[P]: the mean of `values` over the best of n samples of each prompt, by their `rewards`; both [P, N].

    Of samples with the same reward the later one is taken for the better.
    """
    rewards, values = np.asarray(rewards, dtype=np.float64), np.asarray(values, dtype=np.float64)
    order = rewards.argsort(axis=1, kind="stable")
    best: NDArray[np.float64] = np.take_along_axis(values, order, axis=1) @ shares_of_best(rewards.shape[1], n)
    return best


def best_of_n_curve(
    rewards: ArrayLike, measures: Mapping[str, ArrayLike], sizes: Sequence[int], *, seed: int = 0
) -> list[BestOf]:
    """For each n of `sizes`, ascending from 1, the measures of the best of n by `rewards`; all arrays [P, N]."""
    one = {name: expected_best(rewards, values, 1) for name, values in measures.items()}
    curve: list[BestOf] = []
    for n in sizes:
        best = {name: expected_best(rewards, values, n) for name, values in measures.items()}
        curve.append(
            {
                "n": n,
                "kl": best_of_n_kl(n),
                "measures": {name: bootstrap_mean(found, seed=seed).as_json() for name, found in best.items()},
                "differences": {
                    name: paired_difference(found, one[name], seed=seed).as_json() for name, found in best.items()
                },
            }
        )
    return curve
