"""The lead's pages: make a project, give it items and instructions, invite people, see how it goes, take it home."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, get_args
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, File, Form, Query, Request, UploadFile
from fastapi.responses import RedirectResponse, Response, StreamingResponse

from tuneful.data.completions import candidates_row
from tuneful.data.preferences import comparison_row
from tuneful.data.unpaired import unpaired_row
from tuneful.errors import AccessError, DataError, StoreError
from tuneful.feedback.access import Who, invite
from tuneful.feedback.collected import amounts, answers_in, collected, comparisons_in
from tuneful.feedback.decisions import decisions
from tuneful.feedback.item_files import read_items
from tuneful.feedback.items import candidates, put_items
from tuneful.feedback.jobs import DATASET, job_of, jobs
from tuneful.feedback.jobs import stop as stop_job
from tuneful.feedback.judgments import judgment_row
from tuneful.feedback.members import open_invitations, remove_member, take_back
from tuneful.feedback.overview import overview
from tuneful.feedback.pages import guide, judged_everywhere, names_of, remarks
from tuneful.feedback.projects import (
    Progress,
    Project,
    add_member,
    create_project,
    find_project,
    judgments,
    progress_of,
    projects,
    publish_instructions,
    set_overlap,
)
from tuneful.feedback.quiz import trying
from tuneful.feedback.settling import decision_row
from tuneful.feedback.store import Store, require_storable
from tuneful.feedback.versions import versions
from tuneful.feedback.whole_rows import TOLD, Faults
from tuneful.records import Candidates, JudgmentKind
from tuneful.web.charts import cumulative
from tuneful.web.fitting import Fits
from tuneful.web.security import InStore, Known, Now
from tuneful.web.templating import instructions_html, page, wants_page
from tuneful.web.working import PLACES, place_of, work_of

router = APIRouter(include_in_schema=False)
exports = APIRouter(tags=["export"])

Text = Annotated[str, Form()]

T = TypeVar("T")

Rows = Callable[[Store, str], Iterable[Mapping[str, Any]]]

ITEM_FILES: Final = (".jsonl", ".jsonl.gz", ".parquet")


def led(store: InStore, who: Known, project_id: str) -> Project:
    """The project of a lead's page. Raises AccessError for those who do not lead it, whether there is one or not."""
    if not who.leads(project_id):
        raise AccessError("this page is for the project's lead")
    return find_project(store, project_id)


Led = Annotated[Project, Depends(led)]


@router.get("/")
def my_projects(request: Request, store: InStore, who: Known) -> Response:
    mine = [
        {"id": one.id, "name": one.name, "kind": one.kind, "role": who.roles.get(one.id, "lead")}
        | {"progress": done, "mine": judged}
        for one, done, judged in projects_of(store, who)
    ]
    return page(request, "projects.html", who, projects=mine)


def projects_of(store: Store, who: Who) -> list[tuple[Project, Progress, int]]:
    """Those that somebody is in, an admin in all; how far each is, and how many items he has judged himself."""
    mine = [one for one in projects(store) if who.admin or one.id in who.roles]
    done, judged = progress_of(store, [one.id for one in mine]), judged_everywhere(store, who.rater)
    return [(one, done[one.id], judged.get(one.id, 0)) for one in mine]


@router.get("/lead/new")
def new_project_page(request: Request, who: Known) -> Response:
    _require_admin(who)
    return _new_project_page(request, who, {"criterion": "helpful"})


@router.post("/lead/new")
def new_project(
    request: Request,
    store: InStore,
    who: Known,
    now: Now,
    name: Text = "",
    kind: Annotated[JudgmentKind, Form()] = "ranking",
    criterion: Text = "preference",
    instructions: Text = "",
) -> Response:
    _require_admin(who)
    asked = (criterion.strip() or "preference",)
    try:
        require_storable(instructions, "the instructions")
        made = create_project(store, name, kind, criteria=asked, by=who.rater, now=now)
    except StoreError as error:
        if not wants_page(request):
            raise
        filled = {"name": name, "kind": kind, "criterion": criterion, "instructions": instructions}
        return _new_project_page(request, who, filled, error=str(error))
    add_member(store, made, who.rater, role="lead", by=who.rater, now=now)
    if instructions.strip():
        publish_instructions(store, made, instructions, by=who.rater, now=now)
    return RedirectResponse(_place(made), 303)


