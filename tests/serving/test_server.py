"""The server by its protocol alone: requests by the standard library, compared with the sampler in this process."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.serving.process import Served, call
from tuneful.generation.rollout import Rollout
from tuneful.generation.sampler import Sampler
from tuneful.generation.sampling import Sampling
from tuneful.models.adapters import LoRA
from tuneful.models.loading import load_language_model, load_tokenizer
from tuneful.models.roles import Role, policy_roles
from tuneful.records import Prompt

PROMPTS = [Prompt.user("hello you"), Prompt("fix the tap"), Prompt.user("when can i sleep")]
SAMPLING = Sampling(num_samples=3, max_new_tokens=9)


@pytest.fixture(scope="module")
def here(base_dir: Path) -> Rollout:
    """What this process samples with seed 5."""
    sampler = Sampler(Role("policy", load_language_model(base_dir)), load_tokenizer(base_dir))
    return sampler.sample(PROMPTS, SAMPLING, seed=5)


def request(rollout: Rollout, number: int, **changed: Any) -> dict[str, Any]:
    body = {"prompt": rollout.prompts[3 * number], "n": 3, "max_tokens": 9, "logprobs": 0, "return_token_ids": True}
    return {**body, "uniforms": {"seed": 5, "prompt": number}, **changed}


def complete(served: Served, **body: Any) -> tuple[int, Any]:
    return call(served.url + "/v1/completions", body)


def refusal(served: Served, **body: Any) -> str:
    status, answer = complete(served, **body)
    assert status == 400
    return str(answer["error"]["message"])


def test_tokens_and_logprobs_are_those_of_the_sampler(served: Served, here: Rollout) -> None:
    """Whatever is asked together: all prompts at once, then each alone."""
    with ThreadPoolExecutor(3) as threads:
        together = [*threads.map(lambda k: complete(served, **request(here, k)), range(3))]
    for k, (status, answer) in [*enumerate(together), *((k, complete(served, **request(here, k))) for k in range(3))]:
        assert status == 200
        for g, choice in enumerate(answer["choices"]):
            row = 3 * k + g
            ids = here.completions[row]
            assert choice["token_ids"] == ids
            assert choice["prompt_token_ids"] == here.prompts[row]
            torch.testing.assert_close(
                torch.tensor(choice["logprobs"]["token_logprobs"]), here.logprobs[row, : len(ids)], atol=1e-5, rtol=0
            )
            assert choice["finish_reason"] == {"eos": "stop", "length": "length"}[here.finish[row]]


def test_a_text_is_read_as_a_prompt_is(served: Served, here: Rollout) -> None:
    _, answer = complete(served, **request(here, 1, prompt="fix the tap"))
    assert [c["token_ids"] for c in answer["choices"]] == here.completions[3:6]
    assert [c["text"] for c in answer["choices"]] == here.texts[3:6]


def test_a_seed_fixes_an_answer_and_none_does_not(served: Served) -> None:
    asked = {"prompt": "hello", "max_tokens": 20, "n": 4}
    texts = [
        [c["text"] for c in complete(served, **asked, **seed)[1]["choices"]] for seed in ({"seed": 3},) * 2 + ({},) * 2
    ]
    assert texts[0] == texts[1]
    assert texts[2] != texts[3]


def test_what_is_not_asked_for_is_not_told(served: Served) -> None:
    _, answer = complete(served, prompt="hello", max_tokens=2)
    assert answer["choices"][0].keys() == {"index", "text", "finish_reason", "stop_reason"}


def test_a_stop_string_ends_an_answer_and_is_cut_off(served: Served, here: Rollout) -> None:
    words = here.texts[3].split()
    _, answer = complete(served, **request(here, 1, stop=words[2]))
    choice = answer["choices"][0]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", words[2])
    assert choice["text"].split() == words[: words.index(words[2])]
    assert choice["token_ids"] == here.completions[3][: words.index(words[2]) + 1]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"max_tokens": 5}, '"prompt" is required'),
        ({"prompt": "hello", "max_token": 5}, 'did you mean "max_tokens"?'),
        ({"prompt": "hello", "top_p": 0.9}, "may only say that they are off"),
        ({"prompt": "hello", "stream": True}, "may only say that they are off"),
        ({"prompt": "hello", "logprobs": 5}, "ask for 0"),
        ({"prompt": "hello", "n": 0}, "n must be at least 1"),
        ({"prompt": "hello", "max_tokens": 500}, "the model's context is 128"),
        ({"prompt": []}, "prompt is empty"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(served: Served, body: dict[str, Any], told: str) -> None:
    assert told in refusal(served, **body)


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": [1_000_000]},
        {"prompt": [-1]},
        {"uniforms": {"seed": 5, "prompt": 2**63}},
        {"uniforms": {"seed": 5, "prompt": -1}},
    ],
    ids=str,
)
def test_a_request_that_cannot_be_answered_spoils_none_beside_it(
    served: Served, here: Rollout, body: dict[str, Any]
) -> None:
    with ThreadPoolExecutor(2) as threads:
        bad, good = threads.map(lambda changed: complete(served, **request(here, 1, **changed)), (body, {}))
    assert bad[0] == 400
    assert good[0] == 200
    assert [choice["token_ids"] for choice in good[1]["choices"]] == here.completions[3:6]


def test_a_token_id_beyond_the_vocabulary_is_named(served: Served, base_dir: Path) -> None:
    size = json.loads((base_dir / "config.json").read_text())["vocab_size"]
    told = f"the prompt holds the token id {size}, and those of the model are 0 to {size - 1}; "
    assert refusal(served, prompt=[1, size]).startswith(told)
    assert complete(served, prompt=[1, size - 1])[0] == 200


@pytest.mark.parametrize(
    "header", ["Transfer-Encoding: chunked", "Content-Length: \u00b2", f"Content-Length: {2**40}"], ids=str
)
def test_a_body_that_cannot_be_read_ends_the_connection(served: Served, header: str) -> None:
    """One refusal, and what was sent as a body is not taken for a request."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as connection:
        sent = f"POST /v1/completions HTTP/1.1\r\nHost: here\r\n{header}\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"
        connection.sendall(sent.encode("latin-1"))
        told = b"".join(iter(lambda: connection.recv(4096), b""))
    head, _, content = told.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert "with its Content-Length" in json.loads(content)["error"]["message"]


