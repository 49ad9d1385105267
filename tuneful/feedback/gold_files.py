"""Items whose answer is known from a file of completions; each fault is told by its line."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from tuneful.data import completions
from tuneful.data.fields import text_of
from tuneful.data.row import Row
from tuneful.errors import DataError
from tuneful.feedback.gold import Gold, require_answer, require_knowable
from tuneful.feedback.item_files import require_item
from tuneful.feedback.whole_rows import Faults, whole_rows
from tuneful.records import Candidates, JudgmentKind


def read_gold(path: Path, kind: JudgmentKind, criterion: str, faults: Faults) -> list[Gold]:
    """Rows of completions that also hold "ranks" (a list) or "values" (an object), and "why".

    What is broken, cannot be judged so, or has an answer that no labeler could give becomes a fault, and the file goes
    on. Raises StoreError for a kind whose answers cannot be known, DataError for a file that cannot be read or holds no
    rows.
    """
    require_knowable(kind)
    found, line_of = list[Gold](), dict[str, int]()
    for row in whole_rows(path, faults):
        with faults.attempt(row):
            [given] = completions.candidates([row], logging.getLogger(__name__).warning)
            require_item(row, kind, given, line_of)
            known = _gold(row, given)
            require_answer(kind, criterion, known)
            found.append(known)
    if not found and not faults.lines:
        raise DataError(f"{path}: holds no rows; write one JSON object per line")
    items = completions.with_ids([one.candidates for one in found])
    return [
        Gold(given, ranks=one.ranks, values=one.values, why=one.why) for given, one in zip(items, found, strict=True)
    ]


def _gold(row: Row, given: Candidates) -> Gold:
    ranks: Any = row.fields.get("ranks") or []
    values: Any = row.fields.get("values") or {}
    why: Any = row.fields.get("why") or ""
    if not isinstance(ranks, list) or not all(rank is None or type(rank) is int for rank in ranks):
        raise row.error(f"expected a list of numbers, got {ranks!r}", "1 is the best; null is not ranked", "ranks")
    if not isinstance(values, dict):
        raise row.error(f"expected an object, got {values!r}", "give a number for each name", "values")
    return Gold(given, ranks=tuple(ranks), values=values, why=text_of(row, why, "why", empty=True))
