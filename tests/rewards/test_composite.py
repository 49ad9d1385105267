"""Sums of rewards: clipped, then weighted, then added; each part known by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuneful.errors import ConfigError, RewardError
from tuneful.records import Completion, Prompt
from tuneful.rewards.composite import Composite
from tuneful.rewards.load import load_reward
from tuneful.rewards.rules import LengthRule
from tuneful.rewards.tables import Part, part_names

PROMPTS = [Prompt("a"), Prompt("b")]
COMPLETIONS = [Completion("one two three four five"), Completion("one")]


def test_by_hand() -> None:
    """Words 5 and 1. 0.5 * min(words, 4) is 2 and .5; -2 * (words beyond 3, as minus 2 and 0) is 4 and 0."""
    budget = LengthRule(rule="length", budget=3)
    parts = (Part(reward="longer", weight=0.5, clip=4.0), Part(reward=budget, weight=-2.0))
    reward = load_reward(parts)
    assert isinstance(reward, Composite)
    assert reward(PROMPTS, COMPLETIONS).tolist() == [6.0, 0.5]
    scores = {name: found.tolist() for name, found in reward.scores(PROMPTS, COMPLETIONS).items()}
    assert scores == {"longer": [5, 1], "length": [-2, 0]}


def test_the_clip_holds_on_both_sides() -> None:
    assert load_reward((Part(reward="shorter", clip=2.0),))(PROMPTS, COMPLETIONS).tolist() == [-2, -1]


def test_names_of_parts() -> None:
    texts = ("@reward", "runs/mine/judge", "./mine.py:score", "longer", "owner/model")
    assert part_names([Part(reward=text) for text in texts]) == ("reward", "judge", "score", "longer", "model")
    assert part_names([Part(reward="longer", name="size"), Part(reward="longer")]) == ("size", "longer")
    with pytest.raises(ConfigError, match='2 parts are called "longer"; give each a name'):
        part_names([Part(reward="longer"), Part(reward="longer")])


def test_a_part_that_is_not_finite_is_told_even_behind_a_clip(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def endless(p, c):\n    return [float('inf')] * len(c)\n")
    reward = load_reward((Part(reward=f"{tmp_path}/mine.py:endless", clip=1.0), Part(reward="longer")))
    with pytest.raises(RewardError, match="the reward is inf for 2 of 2 completions"):
        reward(PROMPTS, COMPLETIONS)


def test_a_clip_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="clip must be above 0, got 0"):
        Part(reward="longer", clip=0.0)
