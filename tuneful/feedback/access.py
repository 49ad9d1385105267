"""Who may come in: accounts, invitations that work once, sessions of people and tokens of programs.

Secrets are 256 random bits and the database holds their SHA-256 alone, so that a stolen copy opens nothing; passwords
are hashed with argon2id. Nobody begins with a password: the first person comes by an invitation that the server prints.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, Connection, Update, bindparam, delete, insert, select, update

from tuneful.errors import AccessError, MissingError, StoreError, UnavailableError
from tuneful.feedback import trail
from tuneful.feedback.passwords import hash_of, matches
from tuneful.feedback.projects import Role
from tuneful.feedback.store import Store, require_name, require_storable, upsert
from tuneful.feedback.tables import account, identity, invitation, membership, project, rater, session, token

Scope = Literal["read", "label", "lead"]

DAY: Final = 86_400.0

SESSION_IDLE: Final = 7 * DAY
"""A session ends when nobody has used it for this long."""

SESSION_LIFE: Final = 30 * DAY
"""A session ends this long after it began, however much it is used."""

INVITATION_LIFE: Final = 14 * DAY

SEEN_EVERY: Final = 600.0
"""How old the note of a session's last use may get before it is written anew; each note is a write."""

LONGEST_GROUP: Final = 80
"""Characters of what somebody says of themselves, such as "nurse"."""

FREE_FAILURES: Final = 5
"""Wrong passwords that cost nothing. After each further one the next try has to wait, twice as long each time."""

LONGEST_WAIT: Final = 300.0
"""Seconds that the wait after a wrong password does not exceed."""

NO_WAY_IN: Final = "this login and password do not go together, or were tried too often; then wait five minutes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """A person or program, and what they are in each project. scopes: what a token is good for; people have all."""

    rater: str
    login: str
    name: str
    admin: bool
    roles: Mapping[str, Role]
    scopes: frozenset[Scope] = frozenset(("read", "label", "lead"))

    def leads(self, project_id: str) -> bool:
        return "lead" in self.scopes and (self.admin or self.roles.get(project_id) == "lead")


@dataclass(frozen=True, slots=True, kw_only=True)
class Invited:
    """What an invitation opens: a role in a project, or, without a project, the server itself."""

    project: str | None
    project_name: str | None
    role: Role | Literal["admin"]


NAMED: Final = 16
"""Characters of an invitation's hash that name it to leads and in the trail."""


