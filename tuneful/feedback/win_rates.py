"""Which of two models people prefer: wins, ties and losses of their answers to the same prompts.

What is counted is a prompt. Labelers who judge the same answers, and several samples of one prompt, resemble each
other, so they make a prompt's number surer without making more prompts. Each matchup gives one number from 0 to 1, the
mean of what was said of its answers; each prompt the mean over its matchups, so that neither the items that were judged
most nor the answers that came seldom weigh more than their share; and the interval is Wilson's for as many trials as
there are prompts. It is too wide rather than too narrow, since means between 0 and 1 vary less than single wins and
losses do. It says nothing of other labelers than these: who they are is part of the question.

Where both models said the same there is nothing to prefer: a tie, and nobody is asked. All such ties are known before
the first judgment, so until the last item is judged they count only for the share of the others that is known too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Literal

from tuneful.feedback.matchups import Matchup, matchups
from tuneful.feedback.pages import groups_of
from tuneful.feedback.projects import find_project
from tuneful.feedback.projects import judgments as judgments_of
from tuneful.feedback.store import Store
from tuneful.records import Judgment

if TYPE_CHECKING:
    from tuneful.feedback.consensus import Consensus
    from tuneful.feedback.shares import Share


@dataclass(frozen=True, slots=True, kw_only=True)
class WinRate:
    """`first` against `second`, in the order of their names.

    wins, ties, losses: of `first`, one for each judgment of each matchup. prompts: on which answers of both were
    judged. alike: further prompts, on which both said the same each time, a tie that nobody is asked about.
    rate: the share that `first` wins, a tie counting half. weighted: the same from the consensus of all labelers, in
    which one who guesses moves nothing: the share of prompts on which a new careful labeler would prefer `first`. None
    where no labeler can be trusted.
    """

    first: str
    second: str
    wins: int
    ties: int
    losses: int
    prompts: int
    alike: int
    rate: Share
    weighted: Share | None


def win_rates_of(
    store: Store,
    project_id: str,
    *,
    by: Literal["people", "models"] = "people",
    audience: str | None = None,
) -> list[WinRate]:
    """Those of a project, none where its completions are of fewer than two models.

    by: whose judgments count; those of models are no human evaluation, and are looked at by themselves. audience: only
    people who say that they are of this group. Of several criteria the project's own is counted.

    Raises DataError as `consensus` and `of_audience` do.
    """
    with store.snapshot() as then:  # people go on labeling
        met = matchups(then, project_id)
        if len({model for one in met for model in one.models if model is not None}) < 2:
            return []
        said, groups = comparing(judgments_of(then, project_id), by=by), groups_of(then, project_id)
        criteria = find_project(then, project_id).criteria
    if audience is not None:
        from tuneful.feedback.dataset import of_audience

        said = of_audience(said, audience, groups)
    if not said:
        return win_rates([], None, met)
    from tuneful.feedback.consensus import consensus  # brings scipy, which those who label do not wait for
    from tuneful.feedback.criteria import of_one

    said, _ = of_one(said, criteria)
    return win_rates(said, consensus(said), met)


def comparing(judgments: Iterable[Judgment], *, by: Literal["people", "models"] = "people") -> list[Judgment]:
    """The judgments that compare completions, of people or of models."""
    return [
        one
        for one in judgments
        if one.kind in ("ranking", "comparison")
        and (one.rater_kind == "ai") == (by == "models")
        and len(one.ranks) - one.ranks.count(None) >= 2
    ]


def win_rates(judgments: Iterable[Judgment], agreed: Consensus | None, matchups: Iterable[Matchup]) -> list[WinRate]:
    """Every pair of models of which something is known.

    judgments: rankings and comparisons, each in its last revision. agreed: their consensus, None where there are none.
    matchups: all, also those that nobody has judged yet; two answers of one model say nothing here.
    """
    ranks: dict[str, list[dict[str, int | None]]] = {}
    for judgment in judgments:
        ranks.setdefault(judgment.item, []).append(dict(zip(judgment.completions, judgment.ranks, strict=False)))
    p = {(pair.item, pair.first, pair.second): pair.p for pair in agreed.pairs} if agreed else {}
    found: dict[tuple[str, str], _Pair] = {}
    for met in matchups:
        named = [(model, place) for place, model in enumerate(met.models) if model is not None]
        for (first, place), (second, other) in combinations(sorted(named), 2):
            if first == second:
                continue
            pair = found.setdefault((first, second), _Pair())
            about = pair.prompts.setdefault(met.prompt, _OnPrompt())
            if met.item is None:
                about.alike += 1
                continue
            about.asked += 1
            one, another = met.completions[place], met.completions[other]
            outcomes = list(_outcomes(ranks.get(met.item, ()), one, another))
            if outcomes:
                pair.outcomes += outcomes
                about.said.append(sum(outcomes) / len(outcomes))
                about.weighted.append(_chance(p, met.item, one, another))
    trusted = agreed is not None and agreed.slope > 0
    rates = (_win_rate(names, pair, trusted=trusted) for names, pair in sorted(found.items(), key=lambda one: one[0]))
    return [rate for rate in rates if rate is not None]


@dataclass(slots=True)
class _OnPrompt:
    """What is known of two models on one prompt. alike, asked: matchups in which both said the same, and the others;
    said, weighted: of those that were judged, the share of the first model, and the same by the consensus."""

    alike: int = 0
    asked: int = 0
    said: list[float] = field(default_factory=list)
    weighted: list[float] = field(default_factory=list)


@dataclass(slots=True)
class _Pair:
    """Two models: prompts by id, and the outcome of each judgment of each matchup."""

    prompts: dict[str, _OnPrompt] = field(default_factory=dict)
    outcomes: list[float] = field(default_factory=list)


def _outcomes(said: Iterable[Mapping[str, int | None]], one: str, another: str) -> Iterable[float]:
    """Of each who ranked both: 1 when `one` is better, 0 when `another` is, 1/2 for a tie."""
    for ranks in said:
        rank, other = ranks.get(one), ranks.get(another)
        if rank is not None and other is not None:
            yield (1 + (rank < other) - (rank > other)) / 2


def _chance(p: Mapping[tuple[str, str, str], float], item: str, one: str, another: str) -> float:
    """That `one` is preferred, by the consensus, which leaves out a pair that a single labeler tied."""
    if (item, another, one) in p:
        return 1 - p[item, another, one]
    return p.get((item, one, another), 0.5)


def _win_rate(names: tuple[str, str], pair: _Pair, *, trusted: bool) -> WinRate | None:
    """None while nothing is known."""
    prompts = list(pair.prompts.values())
    judged = [one for one in prompts if one.said]
    alike = [one for one in prompts if not one.asked]
    waiting = len(prompts) - len(judged) - len(alike)
    if waiting and not judged:
        return None
    counted = len(alike) * (len(judged) / (len(judged) + waiting) if waiting else 1.0)
    return WinRate(
        first=names[0],
        second=names[1],
        wins=pair.outcomes.count(1.0),
        ties=pair.outcomes.count(0.5),
        losses=pair.outcomes.count(0.0),
        prompts=len(judged),
        alike=len(alike),
        rate=_of_prompts([_share(one, one.said) for one in judged], counted),
        weighted=_of_prompts([_share(one, one.weighted) for one in judged], counted) if trusted else None,
    )


def _share(prompt: _OnPrompt, judged: Sequence[float]) -> float:
    """Of the first model on a prompt. Matchups that were judged stand for those that wait."""
    return (prompt.alike / 2 + prompt.asked * sum(judged) / len(judged)) / (prompt.alike + prompt.asked)


def _of_prompts(shares: Sequence[float], ties: float) -> Share:
    """ties: how many prompts that are ties are counted beside those of the shares."""
    from tuneful.feedback.shares import wilson  # brings numpy, which those who label do not wait for

    num = len(shares) + ties
    return wilson((sum(shares) + ties / 2) / num, num)