@router.get("/lead/{project_id}")
def lead_page(
    request: Request,
    store: InStore,
    who: Known,
    now: Now,
    found: Led,
    added: Annotated[int | None, Query(ge=0)] = None,
    known: Annotated[int, Query(ge=0)] = 0,
) -> Response:
    """added, known: items of a file that was just sent."""
    return _lead_page(request, store, who, found, now, added=None if added is None else (added, known))


@router.post("/lead/{project_id}/items")
def upload_items(
    request: Request,
    store: InStore,
    who: Known,
    now: Now,
    found: Led,
    file: Annotated[UploadFile, File()],
    overlap: Annotated[int, Form(ge=1, le=100)] = 3,
    skip_broken: Annotated[bool, Form()] = False,
) -> Response:
    """skip_broken: takes what is whole, and tells on the page what was left out."""
    faults = Faults()
    try:
        items = uploaded(file, lambda path: _items_of(path, found.kind, faults, skip_broken=skip_broken), ITEM_FILES)
        put = put_items(store, found.id, items, overlap=overlap, by=who.rater, now=now)
    except (DataError, StoreError) as error:
        if not wants_page(request):
            raise
        broken = _by_line(faults) if len(faults.lines) > TOLD else ()  # else the message has them all
        return _lead_page(request, store, who, found, now, error=str(error), broken=broken, overlap=overlap)
    new = sum(one.is_new for one in put)
    added = new, len(put) - new
    if faults.lines:  # sent again by a reload, it adds nothing
        return _lead_page(request, store, who, found, now, added=added, broken=_by_line(faults), overlap=overlap)
    told = urlencode({"added": added[0], "known": added[1]})
    return RedirectResponse(f"{_place(found.id)}?{told}#items", 303)


@router.post("/lead/{project_id}/overlap")
def change_overlap(
    store: InStore, who: Known, now: Now, found: Led, most: Annotated[int, Form()], sure: Annotated[float, Form()]
) -> Response:
    set_overlap(store, found.id, most=most, sure=sure, by=who.rater, now=now)
    return RedirectResponse(_place(found.id), 303)


@router.post("/lead/{project_id}/invitations")
def new_invitation(
    request: Request,
    store: InStore,
    who: Known,
    now: Now,
    found: Led,
    role: Annotated[Literal["labeler", "lead"], Form()] = "labeler",
) -> Response:
    secret = invite(store, project_id=found.id, role=role, by=who.rater, now=now)
    return _lead_page(request, store, who, found, now, link=str(request.url_for("invitation_page", secret=secret)))


@router.post("/lead/{project_id}/invitations/{invitation_id}/taken-back")
def invitation_taken_back(store: InStore, who: Known, now: Now, found: Led, invitation_id: str) -> Response:
    take_back(store, found.id, invitation_id, by=who.rater, now=now)
    return RedirectResponse(f"{_place(found.id)}#people", 303)


@router.post("/lead/{project_id}/members/{rater_id}/removed")
def member_removed(store: InStore, who: Known, now: Now, found: Led, rater_id: str) -> Response:
    remove_member(store, found.id, rater_id, by=who.rater, now=now)
    return RedirectResponse(f"{_place(found.id)}#people", 303)


@router.get("/lead/{project_id}/jobs.json")
def progress_of_jobs(store: InStore, found: Led) -> dict[str, Any]:
    """How far each job is, for the page to show without being loaded again."""
    told = ("id", "state", "done", "total", "message")
    # By kind, as pages show them, so that many of one kind hide none of another.
    shown = [one for kind in PLACES for one in jobs(store, found.id, kind)]
    return {"jobs": [{name: getattr(one, name) for name in told} for one in shown]}


@router.post("/lead/{project_id}/jobs/{job_id}/stop")
def stop(store: InStore, who: Known, now: Now, found: Led, job_id: str) -> Response:
    stop_job(store, found.id, job_id, by=who.rater, now=now)
    return RedirectResponse(place_of(found.id, job_of(store, job_id).kind), 303)


def _preferences(store: Store, project_id: str) -> Iterable[Mapping[str, Any]]:
    return map(comparison_row, comparisons_in(collected(store, project_id)))


def _judgments(store: Store, project_id: str) -> Iterable[Mapping[str, Any]]:
    return map(judgment_row, judgments(store, project_id))


def _completions(store: Store, project_id: str) -> Iterable[Mapping[str, Any]]:
    return map(candidates_row, candidates(store, project_id))


