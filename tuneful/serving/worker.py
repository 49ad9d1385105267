"""The one thread that touches the model: it samples what has arrived together, and swaps adapters in between."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from tuneful.errors import GenerationError, ModelError
from tuneful.generation.decoding import refuse_other_cache
from tuneful.generation.rollout import Rollout
from tuneful.generation.sampler import Sampler
from tuneful.generation.sampling import Draws, Sampling
from tuneful.models.adapters import AdapterSet
from tuneful.models.forward import refuse_other_logprobs
from tuneful.models.loading import context_length, is_adapter
from tuneful.models.roles import Role

MAX_WAITING = 1_024
"""Requests that may wait; more are refused for the moment."""

MAX_TOGETHER = 256
"""Requests that are sampled together."""

GATHERING = 0.005
"""Seconds without a new request after which those that wait are sampled; a client sends many almost at once."""


class BusyError(Exception):
    """Too many requests wait already."""


class UnknownModelError(Exception):
    """A name that is not served (any more)."""


@dataclass(frozen=True, slots=True)
class Job:
    """One prompt to be answered by the model of this name."""

    model: str
    prompt: tuple[int, ...]
    sampling: Sampling
    draws: tuple[int, int]
    """Seed, and the prompt's number among those of this seed: what its random draws follow from."""
    answer: Future[Rollout] = field(default_factory=Future)


class Worker:
    """The served model: a base, and at most one adapter on it, each under a name.

    name: of the base. All sampling and all changes of the adapter happen in one thread, one after the other, so the
    rows of an answer are always those of the adapter that the request named.
    """

    def __init__(self, model: Any, tokenizer: Any, *, name: str) -> None:
        self.name = name
        self.tokenizer = tokenizer
        self.context = context_length(model)
        self.vocabulary: int = model.get_input_embeddings().num_embeddings
        self.adapter: str | None = None
        """The name of the adapter that is served."""
        self.adapter_path = ""
        self._adapters = AdapterSet(model.requires_grad_(False))
        self._model = model
        policy = Role("policy", model)
        refuse_other_cache(policy)
        refuse_other_logprobs(policy)
        self._loads = 0
        self._slot = ""
        self._waiting: queue.Queue[Job | _Change] = queue.Queue(MAX_WAITING)
        threading.Thread(target=self._work, daemon=True).start()

    def answer(self, job: Job) -> Rollout:
        """The rows of one request, when they are done.

        Raises UnknownModelError, BusyError, and GenerationError for a prompt that leaves no room or is not of this
        vocabulary: it would end the batch, which others are in.
        """
        strange = next((token for token in job.prompt if not 0 <= token < self.vocabulary), None)
        if strange is not None:
            raise GenerationError(
                f"the prompt holds the token id {strange}, and those of the model are 0 to {self.vocabulary - 1}; "
                "use the tokenizer it was trained with"
            )
        length = len(job.prompt) + job.sampling.max_new_tokens
        if self.context is not None and length > self.context:
            raise GenerationError(
                f"the prompt has {len(job.prompt)} tokens and max_tokens is {job.sampling.max_new_tokens}, but the "
                f"model's context is {self.context}; ask for less"
            )
        self._put(job)
        return job.answer.result()

    def load(self, name: str, path: str) -> None:
        """Serve the adapter saved at `path` as `name`, in place of the one before."""
        self._change(lambda: self._load(name, path))

    def unload(self, name: str) -> None:
        """Serve the base alone again; UnknownModelError when the adapter is another."""
        self._change(lambda: self._unload(name))

    def _change(self, make: Callable[[], None]) -> None:
        change = _Change(make)
        self._put(change)
        change.made.result()

    def _put(self, what: Job | _Change) -> None:
        try:
            self._waiting.put_nowait(what)
        except queue.Full:
            raise BusyError(f"{MAX_WAITING} requests wait already") from None

    def _work(self) -> None:
        while True:
            jobs, change = self._gather()
            by_kind: dict[tuple[str, Sampling], list[Job]] = {}
            for job in jobs:
                by_kind.setdefault((job.model, job.sampling), []).append(job)
            for alike in by_kind.values():
                self._sample(alike)
            if change is not None:
                _settle(change.made, change.make)

    def _gather(self) -> tuple[list[Job], _Change | None]:
        """The jobs that have arrived together, up to a change, which waits for those before it."""
        jobs: list[Job] = []
        wait: float | None = None
        while True:
            try:
                found = self._waiting.get(timeout=wait)
            except queue.Empty:
                return jobs, None
            if isinstance(found, _Change):
                return jobs, found
            jobs.append(found)
            if len(jobs) == MAX_TOGETHER:
                return jobs, None
            wait = GATHERING

    def _sample(self, jobs: Sequence[Job]) -> None:
        """Answer jobs of one model and one sampling."""
        sampling = jobs[0].sampling

        def sample() -> Rollout:
            role = self._role_of(jobs[0].model)
            draws = Draws.of([job.draws for job in jobs])
            return Sampler(role, self.tokenizer).sample_ids([job.prompt for job in jobs], sampling, draws)

        together: Future[Rollout] = Future()
        _settle(together, sample)
        failed = together.exception()
        for k, job in enumerate(jobs):
            if failed is not None:
                job.answer.set_exception(failed)
            else:
                rows = range(k * sampling.num_samples, (k + 1) * sampling.num_samples)
                job.answer.set_result(together.result().rows(rows))

    def _role_of(self, name: str) -> Role:
        if name not in (self.name, self.adapter):
            served = self.name if self.adapter is None else f"{self.name} and {self.adapter}"
            raise UnknownModelError(f'the model "{name}" is not served here; these are: {served}')
        return Role("policy", self._model, self._adapters, (self._slot,) if name == self.adapter else ())

    def _load(self, name: str, path: str) -> None:
        if name == self.name:
            raise ModelError(f'"{name}" is the name of the base; give the adapter another')
        if not is_adapter(path):
            raise ModelError(f"{path}: no adapter lies here (no adapter_config.json) as this process sees it")
        self._loads += 1
        slot = f"load_{self._loads}"  # a new one each time: the old adapter stands until the new one does
        self._adapters.load(slot, path)
        self._adapters.activate((slot,))
        if self.adapter is not None:
            self._adapters.remove(self._slot)
        self.adapter, self.adapter_path, self._slot = name, path, slot

    def _unload(self, name: str) -> None:
        if name != self.adapter:
            raise UnknownModelError(f'the adapter "{name}" is not served here')
        self._adapters.activate(())
        self._adapters.remove(self._slot)
        self.adapter, self.adapter_path = None, ""


@dataclass(frozen=True, slots=True)
class _Change:
    """Something done to the model between two batches."""

    make: Callable[[], None]
    made: Future[None] = field(default_factory=Future)


def _settle(future: Future[Any], work: Callable[[], Any]) -> None:
    """Do the work; the future holds what came of it."""
    try:
        future.set_result(work())
    except Exception as error:  # noqa: BLE001 -- the thread that waits raises it; this one serves the next
        future.set_exception(error)
