"""Win rates that were counted once and are kept as a snapshot: where there are many judgments it takes seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from tuneful.errors import DataError
from tuneful.feedback import snapshots
from tuneful.feedback.matchups import num_matchups
from tuneful.feedback.quality import num_rows
from tuneful.feedback.shares import Share
from tuneful.feedback.store import Store
from tuneful.feedback.win_rates import WinRate, win_rates_of

KIND: Final = "win rates"
"""Of the snapshots."""

METHOD: Final = "win rates/2"
"""Another number when what is counted, or how, changes: a snapshot of another method is not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """rates: none where the answers are of fewer than two models. problem: why there are none, where there should be.
    rows: judgments with their revisions at the time, by which a later look knows how many are new; matchups: by which
    it knows that models have met again."""

    rates: tuple[WinRate, ...]
    problem: str
    rows: int
    matchups: int
    counted_at: float


def count(store: Store, project_id: str, *, now: float) -> Counted:
    """The win rates of people's judgments as they are now."""
    rows, met = num_rows(store, project_id), num_matchups(store, project_id)  # first: what comes meanwhile is new later
    rates, problem = tuple[WinRate, ...](), ""
    try:
        rates = tuple(win_rates_of(store, project_id))
    except DataError as error:
        problem = str(error)
    return Counted(rates=rates, problem=problem, rows=rows, matchups=met, counted_at=now)


def keep(store: Store, project_id: str, done: Counted) -> None:
    """Put what was counted beside what was counted before."""
    snapshots.keep(
        store, project_id, KIND, method=METHOD, judgments=done.rows, result=asdict(done), now=done.counted_at
    )


def count_and_keep(store: Store, project_id: str, *, now: float) -> Counted:
    """`count`, for `latest` to find."""
    done = count(store, project_id, now=now)
    keep(store, project_id, done)
    return done


def latest(store: Store, project_id: str) -> Counted | None:
    """Those that were counted last; None when there are none of this method."""
    result = snapshots.latest(store, project_id, KIND, method=METHOD)
    return None if result is None else Counted(**result | {"rates": tuple(map(_win_rate, result["rates"]))})


def _win_rate(row: Mapping[str, Any]) -> WinRate:
    weighted = row["weighted"]
    shares = {"rate": Share(**row["rate"]), "weighted": None if weighted is None else Share(**weighted)}
    return WinRate(**{**row, **shares})