def _decisions(store: Store, project_id: str) -> Iterable[Mapping[str, Any]]:
    return map(decision_row, decisions(store, project_id))


def _unpaired(store: Store, project_id: str) -> Iterable[Mapping[str, Any]]:
    answers, _ = answers_in(collected(store, project_id))
    return map(unpaired_row, answers)


Export = Literal["preferences", "unpaired", "judgments", "completions", "decisions"]

EXPORTS: Final[Mapping[Export, Rows]] = {
    "preferences": _preferences,
    "unpaired": _unpaired,
    "judgments": _judgments,
    "completions": _completions,
    "decisions": _decisions,
}


@exports.get(
    "/lead/{project_id}/export/{what}.jsonl",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/x-ndjson": {}}}},
    openapi_extra={"x-scope": "lead"},
)
def export(store: InStore, found: Led, what: Export) -> Response:
    """Rows for any trainer: pairs with p and weight, of 0/1 judgments good and bad answers with p, what each rater
    said, the items, or what the lead settled; JSON lines."""
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in EXPORTS[what](store, found.id))
    named = {"content-disposition": f'attachment; filename="{what}.jsonl"'}
    return StreamingResponse(lines, media_type="application/x-ndjson", headers=named)


def _lead_page(
    request: Request,
    store: Store,
    who: Who,
    found: Project,
    now: float,
    *,
    link: str = "",
    added: tuple[int, int] | None = None,
    broken: Sequence[str] = (),
    error: str = "",
    overlap: int = 3,
) -> Response:
    fits: Fits = request.app.state.fits
    agreed, is_stale = fits.newest(found.id)
    seen = overview(store, found.id, agreed)
    newest, told = guide(store, found.id), remarks(store, found.id)
    return page(
        request,
        "lead.html",
        who,
        status=400 if error else 200,
        project=found,
        seen=seen,
        is_stale=is_stale,
        chart=cumulative(seen.times, seen.versions),
        guide=newest,
        guide_html="" if newest is None else instructions_html(newest.text),
        per_day=_per_day(seen.times),
        trying=trying(store, found.id),
        invitations=open_invitations(store, found.id, now=now),
        day=_day,
        span=_span,
        remarks=told,
        people=names_of(store, found.id, {one.rater for one in told}),
        amounts=amounts(store, found.id),
        datasets=versions(store, found.id),
        work=work_of(store, found.id, DATASET, now=now),
        link=link,
        added=added,
        broken=broken,
        error=error,
        overlap=overlap,
    )


def _new_project_page(request: Request, who: Who, filled: Mapping[str, str], *, error: str = "") -> Response:
    status, kinds = 400 if error else 200, get_args(JudgmentKind)
    return page(request, "new_project.html", who, status=status, kinds=kinds, filled=filled, error=error)


def _span(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{max(1, round(seconds / 60))} min"


def _day(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).date().isoformat()


def _per_day(times: tuple[float, ...]) -> list[tuple[str, int]]:
    counts: dict[str, int] = {}
    for time in times:
        counts[_day(time)] = counts.get(_day(time), 0) + 1
    return list(counts.items())


def uploaded(file: UploadFile, read: Callable[[Path], T], ends: Sequence[str]) -> T:
    """What `read` finds in a file; its errors name the file as the lead does. ends: of names that say what it holds."""
    name = file.filename or f"upload{ends[0]}"
    kind = next((end for end in ends if name.lower().endswith(end)), ".jsonl")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / f"items{kind}"
        place.write_bytes(file.file.read())
        try:
            return read(place)
        except DataError as error:
            raise DataError(str(error).replace(str(place), name)) from None


def _items_of(path: Path, kind: JudgmentKind, faults: Faults, *, skip_broken: bool) -> list[Candidates]:
    """The items of a file. Raises DataError where one is at fault and none is to be left out."""
    items = read_items(path, kind, faults)
    if not skip_broken:
        faults.refuse(path, mend='mend them, or tick "Take the rest of a file with errors"')
    return items


def _by_line(faults: Faults) -> list[str]:
    """The faults of a file that is named beside them."""
    return [re.sub(r"^.*?:(?=\d+: )", "line ", line, count=1) for line in faults.lines]


def _place(project_id: str) -> str:
    return f"/lead/{quote(project_id)}"


def _require_admin(who: Who) -> None:
    if not who.admin:
        raise AccessError("projects are made by an admin; ask for an invitation to lead one")
