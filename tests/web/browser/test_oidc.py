"""The way to a provider on another site and back, in a real browser under the content security policy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.web.browser.test_accessibility import violations
from tests.web.fake_provider import CLIENT_ID, CLIENT_SECRET, FakeProvider
from tuneful.feedback.access import accept, invite
from tuneful.web.provider import Provider

PASSWORD = "correct horse battery"


@pytest.fixture
def fake() -> Iterator[FakeProvider]:
    """At "localhost", which to a browser is another site than the pages' 127.0.0.1."""
    opened = FakeProvider("ES256")
    yield opened
    opened.close()


@pytest.fixture
def provider(fake: FakeProvider) -> Provider:
    return Provider(fake.url, CLIENT_ID, secret=CLIENT_SECRET, name="Example")


def test_by_an_invitation_and_again_and_linked(site: Any, browser: Any, fake: FakeProvider) -> None:
    project = site.project(items=1)
    first = invite(site.store, project_id=project, now=site.now())
    context = browser.new_context()
    page = context.new_page()
    wrong: list[str] = []
    outside: list[Any] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda told: wrong.append(told.text) if "Security Policy" in told.text else None)
    context.on("request", lambda one: None if one.url.startswith(site.url) else outside.append(one))

    fake.asks = True  # a page of the provider, whose form leads back
    page.goto(f"{site.url}/invitation/{first}")
    assert violations(page) == []
    page.get_by_role("button", name="Join with Example").click()
    page.get_by_role("button", name="Go on as Bo").click()
    page.locator("#cards > *").nth(1).wait_for()
    assert page.url == f"{site.url}/p/{project}"
    page.get_by_role("link", name="Bo B.").click()
    page.get_by_text("You sign in with Example, and have no password here.").wait_for()
    assert violations(page) == []
    page.get_by_role("button", name="Log out", exact=True).click()

    fake.asks = False  # it knows the browser, and sends it back at once
    page.goto(f"{site.url}/p/{project}")
    page.get_by_label("Login name").wait_for()
    assert violations(page) == []
    page.get_by_role("button", name="Sign in with Example").click()
    page.locator("#cards > *").nth(1).wait_for()
    page.get_by_role("link", name="Bo B.").wait_for()
    page.get_by_role("button", name="Log out", exact=True).click()

    fake.person = {"sub": "2002"}
    page.goto(f"{site.url}/invitation/{invite(site.store, project_id=project, now=site.now())}")
    page.get_by_label("Login name").fill("ada")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Join", exact=True).click()
    page.get_by_role("link", name="ada").click()
    page.get_by_label("Your password here").fill(PASSWORD)
    assert violations(page) == []
    page.get_by_role("button", name="Link Example").click()
    page.get_by_role("button", name="Unlink Example").wait_for()
    assert violations(page) == []
    page.get_by_role("button", name="Unlink Example").click()
    page.get_by_role("button", name="Link Example").wait_for()
    context.close()
    assert wrong == []
    assert len([one for one in outside if one.is_navigation_request()]) >= 4
    assert [one.url for one in outside if not one.is_navigation_request() and "favicon" not in one.url] == []


def test_when_the_provider_is_away_a_password_opens(site: Any, browser: Any, fake: FakeProvider) -> None:
    secret = invite(site.store, project_id=site.project(items=1), now=site.now())
    accept(site.store, secret, login="ada", password=PASSWORD, now=site.now())
    fake.close()
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{site.url}/login")
    page.get_by_role("button", name="Sign in with Example").click()
    page.get_by_role("alert").get_by_text("Example does not answer").wait_for()
    page.get_by_label("Login name").fill("ada")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Your projects").wait_for()
    context.close()
