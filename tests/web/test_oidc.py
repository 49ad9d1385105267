"""Coming in by a provider: who is let in, and every answer that nobody is let in by."""

from __future__ import annotations

import base64
import html
import json
import re
import sys
import time
from collections.abc import Iterator
from threading import BoundedSemaphore
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi.testclient import TestClient
from sqlalchemy import func, select
from typer.testing import CliRunner

from tests.web.client import form_token, signed_in, visitor
from tests.web.fake_provider import BO, CLIENT_ID, CLIENT_SECRET, FakeProvider, key_of
from tuneful.cli.main import app
from tuneful.cli.web import provider_of
from tuneful.errors import AccessError, ConfigError
from tuneful.feedback.access import accept, erase, invite, log_in, rater_of, session_of
from tuneful.feedback.tables import account, identity, rater, spent_state
from tuneful.web.attempts import ATTEMPT_COOKIE
from tuneful.web.provider import Provider
from tuneful.web.security import SESSION_COOKIE

PASSWORD = "correct horse battery"

CALLBACK = "/login/oidc/callback"


@pytest.fixture
def algorithm() -> str:
    return "ES256"  # whose keys are made at once


@pytest.fixture
def fake(algorithm: str) -> Iterator[FakeProvider]:
    opened = FakeProvider(algorithm)
    yield opened
    opened.close()


@pytest.fixture
def provider(fake: FakeProvider) -> Provider:
    return Provider(fake.url, CLIENT_ID, secret=CLIENT_SECRET, name="Example", domain=" @Example.ORG")


@pytest.fixture
def closed(provider: Provider) -> Provider:
    """The provider, letting nobody in who was not invited."""
    provider.domain = ""
    return provider


def begin(client: TestClient, page: str = "/login", action: str = "/login/oidc", **filled: str) -> str:
    """The URL to which the form of a page leads."""
    answer = client.post(action, data={"csrf": form_token(client.get(page).text), **filled})
    assert answer.status_code == 200, answer.text
    leads = re.search(r'http-equiv="refresh" content="0; url=([^"]+)"', answer.text)
    assert leads is not None, answer.text
    return html.unescape(leads[1])


def end(client: TestClient, fake: FakeProvider, place: str) -> Any:
    """What the browser is answered when it comes back."""
    return client.get(fake.answer(place).removeprefix("http://site"))


def who(site: Any, client: TestClient) -> Any:
    return session_of(site.store, client.cookies.get(SESSION_COOKIE, ""), now=site.now())


def with_another_place(cookie: str) -> str:
    told = json.loads(base64.urlsafe_b64decode(cookie + "=="))
    return base64.urlsafe_b64encode(json.dumps(told | {"place": "/account"}).encode()).decode().rstrip("=")


def people(site: Any) -> int:
    with site.store.read() as connection:
        return int(connection.execute(select(func.count()).select_from(account)).scalar_one())


def make_bo(site: Any, fake: FakeProvider) -> str:
    """Bo, who came by an invitation and the provider."""
    secret = invite(site.store, project_id=site.project(), now=site.now())
    client = visitor(site)
    assert end(client, fake, begin(client, f"/invitation/{secret}", f"/invitation/{secret}/oidc")).status_code == 303
    return str(who(site, client).rater)


def make_ada(site: Any) -> str:
    """Ada, who has a password."""
    secret = invite(site.store, project_id=site.project(), now=site.now())
    return accept(site.store, secret, login="ada", password=PASSWORD, now=site.now())


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
@pytest.mark.usefixtures("closed")
def test_an_invitation_is_accepted_and_the_person_comes_again(site: Any, fake: FakeProvider) -> None:
    project = site.project()
    secret = invite(site.store, project_id=project, role="lead", now=site.now())
    page, client = f"/invitation/{secret}", visitor(site)
    came = end(client, fake, begin(client, page, f"{page}/oidc", groups="nurse, , parent"))
    assert (came.status_code, came.headers["location"]) == (303, "/")
    bo = who(site, client)
    assert (bo.login, bo.name, bo.admin, bo.roles) == ("bo@example.org", "Bo B.", False, {project: "lead"})
    assert visitor(site).get(page).status_code == 403

    again = visitor(site)
    came = end(again, fake, begin(again, next=f"/lead/{project}"))
    assert (came.status_code, came.headers["location"]) == (303, f"/lead/{project}")
    assert who(site, again) == bo
    assert people(site) == 1
    for password in ("", "None", PASSWORD):
        with pytest.raises(AccessError, match="do not go together"):
            log_in(site.store, bo.login, password, now=site.now())


