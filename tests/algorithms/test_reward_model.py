"""Reward modelling on the tiny model: how pairs are grouped, the loss by hand, that it can overfit."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from math import exp, log
from typing import Any

import pytest
import torch

from tuneful.algorithms.reward_model import (
    PromptPairs,
    RewardModel,
    RewardModelConfig,
    group_labels,
    group_pairs,
    group_rankings,
)
from tuneful.engines.optimization import Optimization
from tuneful.errors import ConfigError
from tuneful.models.forward import reward_scores
from tuneful.records import Comparison, Prompt, Ranking, UnpairedPreference

Build = Callable[..., Any]
CONFIG = RewardModelConfig(prompts_per_step=2, optimization=Optimization(learning_rate=1e-2))
WORDS = "bread cold cook day dog door fine fix good green house light please quiet rain red sun tea wait water".split()


def ranking(prompt: Prompt, *texts: str) -> list[Comparison]:
    """All pairs of completions given best first."""
    return [Comparison(prompt, a, b) for i, a in enumerate(texts) for b in texts[i + 1 :]]


def grouped(engine: Any, comparisons: list[Comparison], max_tokens: int = 64) -> list[PromptPairs]:
    return group_pairs(comparisons, engine.roles.reward, engine.tokenizer, max_tokens)


@pytest.fixture
def comparisons(prompts: list[Prompt]) -> list[Comparison]:
    return [
        *ranking(prompts[0], "hello", "hello to you", "no", "stop it now"),
        *ranking(prompts[1], "turn it and wait", "why"),
        Comparison(prompts[2], "when it is quiet", "not today", p=0.8, margin=0.5),
        *ranking(prompts[3], "it is open", "no", "what"),
    ]


def test_a_ranking_of_four_is_one_element_of_four_rows_and_six_pairs(
    reward_engine: Build, comparisons: list[Comparison]
) -> None:
    groups = grouped(reward_engine(), comparisons)
    assert [len(g.completions) for g in groups] == [4, 2, 2, 3]
    assert [len(g.chosen) for g in groups] == [6, 1, 1, 3]
    assert list(zip(groups[0].chosen, groups[0].rejected, strict=True)) == [
        (0, 1),
        (0, 2),
        (0, 3),
        (1, 2),
        (1, 3),
        (2, 3),
    ]
    assert groups[0].weight == pytest.approx([1 / 6] * 6)
    assert all(sum(g.weight) == pytest.approx(1) for g in groups)
    assert (groups[2].p, groups[2].margin) == ([0.8], [0.5])


def test_every_completion_runs_once_a_step(reward_engine: Build, comparisons: list[Comparison]) -> None:
    engine = reward_engine()
    RewardModel(engine, grouped(engine, comparisons), replace(CONFIG, prompts_per_step=4)).step()
    ((batch, _),) = engine.seen
    assert len(batch.completions) == 4 + 2 + 2 + 3
    assert len({(tuple(p), tuple(c)) for p, c in zip(batch.prompts, batch.completions, strict=True)}) == 11
    assert sorted(map(batch.units.count, set(batch.units))) == [2, 2, 3, 4]


def test_unlike_weights_are_kept_in_proportion(reward_engine: Build, prompts: list[Prompt]) -> None:
    pairs = [Comparison(prompts[0], "hello", "no", weight=3.0), Comparison(prompts[0], "hello", "stop", weight=1.0)]
    (group,) = grouped(reward_engine(), pairs)
    assert group.weight == pytest.approx([0.75, 0.25])


def test_a_pair_of_equal_sides_is_left_out(reward_engine: Build, prompts: list[Prompt]) -> None:
    same_ids = Comparison(prompts[0], "xylophone", "zeppelin")  # both words are unknown to the tokenizer
    pairs = [Comparison(prompts[0], "no", "no"), same_ids, Comparison(prompts[0], "hello", "no")]
    (group,) = grouped(reward_engine(), [*pairs, Comparison(prompts[1], "yes", "yes")])
    assert len(group.chosen) == 1
    assert group.weight == [1.0]


def test_the_same_judgment_twice_shares_the_prompts_weight(reward_engine: Build, prompts: list[Prompt]) -> None:
    (group,) = grouped(reward_engine(), [Comparison(prompts[0], "hello", "no")] * 2)
    assert (group.chosen, group.rejected, group.weight) == ([0, 0], [1, 1], [0.5, 0.5])
    assert len(group.completions) == 2


def test_a_tie_pulls_both_sides_together(reward_engine: Build, prompts: list[Prompt]) -> None:
    engine = reward_engine()
    groups = grouped(engine, [Comparison(prompts[0], "hello", "no", p=0.5)])
    learner = RewardModel(engine, groups, replace(CONFIG, prompts_per_step=1))
    seen = [learner.step() for _ in range(25)]
    assert abs(seen[-1]["margin"]) < 0.05
    assert seen[-1]["loss"] == pytest.approx(log(2), abs=1e-3)


def test_a_group_of_its_own_is_kept_apart(reward_engine: Build, prompts: list[Prompt]) -> None:
    pairs = [Comparison(prompts[0], "hello", "no", group=name) for name in ("first", "second")]
    assert len(grouped(reward_engine(), pairs)) == 2


def test_the_loss_of_a_step_by_hand(reward_engine: Build, comparisons: list[Comparison]) -> None:
    engine = reward_engine()
    groups = grouped(engine, comparisons)
    expected = accuracy = 0.0
    for group in groups:
        with torch.no_grad():
            scores = reward_scores(engine.roles.reward, group.prompts, group.completions).tolist()
        for c, r, p, m in zip(group.chosen, group.rejected, group.p, group.margin, strict=True):
            win = 1 / (1 + exp(-(scores[c] - scores[r] - m)))
            expected -= (p * log(win) + (1 - p) * log(1 - win)) / len(group.chosen) / 4
            accuracy += (scores[c] > scores[r]) / len(group.chosen) / 4
    metrics = RewardModel(engine, groups, replace(CONFIG, prompts_per_step=4)).step()
    assert metrics["loss"] == pytest.approx(expected, abs=1e-5)
    assert metrics["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert set(metrics) == {"loss", "accuracy", "margin", "grad_norm"}


def test_micro_batches_do_not_change_the_update(reward_engine: Build, comparisons: list[Comparison]) -> None:
    outcomes = []
    for tokens in (10_000, 1):
        engine = reward_engine(
            tokens_per_microbatch=tokens,
            optimization=Optimization(learning_rate=1.0, schedule="constant", adam_eps=1.0),
        )
        metrics = RewardModel(engine, grouped(engine, comparisons), replace(CONFIG, prompts_per_step=4)).step()
        outcomes.append((metrics, [w.detach() for w in engine.roles.reward.weights.values()]))
    assert outcomes[0][0] == pytest.approx(outcomes[1][0], abs=1e-5)
    for first, second in zip(outcomes[0][1], outcomes[1][1], strict=True):
        torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-3)


def test_it_overfits_64_pairs(reward_engine: Build) -> None:
    """Labels drawn by lot have nothing to generalise from; memory alone can tell them."""
    draw = random.Random(3)
    pairs = [
        Comparison(Prompt.user(" ".join(draw.choices(WORDS, k=3))), *(" ".join(draw.choices(WORDS, k=4)) for _ in "ab"))
        for _ in range(64)
    ]
    engine = reward_engine()
    learner = RewardModel(engine, grouped(engine, pairs), replace(CONFIG, prompts_per_step=64))
    seen = [learner.step() for _ in range(40)]
    assert seen[-1]["accuracy"] == 1
    assert seen[-1]["loss"] < 0.1


TEXTS = ("hello", "hello to you", "no", "stop it now")


def of(engine: Any, rankings: list[Ranking]) -> Any:
    return group_rankings(rankings, engine.roles.reward, engine.tokenizer, 64)


def scores_of(engine: Any, group: Any) -> list[float]:
    with torch.no_grad():
        return reward_scores(engine.roles.reward, group.prompts, group.completions).tolist()


def test_rankings_of_a_prompt_are_one_element_whose_texts_run_once(reward_engine: Build, prompts: list[Prompt]) -> None:
    engine = reward_engine()
    said = [
        Ranking(prompts[0], TEXTS, (1, 2, 3, 4)),
        Ranking(prompts[0], TEXTS[::-1], (2, None, 1, 1), slope=0.5),
        Ranking(prompts[0], TEXTS, (1, 1, 1, None)),  # orders nothing
        Ranking(prompts[1], TEXTS[:2], (1, 2), slope=0.0),  # of one who guesses
    ]
    (group,) = of(engine, said)
    assert len(group.completions) == 4
    assert group.rows == [[0, 1, 2, 3], [3, 1, 0]]
    assert group.ranks == [[1, 2, 3, 4], [2, 1, 1]]
    assert group.slope == [1.0, 0.5]


def test_the_loss_of_rankings_by_hand(reward_engine: Build, prompts: list[Prompt]) -> None:
    """Two rankings of one prompt share its weight; the other prompt's one has all of its own; a slope scales scores."""
    engine = reward_engine()
    said = [
        Ranking(prompts[0], TEXTS[:3], (1, 2, 3)),
        Ranking(prompts[0], TEXTS[:3], (3, 2, 1), slope=-1.5),
        Ranking(prompts[1], TEXTS[:2], (2, 1)),
    ]
    first, second = of(engine, said)
    a, b, c = scores_of(engine, first)
    d, e = scores_of(engine, second)

    def choice(*left: float) -> float:  # of the first among all
        return log(sum(map(exp, left))) - left[0]

    as_said = choice(a, b, c) + choice(b, c)
    upside_down = choice(-1.5 * c, -1.5 * b, -1.5 * a) + choice(-1.5 * b, -1.5 * a)
    metrics = RewardModel(engine, [first, second], CONFIG).step()
    assert metrics["loss"] == pytest.approx(((as_said + upside_down) / 2 + choice(e, d)) / 2, abs=1e-5)
    right = (a > b) + (a > c) + (b > c)
    assert metrics["accuracy"] == pytest.approx((right / 3 + (e > d)) / 2, abs=1e-6)


