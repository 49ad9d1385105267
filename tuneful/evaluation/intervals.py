"""Means with intervals. What is resampled is the prompt, since the samples of one prompt resemble each other.

Bootstrap intervals are percentile intervals (Efron 1979) over clusters. A share of independent trials has Wilson's:
`tuneful.feedback.shares`. Of a few training seeds Student's t is the interval: a bootstrap of three is too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from tuneful.errors import DataError

Floats = NDArray[np.float64]
Groups = Sequence[str] | Sequence[int] | NDArray[np.int64]

NUM_RESAMPLES = 10_000
LEVEL = 0.95
_DRAWS_AT_ONCE = 2_000_000  # bounds the memory of a block of resamples to some tens of MB


class MeasuredJSON(TypedDict):
    """A measured quantity as every report holds it."""

    mean: float
    interval: list[float]
    n: int


@dataclass(frozen=True, slots=True)
class Measured:
    """A mean with its interval. n counts what is independent: prompts where values are grouped by them, else values."""

    mean: float
    low: float
    high: float
    n: int

    def as_json(self) -> MeasuredJSON:
        return {"mean": self.mean, "interval": [self.low, self.high], "n": self.n}


def bootstrap_mean(
    values: ArrayLike,
    groups: Groups | None = None,
    *,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
    level: float = LEVEL,
) -> Measured:
    """Mean of `values` [N] with the interval of a bootstrap over `groups` (one label per value, usually the prompt).

    Every value weighs the same, so a group with more values weighs more. Raises DataError for values that are not
    finite, and for fewer than two groups: one prompt says nothing about the next.
    """
    numbers = _finite(values, "values")
    sums, counts = _by_group(numbers, groups)
    means = _resampled_means(sums, counts, num_resamples, np.random.default_rng(seed))
    low, high = _percentiles(means, level)
    return Measured(float(numbers.mean()), low, high, len(sums))


def paired_difference(
    after: ArrayLike,
    before: ArrayLike,
    groups: Groups | None = None,
    *,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
    level: float = LEVEL,
) -> Measured:
    """Mean of after - before [N], aligned value by value, with the interval of a bootstrap over `groups`."""
    change = _aligned(after, before)
    return bootstrap_mean(change, groups, seed=seed, num_resamples=num_resamples, level=level)


def hierarchical_difference(
    per_seed: Sequence[ArrayLike], *, seed: int = 0, num_resamples: int = NUM_RESAMPLES, level: float = LEVEL
) -> Measured:
    """Mean over training seeds of paired differences; seeds are resampled, and prompts inside each drawn seed.

    per_seed: for each training seed the differences, one number per prompt. n counts seeds. With few seeds the interval
    is too narrow (three seeds have ten different resamples), so ask for the same sign in every seed as well.
    """
    if len(per_seed) < 2:
        raise DataError(f"a hierarchical interval needs at least 2 seeds, got {len(per_seed)}; use paired_difference")
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(per_seed), size=(num_resamples, len(per_seed)))
    means = np.empty(drawn.shape)
    centres = []
    for index, differences in enumerate(per_seed):
        sums, counts = _by_group(_finite(differences, f"per_seed[{index}]"), None)
        centres.append(sums.mean())
        here = drawn == index
        means[here] = _resampled_means(sums, counts, int(here.sum()), rng)
    low, high = _percentiles(means.mean(axis=1), level)
    return Measured(float(np.mean(centres)), low, high, len(per_seed))


def mean_over_seeds(values: ArrayLike, *, level: float = LEVEL) -> Measured:
    """Mean of one number per training seed [N] with Student's t interval: mean ± t s / √N, N - 1 degrees of freedom.

    Raises DataError for values that are not finite, and for fewer than two.
    """
    numbers = _finite(values, "values")
    if len(numbers) < 2:
        raise DataError(f"an interval over seeds needs at least 2 seeds, got {len(numbers)}")
    mean = float(numbers.mean())
    reach = float(scipy.stats.t.ppf((1 + level) / 2, len(numbers) - 1) * numbers.std(ddof=1) / np.sqrt(len(numbers)))
    return Measured(mean, mean - reach, mean + reach, len(numbers))


def win_rate(
    after_scores: ArrayLike,
    before_scores: ArrayLike,
    groups: Groups | None = None,
    *,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
) -> Measured:
    """Share of aligned pairs in which `after` scores higher, ties one half, with a bootstrap over `groups`."""
    return bootstrap_mean(wins(_aligned(after_scores, before_scores)), groups, seed=seed, num_resamples=num_resamples)


def wins(differences: ArrayLike) -> Floats:
    """1 where a difference is positive, 1/2 where it is zero, 0 where it is negative. [N] -> [N].

    Differences below 1e-9 are ties: equal sums of the same parts in another order differ by rounding alone.
    """
    return (np.sign(np.round(np.asarray(differences, dtype=np.float64), 9)) + 1) / 2


def _finite(values: ArrayLike, name: str) -> Floats:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or numbers.size == 0:
        raise DataError(f"{name} must be a list of numbers with at least one entry, got shape {numbers.shape}")
    bad = np.flatnonzero(~np.isfinite(numbers))
    if bad.size:
        raise DataError(f"{name}[{bad[0]}] is {numbers[bad[0]]}; every value must be finite")
    return numbers


def _aligned(after: ArrayLike, before: ArrayLike) -> Floats:
    first, second = _finite(after, "after"), _finite(before, "before")
    if len(first) != len(second):
        raise DataError(f"paired values must align: after has {len(first)}, before {len(second)}")
    return first - second


def _by_group(values: Floats, groups: Groups | None) -> tuple[Floats, Floats]:
    """Sum and count of the values of each group, [G] and [G]."""
    if groups is None:
        sums, counts = values, np.ones_like(values)
    else:
        if len(groups) != len(values):
            raise DataError(f"groups must label every value: {len(groups)} labels for {len(values)} values")
        _, index = np.unique(np.asarray(groups), return_inverse=True)
        sums = np.bincount(index, weights=values).astype(np.float64)
        counts = np.bincount(index).astype(np.float64)
    if len(sums) < 2:
        raise DataError(f"an interval needs at least 2 prompts, got {len(sums)}; evaluate on more prompts")
    return sums, counts


def _resampled_means(sums: Floats, counts: Floats, num_resamples: int, rng: np.random.Generator) -> Floats:
    """Mean of each of `num_resamples` draws of G groups with replacement. [G], [G] -> [R]."""
    even = bool((counts == counts[0]).all())
    means = np.empty(num_resamples)
    block = max(1, _DRAWS_AT_ONCE // len(sums))
    for start in range(0, num_resamples, block):
        stop = min(start + block, num_resamples)
        drawn = rng.integers(len(sums), size=(stop - start, len(sums)), dtype=np.int32)
        weight = counts[0] * len(sums) if even else counts[drawn].sum(axis=1)
        means[start:stop] = sums[drawn].sum(axis=1) / weight
    return means


def _percentiles(means: Floats, level: float) -> tuple[float, float]:
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
