"""What every request passes: who asks, whether the page that asks is ours, and how much it may send.

A change needs three things: a session, an Origin that is this server, and the token that only pages of this session
have. Programs come below /api/v1 with a token of their own and no cookie, so that no page can borrow it.
"""

from __future__ import annotations

import secrets
from hmac import compare_digest
from typing import Annotated, Final

from fastapi import Depends, HTTPException, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tuneful.feedback.access import Who, csrf_of, holder_of, session_of
from tuneful.feedback.store import Store

SESSION_COOKIE: Final = "tuneful_session"

VISIT_COOKIE: Final = "tuneful_visit"
"""For somebody who has no session yet, so that the form that logs in has a token too."""

API: Final = "/api/v1"

LARGEST_UPLOAD: Final = 64 * 2**20

LARGEST_BODY: Final = 2 * 2**20
"""Bytes, of anything that is not sent to a lead's page."""

SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")

HEADERS: Final = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class Wall:
    """Around the routes: headers on every answer, and no body that is too large."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        largest = LARGEST_UPLOAD if scope["path"].startswith("/lead/") else LARGEST_BODY
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > largest:
                raise HTTPException(413, f"more than {largest >> 20} MiB; send it in parts")
            return message

        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                # Modules name each other without a version: asked for anew each time, and answered 304.
                kept = b"no-cache" if scope["path"].startswith("/static/") else b"no-store"
                added.append((b"cache-control", kept))
                message["headers"] = [*message["headers"], *added]
            await send(message)

        return await self.app(scope, counted, headed)


# Those that wait for nothing are coroutines: FastAPI gives every other one a thread of its own.
async def store_of(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


async def now_of(request: Request) -> float:
    now: float = request.app.state.clock()
    return now


def visitor(request: Request) -> Who | None:
    """Who asks: the holder of the session's cookie, or, below /api/v1, of the token."""
    if request.url.path.startswith(API):
        kind, _, secret = request.headers.get("authorization", "").partition(" ")
        return (
            holder_of(request.app.state.store, secret, now=request.app.state.clock())
            if kind.lower() == "bearer"
            else None
        )
    secret = request.cookies.get(SESSION_COOKIE, "")
    return session_of(request.app.state.store, secret, now=request.app.state.clock()) if secret else None


async def known(request: Request, who: Annotated[Who | None, Depends(visitor)]) -> Who:
    """Somebody who is logged in, or a token's holder; 401 else."""
    if who is None and request.url.path.startswith(API):
        given = request.headers.get("authorization")
        problem = "no token came in the header Authorization" if given is None else "this token is unknown or over"
        raise HTTPException(401, f'{problem}; make one with `tuneful label token`, and send "Bearer TOKEN"')
    if who is None:
        raise HTTPException(401, "log in first")
    return who


def csrf(request: Request) -> str:
    """The token for forms of this request's page."""
    return csrf_of(_secret(request))


async def refuse_strangers(request: Request) -> None:
    """403 for a change that a page of another origin asks for, or one without the token. On every route of the app."""
    if request.method in SAFE_METHODS:
        return
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise HTTPException(403, "this request came from another site")
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise HTTPException(403, "this request came from another site")
    if request.url.path.startswith(API):
        return  # a token in a header that no page of another site can set
    given = request.headers.get("x-csrf-token")
    if given is None and not request.headers.get("content-type", "").startswith("application/json"):
        given = str((await request.form()).get("csrf", ""))
    secret = _secret(request)
    if not secret or not compare_digest((given or "").encode(), csrf_of(secret).encode()):
        raise HTTPException(403, "the page is too old; load it again")


def new_visit() -> str:
    return secrets.token_urlsafe(32)


def _secret(request: Request) -> str:
    """What the page's token is made of: the session, or the visit of somebody without one."""
    visit: str = getattr(request.state, "visit", "") or request.cookies.get(VISIT_COOKIE, "")
    return request.cookies.get(SESSION_COOKIE, "") or visit


Known = Annotated[Who, Depends(known)]
Visitor = Annotated[Who | None, Depends(visitor)]
InStore = Annotated[Store, Depends(store_of)]
Now = Annotated[float, Depends(now_of)]
