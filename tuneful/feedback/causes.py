"""Why a rater disagrees with the others: causes with a name, each with its evidence, and silence where there is none.

A slope (feedback.slopes) says that somebody follows something else, not what. Here what a rater says on a pair, y = 1
for the first completion, -1 for the second, 0 for a tie, is set beside e, what a careful rater would say on average as
far as the *others* tell: e = 2 p - 1 with p as in the consensus, but with the scores of each item fitted without this
rater's own words on it, so that nobody confirms himself. Over all his pairs, by least squares,

    y = g e + a length + b place + rest

length lies in [-1, 1], 1 where the first text is half as long again or more; place likewise, 1 where the first
completion was shown first of all and the second last. The pairs of a ranking are not independent: standard errors are
clustered by ranking (Liang and Zeger 1986).

Long answers may well be better, and then careful raters lean to them too, beyond what a few votes tell. So a rater is
set beside y', what the others would say: y' = g e + a length + b place with the g, a and b that are in the middle of
the others'. How far he follows them is f in y = f y' + rest: 1 for one of them, 0 for one who guesses, -1 for one who
reads the scale upside down. His lean is his own a (or b) less f times theirs.

Every interval has the level LEVEL, shared out where a question is asked several times, and a cause is named only when
its whole interval lies beyond a bound that people who do good work keep. bench/causes.py measures how often each cause
is found, and how often a good rater is accused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from scipy.stats import t as student

from tuneful.errors import DataError
from tuneful.feedback.consensus import Consensus
from tuneful.feedback.scores import fit_scores
from tuneful.feedback.slopes import davidson
from tuneful.feedback.votes import Block, Floats, Ints, tabulate
from tuneful.records import Judgment

CauseName = Literal["inverted", "one criterion swapped", "changed", "ties", "position", "length", "too fast", "random"]

LEVEL = 0.999
"""Level of an interval. A cause accuses a person, so chance gets little room."""
MIN_JUDGMENTS = 20
"""With fewer rankings that others confirm or contradict, nothing is said of a rater."""
MOST_LEAN = 0.2
"""Of two equally good answers, nobody minds if one side is taken in 60 of 100 cases and not in 50."""
LEAST_OF_OTHERS = 0.5
"""Random is who follows the others less than half as far as they follow each other, and perhaps not at all."""
MOST_TIES = 0.25
"""Share of pairs tied beyond what the others tie of the same items."""
LEAST_PACE = 0.5
"""Share of the time that the others take for the same items."""
MOST_DROP = 0.25
"""How much less far the others may be followed after a change of instructions."""

_MOST_OTHERS = 12  # more than a dozen other rankings of an item tell little more; gold items have hundreds
_LONGER = np.log(1.5)
_FAR = np.log(12)  # a pause for coffee counts as twelve times the usual time, whatever it was


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason, and how sure it is.

    effect, with its interval: f for "inverted", "random" and "one criterion swapped"; what it lost, below 0, for
    "changed"; the lean, above 0 to what is shown first or is longer, for "position" and "length" (0.4 is 70 of 100
    cases where others take 50); the share of pairs tied beyond the others' for "ties"; the share of the others' time
    for "too fast". sentence says it to people.
    """

    name: CauseName
    effect: float
    interval: tuple[float, float]
    sentence: str


def causes(
    judgments: Iterable[Judgment],
    consensus: Consensus | Mapping[str, Consensus],
    lengths: Mapping[str, float] | None = None,
) -> dict[str, tuple[Cause, ...]]:
    """Causes by id of each rater who ranked or compared, the most telling first; empty where there is nothing to say.

    consensus: of these judgments; when they are of several criteria, one for each criterion by its name. Each criterion
    is looked at on its own; a cause that several show is told of the first. lengths: of texts by completion id, in any
    unit. Where lengths, shown orders, times or instructions are missing, the tests that need them say nothing.

    Nothing is said without two other raters who are shown to be of use. A rater is "random" only when no other cause
    explains it. Raises DataError when a criterion or a rater is not in the consensus, and as `votes.tabulate` does.
    """
    given = [j for j in judgments if j.kind in ("ranking", "comparison")]
    by_criterion: dict[str, list[Judgment]] = {}
    for judgment in given:
        by_criterion.setdefault(judgment.criterion, []).append(judgment)
    if isinstance(consensus, Consensus):
        if len(by_criterion) > 1:
            names = ", ".join(sorted(by_criterion))
            raise DataError(f"judgments: several criteria ({names}); pass a consensus for each, by its name")
        consensus = dict.fromkeys(by_criterion, consensus)
    found: dict[str, dict[str, _Evidence]] = {rater: {} for rater in sorted({j.rater for j in given})}
    for criterion, rows in sorted(by_criterion.items()):
        if criterion not in consensus:
            raise DataError(f'judgments: there is no consensus of criterion "{criterion}"')
        seen = _observe(rows, consensus[criterion], lengths or {})
        for rater, evidence in _weigh(seen, 1 - (1 - LEVEL) / len(by_criterion)).items():
            found[rater][criterion] = evidence
    return {rater: _told(evidence) for rater, evidence in found.items()}


