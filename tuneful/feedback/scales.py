"""Ratings and rankings of the same items side by side, and what each rater makes of the scale.

People use a scale in ways of their own: one gives 5 to 7, another 1 to 4, and both mean the same order. Alpha of the
ratings as they are counts that as disagreement. Standardised ratings, (rating - the rater's mean) / his spread, take it
out; the order within an item, which ratings imply, takes out more. Where the raw alpha is low and the others are not,
the raters differ about the scale and not about the answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tuneful.errors import DataError
from tuneful.feedback.agreement import Alpha, interval, krippendorff_alpha, ranking_alpha
from tuneful.feedback.implied import implied_ranks
from tuneful.records import Judgment

Ratings = dict[tuple[str, str], dict[str, float]]
"""(item, completion) -> rater -> the rating, the mean of them where the rater gave several."""


@dataclass(frozen=True, slots=True)
class RaterScale:
    """How one rater uses the scale: all his ratings, whatever the item.

    spread: standard deviation of the sample, None of a single rating. used: how many different values came.
    """

    rater: str
    num_ratings: int
    mean: float
    spread: float | None
    lowest: float
    highest: float
    used: int


@dataclass(frozen=True, slots=True)
class Scales:
    """Raters by id, and four alphas of the items that have ratings as well as rankings.

    ratings: interval alpha of the ratings as given. standardised: the same of ratings standardised per rater; a rater
    whose ratings are all alike has no spread and is left out of it. implied: alpha of the rankings that ratings imply.
    rankings: alpha of the rankings. num_items: how many items have both.
    """

    raters: tuple[RaterScale, ...]
    ratings: Alpha
    standardised: Alpha
    implied: Alpha
    rankings: Alpha
    num_items: int


def scales(judgments: Iterable[Judgment], *, num_resamples: int = 1000, seed: int = 0) -> Scales:
    """Ratings beside rankings and comparisons of one criterion, each judgment in its last revision.

    The alphas are of items that have both, so that they speak of the same answers; where there are none they are None,
    with the reason, and `raters` holds what is known all the same. Raises DataError when there are no ratings, when an
    id comes twice, and when criteria are mixed.
    """
    given = list(judgments)
    if len({j.id for j in given}) < len(given):
        raise DataError("judgments: an id comes twice; ids must be unique")
    replaced = {j.replaces for j in given}
    rated = [j for j in given if j.kind == "rating" and j.id not in replaced and _rating(j)]
    ranked = [j for j in given if j.kind in ("ranking", "comparison") and j.id not in replaced and _orders(j)]
    criteria = sorted({j.criterion for j in (*rated, *ranked)})
    if not rated:
        raise DataError("judgments: none is a rating; scales are of kind rating")
    if len(criteria) > 1:
        raise DataError(f"judgments: several criteria ({', '.join(criteria)}); pass those of one criterion at a time")
    both = {j.item for j in rated} & {j.item for j in ranked}
    raters = _raters(_ratings(rated))
    if not both:
        none = Alpha(None, None, 0, "no item has both ratings and rankings")
        return Scales(raters, none, none, none, none, 0)
    shared = [j for j in rated if j.item in both]
    ratings = _ratings(shared)
    standard = _standardised(ratings)

    def alpha(of: Ratings) -> Alpha:
        units = [[values[rater] for rater in sorted(values)] for _, values in sorted(of.items())]
        return krippendorff_alpha(units, interval, num_resamples=num_resamples, seed=seed)

    def order(rankings: list[Judgment]) -> Alpha:
        if not rankings:
            return Alpha(None, None, 0, "nobody rated two completions of one item")
        return ranking_alpha(rankings, num_resamples=num_resamples, seed=seed)

    return Scales(
        raters=raters,
        ratings=alpha(ratings),
        standardised=alpha(standard),
        implied=order(implied_rankings(shared)),
        rankings=order([j for j in ranked if j.item in both]),
        num_items=len(both),
    )


def implied_rankings(ratings: Iterable[Judgment]) -> list[Judgment]:
    """The ranking of each item that each rater's ratings imply, equal ratings tied; (rater, item) pairs in order.

    Ratings of one item may come in one judgment or in several. A rater who rated one completion of an item implies no
    order there.
    """
    rated = [j for j in ratings if j.kind == "rating"]
    prompts = {j.item: (j.prompt, j.criterion) for j in rated}
    by_ranking: dict[tuple[str, str], dict[str, float]] = {}
    for (item, completion), values in sorted(_ratings(rated).items()):
        for rater, value in values.items():
            by_ranking.setdefault((rater, item), {})[completion] = value
    return [
        Judgment(
            id=f"implied {number}",
            item=item,
            prompt=prompts[item][0],
            completions=tuple(values),
            rater=rater,
            ranks=implied_ranks(list(values.values())),
            criterion=prompts[item][1],
        )
        for number, ((rater, item), values) in enumerate(sorted(by_ranking.items()))
        if len(values) > 1
    ]


def _rating(judgment: Judgment) -> dict[str, float]:
    """The completions it rates; a name among the values that is no completion of the judgment rates nothing."""
    return {c: judgment.values[c] for c in judgment.completions if c in judgment.values}


def _orders(judgment: Judgment) -> bool:
    return len(judgment.ranks) - judgment.ranks.count(None) >= 2


def _ratings(judgments: list[Judgment]) -> Ratings:
    several: dict[tuple[str, str], dict[str, list[float]]] = {}
    for j in judgments:
        for completion, value in _rating(j).items():
            several.setdefault((j.item, completion), {}).setdefault(j.rater, []).append(value)
    return {unit: {r: float(np.mean(given)) for r, given in by.items()} for unit, by in several.items()}


def _by_rater(ratings: Ratings) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {}
    for _, given in sorted(ratings.items()):
        for rater, value in given.items():
            values.setdefault(rater, []).append(value)
    return values


def _raters(ratings: Ratings) -> tuple[RaterScale, ...]:
    return tuple(
        RaterScale(
            rater=rater,
            num_ratings=len(values),
            mean=float(np.mean(values)),
            spread=float(np.std(values, ddof=1)) if len(values) > 1 else None,
            lowest=min(values),
            highest=max(values),
            used=len(set(values)),
        )
        for rater, values in sorted(_by_rater(ratings).items())
    )


def _standardised(ratings: Ratings) -> Ratings:
    """By the mean and spread of each rater's ratings here; who has no spread is left out."""
    scale = {rater.rater: (rater.mean, rater.spread) for rater in _raters(ratings)}
    standard: Ratings = {}
    for unit, given in ratings.items():
        for rater, value in given.items():
            mean, spread = scale[rater]
            if spread:
                standard.setdefault(unit, {})[rater] = (value - mean) / spread
    return standard
