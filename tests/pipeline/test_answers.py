"""Answers of a model: what of a rollout they keep."""

from __future__ import annotations

from pathlib import Path

from tuneful.generation.nucleus import nucleus
from tuneful.generation.sampling import Sampling
from tuneful.pipeline.answers import answer, engine_of
from tuneful.records import Prompt

PROMPTS, SAMPLING = [Prompt("hello"), Prompt("no")], Sampling(max_new_tokens=4)


def test_answers_keep_no_ids_that_a_nucleus_left(tiny_model_dir: Path) -> None:
    """Of a vocabulary of 150,000 they take megabytes for each token; a rollout has them."""
    told: list[str] = []
    model, choose = str(tiny_model_dir), nucleus(0.5)
    rollout = engine_of(model, note=told.append).sample(PROMPTS, SAMPLING, seed=0, choose=choose)
    answers = answer(model, PROMPTS, SAMPLING, seed=0, choose=choose, on_progress=lambda *_: None, note=told.append)
    assert rollout.allowed is not None
    assert answers.allowed is None
    assert answers.completions == rollout.completions
