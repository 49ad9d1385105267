"""Completions sampled by a server over HTTP: ours (`tuneful serve`), vLLM, SGLang, any that returns token ids.

The policy goes to the server as an adapter whose name holds its version and a hash of its weights, `policy-3-9f86d081`.
Requests ask for that name and answers repeat it, so every sample is stamped, and one of other weights is refused.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tuneful.data.templates import prompt_ids
from tuneful.errors import ConfigError, GenerationError
from tuneful.generation.rollout import Rollout
from tuneful.generation.sampler import answer_text
from tuneful.generation.sampling import Sampling, fold
from tuneful.models.adapters import same_place
from tuneful.models.roles import Role
from tuneful.records import Finish, Prompt
from tuneful.servers import NoAnswerError, ask, refuse_no_url, short

if TYPE_CHECKING:
    import httpx2

NEEDS_TOKENS = (
    "reinforcement learning needs the token ids that were sampled and their log-probabilities; use a server that "
    "knows return_token_ids, such as tuneful serve, vLLM or SGLang (this one can still label, judge and answer)"
)


def refuse_no_server(url: str) -> None:
    """ConfigError for what cannot be the URL of a sampler."""
    refuse_no_url("sampler", url, example="http://127.0.0.1:8000", keys="put the server where it needs none")


@dataclass(frozen=True, slots=True)
class _Published:
    """An adapter that the server was given."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class _Row:
    """One completion as the server tells it."""

    ids: list[int]
    logprobs: list[float]
    finish: Finish


