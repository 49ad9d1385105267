"""Coming in: the first admin, invitations that work once, passwords, sessions."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from tests.web.client import form_token, signed_in, visitor
from tuneful.errors import AccessError
from tuneful.feedback.access import (
    DAY,
    SESSION_IDLE,
    SESSION_LIFE,
    accept,
    erase,
    holder_of,
    invite,
    invite_first_admin,
    invited,
    log_in,
    make_token,
    session_of,
    sign_in,
    sign_out_everywhere,
)
from tuneful.feedback.tables import account, invitation, session, token
from tuneful.web.security import SESSION_COOKIE

PASSWORD = "correct horse battery"


def admin(site: Any) -> str:
    secret = invite_first_admin(site.store, now=site.now())
    assert secret is not None
    return accept(site.store, secret, login="Ada", password=PASSWORD, name="Ada L.", now=site.now())


def test_the_first_admin_comes_by_a_link_that_works_once(site: Any) -> None:
    secret = invite_first_admin(site.store, now=site.now())
    assert secret is not None
    client = visitor(site)
    page = client.get(f"/invitation/{secret}")
    filled = {"csrf": form_token(page.text), "login": "ada", "password": PASSWORD}
    joined = client.post(f"/invitation/{secret}", data=filled)
    assert (joined.status_code, joined.headers["location"]) == (303, "/")
    assert client.get("/lead/new").status_code == 200
    assert visitor(site).get(f"/invitation/{secret}").status_code == 403
    assert invite_first_admin(site.store, now=site.now()) is None


def test_a_new_start_takes_back_the_link_of_the_last_one(site: Any) -> None:
    first = invite_first_admin(site.store, now=site.now())
    second = invite_first_admin(site.store, now=site.now())
    assert first is not None
    assert second is not None
    with pytest.raises(AccessError, match="unknown"):
        invited(site.store, first, now=site.now())
    assert invited(site.store, second, now=site.now()).role == "admin"


def test_an_invitation_ends(site: Any) -> None:
    secret = invite(site.store, project_id=site.project(), now=site.now())
    with pytest.raises(AccessError, match="over"):
        accept(site.store, secret, login="bo", password=PASSWORD, now=site.now() + 15 * DAY)


def test_somebody_with_an_account_joins_under_it(site: Any) -> None:
    project = site.project()
    ada = admin(site)
    client = signed_in(site, ada)
    secret = invite(site.store, project_id=project, now=site.now())
    assert client.post(f"/invitation/{secret}").headers["location"] == f"/p/{project}"
    assert client.post(f"/p/{project}/claim", json={}).status_code == 200


def test_secrets_and_passwords_are_not_in_the_database(site: Any) -> None:
    project = site.project()
    ada = admin(site)
    secrets = [
        invite(site.store, project_id=project, now=site.now()),
        sign_in(site.store, ada, now=site.now()),
        make_token(site.store, ada, "script", ["read"], days=1, now=site.now()),
        PASSWORD,
    ]
    with site.store.read() as connection:
        rows = [str(connection.execute(select(table)).all()) for table in (account, invitation, session, token)]
    assert not [secret for secret in secrets if secret in "".join(rows)]
    assert "$argon2id$" in rows[0]


def test_logging_in(site: Any) -> None:
    admin(site)
    client = visitor(site)
    page = client.get("/login")
    filled = {"csrf": form_token(page.text), "login": " ADA ", "password": PASSWORD, "next": "/lead/new"}
    answer = client.post("/login", data=filled)
    assert (answer.status_code, answer.headers["location"]) == (303, "/lead/new")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert client.get("/").status_code == 200
    secret = client.cookies[SESSION_COOKIE]
    client.post("/logout", data={"csrf": form_token(client.get("/").text)})
    assert session_of(site.store, secret, now=site.now()) is None
    assert client.get("/").status_code == 401


def test_a_new_password_ends_the_other_sessions(site: Any) -> None:
    ada = admin(site)
    other = sign_in(site.store, ada, now=site.now())
    client = signed_in(site, ada)
    assert client.post("/account", data={"old": "wrong password", "new": "another horse"}).status_code == 403
    assert client.post("/account", data={"old": PASSWORD, "new": "short"}).status_code == 403
    assert client.post("/account", data={"old": PASSWORD, "new": "another horse"}).status_code == 303
    assert session_of(site.store, other, now=site.now()) is None
    with pytest.raises(AccessError):
        log_in(site.store, "ada", PASSWORD, now=site.now())
    fresh = log_in(site.store, "ada", "another horse", now=site.now())
    assert session_of(site.store, fresh, now=site.now()) is not None


def test_logging_out_everywhere(site: Any) -> None:
    ada = admin(site)
    other = sign_in(site.store, ada, now=site.now())
    assert signed_in(site, ada).post("/account/sessions").status_code == 303
    assert session_of(site.store, other, now=site.now()) is None


@pytest.mark.parametrize("place", ["https://evil.example/", "//evil.example/", "/\\evil.example"])
def test_nobody_is_led_away_after_logging_in(site: Any, place: str) -> None:
    admin(site)
    client = visitor(site)
    filled = {"csrf": form_token(client.get("/login").text), "login": "ada", "password": PASSWORD, "next": place}
    assert client.post("/login", data=filled).headers["location"] == "/"


@pytest.mark.parametrize(("login", "password"), [("ada", "wrong horse battery"), ("nobody", PASSWORD)])
def test_a_wrong_login_does_not_tell_which_half_was_wrong(site: Any, login: str, password: str) -> None:
    admin(site)
    with pytest.raises(AccessError, match="do not go together"):
        log_in(site.store, login, password, now=site.now())


def test_guessing_gets_slow_and_waiting_opens_again(site: Any) -> None:
    admin(site)
    for _ in range(6):
        with pytest.raises(AccessError, match="do not go"):
            log_in(site.store, "ada", "guess", now=100.0)
    with pytest.raises(AccessError, match="too often"):
        log_in(site.store, "ada", PASSWORD, now=100.0)
    assert session_of(site.store, log_in(site.store, "ada", PASSWORD, now=103.0), now=103.0) is not None


@pytest.mark.parametrize(("login", "password", "named"), [("", PASSWORD, "login"), ("bo", "short", "password")])
def test_what_an_account_needs(site: Any, login: str, password: str, named: str) -> None:
    secret = invite(site.store, project_id=None, role="admin", now=site.now())
    with pytest.raises(AccessError, match=named):
        accept(site.store, secret, login=login, password=password, now=site.now())


def test_a_login_is_taken_once(site: Any) -> None:
    admin(site)
    secret = invite(site.store, project_id=None, role="admin", now=site.now())
    with pytest.raises(AccessError, match="taken"):
        accept(site.store, secret, login="ada ", password=PASSWORD, now=site.now())
    assert invited(site.store, secret, now=site.now()).role == "admin"  # it was not used up


def test_without_a_provider_there_is_no_way_to_one(site: Any) -> None:
    client = signed_in(site, admin(site))
    secret = invite(site.store, project_id=site.project(), now=site.now())
    for place in ("/login", f"/invitation/{secret}", "/account"):
        assert "oidc" not in client.get(place).text
    for place in ("/login/oidc", f"/invitation/{secret}/oidc", "/account/oidc/unlink"):
        assert client.post(place).status_code == 404
    assert client.post("/account/oidc", data={"password": PASSWORD}).status_code == 404
    assert client.get("/login/oidc/callback?code=1&state=2").status_code == 404


def test_sessions_end(site: Any) -> None:
    ada = admin(site)
    secret = sign_in(site.store, ada, now=0.0)
    assert session_of(site.store, secret, now=SESSION_IDLE) is not None
    assert session_of(site.store, secret, now=2 * SESSION_IDLE) is not None  # it was used in between
    assert session_of(site.store, secret, now=3 * SESSION_IDLE + 1) is None
    for day in range(0, 30, 5):
        session_of(site.store, secret, now=day * DAY)
    assert session_of(site.store, secret, now=SESSION_LIFE + 1) is None
    other = sign_in(site.store, ada, now=0.0)
    sign_out_everywhere(site.store, ada)
    assert session_of(site.store, other, now=1.0) is None


def test_a_token_does_what_its_scopes_say_and_ends(site: Any) -> None:
    project = site.project()
    ann = site.rater(project)
    reads = make_token(site.store, ann, "script", ["read"], days=1, now=site.now())
    labels = make_token(site.store, ann, "script", ["label"], days=1, now=site.now())
    client = visitor(site)

    def claim(secret: str) -> int:
        return client.post(
            f"/api/v1/p/{project}/claim", json={}, headers={"authorization": f"Bearer {secret}"}
        ).status_code

    assert (claim(reads), claim(labels), claim("tuneful_wrong")) == (403, 200, 401)
    assert holder_of(site.store, labels, now=site.now() + 2 * DAY) is None


def test_who_somebody_was_is_forgotten_and_what_they_said_stays(site: Any) -> None:
    project = site.project(items=1)
    secret = invite(site.store, project_id=project, now=site.now())
    bo = accept(site.store, secret, login="bo", password=PASSWORD, name="Bo", groups=["nurse"], now=site.now())
    client = signed_in(site, bo)
    given = client.post(f"/p/{project}/claim", json={}).json()["assignment"]
    ranks = {answer["id"]: n + 1 for n, answer in enumerate(given["answers"])}
    word = {"id": "0" * 32, "ranks": ranks}
    assert client.post(f"/a/{given['id']}/submit", json=word).status_code == 200
    erase(site.store, bo, now=site.now())
    assert client.post(f"/p/{project}/claim", json={}).status_code == 401
    assert [one.rater for one in site.judgments(project)] == [bo]
    with pytest.raises(AccessError):
        log_in(site.store, "bo", PASSWORD, now=site.now())
