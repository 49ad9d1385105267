"""DPO and its variants on the tiny model: where they start, what is computed once, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import log
from typing import Any, Literal

import pytest

from tuneful.algorithms.dpo import DPO, DPOConfig
from tuneful.engines.optimization import Optimization
from tuneful.errors import ConfigError
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
    assert learner.reference.shape == (12,)


def test_the_pairs_of_a_prompt_share_weight_1(policy_engine: Build, comparisons: list[Comparison]) -> None:
    """Two prompts with two pairs each, two with one: as in the reward model, each prompt counts once."""
    engine = policy_engine()
    weighted = [replace(comparisons[0], weight=3.0), *comparisons[1:]]
    learner = DPO(engine, weighted, CONFIG, engine.tokenizer)
    assert learner.pairs.weight == pytest.approx([0.75, 0.25, 0.5, 0.5, 1.0, 1.0])


def test_it_learns_the_pairs(policy_engine: Build, comparisons: list[Comparison]) -> None:
    engine = policy_engine()
    learner = DPO(engine, comparisons, replace(CONFIG, pairs_per_step=6), engine.tokenizer)
    seen = [learner.step() for _ in range(20)]
    assert seen[-1]["accuracy"] == 1
    assert seen[-1]["loss"] < 0.3
    assert seen[-1]["margin"] > 1


def test_a_pair_by_hand(policy_engine: Build, comparisons: list[Comparison]) -> None:
    """After a step away from the reference, the loss is that of the four log-probabilities."""
    engine = policy_engine()
    learner = DPO(engine, comparisons[3:4], replace(CONFIG, pairs_per_step=1), engine.tokenizer)
    learner.step()
    after = learner.step()
    chosen, rejected = learner.reference.tolist()
    h = (after["chosen_logprob"] - chosen) - (after["rejected_logprob"] - rejected)
    win = 1 / (1 + 2.718281828459045 ** (-0.5 * h))
    assert after["margin"] == pytest.approx(0.5 * h, abs=1e-4)
    assert after["loss"] == pytest.approx(-0.7 * log(win) - 0.3 * log(1 - win), abs=1e-4)


IPO = replace(CONFIG, loss="ipo")


def test_ipo_starts_at_the_square_of_its_target(policy_engine: Build, comparisons: list[Comparison]) -> None:
    """1 / (2 * .5) = 1, and so is its square, whichever side is preferred."""
    engine = policy_engine()
    metrics = DPO(engine, comparisons, IPO, engine.tokenizer).step()
    assert metrics["loss"] == pytest.approx(1, abs=1e-5)
    assert metrics["margin"] == pytest.approx(0, abs=1e-5)


def test_a_pair_of_ipo_by_hand(policy_engine: Build, comparisons: list[Comparison]) -> None:
    """p = .7, answers of three tokens each with their ends; log-probabilities are told summed and used per token."""
    engine = policy_engine()
    learner = DPO(engine, comparisons[3:4], replace(IPO, pairs_per_step=1), engine.tokenizer)
    assert [len(completion) for completion in learner.pairs.completions] == [3, 3]
    learner.step()
    after = learner.step()
    chosen, rejected = learner.reference.tolist()
    h = (after["chosen_logprob"] - chosen) / 3 - (after["rejected_logprob"] - rejected) / 3
    assert h > 0.01
    assert after["margin"] == pytest.approx(0.5 * h, abs=1e-4)
    assert after["loss"] == pytest.approx(0.7 * (h - 1) ** 2 + 0.3 * (h + 1) ** 2, abs=1e-4)


@pytest.mark.parametrize(
    ("loss", "label_noise", "p"), [("dpo", 0.1, 0.7 * 0.9 + 0.3 * 0.1), ("robust", 0.1, (0.7 - 0.1) / 0.8)]
)
def test_label_noise_stands_for_another_p(
    loss: Literal["dpo", "robust"], label_noise: float, p: float, policy_engine: Build, comparisons: list[Comparison]
) -> None:
    """Conservative: less sure than the label; robust: surer. Either way as plain DPO on that p."""
    outcomes = []
    for config, pair in (
        (replace(CONFIG, pairs_per_step=1, loss=loss, label_noise=label_noise), comparisons[3]),
        (replace(CONFIG, pairs_per_step=1), replace(comparisons[3], p=p)),
    ):
        engine = policy_engine()
        learner = DPO(engine, [pair], config, engine.tokenizer)
        outcomes.append([learner.step() for _ in range(3)])
    for ours, plain in zip(*outcomes, strict=True):
        assert ours == pytest.approx(plain, abs=1e-5)
    assert outcomes[0][0]["loss"] == pytest.approx(log(2), abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"loss": "robust"}, 'dpo.loss = "robust" needs label_noise'),
        ({"loss": "ipo", "label_noise": 0.1}, 'dpo.label_noise is not for loss = "ipo"'),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        replace(CONFIG, **settings)