class RemoteSampler:
    """Samples from the server at `url`, which serves the policy's base; at most `concurrency` requests are under way.

    folder: where adapters are written for the server to read. retries: how often a request that was refused for the
    moment, lost or late is made again. timeout: seconds until a request counts as late. sleep: waits so many seconds.
    """

    def __init__(
        self,
        url: str,
        tokenizer: Any,
        *,
        folder: Path,
        concurrency: int = 64,
        retries: int = 5,
        timeout: float = 600.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        refuse_no_server(url)
        self.url = url.rstrip("/").removesuffix("/v1")
        self.tokenizer = tokenizer
        self.folder = folder
        self.concurrency = concurrency
        self.retries = retries
        self.timeout = timeout
        self.sleep = sleep
        self._published: _Published | None = None
        self._pushing = threading.Lock()

    def refuse_other_base(self, base: str) -> None:
        """GenerationError when the server cannot be reached, ConfigError when it serves another model than `base`."""
        with self._client() as client:
            cards = self._models(client)
        places = {str(card.get(key)) for card in cards if not card.get("parent") for key in ("root", "id")}
        if not any(same_place(place, base) for place in places):
            raise ConfigError(
                f"sampler {self.url} serves {', '.join(sorted(places))}, and the policy's base is {base}; start it on "
                "that model (where it has another name there, with --served-model-name)"
            )

    def publish(self, policy: Role, *, version: int, weights: str) -> None:
        """Have the server sample from the policy's adapter as it is now; `weights` is a hash of it.

        Returns when the server lists it. GenerationError when it does not.
        """
        if policy.adapters is None:
            raise ConfigError("a sampler elsewhere needs lora: an adapter is all that is sent there")
        new = _Published(f"policy-{version}-{weights[:8]}", (self.folder / f"version-{version}").resolve())
        old = self._published
        policy.adapters.save(policy.name, new.path)
        self._published = new
        with self._client() as client:
            self._push(client, new)
            if old is not None and old.name != new.name:
                self._offer(client, "/v1/unload_lora_adapter", {"lora_name": old.name})
        for folder in self.folder.resolve().glob("version-*"):
            if folder != new.path:
                shutil.rmtree(folder, ignore_errors=True)

    def sample(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        *,
        seed: int,
        version: int,
        device: torch.device,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Rollout:
        """As Sampler.sample, from what was last published, which is `version`; logprobs are the server's.

        Raises GenerationError when the server cannot be reached, refuses, or answers with less than is needed.
        """
        ids = [prompt_ids(prompt, self.tokenizer, max_tokens=sampling.max_prompt_tokens) for prompt in prompts]
        rows: list[_Row] = []
        with self._client() as client, ThreadPoolExecutor(self.concurrency) as threads:
            answers = threads.map(
                lambda k: self._complete(client, ids[k], sampling, seed=seed, number=k), range(len(ids))
            )
            for answer in answers:
                rows += answer
                if on_progress is not None:
                    on_progress(len(rows), len(ids) * sampling.num_samples)
        group = [k // sampling.num_samples for k in range(len(rows))]
        longest = max(len(row.ids) for row in rows)
        logprobs = torch.tensor([row.logprobs + [0.0] * (longest - len(row.ids)) for row in rows], device=device)
        lengths = torch.tensor([len(row.ids) for row in rows], device=device)
        return Rollout(
            prompts=[ids[k] for k in group],
            completions=[row.ids for row in rows],
            texts=[
                answer_text(prompts[k], row.ids, row.finish, sampling, self.tokenizer)
                for k, row in zip(group, rows, strict=True)
            ],
            group=torch.tensor(group, device=device),
            finish=[row.finish for row in rows],
            version=torch.full((len(rows),), version, device=device),
            temperature=sampling.temperature or 1.0,
            logprobs=logprobs,
            sampled_logprobs=logprobs,
            mask=torch.arange(longest, device=device) < lengths[:, None],
        )

    def _complete(
        self, client: httpx2.Client, ids: list[int], sampling: Sampling, *, seed: int, number: int
    ) -> list[_Row]:
        """The samples of one prompt, the `number`th of the call."""
        assert self._published is not None
        name = self._published.name
        body = {
            "model": name,
            "prompt": ids,
            "n": sampling.num_samples,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "stop": list(sampling.stop),
            "logprobs": 0,
            "return_token_ids": True,
            # Other servers' own: one seed per prompt, for equal seeds would give all prompts the same noise.
            "seed": fold(seed, number),
            "uniforms": {"seed": seed, "prompt": number},
            # The policy is the whole distribution; a server may have other defaults for its model.
            "top_p": 1.0,
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
        }
        what = f"prompt {number}"
        try:
            answer = self._post(client, "/v1/completions", body, what)
        except _UnknownNameError:  # a server that was started anew
            self._push(client, self._published)
            answer = self._post(client, "/v1/completions", body, what)
        try:
            told = self._object(answer)
            if told["model"] != name:
                raise self._error(
                    f"answers {what} with samples of {told['model']}, where {name} was asked for; every sample must be "
                    "of the newest weights"
                )
            choices = told["choices"]
            if len(choices) != sampling.num_samples:
                raise self._error(
                    f"gives {len(choices)} samples of {what}, where {sampling.num_samples} were asked for"
                )
            return [self._row(choice, ids, sampling, what) for choice in choices]
        except (KeyError, TypeError, ValueError):
            raise self._error(f'answers {what} with "{short(answer.text)}", which is no completion') from None

    def _row(self, choice: Any, prompt: list[int], sampling: Sampling, what: str) -> _Row:
        ids = choice.get("token_ids")
        logprobs = (choice.get("logprobs") or {}).get("token_logprobs")
        read = choice.get("prompt_token_ids")
        if ids is None or logprobs is None or read is None:
            missing = "token_ids" if ids is None else "logprobs" if logprobs is None else "prompt_token_ids"
            raise self._error(f"answers {what} without {missing}: {NEEDS_TOKENS}")
        if read != prompt:
            raise self._error(f"read other token ids in {what} than were sent; does it cut prompts, or add to them?")
        ids, logprobs = [int(k) for k in ids], [float(x) for x in logprobs]
        reason = choice["finish_reason"]
        if not ids or len(ids) != len(logprobs):
            raise self._error(f"gives {len(logprobs)} log-probabilities of {len(ids)} tokens for {what}")
        if reason == "length":
            return _Row(ids, logprobs, "length")
        if reason != "stop":
            raise self._error(f'ended {what} by "{reason}"; nothing can be learned from it, look at its log')
        if ids[-1] == self.tokenizer.eos_token_id:
            return _Row(ids, logprobs, "eos")
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        if choice.get("stop_reason") is None and not any(stop in text for stop in sampling.stop):
            raise self._error(f"leaves the end token out of the token ids of {what}; it must be learned from too")
        return _Row(ids, logprobs, "stop")

    def _push(self, client: httpx2.Client, adapter: _Published) -> None:
        """Load the adapter, unless the server has it, and drop what it may have cached of another."""
        with self._pushing:
            if self._serves(client, adapter.name):
                return
            body = {"lora_name": adapter.name, "lora_path": str(adapter.path)}
            self._post(client, "/v1/load_lora_adapter", body, f"the adapter {adapter.name}")
            # Not every server offers it; a name that was never used before has nothing cached.
            self._offer(client, "/reset_prefix_cache", {})
            if not self._serves(client, adapter.name):
                raise self._error(f"does not list {adapter.name} after it was loaded; look at its log")

    def _serves(self, client: httpx2.Client, name: str) -> bool:
        return any(card.get("id") == name for card in self._models(client))

    def _models(self, client: httpx2.Client) -> list[dict[str, Any]]:
        answer = self._asked(lambda: client.get(f"{self.url}/v1/models"), "its models")
        try:
            return [dict(card) for card in self._object(answer)["data"]]
        except (KeyError, TypeError, ValueError):
            raise self._error(f'answers "{short(answer.text)}" where its models were asked for') from None

    def _post(self, client: httpx2.Client, path: str, body: dict[str, Any], what: str) -> httpx2.Response:
        return self._asked(lambda: client.post(self.url + path, json=body), what)

    def _offer(self, client: httpx2.Client, path: str, body: dict[str, Any]) -> None:
        """A request that may be refused: the server may not know it, or have let go of what it is about."""
        import httpx2

        with suppress(httpx2.RequestError):  # a server that is gone is found by the next request
            client.post(self.url + path, json=body)

    def _asked(self, request: Callable[[], httpx2.Response], what: str) -> httpx2.Response:
        try:
            return ask(request, retries=self.retries, sleep=self.sleep)
        except NoAnswerError as error:
            if error.status is None:
                problem = f"does not answer, asked {error.tries} times for {what}: {error.problem}; is it running?"
                raise self._error(problem) from None
            kind = _UnknownNameError if error.status == 404 else GenerationError
            raise kind(f"sampler {self.url} refuses {what}: {error.problem}") from None

    @staticmethod
    def _object(answer: httpx2.Response) -> dict[str, Any]:
        return dict(answer.json())

    def _client(self) -> httpx2.Client:
        import httpx2

        return httpx2.Client(timeout=self.timeout)

    def _error(self, problem: str) -> GenerationError:
        return GenerationError(f"sampler {self.url} {problem}")


class _UnknownNameError(GenerationError):
    """The server knows no such model or place."""
