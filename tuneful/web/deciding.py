"""The lead's pages on items: look at them, settle those on which people do not agree, make gold items of some, write
instructions, and write a dataset down."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, get_args
from urllib.parse import quote

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse

from tuneful.errors import StoreError
from tuneful.feedback.access import Who
from tuneful.feedback.dataset_files import FEW_TO_WRITE, file_of, packed_dataset
from tuneful.feedback.decisions import decide, decisions, make_gold, mend_gold
from tuneful.feedback.jobs import DATASET, enqueue
from tuneful.feedback.pages import guide, guides, names_of
from tuneful.feedback.projects import Project, publish_instructions
from tuneful.feedback.quality import num_rows
from tuneful.feedback.review import PAGE, Look, Show, known_items, lines, look
from tuneful.feedback.settling import standing
from tuneful.feedback.starters import starter
from tuneful.feedback.store import Store
from tuneful.web.leading import Led
from tuneful.web.security import InStore, Known, Now
from tuneful.web.templating import instructions_html, page, wants_page
from tuneful.web.wording import changes
from tuneful.web.working import place_of

router = APIRouter(include_in_schema=False)

Text = Annotated[str, Form()]
Ranks = Annotated[list[int] | None, Form()]
Names = Annotated[list[str] | None, Form()]
Values = Annotated[list[float] | None, Form()]


@router.get("/lead/{project_id}/items")
def items_page(
    request: Request,
    store: InStore,
    who: Known,
    found: Led,
    show: Show | None = None,
    number: Annotated[int, Query(alias="page", ge=1, le=10**6)] = 1,
) -> Response:
    """A page of the table of items: the unsure first, and all of them where nothing tells which those are."""
    agreed = request.app.state.fits.last(found.id)
    shown: Show = show or ("unsure" if agreed.doubts else "all")
    rows, total = lines(store, found.id, shown, agreed.doubts, page=number)
    return page(
        request,
        "items.html",
        who,
        project=found,
        agreed=agreed,
        show=shown,
        shows=get_args(Show),
        rows=rows,
        total=total,
        page=number,
        pages=max(1, math.ceil(total / PAGE)),
    )


@router.get("/lead/{project_id}/items/{item_id:path}")
def item_page(request: Request, store: InStore, who: Known, found: Led, item_id: str) -> Response:
    return _item_page(request, store, who, found, item_id)


def _item_page(
    request: Request,
    store: Store,
    who: Who,
    found: Project,
    item_id: str,
    *,
    error: str = "",
    filled: Mapping[str, Any] | None = None,
) -> Response:
    """error, filled: why a decision was refused, and its ranks, values and reason, which stay in the form."""
    seen = look(store, found.id, item_id)
    agreed = request.app.state.fits.last(found.id)
    made = [one for one in decisions(store, found.id) if one.item == item_id]
    stands = standing(made).get(item_id)
    spoke = {one.rater for one in seen.words} | {one.rater for one in made} | {rater for rater, _ in seen.skips}
    letters = {one.id: chr(ord("A") + n) for n, one in enumerate(seen.answers)}
    return page(
        request,
        "item.html",
        who,
        status=400 if error else 200,
        error=error,
        filled=filled,
        project=found,
        item=seen,
        letters=letters,
        pairs=sorted(agreed.pairs.get(item_id, ()), key=lambda pair: (letters[pair.first], letters[pair.second])),
        known_of=agreed.judgments,
        decisions=list(reversed(made)),
        stands=stands,
        names=_names(found, seen),
        people=names_of(store, found.id, spoke),
        shown_time=_shown_time,
    )


@router.post("/lead/{project_id}/decisions")
def new_decision(
    request: Request,
    store: InStore,
    who: Known,
    now: Now,
    found: Led,
    item: Text,
    replaces: Text = "",
    why: Text = "",
    rank: Ranks = None,
    name: Names = None,
    value: Values = None,
) -> Response:
    item_id, ranks, values, reason = look(store, found.id, item).id, rank or [], _values(name, value), why.strip()
    try:
        decide(store, item_id, by=who.rater, ranks=ranks, values=values, why=reason, replaces=replaces or None, now=now)
    except StoreError as error:
        if not wants_page(request):
            raise
        filled = {"ranks": ranks, "values": values, "why": reason}
        return _item_page(request, store, who, found, item_id, error=str(error), filled=filled)
    return RedirectResponse(_place(found, f"items/{quote(item_id)}"), 303)


@router.get("/lead/{project_id}/gold")
def gold_page(request: Request, store: InStore, who: Known, found: Led) -> Response:
    return page(request, "gold.html", who, project=found, known=known_items(store, found.id))


@router.post("/lead/{project_id}/gold")
def new_gold(store: InStore, who: Known, now: Now, found: Led, item: Text, why: Text = "") -> Response:
    """A gold item that asks what a decided one asks."""
    made = make_gold(store, look(store, found.id, item).id, by=who.rater, why=why.strip(), now=now)
    return RedirectResponse(_place(found, f"items/{quote(made)}"), 303)


@router.post("/lead/{project_id}/gold/answer")
def new_gold_answer(
    store: InStore,
    who: Known,
    now: Now,
    found: Led,
    item: Text,
    why: Text = "",
    rank: Ranks = None,
    name: Names = None,
    value: Values = None,
) -> Response:
    """Another known answer of a gold item."""
    item_id = look(store, found.id, item).id
    mend_gold(store, item_id, by=who.rater, ranks=rank or [], values=_values(name, value), why=why.strip(), now=now)
    return RedirectResponse(_place(found, f"items/{quote(item_id)}"), 303)


@router.get("/lead/{project_id}/instructions")
def instructions_page(request: Request, store: InStore, who: Known, found: Led) -> Response:
    """All versions, each with what it changed, and a form for the next one."""
    newest = guide(store, found.id)
    text = starter(found.kind, found.criteria[0]) if newest is None else newest.text
    return _instructions_page(request, store, who, found, text, seen=0 if newest is None else newest.version)


@router.post("/lead/{project_id}/instructions")
def new_instructions(
    request: Request,
    store: InStore,
    who: Known,
    now: Now,
    found: Led,
    text: Text,
    preview: Text = "",
    seen: Annotated[int | None, Form()] = None,
) -> Response:
    """Publish a new version, or look at it first. seen: the version that the writer had before them."""
    text = text.replace("\r\n", "\n")  # as forms send lines
    if preview:
        return _instructions_page(request, store, who, found, text, seen=seen, preview=True)
    try:
        publish_instructions(store, found.id, text, seen=seen, by=who.rater, now=now)
    except StoreError as error:
        newest = guide(store, found.id)
        looked_at = 0 if newest is None else newest.version
        return _instructions_page(request, store, who, found, text, seen=looked_at, error=str(error))
    return RedirectResponse(_place(found), 303)


@router.post("/lead/{project_id}/datasets")
def new_dataset(store: InStore, who: Known, now: Now, found: Led) -> Response:
    """The whole dataset, packed, its manifest kept under a number; one of many judgments is written by a worker."""
    if num_rows(store, found.id) > FEW_TO_WRITE:
        enqueue(store, found.id, DATASET, {}, by=who.rater, now=now)
        return RedirectResponse(place_of(found.id, DATASET), 303)
    version, packed = packed_dataset(store, found.id, by=who.rater, now=now)
    return Response(packed, media_type="application/zip", headers=_as_file(version))


@router.get("/lead/{project_id}/datasets/{version}.zip")
def dataset_file(store: InStore, found: Led, version: int) -> Response:
    size, parts = file_of(store, found.id, version)
    headers = _as_file(version) | {"content-length": str(size)}
    return StreamingResponse(parts, media_type="application/zip", headers=headers)


def _as_file(version: int) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="dataset-{version}.zip"'}


def _instructions_page(
    request: Request,
    store: Store,
    who: Who,
    found: Project,
    text: str,
    *,
    seen: int | None,
    preview: bool = False,
    error: str = "",
) -> Response:
    told = guides(store, found.id)
    newest = told[-1].text if told else ""
    return page(
        request,
        "instructions.html",
        who,
        status=400 if error else 200,
        project=found,
        seen=seen,
        error=error,
        text=text,
        preview_html=instructions_html(text) if preview else None,
        text_changes=changes(newest, text) if told and (preview or error) else [],
        starter=not told and not preview and not error,
        versions=[(one, changes(one.previous or "", one.text)) for one in reversed(told)],
        shown_time=_shown_time,
    )


def _names(found: Project, seen: Look) -> Sequence[str]:
    """What a decision of a kind that orders nothing gives values to."""
    return (found.criteria[0],) if found.kind == "binary" else tuple(one.id for one in seen.answers)


def _values(names: Sequence[str] | None, values: Sequence[float] | None) -> dict[str, float]:
    if len(names or ()) != len(values or ()):
        raise StoreError("give one value to each name")
    return dict(zip(names or (), values or (), strict=True))


def _shown_time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")


def _place(found: Project, below: str = "") -> str:
    return f"/lead/{quote(found.id)}" + (f"/{below}" if below else "")
