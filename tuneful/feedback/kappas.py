"""Agreement of raters who label the same items: Cohen's kappa, Fleiss' kappa and Kendall's W.

A kappa is 1 - D_observed / D_expected, as alpha is: 1 is full agreement, 0 what chance gives. They differ in what they
take chance to be. Cohen lets each of two raters keep the shares of labels that he gave; Fleiss draws from the shares of
all labels together. Kendall's W is of another kind: it lies between 0 and 1, and m raters who guess reach 1/m.

Where nothing could disagree by chance a coefficient is undefined; its value is then None, with the reason beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tuneful.errors import DataError
from tuneful.feedback.agreement import Distance, nominal
from tuneful.feedback.votes import Floats, Ints


@dataclass(frozen=True, slots=True)
class Coefficient:
    """A coefficient of agreement with its 95 % bootstrap interval over items.

    value is None when it is undefined, and then `reason` says why. interval is None when it was not asked for, when
    there is one item, or when resamples are undefined as well. num_items: what was labeled, or put in order.
    """

    value: float | None
    interval: tuple[float, float] | None
    num_items: int
    reason: str = ""


def linear(values: Floats, counts: Floats) -> Floats:
    """Difference of the values. (The quadratic weights are `agreement.interval`, the equal ones `nominal`.)"""
    return np.asarray(np.abs(values[:, None] - values), np.float64)


def cohen_kappa(
    one: Sequence[float | None],
    other: Sequence[float | None],
    distance: Distance = nominal,
    *,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Coefficient:
    """Cohen's kappa of two raters' labels of the same items (Cohen 1960, equation 1).

    (P - P_c) / (1 - P_c), where P is the share of items labeled alike and P_c = sum_v p_v q_v of the shares with which
    the two give label v. With a distance it is the weighted kappa (Cohen 1968): 1 - sum d_vw p_vw / sum d_vw p_v q_w.

    one, other: aligned, None = not labeled; an item that one of them left out is left out. With a distance that reads
    values, `linear` or `agreement.interval`, the numbers themselves count: a label that nobody gave leaves a gap.
    """
    if len(one) != len(other):
        raise DataError(f"kappa: {len(one)} labels and {len(other)}; give both raters' labels of the same items")
    both = [(float(a), float(b)) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    if not both:
        return Coefficient(None, None, 0, "no item has labels of both raters")
    values, code = np.unique(np.array(both), return_inverse=True)
    size = len(values)
    code = code.reshape(-1, 2)
    delta = distance(values, np.bincount(code.ravel(), minlength=size).astype(np.float64))
    cells, times = np.unique(code[:, 0] * size + code[:, 1], return_counts=True)
    where = np.zeros((len(cells), size * size))
    where[np.arange(len(cells)), cells] = 1

    def kappa(sums: Floats) -> Floats:
        """From [B, V * V], how often the first rater said v and the second w."""
        table = sums.reshape(-1, size, size)
        total = table.sum((1, 2))
        observed = (table * delta).sum((1, 2)) / total
        expected = np.einsum("bv,vw,bw->b", table.sum(2), delta, table.sum(1)) / total**2
        return _one_minus_ratio(observed, expected)

    reason = "both raters gave one and the same label to every item, so chance disagreement is 0"
    return _with_interval(where, times, kappa, reason, num_resamples, seed)


def fleiss_kappa(counts: ArrayLike, *, num_resamples: int = 1000, seed: int = 0) -> Coefficient:
    """Fleiss' kappa of items that equally many raters labeled, not always the same ones (Fleiss 1971).

    (P - P_c) / (1 - P_c), where P is the mean over items of (sum_v n_iv^2 - n) / (n (n - 1)), the share of pairs of its
    n raters that agree, and P_c = sum_v p_v^2 of the shares of all labels.

    counts: int [N, V], n_iv, how many raters gave item i the label v. Raises DataError when items have different
    numbers of labels, which alpha allows, or fewer than two.
    """
    table = np.asarray(counts, np.float64)
    if table.ndim != 2 or table.size == 0:
        raise DataError(f"kappa: expected counts of items by labels, got shape {table.shape}")
    if (table < 0).any() or (table != np.floor(table)).any():
        raise DataError("kappa: counts must be whole numbers from 0 up")
    per_item = table.sum(1)
    if (uneven := np.flatnonzero(per_item != per_item[0])).size:
        raise DataError(
            f"kappa: item {uneven[0]} has {per_item[uneven[0]]:.0f} labels and item 0 has {per_item[0]:.0f}; Fleiss' "
            "kappa needs as many for every item, krippendorff_alpha does not"
        )
    raters = per_item[0]
    if raters < 2:
        raise DataError(f"kappa: {raters:.0f} label to an item; agreement needs two")
    rows, times = np.unique(table, axis=0, return_counts=True)
    agreement = ((rows**2).sum(1) - raters) / (raters * (raters - 1))

    def kappa(sums: Floats) -> Floats:
        """From [B, 2 + V]: agreement within items, number of items, how often each label was given."""
        items = sums[:, 1]
        expected = 1 - ((sums[:, 2:] / (raters * items)[:, None]) ** 2).sum(1)
        return _one_minus_ratio(1 - sums[:, 0] / items, np.where(expected > 1e-12, expected, 0))

    parts = np.column_stack((agreement, np.ones(len(rows)), rows))
    reason = "every label given is the same, so chance disagreement is 0"
    return _with_interval(parts, times, kappa, reason, num_resamples, seed)


def kendall_w(ranks: Sequence[Sequence[float | None]]) -> Coefficient:
    """Kendall's coefficient of concordance W of raters who put the same things in order, corrected for ties (Kendall
    and Babington Smith 1939; ties: Kendall 1948, chapter 6).

    ranks: a row for each rater, low = good, equal = tie; only the order counts. A rater who left one out (None) is left
    out. With m raters of n things, R_i the sum of ranks of thing i, and T_j the sum of t^3 - t over the ties of rater j

        W = 12 sum_i (R_i - m (n + 1) / 2)^2 / (m^2 (n^3 - n) - m sum_j T_j)

    Its chance value is 1/m, so two raters who guess reach 1/2. There is no interval: all speak of one set of things.
    """
    if any(len(row) != len(ranks[0]) for row in ranks):
        raise DataError("W: every rater must rank the same number of things; use None for what was not ranked")
    complete = [[float(rank) for rank in row if rank is not None] for row in ranks]
    complete = [row for row, given in zip(complete, ranks, strict=True) if len(row) == len(given)]
    if len(complete) < 2:
        return Coefficient(None, None, len(complete[0]) if complete else 0, "fewer than two raters ranked everything")
    placed = np.array(complete)
    raters, things = placed.shape
    if things < 2:
        return Coefficient(None, None, things, "there is one thing to rank")
    ahead = (placed[:, None, :] < placed[:, :, None]).sum(2)
    alike = (placed[:, None, :] == placed[:, :, None]).sum(2)
    middle = ahead + (alike + 1) / 2
    spread = ((middle.sum(0) - raters * (things + 1) / 2) ** 2).sum()
    ties = (alike**2 - 1).sum()  # t things tied bring t (t^2 - 1)
    most = raters**2 * (things**3 - things) - raters * ties
    if most == 0:
        return Coefficient(None, None, things, "every rater tied everything")
    return Coefficient(float(12 * spread / most), None, things)


def _one_minus_ratio(observed: Floats, expected: Floats) -> Floats:
    """NaN where nothing could disagree by chance."""
    return np.asarray(1 - observed / np.where(expected > 0, expected, np.nan), np.float64)


def _with_interval(
    parts: Floats, times: Ints, statistic: Callable[[Floats], Floats], reason: str, num_resamples: int, seed: int
) -> Coefficient:
    """The statistic of the sums of `parts` [U, .], the different kinds of items, each of which comes `times` [U]; to
    resample items is to draw anew how often each kind comes."""
    num_items = int(times.sum())
    value = float(statistic((times @ parts)[None])[0])
    if np.isnan(value):
        return Coefficient(None, None, num_items, reason)
    if num_resamples == 0 or num_items < 2:
        return Coefficient(value, None, num_items)
    drawn = np.random.default_rng(seed).multinomial(num_items, times / num_items, size=num_resamples)
    resampled = statistic(drawn @ parts)
    if np.isnan(resampled).any():
        return Coefficient(value, None, num_items)
    low, high = np.quantile(resampled, (0.025, 0.975))
    return Coefficient(value, (float(low), float(high)), num_items)
