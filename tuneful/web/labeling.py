"""The labeling page and what it asks for; the same routes below /api/v1 serve programs.

Nothing here decides: a route reads the request, calls the store and answers.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from tuneful.errors import AccessError, StoreError
from tuneful.feedback import assignment as rules
from tuneful.feedback import submission
from tuneful.feedback.access import Scope, Who
from tuneful.feedback.assignment import Assignment
from tuneful.feedback.pages import asked_of, guide, judged_by, show
from tuneful.feedback.projects import add_member, find_project, progress
from tuneful.feedback.quiz import trying
from tuneful.feedback.store import Store
from tuneful.feedback.submission import LAST_RANK, Feedback, Said
from tuneful.web.answers import Claimed, Extended, Instructions, Nothing, Received, told
from tuneful.web.security import InStore, Known, Now
from tuneful.web.templating import instructions_html, page

pages = APIRouter(include_in_schema=False)
router = APIRouter(tags=["labeling"])

LONGEST_TEXT: Final = 200_000

LONGEST_SECONDS: Final = 86_400.0

PROGRESS_SECONDS: Final = 2.0
"""How old the count of a project may be that a labeler sees."""


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Claim(Body):
    besides: list[str] = Field(default=[], max_length=10)
    """Assignments that the client has in hand and does not ask for, to fetch what comes after them."""


Flag = Literal["gibberish", "unsafe", "refusal", "wrong-language", "truncated", "error"]


class Word(Body):
    """A judgment."""

    id: str = Field(pattern=r"^[0-9a-fA-F-]{32,36}$")
    """A UUID made by the client: sending it again is harmless."""
    ranks: dict[str, Annotated[int, Field(ge=1, le=LAST_RANK)] | None] = {}
    """By answer: 1 is best, equal numbers tie, null was not ranked."""
    flags: dict[str, list[Flag]] = {}
    """By answer: what is wrong with it."""
    values: dict[str, FiniteFloat] = {}
    """0/1: 0 or 1 by criterion. Rating: 1 to 7 by answer. Ranking: points from 1 to 7 by answer, if you like.
    Comparison: `strength` from 1 (slightly) to 3 (much) where one is better, `both_bad` of 1 beside a tie. Ranking and
    comparison: `confidence` from 1 (a guess) to 3 (quite sure); of a model, under `a>b`, from 0 to 1 how far it
    preferred answer a when it saw a before b. All but the last are whole numbers; nothing else is taken."""
    text: str = Field(default="", max_length=LONGEST_TEXT)
    """A demonstration."""
    note: str = Field(default="", max_length=LONGEST_TEXT)
    """For the project's lead."""
    seconds: float | None = Field(default=None, ge=0, le=LONGEST_SECONDS, allow_inf_nan=False)
    """How long it took."""
    replaces: str | None = None
    """The judgment that this one revises."""
    instructions: str | None = None
    """The version that was read; else that of the claim."""


class Draft(Body):
    content: dict[str, Any]
    """Whatever the client needs to go on; a claim gives it back."""


class Reason(Body):
    reason: str = Field(default="", max_length=2000)
    """For the project's lead."""


@pages.get("/p/{project_id}")
def labeling_page(request: Request, store: InStore, who: Known, project_id: str) -> Response:
    _require_role(who, project_id)
    found = find_project(store, project_id)
    return page(request, "labeling.html", who, project=found, rater=who.rater)


@router.post("/p/{project_id}/claim", **told("label", Claimed))
def claim(request: Request, store: InStore, who: Known, now: Now, project_id: str, body: Claim) -> dict[str, Any]:
    """The item in hand or the next open one, under a lease; null when there is none for this labeler."""
    _require_scope(who, "label")
    if who.admin and project_id not in who.roles:
        add_member(store, find_project(store, project_id).id, who.rater, role="lead", by=who.rater, now=now)
    given = rules.claim(store, project_id, who.rater, besides=body.besides, now=now)
    held = None if given is None else _shown(store, given, now)
    quiz = _trying(store, project_id, who) if given is None or given.quiz else None
    return {"assignment": held, "quiz": quiz, "progress": _progress(request, store, project_id, who)}


