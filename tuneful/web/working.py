"""What a worker does for a page: who asks for much is led back to the page, which shows how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from tuneful.feedback.completions_wanted import KIND as COMPLETIONS
from tuneful.feedback.jobs import DATASET, QUALITY, WIN_RATES, Job, jobs
from tuneful.feedback.store import Store

PLACES: Final = {COMPLETIONS: "/answers", WIN_RATES: "/answers", QUALITY: "/quality", DATASET: "#export"}
"""The part of a project's pages that shows jobs of a kind."""

PATIENCE: Final = 30.0
"""Seconds after which a job that still waits makes one ask whether there is a worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """jobs: those that are not over, and the newest when it has failed. forgotten: one has waited for long."""

    jobs: list[Job]
    forgotten: bool


def work_of(store: Store, project_id: str, kind: str, *, now: float, shown: tuple[str, ...] = ()) -> Work:
    """The quick jobs of a kind, as a page has them."""
    made = jobs(store, project_id, kind, shown=shown)
    left = [one for place, one in enumerate(made) if not one.is_over or (place == 0 and one.state == "failed")]
    return Work(jobs=left, forgotten=forgotten(made, now))


def forgotten(made: list[Job], now: float) -> bool:
    return any(one.state == "waiting" and now - one.created_at > PATIENCE for one in made)


def place_of(project_id: str, kind: str) -> str:
    """A kind that no page shows has the project's page for its place."""
    return f"/lead/{quote(project_id)}{PLACES.get(kind, '')}"
