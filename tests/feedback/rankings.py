"""Rankings in one line each, for worlds that are small enough to be counted by hand."""

from __future__ import annotations

from datetime import UTC, datetime

from tuneful.records import Judgment, JudgmentKind


def said(
    rater: str,
    item: str,
    *ranks: int | None,
    kind: JudgmentKind = "ranking",
    values: dict[str, float] | None = None,
    at: float = 0.0,
    seconds: float | None = None,
) -> Judgment:
    """What `rater` says of `item`, whose completions are item-0, item-1, …"""
    count = len(ranks) or 1
    return Judgment(
        id=f"{rater} {item}",
        item=item,
        prompt=f"prompt of {item}",
        completions=tuple(f"{item}-{n}" for n in range(count)),
        rater=rater,
        kind=kind,
        ranks=ranks,
        values=values or {},
        seconds=seconds,
        created_at=datetime.fromtimestamp(at, UTC).isoformat(),
    )
