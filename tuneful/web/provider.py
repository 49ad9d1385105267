"""A provider of OpenID Connect, by which an organisation's people come in: Keycloak, Entra, Google, GitLab and others.

The way is the authorization code with PKCE. Where the provider's endpoints are (its discovery document) and which keys
it signs with are asked for at each sign-in: sign-ins are rare, and a key that was taken back is none at once. What is
checked is Authlib's work, and that of its JOSE library.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from tuneful.errors import AccessError, ConfigError, UnavailableError
from tuneful.feedback.identities import Proof
from tuneful.servers import refuse_no_url, short
from tuneful.web.attempts import Attempt

if TYPE_CHECKING:
    import httpx2
    from joserfc.jwk import KeySet

SCOPE: Final = "openid email profile"

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
"""Of signatures that are believed: those of a key that only the provider has."""

LEEWAY: Final = 60
"""Seconds by which the provider's clock and ours may differ."""

LONGEST_TOKEN: Final = 64 * 2**10
"""Bytes of an ID token's claims; an organisation may list hundreds of groups in it."""

TIMEOUT: Final = 5.0
"""Seconds without a sign of the provider."""

ASKED_AT_ONCE: Final = BoundedSemaphore(8)
"""A thread waits while the provider is asked; strangers who begin to sign in must not have all of them."""

_DOMAIN: Final = re.compile(r"(?:[^\W_](?:[\w-]*[^\W_])?\.)+[^\W_](?:[\w-]*[^\W_])?")

LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


