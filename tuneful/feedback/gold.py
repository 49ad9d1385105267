"""Items whose answer is known: how much of it a labeler got right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from tuneful.data.files import read_rows
from tuneful.data.formats import read_candidates
from tuneful.records import Candidates


@dataclass(frozen=True, slots=True)
class Gold:
    """An item whose answer is known: ranks of its completions in their order, or values, and why they are these."""

    candidates: Candidates
    ranks: tuple[int | None, ...] = ()
    values: Mapping[str, float] = field(default_factory=dict)
    why: str = ""


def read_gold(path: Path) -> list[Gold]:
    """Rows of completions that also hold "ranks" (a list) or "values" (an object), and "why".

    Raises DataError, naming file, line and field, as `read_candidates` does.
    """
    known = []
    for given, row in zip(read_candidates(path), read_rows(path), strict=True):
        ranks, values, why = (row.fields.get(name) for name in ("ranks", "values", "why"))
        if not isinstance(ranks or [], list) or not all(rank is None or isinstance(rank, int) for rank in ranks or []):
            raise row.error(f"expected a list of numbers, got {ranks!r}", "1 is the best; null is not ranked", "ranks")
        if not isinstance(values or {}, dict):
            raise row.error(f"expected an object, got {values!r}", "give a number for each name", "values")
        known.append(Gold(given, ranks=tuple(ranks or ()), values=values or {}, why=str(why or "")))
    return known


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