def test_rankings_are_learned_also_from_one_who_reads_the_scale_upside_down(
    reward_engine: Build, prompts: list[Prompt]
) -> None:
    engine = reward_engine()
    said = [Ranking(prompts[0], TEXTS, (1, 2, 3, 4)), Ranking(prompts[0], TEXTS, (4, 3, 2, 1), slope=-1.0)]
    said.append(Ranking(prompts[1], TEXTS, (3, 1, 4, 2)))
    groups = of(engine, said)
    learner = RewardModel(engine, groups, CONFIG)
    seen = [learner.step() for _ in range(60)]
    assert seen[-1]["accuracy"] == 1
    assert sorted(range(4), key=scores_of(engine, groups[0]).__getitem__, reverse=True) == [0, 1, 2, 3]


def test_micro_batches_do_not_change_the_update_of_rankings_and_labels(
    reward_engine: Build, prompts: list[Prompt]
) -> None:
    said = [Ranking(p, TEXTS, ranks) for p, ranks in zip(prompts, [(1, 2, 3, 4), (2, 1, 1, 3)] * 2, strict=True)]
    labels = [UnpairedPreference(p, t, label=k % 2 == 0) for p in prompts for k, t in enumerate(TEXTS)]
    for group, rows in ((group_rankings, said), (group_labels, labels)):
        outcomes = []
        for tokens in (10_000, 1):
            engine = reward_engine(
                tokens_per_microbatch=tokens,
                optimization=Optimization(learning_rate=1.0, schedule="constant", adam_eps=1.0),
            )
            groups = group(rows, engine.roles.reward, engine.tokenizer, 64)  # type: ignore[operator]
            metrics = RewardModel(engine, groups, replace(CONFIG, prompts_per_step=4)).step()
            outcomes.append((metrics, [w.detach() for w in engine.roles.reward.weights.values()]))
        assert outcomes[0][0] == pytest.approx(outcomes[1][0], abs=1e-5)
        for first, second in zip(outcomes[0][1], outcomes[1][1], strict=True):
            torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-3)


