"""Items from models: prompts go in, and prompts with the answers of every model come out, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from tuneful.engines.local import LocalEngine
from tuneful.feedback.completions_wanted import CompletionsWanted, wanted_by
from tuneful.feedback.jobs import deliver
from tuneful.feedback.projects import find_project
from tuneful.generation.sampling import Sampling, fold
from tuneful.pipeline.answers import engine_of
from tuneful.pipeline.work import Held
from tuneful.records import Candidates, Completion, JudgmentKind, Prompt
from tuneful.rollouts.collect import candidates_of

FIRST_BATCH: Final = 8
"""Prompts of the first batch: people can soon begin. Later ones are larger, for a batch is sampled faster than its
prompts one by one."""

LARGEST_BATCH: Final = 64

Engines = Mapping[str, LocalEngine]
"""By the model's name, in the order in which the models were named."""


def engines_of(wanted: CompletionsWanted, *, note: Callable[[str], None]) -> Engines:
    """All models that are asked, loaded side by side, since every item needs an answer of each."""
    return {model: engine_of(model, note=note) for model in wanted.models}


def answer_job(
    held: Held, engines: Engines | None = None, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> str:
    """Answer the prompts of a job that are not answered yet, and add the items as they come; says what was made.

    engines: those of its models, where they are loaded already. on_progress: told how many prompts of all are done.
    """
    wanted = wanted_by(held.store, held.job)
    kind = find_project(held.store, held.job.project).kind
    wanted.require_fits(kind)
    total = len(wanted.prompts)
    if engines is None and held.job.done < total:
        engines = engines_of(wanted, note=held.note)
    for done, items in batches(wanted, kind, engines or {}, first=held.job.done, check=held.check):
        settings, now = wanted.settings, held.clock()
        deliver(held.store, held.job, items, done, total, overlap=wanted.overlap, settings=settings, now=now)
        on_progress(done, total)
    return f"{total} prompts answered by {len(wanted.models)} {'model' if len(wanted.models) == 1 else 'models'}"


def batches(
    wanted: CompletionsWanted,
    kind: JudgmentKind,
    engines: Engines,
    *,
    first: int = 0,
    check: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, list[Candidates]]]:
    """How many prompts are done after each batch, and the items of the batch, from prompt number `first` on.

    check: called whenever an answer is finished; what it raises ends the work.
    """
    sampling = Sampling(
        num_samples=wanted.samples,
        max_new_tokens=wanted.max_new_tokens,
        max_prompt_tokens=wanted.max_prompt_tokens,
        temperature=wanted.temperature,
    )
    done, size = first, FIRST_BATCH
    while done < len(wanted.prompts):
        prompts = wanted.prompts[done : done + size]
        answers = []
        for model, engine in engines.items():
            seed = fold(wanted.seed, "completions", model, done)
            rollout = engine.sample(prompts, sampling, seed=seed, on_progress=lambda _done, _total: check())
            answers.append([_storable(row.completions) for row in candidates_of(prompts, rollout, model)])
            check()
        done += len(prompts)
        yield done, _items(wanted, kind, prompts, answers)
        size = min(2 * size, LARGEST_BATCH)


def _items(
    wanted: CompletionsWanted,
    kind: JudgmentKind,
    prompts: tuple[Prompt, ...],
    answers: list[list[tuple[Completion, ...]]],
) -> list[Candidates]:
    """answers: for each model those to each prompt."""
    of_prompts = zip(*answers, strict=True)
    return [
        made
        for prompt, of_models in zip(prompts, of_prompts, strict=True)
        for made in wanted.items(kind, prompt, of_models)
    ]


def _storable(completions: tuple[Completion, ...]) -> tuple[Completion, ...]:
    """A model may say a NUL, which databases cannot keep."""
    return tuple(replace(one, text=one.text.replace("\x00", "\N{REPLACEMENT CHARACTER}")) for one in completions)
