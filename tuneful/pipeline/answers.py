"""A model's answers to prompts: what stages and `tuneful generate` have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tuneful.data.completions import candidates_row, with_ids
from tuneful.data.files import write_rows
from tuneful.engines.local import LocalEngine
from tuneful.errors import ConfigError
from tuneful.generation.rollout import Rollout
from tuneful.generation.sampler import Choose
from tuneful.generation.sampling import Sampling
from tuneful.models.loading import Dtype, load_tokenizer
from tuneful.models.roles import Roles
from tuneful.pipeline.context import Context
from tuneful.pipeline.guided import load_policy
from tuneful.records import Prompt
from tuneful.rollouts.collect import candidates_of


def answer(
    model: str,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    seed: int,
    dtype: Dtype = "float32",
    choose: Choose | None = None,
    on_progress: Callable[[int, int], None],
    note: Callable[[str], None],
) -> Rollout:
    """`sampling.num_samples` completions of every prompt by the model in a directory or on the hub, prompt by prompt.

    choose: limits what is drawn, see Sampler.sample; what it leaves is not kept (`Rollout.allowed`). on_progress: told
    how many completions of how many are done. note: told what `note_waves` has to say. Raises ConfigError for a
    `choose` beside a policy that chooses by value itself.
    """
    engine = engine_of(model, dtype=dtype, note=note)
    if choose is not None and engine.guide is not None:
        raise ConfigError(
            f"{model} chooses by value among the {engine.guide.top_k} tokens that its base finds likeliest, and is not "
            "limited to a nucleus besides; leave --top-p out"
        )
    return engine.sample(prompts, sampling, seed=seed, choose=choose, keep_allowed=False, on_progress=on_progress)


def engine_of(model: str, *, dtype: Dtype = "float32", note: Callable[[str], None]) -> LocalEngine:
    """An engine that samples from the model in a directory or on the hub. note: told what `note_waves` has to say."""
    policy, guide = load_policy(model, dtype=dtype)
    engine = LocalEngine(Roles(policy=policy), load_tokenizer(model))
    engine.guide = guide
    note_waves(engine, note)
    return engine


def stage_answers(
    context: Context, model: str, prompts: Sequence[Prompt], sampling: Sampling, *, seed: int, dtype: Dtype
) -> Rollout:
    """`answer` by the model that a stage names, told on the run's display."""
    return answer(
        context.model(model),
        prompts,
        sampling,
        seed=seed,
        dtype=dtype,
        on_progress=context.progress,
        note=context.display.note,
    )


def note_waves(engine: LocalEngine, note: Callable[[str], None]) -> None:
    """Say so where no prompt takes the place of a row that has finished: sampling many of them then takes longer."""
    if engine.waves is not None:
        note(f"rows leave the batch as they finish, but none enters until all have: {engine.waves}")


def write_answers(path: Path, prompts: Sequence[Prompt], rollout: Rollout, model: str, *, force: bool) -> None:
    """A completions file of a rollout, each completion with its id and the name of the model that made it."""
    write_rows(path, map(candidates_row, with_ids(candidates_of(prompts, rollout, model))), force=force)
