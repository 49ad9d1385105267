"""Accounts on either database, also when several people do the same thing at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tuneful.errors import AccessError, StoreError
from tuneful.feedback.access import (
    accept,
    holder_of,
    invite,
    invite_first_admin,
    invited,
    log_in,
    make_token,
    session_of,
    sign_in,
)
from tuneful.feedback.projects import create_project
from tuneful.feedback.store import Store

PASSWORD = "correct horse battery"
AT_ONCE = 6


def tried(work: object, number: int) -> list[str]:
    """What came of doing it so often at once: a rater, or the refusal."""

    def one(n: int) -> str:
        try:
            return str(work(n))  # type: ignore[operator]
        except StoreError as error:
            return f"refused: {error}"

    with ThreadPoolExecutor(number) as threads:
        return list(threads.map(one, range(number)))


def test_an_invitation_lets_one_in_however_many_come_at_once(store: Store) -> None:
    project = create_project(store, "helpful", now=0.0)
    secret = invite(store, project_id=project, now=0.0)
    came = tried(lambda n: accept(store, secret, login=f"person {n}", password=PASSWORD, now=1.0), AT_ONCE)
    assert sum(not one.startswith("refused") for one in came) == 1
    assert all("invitation" in one for one in came if one.startswith("refused"))


def test_a_login_belongs_to_one_however_many_want_it_at_once(store: Store) -> None:
    project = create_project(store, "helpful", now=0.0)
    secrets = [invite(store, project_id=project, now=0.0) for _ in range(AT_ONCE)]
    came = tried(lambda n: accept(store, secrets[n], login="Ann", password=PASSWORD, now=1.0), AT_ONCE)
    assert sum(not one.startswith("refused") for one in came) == 1
    assert all("taken" in one for one in came if one.startswith("refused"))
    left = [secret for secret, one in zip(secrets, came, strict=True) if one.startswith("refused")]
    assert all(invited(store, secret, now=1.0).project == project for secret in left)  # theirs are not used up


def test_projects_of_one_name_made_at_once(store: Store) -> None:
    came = tried(lambda n: create_project(store, "helpful", now=float(n)), AT_ONCE)
    assert sum(not one.startswith("refused") for one in came) == 1
    assert all("choose another" in one for one in came if one.startswith("refused"))


def test_the_whole_way_in(store: Store) -> None:
    secret = invite_first_admin(store, now=0.0)
    assert secret is not None
    ada = accept(store, secret, login="ada", password=PASSWORD, name="Ada", groups=["lead"], now=1.0)
    who = session_of(store, log_in(store, "ADA", PASSWORD, now=2.0), now=3.0)
    assert who is not None
    assert (who.rater, who.name, who.admin, who.roles) == (ada, "Ada", True, {})
    token = make_token(store, ada, "script", ["read"], days=1, now=2.0)
    holder = holder_of(store, token, now=3.0)
    assert holder is not None
    assert holder.scopes == {"read"}
    assert not holder.leads("anything")  # an admin's token without the scope


def test_a_character_that_no_database_holds_is_refused(store: Store) -> None:
    secret = invite(store, project_id=None, role="admin", now=0.0)
    with pytest.raises(StoreError, match="NUL"):
        accept(store, secret, login="a\x00b", password=PASSWORD, now=1.0)
    with pytest.raises(AccessError, match="do not go together"):
        log_in(store, "nobody", PASSWORD, now=1.0)
    ada = accept(store, secret, login="ada", password=PASSWORD, now=1.0)
    assert session_of(store, sign_in(store, ada, now=1.0) + "\x00", now=1.0) is None  # a hash of it is looked up
