"""The deep checks pass a sound model and find what is broken: in a loss, in the optimizer, in what is to be learned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import log
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import tuneful.algorithms.reward_model as reward_model
import tuneful.algorithms.sft as sft
from tuneful.algorithms.deep_checks import (
    DRIFT,
    LOSS,
    MAX_TOKENS,
    NUM_EXAMPLES,
    NUM_STEPS,
    WRONG,
    check_comparisons_learned,
    check_demonstrations_learned,
    check_microbatches,
    check_policy_learning,
    check_reward_learning,
    distinct_comparisons,
    distinct_demonstrations,
)
from tuneful.algorithms.reward_model import RewardModel, RewardModelConfig, group_pairs
from tuneful.algorithms.sft import SFT, SFTConfig
from tuneful.engines.local import LocalEngine
from tuneful.engines.optimization import Optimization
from tuneful.errors import ModelError
from tuneful.functional.preference_losses import bradley_terry_loss
from tuneful.models.forward import Outputs
from tuneful.records import Comparison, Demonstration, Prompt

Build = Callable[..., Any]
SFT_CONFIG = SFTConfig(demonstrations_per_step=NUM_EXAMPLES, max_tokens=MAX_TOKENS)
REWARD_CONFIG = RewardModelConfig(prompts_per_step=NUM_EXAMPLES, max_tokens=MAX_TOKENS)
STANDSTILL = Optimization(learning_rate=1e-12, schedule="constant")


def test_a_sound_policy_learns_and_the_check_stops_there(tiny_model_dir: Path) -> None:
    told: list[tuple[int, int]] = []
    gradient, learned = check_policy_learning(
        tiny_model_dir, progress=lambda step, total, _: told.append((step, total))
    )
    assert gradient.value < gradient.bar == DRIFT
    assert learned.value < learned.bar == LOSS
    assert told == [(step, NUM_STEPS) for step in range(1, len(told) + 1)]
    assert len(told) < NUM_STEPS


def test_a_sound_reward_model_learns(tiny_model_dir: Path) -> None:
    gradient, learned = check_reward_learning(tiny_model_dir)
    assert gradient.value < gradient.bar == DRIFT
    assert learned.value < learned.bar == WRONG


def sum_of_means(outputs: Outputs, rows: list[int], *, num_tokens: int) -> tuple[Tensor, dict[str, float]]:
    assert outputs.logprobs is not None
    return -outputs.logprobs.sum() / outputs.mask.sum(), {}


def mean_of_row_means(outputs: Outputs, rows: list[int], *, num_tokens: int) -> tuple[Tensor, dict[str, float]]:
    """The same as the mean over tokens where all rows are equally long, and only there."""
    loss, metrics = sum_of_means(outputs, rows, num_tokens=num_tokens)
    return loss * len(rows) / NUM_EXAMPLES, metrics


@pytest.mark.parametrize("broken", [sum_of_means, mean_of_row_means])
def test_a_loss_that_divides_by_its_micro_batch_is_found(
    policy_engine: Build, broken: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = policy_engine()
    demonstrations = distinct_demonstrations([], engine.tokenizer)

    def learn(engine: LocalEngine) -> SFT:
        return SFT(engine, demonstrations, SFT_CONFIG, engine.tokenizer)

    before = engine.weight_hash()
    assert check_microbatches(learn, engine.roles, engine.tokenizer).passed
    monkeypatch.setattr(sft, "nll_loss", broken)
    found = check_microbatches(learn, engine.roles, engine.tokenizer)
    assert found.value > 100 * DRIFT
    assert "divided by the count of the whole step" in found.cause
    assert engine.weight_hash() == before


def test_a_pair_loss_that_divides_by_its_micro_batch_is_found(
    reward_engine: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 prompts one by one, each of weight 1 in place of 1/64: the gradient is 64 times as large, 63 of it drift."""
    engine = reward_engine()
    comparisons = distinct_comparisons([], engine.roles.reward, engine.tokenizer)
    groups = group_pairs(comparisons, engine.roles.reward, engine.tokenizer, MAX_TOKENS)

    def over_its_own(*sides: Tensor, num_groups: int, **settings: Any) -> Tensor:
        return bradley_terry_loss(*sides, **settings)

    monkeypatch.setattr(reward_model, "bradley_terry_loss", over_its_own)
    found = check_microbatches(lambda e: RewardModel(e, groups, REWARD_CONFIG), engine.roles, engine.tokenizer)
    assert found.value == pytest.approx(63, rel=1e-3)


