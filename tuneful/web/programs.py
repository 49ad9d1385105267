"""Routes that programs alone use: which projects there are, and what a lead's script puts into one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from tuneful.data.row import Row
from tuneful.errors import AccessError
from tuneful.feedback.item_files import items_in
from tuneful.feedback.items import MOST_PRIORITY, add_items
from tuneful.feedback.projects import publish_instructions
from tuneful.feedback.whole_rows import Faults
from tuneful.web.answers import Added, Projects, Published, Turn, told
from tuneful.web.leading import Led, projects_of
from tuneful.web.security import InStore, Known, Now

router = APIRouter(tags=["projects"])


class Given(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class GivenAnswer(Given):
    text: str
    """The answer."""
    model: str | None = None
    """Which model wrote it; labelers do not see it."""


class GivenItem(Given):
    prompt: str | list[Turn]
    """Text, or a conversation whose last turn is not the assistant's."""
    completions: list[GivenAnswer] = []
    """What is judged side by side; may be none where people write demonstrations."""


class Items(Given):
    items: list[GivenItem]
    """All of them are taken or none. One that is there already, with the same completions, is left as it is."""
    overlap: Annotated[int, Field(ge=1, le=100)] = 3
    """How many people judge each."""
    priority: Annotated[int, Field(ge=-MOST_PRIORITY, le=MOST_PRIORITY)] = 0
    """Higher ones are asked first."""


class Text(Given):
    text: str
    """Markdown."""


@router.get("/projects", **told("read", Projects))
def list_projects(store: InStore, who: Known) -> dict[str, Any]:
    """The projects that the token's holder is in; an admin sees all."""
    if "read" not in who.scopes:
        raise AccessError('this token has no scope "read"; make one that has')
    return {
        "projects": [
            asdict(one) | {"role": who.roles.get(one.id, "lead")} | {"progress": {"mine": judged} | asdict(done)}
            for one, done, judged in projects_of(store, who)
        ]
    }


@router.post("/lead/{project_id}/items", **told("lead", Added))
def add(store: InStore, who: Known, now: Now, found: Led, body: Items) -> dict[str, Any]:
    """More items for a project. Sent again they are the same items."""
    rows = [Row(Path("items"), n, one.model_dump(exclude_none=True)) for n, one in enumerate(body.items, start=1)]
    given = items_in(rows, found.kind, faults := Faults())
    faults.refuse(Path("items"), mend="mend them and send all again")
    made = add_items(store, found.id, given, overlap=body.overlap, priority=body.priority, by=who.rater, now=now)
    return {"items": made}


@router.post("/lead/{project_id}/instructions", **told("lead", Published))
def publish(store: InStore, who: Known, now: Now, found: Led, body: Text) -> dict[str, Any]:
    """A new version of the instructions; the newest once more when it says the same. Older ones stay."""
    return {"id": publish_instructions(store, found.id, body.text, by=who.rater, now=now)}
