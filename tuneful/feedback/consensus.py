"""What several raters together say: scores with uncertainty, two numbers per pair, and a report on each rater.

`p` and `confidence` are never mixed (docs/decisions/0003). p is what one new careful rater would say and is trained on;
confidence is how sure the data make us of the order, and tells where one more label helps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from tuneful.feedback.agreement import pair_alpha, share_of_agreement
from tuneful.feedback.scores import Scores, fit_scores
from tuneful.feedback.slopes import PRIOR_SLOPE, Slopes, davidson, fit_slopes
from tuneful.feedback.verdicts import LEVEL, Verdict, verdicts
from tuneful.feedback.votes import Block, Floats, PairVotes, Votes, tabulate
from tuneful.records import Judgment


@dataclass(frozen=True, slots=True)
class PairConsensus:
    """Two completions of one item. first is the one with p >= 1/2.

    p: probability that a new careful rater prefers `first`, a tie counting half. confidence: probability that the score
    of `first` is the higher one, given all judgments. sd: of the difference of the two scores, given all judgments.
    weight: the pair's share of its item's total weight, 1. decided: p is a lead's word (feedback.settling).
    """

    item: str
    prompt: str
    first: str
    second: str
    p: float
    confidence: float
    sd: float
    weight: float
    decided: bool = False


@dataclass(frozen=True, slots=True)
class RaterReport:
    """How far one rater can be trusted.

    reliability is the slope: 1.7 for two raters who agree on 73 % of pairs, 0 for guessing, below 0 for a scale read
    upside down; interval is its 99.9 % interval. agreement: share of pairs ordered as another judgment ordered them, a
    tie on either side counting half; None when nobody else ordered any. median_seconds: per judgment, None if untimed.
    """

    rater: str
    num_judgments: int
    reliability: float
    interval: tuple[float, float]
    verdict: Verdict
    agreement: float | None
    median_seconds: float | None


@dataclass(frozen=True, slots=True)
class Consensus:
    """Pairs by item, raters by id, and the score of every ranked completion id as (mean, sd), N(0, 1) a priori.

    alpha: Krippendorff's alpha of the rankings, None when it is undefined, and then alpha_reason says why. slope: that
    of a careful rater, the one p speaks of; 0, and every p 1/2, when no rater is reliable or unknown. nu: the tie
    parameter.
    """

    pairs: tuple[PairConsensus, ...]
    raters: tuple[RaterReport, ...]
    scores: Mapping[str, tuple[float, float]]
    alpha: float | None
    alpha_reason: str
    slope: float
    nu: float


def consensus(judgments: Iterable[Judgment]) -> Consensus:
    """The reliability-weighted Bradley-Terry consensus of all rankings and comparisons in `judgments`.

    Slopes are fitted first (feedback.slopes), then the scores of each item (feedback.scores); in these a model's vote
    counts with the probability that it gave, where its `values` have one for every pair in both orders. Nobody is
    removed: a random rater has a slope near 0 and moves nothing, an inverted one a negative slope and still informs.

    Several raters: every pair of an item is kept, weight 1/C(N, 2). One rater: tied pairs are dropped and the others of
    an item share weight 1. Judgments that another one `replaces` and kinds that order nothing are left out. Raises
    DataError as `votes.tabulate` does.
    """
    votes = tabulate(judgments)
    pair_votes = votes.pair_votes()
    slopes = fit_slopes(pair_votes)
    half_width = float(norm.ppf((1 + LEVEL) / 2)) * slopes.sd
    low, high = slopes.value - half_width, slopes.value + half_width
    judged = verdicts(slopes.value, low, high, usual=PRIOR_SLOPE)
    # Nothing is known against the unknown ones, and a single rater, whose ranking nobody can confirm, is always one.
    trusted = [v for v, verdict in zip(slopes.value, judged, strict=True) if verdict in ("reliable", "unknown")]
    # The median: a hasty rater who still counts as reliable would drag the mean away from the careful ones.
    slope = float(np.median(trusted)) if trusted else 0.0
    kept = _kept(pair_votes)
    by_item: dict[str, list[PairConsensus]] = {}
    scores: dict[str, tuple[float, float]] = {}
    num_pairs = 0
    for block in votes.blocks:
        posterior = fit_scores(block, slopes.value, slopes.nu)
        count = len(block.items) * len(block.pairs[0])
        here = kept[num_pairs : num_pairs + count].reshape(len(block.items), -1)
        _add_pairs(by_item, block, posterior, here, votes.prompts, slope, slopes.nu)
        _add_scores(scores, block, posterior)
        num_pairs += count
    alpha = pair_alpha(pair_votes, num_resamples=0)
    return Consensus(
        pairs=tuple(pair for item in sorted(by_item) for pair in by_item[item]),
        raters=_reports(votes, pair_votes, slopes, low, high, judged),
        scores=scores,
        alpha=alpha.value,
        alpha_reason=alpha.reason,
        slope=slope,
        nu=slopes.nu,
    )


def _kept(votes: PairVotes) -> Floats:
    """Which pairs are handed on, 0 or 1 [pairs]: all of them, or a single rater's strictly ordered ones."""
    if votes.num_raters > 1:
        return np.ones(votes.num_pairs)
    strict = np.bincount(votes.pair, votes.outcome != 0, votes.num_pairs)
    return (strict > 0).astype(np.float64)


