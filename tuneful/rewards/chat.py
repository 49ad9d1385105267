"""A language model behind an OpenAI-compatible `/chat/completions`, asked until it answers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuneful.errors import RewardError
from tuneful.servers import NoAnswerError, ask, short

if TYPE_CHECKING:
    import httpx2


@dataclass(frozen=True, slots=True)
class ChatModel:
    """Where a model is and how it is asked.

    url: what stands before `/chat/completions`. key_variable: the environment variable that holds the key of the API.
    sleep: waits so many seconds.
    """

    url: str
    model: str
    key_variable: str | None = None
    timeout: float = 60.0
    retries: int = 5
    sleep: Callable[[float], None] = time.sleep

    def client(self) -> httpx2.Client:
        """Connections that carry the key, shared by threads. Raises RewardError when there is no such key."""
        import httpx2

        return httpx2.Client(headers=self._headers(), timeout=self.timeout)

    def choose(
        self, client: httpx2.Client, messages: Sequence[Mapping[str, str]], **settings: Any
    ) -> Mapping[str, Any]:
        """The first choice of the model's reply, asked for again after growing waits while that may help.

        Raises RewardError when the model cannot be reached, refuses, or replies with no chat completion.
        """
        address = self.url.rstrip("/") + "/chat/completions"
        body = {"model": self.model, "messages": list(messages), "temperature": 0} | settings
        try:
            response = ask(lambda: client.post(address, json=body), retries=self.retries, sleep=self.sleep)
        except NoAnswerError as error:
            if error.status is not None:
                raise self.error(f"refuses: {error.problem}; look at its URL, model and key") from None
            raise self.error(
                f"cannot be reached, tried {error.tries} times: {error.problem}; is the server there?"
            ) from None
        try:
            choice: Any = response.json()["choices"][0]
            choice["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError):
            told = short(response.text)
            raise self.error(f'answers "{told}", which is no chat completion; its URL ends in /v1 as a rule') from None
        return dict(choice)

    def error(self, problem: str) -> RewardError:
        return RewardError(f"judge {self.model} at {self.url} {problem}")

    def _headers(self) -> dict[str, str]:
        if self.key_variable is None:
            return {}
        key = os.environ.get(self.key_variable, "").strip()
        if not key:
            raise self.error(f"needs a key, and the environment has no {self.key_variable}; set it")
        if not (key.isascii() and key.isprintable()):
            raise self.error(f"needs a key, and {self.key_variable} holds what is none; set it anew")
        return {"Authorization": f"Bearer {key}"}


def text_of(choice: Mapping[str, Any]) -> str:
    """What was said; "" when the model said nothing."""
    said = choice["message"]["content"]
    return said if isinstance(said, str) else ""
