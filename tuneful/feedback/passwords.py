"""Passwords: their argon2id hashes are kept, they are not."""

from __future__ import annotations

import secrets
from functools import cache
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Final

from tuneful.errors import AccessError

if TYPE_CHECKING:
    from argon2 import PasswordHasher

SHORTEST_PASSWORD: Final = 10

HASHED_AT_ONCE: Final = BoundedSemaphore(2)
"""A hash takes 64 MiB and a core for a while; strangers who try logins must not have all of them."""


def hash_of(password: str) -> str:
    """What is kept of a new password. Raises AccessError for one that is too short."""
    if len(password) < SHORTEST_PASSWORD:
        raise AccessError(f"the password has {len(password)} characters; choose one of {SHORTEST_PASSWORD} or more")
    with HASHED_AT_ONCE:
        return _hasher().hash(password)


def matches(password: str, kept: str | None) -> bool:
    """Whether it is the one of this hash. Of None, nobody's, no password is, and to say so takes as long."""
    from argon2.exceptions import VerificationError

    try:
        with HASHED_AT_ONCE:
            _hasher().verify(_nobody() if kept is None else kept, password)
    except VerificationError:
        return False
    return kept is not None


@cache
def _hasher() -> PasswordHasher:
    from argon2 import PasswordHasher

    return PasswordHasher()


@cache
def _nobody() -> str:
    """The hash of a password that nobody has."""
    return _hasher().hash(secrets.token_urlsafe(32))