def test_groups_are_those_that_were_said_before_the_way_there(site: Any, fake: FakeProvider) -> None:
    secret = invite(site.store, project_id=site.project(), now=site.now())
    client = visitor(site)
    end(client, fake, begin(client, f"/invitation/{secret}", f"/invitation/{secret}/oidc", groups="nurse, , Köchin"))
    with site.store.read() as connection:
        said = connection.execute(select(rater.c.groups).where(rater.c.id == who(site, client).rater)).scalar_one()
    assert said == ["nurse", "Köchin"]


def test_groups_that_no_cookie_holds_are_refused(site: Any) -> None:
    secret = invite(site.store, project_id=site.project(), now=site.now())
    client = visitor(site)
    filled = {"csrf": form_token(client.get(f"/invitation/{secret}").text), "groups": "nurse" * 1000}
    refused = client.post(f"/invitation/{secret}/oidc", data=filled)
    assert refused.status_code == 403
    assert "fewer groups" in refused.text


def test_what_the_provider_and_the_browser_are_told(site: Any) -> None:
    client = visitor(site)
    answer = client.post("/login/oidc", data={"csrf": form_token(client.get("/login").text)})
    cookie = answer.headers["set-cookie"].lower()
    assert all(word in cookie for word in ("httponly", "samesite=lax", "max-age=600"))
    asked = parse_qs(urlsplit(begin(client)).query)
    assert asked["redirect_uri"] == [f"http://site{CALLBACK}"]
    assert asked["scope"] == ["openid email profile"]
    told = [asked[name][0] for name in ("state", "nonce", "code_challenge")]
    again = parse_qs(urlsplit(begin(client)).query)
    assert not {*told} & {again[name][0] for name in ("state", "nonce", "code_challenge")}
    assert len({*told}) == 3
    assert CLIENT_SECRET.replace(" ", "+") not in str(asked)


OTHER = f"{CLIENT_ID}-2"
NOW = time.time()

