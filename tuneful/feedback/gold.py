"""Items whose answer is known: how much of it a labeler got right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Final

from tuneful.data.row import is_finite
from tuneful.errors import StoreError, did_you_mean
from tuneful.records import Candidates, JudgmentKind


@dataclass(frozen=True, slots=True)
class Gold:
    """An item whose answer is known: ranks of its completions in their order, or values, and why they are these."""

    candidates: Candidates
    ranks: tuple[int | None, ...] = ()
    values: Mapping[str, float] = field(default_factory=dict)
    why: str = ""


UNKNOWABLE: Final[tuple[JudgmentKind, ...]] = ("demonstration",)
"""Kinds of judgments that cannot be held against a known answer: what is written freely."""


def require_knowable(kind: JudgmentKind) -> None:
    """StoreError for a kind whose answers cannot be known."""
    if kind in UNKNOWABLE:
        raise StoreError(
            f"known items and a quiz are not for a {kind}: nothing that is written is right or wrong; "
            "rankings, comparisons, ratings and 0/1 judgments can have them"
        )


def require_answer(kind: JudgmentKind, criterion: str, known: Gold) -> None:
    """StoreError for a known answer that no labeler could give, so that everybody would be wrong."""
    require_knowable(kind)
    shown = f"gold item {known.candidates.prompt.text[:40]!a}"
    size = len(known.candidates.completions)
    if not known.ranks and not known.values:
        raise StoreError(f"{shown}: its answer is missing; give ranks or values")
    if kind in ("ranking", "comparison"):
        if known.values:
            raise StoreError(f"{shown}: values, and a {kind} has ranks; give one to each completion")
        if len(known.ranks) != size:
            raise StoreError(f"{shown}: {len(known.ranks)} ranks for {size} completions")
        return
    named = "0/1 judgment" if kind == "binary" else kind
    if known.ranks:
        raise StoreError(f"{shown}: ranks, and a {named} has values; give these")
    names = [criterion] if kind == "binary" else [one.id for one in known.candidates.completions]
    for name, value in known.values.items():
        if name not in names:
            what = "the project asks by" if kind == "binary" else "the completions have the ids"
            raise StoreError(f'{shown}: a value for "{name}"; {what} {", ".join(names)}{did_you_mean(name, names)}')
        if not is_finite(value) or (kind == "binary" and value not in (0, 1)):
            raise StoreError(f'{shown}: {value!r} for "{name}"; give {"0 or 1" if kind == "binary" else "a number"}')


def share_right(gold: Mapping[str, Any], ranks: Sequence[int | None], values: Mapping[str, float]) -> float:
    """Share of what `gold` says that a judgment says too, in [0, 1].

    Of ranks: the pairs that gold orders and the judgment orders alike, a tie counting half and an unranked side as
    nothing. Of values (0/1, ratings): those that are equal. 1 when gold says nothing.
    """
    known: Sequence[int | None] = gold.get("ranks") or ()
    pairs = [(a, b) for a, b in combinations(range(len(known)), 2) if _order(known, a, b)]
    points = [_agreement(_order(known, a, b), _order(ranks, a, b)) for a, b in pairs]
    points += [float(values.get(name) == value) for name, value in (gold.get("values") or {}).items()]
    return sum(points) / len(points) if points else 1.0


def _agreement(known: int | None, said: int | None) -> float:
    if said is None:
        return 0.0
    return 0.5 if said == 0 else float(known == said)


def _order(ranks: Sequence[int | None], a: int, b: int) -> int | None:
    """1 when a is better, -1 when b is, 0 for a tie, None when a side is not ranked."""
    first, second = ranks[a] if a < len(ranks) else None, ranks[b] if b < len(ranks) else None
    if first is None or second is None:
        return None
    return (first < second) - (first > second)
