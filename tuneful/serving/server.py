"""A completions server for one model, in the names of OpenAI's API and of vLLM's additions to it.

    GET  /health                   200 when it answers
    GET  /v1/models                the base, and the adapter on it; `root` is where each lies
    POST /v1/completions           CompletionRequest -> choices with text, token ids and logprobs
    POST /v1/load_lora_adapter     {lora_name, lora_path}: serve this adapter, in place of the one before
    POST /v1/unload_lora_adapter   {lora_name}
    POST /reset_prefix_cache       200: nothing is kept from one request to the next

Every answer names in `model` what it was sampled from, so an adapter whose name holds its version stamps its samples.
"""

from __future__ import annotations

import json
import secrets
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tuneful.data.templates import prompt_ids
from tuneful.errors import ConfigError, TunefulError
from tuneful.generation.rollout import Rollout
from tuneful.generation.sampling import Sampling
from tuneful.records import Prompt
from tuneful.serving.worker import BusyError, Job, UnknownModelError, Worker
from tuneful.settings import build, require_at_least

MAX_BODY = 16 * 2**20
"""Bytes of a request that are read."""

FINISH_REASONS = {"eos": "stop", "stop": "stop", "length": "length", "abort": "abort"}
"""OpenAI's word for why a row ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Uniforms:
    """What the random draws of a request follow from (tuneful.generation.sampling): an addition of ours."""

    seed: int
    """The seed of the whole call that the request is a part of."""
    prompt: int
    """The prompt's number in it."""

    def __post_init__(self) -> None:
        if not 0 <= self.prompt < 2**63:
            raise ConfigError(f"uniforms.prompt must be from 0 to 2**63 - 1, got {self.prompt}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    """What `/v1/completions` takes; other settings are refused by name."""

    prompt: str | tuple[int, ...]
    """Text, or token ids."""
    model: str | None = None
    """The base, or the adapter; None: the base."""
    n: int = 1
    """Completions of the prompt."""
    max_tokens: int = 16
    """Longest completion, the end token included."""
    temperature: float = 1.0
    """0 takes the most likely token."""
    stop: str | tuple[str, ...] | None = None
    """A completion ends where its text first contains one of these, and is cut there."""
    seed: int | None = None
    """Samples follow from it alone; without one no two answers are alike."""
    uniforms: Uniforms | None = None
    """In place of `seed`: a place in a larger call."""
    logprobs: int | None = None
    """0: the log-probability of every sampled token, at `temperature`."""
    return_token_ids: bool = False
    """Whether choices hold `token_ids` and `prompt_token_ids`."""
    top_p: float = 1.0
    top_k: int = -1
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stream: bool = False

    def __post_init__(self) -> None:
        require_at_least(1, self, "", "n", "max_tokens")
        require_at_least(0, self, "", "temperature")
        if not self.prompt:
            raise ConfigError("prompt is empty")
        if self.logprobs not in (None, 0):
            raise ConfigError(f"logprobs = {self.logprobs}: only those of the sampled tokens are kept; ask for 0")
        whole = self.top_p == 1 and self.top_k in (0, -1) and self.min_p == 0 and self.repetition_penalty == 1
        if self.stream or not whole:
            raise ConfigError(
                "stream, top_p, top_k, min_p and repetition_penalty may only say that they are off: whole completions "
                "are sampled, from the whole distribution"
            )

    @property
    def sampling(self) -> Sampling:
        stop = (self.stop,) if isinstance(self.stop, str) else self.stop or ()
        return Sampling(
            num_samples=self.n, max_new_tokens=self.max_tokens, temperature=self.temperature, stop=tuple(stop)
        )

    @property
    def draws(self) -> tuple[int, int]:
        if self.uniforms is not None:
            return self.uniforms.seed, self.uniforms.prompt
        return (secrets.randbits(63) if self.seed is None else self.seed), 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterRequest:
    """What loading and unloading take. load_inplace: said by vLLM's clients; here a new adapter always replaces."""

    lora_name: str
    lora_path: str = ""
    load_inplace: bool = True


class CompletionServer(ThreadingHTTPServer):
    """`serve_forever` answers until the process ends. Port 0 takes a free one; `url` says which."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, worker: Worker, *, host: str, port: int, root: str) -> None:
        super().__init__((host, port), _Handler)
        self.worker = worker
        self.root = root
        """Where the base lies."""
        self.url = f"http://{host}:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer goes out whole
    server: CompletionServer

    def do_GET(self) -> None:
        self._respond({"/health": lambda _: {}, "/v1/models": self._models})

    def do_POST(self) -> None:
        self._respond(
            {
                "/v1/completions": self._complete,
                "/v1/load_lora_adapter": self._load,
                "/v1/unload_lora_adapter": self._unload,
                "/reset_prefix_cache": lambda _: {},
            }
        )

    def log_message(self, *_: Any) -> None:
        """Requests are not logged."""

    def _models(self, _: Mapping[str, Any]) -> dict[str, Any]:
        worker = self.server.worker
        cards = [{"id": worker.name, "object": "model", "root": self.server.root, "parent": None}]
        if worker.adapter is not None:
            cards.append({"id": worker.adapter, "object": "model", "root": worker.adapter_path, "parent": worker.name})
        return {"object": "list", "data": cards}

    def _complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        asked = build(CompletionRequest, body, where="completions")
        worker = self.server.worker
        ids = asked.prompt
        if isinstance(ids, str):
            ids = tuple(prompt_ids(Prompt(ids), worker.tokenizer, max_tokens=None))
        model = asked.model or worker.name
        rollout = worker.answer(Job(model, ids, asked.sampling, asked.draws))
        return {
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
            "choices": [_choice(rollout, k, asked, ids, worker.tokenizer) for k in range(len(rollout))],
            "usage": {"prompt_tokens": len(ids), "completion_tokens": rollout.num_tokens},
        }

    def _load(self, body: Mapping[str, Any]) -> dict[str, Any]:
        asked = build(AdapterRequest, body, where="load_lora_adapter")
        self.server.worker.load(asked.lora_name, asked.lora_path)
        return {"loaded": asked.lora_name}

    def _unload(self, body: Mapping[str, Any]) -> dict[str, Any]:
        asked = build(AdapterRequest, body, where="unload_lora_adapter")
        self.server.worker.unload(asked.lora_name)
        return {"unloaded": asked.lora_name}

    def _respond(self, routes: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]]) -> None:
        """Answer with what the route makes of the body, or with OpenAI's form of an error."""
        body = self._body()
        route = routes.get(self.path.partition("?")[0])
        try:
            if body is None:
                needed = f"a JSON object of at most {MAX_BODY} bytes, with its Content-Length"
                status, answer = 400, _error(f"the body must be {needed}")
            elif route is None:
                status, answer = 404, _error(f"{self.command} {self.path} is not offered here")
            else:
                status, answer = 200, route(body)
        except UnknownModelError as error:
            status, answer = 404, _error(str(error))
        except TunefulError as error:
            status, answer = 400, _error(str(error))
        except BusyError as error:
            status, answer = 503, _error(str(error))
        except Exception as error:  # noqa: BLE001 -- a bug of ours, told to the client and shown here
            traceback.print_exc()
            status, answer = 500, _error(f"{type(error).__name__}: {error}")
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _body(self) -> dict[str, Any] | None:
        """The JSON object that was sent, {} for none; None for anything else.

        What cannot be read to its end also ends the connection, for the rest of it would pass for the next request.
        """
        length = self.headers.get("Content-Length", "0")
        in_chunks = "Transfer-Encoding" in self.headers
        if in_chunks or not (length.isascii() and length.isdigit()) or int(length) > MAX_BODY:
            self.close_connection = True
            return None
        try:
            body = json.loads(self.rfile.read(int(length)) or b"{}")
        except ValueError:
            return None
        return body if isinstance(body, dict) else None


def _choice(rollout: Rollout, k: int, asked: CompletionRequest, prompt: tuple[int, ...], tokenizer: Any) -> Any:
    ids = rollout.completions[k]
    choice: dict[str, Any] = {
        "index": k,
        "text": rollout.texts[k],
        "finish_reason": FINISH_REASONS[rollout.finish[k]],
        "stop_reason": next((s for s in asked.sampling.stop if s in tokenizer.decode(ids)), None)
        if rollout.finish[k] == "stop"
        else None,
    }
    if asked.logprobs is not None:
        numbers = rollout.logprobs[k, : len(ids)].tolist()
        choice["logprobs"] = {"tokens": tokenizer.convert_ids_to_tokens(ids), "token_logprobs": numbers}
    if asked.return_token_ids:
        choice |= {"token_ids": ids, "prompt_token_ids": list(prompt)}
    return choice


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error"}}