class Provider:
    """name: as pages call it. domain: strangers with a verified e-mail address of it are let in; "" lets in none."""

    def __init__(
        self, issuer: str, client_id: str, *, secret: str | None = None, name: str = "", domain: str = ""
    ) -> None:
        """issuer: the provider's URL, as its discovery document calls it. secret: None for a public client.

        Raises ConfigError for what is no URL or not encrypted, for what is no domain, and without the packages of the
        extra `oidc`.
        """
        refuse_no_url("--oidc-issuer", issuer, example="https://id.example.org", keys="give the URL alone")
        if not _is_safe(issuer):
            raise ConfigError(f'--oidc-issuer: "{issuer}" is not encrypted; give one that begins with https://')
        try:
            import authlib  # noqa: F401
        except ImportError:
            raise ConfigError("--oidc-issuer: Authlib is not installed; pip install 'tuneful[oidc]'") from None
        self.issuer = issuer
        self.client_id = client_id
        self.name = name or str(urlsplit(issuer).hostname)
        self.domain = domain.strip().removeprefix("@").casefold()
        if self.domain and not _DOMAIN.fullmatch(self.domain):
            raise ConfigError(f'--oidc-domain: "{domain}" is no domain of e-mail addresses; give one as "example.org"')
        self._secret = secret

    def way_there(self, attempt: Attempt, *, back: str) -> str:
        """The provider's page for a browser that has begun an attempt. back: the URL that the answer comes to.

        Raises UnavailableError when the provider does not answer, or with something else than OpenID Connect.
        """
        with self._asked() as (connections, metadata):
            connections.redirect_uri = back
            page = metadata["authorization_endpoint"]
            asked = {"state": attempt.state, "nonce": attempt.nonce, "code_verifier": attempt.verifier}
            place, _ = connections.create_authorization_url(page, **asked)
        return str(place)

    def prove(self, attempt: Attempt, code: str, *, back: str, now: float) -> Proof:
        """Who the person is that came back with a code, which the provider takes once.

        Raises AccessError for a code that it does not take and for an ID token that is not what was asked for, and
        UnavailableError as `way_there` does.
        """
        with self._asked() as (connections, metadata):
            connections.redirect_uri = back
            given = {"grant_type": "authorization_code", "code": code, "code_verifier": attempt.verifier}
            token = connections.fetch_token(metadata["token_endpoint"], **given)
            keys = _key_set(_json(connections.request("GET", metadata["jwks_uri"], withhold_token=True)))
            claims = self._checked(token, keys, attempt.nonce, now)
            if "email" not in claims and "userinfo_endpoint" in metadata:
                more = _json(connections.request("GET", metadata["userinfo_endpoint"]))
                if more.get("sub") == claims["sub"]:
                    claims = more | claims
        return self._proof(claims, attempt)

    def _checked(self, token: Mapping[str, Any], keys: KeySet, nonce: str, now: float) -> dict[str, Any]:
        """The claims of an ID token: signed by the provider, for this client, for this attempt, and not over."""
        from authlib.oidc.core import CodeIDToken
        from joserfc import jwt
        from joserfc.jws import JWSRegistry

        registry = JWSRegistry(algorithms=list(ALGORITHMS), strict_check_header=False)
        registry.max_payload_length = LONGEST_TOKEN
        read = jwt.decode(token["id_token"], keys, registry=registry)
        wanted = {
            "iss": {"essential": True, "value": self.issuer},
            "aud": {"essential": True, "value": self.client_id},
            "sub": {"essential": True},
        }
        about = {"nonce": nonce, "client_id": self.client_id, "access_token": token.get("access_token")}
        CodeIDToken(read.claims, read.header, wanted, about).validate(now=int(now), leeway=LEEWAY)
        if not isinstance(read.claims["sub"], str):
            raise AccessError(f"{self.name} names you by something that is no text")
        return dict(read.claims)

    def _proof(self, claims: Mapping[str, Any], attempt: Attempt) -> Proof:
        def text(name: str) -> str:
            found = claims.get(name)
            return found.strip() if isinstance(found, str) else ""

        address = text("email") if claims.get("email_verified") is True else ""
        somebody, at, domain = address.rpartition("@")
        return Proof(
            issuer=self.issuer,
            subject=claims["sub"],
            login=address or text("preferred_username"),
            name=text("name"),
            domain=domain.casefold() if somebody and at else "",
            state=attempt.state,
            until=attempt.until,
        )

    def lets_in(self, proof: Proof) -> bool:
        """Whether somebody who is nobody here yet is."""
        return bool(self.domain) and proof.domain == self.domain

    @contextmanager
    def _asked(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Connections to the provider, and its discovery document; what goes wrong with them is told in a line."""
        import httpx2
        from authlib.common.errors import AuthlibBaseError
        from authlib.integrations.httpx_client import OAuth2Client
        from joserfc.errors import JoseError

        if not ASKED_AT_ONCE.acquire(timeout=TIMEOUT):
            raise UnavailableError("too many are signing in at this moment; try again")
        try:
            with OAuth2Client(
                self.client_id, self._secret, scope=SCOPE, code_challenge_method="S256", leeway=0, timeout=TIMEOUT
            ) as connections:
                metadata = self._metadata(connections)
                connections.token_endpoint_auth_method = self._way_of_the_secret(metadata)
                yield connections, metadata
        except httpx2.HTTPStatusError as error:
            raise self._refused(error.response) from None
        except httpx2.RequestError as error:
            raise UnavailableError(f"{self.name} does not answer ({type(error).__name__})") from None
        except JoseError as error:
            raise AccessError(f"{self.name} says who you are in a way that does not hold: {_told(error)}") from None
        except AuthlibBaseError as error:
            raise AccessError(f"{self.name} did not sign you in: {_told(error)}") from None
        except (ValueError, KeyError, TypeError, httpx2.InvalidURL) as error:
            problem = f"{self.name} answers with something else than OpenID Connect ({_told(error)})"
            raise UnavailableError(problem) from None
        finally:
            ASKED_AT_ONCE.release()

    def _metadata(self, connections: Any) -> dict[str, Any]:
        place = f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"
        found = _json(connections.request("GET", place, withhold_token=True))
        if found["issuer"] != self.issuer:
            told = short(str(found["issuer"]))
            raise UnavailableError(f'{self.name} calls itself "{told}"; give that as --oidc-issuer')
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint"):
            if not _is_safe(str(found.get(name, "https:"))):
                raise UnavailableError(f"{self.name} has a {name} that is not encrypted")
        return found

    def _way_of_the_secret(self, metadata: Mapping[str, Any]) -> str:
        if self._secret is None:
            return "none"
        known = metadata.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        return "client_secret_post" if "client_secret_basic" not in known else "client_secret_basic"

    def _refused(self, answer: httpx2.Response) -> Exception:
        """A code that is no good, or a client, are told in a 4xx of the token endpoint (RFC 6749, 5.2)."""
        try:
            why = re.sub(r"[^\w -]", "", str(answer.json()["error"]))[:60]
        except (ValueError, KeyError, TypeError):
            return UnavailableError(f"{self.name} answers with status {answer.status_code}")
        return AccessError(f"{self.name} did not sign you in: {why}")


def _is_safe(url: str) -> bool:
    """Encrypted, or on this machine."""
    address = urlsplit(url)
    return address.scheme == "https" or (address.scheme == "http" and address.hostname in LOOPBACK)


def _json(answer: httpx2.Response) -> dict[str, Any]:
    answer.raise_for_status()
    found = answer.json()
    if not isinstance(found, dict):
        raise TypeError(f"no object at {answer.url}")
    return found


def _key_set(told: Mapping[str, Any]) -> KeySet:
    """The provider's keys, but for those of a kind that is not known here."""
    from joserfc.errors import JoseError
    from joserfc.jwk import KeySet, import_key

    keys = []
    for one in told["keys"]:
        try:
            keys.append(import_key(one))
        except (JoseError, ValueError):
            continue
    return KeySet(keys)


def _told(error: Exception) -> str:
    return short(str(error))