@dataclass(frozen=True, slots=True, eq=False)
class _Observed:
    """M rankings that other raters' rankings of the same items can be set beside, and their R pairs.

    rater: int [M]; ties, others_ties: float [M], shares of pairs; pace: float [M], log of the time over the others',
    NaN where unknown; version: int [M], of the instructions in order of first use, -1 where unknown. ranking: int [R],
    which of the M; y, e, length, place: float [R], as above, 0 where length or place is unknown.
    """

    raters: tuple[str, ...]
    versions: tuple[str, ...]
    rater: Ints
    ties: Floats
    others_ties: Floats
    pace: Floats
    version: Ints
    ranking: Ints
    y: Floats
    e: Floats
    length: Floats
    place: Floats


@dataclass(frozen=True, slots=True)
class _Fit:
    """An estimate with its standard error and degrees of freedom."""

    value: float
    error: float
    free: int

    def interval(self, level: float) -> tuple[float, float]:
        half = float(student.ppf((1 + level) / 2, self.free)) * self.error
        return self.value - half, self.value + half


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What one criterion says of one rater: all causes but those that are read from f, then f and its interval."""

    causes: tuple[Cause, ...]
    follows: float
    interval: tuple[float, float]


def _observe(judgments: list[Judgment], consensus: Consensus, lengths: Mapping[str, float]) -> _Observed:
    votes = tabulate(judgments)
    reliability = {report.rater: report.reliability for report in consensus.raters}
    if missing := [rater for rater in votes.raters if rater not in reliability]:
        raise DataError(f'rater "{missing[0]}" is not in the consensus; pass the consensus of these judgments')
    slopes = np.array([reliability[rater] for rater in votes.raters])
    versions = _versions(votes.judgments)
    number = {name: n for n, name in enumerate(versions)}
    home = {item: n for n, block in enumerate(votes.blocks) for item in block.items}
    rows: list[list[Judgment]] = [[] for _ in votes.blocks]
    for judgment in votes.judgments:
        rows[home[judgment.item]].append(judgment)
    parts: list[dict[str, Any]] = []
    num_rankings = 0
    for block, here in zip(votes.blocks, rows, strict=True):
        ranking, other = _others(block)
        without = Block(
            items=tuple(j.id for j in here),
            completions=(),
            item=ranking,
            rater=block.rater[other],
            ranks=block.ranks[other],
            q=block.q[other],
        )
        num_others = np.bincount(ranking, minlength=len(here))
        first, second = block.pairs
        a, b = block.ranks[:, first], block.ranks[:, second]
        ordered = (a > 0) & (b > 0)
        ties = (ordered & (a == b)).sum(1) / ordered.sum(1)
        seconds = np.array([np.nan if j.seconds is None else np.log(max(j.seconds, 0.1)) for j in here])
        size = np.array([[lengths.get(c, np.nan) for c in ids] for ids in block.completions])
        place = np.array([_places(j, block.completions[i]) for j, i in zip(here, block.item, strict=True)])
        expected = _expected(without, slopes, consensus)
        ratio = np.maximum(size[:, first], 1) / np.maximum(size[:, second], 1)
        longer = np.clip(np.log(ratio) / _LONGER, -1, 1)[block.item]
        earlier = place[:, second] - place[:, first]
        confirmed = num_others > 0
        row, position = np.nonzero(ordered & confirmed[:, None])
        kept = np.cumsum(confirmed) - 1 + num_rankings
        num_rankings += int(confirmed.sum())
        parts.append(
            {
                "rater": block.rater[confirmed],
                "ties": ties[confirmed],
                "others_ties": _mean_of_others(ties, ranking, other)[confirmed],
                "pace": (seconds - _mean_of_others(seconds, ranking, other))[confirmed],
                "version": np.array([number.get(j.instructions, -1) for j in here], np.int64)[confirmed],
                "ranking": kept[row],
                "y": np.sign(b - a)[row, position].astype(np.float64),
                "e": expected[row, position],
                "length": np.nan_to_num(longer[row, position]),
                "place": np.nan_to_num(earlier[row, position]),
            }
        )
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return _Observed(raters=votes.raters, versions=versions, **arrays)


def _versions(judgments: Iterable[Judgment]) -> tuple[str, ...]:
    """Versions of the instructions in order of their first use; times are ISO 8601 in one zone, as the store writes."""
    begun: dict[str, str] = {}
    for j in judgments:
        if j.instructions and j.created_at:
            begun[j.instructions] = min(begun.get(j.instructions, j.created_at), j.created_at)
    return tuple(sorted(begun, key=lambda version: (begun[version], version)))


def _others(block: Block) -> tuple[Ints, Ints]:
    """(ranking, another rater's ranking of the same item), at most a dozen each, those that follow it in a circle."""
    start = np.searchsorted(block.item, block.item)
    size = np.searchsorted(block.item, block.item, "right") - start
    every = np.arange(len(block.item))
    ranking, other = [every[:0]], [every[:0]]
    for step in range(1, min(_MOST_OTHERS, int(size.max()) - 1) + 1):
        here = every[size > step]
        there = start[here] + (here - start[here] + step) % size[here]
        apart = block.rater[here] != block.rater[there]
        ranking.append(here[apart])
        other.append(there[apart])
    return np.concatenate(ranking), np.concatenate(other)


def _mean_of_others(values: Floats, ranking: Ints, other: Ints) -> Floats:
    """Mean of the known values of the other rankings, NaN where none is known."""
    known = ~np.isnan(values[other])
    count = np.bincount(ranking[known], minlength=len(values))
    total = np.bincount(ranking[known], values[other[known]], len(values))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _places(judgment: Judgment, completions: tuple[str, ...]) -> list[float]:
    """Where each completion was shown: 0 first, 1 last, NaN unknown."""
    last = len(judgment.shown_order) - 1
    place = {c: n / last for n, c in enumerate(judgment.shown_order)} if last > 0 else {}
    return [place.get(c, np.nan) for c in completions]


def _expected(without: Block, slopes: Floats, consensus: Consensus) -> Floats:
    """e of every pair [M, P]: the average word of a careful rater, scores fitted to the rankings in `without`."""
    posterior = fit_scores(without, slopes, consensus.nu)
    first, second = without.pairs
    mean = posterior.mean[first] - posterior.mean[second]
    variance = np.einsum("aai->ai", posterior.covariance)
    sd = np.sqrt(variance[first] + variance[second] - 2 * posterior.covariance[first, second])
    nodes, weights = np.polynomial.hermite_e.hermegauss(9)
    lead = sum(
        weight * davidson(consensus.slope * (mean + node * sd), consensus.nu)[2]
        for node, weight in zip(nodes, weights / weights.sum(), strict=True)
    )
    return np.asarray(2 * lead, np.float64).T


def _weigh(seen: _Observed, level: float) -> dict[str, _Evidence]:
    """Evidence by rater, for those with enough judgments and others to compare with."""
    own = {n: np.flatnonzero(seen.rater == n) for n in range(len(seen.raters))}
    own = {n: rankings for n, rankings in own.items() if len(rankings) >= MIN_JUDGMENTS}
    rater_of_pair = seen.rater[seen.ranking]
    pairs = {n: np.flatnonzero(rater_of_pair == n) for n in own}
    alone = {n: _line(seen.e[pairs[n], None], seen, pairs[n])[0] for n in own}
    lines = {n: _line(_regressors(seen, pairs[n]), seen, pairs[n]) for n in own}
    drops = {n: _drops(seen, pairs[n]) for n in own}
    steady = [n for n in own if alone[n].interval(level)[0] > 0]
    evidence = {}
    for n in own:
        others = [m for m in steady if m != n]
        if len(others) < 2:
            continue
        middle = [_middle([lines[m][k] for m in others]) for k in range(3)]
        follows, *leans = _beside(seen, pairs[n], middle)
        usual = float(np.median([alone[m].value for m in others]))
        found = _of_changes(drops[n], [drops[m] for m in others], usual, seen.versions, level)
        found += _of_ties(seen, own[n], level)
        if len(others) > 2:  # one biased rater among two would shift the middle
            found += _of_place(leans[1], level) + _of_length(leans[0], level)
        found += _of_pace(seen, own[n], follows, level)
        evidence[seen.raters[n]] = _Evidence(tuple(found), follows.value, follows.interval(level))
    return evidence


def _regressors(seen: _Observed, rows: Ints) -> Floats:
    return np.column_stack((seen.e[rows], seen.length[rows], seen.place[rows]))


def _line(x: Floats, seen: _Observed, rows: Ints) -> list[_Fit]:
    """Coefficients of y on x, which are the columns of `rows`."""
    value, influence = _least_squares(x, seen.y[rows], seen.ranking[rows])
    return [_fit(v, part) for v, part in zip(value, influence.T, strict=True)]


def _beside(seen: _Observed, rows: Ints, middle: list[_Fit]) -> list[_Fit]:
    """f, then the lean to length and to place beyond f times the others'."""
    x, y, ranking = _regressors(seen, rows), seen.y[rows], seen.ranking[rows]
    value, influence = _least_squares(x, y, ranking)
    theirs = np.array([fit.value for fit in middle])
    expected = x @ theirs
    share = expected / max(expected @ expected, 1e-12)
    follows = float(share @ y)
    # On its own f must count a lean as noise, which may go along with y' by chance; beside the lean it need not.
    alone, beside = (
        _by_ranking((share * rest)[:, None], ranking)[:, 0] for rest in (y - follows * expected, y - x @ value)
    )
    fits = [_fit(follows, alone)]
    for k in (1, 2):
        lean = _fit(value[k] - follows * theirs[k], influence[:, k] - theirs[k] * beside)
        fits.append(_Fit(lean.value, float(np.hypot(lean.error, follows * middle[k].error)), lean.free))
    return fits


def _least_squares(x: Floats, y: Floats, ranking: Ints) -> tuple[Floats, Floats]:
    """Coefficients of y on x [R, C], and what each ranking adds to their errors [M, C]."""
    bread = np.linalg.pinv(x.T @ x, hermitian=True)
    value = bread @ (x.T @ y)
    return value, _by_ranking(x * (y - x @ value)[:, None], ranking) @ bread


def _by_ranking(parts: Floats, ranking: Ints) -> Floats:
    """Sums over the pairs of each ranking: [R, C] -> [M, C]."""
    _, group = np.unique(ranking, return_inverse=True)
    return np.stack([np.bincount(group, column) for column in parts.T], axis=1)


def _fit(value: float, influence: Floats) -> _Fit:
    """With the standard error that independent rankings make, a little widened since few of them fit too well."""
    free = max(len(influence) - 3, 1)
    return _Fit(float(value), float(np.sqrt((influence**2).sum() * len(influence) / free)), free)


def _middle(fits: list[_Fit]) -> _Fit:
    """The median, with the standard error that it would have if all estimates were of one thing."""
    value = float(np.median([fit.value for fit in fits]))
    error = np.sqrt(np.pi / 2 * np.mean([fit.error**2 for fit in fits]) / len(fits))
    return _Fit(value, float(error), min(fit.free for fit in fits))


def _mean(values: Floats) -> _Fit:
    return _Fit(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))), len(values) - 1)


