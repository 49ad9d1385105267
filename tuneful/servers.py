"""Asking a server over HTTP, again after growing waits while that may help."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tuneful.errors import ConfigError

if TYPE_CHECKING:
    import httpx2

FIRST_WAIT = 0.5
"""Seconds before the first repeated request; each further wait is twice as long, up to LONGEST_WAIT."""

LONGEST_WAIT = 60.0


class NoAnswerError(Exception):
    """A server refused, or could not be reached however often it was tried.

    problem: what it said, or what went wrong. status: that of a refusal; None when no answer came in `tries` requests.
    """

    def __init__(self, problem: str, *, status: int | None = None, tries: int = 1) -> None:
        super().__init__(problem)
        self.problem = problem
        self.status = status
        self.tries = tries


def ask(
    request: Callable[[], httpx2.Response], *, retries: int, sleep: Callable[[float], None] = time.sleep
) -> httpx2.Response:
    """The answer of status 200 to `request`, which is made again when it is refused for the moment (429, 5xx), lost or
    late.

    Raises NoAnswerError on any other status, and after `retries` more requests.
    """
    import httpx2

    for attempt in range(retries + 1):
        wait = min(FIRST_WAIT * 2**attempt, LONGEST_WAIT)
        try:
            response = request()
        except httpx2.RequestError as error:  # no connection, a late answer, one that cannot be unpacked
            problem = f"{type(error).__name__}: {short(str(error)) or 'no answer'}"
        else:
            if response.status_code == 200:
                return response
            problem = f"status {response.status_code}: {short(response.text)}"
            if response.status_code != 429 and response.status_code < 500:
                raise NoAnswerError(problem, status=response.status_code)
            wait = min(_asked_for(response, wait), LONGEST_WAIT)
        if attempt < retries:
            sleep(wait)
    raise NoAnswerError(problem, tries=retries + 1)


def refuse_no_url(setting: str, url: str, *, example: str, keys: str) -> None:
    """ConfigError for a text that is no URL, or one that holds a password or key. keys: where these belong instead."""
    no_url = f'{setting}: "{url}" is no URL; write it as "{example}"'
    try:
        address = urlsplit(url)
        if "@" in address.netloc or address.query:
            raise ConfigError(f"{setting}: the URL holds a password or key, which run.json would keep; {keys}")
        if address.scheme not in ("http", "https") or not address.hostname or address.port == 0:
            raise ConfigError(no_url)
    except ValueError:  # brackets that do not close, a port that is no number
        raise ConfigError(no_url) from None


def short(text: str) -> str:
    """The beginning of a text, on one line."""
    return " ".join(text.split())[:160]


def _asked_for(response: httpx2.Response, otherwise: float) -> float:
    """The seconds that a server asks to wait for; it may also name a date, which is left aside."""
    told = response.headers.get("retry-after", "")
    return float(told) if told.isdigit() else otherwise
