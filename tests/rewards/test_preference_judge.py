"""Which of two answers a model prefers, read from what a server of this machine replies."""

from __future__ import annotations

import json
import math
from typing import Any

import httpx2
import pytest

from tuneful.errors import RewardError
from tuneful.records import Prompt
from tuneful.rewards.chat import ChatModel
from tuneful.rewards.preference_judge import PreferenceJudge

PROMPT = Prompt("How do I stop a tap that drips?")


def asked(reply: dict[str, Any], seen: list[dict[str, Any]] | None = None) -> float:
    """What the judge says when the server replies so."""

    def handle(request: httpx2.Request) -> httpx2.Response:
        if seen is not None:
            seen.append(json.loads(request.content))
        return httpx2.Response(200, json={"choices": [reply]})

    judge = PreferenceJudge(ChatModel("http://judge/v1", "m", retries=0), "Prefer the helpful one.")
    with httpx2.Client(transport=httpx2.MockTransport(handle)) as client:
        return judge.prefer(client, PROMPT, "Change the washer.", "Go away.")


def reply(content: str | None, **tokens: float) -> dict[str, Any]:
    top = [{"token": token.replace("_", " "), "logprob": math.log(p)} for token, p in tokens.items()]
    told = {"content": [{"token": content, "top_logprobs": top}]} if tokens else None
    return {"message": {"role": "assistant", "content": content}, "logprobs": told}


def test_the_probability_is_that_of_the_two_letters() -> None:
    assert asked(reply("A", A=0.6, B=0.2, The=0.2)) == pytest.approx(0.75)
    assert asked(reply("A", A=0.3, _A=0.3, B=0.1, b=0.1)) == pytest.approx(0.75)  # spellings add up
    assert asked(reply("B", B=0.9)) == 0.0


def test_a_server_that_tells_no_probabilities() -> None:
    assert asked(reply(" A.")) == 1.0
    assert asked(reply("b")) == 0.0


@pytest.mark.parametrize("said", [reply("Both."), reply(None), reply("C", C=1.0)], ids=["word", "nothing", "letter"])
def test_neither_a_nor_b_is_no_answer(said: dict[str, Any]) -> None:
    with pytest.raises(RewardError, match="where A or B was asked for"):
        asked(said)


def test_what_is_asked() -> None:
    seen: list[dict[str, Any]] = []
    asked(reply("A", A=1.0), seen)
    (body,) = seen
    assert (body["temperature"], body["max_tokens"], body["logprobs"]) == (0, 1, True)
    system, user = (message["content"] for message in body["messages"])
    assert "Prefer the helpful one." in system
    assert user.index("Change the washer.") < user.index("Go away.")
    mark = system.split("the mark ")[1].split(".")[0]
    assert user.count(mark) == 4