def _drops(seen: _Observed, rows: Ints) -> dict[int, tuple[_Fit, _Fit]]:
    """By version of the instructions: how much less far e is followed from it on, and how far before; both sides need
    enough judgments."""
    version = seen.version[seen.ranking[rows]]
    found = {}
    for begun in range(1, len(seen.versions)):
        early, late = (version >= 0) & (version < begun), version >= begun
        if min(len(np.unique(seen.ranking[rows[side]])) for side in (early, late)) < MIN_JUDGMENTS:
            continue
        x = np.column_stack((np.where(early, seen.e[rows], 0), np.where(late, seen.e[rows], 0)))
        value, influence = _least_squares(x, seen.y[rows], seen.ranking[rows])
        drop = _fit(value[0] - value[1], influence[:, 0] - influence[:, 1])
        found[begun] = (drop, _fit(value[0], influence[:, 0]))
    return found


def _of_changes(
    own: dict[int, tuple[_Fit, _Fit]],
    others: list[dict[int, tuple[_Fit, _Fit]]],
    usual: float,
    versions: tuple[str, ...],
    level: float,
) -> list[Cause]:
    """The version after which the rater fell back most, beside the others, who may have found it harder too."""
    candidates = []
    for begun, (drop, before) in own.items():
        beside = [of[begun][0] for of in others if begun in of]
        if len(beside) < 2:
            continue
        middle = _middle(beside)
        excess = _Fit(drop.value - middle.value, float(np.hypot(drop.error, middle.error)), drop.free)
        low, high = excess.interval(1 - (1 - level) / len(own))
        if low > MOST_DROP and before.value > usual / 2:
            after = before.value - drop.value
            sentence = (
                f'Since version "{versions[begun]}" of the instructions follows the others {after:.2f} as far as a '
                f"careful rater would, before it {before.value:.2f}."
            )
            candidates.append((low, Cause("changed", -excess.value, (-high, -low), sentence)))
    return [max(candidates, key=lambda candidate: candidate[0])[1]] if candidates else []


