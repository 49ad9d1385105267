"""DPO on the tiny model: where it starts, what it computes once, what each setting does, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from math import log
from typing import Any

import pytest
import torch

from tuneful.algorithms.dpo import DPO, DPOConfig
from tuneful.engines.optimization import Optimization
from tuneful.errors import ConfigError
from tuneful.records import Comparison, Prompt

Build = Callable[..., Any]
CONFIG = DPOConfig(beta=0.5, pairs_per_step=3, optimization=Optimization(learning_rate=1e-2))


@pytest.fixture
def comparisons(prompts: list[Prompt]) -> list[Comparison]:
    """Six pairs, the longer side chosen in some, one of them unsure."""
    first, second, third, fourth = prompts
    return [
        Comparison(first, "hello", "no"),
        Comparison(first, "hello to you too", "stop"),
        Comparison(second, "turn it and wait a day", "no i am not fine today"),
        Comparison(second, "yes please", "the tap", p=0.7),
        Comparison(third, "now", "when the house is quiet and the light red"),
        Comparison(fourth, "it is open", "why"),
    ]


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


def test_every_comparison_is_seen_once_an_epoch(policy_engine: Build, comparisons: list[Comparison]) -> None:
    engine = policy_engine()
    learner = DPO(engine, comparisons, replace(CONFIG, epochs=2), engine.tokenizer)
    assert learner.config.num_steps(len(comparisons)) == 4
    for _ in range(4):
        learner.step()
    rows = [tuple(c) for batch, _ in engine.seen for c in batch.completions]
    assert sorted(rows[:12]) == sorted(rows[12:]) == sorted(map(tuple, learner.pairs.completions))


def test_a_restored_learner_goes_on_in_its_order(policy_engine: Build, comparisons: list[Comparison]) -> None:
    first, second = (
        DPO(engine, comparisons, CONFIG, engine.tokenizer) for engine in (policy_engine(), policy_engine())
    )
    first.step()
    second.restore(first.state())
    second.step()
    first.step()
    assert first.engine.seen[-1][0].completions == second.engine.seen[-1][0].completions  # type: ignore[attr-defined]


ALTERNATIVES: dict[str, Any] = {
    "beta": 0.05,
    "pairs_per_step": 2,
    "epochs": 2,
    "max_tokens": 9,
    "max_grad_norm": 0.1,
    "optimization": Optimization(learning_rate=5e-3),
    "seed": 1,
}


def test_every_setting_changes_the_outcome(policy_engine: Build, comparisons: list[Comparison]) -> None:
    def outcome(config: DPOConfig) -> str:
        steps = config.num_steps(len(comparisons))
        engine = policy_engine(optimization=config.optimization, total_steps=steps)
        learner = DPO(engine, comparisons, config, engine.tokenizer)
        for _ in range(steps):
            learner.step()
        return str(engine.weight_hash())

    assert ALTERNATIVES.keys() == {f.name for f in fields(DPOConfig)}
    usual = outcome(CONFIG)
    assert outcome(CONFIG) == usual
    idle = [name for name, other in ALTERNATIVES.items() if outcome(replace(CONFIG, **{name: other})) == usual]
    assert not idle


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("beta", value) for value in (0.0, float("nan"))),
        *((name, 0) for name in ("pairs_per_step", "epochs", "max_tokens")),
        *(("max_grad_norm", value) for value in (0.0, float("nan"))),
    ],
)
def test_a_wrong_setting_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"dpo\.{name} .*got {value}"):
        DPOConfig(**{name: value})


def test_no_comparisons_are_refused(policy_engine: Build) -> None:
    engine = policy_engine()
    with pytest.raises(ConfigError, match="no comparisons"):
        DPO(engine, [], CONFIG, engine.tokenizer)
