"""People who come in by a provider of OpenID Connect, which says of each an issuer and a subject.

Somebody is let in by the pair alone, and never by a name or an address, which a provider may give to another person
later. What a provider proved is good for one use: what uses it notes so, in the transaction that lets somebody in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, count

from sqlalchemy import Connection, delete, insert, select

from tuneful.errors import AccessError
from tuneful.feedback import trail
from tuneful.feedback.access import begin_session, digest, make_person, use_invitation
from tuneful.feedback.store import Store, require_storable, upsert
from tuneful.feedback.tables import account, identity, spent_state


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a provider proved: who somebody is, to it.

    login, name: how it would call them. domain: that of their e-mail address, if it has verified one, else "". state:
    of the sign-in that ended with it, by which somebody comes in once, and before `until`, in seconds since 1970.
    """

    issuer: str
    subject: str
    login: str
    name: str
    domain: str
    state: str
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WaysIn:
    """password: whether there is one. linked_at: since when they come in by the issuer that was asked about; None for
    not at all."""

    password: bool
    linked_at: float | None


def ways_in(store: Store, rater_id: str, issuer: str | None) -> WaysIn:
    """issuer: the provider to look for, if there is one."""
    mine = (identity.c.rater == rater_id, identity.c.issuer == issuer)
    with store.read() as connection:
        kept = connection.execute(select(account.c.password).where(account.c.rater == rater_id)).scalar()
        since = connection.execute(select(identity.c.created_at).where(*mine)).scalar()
    return WaysIn(password=kept is not None, linked_at=since)


def come_in(store: Store, proof: Proof, *, strangers: bool, now: float) -> str | None:
    """The secret of a new session of whom the proof is of; None for nobody known.

    strangers: whether somebody unknown becomes a new person, who belongs to no project until somebody invites them.
    Raises AccessError for a proof that was used.
    """

    def work(connection: Connection) -> str | None:
        known = _rater(connection, proof)
        if known is None and not strangers:
            return None
        _spend(connection, proof, now)
        if known is None:
            known = _make_person(connection, proof, (), now)
            trail.add(connection, "account made", rater=known, about={"issuer": proof.issuer}, now=now)
        return begin_session(connection, known, now=now)

    return store.write(work)


def accept_as(store: Store, secret: str, proof: Proof, *, groups: Sequence[str] = (), now: float) -> str:
    """Accept an invitation as whom the proof is of, somebody known or a new person: the secret of a new session.

    groups: of a new person, as in `access.accept`. Raises AccessError for an invitation that cannot be used any more,
    and for a proof that was used.
    """

    def work(connection: Connection) -> str:
        _spend(connection, proof, now)
        comes = _rater(connection, proof) or _make_person(connection, proof, groups, now)
        use_invitation(connection, secret, comes, now=now)
        return begin_session(connection, comes, now=now)

    return store.write(work)


def link(store: Store, rater_id: str, proof: Proof, *, now: float) -> None:
    """From now on somebody who has an account also comes in by this proof's issuer.

    Raises AccessError where the issuer's subject is somebody else here, or they are another subject of it already, and
    for a proof that was used.
    """

    def work(connection: Connection) -> None:
        _spend(connection, proof, now)
        known = _rater(connection, proof)
        if known == rater_id:
            return
        if known is not None:
            raise AccessError("somebody else here comes in by it already; they have to unlink it first")
        mine = (identity.c.rater == rater_id, identity.c.issuer == proof.issuer)
        if connection.execute(select(identity.c.subject).where(*mine)).first() is not None:
            raise AccessError("you come in by another account of this provider; unlink that one first")
        if connection.execute(select(account.c.rater).where(account.c.rater == rater_id)).first() is None:
            raise AccessError("this account was erased")
        _link(connection, rater_id, proof, now)

    store.write(work)


def unlink(store: Store, rater_id: str, issuer: str, *, now: float) -> None:
    """They do not come in by this issuer any more. Raises AccessError for somebody who has no password."""

    def work(connection: Connection) -> None:
        if connection.execute(select(account.c.password).where(account.c.rater == rater_id)).scalar() is None:
            raise AccessError("you have no password, so this is your only way in")
        mine = (identity.c.rater == rater_id, identity.c.issuer == issuer)
        if connection.execute(delete(identity).where(*mine)).rowcount:
            trail.add(connection, "identity unlinked", rater=rater_id, about={"issuer": issuer}, now=now)

    store.write(work)


def _rater(connection: Connection, proof: Proof) -> str | None:
    asked = select(identity.c.rater).where(identity.c.issuer == proof.issuer, identity.c.subject == proof.subject)
    found: str | None = connection.execute(asked).scalar()
    return found


def _make_person(connection: Connection, proof: Proof, groups: Sequence[str], now: float) -> str:
    for text in (proof.subject, proof.login, proof.name, *groups):
        require_storable(text, "the account")
    wished = proof.login.strip().casefold() or proof.subject
    logins = chain([wished], (f"{wished}-{number}" for number in count(2)))
    made = make_person(connection, logins, password=None, name=proof.name, groups=groups, now=now)
    assert made is not None  # there is always one more
    _link(connection, made, proof, now)
    return made


def _link(connection: Connection, rater_id: str, proof: Proof, now: float) -> None:
    row = {"issuer": proof.issuer, "subject": proof.subject, "rater": rater_id}
    connection.execute(insert(identity).values(**row, created_at=now))
    trail.add(connection, "identity linked", rater=rater_id, about={"issuer": proof.issuer}, now=now)


def _spend(connection: Connection, proof: Proof, now: float) -> None:
    """Raises AccessError for a proof that was used, or is too old: what was used before then is forgotten."""
    connection.execute(delete(spent_state).where(spent_state.c.until <= now))
    row = upsert(connection, spent_state).values(id=digest(proof.state), until=proof.until)
    noted = connection.execute(row.on_conflict_do_nothing().returning(spent_state.c.id)).first()
    if proof.until <= now or noted is None:
        raise AccessError("this sign-in was used already, or is too old; begin again")
