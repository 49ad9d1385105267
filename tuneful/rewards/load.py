"""From the `reward` of a recipe or command to a callable: model directory, rule, or function."""

from __future__ import annotations

from pathlib import Path

from tuneful.errors import RewardError, did_you_mean
from tuneful.rewards.learned import LearnedReward
from tuneful.rewards.reward import Reward
from tuneful.rewards.rules import RULES, load_function


def load_reward(reference: str) -> Reward:
    """The reward a text names: a rule, `module:function`, or a reward model directory."""
    if reference in RULES:
        return RULES[reference]
    if ":" in reference:
        return load_function(reference)
    if Path(reference).is_dir():
        return LearnedReward.load(reference)
    raise RewardError(
        f'reward "{reference}": no such model directory or rule{did_you_mean(reference, RULES)}; '
        'a function of your own is written "./file.py:function"'
    )
