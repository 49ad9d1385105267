"""KTO on the tiny model: where it starts, its reference point, what labels and weights do, answers out of pairs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.algorithms.test_pairs import logprobs_of
from tuneful.algorithms.kto import KTO, KTOConfig, pull, unpair
from tuneful.engines.optimization import Optimization
from tuneful.errors import ConfigError
from tuneful.records import Comparison, Prompt, UnpairedPreference

Build = Callable[..., Any]
CONFIG = KTOConfig(beta=0.5, answers_per_step=4, optimization=Optimization(learning_rate=1e-2))


@pytest.fixture
def answers(prompts: list[Prompt]) -> list[UnpairedPreference]:
    """Thumbs: three up, one down, of unlike lengths."""
    first, second, third, fourth = prompts
    return [
        UnpairedPreference(first, "hello to you too", label=True),
        UnpairedPreference(second, "no i am not fine today", label=False),
        UnpairedPreference(third, "now", label=True),
        UnpairedPreference(fourth, "it is open", label=True),
    ]


def test_it_starts_at_a_half(policy_engine: Build, answers: list[UnpairedPreference]) -> None:
    engine = policy_engine()
    metrics = KTO(engine, answers, CONFIG, engine.tokenizer).step()
    assert metrics["loss"] == pytest.approx(0.5, abs=1e-5)
    assert metrics["reference_point"] == pytest.approx(0, abs=1e-5)
    assert metrics["margin"] == pytest.approx(0, abs=1e-5)
    assert set(metrics) == {
        "loss",
        "accuracy",
        "margin",
        "desirable_logprob",
        "undesirable_logprob",
        "reference_point",
        "grad_norm",
    }


def test_a_step_by_hand(policy_engine: Build, answers: list[UnpairedPreference]) -> None:
    """After some steps away from the reference, so that no term is 0; each prompt is read with the next one's answer.

    All are good here, so that the policy says more of everything and the reference point is above 0.
    """
    engine = policy_engine()
    praised = [replace(one, label=True) for one in answers]
    config = replace(CONFIG, desirable_weight=2.0)
    learner = KTO(engine, praised, config, engine.tokenizer)

    def summed(prompts: Any, completions: Any) -> torch.Tensor:
        return torch.stack([each.sum() for each in logprobs_of(engine, prompts, completions)])

    matched = learner.answers.prompts, learner.answers.completions
    before = summed(*matched)
    order = learner.batch(3)
    mismatched = (
        [learner.answers.prompts[k] for k in order],
        [learner.answers.completions[k] for k in [*order[1:], order[0]]],
    )
    mismatched_before = summed(*mismatched)
    for _ in range(3):
        learner.step()
    log_ratio = summed(*matched) - before
    point = float((summed(*mismatched) - mismatched_before).mean())
    assert point > 0.1
    metrics = learner.step()
    assert metrics["reference_point"] == pytest.approx(point, abs=1e-4)
    expected = [2 * (1 - 1 / (1 + math.exp(-0.5 * (float(one) - point)))) for one in log_ratio]
    assert metrics["loss"] == pytest.approx(sum(expected) / 4, abs=1e-4)
    assert metrics["accuracy"] == pytest.approx(float((log_ratio > point).float().mean()))
    assert metrics["desirable_logprob"] == pytest.approx(float((before + log_ratio).mean()), rel=1e-4)
    assert "undesirable_logprob" not in metrics and "margin" not in metrics  # there is none


def test_the_reference_point_is_not_below_0(policy_engine: Build, answers: list[UnpairedPreference]) -> None:
    """Where all answers are bad the policy says less of everything."""
    engine = policy_engine()
    blamed = [replace(one, label=False) for one in answers]
    learner = KTO(engine, blamed, CONFIG, engine.tokenizer)
    seen = [learner.step() for _ in range(3)]
    assert [step["reference_point"] for step in seen] == pytest.approx([0, 0, 0], abs=1e-5)
    assert seen[2]["undesirable_logprob"] < seen[0]["undesirable_logprob"] - 0.1


def test_what_is_logged_of_good_and_bad_answers_apart(policy_engine: Build, answers: list[UnpairedPreference]) -> None:
    """Means by weight; the third answer counts double."""
    engine = policy_engine()
    weighted = [replace(one, weight=2.0 if k == 2 else 1.0) for k, one in enumerate(answers)]
    learner = KTO(engine, weighted, CONFIG, engine.tokenizer)
    learner.step()
    said = logprobs_of(engine, learner.answers.prompts, learner.answers.completions)
    policy = torch.stack([each.sum() for each in said])
    gain = 0.5 * (policy - learner.answers.reference)
    metrics = learner.step()
    good = torch.tensor([1.0, 0.0, 2.0, 1.0]) / 4
    assert metrics["desirable_logprob"] == pytest.approx(float((policy * good).sum()), rel=1e-4)
    assert metrics["undesirable_logprob"] == pytest.approx(float(policy[1]), rel=1e-4)
    assert metrics["margin"] == pytest.approx(float((gain * good).sum() - gain[1]), abs=1e-4)


def test_it_learns_thumbs(policy_engine: Build, answers: list[UnpairedPreference]) -> None:
    engine = policy_engine(optimization=Optimization(learning_rate=1e-2, schedule="constant"))
    learner = KTO(engine, answers, CONFIG, engine.tokenizer)
    seen = [learner.step() for _ in range(20)]
    assert seen[-1]["accuracy"] == 1
    assert seen[-1]["loss"] < 0.3
    assert seen[-1]["margin"] > 1


def watch(engine: Any) -> list[list[tuple[list[int], list[int]]]]:
    """Prompts and completions that the engine scores from now on, call by call."""
    score, read = engine.score, []

    def watched(role: Any, rollout: Any) -> Any:
        read.append(list(zip(rollout.prompts, rollout.completions, strict=True)))
        return score(role, rollout)

    engine.score = watched
    return read


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ([0, 1, 2, 3], [1, 2, 3, 0]),
        ([0, 0, 1, 0], [2, 2, 3, 2]),
        ([0, 1, 1, 0], [1, 3, 3, 1]),
        ([0, 0, 0, 0], [1, 2, 3, 0]),  # no other prompt to answer
    ],
)
def test_each_prompt_is_read_with_the_next_answer_to_another(
    asked: list[int], said: list[int], policy_engine: Build, prompts: list[Prompt]
) -> None:
    engine = policy_engine()
    texts = ["hello to you too", "now", "it is open", "no i am not fine today"]
    given = [UnpairedPreference(prompts[k], text, label=True) for k, text in zip(asked, texts, strict=True)]
    learner = KTO(engine, given, CONFIG, engine.tokenizer)
    read = watch(engine)
    learner.reference_point([0, 1, 2, 3])
    encoded = learner.answers
    expected = [(encoded.prompts[k], encoded.completions[other]) for k, other in enumerate(said)]
    assert read == [expected, expected]  # by policy and reference


def test_at_the_seam_of_two_passes_an_answer_is_not_its_own_mismatch(
    policy_engine: Build, answers: list[UnpairedPreference]
) -> None:
    """A pass may end with the answer that the next one begins with, which a step then holds twice."""
    engine = policy_engine()
    learner = KTO(engine, answers, CONFIG, engine.tokenizer)
    read = watch(engine)
    learner.reference_point([2, 3, 3, 1])
    assert [completion for _, completion in read[0]] == [learner.answers.completions[k] for k in (3, 1, 1, 2)]


def test_a_prompt_with_a_longer_answer_of_another_still_fits(policy_engine: Build, prompts: list[Prompt]) -> None:
    """Thirteen tokens of prompt and ten of the other's answer are more than twenty; with its own it has fifteen."""
    engine = policy_engine()
    pair = [
        UnpairedPreference(Prompt.user("how do i get the red house door to open"), "now", label=True),
        UnpairedPreference(prompts[0], "it is hot in the house now so wait", label=False),
    ]
    config = replace(CONFIG, answers_per_step=2, max_tokens=20)
    learner = KTO(engine, pair, config, engine.tokenizer)
    read = watch(engine)
    assert learner.step()["loss"] == pytest.approx(0.5, abs=1e-5)
    assert [max(len(p) + len(c) for p, c in rows) for rows in read] == [20, 20]  # policy and reference


