"""Supervised fine-tuning on the tiny model: its loss by hand, that it can overfit, what each setting does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import log
from typing import Any

import pytest
import torch

from tuneful.algorithms.sft import SFT, SFTConfig
from tuneful.engines.optimization import Optimization
from tuneful.generation.sampling import Sampling
from tuneful.records import Demonstration, Prompt

Build = Callable[..., Any]
CONFIG = SFTConfig(demonstrations_per_step=2, optimization=Optimization(learning_rate=1e-2))


@pytest.fixture
def demonstrations(prompts: list[Prompt]) -> list[Demonstration]:
    answers = ("hello", "turn it and wait", "when the house is quiet", "it is open now")
    return [Demonstration(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]


def test_the_loss_is_the_mean_over_all_tokens(policy_engine: Build, demonstrations: list[Demonstration]) -> None:
    """A zero output layer makes every token equally likely: log 82, however the rows are cut."""
    for tokens in (10_000, 1):
        engine = policy_engine(tokens_per_microbatch=tokens)
        with torch.no_grad():
            engine.roles.policy.model.get_output_embeddings().weight.zero_()
        learner = SFT(engine, demonstrations, replace(CONFIG, demonstrations_per_step=4), engine.tokenizer)
        metrics = learner.step()
        vocabulary = engine.roles.policy.model.config.vocab_size
        assert metrics["loss"] == pytest.approx(log(vocabulary), rel=1e-5)
        assert metrics["entropy"] == pytest.approx(log(vocabulary), rel=1e-5)
        assert metrics["tokens"] == 2 + 5 + 6 + 5  # words and the end token
        assert set(metrics) == {"loss", "entropy", "tokens", "grad_norm"}


def test_it_overfits_a_handful(
    policy_engine: Build, demonstrations: list[Demonstration], prompts: list[Prompt]
) -> None:
    engine = policy_engine()
    learner = SFT(engine, demonstrations, replace(CONFIG, demonstrations_per_step=4), engine.tokenizer)
    losses = [learner.step()["loss"] for _ in range(60)]
    assert losses[-1] < 0.05
    said = engine.sample(prompts, Sampling(max_new_tokens=10, temperature=0), seed=0)
    assert said.texts == [d.completion for d in demonstrations]
    assert said.finish == ["eos"] * 4


def test_the_prompt_is_not_imitated(policy_engine: Build, demonstrations: list[Demonstration]) -> None:
    engine = policy_engine()
    learner = SFT(engine, demonstrations, CONFIG, engine.tokenizer)
    learner.step()
    (batch, _), names = engine.seen[0], engine.tokenizer.convert_ids_to_tokens
    assert all(names(ids)[0] == "<bos>" and names(ids)[-1] == "<assistant>" for ids in batch.prompts)
    assert all(names(ids)[-1] == "<eos>" and "<assistant>" not in names(ids) for ids in batch.completions)
