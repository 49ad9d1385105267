"""What every route must refuse. The routes are read from the application, so that a new one cannot be forgotten."""

from __future__ import annotations

import re
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts

from tests.web.client import signed_in, visitor
from tuneful.feedback.access import make_token
from tuneful.web.app import create_app
from tuneful.web.security import API, SAFE_METHODS


def routes() -> list[tuple[str, str]]:
    """Method and path of every route; the store is not opened."""
    contexts = iter_route_contexts(create_app(None).routes)  # type: ignore[arg-type]
    return sorted((method, re.sub("[{}]", "", one.path)) for one in contexts for method in one.methods or ())


CHANGES = [route for route in routes() if route[0] not in SAFE_METHODS]


def test_the_routes_are_read() -> None:
    assert ("POST", "/login") in CHANGES
    assert {path for _, path in CHANGES if "oidc" in path} == {
        *("/login/oidc", "/invitation/secret/oidc", "/account/oidc", "/account/oidc/unlink"),
    }
    assert ("POST", f"{API}/a/assignment_id/submit") in CHANGES
    assert len(CHANGES) >= 16


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_a_change_needs_a_token(site: Any, method: str, path: str) -> None:
    client = signed_in(site, site.rater(site.project()))
    del client.headers["x-csrf-token"]
    expected = 401 if path.startswith(API) else 403
    assert client.request(method, path, json={}).status_code == expected
    assert client.request(method, path, data={"csrf": "0" * 64}).status_code == expected


@pytest.mark.parametrize(("method", "path"), CHANGES)
@pytest.mark.parametrize(
    "headers", [{"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}], ids=str
)
def test_a_change_is_not_taken_from_another_site(site: Any, method: str, path: str, headers: dict[str, str]) -> None:
    client = signed_in(site, site.rater(site.project()))
    assert client.request(method, path, json={}, headers=headers).status_code == 403


OPEN = ("/login", "/logout", "/invitation", f"{API}/openapi")
"""For everybody, or for whoever has the link."""


@pytest.mark.parametrize(("method", "path"), [route for route in routes() if not route[1].startswith(OPEN)])
def test_strangers_see_nothing(site: Any, method: str, path: str) -> None:
    assert visitor(site).request(method, path).status_code in (401, 403)


def test_a_session_is_no_key_to_the_api(site: Any) -> None:
    project = site.project()
    client = signed_in(site, site.rater(project))
    assert client.post(f"{API}/p/{project}/claim", json={}).status_code == 401


@pytest.mark.parametrize("path", ["/login", "/static/style.css", "/nowhere"])
def test_every_answer_says_what_a_page_may_do(site: Any, path: str) -> None:
    headers = visitor(site).get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"


def test_a_body_has_a_limit(site: Any) -> None:
    client = signed_in(site, site.rater(site.project()))
    answer = client.post("/a/x/draft", json={"content": {"text": "a" * 2**21}})
    assert answer.status_code == 413


def test_the_token_of_another_session_is_none_of_this_one(site: Any) -> None:
    project = site.project()
    one, other = (signed_in(site, site.rater(project)) for _ in range(2))
    one.headers["x-csrf-token"] = other.headers["x-csrf-token"]
    assert one.post(f"/p/{project}/claim", json={}).status_code == 403


def test_a_labeler_of_one_project_learns_nothing_of_others(site: Any) -> None:
    client = signed_in(site, site.rater(site.project()))
    hidden = site.project("rating")
    for place in (f"/p/{hidden}", "/p/nowhere", f"/p/{hidden}/instructions", f"/lead/{hidden}"):
        answer = client.get(place)
        assert answer.status_code == 403
        assert "rating" not in answer.text


def test_a_program_needs_the_scope(site: Any) -> None:
    project = site.project()
    lead = site.rater(project, role="lead")

    def status(scope: Any, place: str) -> int:
        token = make_token(site.store, lead, "script", [scope], days=1, now=site.now())
        return visitor(site).get(f"{API}{place}", headers={"authorization": f"Bearer {token}"}).status_code

    export, instructions = f"/lead/{project}/export/completions.jsonl", f"/p/{project}/instructions"
    assert [status(scope, export) for scope in ("read", "label", "lead")] == [403, 403, 200]
    assert [status(scope, instructions) for scope in ("read", "label", "lead")] == [200, 403, 403]


def test_labelers_cannot_open_the_lead_s_pages(site: Any) -> None:
    project = site.project()
    client = signed_in(site, site.rater(project))
    paths = [f"/lead/{project}", f"/lead/{project}/export/judgments.jsonl", "/lead/new"]
    assert [client.get(path).status_code for path in paths] == [403, 403, 403]


def test_a_lead_of_one_project_is_none_of_another(site: Any) -> None:
    lead = site.rater(site.project(), role="lead")
    assert signed_in(site, lead).get(f"/lead/{site.project()}").status_code == 403
