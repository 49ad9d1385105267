"""The web application over a store of judgments."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as AnyHTTPException

from tuneful import __version__
from tuneful.errors import (
    AccessError,
    ConflictError,
    DataError,
    GoneError,
    MissingError,
    StoreError,
    TunefulError,
    UnavailableError,
)
from tuneful.feedback.access import Who
from tuneful.feedback.store import Store
from tuneful.web import accounts, deciding, generating, labeling, leading, oidc, programs, quality
from tuneful.web.answers import REFUSALS
from tuneful.web.fitting import Fits
from tuneful.web.provider import Provider
from tuneful.web.security import API, HEADERS, SAFE_METHODS, Wall, refuse_strangers, visitor
from tuneful.web.templating import FOLDER, page, wants_page

STATUS: Final[dict[type[TunefulError], int]] = {
    AccessError: 403,
    ConflictError: 409,
    GoneError: 409,
    MissingError: 404,
    UnavailableError: 503,
    StoreError: 400,
    DataError: 400,
}


def create_app(store: Store, *, clock: Callable[[], float] = time.time, provider: Provider | None = None) -> FastAPI:
    """The pages and, below /api/v1, the routes for programs. clock: seconds since 1970. provider: by which people come
    in beside their passwords."""
    app = FastAPI(
        title="tuneful",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{API}/openapi.json",
        dependencies=[Depends(refuse_strangers)],
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.store, app.state.clock, app.state.progress, app.state.provider = store, clock, {}, provider
    app.state.fits, app.state.measured, app.state.win_rates = Fits(store), {}, {}
    app.add_middleware(Wall)
    app.mount("/static", StaticFiles(directory=FOLDER / "static"), name="static")
    pages = (accounts, oidc, leading, deciding, quality, generating)
    for router in (labeling.pages, *(module.router for module in pages)):
        app.include_router(router)
    for router in (labeling.router, leading.exports):
        app.include_router(router, include_in_schema=False)
        app.include_router(router, prefix=API, responses=REFUSALS)
    app.include_router(programs.router, prefix=API, responses=REFUSALS)
    app.add_exception_handler(TunefulError, _refused)
    app.add_exception_handler(AnyHTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _refused)
    app.add_exception_handler(Exception, _broken)
    return app


def _refused(request: Request, error: Exception) -> Response:
    """One line of JSON for scripts and programs, a page for people; who is not logged in is led there first."""
    status, message = _status(error), _message(error)
    headers = {"retry-after": "2"} if status == 503 else None
    if not wants_page(request):
        return JSONResponse({"error": message}, status, headers)
    if status == 401 and request.method in SAFE_METHODS:
        return RedirectResponse(f"/login?next={quote(request.url.path)}", 303)
    who = None if status >= 500 else visitor(request)  # who asks stands in the database, which may be away
    answer = page(request, "error.html", who, status=status, message=message, code=status, back=_back(request, who))
    answer.headers.update(headers or {})
    return answer


def _back(request: Request, who: Who | None) -> str:
    """The project of which a lead asked something; "" where there is none, or it is what was asked for."""
    project_id = request.path_params.get("project_id", "")
    place = f"/lead/{quote(project_id)}"
    return place if who is not None and who.leads(project_id) and request.url.path != place else ""


def _broken(_: Request, error: Exception) -> Response:
    """A mistake of ours; its traceback is in the server's log."""
    return JSONResponse({"error": f"a mistake of the server: {type(error).__name__}"}, 500, HEADERS)


def _status(error: Exception) -> int:
    if isinstance(error, AnyHTTPException):
        return error.status_code
    if isinstance(error, RequestValidationError):
        return 400
    return next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)


def _message(error: Exception) -> str:
    if isinstance(error, HTTPException | AnyHTTPException):
        return str(error.detail)
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'][1:])) or 'body'}: {first['msg']}"
    return str(error)
