"""Items that a lead has settled: their pairs in place of what the consensus found, and files of decisions.

A decision is no judgment. It stands for the item's consensus, and weighs nobody: how far raters can be trusted is
learned from what they say of each other alone (docs/explanation/agreement.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any, Final

from tuneful.data.files import read_rows
from tuneful.data.row import Row, is_finite
from tuneful.errors import did_you_mean
from tuneful.feedback.implied import implied_ranks
from tuneful.feedback.judgments import time_in

if TYPE_CHECKING:
    from tuneful.feedback.consensus import Consensus, PairConsensus

FILE: Final = "decisions.jsonl"
"""What a file of decisions is called; it lies beside the judgments of the same items."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A lead's word on an item, a row of decisions.jsonl.

    ranks: of all `completions`, in their order; 1 is the best, equal numbers tie; empty for kinds that order nothing,
    which have `values` as a judgment has them. replaces: the decision that stood before.
    """

    id: str
    item: str
    prompt: str
    completions: tuple[str, ...]
    criterion: str
    rater: str
    ranks: tuple[int, ...] = ()
    values: Mapping[str, float] = field(default_factory=dict)
    why: str = ""
    created_at: str = ""
    replaces: str | None = None


def standing(made: Iterable[Decision]) -> dict[str, Decision]:
    """By item, the decision that no other one replaces."""
    known = list(made)
    replaced = {one.replaces for one in known}
    return {one.item: one for one in known if one.id not in replaced}


def settle(found: Consensus, made: Iterable[Decision]) -> Consensus:
    """The consensus with every pair of a decided item as its decision has it: p is 1, and 1/2 for a tie.

    A decision of ratings stands for the order that they imply. Scores of such an item are its ranks in standard
    deviations from their mean. What is said of raters, alpha and the
    parameters stay as they were found: a decision weighs nobody.
    """
    orders = {one.item: one for one in map(_ordering, standing(made).values()) if one.ranks}
    pairs = [pair for pair in found.pairs if pair.item not in orders]
    pairs += [pair for one in orders.values() for pair in _pairs(one)]
    scores = dict(found.scores)
    for one in orders.values():
        scores |= {name: (score, 0.0) for name, score in zip(one.completions, _standardised(one.ranks), strict=True)}
    return replace(found, pairs=tuple(sorted(pairs, key=lambda pair: pair.item)), scores=scores)


def _ordering(one: Decision) -> Decision:
    """The decision, with the ranks that its values imply where it rates two completions or more, and all of them."""
    values = [one.values[name] for name in one.completions if name in one.values]
    if one.ranks or len(values) < max(2, len(one.completions)):
        return one
    return replace(one, ranks=tuple(rank for rank in implied_ranks(values) if rank is not None))


def _pairs(one: Decision) -> list[PairConsensus]:
    from tuneful.feedback.consensus import PairConsensus  # brings scipy, which those who label do not wait for

    rank = dict(zip(one.completions, one.ranks, strict=True))
    pairs = list(combinations(sorted(rank), 2))
    made = []
    for a, b in pairs:
        first, second = (a, b) if rank[a] <= rank[b] else (b, a)
        p, weight = 1.0 if rank[first] < rank[second] else 0.5, 1 / len(pairs)
        made.append(
            PairConsensus(one.item, one.prompt, first, second, p=p, confidence=p, sd=0.0, weight=weight, decided=True)
        )
    return made


def _standardised(ranks: Sequence[int]) -> list[float]:
    mean, spread = fmean(ranks), pstdev(ranks)
    return [(mean - rank) / spread if spread else 0.0 for rank in ranks]


def decision_row(made: Decision) -> dict[str, Any]:
    """The row of a file that holds a decision."""
    return {one.name: getattr(made, one.name) for one in dataclasses.fields(made)} | {"values": dict(made.values)}


def decisions_beside(judgments: Path) -> list[Decision]:
    """Those of the decisions.jsonl that lies beside a file of judgments; none where there is no such file."""
    path = judgments.with_name(FILE)
    return read_decisions(path) if path.exists() else []


def read_decisions(path: Path) -> list[Decision]:
    """The decisions of a file. Raises DataError, naming file, line and field, for a row that is none."""
    return [decision_in(row) for row in read_rows(path)]


def decision_in(row: Row) -> Decision:
    """The decision that a row holds. Raises DataError as `read_decisions` does."""
    known = [one.name for one in dataclasses.fields(Decision)]
    for name in row.fields:
        if name not in known:
            raise row.error("unknown", f"remove it{did_you_mean(name, known)}", name)
    fields = {name: row.fields.get(name, "") for name in ("criterion", "rater", "why")} | {"created_at": time_in(row)}
    fields |= {name: row.fields.get(name) for name in ("id", "item", "prompt")}
    for name, value in fields.items():
        if not isinstance(value, str):
            raise row.error(f"expected text, got {value!r}", "write it in quotes", name)
    names, ranks, values = (row.fields.get(name) or [] for name in ("completions", "ranks", "values"))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len({*names}) < len(names):
        raise row.error(f"expected different ids, got {names!r}", "name the item's completions", "completions")
    if not isinstance(ranks, list) or not all(type(rank) is int and rank > 0 for rank in ranks):
        raise row.error(f"expected a list of numbers, got {ranks!r}", "1 is the best", "ranks")
    if ranks and len(ranks) != len(names):
        raise row.error(f"{len(ranks)} for {len(names)} completions", "give one to each", "ranks")
    if not isinstance(values or {}, dict) or not all(map(is_finite, dict(values or {}).values())):
        raise row.error(f"expected an object of numbers, got {values!r}", "give a number for each name", "values")
    replaces = row.fields.get("replaces")
    whole: dict[str, Any] = {"completions": tuple(names), "ranks": tuple(ranks), "values": dict(values or {})}
    return Decision(**fields, **whole, replaces=None if replaces is None else str(replaces))