def test_a_body_that_is_no_json_leaves_the_connection_open(served: Served) -> None:
    connection = HTTPConnection("127.0.0.1", served.port, timeout=60)
    for body, status in (("{", 400), ("{}", 200)):
        connection.request("POST", "/reset_prefix_cache", body)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status
        assert connection.sock is not None
    connection.close()


def test_a_place_that_is_not_there_and_a_body_that_is_none(served: Served) -> None:
    assert call(served.url + "/v1/chat/completions", {})[0] == 404
    assert call(served.url + "/v1/completions", [1])[0] == 400
    assert complete(served, prompt="hello", model="another")[0] == 404
    assert call(served.url + "/health") == (200, {})
    assert call(served.url + "/reset_prefix_cache", {}) == (200, {})


def test_an_adapter_takes_the_place_of_the_one_before(served: Served, base_dir: Path, tmp_path: Path) -> None:
    """Each is sampled from under its own name only; the base stays what it was."""
    sampled = {}
    for seed, name in enumerate(("first", "second")):
        role = policy_roles(base_dir, lora=LoRA(rank=2), with_reference=False).policy
        assert role is not None and role.adapters is not None
        torch.manual_seed(seed)
        for weight in role.weights.values():
            weight.data.normal_(std=0.3)
        role.adapters.save("policy", tmp_path / name)
        rollout = Sampler(role, load_tokenizer(base_dir)).sample([Prompt("fix the tap")], SAMPLING, seed=5)
        sampled[name] = rollout.completions
        asked = {"lora_name": name, "lora_path": str(tmp_path / name), "load_inplace": name == "second"}  # vLLM's body
        loaded = call(served.url + "/v1/load_lora_adapter", asked)
        assert loaded == (200, {"loaded": name})
        _, answer = complete(served, **request(rollout, 0), model=name)
        assert answer["model"] == name
        assert [c["token_ids"] for c in answer["choices"]] == rollout.completions
    assert sampled["first"] != sampled["second"]
    status, answer = complete(served, prompt="hello", model="first")
    assert (status, "not served here" in answer["error"]["message"]) == (404, True)
    cards = call(served.url + "/v1/models")[1]["data"]
    assert [(card["id"], card["root"], card["parent"]) for card in cards] == [
        (str(base_dir), str(base_dir), None),
        ("second", str(tmp_path / "second"), str(base_dir)),
    ]
    assert call(served.url + "/v1/unload_lora_adapter", {"lora_name": "second"})[0] == 200
    assert call(served.url + "/v1/unload_lora_adapter", {"lora_name": "second"})[0] == 404


def test_an_adapter_that_does_not_fit_changes_nothing(
    served: Served, base_dir: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    """One on another base, one of another rank than it says, and a folder that holds none."""
    role = policy_roles(tiny_model_dir, lora=LoRA(rank=2), with_reference=False).policy
    assert role is not None and role.adapters is not None
    role.adapters.save("policy", tmp_path / "other")
    config = tmp_path / "other" / "adapter_config.json"
    said = json.loads(config.read_text())
    (tmp_path / "larger").mkdir()
    (tmp_path / "larger" / "adapter_config.json").write_text(
        json.dumps(said | {"r": 3, "base_model_name_or_path": str(base_dir)})
    )
    weights = "adapter_model.safetensors"
    (tmp_path / "larger" / weights).write_bytes((tmp_path / "other" / weights).read_bytes())
    before = call(served.url + "/v1/models")
    for path, told in (
        (tmp_path / "other", "which is not the base"),
        (tmp_path / "larger", "the adapter fits other layers"),
        (tmp_path, "no adapter lies here"),
    ):
        status, answer = call(served.url + "/v1/load_lora_adapter", {"lora_name": "x", "lora_path": str(path)})
        assert status == 400
        assert told in answer["error"]["message"]
    assert call(served.url + "/v1/models") == before