def digest(secret: str) -> str:
    """What the database holds of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def csrf_of(secret: str) -> str:
    """The token that a page of this session sends with every change; it tells nothing of the secret."""
    return hashlib.sha256(f"csrf {secret}".encode()).hexdigest()


def invite(
    store: Store,
    *,
    project_id: str | None,
    role: Role | Literal["admin"] = "labeler",
    by: str | None = None,
    now: float,
) -> str:
    """The secret of a new invitation, which one person can accept within two weeks.

    by: the rater who invites; None for the command line.
    """
    return store.write(lambda connection: _invite(connection, project_id, role, by, now))


def invite_first_admin(store: Store, *, now: float) -> str | None:
    """The secret of an invitation for the first admin, in place of any made before; None once there is an admin."""

    def work(connection: Connection) -> str | None:
        if connection.execute(select(account.c.rater).where(account.c.admin)).first():
            return None
        connection.execute(delete(invitation).where(invitation.c.role == "admin", invitation.c.used_at.is_(None)))
        return _invite(connection, None, "admin", None, now)

    return store.write(work)


def _invite(connection: Connection, project_id: str | None, role: str, by: str | None, now: float) -> str:
    secret = secrets.token_urlsafe(32)
    row = {"id": digest(secret), "project": project_id, "role": role, "until": now + INVITATION_LIFE}
    connection.execute(insert(invitation).values(**row, created_at=now))
    about = {"invitation": _named(secret), "role": role}
    trail.add(connection, "invitation made", project=project_id, rater=by, about=about, now=now)
    return secret


def _named(secret: str) -> str:
    """What the trail calls a secret: the beginning of the hash under which the database has it."""
    return digest(secret)[:NAMED]


def invited(store: Store, secret: str, *, now: float) -> Invited:
    """What an invitation opens. Raises AccessError for one that is unknown, used or over."""
    with store.read() as connection:
        return _open_invitation(connection, secret, now)


def accept(
    store: Store, secret: str, *, login: str, password: str, name: str = "", groups: Sequence[str] = (), now: float
) -> str:
    """The id of a new rater with an account, to whom the invitation's doors are open.

    groups: what a person says of themselves, such as "nurse"; shown as counts alone. Raises AccessError for an
    invitation that cannot be used any more, a login that is taken or empty, and a password that is too short.
    """
    login = login.strip().casefold()
    if not login:
        raise AccessError("the login is empty; choose a name or an e-mail address")
    for text in (login, name, *groups):
        require_storable(text, "the account")
    hashed = hash_of(password)

    def work(connection: Connection) -> str:
        _open_invitation(connection, secret, now)
        made = make_person(connection, [login], password=hashed, name=name, groups=groups, now=now)
        if made is None:
            raise AccessError(f'the login "{login}" is taken; choose another, or log in and open the invitation again')
        use_invitation(connection, secret, made, now=now)
        return made

    return store.write(work)


def make_person(
    connection: Connection,
    logins: Iterable[str],
    *,
    password: str | None,
    name: str,
    groups: Sequence[str] = (),
    now: float,
) -> str | None:
    """The id of a new rater, with an account that opens nothing yet, by the first of these logins that is free; None
    when all are taken, and then the transaction is not to be kept.

    password: its hash; None for somebody who comes in by a provider alone. Raises StoreError for a group whose name is
    longer than LONGEST_GROUP characters.
    """
    for group in groups:
        require_name(group, "group", longest=LONGEST_GROUP)
    made = str(uuid.uuid4())
    who: dict[str, Any] = {"id": made, "kind": "human", "name": name.strip() or None, "groups": list(groups)}
    connection.execute(insert(rater).values(**who, created_at=now))
    for login in logins:
        row = upsert(connection, account).values(rater=made, login=login, password=password, created_at=now)
        put = row.on_conflict_do_nothing(index_elements=["login"]).returning(account.c.rater)
        if connection.execute(put).first() is not None:
            return made
    return None


def join(store: Store, secret: str, rater_id: str, *, now: float) -> None:
    """Accept an invitation as somebody who has an account. Raises AccessError as `invited` does."""
    store.write(lambda connection: use_invitation(connection, secret, rater_id, now=now))


def log_in(store: Store, login: str, password: str, *, now: float) -> str:
    """The secret of a new session. Raises AccessError for a wrong login or password, and after several of them also
    for a right one that does not wait."""
    return sign_in(store, _by_password(store, account.c.login == login.strip().casefold(), password, now), now=now)


def require_password(store: Store, rater_id: str, password: str, *, now: float) -> None:
    """Raises AccessError for another password than theirs, as `log_in` does."""
    _by_password(store, account.c.rater == rater_id, password, now)


def _by_password(store: Store, whose: ColumnElement[bool], password: str, now: float) -> str:
    """The rater of an account. An unknown one takes as long as a known one."""
    with store.read() as connection:
        found = connection.execute(select(account).where(whose)).first()
    if found is not None and found.wait_until is not None and found.wait_until > now:
        raise AccessError(NO_WAY_IN)
    if not matches(password, None if found is None else found.password):
        if found is not None:
            store.write(lambda connection: _note_failure(connection, found.rater, now))
        raise AccessError(NO_WAY_IN)
    assert found is not None
    if found.failures:
        store.write(lambda connection: _forget_failures(connection, found.rater))
    return str(found.rater)


def sign_in(store: Store, rater_id: str, *, now: float) -> str:
    """The secret of a new session of a rater."""
    return store.write(lambda connection: begin_session(connection, rater_id, now=now))


def begin_session(connection: Connection, rater_id: str, *, now: float) -> str:
    secret = secrets.token_urlsafe(32)
    row = {"id": digest(secret), "rater": rater_id, "seen_at": now, "created_at": now}
    connection.execute(insert(session).values(**row))
    return secret


def sign_out(store: Store, secret: str) -> None:
    store.write(lambda connection: connection.execute(delete(session).where(session.c.id == digest(secret))))


def sign_out_everywhere(store: Store, rater_id: str) -> None:
    store.write(lambda connection: connection.execute(delete(session).where(session.c.rater == rater_id)))


_SESSION: Final = select(session).where(session.c.id == bindparam("session"))


def session_of(store: Store, secret: str, *, now: float) -> Who | None:
    """Who a session belongs to; None when it is unknown or over."""
    id_ = digest(secret)
    with store.read() as connection:
        found = connection.execute(_SESSION, {"session": id_}).first()
        if found is None or now - found.seen_at > SESSION_IDLE or now - found.created_at > SESSION_LIFE:
            return None
        who = _who(connection, found.rater)
    if now - found.seen_at > SEEN_EVERY:
        _note_use(store, update(session).where(session.c.id == id_).values(seen_at=now))
    return who


def make_token(store: Store, rater_id: str, name: str, scopes: Sequence[Scope], *, days: float, now: float) -> str:
    """The secret of a new token for programs, shown this once. It does what its rater may and `scopes` allow.

    Raises StoreError for a number of days after which it never was, or always will be, good.
    """
    if not 0 < days * DAY < math.inf:
        raise StoreError(f"a token for {days:g} days: give a number of days above 0")

    def work(connection: Connection) -> str:
        secret = f"tuneful_{secrets.token_urlsafe(32)}"
        row = {"id": digest(secret), "rater": rater_id, "name": name, "scopes": list(scopes), "until": now + days * DAY}
        connection.execute(insert(token).values(**row, created_at=now))
        about = {"token": _named(secret), "scopes": list(scopes), "days": days}
        trail.add(connection, "token made", rater=rater_id, about=about, now=now)
        return secret

    return store.write(work)


_TOKEN: Final = select(token).where(token.c.id == bindparam("token"))


def holder_of(store: Store, secret: str, *, now: float) -> Who | None:
    """Who a token stands for; None when it is unknown or over."""
    id_ = digest(secret)
    with store.read() as connection:
        found = connection.execute(_TOKEN, {"token": id_}).first()
        if found is None or found.until <= now:
            return None
        who = _who(connection, found.rater, frozenset(found.scopes))
    if found.used_at is None or now - found.used_at > SEEN_EVERY:
        _note_use(store, update(token).where(token.c.id == id_).values(used_at=now))
    return who


def _note_use(store: Store, note: Update) -> None:
    """A page that only reads answers also while nothing can be written."""
    with suppress(UnavailableError):
        store.write(lambda connection: connection.execute(note))


def rater_of(store: Store, login: str) -> str:
    """Whose login this is. Raises MissingError for nobody's."""
    with store.read() as connection:
        found = connection.execute(select(account.c.rater).where(account.c.login == login.strip().casefold())).scalar()
    if found is None:
        raise MissingError(f'login "{login}": unknown')
    return str(found)


