"""One criterion of a project: how far people agree on it, since when, who with whom, and on which items they do not.

Rankings and comparisons put answers in order, and so do ratings of several answers. Yes and no is a question of its own
kind. Each gets the numbers that fit it (docs/explanation/agreement.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from tuneful.errors import DataError, did_you_mean
from tuneful.feedback.agreement import Alpha, interval, krippendorff_alpha, nominal, ordinal, ranking_alpha
from tuneful.feedback.audiences import Audiences, audiences
from tuneful.feedback.implied import as_ranking
from tuneful.feedback.kappas import Coefficient, cohen_kappa, fleiss_kappa
from tuneful.feedback.matrix import Matrix, rater_matrix
from tuneful.feedback.points import Points, answer_points, ranking_points
from tuneful.feedback.scales import Scales, implied_rankings, scales
from tuneful.feedback.standings import Standing, standings_of_answers, standings_of_rankings
from tuneful.feedback.submission import ORDERED
from tuneful.feedback.timeline import Timeline, timeline
from tuneful.records import Judgment, JudgmentKind

if TYPE_CHECKING:
    from tuneful.feedback.consensus import Consensus

NUM_HARDEST: Final = 10

_ORDERING: Final = (*ORDERED, "rating")

_RESAMPLES: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Hard:
    """An item on which people do not agree. agreement: the share of its pairs of words that are alike. confidence: how
    sure the consensus is of its order, or of its yes or no, the mean over its pairs; 1/2 is not at all."""

    item: str
    judgments: int
    agreement: float
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class YesNo:
    """Of a question of yes and no. prevalence: how often yes is true (Dawid and Skene). cohen: the mean of Cohen's
    kappa over every two raters with answers in common, of whom there are cohen_pairs (Light 1971)."""

    prevalence: float
    fleiss: Coefficient
    cohen: float | None
    cohen_pairs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """alpha: Krippendorff's, of rankings, of answers of yes and no, or of ratings as intervals; ordinal: of ratings as
    ordered values. problem: why there is no consensus. scales: ratings as given, standardised, and as the order that
    they imply."""

    name: str
    judgments: int
    alpha: Alpha
    problem: str
    timeline: Timeline | None
    matrix: Matrix | None
    hardest: tuple[Hard, ...]
    audiences: Audiences | None
    yes_no: YesNo | None = None
    ordinal: Alpha | None = None
    scales: Scales | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a look at any criterion of a project needs.

    versions: (version, time) of the instructions. groups: by rater, what they say of themselves. whole: of everybody,
    and not of one group, which is not taken apart any further. texts: by completion; two that read the same are no pair
    to be sure of.
    """

    versions: Sequence[tuple[int, float]]
    groups: Mapping[str, Collection[str]]
    whole: bool
    texts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Look:
    """A criterion, and what labelers' cards are made of: standings by rater, the judgments that put answers in order,
    and their consensus."""

    criterion: Criterion
    standings: Mapping[str, Standing]
    orders: Sequence[Judgment] = ()
    consensus: Consensus | None = None


def of_one(
    said: Sequence[Judgment], criteria: Sequence[str] = (), asked: str | None = None
) -> tuple[list[Judgment], str]:
    """The judgments by one criterion, for a consensus is of one question, and those that order nothing; and a sentence
    on what is left out, empty where nothing is.

    Of several criteria it is the one that is asked for, else the first of the project's `criteria`. Raises DataError
    when nobody judged by the one that is asked for, and for several while there is no project to tell.
    """
    given = Counter(one.criterion for one in said if one.kind in _ORDERING)
    names = sorted(given)
    if asked is not None and asked not in (*names, *criteria):
        raise DataError(f'criterion "{asked}": nobody judged by it{did_you_mean(asked, names)}')
    if asked is None and len(names) < 2:
        return list(said), ""
    if asked is None and not criteria:
        raise DataError(f"judgments: by several criteria ({', '.join(names)}); choose one, as --criterion {names[0]}")
    chosen = criteria[0] if asked is None else asked
    others = ", ".join(f'{given[name]} by "{name}"' for name in names if name != chosen)
    told = f'{given[chosen]} judgments are by "{chosen}"; left out: {others}' if others else ""
    return [one for one in said if one.criterion == chosen or one.kind not in _ORDERING], told


def look_at(kind: JudgmentKind, criteria: Sequence[str], said: Sequence[Judgment], setting: Setting) -> list[Look]:
    """Every criterion of judgments in their last revisions, those of the project in its order first. A judgment of yes
    and no answers each of its questions; a demonstration judges nothing."""
    asked: dict[str, list[Judgment]] = {name: [] for name in criteria}
    for one in said if kind != "demonstration" else ():
        for name in one.values if kind == "binary" else (one.criterion,):
            asked.setdefault(name, []).append(one)
    look = {"binary": _look_at_answers, "rating": _look_at_ratings}.get(kind, _look_at_orders)
    return [look(name, about, setting) for name, about in asked.items() if about]


def _look_at_orders(name: str, said: list[Judgment], setting: Setting) -> Look:
    from tuneful.feedback.consensus import consensus  # brings scipy, which those who label do not wait for

    try:
        points, found = ranking_points(said), consensus(said)
    except DataError as error:
        return _undecided(name, said, str(error))
    sure: dict[str, list[float]] = {}
    texts = setting.texts
    for pair in found.pairs:
        if texts.get(pair.first, pair.first) == texts.get(pair.second, pair.second):
            continue
        sure.setdefault(pair.item, []).append(pair.confidence)
    alpha = ranking_alpha(said, num_resamples=_RESAMPLES)
    confidence = {item: sum(many) / len(many) for item, many in sure.items()}
    criterion = _criterion(name, said, points, alpha, confidence, setting)
    return Look(criterion, {one.rater: one for one in standings_of_rankings(points, found, name)}, said, found)


