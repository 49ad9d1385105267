"""What all learners over comparisons share: rows, weights, and steps that do not depend on how they are cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tuneful.algorithms.dpo import DPO, DPOConfig
from tuneful.algorithms.kto import KTO, KTOConfig, unpair
from tuneful.algorithms.orpo import ORPO, ORPOConfig
from tuneful.algorithms.pairs import Pairs, encode, shared_weights, sides
from tuneful.algorithms.simpo import SimPO, SimPOConfig
from tuneful.engines.optimization import Optimization
from tuneful.models.forward import Outputs
from tuneful.records import Comparison

Build = Callable[..., Any]
Make = Callable[[Any, list[Comparison]], Any]

OPTIMIZATION = Optimization(learning_rate=1.0, schedule="constant", adam_eps=1.0)  # so steps follow the gradient's size
MAKE: dict[str, Make] = {
    "dpo": lambda engine, pairs: DPO(engine, pairs, DPOConfig(beta=0.5, pairs_per_step=6), engine.tokenizer),
    "ipo": lambda engine, pairs: DPO(
        engine, pairs, DPOConfig(loss="ipo", beta=0.5, pairs_per_step=6), engine.tokenizer
    ),
    "orpo": lambda engine, pairs: ORPO(engine, pairs, ORPOConfig(pairs_per_step=6), engine.tokenizer),
    "simpo": lambda engine, pairs: SimPO(engine, pairs, SimPOConfig(pairs_per_step=6), engine.tokenizer),
    "kto": lambda engine, pairs: KTO(engine, unpair(pairs), KTOConfig(beta=0.5, answers_per_step=12), engine.tokenizer),
}


@pytest.fixture(params=MAKE)
def make(request: pytest.FixtureRequest) -> Make:
    return MAKE[request.param]


def two_steps(make: Make, engine: Any, comparisons: list[Comparison]) -> tuple[list[dict[str, float]], Any]:
    """Metrics and weights."""
    learner = make(engine, comparisons)
    metrics = [learner.step(), learner.step()]
    del metrics[0]["accuracy"]  # at a margin of 0 it counts rounding errors
    return metrics, {name: weight.detach().clone() for name, weight in engine.roles.policy.weights.items()}


def assert_equal_runs(ours: tuple[list[dict[str, float]], Any], usual: tuple[list[dict[str, float]], Any]) -> None:
    for step, expected in zip(ours[0], usual[0], strict=True):
        assert step == pytest.approx(expected, abs=1e-4, rel=1e-4)
    for name, weight in ours[1].items():
        torch.testing.assert_close(weight, usual[1][name], atol=1e-5, rtol=1e-3)


def test_micro_batches_change_nothing(make: Make, policy_engine: Build, comparisons: list[Comparison]) -> None:
    """Rows of unlike lengths are sorted and cut; pairs stay together and keep their sides."""
    runs = []
    for tokens in (10_000, 40, 1):
        engine = policy_engine(tokens_per_microbatch=tokens, optimization=OPTIMIZATION)
        runs.append(two_steps(make, engine, comparisons))
    for run in runs[1:]:
        assert_equal_runs(run, runs[0])


def test_only_the_share_of_a_weight_counts(make: Make, policy_engine: Build, comparisons: list[Comparison]) -> None:
    """All weights of a prompt times the same number are the same weights."""
    engine = policy_engine(optimization=OPTIMIZATION)
    usual = two_steps(make, engine, comparisons)
    scaled = [replace(pair, weight=7.0 if k < 2 else 0.3) for k, pair in enumerate(comparisons)]
    engine = policy_engine(optimization=OPTIMIZATION)
    assert_equal_runs(two_steps(make, engine, scaled), usual)


def test_a_pair_counts_by_its_weight(make: Make, policy_engine: Build, comparisons: list[Comparison]) -> None:
    engine = policy_engine(optimization=OPTIMIZATION)
    _, usual = two_steps(make, engine, comparisons)
    engine = policy_engine(optimization=OPTIMIZATION)
    _, other = two_steps(make, engine, [replace(comparisons[0], weight=9.0), *comparisons[1:]])
    assert any((other[name] - weight).abs().max() > 1e-4 for name, weight in usual.items())


def test_the_sides_of_a_pair_are_rows_side_by_side(policy_engine: Build, comparisons: list[Comparison]) -> None:
    tokenizer = policy_engine().tokenizer
    pairs = encode(comparisons, tokenizer, max_tokens=64)
    assert len(pairs.prompts) == len(pairs.completions) == 12
    assert pairs.p == [1.0, 1.0, 1.0, 0.7, 1.0, 1.0]
    said = [tokenizer.convert_ids_to_tokens(completion) for completion in pairs.completions[2:4]]
    assert said == [["hello", "to", "you", "too", "<eos>"], ["stop", "<eos>"]]
    assert pairs.prompts[2] == pairs.prompts[3]


def test_rows_of_a_micro_batch_may_come_in_any_order() -> None:
    """A step of pairs 2, 0 and 1; a micro-batch of the rows of its first and last, rejected 1 first."""
    pairs = Pairs([[1]] * 6, [[5], [6, 7], [5], [5], [8, 9], [5]], p=[0.5, 0.6, 0.7], weight=[1.0, 2.0, 5.0])
    logprobs = torch.tensor([[-1.0, 0.0], [-2.0, -3.0], [-4.0, 0.0], [-7.0, 0.0]])
    both = sides(Outputs(mask=logprobs < 0, logprobs=logprobs), [5, 0, 1, 4], pairs, [2, 0, 1])
    assert both.number.tolist() == [2, 1]
    assert (both.chosen.tolist(), both.rejected.tolist()) == ([-5.0, -7.0], [-4.0, -1.0])
    assert (both.chosen_tokens.tolist(), both.rejected_tokens.tolist()) == ([2.0, 1.0], [1.0, 1.0])
    assert both.p.tolist() == pytest.approx([0.7, 0.6])
    assert both.share.tolist() == pytest.approx([5 / 8, 2 / 8])


def test_pairs_of_a_prompt_share_weight_1(comparisons: list[Comparison]) -> None:
    """Of a prompt, or of the group that a comparison names."""
    weighted = [replace(comparisons[0], weight=3.0), *comparisons[1:]]
    assert shared_weights(weighted) == pytest.approx([0.75, 0.25, 0.5, 0.5, 1.0, 1.0])
    grouped = [replace(pair, group="one") for pair in comparisons]
    assert shared_weights(grouped) == pytest.approx([1 / 6] * 6)


def learned(policy_engine: Build, make: Make, comparisons: list[Comparison]) -> list[dict[str, float]]:
    engine = policy_engine(optimization=Optimization(learning_rate=1e-2, schedule="constant"))
    learner = make(engine, comparisons)
    return [learner.step() for _ in range(20)]


def test_every_learner_learns_the_pairs(make: Make, policy_engine: Build, comparisons: list[Comparison]) -> None:
    sure = [replace(pair, p=1.0) for pair in comparisons]
    seen = learned(policy_engine, make, sure)
    assert seen[-1]["accuracy"] == 1
    assert seen[-1]["loss"] < seen[0]["loss"] - 0.1
    assert seen[-1]["margin"] > seen[0]["margin"]


def test_without_a_reference_none_is_asked(policy_engine: Build, comparisons: list[Comparison]) -> None:
    for name in ("orpo", "simpo"):
        engine = policy_engine()
        MAKE[name](engine, comparisons).step()
        assert engine.scored == []


def logprobs_of(engine: Any, prompts: Any, completions: Any) -> list[Tensor]:
    """Of each completion's tokens, by transformers' own pass of the row alone."""
    model = engine.roles.policy.model
    found = []
    with torch.no_grad():
        for prompt, completion in zip(prompts, completions, strict=True):
            logits = model(torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1]
            found.append(logits.log_softmax(-1).gather(-1, torch.tensor(completion)[:, None]).squeeze(-1))
    return found


def test_a_step_of_orpo_by_hand(policy_engine: Build, comparisons: list[Comparison]) -> None:
    """Two prompts of one pair each, one of them of p = .7: each counts half."""
    engine = policy_engine()
    pairs = [comparisons[3], comparisons[4]]
    learner = ORPO(engine, pairs, ORPOConfig(pairs_per_step=2, odds_ratio_coef=0.3), engine.tokenizer)
    said = logprobs_of(engine, learner.pairs.prompts, learner.pairs.completions)
    means = torch.stack([each.mean() for each in said]).double()
    odds = means.exp() / (1 - means.exp())
    p = torch.tensor([0.7, 1.0])
    ratio = odds[0::2] / odds[1::2]
    nll = -(p * means[0::2] + (1 - p) * means[1::2])
    of_odds = -(p * (ratio / (1 + ratio)).log() + (1 - p) * (1 / (1 + ratio)).log())
    metrics = learner.step()
    assert metrics["nll"] == pytest.approx(float(nll.mean()), rel=1e-5)
    assert metrics["odds_ratio_loss"] == pytest.approx(float(of_odds.mean()), rel=1e-4)
    assert metrics["loss"] == pytest.approx(float((nll + 0.3 * of_odds).mean()), rel=1e-5)
    assert metrics["margin"] == pytest.approx(float(ratio.log().mean()), rel=1e-3, abs=1e-5)
    assert metrics["chosen_logprob"] == pytest.approx(float(said[0].sum() + said[2].sum()) / 2, rel=1e-5)
    assert metrics["rejected_logprob"] == pytest.approx(float(said[1].sum() + said[3].sum()) / 2, rel=1e-5)


def test_a_step_of_simpo_by_hand(policy_engine: Build, comparisons: list[Comparison]) -> None:
    engine = policy_engine()
    config = SimPOConfig(pairs_per_step=1, beta=2.5, target_margin=0.5)
    learner = SimPO(engine, comparisons[4:5], config, engine.tokenizer)
    chosen, rejected = (
        float(each.double().mean()) for each in logprobs_of(engine, learner.pairs.prompts, learner.pairs.completions)
    )
    lead = 2.5 * (chosen - rejected)
    metrics = learner.step()
    assert metrics["margin"] == pytest.approx(lead, abs=1e-4)
    assert metrics["loss"] == pytest.approx(float(torch.tensor(0.5 - lead).exp().log1p()), abs=1e-4)
    assert set(metrics) == {"loss", "accuracy", "margin", "chosen_logprob", "rejected_logprob", "grad_norm"}