def _predictive(mean: Floats, sd: Floats, slope: float, nu: float) -> Floats:
    """E[P(first) + P(tie) / 2] of a rater with `slope` over d ~ N(mean, sd^2), by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(15)
    _, _, lead = davidson(slope * (mean[..., None] + sd[..., None] * nodes), nu)
    return np.asarray(0.5 + lead @ (weights / weights.sum()), np.float64)


def _add_pairs(
    by_item: dict[str, list[PairConsensus]],
    block: Block,
    posterior: Scores,
    kept: Floats,
    prompts: Mapping[str, str],
    slope: float,
    nu: float,
) -> None:
    first, second = block.pairs
    variance = np.einsum("aai->ai", posterior.covariance)
    covariance = posterior.covariance[first, second]
    difference = (posterior.mean[first] - posterior.mean[second]).T
    sd = np.sqrt(variance[first] + variance[second] - 2 * covariance).T
    p = _predictive(np.abs(difference), sd, slope, nu).tolist()
    confidence = norm.cdf(np.abs(difference) / sd).tolist()
    spread = sd.tolist()
    ahead = (difference >= 0).tolist()
    weight = (kept / np.maximum(kept.sum(1, keepdims=True), 1)).tolist()
    positions = list(zip(first.tolist(), second.tolist(), strict=True))
    for n, (item, ids) in enumerate(zip(block.items, block.completions, strict=True)):
        by_item[item] = [
            PairConsensus(
                item=item,
                prompt=prompts[item],
                first=ids[a] if ahead[n][k] else ids[b],
                second=ids[b] if ahead[n][k] else ids[a],
                p=p[n][k],
                confidence=confidence[n][k],
                sd=spread[n][k],
                weight=weight[n][k],
            )
            for k, (a, b) in enumerate(positions)
            if weight[n][k] > 0
        ]


def _add_scores(scores: dict[str, tuple[float, float]], block: Block, posterior: Scores) -> None:
    mean = posterior.mean.T.tolist()
    sd = np.sqrt(np.einsum("aai->ia", posterior.covariance)).tolist()
    for n, ids in enumerate(block.completions):
        scores.update((c, (mean[n][k], sd[n][k])) for k, c in enumerate(ids))


def _reports(
    votes: Votes, pair_votes: PairVotes, slopes: Slopes, low: Floats, high: Floats, judged: list[Verdict]
) -> tuple[RaterReport, ...]:
    agreement = share_of_agreement(pair_votes)
    count = dict.fromkeys(votes.raters, 0)
    seconds: dict[str, list[float]] = {rater: [] for rater in votes.raters}
    for judgment in votes.judgments:
        count[judgment.rater] += 1
        if judgment.seconds is not None:
            seconds[judgment.rater].append(judgment.seconds)
    return tuple(
        RaterReport(
            rater=rater,
            num_judgments=count[rater],
            reliability=float(slopes.value[n]),
            interval=(float(low[n]), float(high[n])),
            verdict=judged[n],
            agreement=agreement[n],
            median_seconds=float(np.median(seconds[rater])) if seconds[rater] else None,
        )
        for n, rater in enumerate(votes.raters)
    )