def change_password(store: Store, rater_id: str, old: str, new: str, *, now: float) -> None:
    """Also ends all their sessions. Raises AccessError for a wrong old password and a new one that is too short."""
    require_password(store, rater_id, old, now=now)
    hashed = hash_of(new)
    mine = account.c.rater == rater_id
    store.write(lambda connection: connection.execute(update(account).where(mine).values(password=hashed)))
    sign_out_everywhere(store, rater_id)


def erase(store: Store, rater_id: str, *, by: str | None = None, now: float) -> None:
    """Forget who a rater is: name, address, groups, account, identities, sessions and tokens. What they judged stays,
    under their id, which says nothing."""

    def work(connection: Connection) -> None:
        for table in (session, token, identity, account):
            connection.execute(delete(table).where(table.c.rater == rater_id))
        nobody: dict[str, Any] = {"name": None, "email": None, "groups": []}
        connection.execute(update(rater).where(rater.c.id == rater_id).values(**nobody))
        trail.add(connection, "account erased", rater=by, about={"rater": rater_id}, now=now)

    store.write(work)


def _open_invitation(connection: Connection, secret: str, now: float) -> Invited:
    found = connection.execute(
        select(invitation, project.c.name)
        .outerjoin(project, project.c.id == invitation.c.project)
        .where(invitation.c.id == digest(secret))
    ).first()
    if found is None or found.used_at is not None or found.until <= now:
        why = "is unknown" if found is None else "was used" if found.used_at is not None else "is over"
        raise AccessError(f"this invitation {why}; ask for another")
    return Invited(project=found.project, project_name=found.name, role=found.role)


