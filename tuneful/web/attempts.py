"""A sign-in by a provider that a browser has begun and not ended.

All that is known of it stands in a cookie of that browser, and nothing on the server, where strangers could fill a
table. The provider gets hashes of the cookie: an answer fits the browser that asked for it and no other, and a cookie
that was changed meanwhile fits no answer.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from dataclasses import asdict, dataclass, replace
from typing import Final, Literal, Self

from pydantic import TypeAdapter

from tuneful.errors import AccessError

ATTEMPT_COOKIE: Final = "tuneful_attempt"

ATTEMPT_LIFE: Final = 600.0
"""Seconds for the way to the provider and back."""

LARGEST_COOKIE: Final = 3_500
"""Characters; browsers drop a cookie of more than 4096 bytes, its name and settings included, without a word."""

Aim = Literal["log in", "accept", "link"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """aim: what it is for. place: the page to go to after logging in. invitation: the secret of the one to accept, as
    somebody of these groups. key: of the session that it belongs to, for "link"; it is not in the cookie, so that
    nobody's cookie makes a session link what it did not ask for."""

    aim: Aim
    place: str = "/"
    invitation: str = ""
    groups: tuple[str, ...] = ()
    began: float
    secret: str
    key: str = ""

    @classmethod
    def begin(
        cls,
        aim: Aim,
        *,
        place: str = "/",
        invitation: str = "",
        groups: tuple[str, ...] = (),
        key: str = "",
        now: float,
    ) -> Self:
        """Raises AccessError for more groups than a cookie can hold."""
        secret = secrets.token_urlsafe(32)
        made = cls(aim=aim, place=place, invitation=invitation, groups=groups, began=now, secret=secret, key=key)
        if len(made.cookie) > LARGEST_COOKIE:
            raise AccessError("that is too long; name fewer groups")
        return made

    @classmethod
    def read(cls, cookie: str, *, session: str, now: float) -> Self | None:
        """The one of a cookie, in a browser with this session; None for a cookie that is none, or too old."""
        try:
            told = base64.urlsafe_b64decode(cookie + "=" * (-len(cookie) % 4))
            read = TypeAdapter(cls).validate_json(told)
        except ValueError:  # what is no base64, and what is no attempt
            return None
        if not 0 <= now - read.began < ATTEMPT_LIFE:
            return None
        return replace(read, key=session if read.aim == "link" else "")

    @property
    def until(self) -> float:
        return self.began + ATTEMPT_LIFE

    @property
    def cookie(self) -> str:
        told = {name: value for name, value in asdict(self).items() if name != "key"}
        return base64.urlsafe_b64encode(json.dumps(told, sort_keys=True).encode()).decode().rstrip("=")

    @property
    def state(self) -> str:
        """What comes back with the answer."""
        return self._hash("state")

    @property
    def nonce(self) -> str:
        """What stands in the ID token."""
        return self._hash("nonce")

    @property
    def verifier(self) -> str:
        """Whose hash the provider gets first; who brings the code shows that they have it (PKCE, RFC 7636)."""
        return self._hash("verifier")

    def _hash(self, what: str) -> str:
        return hashlib.sha256(f"{what} {self.key} {self.cookie}".encode()).hexdigest()
