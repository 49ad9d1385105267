"""Rules by name, functions by place, and one clear line for what is neither."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuneful.errors import RewardError
from tuneful.records import Completion, Prompt
from tuneful.rewards.load import load_reward
from tuneful.rewards.rules import RULES, load_function, longer, shorter

PROMPTS = [Prompt("a"), Prompt("b")]
COMPLETIONS = [Completion("three little words"), Completion("")]


def message(reference: str) -> str:
    with pytest.raises(RewardError) as error:
        load_reward(reference)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_rules_count_words() -> None:
    assert shorter(PROMPTS, COMPLETIONS).tolist() == [-3, 0]
    assert longer(PROMPTS, COMPLETIONS).tolist() == [3, 0]


def test_a_rule_by_name() -> None:
    assert set(RULES) == {"shorter", "longer"}
    assert load_reward("shorter") is shorter


def test_a_function_of_a_module() -> None:
    assert load_reward("tuneful.rewards.rules:longer")(PROMPTS, COMPLETIONS).tolist() == [3, 0]


def test_a_function_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("import torch\n\ndef vowels(prompts, completions):\n    return torch.ones(len(completions))\n")
    assert load_function(f"{file}:vowels")(PROMPTS, COMPLETIONS).tolist() == [1, 1]
    found = message(f"{file}:vowel")
    assert found == f'reward "{file}:vowel": {file} has no function "vowel"; did you mean "vowels"?'


def test_what_does_not_exist(tmp_path: Path) -> None:
    assert message("shortr") == (
        'reward "shortr": no such model directory or rule; did you mean "shorter"?; '
        'a function of your own is written "./file.py:function"'
    )
    assert message("no.such.module:f").startswith('reward "no.such.module:f": no.such.module cannot be loaded: ')
    assert message(f"{tmp_path / 'none.py'}:f").startswith(f'reward "{tmp_path / "none.py"}:f": ')


MINE = """import torch

def nothing(prompts, completions):
    torch.ones(len(completions))

def one(prompts, completions):
    return [1.0]

def divides(prompts, completions):
    return [ratio(c) for c in completions]

def ratio(completion):
    return 1 / len(completion.text)
"""


def refused(reference: str) -> RewardError:
    with pytest.raises(RewardError) as error:
        load_reward(reference)(PROMPTS, COMPLETIONS)
    assert "\n" not in str(error.value)
    return error.value


def test_what_a_function_returns_or_raises_is_told_with_its_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    must = "it must return one number each, shape (2,)"
    nothing = refused(f"{file}:nothing")
    assert str(nothing) == f'reward "{file}:nothing": the reward returned None for 2 completions; {must}'
    assert "returned shape (1,) for 2 completions" in str(refused(f"{file}:one"))
    divides = refused(f"{file}:divides")
    assert str(divides) == (
        f'reward "{file}:divides": raised ZeroDivisionError: division by zero at {file}:13; '
        "a reward is called with prompts and completions and returns one number for each completion"
    )
    assert isinstance(divides.__cause__, ZeroDivisionError)
    assert divides.__cause__.__traceback__ is not None


def test_a_function_that_is_no_reward() -> None:
    assert str(refused("os.path:join")).startswith('reward "os.path:join": raised TypeError: ')


def test_a_file_that_cannot_be_loaded_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("import torch\n\nscale = torhc.ones(1)\n")
    assert message(f"{file}:f") == (
        f"reward \"{file}:f\": {file} cannot be loaded: NameError: name 'torhc' is not defined at {file}:3"
    )
