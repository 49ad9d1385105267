"""Planted defects in rewards, and that each is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tuneful.models.loading import load_scorer, load_tokenizer, save_model
from tuneful.pipeline.doctor.finding import Finding
from tuneful.pipeline.doctor.reward import NUM_ANSWERS, look_at_reward
from tuneful.records import Completion, Prompt

HOT = Prompt.user("hot")
ANSWERS = [(HOT, Completion(" ".join(["tea"] * (n % 7 + 1) + ["yes"] * (n % 2)))) for n in range(100)]
BY_LENGTH = "rank correlation of the scores with length"

RULES = """
def longer(prompts, completions):
    return [len(c.text.split()) for c in completions]

def shorter(prompts, completions):
    return [-len(c.text.split()) ** 3 for c in completions]

def says_yes(prompts, completions):
    return [float("yes" in c.text) for c in completions]

def same(prompts, completions):
    return [2.0 for c in completions]
"""


def findings(reward: str, *arguments: Any) -> dict[str, Finding]:
    return {finding.name: finding for finding in look_at_reward(reward, *arguments)}


def noted(found: dict[str, Finding]) -> set[str]:
    return {name for name, finding in found.items() if finding.status != "ok"}


def test_a_reward_that_follows_length(tmp_path: Path) -> None:
    (tmp_path / "rules.py").write_text(RULES)
    for name, value, direction in (("longer", 1.0, "longer"), ("shorter", -1.0, "shorter")):
        found = findings(f"{tmp_path}/rules.py:{name}", ANSWERS)
        assert noted(found) == {BY_LENGTH}
        assert round(float(found[BY_LENGTH].value or 0), 6) == value
        assert f"by {direction} answers alone" in found[BY_LENGTH].mend
        assert found["answers scored"].value == NUM_ANSWERS
    found = findings(f"{tmp_path}/rules.py:says_yes", ANSWERS)
    assert BY_LENGTH in found
    assert noted(found) == set()


def test_a_few_answers_of_ours_say_nothing_about_length(tmp_path: Path) -> None:
    (tmp_path / "rules.py").write_text(RULES)
    found = findings(f"{tmp_path}/rules.py:longer")
    assert BY_LENGTH not in found
    assert found["spread of the scores"].status == "ok"


def test_a_reward_that_is_always_the_same(tmp_path: Path) -> None:
    (tmp_path / "rules.py").write_text(RULES)
    assert noted(findings(f"{tmp_path}/rules.py:same", ANSWERS)) == {"spread of the scores"}


def test_a_sound_reward_model_is_found_sound(tiny_model_dir: Path, tmp_path: Path) -> None:
    save_model(load_scorer(tiny_model_dir), load_tokenizer(tiny_model_dir), tmp_path / "scorer")
    found = findings(str(tmp_path / "scorer"), ANSWERS)
    assert found["largest change of a reward with its batch or padding"].status == "ok"
    assert found["spread of the scores"].status == "ok"
