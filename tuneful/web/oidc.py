"""Coming in by the organisation's provider: to its page, and back with an answer.

Each way begins with a form, so with the token that pages of this session have. The answer comes from another site, and
is good where the browser has the attempt that it fits (web.attempts). The page between leads on by itself: a form that
is answered with a redirect to another site goes nowhere under our content security policy, whose exceptions would have
to name every site on a provider's way.
"""

from __future__ import annotations

from hmac import compare_digest
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from tuneful.errors import AccessError, MissingError, UnavailableError
from tuneful.feedback import identities
from tuneful.feedback.access import Who, invited, require_password
from tuneful.feedback.store import Store
from tuneful.servers import short
from tuneful.web.accounts import come_in, groups_in, inside, inside_of, show_account
from tuneful.web.attempts import ATTEMPT_COOKIE, ATTEMPT_LIFE, Attempt
from tuneful.web.provider import Provider
from tuneful.web.security import SESSION_COOKIE, InStore, Known, Now, Visitor
from tuneful.web.templating import page, set_cookie

router = APIRouter(include_in_schema=False)

Field = Annotated[str, Form()]


@router.post("/login/oidc")
def log_in(request: Request, store: InStore, now: Now, who: Visitor, next: Field = "/") -> Response:  # noqa: A002
    return _leave(request, store, who, Attempt.begin("log in", place=inside(next), now=now))


@router.post("/invitation/{secret}/oidc")
def accept(request: Request, store: InStore, now: Now, who: Visitor, secret: str, groups: Field = "") -> Response:
    invited(store, secret, now=now)
    attempt = Attempt.begin("accept", invitation=secret, groups=groups_in(groups), now=now)
    return _leave(request, store, who, attempt)


@router.post("/account/oidc")
def link(request: Request, store: InStore, now: Now, who: Known, password: Field = "") -> Response:
    """Another way into an account is opened by whoever knows the first."""
    try:
        require_password(store, who.rater, password, now=now)
    except AccessError as error:
        return show_account(request, store, who, status=403, error=str(error))
    return _leave(request, store, who, Attempt.begin("link", key=request.cookies[SESSION_COOKIE], now=now))


@router.post("/account/oidc/unlink")
def unlink(request: Request, store: InStore, now: Now, who: Known) -> Response:
    try:
        identities.unlink(store, who.rater, _provider(request).issuer, now=now)
    except AccessError as error:
        return show_account(request, store, who, status=403, error=str(error))
    return RedirectResponse("/account", 303)


@router.get("/login/oidc/callback")
def come_back(
    request: Request, store: InStore, now: Now, who: Visitor, state: str = "", code: str = "", error: str = ""
) -> Response:
    provider = _provider(request)
    session = request.cookies.get(SESSION_COOKIE, "")
    attempt = Attempt.read(request.cookies.get(ATTEMPT_COOKIE, ""), session=session, now=now)
    if attempt is None or not compare_digest(attempt.state.encode(), state.encode()):
        told = "this sign-in was not begun in this browser, or is too old; begin again"
        return page(request, "login.html", who, status=403, error=told)
    try:
        if error or not code:
            raise AccessError(f"{provider.name} did not sign you in: {short(error) or 'it gave no code'}")
        proof = provider.prove(attempt, code, back=_back(request), now=now)
        answer = _end(request, store, who, attempt, proof, now)
    except (AccessError, UnavailableError) as refused:
        answer = _stay(request, store, who, attempt, refused, now)
    answer.delete_cookie(ATTEMPT_COOKIE, path="/")
    return answer


def _leave(request: Request, store: Store, who: Who | None, attempt: Attempt) -> Response:
    """The page between, which leads on to the provider."""
    try:
        place = _provider(request).way_there(attempt, back=_back(request))
    except (AccessError, UnavailableError) as refused:
        return _stay(request, store, who, attempt, refused, attempt.began)
    answer = page(request, "leaving.html", who, place=place)
    set_cookie(request, answer, ATTEMPT_COOKIE, attempt.cookie, seconds=int(ATTEMPT_LIFE))
    return answer


def _end(
    request: Request, store: Store, who: Who | None, attempt: Attempt, proof: identities.Proof, now: float
) -> Response:
    """What the attempt was for."""
    provider = _provider(request)
    if attempt.aim == "link":
        if who is None:
            raise AccessError("log in first")
        identities.link(store, who.rater, proof, now=now)
        return RedirectResponse("/account", 303)
    if attempt.aim == "accept":
        opened = invited(store, attempt.invitation, now=now)
        secret = identities.accept_as(store, attempt.invitation, proof, groups=attempt.groups, now=now)
        return come_in(request, secret, inside_of(opened))
    entered = identities.come_in(store, proof, strangers=provider.lets_in(proof), now=now)
    if entered is None:
        raise AccessError(
            f"nobody here comes in by this account of {provider.name}. Open an invitation link, or log in with your "
            "password and link the two on your account's page"
        )
    return come_in(request, entered, inside(attempt.place))


def _stay(
    request: Request, store: Store, who: Who | None, attempt: Attempt, refused: Exception, now: float
) -> Response:
    """The page from which the attempt was begun, with what went wrong, and other ways in where there are some."""
    status, error = 503 if isinstance(refused, UnavailableError) else 403, str(refused)
    if attempt.aim == "link" and who is not None:
        return show_account(request, store, who, status=status, error=error)
    if attempt.aim == "accept":
        shown = {"secret": attempt.invitation, "invited": invited(store, attempt.invitation, now=now)}
        return page(request, "invitation.html", who, status=status, error=error, **shown)
    return page(request, "login.html", who, status=status, error=error, next=inside(attempt.place))


def _provider(request: Request) -> Provider:
    found: Provider | None = request.app.state.provider
    if found is None:
        raise MissingError("this server knows no provider to sign in with; it is started with --oidc-issuer")
    return found


def _back(request: Request) -> str:
    """Where the provider sends people; it has to know this URL."""
    return str(request.url_for("come_back"))
