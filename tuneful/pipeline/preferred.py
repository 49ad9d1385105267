"""People as a judge of an evaluation: whose answers they prefer, and whether rewards prefer the same.

What people judged are answers that both models gave when the project was made, and not those that the evaluation
samples. Rewards are held against people on these: answers, and prompts, are the same for both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuneful.engines import ranks
from tuneful.errors import ConfigError, DataError
from tuneful.evaluation.intervals import MeasuredJSON
from tuneful.feedback.consensus import Consensus, consensus
from tuneful.feedback.dataset import of_audience
from tuneful.feedback.export import agreed_comparisons
from tuneful.feedback.items import candidates
from tuneful.feedback.matchups import Matchup, matchups
from tuneful.feedback.pages import groups_of
from tuneful.feedback.projects import find_project, judgments
from tuneful.feedback.shares import Share
from tuneful.feedback.store import Store
from tuneful.feedback.win_rates import WinRate, comparing, win_rates
from tuneful.pipeline.accuracy import reward_accuracy
from tuneful.pipeline.context import Context
from tuneful.pipeline.inputs import EvaluateInputs, People
from tuneful.records import Candidates, Comparison, Judgment
from tuneful.rewards.reward import Reward
from tuneful.runs.manifest import file_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferred:
    """What people said of the answers of the model before and the model after.

    project: its id. audience: the group whose word alone counts, None for everybody's. judgments: those that compare
    the two on test prompts. num_left_out: of those on other prompts. rate: of the model after against the one before.
    comparisons: the pairs of the two that the consensus tells apart; none where no labeler can be trusted.
    """

    store: str
    project: str
    audience: str | None
    judgments: list[Judgment]
    num_left_out: int
    rate: WinRate
    comparisons: list[Comparison]

    def as_report(self, rewards: Mapping[str, Reward]) -> dict[str, Any]:
        """For `report.json`; `agreement`: the share of `comparisons` in which each reward prefers what people prefer,
        None with fewer than two prompts."""
        told_apart = len({one.prompt.id for one in self.comparisons}) >= 2
        labelers = Counter(kind for kind, _ in {(one.rater_kind, one.rater) for one in self.judgments})
        return {
            "audience": self.audience,
            "win_rate": _measured(self.rate.rate),
            "win_rate_by_consensus": None if self.rate.weighted is None else _measured(self.rate.weighted),
            "wins": self.rate.wins,
            "ties": self.rate.ties,
            "losses": self.rate.losses,
            "num_judgments": len(self.judgments),
            "num_labelers": dict(labelers),
            "num_left_out": self.num_left_out,
            "agreement": {
                name: reward_accuracy(reward, self.comparisons)["heldout_accuracy"] if told_apart else None
                for name, reward in rewards.items()
            },
        }

    def source(self, file: Path) -> dict[str, Any]:
        """For `run.json`: where the judgments were read, and the hash of the `file` that they were written to."""
        digest = file_hash(file)
        return {"store": self.store, "project": self.project, "num_judgments": len(self.judgments), "sha256": digest}


def preferred(context: Context, given: EvaluateInputs, prompts: Collection[str]) -> Preferred:
    """What people said in the project that `given.people` names, as it is at this moment.

    prompts: ids of the test prompts; what people said of others shows nothing of prompts that no stage has seen, and is
    left out. Judgments of language models are, too.

    Raises DataError when nobody has compared two models there yet, when it is other models, when none of it is on a
    test prompt, with fewer judgments than `fewest`, and as `of_audience` and `consensus` do.
    """
    assert given.people is not None
    people = given.people
    return ranks.from_first(lambda: _read(context, given, people, prompts))


def _read(context: Context, given: EvaluateInputs, people: People, prompts: Collection[str]) -> Preferred:
    store = Store.open(people.store, make=False)
    try:
        with store.snapshot() as then:  # people go on labeling
            project = find_project(then, people.project)
            met = matchups(then, project.id)
            said = comparing(judgments(then, project.id))
            groups = groups_of(then, project.id)
            judged = candidates(then, project.id)
    finally:
        store.close()
    place = f'{store}: project "{project.name}"'
    go_on = f"go on labeling (tuneful web --store {store}), then run this again"
    met = _between(met, _sides(context, given, people, met, place))
    if not said:
        raise DataError(f"{place}: people have not compared the two models in it yet; {go_on}")
    said = of_audience(said, people.audience, groups)
    pairs = _pairs(met)
    comparing_both = [one for one in said if any(pair <= _ranked(one) for pair in pairs.get(one.item, ()))]
    kept = [one for one in comparing_both if one.prompt in prompts]
    if comparing_both and not kept:
        raise DataError(
            f"{place}: none of its {len(comparing_both)} judgments of the two models is on a test prompt of "
            f'"{given.prompts}"; name the prompts that were judged, and list them in "held_out" or change the shares'
        )
    if len(kept) < max(people.fewest, 1):
        raise DataError(
            f"{place} has {len(kept)} judgments that compare the two models on test prompts, and fewest = "
            f"{people.fewest}; {go_on}"
        )
    agreed = consensus(said)
    (rate,) = win_rates(kept, agreed, [one for one in met if one.prompt in prompts])
    return Preferred(
        store=str(store),
        project=project.id,
        audience=people.audience,
        judgments=kept,
        num_left_out=len(comparing_both) - len(kept),
        rate=rate,
        comparisons=_told_apart(agreed, judged, pairs, prompts) if agreed.slope > 0 else [],
    )


def _sides(
    context: Context, given: EvaluateInputs, people: People, met: Iterable[Matchup], place: str
) -> dict[str, str]:
    """The side, before or after, by the name that the project has for each of the two models."""
    models = {model for one in met for model in one.models if model is not None}
    side_of: dict[str, str] = {}
    for side, named, reference in (("before", people.before, given.before), ("after", people.after, given.after)):
        found = {named} & models if named else {one for one in models if _is_model(one, reference, context)}
        if not found:
            told = " and ".join(f'"{one}"' for one in sorted(models)) or "no model that is named"
            raise DataError(
                f'{place}: its answers are of {told}, and none is {side} = "{named or reference}"; if one is this '
                f'model under another name, say so: people = {{ …, {side} = "…" }}'
            )
        side_of |= dict.fromkeys(found, side)
    if set(side_of.values()) != {"before", "after"}:
        raise ConfigError("people: before and after are one and the same model in the project; name two")
    return side_of


def _is_model(name: str, reference: str, context: Context) -> bool:
    """Whether the model that a project calls `name` is the one that a stage means by `reference`."""
    if name == reference:
        return True
    return Path(name).expanduser().resolve() == Path(context.model(reference)).expanduser().resolve()


def _between(met: Iterable[Matchup], sides: Mapping[str, str]) -> list[Matchup]:
    """The matchups of the two models, with sides in place of names."""
    named = [replace(one, models=tuple(sides.get(model or "") for model in one.models)) for one in met]
    return [one for one in named if {"before", "after"} <= set(one.models)]


def _pairs(met: Iterable[Matchup]) -> dict[str, set[frozenset[str]]]:
    """The completions, one of each side, that items ask about."""
    found: dict[str, set[frozenset[str]]] = {}
    for one in met:
        if one.item is not None:
            sides = list(zip(one.completions, one.models, strict=True))
            both = {frozenset((a, b)) for a, s in sides for b, t in sides if (s, t) == ("before", "after")}
            found.setdefault(one.item, set()).update(both)
    return found


def _ranked(one: Judgment) -> set[str]:
    return {id_ for id_, rank in zip(one.completions, one.ranks, strict=False) if rank is not None}


def _told_apart(
    agreed: Consensus,
    judged: Collection[Candidates],
    asked: Mapping[str, Collection[frozenset[str]]],
    prompts: Collection[str],
) -> list[Comparison]:
    pairs = tuple(
        pair
        for pair in agreed.pairs
        if pair.prompt in prompts and frozenset((pair.first, pair.second)) in asked.get(pair.item, ())
    )
    return agreed_comparisons(replace(agreed, pairs=pairs), judged)


def _measured(share: Share) -> MeasuredJSON:
    return {"mean": share.value, "interval": [share.low, share.high], "n": share.of}