@router.post("/a/{assignment_id}/submit", **told("label", Received))
def submit(request: Request, store: InStore, who: Known, now: Now, assignment_id: str, body: Word) -> dict[str, Any]:
    """Store a judgment, for good: an answer of 200 is given after it is on the disk."""
    _require_scope(who, "label")
    found, completions = asked_of(store, assignment_id, who.rater)
    _require_names(body, completions)
    said = Said(
        id=body.id,
        ranks=tuple(body.ranks.get(one) for one in completions) if body.ranks else (),
        flags={name: tuple(flags) for name, flags in body.flags.items()},
        values=body.values,
        text=body.text,
        instructions=body.instructions,
        note=body.note,
        seconds=body.seconds,
        replaces=body.replaces,
    )
    receipt = submission.submit(store, assignment_id, who.rater, said, now=now)
    told = {
        "feedback": _told(receipt.feedback, completions),
        "quiz": None if receipt.feedback is None else _trying(store, found.id, who),
        "progress": _progress(request, store, found.id, who),
    }
    return asdict(receipt) | told


@router.post("/a/{assignment_id}/draft", **told("label", Nothing))
def save_draft(store: InStore, who: Known, now: Now, assignment_id: str, body: Draft) -> dict[str, Any]:
    """Keep what the labeler has so far."""
    _require_scope(who, "label")
    rules.save_draft(store, assignment_id, who.rater, body.content, now=now)
    return {}


@router.post("/a/{assignment_id}/extend", **told("label", Extended))
def extend(store: InStore, who: Known, now: Now, assignment_id: str) -> dict[str, Any]:
    """Begin the lease anew."""
    _require_scope(who, "label")
    return {"lease_seconds": rules.extend(store, assignment_id, who.rater, now=now) - now}


@router.post("/a/{assignment_id}/skip", **told("label", Nothing))
def skip(store: InStore, who: Known, assignment_id: str, body: Reason) -> dict[str, Any]:
    """Give the item back; this labeler is not asked again."""
    _require_scope(who, "label")
    rules.skip(store, assignment_id, who.rater, body.reason)
    return {}


@router.get("/p/{project_id}/instructions", **told("read", Instructions))
def instructions(store: InStore, who: Known, project_id: str) -> dict[str, Any]:
    """The newest instructions as safe HTML, and those before them."""
    _require_scope(who, "read")
    _require_role(who, project_id)
    found = guide(store, project_id)
    if found is None:
        return {"id": None, "version": 0, "html": "", "previous_html": None, "changed": False}
    previous = None if found.previous is None else instructions_html(found.previous)
    return {
        "id": found.id,
        "version": found.version,
        "html": instructions_html(found.text),
        "previous_html": previous,
        "changed": previous is not None,
    }


def _shown(store: Store, given: Assignment, now: float) -> dict[str, Any]:
    seen = show(store, given)
    return {
        "id": given.id,
        "item": given.item,
        "lease_seconds": given.lease_until - now,
        "criterion": seen.criterion,
        "prompt": [{"role": turn.role, "content": turn.content} for turn in seen.prompt],
        "answers": [{"id": id_, "text": text} for id_, text in seen.answers],
        "instructions": given.instructions,
        "draft": seen.draft,
        "quiz": given.quiz,
    }


def _told(feedback: Feedback | None, completions: list[str]) -> dict[str, Any] | None:
    if feedback is None:
        return None
    ranks = dict(zip(completions, feedback.gold.get("ranks") or (), strict=False))
    why = feedback.gold.get("why", "")
    known = {"ranks": ranks, "values": feedback.gold.get("values") or {}, "why": why}
    return {"right": feedback.right, "passed": feedback.passed} | known


def _trying(store: Store, project_id: str, who: Who) -> dict[str, Any] | None:
    found = trying(store, project_id, rater_id=who.rater).get(who.rater)
    return None if found is None else asdict(found)


def _progress(request: Request, store: Store, project_id: str, who: Who) -> dict[str, int]:
    """The labeler's own count as it is, the project's as it was a moment ago: it is counted over all items."""
    seen: dict[str, tuple[float, dict[str, int]]] = request.app.state.progress
    now = time.monotonic()
    at, counts = seen.get(project_id, (-math.inf, {}))
    if now - at > PROGRESS_SECONDS:
        counts = asdict(progress(store, project_id))
        seen[project_id] = (now, counts)
    return {"mine": judged_by(store, project_id, who.rater)} | counts


def _require_names(body: Word, completions: list[str]) -> None:
    for name in body.ranks:
        if name not in completions:
            raise StoreError(f'ranks: "{name}" is no completion of the item')


def _require_role(who: Who, project_id: str) -> None:
    if project_id not in who.roles and not who.admin:
        raise AccessError("this project is not yours; ask its lead for an invitation")


def _require_scope(who: Who, scope: Scope) -> None:
    if scope not in who.scopes:
        raise AccessError(f'this token has no scope "{scope}"; make one that has')
