"""Coming in: log in, log out, accept an invitation."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from tuneful.errors import AccessError
from tuneful.feedback.access import (
    SESSION_LIFE,
    Invited,
    accept,
    change_password,
    invited,
    join,
    log_in,
    sign_in,
    sign_out,
    sign_out_everywhere,
)
from tuneful.web.security import SESSION_COOKIE, InStore, Known, Now, Visitor
from tuneful.web.templating import page, set_cookie

router = APIRouter(include_in_schema=False)

Field = Annotated[str, Form()]


@router.get("/login")
def login_page(request: Request, who: Visitor, next: str = "/") -> Response:  # noqa: A002
    return page(request, "login.html", who, next=_inside(next))


@router.post("/login")
def login(request: Request, store: InStore, now: Now, login: Field, password: Field, next: Field = "/") -> Response:  # noqa: A002
    try:
        secret = log_in(store, login, password, now=now)
    except AccessError as error:
        return page(request, "login.html", None, status=403, next=_inside(next), login=login, error=str(error))
    return _come_in(request, secret, _inside(next))


@router.post("/logout")
def logout(request: Request, store: InStore) -> Response:
    sign_out(store, request.cookies.get(SESSION_COOKIE, ""))
    return _go_out()


@router.get("/account")
def account_page(request: Request, who: Known) -> Response:
    return page(request, "account.html", who)


@router.post("/account")
def new_password(request: Request, store: InStore, now: Now, who: Known, old: Field, new: Field) -> Response:
    """A new password, which ends all sessions but this one."""
    try:
        change_password(store, who.rater, old, new, now=now)
    except AccessError as error:
        return page(request, "account.html", who, status=403, error=str(error))
    return _come_in(request, sign_in(store, who.rater, now=now), "/account")


@router.post("/account/sessions")
def end_sessions(store: InStore, who: Known) -> Response:
    sign_out_everywhere(store, who.rater)
    return _go_out()


@router.get("/invitation/{secret}")
def invitation_page(request: Request, store: InStore, now: Now, who: Visitor, secret: str) -> Response:
    return page(request, "invitation.html", who, invited=invited(store, secret, now=now))


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
        return RedirectResponse(_inside_of(opened), 303)
    said = [group.strip() for group in groups.split(",") if group.strip()]
    try:
        rater = accept(store, secret, login=login, password=password, name=name, groups=said, now=now)
    except AccessError as error:
        return page(request, "invitation.html", None, status=403, invited=opened, login=login, error=str(error))
    return _come_in(request, sign_in(store, rater, now=now), _inside_of(opened))


def _come_in(request: Request, secret: str, place: str) -> Response:
    answer = RedirectResponse(place, 303)
    set_cookie(request, answer, SESSION_COOKIE, secret, seconds=int(SESSION_LIFE))
    return answer


def _go_out() -> Response:
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(SESSION_COOKIE, path="/")
    return answer


def _inside(place: str) -> str:
    """A path of this server; anything else would lead people who log in to somebody else's page."""
    return place if place.startswith("/") and not place.startswith(("//", "/\\")) else "/"


def _inside_of(opened: Invited) -> str:
    return "/" if opened.project is None or opened.role != "labeler" else f"/p/{quote(opened.project)}"
