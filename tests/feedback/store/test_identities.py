"""People whom a provider tells of, on either database, also when several come at once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import func, select

from tests.feedback.store.test_access import AT_ONCE, PASSWORD, tried
from tuneful.errors import AccessError
from tuneful.feedback.access import accept, invite, invited, session_of
from tuneful.feedback.identities import Proof, WaysIn, accept_as, come_in, link, unlink, ways_in
from tuneful.feedback.projects import create_project
from tuneful.feedback.store import Store
from tuneful.feedback.tables import identity, spent_state

BO = Proof(
    issuer="https://id.example",
    subject="1001",
    login="Bo@Example.org",
    name="Bo B.",
    domain="example.org",
    state="first",
    until=600.0,
)


def count(store: Store, table: object) -> int:
    with store.read() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())  # type: ignore[arg-type]


def rater(store: Store, secret: str | None) -> str:
    who = session_of(store, secret or "", now=1.0)
    assert who is not None
    return who.rater


def test_a_proof_lets_one_in_however_many_bring_it_at_once(store: Store) -> None:
    come_in(store, replace(BO, state="before"), strangers=True, now=0.0)
    came = tried(lambda _: come_in(store, BO, strangers=False, now=1.0), AT_ONCE)
    assert sum(not one.startswith("refused") for one in came) == 1
    assert all("used already" in one for one in came if one.startswith("refused"))


def test_a_stranger_who_comes_several_times_at_once_is_one_person(store: Store) -> None:
    came = tried(lambda n: come_in(store, replace(BO, state=str(n)), strangers=True, now=1.0), AT_ONCE)
    assert len({rater(store, secret) for secret in came}) == 1
    assert count(store, identity) == 1


def test_people_whom_the_provider_calls_the_same_have_logins_of_their_own(store: Store) -> None:
    subjects = [replace(BO, subject=str(n), state=str(n)) for n in range(AT_ONCE)]
    came = tried(lambda n: come_in(store, subjects[n], strangers=True, now=1.0), AT_ONCE)
    logins = {who.login for secret in came if (who := session_of(store, secret, now=1.0)) is not None}
    assert logins == {"bo@example.org", *(f"bo@example.org-{n}" for n in range(2, AT_ONCE + 1))}


def test_a_subject_means_something_beside_its_issuer_alone(store: Store) -> None:
    bo = rater(store, come_in(store, BO, strangers=True, now=1.0))
    assert come_in(store, replace(BO, issuer="https://other.example", state="b"), strangers=False, now=1.0) is None
    assert rater(store, come_in(store, replace(BO, state="c"), strangers=False, now=1.0)) == bo


def test_who_is_nobody_uses_nothing_up(store: Store) -> None:
    assert come_in(store, BO, strangers=False, now=1.0) is None
    assert count(store, spent_state) == 0
    assert come_in(store, BO, strangers=True, now=1.0) is not None


def test_a_proof_is_good_for_a_while_and_what_was_used_is_forgotten_then(store: Store) -> None:
    come_in(store, BO, strangers=True, now=599.0)
    late = replace(BO, state="late")
    with pytest.raises(AccessError, match="too old"):
        come_in(store, late, strangers=True, now=600.0)
    come_in(store, replace(BO, state="next", until=1200.0), strangers=True, now=601.0)
    assert count(store, spent_state) == 1
    with pytest.raises(AccessError, match="too old"):
        come_in(store, BO, strangers=True, now=602.0)


def test_an_invitation_that_cannot_be_used_makes_nobody_and_spends_nothing(store: Store) -> None:
    project = create_project(store, "helpful", now=0.0)
    secret = invite(store, project_id=project, now=0.0)
    came = tried(
        lambda n: accept_as(store, secret, replace(BO, subject=str(n), state=str(n)), now=1.0),
        AT_ONCE,
    )
    assert sum(not one.startswith("refused") for one in came) == 1
    assert all("invitation" in one for one in came if one.startswith("refused"))
    assert (count(store, identity), count(store, spent_state)) == (1, 1)


def test_somebody_with_a_password_is_linked_and_unlinked(store: Store) -> None:
    secret = invite(store, project_id=None, role="admin", now=0.0)
    ada = accept(store, secret, login="ada", password=PASSWORD, now=1.0)
    assert ways_in(store, ada, BO.issuer) == WaysIn(password=True, linked_at=None)
    link(store, ada, BO, now=2.0)
    assert ways_in(store, ada, BO.issuer) == WaysIn(password=True, linked_at=2.0)
    assert ways_in(store, ada, None) == WaysIn(password=True, linked_at=None)
    with pytest.raises(AccessError, match="used already"):
        link(store, ada, BO, now=2.0)
    unlink(store, ada, BO.issuer, now=3.0)
    assert ways_in(store, ada, BO.issuer) == WaysIn(password=True, linked_at=None)
    with pytest.raises(AccessError, match="was used"):
        invited(store, secret, now=1.0)


def test_the_only_way_in_is_not_unlinked(store: Store) -> None:
    bo = rater(store, come_in(store, BO, strangers=True, now=1.0))
    assert ways_in(store, bo, BO.issuer) == WaysIn(password=False, linked_at=1.0)
    with pytest.raises(AccessError, match="only way in"):
        unlink(store, bo, BO.issuer, now=2.0)


def test_who_was_erased_is_not_linked_again(store: Store) -> None:
    with pytest.raises(AccessError, match="erased"):
        link(store, "nobody", BO, now=1.0)