def use_invitation(connection: Connection, secret: str, rater_id: str, *, now: float) -> None:
    """Open its doors to somebody who has an account. Raises AccessError as `invited` does."""
    opened = _open_invitation(connection, secret, now)
    unused = (invitation.c.id == digest(secret), invitation.c.used_at.is_(None))
    if connection.execute(update(invitation).where(*unused).values(used_at=now, used_by=rater_id)).rowcount == 0:
        raise AccessError("this invitation was used this moment; ask for another")
    if opened.role == "admin":
        connection.execute(update(account).where(account.c.rater == rater_id).values(admin=True))
    if opened.project is not None:
        _let_in(connection, opened.project, opened.role, rater_id, now)
    about = {"invitation": _named(secret), "role": opened.role}
    trail.add(connection, "invitation used", project=opened.project, rater=rater_id, about=about, now=now)


def _let_in(connection: Connection, project_id: str, role: str, rater_id: str, now: float) -> None:
    """A member of the project, or a lead of it who was a labeler before."""
    mine = (membership.c.project == project_id, membership.c.rater == rater_id)
    if connection.execute(select(membership.c.role).where(*mine)).first() is None:
        row = {"project": project_id, "rater": rater_id, "role": role, "created_at": now}
        connection.execute(insert(membership).values(**row))
    elif role == "lead":
        connection.execute(update(membership).where(*mine).values(role="lead"))


# Asked with every request, and built once, as in `assignment`.
_RATER: Final = (
    select(rater.c.name, account.c.login, account.c.admin)
    .outerjoin(account, account.c.rater == rater.c.id)
    .where(rater.c.id == bindparam("rater"))
)

_ROLES: Final = select(membership.c.project, membership.c.role).where(membership.c.rater == bindparam("rater"))


def _who(connection: Connection, rater_id: str, scopes: frozenset[Scope] | None = None) -> Who:
    found = connection.execute(_RATER, {"rater": rater_id}).one()
    roles = connection.execute(_ROLES, {"rater": rater_id}).all()
    limits = {} if scopes is None else {"scopes": scopes}
    return Who(
        rater=rater_id,
        login=found.login or "",
        name=found.name or found.login or "",
        admin=bool(found.admin),
        roles={row.project: row.role for row in roles},
        **limits,
    )


def _note_failure(connection: Connection, rater_id: str, now: float) -> None:
    mine = account.c.rater == rater_id
    failures = 1 + connection.execute(select(account.c.failures).where(mine).with_for_update()).scalar_one()
    over = failures - FREE_FAILURES
    wait = min(2.0 ** min(over, 20), LONGEST_WAIT) if over > 0 else 0.0
    connection.execute(update(account).where(mine).values(failures=failures, wait_until=now + wait))


def _forget_failures(connection: Connection, rater_id: str) -> None:
    row = {"failures": 0, "wait_until": None}
    connection.execute(update(account).where(account.c.rater == rater_id).values(**row))
