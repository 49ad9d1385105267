"""How sure the order of an item is, and what one more judgment of it is worth.

Given all judgments, the scores of two completions differ by d ~ N(m, s^2) (feedback.scores), and their order is wrong
with probability Phi(-|m| / s). One more rater of slope beta tells of eta = beta d as much as an answer has information,
v(eta) = (1 - P(tie)) / 4 - lead^2 with the tie and lead of feedback.slopes. Taken as Gaussian, that leaves

    1 / s'^2 = 1 / s^2 + beta^2 E[v(beta d)]        M ~ N(m, s^2 - s'^2)

as variance and mean of d, the mean not yet known. So the judgment is expected to put right, of this pair,

    Phi(-|m| / s) - E[Phi(-|M| / s')]

the knowledge gradient (Frazier, Powell and Dayanik 2008) for pairs in their right order. It is never below 0 and falls
as d becomes known, whichever way: two completions that are alike have a small s, of which little is left to learn,
though their order stays as good as a guess. The answer is taken as Gaussian on purpose: a single strict one often
cannot turn an order, so that one exact answer ahead nothing would seem worth while where two would settle it.

An item's gain is the sum over its pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log, sqrt
from typing import Final

import numpy as np
from scipy.special import ndtr, ndtri

from tuneful.feedback.consensus import Consensus
from tuneful.feedback.slopes import PRIOR_SLOPE, davidson
from tuneful.feedback.votes import Floats

EQUAL: Final = 0.6
"""Two completions are about equal where a careful rater prefers neither of them with more than this probability."""

_NODES: Final = 16


@dataclass(frozen=True, slots=True)
class Outlook:
    """sure: the expected share of the item's pairs that are in their right order, or known to be about equal. gain:
    pairs that one more judgment of the item is expected to put right."""

    sure: float
    gain: float


def outlooks(found: Consensus) -> dict[str, Outlook]:
    """Of every item that the consensus holds a pair of."""
    if not found.pairs:
        return {}
    items, index = np.unique([pair.item for pair in found.pairs], return_inverse=True)
    mean = np.array([found.scores[pair.first][0] - found.scores[pair.second][0] for pair in found.pairs])
    sd = np.array([pair.sd for pair in found.pairs])
    slope = _slope(found)
    margin = equal_margin(slope, found.nu)
    equal = ndtr((margin - mean) / sd) - ndtr((-margin - mean) / sd)
    known = np.maximum([pair.confidence for pair in found.pairs], equal)
    sure = np.bincount(index, known) / np.bincount(index)
    gain = np.bincount(index, pair_gain(mean, sd, slope, found.nu))
    return {item: Outlook(*told) for item, *told in zip(items.tolist(), sure.tolist(), gain.tolist(), strict=True)}


def first_gain(found: Consensus, num_completions: int) -> float:
    """Pairs that the first judgment of an item of so many completions is expected to put right: d ~ N(0, 2) before."""
    one = pair_gain(np.zeros(1), np.full(1, sqrt(2)), _slope(found), found.nu)[0]
    return float(one) * num_completions * (num_completions - 1) / 2


def wanted(seen: Mapping[str, Outlook], judged: Mapping[str, int], *, sure: float, most: int) -> dict[str, float]:
    """The gain of each item that one more rater should be asked about: it is not `sure`, and fewer than `most` raters
    have judged it.

    The mean over the pairs is held against `sure`, not the least sure pair: of the six pairs of four completions one is
    nearly always close, and asking until that one is settled would ask about every item as often as is allowed.
    """
    return {item: outlook.gain for item, outlook in seen.items() if outlook.sure < sure and judged.get(item, 0) < most}


def pair_gain(mean: Floats, sd: Floats, slope: float, nu: float) -> Floats:
    """The probability that a rater's answer puts a pair right, less that it puts it wrong, d ~ N(mean, sd^2).

    [P], [P] -> [P]. slope, nu: of the rater, as in feedback.slopes. Expectations are Gauss-Legendre sums over the
    distribution function, on each side of 0 where there is a kink.
    """
    points, weights = np.polynomial.legendre.leggauss(_NODES)
    shares, weights = (1 + points) / 2, weights / 2
    information = np.zeros(len(mean))
    for share, weight in zip(shares, weights, strict=True):
        _, tie, lead = davidson(slope * (mean + sd * ndtri(share)), nu)
        information += weight * ((1 - tie) / 4 - lead * lead)
    learned = 1 - 1 / (1 + (slope * sd) ** 2 * information)  # of the variance
    spread, after = sd * np.sqrt(np.maximum(learned, 1e-12)), sd * np.sqrt(1 - learned)
    above = ndtr(mean / spread)
    wrong = np.zeros(len(mean))
    for start, side in ((1 - above, above), (np.zeros(len(mean)), 1 - above)):
        for share, weight in zip(shares, weights, strict=True):
            moved = mean + spread * ndtri(np.clip(start + side * share, 1e-300, 1 - 1e-16))
            wrong += weight * side * ndtr(-np.abs(moved) / after)
    return np.asarray(np.maximum(ndtr(-np.abs(mean) / sd) - wrong, 0), np.float64)


def equal_margin(slope: float, nu: float) -> float:
    """The |d| up to which a rater prefers neither side with more than `EQUAL`, a tie counting half.

    With c = EQUAL - 1/2 and y = e^(slope d / 2) the lead of feedback.slopes is c where
    (1 - 2c) y^2 - 2 c nu y - (1 + 2c) = 0.
    """
    c = EQUAL - 0.5
    y = (c * nu + sqrt((c * nu) ** 2 + 1 - 4 * c * c)) / (1 - 2 * c)
    return 2 * log(y) / slope


def _slope(found: Consensus) -> float:
    """Of whoever is asked next: as careful as the others, or, while none is shown to be, as people usually are."""
    return found.slope or PRIOR_SLOPE
