"""A provider of OpenID Connect on loopback, with keys of its own, that says of people what a test wants.

It is written from the standards, with the primitives of `cryptography` alone, so that it shares nothing with what it
is there to test. What a client does wrong, it refuses: another secret, a verifier that does not fit, a code twice.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from functools import cache
from typing import Any, Final
from urllib.parse import urlencode

import httpx2
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from tests.web.served import Served

CLIENT_ID, CLIENT_SECRET = "tuneful", "the provider's secret"

BO: Final = {"sub": "1001", "email": "bo@example.org", "email_verified": True, "name": "Bo B."}

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class FakeProvider:
    """url: its issuer. person: who signs in next, as claims. spoiled: claims of the ID token that are not as they
    should be, None for missing. asks: whether it shows a page before it sends people back. signs_with, header: of
    the ID token. described: what its discovery document says besides."""

    def __init__(self, algorithm: str = "RS256") -> None:
        self.algorithm = algorithm
        self.signs_with: Key | bytes = key_of(algorithm)
        self.header: dict[str, str] = {"alg": algorithm, "kid": "1"}
        self.person: dict[str, Any] = BO
        self.spoiled: dict[str, Any] = {}
        self.userinfo: dict[str, Any] = {}
        self.described: dict[str, Any] = {}
        self.asks = False
        self.asked: dict[str, str] = {}
        self.secret_in = "header"
        self._codes: dict[str, dict[str, str]] = {}
        self._served = Served(self._app())
        self.url = f"http://localhost:{self._served.port}"

    def close(self) -> None:
        self._served.close()

    def answer(self, place: str) -> str:
        """The URL to which it sends a browser back that was sent to `place`."""
        return httpx2.get(place, trust_env=False).headers["location"]

    def _app(self) -> FastAPI:
        app = FastAPI()
        app.get("/.well-known/openid-configuration")(self._description)
        app.get("/jwks")(lambda: {"keys": [jwk_of(key_of(self.algorithm)), {"kty": "of tomorrow", "kid": "2"}]})
        app.get("/authorize")(self._authorize)
        app.post("/authorize")(self._consent)
        app.post("/token")(self._token)
        app.get("/userinfo")(lambda: self.userinfo)
        return app

    def _description(self) -> dict[str, Any]:
        places = {
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
            "userinfo_endpoint": f"{self.url}/userinfo",
        }
        return {"issuer": self.url, **places, **self.described}

    def _authorize(self, request: Request) -> Response:
        asked = dict(request.query_params)
        assert asked["client_id"] == CLIENT_ID
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split()
        self.asked = asked
        if not self.asks:
            return self._consent()
        return HTMLResponse("<h1>The provider</h1><form method=post><button>Go on as Bo</button></form>")

    def _consent(self) -> Response:
        code = secrets.token_urlsafe(8)
        self._codes[code] = self.asked
        told = urlencode({"code": code, "state": self.asked["state"]})
        return RedirectResponse(f"{self.asked['redirect_uri']}?{told}", 303)

    async def _token(self, request: Request) -> Response:
        given = {name: str(value) for name, value in (await request.form()).items()}
        if not self._is_the_client(request, given):
            return JSONResponse({"error": "invalid_client"}, 401)
        asked = self._codes.pop(given["code"], None)
        if asked is None or asked["redirect_uri"] != given["redirect_uri"]:
            return JSONResponse({"error": "invalid_grant"}, 400)
        if base64url(hashlib.sha256(given["code_verifier"].encode()).digest()) != asked["code_challenge"]:
            return JSONResponse({"error": "invalid_grant"}, 400)
        access = secrets.token_urlsafe(8)
        claims = {
            "iss": self.url,
            "aud": CLIENT_ID,
            "iat": int(time.time()),
            "exp": int(time.time()) + 300,
            "nonce": asked["nonce"],
            "at_hash": base64url(hashlib.sha256(access.encode()).digest()[:16]),
            **self.person,
            **self.spoiled,
        }
        told = {name: value for name, value in claims.items() if value is not None}
        id_token = signed(self.signs_with, self.header, told)
        return JSONResponse({"access_token": access, "token_type": "Bearer", "expires_in": 300, "id_token": id_token})

    def _is_the_client(self, request: Request, given: dict[str, str]) -> bool:
        if self.secret_in == "nowhere":
            return given["client_id"] == CLIENT_ID and "authorization" not in request.headers
        if self.secret_in == "body":
            return (given.get("client_id"), given.get("client_secret")) == (CLIENT_ID, CLIENT_SECRET)
        told = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        return request.headers.get("authorization") == f"Basic {told}"


@cache
def key_of(algorithm: str, number: int = 0) -> Key:
    """Another key for another number."""
    if algorithm == "RS256":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def jwk_of(key: Key) -> dict[str, str]:
    """The public half (RFC 7517, 7518)."""
    numbers = key.public_key().public_numbers()
    if isinstance(numbers, rsa.RSAPublicNumbers):
        return {"kty": "RSA", "kid": "1", "n": base64url(_bytes(numbers.n, 256)), "e": base64url(_bytes(numbers.e, 3))}
    return {
        "kty": "EC",
        "kid": "1",
        "crv": "P-256",
        "x": base64url(_bytes(numbers.x, 32)),
        "y": base64url(_bytes(numbers.y, 32)),
    }


def signed(key: Key | bytes, header: dict[str, str], claims: dict[str, Any]) -> str:
    """A JWS (RFC 7515) of RS256, ES256, HS256 under a key of bytes, or, without a key, of none."""
    told = ".".join(base64url(json.dumps(part).encode()) for part in (header, claims))
    if isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(told.encode(), padding.PKCS1v15(), hashes.SHA256())
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        r, s = decode_dss_signature(key.sign(told.encode(), ec.ECDSA(hashes.SHA256())))
        signature = _bytes(r, 32) + _bytes(s, 32)
    elif key:
        code = hmac.HMAC(key, hashes.SHA256())
        code.update(told.encode())
        signature = code.finalize()
    else:
        signature = b""
    return f"{told}.{base64url(signature)}"


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(number: int, size: int) -> bytes:
    return number.to_bytes(size, "big")
