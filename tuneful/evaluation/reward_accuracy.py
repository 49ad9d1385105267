"""How good a reward model is on held-out pairs: accuracy, by margin, beside length, and calibration of its odds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit
from scipy.stats import norm, spearmanr

from tuneful.errors import DataError
from tuneful.evaluation.intervals import Groups, Measured, bootstrap_mean, paired_difference, wins

Floats = NDArray[np.float64]


def accuracy(
    chosen_scores: ArrayLike, rejected_scores: ArrayLike, groups: Groups | None = None, *, seed: int = 0
) -> Measured:
    """Share of pairs whose chosen side scores higher, ties one half, with a bootstrap over `groups` (prompts)."""
    return bootstrap_mean(wins(_margins(chosen_scores, rejected_scores)), groups, seed=seed)


@dataclass(frozen=True, slots=True)
class Bin:
    """Pairs with similar values of what they were sorted by, from `low` to `high`."""

    low: float
    high: float
    accuracy: float
    n: int


def accuracy_by_margin(
    chosen_scores: ArrayLike, rejected_scores: ArrayLike, margins: ArrayLike, *, num_bins: int = 5
) -> list[Bin]:
    """Accuracy in bins of equally many pairs, sorted by `margins` [N]: how clear each pair is, by whatever measure."""
    correct = wins(_margins(chosen_scores, rejected_scores))
    size = np.asarray(margins, dtype=np.float64)
    if size.shape != correct.shape:
        raise DataError(f"one margin per pair: {len(size)} margins for {len(correct)} pairs")
    bins = _equal_count_bins(size, num_bins)
    return [Bin(float(size[i].min()), float(size[i].max()), float(correct[i].mean()), len(i)) for i in bins]


@dataclass(frozen=True, slots=True)
class Calibration:
    """ece: expected calibration error of sigmoid(score difference). temperature: what to divide the scores by so that
    these probabilities fit best (above 1: overconfident). ece_fitted: the error left after that division.
    """

    ece: float
    temperature: float
    ece_fitted: float


def calibration(chosen_scores: ArrayLike, rejected_scores: ArrayLike, *, num_bins: int = 10) -> Calibration:
    """Calibration of the Bradley-Terry odds (Guo et al. 2017, eq. 3): [0, 1] in `num_bins` bins of equal width.

    A pair's confidence is sigmoid(|difference|), at least 1/2, so that of ten bins the upper five hold pairs. The pair
    is right when the higher side was chosen, half right when neither is higher. The temperature is fitted on the same
    pairs by maximum likelihood within [e^-7, e^7]; pairs told apart without error drive it to the low end.
    """
    margins = _margins(chosen_scores, rejected_scores)

    def loss(log_temperature: float) -> float:
        return float(np.logaddexp(0, -margins / np.exp(log_temperature)).mean())

    temperature = float(np.exp(minimize_scalar(loss, bounds=(-7, 7), method="bounded").x))
    return Calibration(_ece(margins, num_bins), temperature, _ece(margins / temperature, num_bins))


def length_correlation(scores: ArrayLike, lengths: ArrayLike) -> Measured | None:
    """Spearman's rank correlation of score with length; None when either is constant or fewer than 4 texts are given.

    Interval on Fisher's z with the standard error of Bonett and Wright 2000: sqrt((1 + r^2 / 2) / (n - 3)).
    """
    first, second = np.asarray(scores, dtype=np.float64), np.asarray(lengths, dtype=np.float64)
    if first.shape != second.shape:
        raise DataError(f"one length per score: {len(second)} lengths for {len(first)} scores")
    if len(first) < 4 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    r = float(spearmanr(first, second).statistic)
    inside = float(np.clip(r, -1 + 1e-12, 1 - 1e-12))
    half = norm.ppf(0.975) * np.sqrt((1 + r * r / 2) / (len(first) - 3))
    low, high = np.tanh(np.arctanh(inside) + np.array([-half, half]))
    return Measured(r, float(low), float(high), len(first))


def length_matched(chosen_lengths: ArrayLike, rejected_lengths: ArrayLike, *, within: float = 0.2) -> NDArray[np.bool_]:
    """Which pairs differ in length by at most `within` of the longer side. [N] -> bool [N]."""
    first, second = np.asarray(chosen_lengths, dtype=np.float64), np.asarray(rejected_lengths, dtype=np.float64)
    return np.abs(first - second) <= within * np.maximum(first, second)


def evaluate_reward(
    chosen_scores: Sequence[float],
    rejected_scores: Sequence[float],
    chosen_lengths: Sequence[int],
    rejected_lengths: Sequence[int],
    groups: Groups | None = None,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """The reward model's part of a report.

    "baselines" are the accuracies of preferring the shorter and the longer side; "above_shorter_wins" is the paired
    difference to the first on the same pairs. "accuracy_length_matched" is None below two such prompts.
    """
    margins = _margins(chosen_scores, rejected_scores)
    correct = wins(margins)
    longer = wins(_margins(chosen_lengths, rejected_lengths))
    shorter = 1 - longer
    if len(longer) != len(correct):
        raise DataError(f"one length per score: {len(longer)} lengths for {len(correct)} pairs")
    matched = length_matched(chosen_lengths, rejected_lengths)
    matched_groups = np.flatnonzero(matched) if groups is None else np.asarray(groups)[matched]
    on_matched = None
    if len(np.unique(matched_groups)) >= 2:
        on_matched = bootstrap_mean(correct[matched], matched_groups, seed=seed).as_json()
    correlation = length_correlation(
        np.concatenate([chosen_scores, rejected_scores]), np.concatenate([chosen_lengths, rejected_lengths])
    )
    return {
        "heldout_accuracy": accuracy(chosen_scores, rejected_scores, groups, seed=seed).as_json(),
        "accuracy_length_matched": on_matched,
        "baselines": {
            "shorter_wins": bootstrap_mean(shorter, groups, seed=seed).as_json(),
            "longer_wins": bootstrap_mean(longer, groups, seed=seed).as_json(),
        },
        "above_shorter_wins": paired_difference(correct, shorter, groups, seed=seed).as_json(),
        "accuracy_by_margin": [asdict(b) for b in accuracy_by_margin(chosen_scores, rejected_scores, np.abs(margins))],
        "calibration": asdict(calibration(chosen_scores, rejected_scores)),
        "length_correlation": correlation.as_json() if correlation else None,
    }


def _margins(chosen_scores: ArrayLike, rejected_scores: ArrayLike) -> Floats:
    chosen, rejected = np.asarray(chosen_scores, dtype=np.float64), np.asarray(rejected_scores, dtype=np.float64)
    if chosen.shape != rejected.shape or chosen.ndim != 1 or not chosen.size:
        raise DataError(f"one rejected score per chosen score: got shapes {chosen.shape} and {rejected.shape}")
    margins = chosen - rejected
    if not np.isfinite(margins).all():
        raise DataError(f"pair {int(np.flatnonzero(~np.isfinite(margins))[0])} has a score that is not finite")
    return margins


def _ece(margins: Floats, num_bins: int) -> float:
    """Sum over bins of (their share of pairs) |accuracy - mean confidence|; bin m is ((m - 1) / bins, m / bins]."""
    confidence = expit(np.abs(margins))
    excess = np.bincount(np.ceil(confidence * num_bins).astype(np.intp), weights=wins(margins) - confidence)
    return float(np.abs(excess).sum() / len(margins))


def _equal_count_bins(values: Floats, num_bins: int) -> list[NDArray[np.intp]]:
    """Indices sorted by value and cut into at most `num_bins` parts of equal size."""
    return [part for part in np.array_split(np.argsort(values, kind="stable"), num_bins) if part.size]