def test_an_optimizer_that_stands_still_is_found(policy_engine: Build, reward_engine: Build) -> None:
    engine = policy_engine(optimization=STANDSTILL)
    demonstrations = distinct_demonstrations([], engine.tokenizer)
    found = check_demonstrations_learned(SFT(engine, demonstrations, SFT_CONFIG, engine.tokenizer))
    assert found.value == pytest.approx(log(engine.roles.policy.model.config.vocab_size), rel=0.1)
    assert not found.passed
    assert "frozen weights" in found.cause

    engine = reward_engine(optimization=STANDSTILL)
    comparisons = distinct_comparisons([], engine.roles.reward, engine.tokenizer)
    groups = group_pairs(comparisons, engine.roles.reward, engine.tokenizer, MAX_TOKENS)
    assert not check_comparisons_learned(RewardModel(engine, groups, REWARD_CONFIG)).passed


def test_pairs_that_contradict_each_other_are_found(reward_engine: Build) -> None:
    """Each pair stands there in both orders, so exactly half are right whatever the scores."""
    engine = reward_engine()
    comparisons = distinct_comparisons([], engine.roles.reward, engine.tokenizer)[: NUM_EXAMPLES // 2]
    reversed_ = [Comparison(c.prompt, c.rejected, c.chosen, group=f"again {c.prompt.id}") for c in comparisons]
    groups = group_pairs([*comparisons, *reversed_], engine.roles.reward, engine.tokenizer, MAX_TOKENS)
    found = check_comparisons_learned(RewardModel(engine, groups, REWARD_CONFIG))
    assert found.value == pytest.approx(0.5)
    assert "contradict" in found.cause


def test_a_prompt_that_is_not_read_is_found(policy_engine: Build) -> None:
    """Without its prompt the best a model can do is the entropy of the completions, spread over their tokens."""
    engine = policy_engine()
    learner = SFT(engine, distinct_demonstrations([], engine.tokenizer), SFT_CONFIG, engine.tokenizer)
    learner.rows = [([engine.tokenizer.bos_token_id], completion) for _, completion in learner.rows]
    counts = Counter(tuple(completion) for _, completion in learner.rows).values()
    entropy = -sum(n / NUM_EXAMPLES * log(n / NUM_EXAMPLES) for n in counts)
    floor = entropy * NUM_EXAMPLES / sum(len(completion) for _, completion in learner.rows)
    found = check_demonstrations_learned(learner)
    assert found.value >= floor > LOSS


def test_the_bar_of_the_loss_is_below_what_an_unread_prompt_costs() -> None:
    assert log(NUM_EXAMPLES) / (MAX_TOKENS - 1) > LOSS


def test_offered_demonstrations_come_first_and_once(tiny_tokenizer: Any) -> None:
    long = "hello " * MAX_TOKENS
    offered = [
        Demonstration(Prompt.user("hot house"), "cold tea"),
        Demonstration(Prompt.user("hot house"), "no"),
        Demonstration(Prompt.user("fix " + long), "yes"),
        Demonstration(Prompt.user("cook " + long), "no"),  # cut to the same tokens as the one before
    ]
    chosen = distinct_demonstrations(offered, tiny_tokenizer)
    assert chosen[:2] == [offered[0], offered[2]]
    assert len(chosen) == len({d.prompt.id for d in chosen}) == NUM_EXAMPLES
    assert not any(d in offered for d in chosen[2:])
    assert distinct_demonstrations(offered, tiny_tokenizer) == chosen


def test_offered_comparisons_are_one_of_a_prompt_and_certain(reward_engine: Build) -> None:
    engine = reward_engine()
    prompt = Prompt.user("hot house")
    offered = [
        Comparison(prompt, "xylophone", "zeppelin"),  # both are the unknown token
        Comparison(prompt, "yes", "no", p=0.5, weight=0.2, group="g", margin=1.0),
        Comparison(prompt, "no", "yes"),
    ]
    chosen = distinct_comparisons(offered, engine.roles.reward, engine.tokenizer)
    assert chosen[0] == Comparison(prompt, "yes", "no")
    assert len(chosen) == len({c.prompt.id for c in chosen}) == NUM_EXAMPLES


def test_a_template_that_hides_the_prompt_is_refused(tiny_tokenizer: Any) -> None:
    tiny_tokenizer.chat_template = "{{ bos_token }}<assistant>{{ messages[1].content if messages | length > 1 }}"
    with pytest.raises(ModelError, match="prompts of different words have the same tokens"):
        distinct_demonstrations([], tiny_tokenizer)


def test_a_tokenizer_without_words_needs_examples(tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_tokenizer, "decode", lambda ids: "<1>")
    with pytest.raises(ModelError, match="the tokenizer has 0 words; give 64 examples"):
        distinct_demonstrations([], tiny_tokenizer)
    offered = [Demonstration(Prompt.user(" ".join(["hot"] * n)), "yes") for n in range(1, 9)]
    with pytest.raises(ModelError, match="give 64 examples"):
        distinct_demonstrations(offered, tiny_tokenizer)
