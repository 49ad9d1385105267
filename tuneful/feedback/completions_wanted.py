"""What is asked of models so that people have something to judge: prompts, models, and how the answers become items.

Of several models an item shows one answer of each, so that to judge it is to compare them; of one model it shows all
its answers. In a project of kind "binary" every answer is an item of its own. The order is drawn, and who made which
answer stands in the store alone.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, select

from tuneful.errors import StoreError
from tuneful.feedback.items import SIZES, put_prompts
from tuneful.feedback.jobs import Job, add_job
from tuneful.feedback.store import Store, require_storable
from tuneful.feedback.tables import prompt
from tuneful.records import Candidates, Completion, JudgmentKind, Prompt

KIND: Final = "completions"
"""The kind of job that asks for them."""

MOST_SAMPLES: Final = 64

MOST_PROMPTS: Final = 20_000
"""Of one job, whose row names them all."""

AT_ONCE: Final = 500
"""Prompts of a query that names them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionsWanted:
    """Raises StoreError for what cannot be done, in words for whoever asks.

    models: directories or hub ids, each once. samples: answers of each model to a prompt. max_new_tokens: of the
    longest answer. max_prompt_tokens: longer prompts lose their beginning; None: they are refused where they do not fit
    the model. overlap: how many people judge each item. seed: the answers follow from it.
    """

    prompts: tuple[Prompt, ...]
    models: tuple[str, ...]
    samples: int = 1
    max_new_tokens: int = 128
    max_prompt_tokens: int | None = None
    temperature: float = 1.0
    overlap: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= len(self.prompts) <= MOST_PROMPTS:
            raise StoreError(
                f"there are {len(self.prompts)} prompts to answer; give from 1 to {MOST_PROMPTS} at a time"
            )
        if not self.models or not all(model.strip() for model in self.models):
            raise StoreError("no model is named; give the directory of one, or its id on the hub")
        twice = [model for model in self.models if self.models.count(model) > 1]
        if twice:
            raise StoreError(f'model "{twice[0]}" is named twice; name each once, and ask for more answers of it')
        if not 1 <= self.samples <= MOST_SAMPLES:
            raise StoreError(f"answers of each model to a prompt: from 1 to {MOST_SAMPLES}, not {self.samples}")
        if not 0 <= self.temperature < math.inf:
            raise StoreError(f"the temperature must be 0 or above, not {self.temperature}")
        if self.temperature == 0 and self.samples > 1:
            raise StoreError("at temperature 0 a model's answers are all the same; ask for one, or for a higher one")
        longest_prompt = 1 if self.max_prompt_tokens is None else self.max_prompt_tokens
        if min(self.max_new_tokens, longest_prompt, self.overlap) < 1:
            raise StoreError("the longest answer, the longest prompt and the people for each item: at least 1")
        for text in self.models:
            require_storable(text, "the models")
        for asked in self.prompts:
            require_storable(asked.text, f"prompt {asked.text[:40]!a}")

    @property
    def settings(self) -> dict[str, Any]:
        """How the answers are sampled."""
        return {
            "temperature": self.temperature,
            "max_new_tokens": self.max_new_tokens,
            "max_prompt_tokens": self.max_prompt_tokens,
            "seed": self.seed,
        }

    def require_fits(self, kind: JudgmentKind) -> None:
        """StoreError when the items would have more or fewer answers than are judged so."""
        least, most = SIZES[kind]
        several = len(self.models) > 1
        size = 1 if kind == "binary" else len(self.models) if several else self.samples
        if not least <= size <= most:
            asked = f"{least}" if least == most else f"{least} to {most}"
            way = (
                "models, of each of which an item has one answer" if several else "answers of the model, or more models"
            )
            raise StoreError(f"a {kind} is of {asked} answers, and these would be {size}; ask for {asked} {way}")

    def items(self, kind: JudgmentKind, asked: Prompt, answers: Sequence[Sequence[Completion]]) -> list[Candidates]:
        """The items of one prompt, in an order that is drawn. answers: for each model its samples, equally many."""
        if kind == "binary":
            groups = [[answer] for samples in answers for answer in samples]
        elif len(answers) > 1:
            groups = [list(group) for group in zip(*answers, strict=True)]
        else:
            groups = [list(answers[0])]
        chance = random.Random(f"{self.seed} {asked.id}")
        for group in groups:
            chance.shuffle(group)
        chance.shuffle(groups)
        return [Candidates(asked, tuple(group)) for group in groups]


def ask_for(store: Store, project_id: str, wanted: CompletionsWanted, *, by: str | None, now: float) -> str:
    """The id of a new job for a worker. by: the rater who asks for it, None for a program."""
    asked = {"prompts": [one.id for one in wanted.prompts], "models": list(wanted.models), "samples": wanted.samples}
    request = asked | {"overlap": wanted.overlap} | wanted.settings

    def work(connection: Connection) -> str:
        put_prompts(connection, project_id, wanted.prompts, now=now)
        return add_job(connection, project_id, KIND, request, by=by, now=now, total=len(wanted.prompts))

    return store.write(work)


def wanted_by(store: Store, job: Job) -> CompletionsWanted:
    """What a job asks for."""
    ids = job.request["prompts"]
    found: dict[str, Prompt] = {}
    with store.read() as connection:
        for begin in range(0, len(ids), AT_ONCE):
            these = (prompt.c.project == job.project, prompt.c.id.in_(ids[begin : begin + AT_ONCE]))
            rows = connection.execute(select(prompt.c.id, prompt.c.content).where(*these))
            found |= {row.id: Prompt.from_json(row.content) for row in rows}
    models = tuple(job.request["models"])
    return CompletionsWanted(**{**job.request, "prompts": tuple(found[one] for one in ids), "models": models})
