"""How each rater stands on one criterion: how far they can be trusted, and how often they go with the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from tuneful.feedback.points import Points
from tuneful.feedback.shares import Share, wilson
from tuneful.feedback.verdicts import LEVEL, Verdict, verdicts
from tuneful.feedback.votes import Floats

if TYPE_CHECKING:
    from tuneful.feedback.consensus import Consensus
    from tuneful.feedback.dawid_skene import BinaryConsensus, BinaryRater

FEWEST_ANSWERS: Final = 20
"""Answers of yes or no that others gave too; with fewer nothing is said of a rater."""


USUAL_LEAD: Final = 0.68
"""How much more often a careful person says yes where yes is true than where it is not: two such people, right with
probability .84 each, agree on 73 % of answers, as the usual slope has it of pairs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One rater on one criterion.

    reliability, with its 99.9 % interval: of rankings, and of the orders that ratings imply, the slope of the consensus
    (1.7 for people who agree on 73 % of pairs, 0 for guessing, below 0 upside down); of yes and no, how much more often
    the rater says yes where the others tell yes than where they tell no (1, 0, -1). None of what orders nothing.
    follows: the share of points on which the rater goes with the others taken together, each weighed by reliability and
    the rater left out. agreement: the share of single other words that are alike. ties: the share of points tied.
    """

    rater: str
    criterion: str
    judgments: int
    reliability: float | None
    interval: tuple[float, float] | None
    verdict: str
    follows: Share | None
    agreement: float | None
    ties: float | None
    yes_when_yes: float | None = None
    no_when_no: float | None = None


def standings_of_rankings(points: Points, consensus: Consensus, criterion: str) -> list[Standing]:
    """Standings of those who put answers in order; the verdicts are the consensus'."""
    reports = {report.rater: report for report in consensus.raters}
    weight = np.array([reports[rater].reliability for rater in points.raters])
    follows, ties = _follows(points, weight), _ties(points)
    return [
        Standing(
            rater=rater,
            criterion=criterion,
            judgments=reports[rater].num_judgments,
            reliability=reports[rater].reliability,
            interval=reports[rater].interval,
            verdict=reports[rater].verdict,
            follows=follows[n],
            agreement=reports[rater].agreement,
            ties=ties[n],
        )
        for n, rater in enumerate(points.raters)
    ]


def standings_of_answers(points: Points, consensus: BinaryConsensus, criterion: str) -> list[Standing]:
    """Standings of those who answer with yes or no; verdicts by the interval of what an answer tells, by the same
    rule as those of rankings.

    The others' word on an item is Dawid and Skene's without the rater's own answer, so that nobody confirms himself.
    """
    known = {one.rater: one for one in consensus.raters}
    leads = [_lead(points, consensus, known[rater], n) for n, rater in enumerate(points.raters)]
    judged = _verdicts(leads)
    follows = _follows(points, np.ones(len(points.raters)))
    others, alike = points.others()
    met = np.bincount(points.rater, others)
    agreed = np.bincount(points.rater, alike)
    return [
        Standing(
            rater=rater,
            criterion=criterion,
            judgments=known[rater].num_judgments,
            reliability=None if lead is None else lead[0],
            interval=None if lead is None else lead[1:],
            verdict=verdict,
            follows=follows[n],
            agreement=float(agreed[n] / met[n]) if met[n] else None,
            ties=None,
            yes_when_yes=known[rater].says_yes_when_yes,
            no_when_no=known[rater].says_no_when_no,
        )
        for n, (rater, lead, verdict) in enumerate(zip(points.raters, leads, judged, strict=True))
    ]


def _follows(points: Points, weight: Floats) -> list[Share | None]:
    """By rater. The pairs of one ranking are not independent, so the interval counts a judgment once."""
    size = len(points.raters)
    push = weight[points.rater] * points.outcome
    lean = np.bincount(points.point, push)[points.point] - push
    told = np.abs(lean) > 1e-9
    right = np.bincount(points.rater[told], (1 + points.outcome * np.sign(lean))[told] / 2, size)
    asked = np.bincount(points.rater[told], minlength=size)
    _, once = np.unique(points.judgment[told], return_index=True)
    judgments = np.bincount(points.rater[told][once], minlength=size)
    return [
        wilson(float(right[n] / asked[n]), int(judgments[n]), of=int(asked[n])) if asked[n] else None
        for n in range(size)
    ]


def _ties(points: Points) -> list[float]:
    share = np.bincount(points.rater, points.outcome == 0) / np.bincount(points.rater)
    return [float(one) for one in share]


def _lead(
    points: Points, consensus: BinaryConsensus, rater: BinaryRater, number: int
) -> tuple[float, float, float] | None:
    """How much more often yes is said where the others tell yes, with its interval; None where too few others speak.

    Half an answer is added to each of the four counts, so that a few equal answers are not held for certain.
    """
    from scipy.special import expit, logit

    shared = np.bincount(points.item)[points.item] > 1
    mine = np.flatnonzero((points.rater == number) & shared)
    if len(mine) < FEWEST_ANSWERS:
        return None
    said_yes = points.outcome[mine] > 0
    together = np.array([consensus.items[points.items[item]] for item in points.item[mine]])
    yes, no = rater.says_yes_when_yes, rater.says_no_when_no
    own = np.where(said_yes, np.log(yes) - np.log(1 - no), np.log(1 - yes) - np.log(no))
    without = expit(logit(np.clip(together, 1e-12, 1 - 1e-12)) - own)
    shares, variances = [], []
    for weight in (without, 1 - without):
        share = (weight @ said_yes + 0.5) / (weight.sum() + 1)
        shares.append(float(share))
        variances.append(float(share * (1 - share) / (weight.sum() + 1)))
    half = _width(LEVEL) * float(np.sqrt(sum(variances)))
    lead = shares[0] - shares[1]
    return lead, max(-1.0, lead - half), min(1.0, lead + half)


def _width(level: float) -> float:
    from scipy.stats import norm

    return float(norm.ppf((1 + level) / 2))


def _verdicts(leads: Sequence[tuple[float, float, float] | None]) -> list[Verdict]:
    """Of those with too little in common with others: unknown, and they have no part in what is said of the rest."""
    value, low, high = np.array([lead for lead in leads if lead is not None], np.float64).reshape(-1, 3).T
    told = iter(verdicts(value, low, high, usual=USUAL_LEAD))
    return ["unknown" if lead is None else next(told) for lead in leads]