def test_micro_batches_do_not_change_the_reference_point(
    policy_engine: Build, answers: list[UnpairedPreference]
) -> None:
    """Of good answers alone it is above 0 once the policy has moved."""
    praised = [replace(one, label=True) for one in answers]
    seen = []
    for tokens in (10_000, 25, 1):
        engine = policy_engine(
            tokens_per_microbatch=tokens, optimization=Optimization(learning_rate=1e-2, schedule="constant")
        )
        learner = KTO(engine, praised, CONFIG, engine.tokenizer)
        seen.append([learner.step() for _ in range(3)])
    assert seen[0][2]["reference_point"] > 0.1
    for steps in seen[1:]:
        assert steps[1]["reference_point"] == pytest.approx(seen[0][1]["reference_point"], rel=1e-3)
        assert steps[1]["loss"] == pytest.approx(seen[0][1]["loss"], rel=1e-3)


def test_the_reference_reads_the_answers_once(policy_engine: Build, answers: list[UnpairedPreference]) -> None:
    """And in every step the mismatched ones, which are others each time."""
    engine = policy_engine()
    learner = KTO(engine, answers, replace(CONFIG, answers_per_step=2), engine.tokenizer)
    for _ in range(2):
        learner.step()
    assert engine.scored == ["reference", "policy", "reference", "policy", "reference"]


