"""The lead's page of answers that models give: ask for them, see how far they are, and which model people prefer.

The pages only write down what is wanted; `tuneful worker` does it.
"""

from __future__ import annotations

import secrets
from collections.abc import Hashable
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import RedirectResponse, Response

from tuneful.data.formats import read_prompts
from tuneful.errors import AccessError, DataError, StoreError
from tuneful.feedback.access import Who
from tuneful.feedback.completions_wanted import KIND, CompletionsWanted, ask_for
from tuneful.feedback.jobs import jobs
from tuneful.feedback.jobs import stop as stop_job
from tuneful.feedback.overview import overview_state
from tuneful.feedback.projects import Project
from tuneful.feedback.store import Store
from tuneful.feedback.win_rates import WinRate, win_rates_of
from tuneful.web.leading import Led, uploaded
from tuneful.web.security import InStore, Known, Now
from tuneful.web.templating import page

router = APIRouter(include_in_schema=False)

PROMPT_FILES: Final = (".txt", ".jsonl", ".jsonl.gz", ".parquet")

PATIENCE: Final = 30.0
"""Seconds after which a job that still waits makes one ask whether there is a worker."""


@router.get("/lead/{project_id}/answers")
def answers_page(request: Request, store: InStore, who: Known, now: Now, found: Led) -> Response:
    return _page(request, store, who, found, now)


@router.post("/lead/{project_id}/answers")
def ask(
    request: Request,
    store: InStore,
    who: Known,
    now: Now,
    found: Led,
    file: Annotated[UploadFile, File()],
    models: Annotated[str, Form()],
    samples: Annotated[int, Form()] = 1,
    temperature: Annotated[float, Form()] = 1.0,
    max_new_tokens: Annotated[int, Form()] = 256,
    max_prompt_tokens: Annotated[int | None, Form()] = None,
    overlap: Annotated[int, Form(ge=1, le=100)] = 3,
) -> Response:
    """Write down a job. models: one to a line; only an admin may say what is loaded on this server."""
    if not who.admin:
        raise AccessError("models are loaded on this server, so only an admin names them")
    named = tuple(line.strip() for line in models.splitlines() if line.strip())
    try:
        wanted = CompletionsWanted(
            prompts=tuple(uploaded(file, read_prompts, PROMPT_FILES)),
            models=named,
            samples=samples,
            max_new_tokens=max_new_tokens,
            max_prompt_tokens=max_prompt_tokens,
            temperature=temperature,
            overlap=overlap,
            seed=secrets.randbits(31),
        )
        wanted.require_fits(found.kind)
    except (DataError, StoreError) as error:
        return _page(request, store, who, found, now, status=400, error=str(error))
    ask_for(store, found.id, wanted, by=who.rater, now=now)
    return RedirectResponse(_place(found.id), 303)


@router.get("/lead/{project_id}/answers/jobs.json")
def progress_of_jobs(store: InStore, found: Led) -> dict[str, Any]:
    """How far each job is, for the page to show without being loaded again."""
    told = ("id", "state", "done", "total", "message")
    return {"jobs": [{name: getattr(one, name) for name in told} for one in jobs(store, found.id, KIND)]}


@router.post("/lead/{project_id}/answers/{job_id}/stop")
def stop(store: InStore, now: Now, found: Led, job_id: str) -> Response:
    stop_job(store, found.id, job_id, now=now)
    return RedirectResponse(_place(found.id), 303)


def _page(
    request: Request, store: Store, who: Who, found: Project, now: float, *, status: int = 200, error: str = ""
) -> Response:
    made = jobs(store, found.id, KIND, shown=("models", "samples", "temperature", "max_new_tokens", "overlap"))
    rates, problem = _win_rates(request, store, found)
    return page(
        request,
        "answers.html",
        who,
        status=status,
        project=found,
        jobs=made,
        error=error,
        rates=rates,
        problem=problem,
        forgotten=any(one.state == "waiting" and now - one.created_at > PATIENCE for one in made),
    )


def _win_rates(request: Request, store: Store, found: Project) -> tuple[list[WinRate], str]:
    """Counted anew when there is something new since the last look; and why there are none, where there should be."""
    kept: dict[str, tuple[Hashable, tuple[list[WinRate], str]]] = request.app.state.win_rates
    state = overview_state(store, found.id)
    if found.id not in kept or kept[found.id][0] != state:
        try:
            told = win_rates_of(store, found.id), ""
        except DataError as error:
            told = [], str(error)
        kept[found.id] = (state, told)
    return kept[found.id][1]


def _place(project_id: str) -> str:
    return f"/lead/{quote(project_id)}/answers"
