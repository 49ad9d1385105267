"""What may be written as a reward, and one line for what may not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest

from tuneful.errors import ConfigError
from tuneful.rewards.classifier import Classifier
from tuneful.rewards.ensemble import Ensemble
from tuneful.rewards.judge import Judge
from tuneful.rewards.rules import FormatRule, LengthRule, WordsRule
from tuneful.rewards.tables import Part, RewardInput, reward_of, reward_text, toxicity_text
from tuneful.settings import as_table, build


@dataclass(frozen=True, kw_only=True)
class Settings:
    """As an input of a stage has it."""

    reward: RewardInput
    second: RewardInput | None = None


WRITTEN: list[tuple[Any, Any]] = [
    ("@reward", "@reward"),
    ({"rule": "length", "target": 40}, LengthRule(rule="length", target=40)),
    ({"rule": "format", "pattern": "a+"}, FormatRule(rule="format", pattern="a+")),
    ({"rule": "words", "words": ["a", "b"]}, WordsRule(rule="words", words=("a", "b"))),
    ({"classifier": "dir", "label": 1}, Classifier(classifier="dir", label=1)),
    ({"classifier": "dir", "label": "1"}, Classifier(classifier="dir", label="1")),
    ({"judge": "http://a/v1", "model": "m", "scale": [0, 5]}, Judge(judge="http://a/v1", model="m", scale=(0, 5))),
    ({"ensemble": ["@a", "@b"], "combine": "worst"}, Ensemble(ensemble=("@a", "@b"), combine="worst")),
    (
        [{"reward": "@a", "clip": 10}, {"reward": {"rule": "length", "budget": 9}, "weight": -1}],
        (Part(reward="@a", clip=10.0), Part(reward=LengthRule(rule="length", budget=9), weight=-1.0)),
    ),
]


@pytest.mark.parametrize(("written", "meant"), WRITTEN)
def test_each_kind(written: Any, meant: Any) -> None:
    built = build(Settings, {"reward": written, "second": written}, where="here")
    assert built == Settings(reward=meant, second=meant)
    assert build(Settings, as_table(built), where="here") == built
    assert build(Settings, as_table(Settings(reward=meant)), where="here").second is None


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (3, "second = 3: a reward is a text, a table or a list of parts"),
        (" ", 'second = " ": names no reward; leave it out where there is none'),
        ([{"reward": ""}], 'second: part 1: reward = "": names no reward'),
        ({"classifier": "x", "label": True}, 'second: "label" = True: write a number'),
        ([], "second = []: a reward is a text, a table or a list of parts"),
        ({}, 'second: a table needs one of "rule", "classifier", "judge" or "ensemble"'),
        (
            {"clasifier": "x"},
            'second: a table needs one of "rule", "classifier", "judge" or "ensemble"; did you mean "classifier"?',
        ),
        ({"rule": "lenght"}, 'second: rule = "lenght" is unknown; did you mean "length"?'),
        ({"rule": ["length"]}, 'second: rule = "[\'length\']" is unknown; did you mean "length"?'),
        ({"rule": "length", "targt": 3}, 'second: unknown setting "targt"; did you mean "target"?'),
        ({"rule": "length", "target": "many"}, "second: \"target\" = 'many': Input should be a valid integer"),
        ({"rule": "words", "measure": "any"}, "second: words: give either words = [...] or file"),
        ({"classifier": "x", "lable": 1}, 'second: unknown setting "lable"; did you mean "label"?'),
        ({"classifier": "x", "output": "logits"}, "second: \"output\" = 'logits': Input should be 'logit', 'logodds'"),
        ({"judge": "http://a/v1"}, 'second: "model" is required'),
        ({"judge": "a", "model": "m"}, 'second: judge: "a" is no URL'),
        ({"ensemble": ["@a"]}, "second: ensemble: needs at least 2 members, got 1"),
        ({"reward": "x", "weight": 2}, "second: parts of a sum stand in a list, [{reward = …, weight = …}]"),
        (["x"], "second: part 1 = 'x': a part is a table, {reward = …, weight = …}"),
        ([{"weight": 2}], 'second: part 1: "reward" is required'),
        ([{"reward": "x", "wieght": 2}], 'second: part 1: unknown setting "wieght"; did you mean "weight"?'),
        ([{"reward": "x"}, {"reward": {"rule": "size"}}], 'second: part 2: reward: rule = "size" is unknown'),
        ([{"reward": "x", "weight": "2"}], "second: part 1: \"weight\" = '2': write a number, without quotation marks"),
        ([{"reward": "x", "weight": math.nan}], "second: part 1: weight must be a finite number, got nan; 1 counts"),
        ([{"reward": "x"}, {"reward": "y", "weight": -math.inf}], "second: part 2: weight must be a finite number"),
        ([{"reward": [{"reward": "x"}]}], "second: part 1: reward is a list; a part of a sum is no sum itself"),
        ([{"reward": "x"}, {"reward": "x"}], 'second: 2 parts are called "x"; give each a name'),
    ],
)
def test_a_mistake_is_one_line_that_names_it(written: Any, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(Settings, {"reward": "shorter", "second": written}, where="recipe.toml: stage ppo")
    assert str(error.value).startswith(f"recipe.toml: stage ppo: {said}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("runs/reward/model", "runs/reward/model"),
        ("./mine.py:score", "./mine.py:score"),
        ('{rule = "length", target = 40}', LengthRule(rule="length", target=40)),
        ('[{reward = "shorter", clip = 3.0}]', (Part(reward="shorter", clip=3.0),)),
    ],
)
def test_a_command_line_says_it_as_a_recipe(text: str, meant: Any) -> None:
    assert reward_text(text, where="--reward") == meant


def test_a_command_line_that_is_no_toml() -> None:
    with pytest.raises(ConfigError, match=r"--reward \{rule: length\}: not valid TOML: .*; write it as in a recipe, "):
        reward_text("{rule: length}", where="--reward")


@pytest.mark.parametrize("read", [reward_text, toxicity_text])
def test_a_command_line_that_names_nothing(read: Any) -> None:
    with pytest.raises(ConfigError, match=r'^--reward = "": names no reward; leave it out where there is none$'):
        read("", where="--reward")


def test_toxicity_on_a_command_line(tmp_path: Any) -> None:
    (tmp_path / "rude.txt").write_text("idiot\n")
    file = str(tmp_path / "rude.txt")
    assert toxicity_text(file, where="-") == WordsRule(rule="words", file=file, measure="any")
    assert toxicity_text("none.txt", where="-") == WordsRule(rule="words", file="none.txt", measure="any")
    assert toxicity_text("owner/hate", where="-") == Classifier(classifier="owner/hate", output="probability")
    assert toxicity_text("./mine.py:rude", where="-") == "./mine.py:rude"
    table = '{classifier = "owner/hate", label = "hate"}'
    assert toxicity_text(table, where="-") == Classifier(classifier="owner/hate", label="hate")


def test_what_is_built_already_stays() -> None:
    part = Part(reward="longer")
    assert reward_of((part,), where="reward") == (part,)
