"""How far raters agree: Krippendorff's alpha with any distance, alpha of rankings, and plain shares of equal pairs.

alpha = 1 - D_observed / D_expected (Krippendorff 2004, chapter 11): 1 is full agreement, 0 what chance gives, below 0
systematic disagreement. Where chance disagreement is 0, alpha is undefined; it is then None with the reason beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tuneful.errors import DataError
from tuneful.feedback.votes import Floats, PairVotes, tabulate
from tuneful.records import Judgment

Distance = Callable[[Floats, Floats], Floats]
"""(values [V] in rising order, how often each occurs [V]) -> distances [V, V], zero on the diagonal."""

_DRAWS_AT_ONCE = 2_000_000  # bounds the memory of a block of resamples to some tens of MB


@dataclass(frozen=True, slots=True)
class Alpha:
    """Krippendorff's alpha with its 95 % bootstrap interval; num_units is what at least two judgments speak of.

    value is None when alpha is undefined, and then `reason` says why. interval is None when it was not asked for or
    when resamples are undefined as well.
    """

    value: float | None
    interval: tuple[float, float] | None
    num_units: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PairAgreement:
    """Share of the pairs both raters ordered that they ordered alike, a tie on either side counting half."""

    share: float | None
    num_pairs: int


def nominal(values: Floats, counts: Floats) -> Floats:
    """0 for equal values, 1 for different ones."""
    return np.asarray(values[:, None] != values, np.float64)


def ordinal(values: Floats, counts: Floats) -> Floats:
    """Squared number of answers that lie between two values, half of those at either end included."""
    middle = np.cumsum(counts) - counts / 2
    return np.asarray((middle[:, None] - middle) ** 2, np.float64)


def interval(values: Floats, counts: Floats) -> Floats:
    """Squared difference of the values."""
    return np.asarray((values[:, None] - values) ** 2, np.float64)


def krippendorff_alpha(
    units: Iterable[Sequence[float | None]],
    distance: Distance = nominal,
    *,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Alpha:
    """Alpha of `units`, each the values its raters gave (None = none given); units with one value are left out.

    The interval resamples units and keeps the distances of the full sample; num_resamples = 0 leaves it out.
    """
    rated = [[float(v) for v in unit if v is not None] for unit in units]
    rated = [unit for unit in rated if len(unit) > 1]
    if not rated:
        return Alpha(None, None, 0, "no unit has values of two raters")
    values, code = np.unique(np.concatenate(rated), return_inverse=True)
    sizes = np.array([len(unit) for unit in rated])
    counts = np.zeros((len(rated), len(values)))
    np.add.at(counts, (np.repeat(np.arange(len(rated)), sizes), code), 1)
    delta = distance(values, counts.sum(0))
    observed = np.einsum("uv,vw,uw->u", counts, delta, counts) / (sizes - 1)

    def alpha(sums: Floats) -> Floats:
        """From [B, 1 + V]: observed disagreement, then how often each value occurs."""
        total = sums[:, 1:].sum(1)
        expected = np.einsum("bv,vw,bw->b", sums[:, 1:], delta, sums[:, 1:]) / (total - 1)
        return _one_minus_ratio(sums[:, 0], expected)

    reason = "every value given is the same, so chance disagreement is 0"
    return _with_interval(np.column_stack((observed, counts)), alpha, len(rated), reason, num_resamples, seed)


def ranking_alpha(judgments: Iterable[Judgment], *, num_resamples: int = 1000, seed: int = 0) -> Alpha:
    """Alpha of rankings with the Kendall distance for ties; see `pair_alpha`. Raises DataError as `tabulate` does."""
    return pair_alpha(tabulate(judgments).pair_votes(), num_resamples=num_resamples, seed=seed)


def pair_alpha(votes: PairVotes, *, num_resamples: int = 1000, seed: int = 0) -> Alpha:
    """Alpha of the pairs of rankings: two rankings are 1 apart on a pair they order oppositely, 1/2 on one that a
    single one of them ties (Fagin et al. 2006), so partial rankings and any number of completions fit in.

    Which completion is stored first means nothing, so chance is two votes drawn from all, each turned around at random:
    expected 1/2 unless both are ties. The interval resamples items, since the pairs of one item resemble each other.
    """
    size = votes.num_pairs
    every, tied = np.bincount(votes.pair, minlength=size), np.bincount(votes.pair[votes.outcome == 0], minlength=size)
    won = np.bincount(votes.pair[votes.outcome > 0], minlength=size)
    home = np.zeros(size, np.int64)
    home[votes.pair] = votes.item
    several = every > 1
    every, tied, won, home = every[several], tied[several], won[several], home[several]
    if not len(every):
        return Alpha(None, None, 0, "no two judgments order the same pair of completions")
    lost = every - tied - won
    observed = (2 * won * lost + tied * (won + lost)) / (every - 1)
    _, item = np.unique(home, return_inverse=True)
    parts = np.column_stack([np.bincount(item, part) for part in (observed, every, tied)]).astype(np.float64)

    def alpha(sums: Floats) -> Floats:
        disagreement, total, ties = sums.T
        return _one_minus_ratio(disagreement, (total - ties * (ties - 1) / (total - 1)) / 2)

    reason = "every vote is a tie, so chance disagreement is 0"
    return _with_interval(parts, alpha, len(every), reason, num_resamples, seed)


def pair_agreement(judgments: Iterable[Judgment], rater: str, other: str) -> PairAgreement:
    """How often two raters order the pairs of completions that both have ranked alike.

    Raises DataError when one of them has no ranking among `judgments`.
    """
    votes = tabulate(judgments)
    for name in (rater, other):
        if name not in votes.raters:
            raise DataError(f'rater "{name}" has no ranking here; raters: {", ".join(votes.raters)}')
    pairs = votes.pair_votes()
    count, order = np.zeros((2, pairs.num_pairs)), np.zeros((2, pairs.num_pairs))
    for side, name in enumerate((rater, other)):
        mine = pairs.rater == votes.raters.index(name)
        count[side] = np.bincount(pairs.pair[mine], minlength=pairs.num_pairs)
        order[side] = np.bincount(pairs.pair[mine], pairs.outcome[mine], pairs.num_pairs)
    both = count.prod(0)
    if not both.any():
        return PairAgreement(None, 0)
    return PairAgreement(float((both + order.prod(0)).sum() / (2 * both.sum())), int((both > 0).sum()))


def share_of_agreement(votes: PairVotes) -> list[float | None]:
    """Per rater, the share of other judgments of the same pairs that order them alike; None where there are none."""
    others = np.bincount(votes.pair, minlength=votes.num_pairs)[votes.pair] - 1
    order = np.bincount(votes.pair, votes.outcome, votes.num_pairs)[votes.pair] - votes.outcome
    alike = np.bincount(votes.rater, (others + votes.outcome * order) / 2, votes.num_raters)
    met = np.bincount(votes.rater, others, votes.num_raters)
    return [float(a / m) if m else None for a, m in zip(alike, met, strict=True)]


def _one_minus_ratio(observed: Floats, expected: Floats) -> Floats:
    """NaN where nothing could disagree by chance."""
    return np.asarray(1 - observed / np.where(expected > 0, expected, np.nan), np.float64)


def _with_interval(
    parts: Floats, alpha: Callable[[Floats], Floats], num_units: int, reason: str, num_resamples: int, seed: int
) -> Alpha:
    """Alpha of the sums of `parts` [N, .], and its percentile interval over resamples of the N rows."""
    value = float(alpha(parts.sum(0, keepdims=True))[0])
    if np.isnan(value):
        return Alpha(None, None, num_units, reason)
    rng, rows = np.random.default_rng(seed), len(parts)
    if num_resamples == 0 or rows < 2:
        return Alpha(value, None, num_units)
    drawn = []
    for start in range(0, num_resamples, max(1, _DRAWS_AT_ONCE // rows)):
        draws = min(num_resamples - start, max(1, _DRAWS_AT_ONCE // rows))
        drawn.append(alpha(rng.multinomial(rows, np.full(rows, 1 / rows), size=draws) @ parts))
    resampled = np.concatenate(drawn)
    if np.isnan(resampled).any():
        return Alpha(value, None, num_units)
    low, high = np.quantile(resampled, (0.025, 0.975))
    return Alpha(value, (float(low), float(high)), num_units)
