"""DPO on the tiny model: where it starts, what it computes once, what each setting does, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import log
from typing import Any

import pytest
import torch

from tuneful.algorithms.dpo import DPO, DPOConfig
from tuneful.engines.optimization import Optimization
from tuneful.records import Comparison

Build = Callable[..., Any]
CONFIG = DPOConfig(beta=0.5, pairs_per_step=3, optimization=Optimization(learning_rate=1e-2))


def test_it_starts_at_log_2(policy_engine: Build, comparisons: list[Comparison]) -> None:
    engine = policy_engine()
    metrics = DPO(engine, comparisons, CONFIG, engine.tokenizer).step()
    assert metrics["loss"] == pytest.approx(log(2), abs=1e-5)
    assert metrics["margin"] == pytest.approx(0, abs=1e-5)
    assert metrics["chosen_logprob"] < 0
    assert set(metrics) == {"loss", "accuracy", "margin", "chosen_logprob", "rejected_logprob", "grad_norm"}


def test_the_reference_is_asked_once(policy_engine: Build, comparisons: list[Comparison]) -> None:
    engine = policy_engine()
    learner = DPO(engine, comparisons, CONFIG, engine.tokenizer)
    for _ in range(4):
        learner.step()
    assert engine.scored == ["reference"]
    assert learner.pairs.reference.shape == (12,)


def test_the_pairs_of_a_prompt_share_weight_1(policy_engine: Build, comparisons: list[Comparison]) -> None:
    """Two prompts with two pairs each, two with one: as in the reward model, each prompt counts once."""
    engine = policy_engine()
    weighted = [replace(comparisons[0], weight=3.0), *comparisons[1:]]
    learner = DPO(engine, weighted, CONFIG, engine.tokenizer)
    assert learner.pairs.weight.tolist() == pytest.approx([0.75, 0.25, 0.5, 0.5, 1.0, 1.0])


def test_it_learns_the_pairs(policy_engine: Build, comparisons: list[Comparison]) -> None:
    engine = policy_engine()
    learner = DPO(engine, comparisons, replace(CONFIG, pairs_per_step=6), engine.tokenizer)
    seen = [learner.step() for _ in range(20)]
    assert seen[-1]["accuracy"] == 1
    assert seen[-1]["loss"] < 0.3
    assert seen[-1]["margin"] > 1


def test_the_order_of_rows_in_micro_batches_does_not_matter(
    policy_engine: Build, comparisons: list[Comparison]
) -> None:
    """Rows of unlike lengths are sorted and cut; pairs stay together and keep their sides."""
    outcomes = []
    for tokens in (10_000, 40, 1):
        engine = policy_engine(
            tokens_per_microbatch=tokens,
            optimization=Optimization(learning_rate=1.0, schedule="constant", adam_eps=1.0),
        )
        learner = DPO(engine, comparisons, replace(CONFIG, pairs_per_step=6), engine.tokenizer)
        metrics = learner.step(), learner.step()
        del metrics[0]["accuracy"]  # at a margin of 0 it counts rounding errors
        outcomes.append((metrics, {n: w.detach().clone() for n, w in engine.roles.policy.weights.items()}))
    for metrics, weights in outcomes[1:]:
        for step, usual in zip(metrics, outcomes[0][0], strict=True):
            assert step == pytest.approx(usual, abs=1e-4, rel=1e-4)
        for name, weight in weights.items():
            torch.testing.assert_close(weight, outcomes[0][1][name], atol=1e-5, rtol=1e-3)


def test_a_pair_by_hand(policy_engine: Build, comparisons: list[Comparison]) -> None:
    """After a step away from the reference, the loss is that of the four log-probabilities."""
    engine = policy_engine()
    learner = DPO(engine, comparisons[3:4], replace(CONFIG, pairs_per_step=1), engine.tokenizer)
    learner.step()
    after = learner.step()
    chosen, rejected = learner.pairs.reference.tolist()
    h = (after["chosen_logprob"] - chosen) - (after["rejected_logprob"] - rejected)
    win = 1 / (1 + 2.718281828459045 ** (-0.5 * h))
    assert after["margin"] == pytest.approx(0.5 * h, abs=1e-4)
    assert after["loss"] == pytest.approx(-0.7 * log(win) - 0.3 * log(1 - win), abs=1e-4)