WRONG = {
    "another nonce": {"nonce": "0" * 64},
    "no nonce": {"nonce": None},
    "another audience": {"aud": OTHER},
    "an audience without us": {"aud": [OTHER, "third"], "azp": CLIENT_ID},
    "an audience of several, for nobody": {"aud": [CLIENT_ID, OTHER]},
    "an audience of several, for another": {"aud": [CLIENT_ID, OTHER], "azp": OTHER},
    "for another": {"azp": OTHER},
    "no audience": {"aud": None},
    "over": {"exp": NOW - 3600},
    "without an end": {"exp": None},
    "of tomorrow": {"iat": NOW + 86_400},
    "not yet": {"nbf": NOW + 86_400},
    "another issuer": {"iss": "https://evil.example"},
    "no issuer": {"iss": None},
    "nobody": {"sub": None},
    "an empty subject": {"sub": ""},
    "a subject that is no text": {"sub": 1001},
    "of another access token": {"at_hash": "0" * 22},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_an_id_token_that_is_not_what_was_asked_for(site: Any, fake: FakeProvider, wrong: str) -> None:
    make_bo(site, fake)
    fake.spoiled = WRONG[wrong]
    client = visitor(site)
    came = end(client, fake, begin(client))
    assert came.status_code == 403
    assert 'name="password"' in came.text
    assert who(site, client) is None
    assert people(site) == 1


@pytest.mark.parametrize("kind", ["another key", "no signature", "our secret", "the public key"])
def test_a_signature_that_is_not_the_provider_s(site: Any, fake: FakeProvider, kind: str) -> None:
    make_bo(site, fake)
    public = key_of(fake.algorithm).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    algorithm, key = {
        "another key": (fake.algorithm, key_of(fake.algorithm, 1)),
        "no signature": ("none", b""),
        "our secret": ("HS256", CLIENT_SECRET.encode()),
        "the public key": ("HS256", public),
    }[kind]
    fake.header, fake.signs_with = {"alg": algorithm, "kid": "1"}, key
    client = visitor(site)
    assert end(client, fake, begin(client)).status_code == 403
    assert who(site, client) is None


def test_a_key_of_an_unknown_name_is_none(site: Any, fake: FakeProvider) -> None:
    make_bo(site, fake)
    fake.header = {"alg": fake.algorithm, "kid": "3"}
    client = visitor(site)
    assert end(client, fake, begin(client)).status_code == 403


def test_an_answer_lets_somebody_in_once(site: Any, fake: FakeProvider) -> None:
    """Also with a new code for the same state, and the browser's cookie as it was."""
    make_bo(site, fake)
    client = visitor(site)
    place = begin(client)
    attempt = client.cookies[ATTEMPT_COOKIE]
    first = fake.answer(place).removeprefix("http://site")
    assert client.get(first).status_code == 303
    assert ATTEMPT_COOKIE not in client.cookies
    assert client.get(first).status_code == 403  # the cookie is gone
    thief, other = (visitor(site) for _ in range(2))
    for one in (thief, other):
        one.cookies.set(ATTEMPT_COOKIE, attempt)
    assert other.get(first).status_code == 403  # the code is spent
    came = end(thief, fake, place)
    assert came.status_code == 403
    assert "used already" in came.text
    assert who(site, thief) is None


def test_an_answer_is_for_the_browser_that_asked(site: Any, fake: FakeProvider) -> None:
    """Else somebody could be made to work, unknowing, in another one's name."""
    make_bo(site, fake)
    client, other, idle = (visitor(site) for _ in range(3))
    place = begin(client)
    begin(other)
    answer = fake.answer(place).removeprefix("http://site")
    for stranger in (other, idle):
        assert stranger.get(answer).status_code == 403
        assert who(site, stranger) is None
    assert client.get(answer).status_code == 303


def test_a_cookie_that_was_changed_fits_no_answer(site: Any, fake: FakeProvider) -> None:
    make_bo(site, fake)
    for change in (lambda _: "x", lambda _: "", lambda _: "bm8ganNvbg", with_another_place):
        client = visitor(site)
        place = begin(client)
        changed = change(client.cookies[ATTEMPT_COOKIE])
        client.cookies.delete(ATTEMPT_COOKIE)
        client.cookies.set(ATTEMPT_COOKIE, changed)
        assert end(client, fake, place).status_code == 403


def test_an_answer_that_comes_late_is_none(site: Any, fake: FakeProvider) -> None:
    make_bo(site, fake)
    client = visitor(site)
    place = begin(client)
    site.moved += 601
    came = end(client, fake, place)
    assert came.status_code == 403
    assert "too old" in came.text


@pytest.mark.usefixtures("closed")
def test_a_stranger_stays_outside(site: Any, fake: FakeProvider) -> None:
    client = visitor(site)
    came = end(client, fake, begin(client))
    assert came.status_code == 403
    assert "nobody here comes in by this account of Example" in came.text
    assert (who(site, client), people(site)) == (None, 0)


def test_a_stranger_of_the_domain_is_let_in_and_belongs_to_nothing(site: Any, fake: FakeProvider) -> None:
    project = site.project()
    client = visitor(site)
    assert end(client, fake, begin(client)).status_code == 303
    bo = who(site, client)
    assert (bo.login, bo.admin, bo.roles) == ("bo@example.org", False, {})
    assert [client.get(place).status_code for place in ("/", f"/p/{project}", f"/lead/{project}", "/lead/new")] == [
        *(200, 403, 403, 403)
    ]
    secret = invite(site.store, project_id=project, now=site.now())
    client.post(f"/invitation/{secret}", data={"csrf": form_token(client.get(f"/invitation/{secret}").text)})
    assert client.get(f"/p/{project}").status_code == 200
    assert people(site) == 1


@pytest.mark.parametrize(
    "person",
    [
        {"email_verified": False},
        {"email_verified": "true"},
        {"email_verified": None},
        {"email": None},
        {"email": ["bo@example.org"]},
        {"email": "bo@evil-example.org"},
        {"email": "bo@mail.example.org"},
        {"email": "bo@example.org.evil.example"},
        {"email": "example.org"},
    ],
    ids=str,
)
def test_a_stranger_of_no_verified_address_of_the_domain_stays_outside(
    site: Any, fake: FakeProvider, person: dict[str, Any]
) -> None:
    fake.spoiled = person
    client = visitor(site)
    assert end(client, fake, begin(client)).status_code == 403
    assert people(site) == 0


def test_an_address_lets_nobody_into_another_one_s_account(site: Any, fake: FakeProvider) -> None:
    """An address may go to another person; who somebody is stands in the subject."""
    bo = make_bo(site, fake)
    fake.person = BO | {"sub": "2002"}
    client = visitor(site)
    end(client, fake, begin(client))
    assert (who(site, client).rater != bo, who(site, client).login) == (True, "bo@example.org-2")
    fake.person = BO | {"email": "bo@married.example", "name": "Bo C."}
    client = visitor(site)
    end(client, fake, begin(client))
    assert who(site, client).rater == bo


def test_what_the_id_token_leaves_out_stands_with_the_provider(site: Any, fake: FakeProvider) -> None:
    fake.person = {"sub": "1001"}
    fake.userinfo = BO | {"sub": "2002"}
    client = visitor(site)
    assert end(client, fake, begin(client)).status_code == 403  # that is about somebody else
    fake.userinfo = BO
    client = visitor(site)
    assert end(client, fake, begin(client)).status_code == 303
    assert who(site, client).name == "Bo B."


def test_a_provider_that_is_away_is_told_and_a_password_still_opens(site: Any, fake: FakeProvider) -> None:
    make_ada(site)
    client = visitor(site)
    place = begin(client)
    answer = fake.answer(place).removeprefix("http://site")
    fake.close()
    came = client.get(answer)
    assert came.status_code == 503
    assert "Example does not answer" in came.text
    client = visitor(site)
    token = form_token(client.get("/login").text)
    page = client.post("/login/oidc", data={"csrf": token, "next": "/account"})
    assert page.status_code == 503
    assert "Example does not answer" in page.text
    filled = {"csrf": form_token(page.text), "login": "ada", "password": PASSWORD, "next": "/account"}
    assert client.post("/login", data=filled).headers["location"] == "/account"


@pytest.mark.parametrize(
    ("described", "said"),
    [
        ({"issuer": "https://other.example"}, "calls itself &#34;https://other.example&#34;"),
        ({"authorization_endpoint": "http://plain.example/"}, "authorization_endpoint that is not encrypted"),
        ({"token_endpoint": "javascript:alert(1)"}, "token_endpoint that is not encrypted"),
        ({"jwks_uri": 5}, "jwks_uri that is not encrypted"),
    ],
)
def test_a_provider_that_is_set_up_wrongly_is_told(
    site: Any, fake: FakeProvider, described: dict[str, Any], said: str
) -> None:
    fake.described = described
    client = visitor(site)
    page = client.post("/login/oidc", data={"csrf": form_token(client.get("/login").text)})
    assert page.status_code == 503
    assert said in page.text


def test_a_refusal_of_the_provider_is_told(site: Any, fake: FakeProvider, provider: Provider) -> None:
    client = visitor(site)
    state = parse_qs(urlsplit(begin(client)).query)["state"][0]
    came = client.get(f"{CALLBACK}?error=access_denied&state={state}")
    assert came.status_code == 403
    assert "Example did not sign you in: access_denied" in came.text
    client = visitor(site)
    fake.secret_in = "body"  # where the provider did not say that it wants it
    came = end(client, fake, begin(client))
    assert came.status_code == 403
    assert "invalid_client" in came.text
    assert people(site) == 0


def test_the_secret_goes_where_the_provider_wants_it(site: Any, fake: FakeProvider) -> None:
    fake.secret_in, fake.described = "body", {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    client = visitor(site)
    assert end(client, fake, begin(client)).status_code == 303


def test_a_public_client_shows_the_verifier_alone(site: Any, fake: FakeProvider) -> None:
    site.app.state.provider = Provider(fake.url, CLIENT_ID, domain="example.org")
    fake.secret_in = "nowhere"
    client = visitor(site)
    assert "Sign in with localhost" in client.get("/login").text
    assert end(client, fake, begin(client)).status_code == 303


def test_an_account_is_linked_and_unlinked(site: Any, fake: FakeProvider) -> None:
    ada = make_ada(site)
    client = signed_in(site, ada)
    page = client.post("/account/oidc", data={"password": "wrong horse battery"})
    assert page.status_code == 403
    assert "do not go together" in page.text
    came = end(client, fake, begin(client, "/account", "/account/oidc", password=PASSWORD))
    assert (came.status_code, came.headers["location"]) == (303, "/account")
    assert "Unlink Example" in client.get("/account").text

    again = visitor(site)
    end(again, fake, begin(again))
    assert who(site, again).rater == ada
    assert session_of(site.store, log_in(site.store, "ada", PASSWORD, now=site.now()), now=site.now()) is not None

    assert client.post("/account/oidc/unlink").status_code == 303
    site.app.state.provider.domain = ""
    again = visitor(site)
    assert end(again, fake, begin(again)).status_code == 403
    assert "Link Example" in client.get("/account").text


def test_an_account_of_the_provider_is_one_person_s(site: Any, fake: FakeProvider) -> None:
    make_bo(site, fake)
    client = signed_in(site, make_ada(site))
    came = end(client, fake, begin(client, "/account", "/account/oidc", password=PASSWORD))
    assert came.status_code == 403
    assert "somebody else here comes in by it" in came.text
    assert "Link Example" in came.text


def test_one_links_one_account_of_a_provider(site: Any, fake: FakeProvider) -> None:
    client = signed_in(site, make_ada(site))
    for sub, status in (("1001", 303), ("1001", 303), ("2002", 403)):
        fake.person = BO | {"sub": sub}
        came = end(client, fake, begin(client, "/account", "/account/oidc", password=PASSWORD))
        assert came.status_code == status
    assert "unlink that one first" in came.text


def test_who_has_no_password_keeps_the_only_way_in(site: Any, fake: FakeProvider) -> None:
    client = signed_in(site, make_bo(site, fake))
    page = client.get("/account").text
    assert 'name="old"' not in page
    assert "/account/oidc" not in page
    assert client.post("/account/oidc/unlink").status_code == 403
    assert client.post("/account/oidc", data={"password": ""}).status_code == 403
    assert client.post("/account", data={"old": "guess", "new": "another horse"}).status_code == 403
    again = visitor(site)
    assert end(again, fake, begin(again)).status_code == 303


def test_a_link_that_was_begun_in_one_session_is_not_made_in_another(site: Any, fake: FakeProvider) -> None:
    """Else who has a browser for a moment could link themselves to whoever logs in next."""
    eve = signed_in(site, site.rater(site.project()))
    ada = make_ada(site)
    mine = signed_in(site, ada)
    place = begin(mine, "/account", "/account/oidc", password=PASSWORD)
    attempt = mine.cookies[ATTEMPT_COOKIE]
    for client in (eve, signed_in(site, ada), visitor(site)):
        client.cookies.set(ATTEMPT_COOKIE, attempt)
        assert end(client, fake, place).status_code == 403
    with site.store.read() as connection:
        assert connection.execute(select(identity)).all() == []
    assert end(mine, fake, place).status_code == 303


def test_who_is_forgotten_is_a_stranger_to_the_provider_s_word(site: Any, fake: FakeProvider) -> None:
    bo = make_bo(site, fake)
    site.app.state.provider.domain = ""
    erase(site.store, bo, now=site.now())
    with site.store.read() as connection:
        assert connection.execute(select(identity)).all() == []
        assert "1001" not in str(connection.execute(select(spent_state)).all())
    client = visitor(site)
    assert end(client, fake, begin(client)).status_code == 403


def test_guessing_passwords_and_the_provider_s_word_do_not_touch(site: Any, fake: FakeProvider) -> None:
    client = signed_in(site, make_ada(site))
    end(client, fake, begin(client, "/account", "/account/oidc", password=PASSWORD))
    for _ in range(6):
        with pytest.raises(AccessError):
            log_in(site.store, "ada", "guess", now=site.now() + 100)
    again = visitor(site)
    assert end(again, fake, begin(again)).status_code == 303
    with pytest.raises(AccessError, match="too often"):
        log_in(site.store, "ada", PASSWORD, now=site.now())
    page = client.post("/account/oidc", data={"password": PASSWORD})  # the same limit holds for this form
    assert page.status_code == 403


@pytest.mark.parametrize("place", ["https://evil.example/", "//evil.example", "/\\evil.example"])
def test_nobody_is_led_away_after_signing_in(site: Any, fake: FakeProvider, place: str) -> None:
    client = visitor(site)
    assert end(client, fake, begin(client, next=place)).headers["location"] == "/"


def test_the_first_admin_may_come_by_the_provider(site: Any, fake: FakeProvider) -> None:
    secret = invite(site.store, project_id=None, role="admin", now=site.now())
    client = visitor(site)
    end(client, fake, begin(client, f"/invitation/{secret}", f"/invitation/{secret}/oidc"))
    assert who(site, client).admin
    assert rater_of(site.store, "bo@example.org") == who(site, client).rater


def test_somebody_known_accepts_another_invitation(site: Any, fake: FakeProvider) -> None:
    bo = make_bo(site, fake)
    project = site.project()
    secret = invite(site.store, project_id=project, now=site.now())
    client = visitor(site)
    came = end(client, fake, begin(client, f"/invitation/{secret}", f"/invitation/{secret}/oidc"))
    assert came.headers["location"] == f"/p/{project}"
    assert (who(site, client).rater, len(who(site, client).roles)) == (bo, 2)


def test_an_invitation_that_is_used_meanwhile_lets_nobody_in(site: Any, fake: FakeProvider) -> None:
    secret = invite(site.store, project_id=site.project(), now=site.now())
    client = visitor(site)
    place = begin(client, f"/invitation/{secret}", f"/invitation/{secret}/oidc")
    accept(site.store, secret, login="ada", password=PASSWORD, now=site.now())
    assert end(client, fake, place).status_code == 403
    assert people(site) == 1


def test_what_the_database_holds_of_it(site: Any, fake: FakeProvider) -> None:
    """Issuer and subject, and no secret of the way there."""
    bo = make_bo(site, fake)
    client = visitor(site)
    place = begin(client)
    cookie = client.cookies[ATTEMPT_COOKIE]
    end(client, fake, place)
    with site.store.read() as connection:
        (row,) = connection.execute(select(identity)).all()
        spent = str(connection.execute(select(spent_state)).all())
    assert (row.issuer, row.subject, row.rater) == (fake.url, "1001", bo)
    assert not [one for one in (cookie, *parse_qs(urlsplit(place).query)["state"]) if one in spent]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("http://id.example.org", CLIENT_ID), "is not encrypted"),
        (("id.example.org", CLIENT_ID), "is no URL"),
        (("https://me:secret@id.example.org", CLIENT_ID), "holds a password"),
    ],
)
def test_a_provider_that_cannot_be_one_is_refused(arguments: tuple[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Provider(*arguments)


@pytest.mark.parametrize(
    "domain", ["example", "ann@example.org", "*.example.org", "example.org.", "example..org", "a b.c"]
)
def test_what_is_no_domain_of_addresses_is_refused(domain: str) -> None:
    with pytest.raises(ConfigError, match="is no domain of e-mail addresses"):
        Provider("https://id.example.org", CLIENT_ID, domain=domain)


def test_domains_of_any_script_are_taken() -> None:
    for domain in ("example.org", "@Mail-1.Example.co.uk", "münchen.example"):
        assert Provider("https://id.example.org", CLIENT_ID, domain=domain).domain == domain.lstrip("@").lower()


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "authlib", None)
    with pytest.raises(ConfigError, match=r"pip install 'tuneful\[oidc\]'"):
        Provider("https://id.example.org", CLIENT_ID)


def test_the_flags_make_a_provider(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("TUNEFUL_OIDC_SECRET", CLIENT_SECRET)
    made = provider_of("https://id.example.org", CLIENT_ID, None, "Example.org")
    assert made is not None
    assert (made.issuer, made.client_id, made.name, made.domain) == (
        *("https://id.example.org", CLIENT_ID, "id.example.org", "example.org"),
    )
    assert provider_of(None, None, None, None) is None
    for flag in (("--oidc-issuer", "https://id.example.org"), ("--oidc-domain", "example.org")):
        refused = CliRunner().invoke(app, ["web", "--store", str(tmp_path / "judgments.db"), *flag])
        assert isinstance(refused.exception, ConfigError)
        assert not (tmp_path / "judgments.db").exists()


def test_a_token_of_somebody_in_many_groups_is_read(site: Any, fake: FakeProvider) -> None:
    fake.spoiled = {"groups": [f"https://id.example.org/groups/{n}" for n in range(500)]}
    client = visitor(site)
    assert end(client, fake, begin(client)).status_code == 303


def test_not_all_threads_wait_for_the_provider(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = BoundedSemaphore(1)
    busy.acquire()
    monkeypatch.setattr("tuneful.web.provider.ASKED_AT_ONCE", busy)
    monkeypatch.setattr("tuneful.web.provider.TIMEOUT", 0.01)
    client = visitor(site)
    refused = client.post("/login/oidc", data={"csrf": form_token(client.get("/login").text)})
    assert refused.status_code == 503
    assert "try again" in refused.text
