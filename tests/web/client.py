"""A browser without a window: cookies, and the token that its pages would send."""

from __future__ import annotations

import re
from typing import Any

from fastapi.testclient import TestClient

from tuneful.feedback.access import csrf_of, sign_in
from tuneful.web.security import SESSION_COOKIE


def visitor(site: Any) -> TestClient:
    """Somebody who has no session."""
    return TestClient(site.app, base_url="http://site", follow_redirects=False)


def signed_in(site: Any, rater: str) -> TestClient:
    """A client in a session of the rater, which sends the session's token with every request."""
    secret = sign_in(site.store, rater, now=site.now())
    client = visitor(site)
    client.cookies.set(SESSION_COOKIE, secret)
    client.headers["x-csrf-token"] = csrf_of(secret)
    return client


def form_token(html: str) -> str:
    """The token in the forms of a page."""
    found = re.search(r'name="csrf" value="([0-9a-f]{64})"', html)
    assert found is not None, html
    return found[1]
