"""From the `reward` of a recipe or command to a callable."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from tuneful.errors import RewardError, did_you_mean
from tuneful.rewards.classifier import Classifier, ClassifierReward
from tuneful.rewards.composite import Composite, WeightedReward
from tuneful.rewards.ensemble import Ensemble, EnsembleReward
from tuneful.rewards.judge import Judge, JudgeReward
from tuneful.rewards.learned import LearnedReward, refuse_language_model
from tuneful.rewards.own import load_function
from tuneful.rewards.reward import Reward
from tuneful.rewards.rules import RULES, WordsRule
from tuneful.rewards.tables import RewardInput, part_names


def load_reward(reward: RewardInput, *, model: Callable[[str], str] = str) -> Reward:
    """The reward that a text, a table or a list of weighted parts stands for.

    A text is a rule, `module:function`, `./file.py:function`, or a reward model as a directory, hub id or `@stage`.
    model: the directory of a model that is named by its stage. Raises RewardError, ConfigError or ModelError, in one
    line, for what does not exist.
    """
    if isinstance(reward, str):
        return _named(reward, model)
    if isinstance(reward, tuple):
        parts = zip(part_names(reward), reward, strict=True)
        return Composite(
            tuple(WeightedReward(n, load_reward(p.reward, model=model), p.weight, p.clip) for n, p in parts)
        )
    if isinstance(reward, Classifier):
        return ClassifierReward.load(reward, model(reward.classifier))
    if isinstance(reward, Judge):
        return JudgeReward(reward)
    if isinstance(reward, Ensemble):
        members = tuple(_named(member, model) for member in reward.ensemble)
        return EnsembleReward(members, reward.combine, reward.variance_coef)
    return reward.read() if isinstance(reward, WordsRule) else reward


def refuse_missing(reference: str, stages: Iterable[str] = ()) -> None:
    """RewardError or ModelError for a text that names no reward; of a reward model no weights are read.

    stages: the stages whose reward models it may have meant.
    """
    if reference in RULES or reference.startswith("@"):
        return
    if ":" in reference:
        load_function(reference)
    elif Path(reference).is_dir() or "/" in reference:
        refuse_language_model(reference)
    else:
        near = did_you_mean(reference, [*RULES, *(f"@{stage}" for stage in stages)])
        raise RewardError(
            f'reward "{reference}": no such model directory or rule{near}; '
            'a function of your own is written "./file.py:function"'
        )


def _named(reference: str, model: Callable[[str], str]) -> Reward:
    if reference in RULES:
        return RULES[reference]
    if reference.startswith("@"):
        return LearnedReward.load(model(reference))
    if ":" in reference:
        return load_function(reference)
    refuse_missing(reference)
    return LearnedReward.load(reference)