def test_the_loss_of_labels_by_hand(reward_engine: Build, prompts: list[Prompt]) -> None:
    engine = reward_engine()
    labels = [
        UnpairedPreference(prompts[0], "hello", label=True, weight=3.0),
        UnpairedPreference(prompts[0], "no", label=False, weight=1.0),
        UnpairedPreference(prompts[1], "hello", label=True, p=0.7),
    ]
    first, second = group_labels(labels, engine.roles.reward, engine.tokenizer, 64)
    (a, b), (c,) = scores_of(engine, first), scores_of(engine, second)

    def good(score: float) -> float:
        return log(1 + exp(-score))

    of_first = 0.75 * good(a) + 0.25 * good(-b)
    of_second = 0.7 * good(c) + 0.3 * good(-c)
    metrics = RewardModel(engine, [first, second], CONFIG).step()
    assert metrics["loss"] == pytest.approx((of_first + of_second) / 2, abs=1e-5)


def test_a_classifier_learns_the_log_odds_of_being_good(reward_engine: Build, prompts: list[Prompt]) -> None:
    """Three of four said that it is good: sigma(s) = 3/4, s = ln 3."""
    engine = reward_engine()
    labels = [UnpairedPreference(prompts[0], "hello", label=vote) for vote in (True, True, False, True)]
    groups = group_labels(labels, engine.roles.reward, engine.tokenizer, 64)
    learner = RewardModel(engine, groups, replace(CONFIG, prompts_per_step=1))
    for _ in range(80):
        learner.step()
    assert scores_of(engine, groups[0]) == pytest.approx([log(3)], abs=0.05)


def test_centering_is_of_pairs(reward_engine: Build, prompts: list[Prompt]) -> None:
    engine = reward_engine()
    with pytest.raises(ConfigError, match="center_coef is of the two sides of pairs"):
        RewardModel(engine, of(engine, [Ranking(prompts[0], TEXTS, (1, 2, 3, 4))]), replace(CONFIG, center_coef=0.1))