def test_one_answer_alone_is_refused(policy_engine: Build, answers: list[UnpairedPreference]) -> None:
    engine = policy_engine()
    with pytest.raises(ConfigError, match="kto: no answers to learn from: it takes two at least, got 1"):
        KTO(engine, answers[:1], CONFIG, engine.tokenizer)


def test_the_pull_of_good_and_bad_answers(answers: list[UnpairedPreference]) -> None:
    """Three to one; a weight of a third on the good ones makes them even, as do weights of the rows."""
    assert pull(answers, CONFIG) == pytest.approx(3)
    assert pull(answers, replace(CONFIG, desirable_weight=1 / 3)) == pytest.approx(1)
    assert pull(answers, replace(CONFIG, undesirable_weight=2.0)) == pytest.approx(1.5)
    assert pull([replace(one, p=0.5) for one in answers], CONFIG) == pytest.approx(1)
    assert pull([one for one in answers if one.label], CONFIG) == math.inf


def test_answers_out_of_pairs(prompts: list[Prompt]) -> None:
    """Three answers ranked a > b > c: b is better once and worse once. A pair alone, of p = .8."""
    first, second = prompts[:2]
    ranked = [Comparison(first, *sides, weight=1 / 3) for sides in (("a", "b"), ("a", "c"), ("b", "c"))]
    found = unpair([*ranked, Comparison(second, "x", "y", p=0.8)])
    assert [(one.prompt, one.completion, one.label) for one in found] == [
        (first, "a", True),
        (first, "b", True),
        (first, "c", False),
        (second, "x", True),
        (second, "y", False),
    ]
    assert [one.p for one in found] == pytest.approx([1, 0.5, 0, 0.8, 0.2])
    assert [one.weight for one in found] == pytest.approx([2 / 3, 2 / 3, 2 / 3, 1, 1])
    assert pull(found, CONFIG) == pytest.approx(1)


def test_the_loss_of_answers_out_of_pairs_is_that_of_their_sides(policy_engine: Build, prompts: list[Prompt]) -> None:
    """A ranking of three as three answers, or as six: each pair's better side good, its worse side bad.

    The gradient is that of both at a reference point that the labels have no part in.
    """
    said = ["yes please", "now", "it is open today"]
    pairs = [
        Comparison(prompts[0], said[a], said[b], p=p, weight=1 / 3)
        for a, b, p in ((0, 1, 1.0), (0, 2, 0.9), (1, 2, 0.6))
    ]
    apart = [
        UnpairedPreference(pair.prompt, text, label=good, p=p, weight=1 / 3)
        for pair in pairs
        for text, good, p in ((pair.chosen, True, pair.p), (pair.rejected, False, 1 - pair.p))
    ]
    hashes, metrics = [], []
    for answers in (unpair(pairs), apart):
        engine = policy_engine(optimization=Optimization(learning_rate=1.0, schedule="constant", adam_eps=1.0))
        config = replace(CONFIG, answers_per_step=len(answers), undesirable_weight=2.0)
        learner = KTO(engine, answers, config, engine.tokenizer)
        metrics.append(learner.step())
        hashes.append({name: weight.detach().clone() for name, weight in engine.roles.policy.weights.items()})
    for name in ("loss", "desirable_logprob", "undesirable_logprob", "grad_norm"):
        assert metrics[0][name] == pytest.approx(metrics[1][name], rel=1e-4)
    for name, weight in hashes[0].items():
        torch.testing.assert_close(weight, hashes[1][name], atol=1e-5, rtol=1e-3)
