"""What the routes for programs answer: the shapes that /api/v1/openapi.json tells and docs/reference/rest.md shows.

They describe; a test holds real answers against them, and no request is slowed by it.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from tuneful.feedback.access import Scope
from tuneful.feedback.projects import Role
from tuneful.records import JudgmentKind


class Answer(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class Turn(Answer):
    role: str
    """`user`, `assistant` or `system`."""
    content: str
    """Its text."""


class Offered(Answer):
    id: str
    """By which ranks, flags and values name the answer."""
    text: str
    """Its text. Which model wrote it is not told."""


class Held(Answer):
    """An item in hand."""

    id: str
    """Of the assignment."""
    item: str
    """Of the item."""
    lease_seconds: float
    """How long it is kept for this labeler."""
    criterion: str
    """What is judged."""
    prompt: list[Turn]
    """The conversation so far."""
    answers: list[Offered]
    """What is judged, in this labeler's order."""
    instructions: str | None
    """Id of the newest version, null when there is none."""
    draft: dict[str, Any] | None
    """The last draft that was saved."""
    quiz: bool
    """One of the known items that a labeler begins with."""


class Count(Answer):
    """How far a project is; known items have no part in it."""

    mine: int
    """Items that this labeler has judged."""
    items: int
    """Items in all."""
    done: int
    """Items with as many judgments as are asked for now."""
    wanted: int
    """Judgments that are asked for now."""
    up_to: int
    """Judgments that may be asked for in the end, where the overlap of unsure items grows."""
    have: int
    """Judgments that were given."""


class Trying(Answer):
    """How far a labeler is in a quiz that is not passed yet."""

    quiz: int
    """Known items that it asks."""
    pass_share: float
    """Share to get right of the last so many."""
    answered: int
    """Known items answered; more than it asks where those were not enough."""
    right: float | None
    """Share right of the last so many, null before the first."""


class Claimed(Answer):
    assignment: Held | None
    """Null when there is nothing for this labeler."""
    quiz: Trying | None
    """With an item of the quiz, and where there is nothing left; null when there is no quiz to pass."""
    progress: Count
    """A moment old."""


class Taught(Answer):
    """What a labeler learns from an item of the quiz."""

    right: float
    """Share that was right."""
    ranks: dict[str, int]
    """The known ranks."""
    values: dict[str, float]
    """The known values."""
    why: str
    """The lead's reason."""
    passed: bool
    """Whether the quiz is passed now."""


class Received(Answer):
    judgment: str
    """Its id."""
    counted: bool
    """Within as many as were asked for; what came after is kept as surplus."""
    late: bool
    """The lease was over."""
    again: bool
    """It had been stored before."""
    feedback: Taught | None
    """In the quiz alone."""
    quiz: Trying | None
    """After an item of the quiz, unless it is passed now."""
    progress: Count
    """A moment old."""


class Extended(Answer):
    lease_seconds: float
    """How long the item is kept now."""


class Nothing(Answer):
    """An empty object."""


class Instructions(Answer):
    id: str | None
    """Null when there are none yet."""
    version: int
    """1, 2 …"""
    html: str
    """Safe to show."""
    previous_html: str | None
    """The version before."""
    changed: bool
    """Whether there is one before."""


class ProjectSeen(Answer):
    id: str
    """By which the other routes name it."""
    name: str
    """Chosen by its lead."""
    kind: JudgmentKind
    """What is done with each item."""
    criteria: list[str]
    """What is judged."""
    quiz: int
    """Known items that a labeler begins with."""
    pass_share: float
    """Share of the quiz to get right."""
    gold_every: int
    """Afterwards one item in so many is a known one; 0: none."""
    most_overlap: int
    """Up to how many raters are asked while an item is unsure; 0: as many as it says."""
    sure: float
    """Share of an item's pairs that is expected to be in order, at which it is sure."""
    role: Role
    """What the token's holder is in it; an admin leads all."""
    progress: Count
    """As it is now."""


class Projects(Answer):
    projects: list[ProjectSeen]
    """Oldest first."""


class Added(Answer):
    items: list[str]
    """Their ids, in the order given; of one that was there already its own."""


class Published(Answer):
    id: str
    """Of the version."""


class Refusal(Answer):
    """Why something was not done. Nothing was changed."""

    error: str
    """One sentence for people."""


REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Refusal, "description": "Refused, and why"},
    503: {"model": Refusal, "description": "Not at this moment; `retry-after` says after how many seconds again"},
}


def told(scope: Scope, answer: type[Answer]) -> dict[str, Any]:
    """What a route's decorator says of it: the scope that a token needs, and the shape of its answer."""
    return {"openapi_extra": {"x-scope": scope}, "responses": {200: {"model": answer}}}