def _of_ties(seen: _Observed, own: Ints, level: float) -> list[Cause]:
    excess = _mean(seen.ties[own] - seen.others_ties[own])
    low, high = excess.interval(level)
    if low <= MOST_TIES:
        return []
    sentence = f"Ties {seen.ties[own].mean():.0%} of pairs; the others tie {seen.others_ties[own].mean():.0%} of them."
    return [Cause("ties", excess.value, (low, high), sentence)]


def _of_place(lean: _Fit, level: float) -> list[Cause]:
    low, high = lean.interval(level)
    if max(low, -high) <= MOST_LEAN:
        return []
    ends = ("first", "last") if lean.value > 0 else ("last", "first")
    sentence = (
        f"Of two equally good answers, prefers the one shown {ends[0]} to the one shown {ends[1]} in {_cases(lean)}."
    )
    return [Cause("position", lean.value, (low, high), sentence)]


def _of_length(lean: _Fit, level: float) -> list[Cause]:
    low, high = lean.interval(level)
    if max(low, -high) <= MOST_LEAN:
        return []
    which = "longer" if lean.value > 0 else "shorter"
    sentence = f"Of two answers that the others find equally good, prefers the {which} one in {_cases(lean)}."
    return [Cause("length", lean.value, (low, high), sentence)]