def _look_at_ratings(name: str, said: list[Judgment], setting: Setting) -> Look:
    orders = [ranked for one in said if (ranked := as_ranking(one)) is not None]
    look = _look_at_orders(name, orders, setting)
    units = _units(said)
    scale = scales([*said, *implied_rankings(said)], num_resamples=_RESAMPLES) if units else None
    if scale is not None and not setting.whole:
        scale = replace(scale, raters=())
    criterion = replace(
        look.criterion,
        judgments=len(said),
        problem=look.criterion.problem if orders else "",
        alpha=krippendorff_alpha(units, interval, num_resamples=_RESAMPLES),
        ordinal=krippendorff_alpha(units, ordinal, num_resamples=_RESAMPLES),
        scales=scale,
    )
    return replace(look, criterion=criterion)


def _look_at_answers(name: str, said: list[Judgment], setting: Setting) -> Look:
    from tuneful.feedback.dawid_skene import binary_consensus

    try:
        found = binary_consensus(said, name)
    except DataError as error:
        return _undecided(name, said, str(error))
    points = answer_points(said, name)
    answers: dict[str, list[float | None]] = {}
    for one in points.judgments:
        answers.setdefault(one.item, []).append(one.values[name])
    alpha = krippendorff_alpha(answers.values(), nominal, num_resamples=_RESAMPLES)
    confidence = {item: max(yes, 1 - yes) for item, yes in found.items.items()}
    criterion = replace(
        _criterion(name, said, points, alpha, confidence, setting),
        yes_no=_yes_no(points, found.prevalence, answers.values()),
    )
    return Look(criterion, {one.rater: one for one in standings_of_answers(points, found, name)})


def _criterion(
    name: str,
    said: Sequence[Judgment],
    points: Points,
    alpha: Alpha,
    confidence: Mapping[str, float],
    setting: Setting,
) -> Criterion:
    return Criterion(
        name=name,
        judgments=len(said),
        alpha=alpha,
        problem="",
        timeline=timeline(points, setting.versions),
        matrix=rater_matrix(points) if setting.whole else None,
        hardest=_hardest(points, confidence),
        audiences=audiences(points, setting.groups) if setting.whole else None,
    )


def _undecided(name: str, said: Sequence[Judgment], problem: str) -> Look:
    criterion = Criterion(
        name=name,
        judgments=len(said),
        alpha=Alpha(None, None, 0, "there is nothing to compare"),
        problem=problem,
        timeline=None,
        matrix=None,
        hardest=(),
        audiences=None,
    )
    return Look(criterion, {})


def _units(said: Sequence[Judgment]) -> list[list[float | None]]:
    """What was given to each completion of each item."""
    units: dict[tuple[str, str], list[float | None]] = {}
    for one in said:
        for name in one.completions:
            if name in one.values:
                units.setdefault((one.item, name), []).append(one.values[name])
    return list(units.values())


def _hardest(points: Points, confidence: Mapping[str, float]) -> tuple[Hard, ...]:
    """Items that two people or more judged, those of which the consensus is least sure first."""
    size = len(points.items)
    others, alike = points.others()
    met, agreed = np.bincount(points.item, others, size), np.bincount(points.item, alike, size)
    home = np.zeros(len(points.judgments), np.int64)
    home[points.judgment] = points.item
    judged = np.bincount(home, minlength=size)
    found = [
        Hard(item=name, judgments=int(judged[n]), agreement=float(agreed[n] / met[n]), confidence=confidence[name])
        for n, name in enumerate(points.items)
        if met[n] and name in confidence
    ]
    return tuple(sorted(found, key=lambda one: (one.confidence, one.agreement, one.item))[:NUM_HARDEST])


def _yes_no(points: Points, prevalence: float, answers: Iterable[Sequence[float | None]]) -> YesNo:
    counts = np.array([[sum(one == value for one in given) for value in (0, 1)] for given in answers])
    try:
        fleiss = fleiss_kappa(counts, num_resamples=_RESAMPLES)
    except DataError:
        fleiss = Coefficient(None, None, len(counts), "it needs equally many answers to every item, and two or more")
    kappas = _cohen(points)
    mean = sum(kappas) / len(kappas) if kappas else None
    return YesNo(prevalence=prevalence, fleiss=fleiss, cohen=mean, cohen_pairs=len(kappas))


def _cohen(points: Points) -> list[float]:
    """Cohen's kappa of every two raters of the matrix for whom it is defined."""
    answers: dict[str, dict[int, float]] = {}
    for rater, item, outcome in zip(points.rater, points.item, points.outcome, strict=True):
        answers.setdefault(points.raters[rater], {})[int(item)] = float(outcome)
    shown = rater_matrix(points).raters
    kappas = []
    for n, one in enumerate(shown):
        for other in shown[:n]:
            both = sorted(answers[one].keys() & answers[other].keys())
            mine, theirs = ([answers[who][item] for item in both] for who in (one, other))
            kappas.append(cohen_kappa(mine, theirs, num_resamples=0).value)
    return [kappa for kappa in kappas if kappa is not None]
