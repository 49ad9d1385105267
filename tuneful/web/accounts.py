"""Coming in: log in, log out, accept an invitation."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from tuneful.errors import AccessError
from tuneful.feedback import identities
from tuneful.feedback.access import (
    SESSION_LIFE,
    Invited,
    Who,
    accept,
    change_password,
    invited,
    join,
    log_in,
    sign_in,
    sign_out,
    sign_out_everywhere,
)
from tuneful.feedback.store import Store
from tuneful.web.security import SESSION_COOKIE, InStore, Known, Now, Visitor
from tuneful.web.templating import page, set_cookie

router = APIRouter(include_in_schema=False)

Field = Annotated[str, Form()]


@router.get("/login")
def login_page(request: Request, who: Visitor, next: str = "/") -> Response:  # noqa: A002
    return page(request, "login.html", who, next=inside(next))


@router.post("/login")
def login(request: Request, store: InStore, now: Now, login: Field, password: Field, next: Field = "/") -> Response:  # noqa: A002
    try:
        secret = log_in(store, login, password, now=now)
    except AccessError as error:
        return page(request, "login.html", None, status=403, next=inside(next), login=login, error=str(error))
    return come_in(request, secret, inside(next))


@router.post("/logout")
def logout(request: Request, store: InStore) -> Response:
    sign_out(store, request.cookies.get(SESSION_COOKIE, ""))
    return _go_out()


@router.get("/account")
def account_page(request: Request, store: InStore, who: Known) -> Response:
    return show_account(request, store, who)


@router.post("/account")
def new_password(request: Request, store: InStore, now: Now, who: Known, old: Field, new: Field) -> Response:
    """A new password, which ends all sessions but this one."""
    try:
        change_password(store, who.rater, old, new, now=now)
    except AccessError as error:
        return show_account(request, store, who, status=403, error=str(error))
    return come_in(request, sign_in(store, who.rater, now=now), "/account")


@router.post("/account/sessions")
def end_sessions(store: InStore, who: Known) -> Response:
    sign_out_everywhere(store, who.rater)
    return _go_out()


@router.get("/invitation/{secret}")
def invitation_page(request: Request, store: InStore, now: Now, who: Visitor, secret: str) -> Response:
    return page(request, "invitation.html", who, secret=secret, invited=invited(store, secret, now=now))


@router.post("/invitation/{secret}")
def accept_invitation(
    request: Request,
    store: InStore,
    now: Now,
    who: Visitor,
    secret: str,
    login: Field = "",
    password: Field = "",
    name: Field = "",
    groups: Field = "",
) -> Response:
    opened = invited(store, secret, now=now)
    if who is not None:
        join(store, secret, who.rater, now=now)
        return RedirectResponse(inside_of(opened), 303)
    try:
        said = groups_in(groups)
        rater = accept(store, secret, login=login, password=password, name=name, groups=said, now=now)
    except AccessError as error:
        told = {"secret": secret, "invited": opened, "login": login, "error": str(error)}
        return page(request, "invitation.html", None, status=403, **told)
    return come_in(request, sign_in(store, rater, now=now), inside_of(opened))


def show_account(request: Request, store: Store, who: Who, *, status: int = 200, error: str = "") -> Response:
    provider = request.app.state.provider
    ways = identities.ways_in(store, who.rater, None if provider is None else provider.issuer)
    return page(request, "account.html", who, status=status, ways=ways, error=error)


def groups_in(said: str) -> tuple[str, ...]:
    """What somebody says of themselves, with commas between."""
    return tuple(group.strip() for group in said.split(",") if group.strip())


def come_in(request: Request, secret: str, place: str) -> Response:
    """To a page, in a new session."""
    answer = RedirectResponse(place, 303)
    set_cookie(request, answer, SESSION_COOKIE, secret, seconds=int(SESSION_LIFE))
    return answer


def _go_out() -> Response:
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(SESSION_COOKIE, path="/")
    return answer


def inside(place: str) -> str:
    """A path of this server; anything else would lead people who log in to somebody else's page."""
    return place if place.startswith("/") and not place.startswith(("//", "/\\")) else "/"


def inside_of(opened: Invited) -> str:
    """Where somebody begins who has accepted an invitation."""
    return "/" if opened.project is None or opened.role != "labeler" else f"/p/{quote(opened.project)}"