def _cases(lean: _Fit) -> str:
    return f"{50 + 50 * min(abs(lean.value), 1):.0f} of 100 cases"


def _of_pace(seen: _Observed, own: Ints, follows: _Fit, level: float) -> list[Cause]:
    """Fast alone is no fault: it is named of a rater who is also less reliable than the others."""
    pace = seen.pace[own]
    pace = np.clip(pace[~np.isnan(pace)], -_FAR, _FAR)
    if len(pace) < MIN_JUDGMENTS:
        return []
    low, high = _mean(pace).interval(level)
    if np.exp(high) >= LEAST_PACE or follows.interval(level)[1] >= 0.9:
        return []
    share = float(np.exp(pace.mean()))
    sentence = (
        f"Takes {share:.0%} of the time that the others take for the same items, and follows them {follows.value:.2f} "
        "as far as they follow each other."
    )
    return [Cause("too fast", share, (float(np.exp(low)), float(np.exp(high))), sentence)]


def _told(evidence: Mapping[str, _Evidence]) -> tuple[Cause, ...]:
    """One list of what all criteria say of a rater."""
    where = {c: f' (on "{c}")' if len(evidence) > 1 else "" for c in evidence}
    turned = [c for c, found in evidence.items() if found.interval[1] < 0 and not _has(found, "changed")]
    straight = [c for c, found in evidence.items() if found.interval[0] > 0]
    told: list[Cause] = []
    for criterion, found in evidence.items():
        effect, interval = found.follows, found.interval
        if criterion in turned and straight:
            sentence = (
                f'Turns "{criterion}" upside down, {effect:.2f} where the others have 1, and not '
                f"{_listed(straight)}; were two criteria, or their ends, taken for one another?"
            )
            told.append(Cause("one criterion swapped", effect, interval, sentence))
        elif criterion in turned:
            sentence = f"Orders answers the other way round, {effect:.2f} where the others have 1{where[criterion]}."
            told.append(Cause("inverted", effect, interval, sentence))
        elif interval[0] <= 0 and interval[1] < LEAST_OF_OTHERS:
            sentence = f"Cannot be told from guessing, {effect:.2f} where the others have 1{where[criterion]}."
            told.append(Cause("random", effect, interval, sentence))
        told += [Cause(c.name, c.effect, c.interval, f"{c.sentence[:-1]}{where[criterion]}.") for c in found.causes]
    by_name: dict[CauseName, Cause] = {}
    for cause in told:
        by_name.setdefault(cause.name, cause)
    if len(by_name) > 1:
        by_name.pop("random", None)  # what looks like guessing has a reason
    return tuple(by_name[name] for name in get_args(CauseName) if name in by_name)


def _has(found: _Evidence, name: CauseName) -> bool:
    return any(cause.name == name for cause in found.causes)


def _listed(criteria: list[str]) -> str:
    return " or ".join(f'"{criterion}"' for criterion in criteria)
