"""The lead's page of answers that models give: ask for them, see how far they are, and which model people prefer.

The pages only write down what is wanted; `tuneful worker` does it.
"""

from __future__ import annotations

import secrets
from collections.abc import Hashable
from typing import Annotated, Final

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import RedirectResponse, Response

from tuneful.data.formats import read_prompts
from tuneful.errors import AccessError, DataError, StoreError
from tuneful.feedback.access import Who
from tuneful.feedback.completions_wanted import KIND, CompletionsWanted, ask_for
from tuneful.feedback.jobs import WIN_RATES, enqueue, jobs
from tuneful.feedback.matchups import num_matchups
from tuneful.feedback.overview import overview_state
from tuneful.feedback.projects import Project
from tuneful.feedback.quality import FEW, num_rows
from tuneful.feedback.store import Store
from tuneful.feedback.win_rates_kept import Counted, count, count_and_keep, latest
from tuneful.web.leading import Led, uploaded
from tuneful.web.security import InStore, Known, Now
from tuneful.web.templating import age, page
from tuneful.web.working import forgotten, place_of, work_of

router = APIRouter(include_in_schema=False)

PROMPT_FILES: Final = (".txt", ".jsonl", ".jsonl.gz", ".parquet")


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
    return RedirectResponse(place_of(found.id, KIND), 303)


@router.post("/lead/{project_id}/answers/rates")
def count_again(store: InStore, who: Known, now: Now, found: Led) -> Response:
    if num_rows(store, found.id) > FEW:
        enqueue(store, found.id, WIN_RATES, {}, by=who.rater, now=now)
    else:
        count_and_keep(store, found.id, now=now)
    return RedirectResponse(place_of(found.id, WIN_RATES), 303)


def _page(
    request: Request, store: Store, who: Who, found: Project, now: float, *, status: int = 200, error: str = ""
) -> Response:
    made = jobs(store, found.id, KIND, shown=("models", "samples", "temperature", "max_new_tokens", "overlap"))
    counted, since, moved = _win_rates(request, store, found, now)
    return page(
        request,
        "answers.html",
        who,
        status=status,
        project=found,
        jobs=made,
        error=error,
        counted=counted,
        since=since,
        moved=moved,
        age="" if counted is None else age(now - counted.counted_at),
        work=work_of(store, found.id, WIN_RATES, now=now),
        forgotten=forgotten(made, now),
    )


def _win_rates(request: Request, store: Store, found: Project, now: float) -> tuple[Counted | None, int, bool]:
    """The win rates, how many judgments have come since, and whether models have met again: nothing is new where
    judgments are few, which are counted for the page when anything has come since the last look."""
    if found.kind not in ("ranking", "comparison"):
        return None, 0, False
    rows = num_rows(store, found.id)
    if rows > FEW:
        counted = latest(store, found.id)
        moved = counted is not None and counted.matchups != num_matchups(store, found.id)
        return counted, rows - (0 if counted is None else counted.rows), moved
    kept: dict[str, tuple[Hashable, Counted]] = request.app.state.win_rates
    state = (*overview_state(store, found.id), num_matchups(store, found.id))
    if found.id not in kept or kept[found.id][0] != state:
        kept[found.id] = (state, count(store, found.id, now=now))
    return kept[found.id][1], 0, False
