"""A reward stage on what people said in other shapes than comparisons: whole rankings, good and bad answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.recipes import stage_toml
from tuneful.data.formats import read_candidates
from tuneful.errors import ConfigError
from tuneful.pipeline.recipe import Recipe, load_recipe
from tuneful.pipeline.run import run_recipe
from tuneful.rewards.load import load_reward


def reward_recipe(road: Path, model: Path, folder: Path, **given: Any) -> Recipe:
    prompts = road.parent / "prompts.jsonl"
    normalised = {"normalise_prompts": prompts, "normalise_model": model, "normalise_samples": 64, "max_new_tokens": 5}
    learning = {"epochs": 30, "prompts_per_step": 8, "optimization": {"learning_rate": 0.01}}
    stage = stage_toml("reward", algorithm="reward", model=model, **normalised, **learning, **given)
    (folder / "recipe.toml").write_text("splits = { reward = 0.4, rl = 0.3, dev = 0.1, test = 0.2 }\n" + stage)
    return load_recipe(folder / "recipe.toml")


@pytest.mark.parametrize("kind", ["rankings", "preferences"])
def test_it_learns_that_short_is_better(kind: str, road: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    """As five of the raters say, and a sixth the other way round, who is found out."""
    answers = road / "samples" / "completions.jsonl"
    given: dict[str, Any] = {"rankings": road / "labels" / "judgments.jsonl", "completions": answers}
    if kind == "preferences":
        given = {"preferences": road / "consensus" / "comparisons.jsonl"}
    run_recipe(reward_recipe(road, tiny_model_dir, tmp_path, **given), tmp_path / "run")
    report = json.loads((tmp_path / "run" / "reward" / "report.json").read_text())
    assert report["num_rankings" if kind == "rankings" else "num_answers"] > report["num_prompts"]

    reward = load_reward(str(tmp_path / "run" / "reward" / "model"), model=str)
    right = counted = 0
    for item in read_candidates(answers):
        scores = reward([item.prompt] * len(item.completions), list(item.completions)).tolist()
        lengths = [len(c.text.split()) for c in item.completions]
        for a in range(len(scores)):
            for b in range(len(scores)):
                if lengths[a] < lengths[b]:
                    counted += 1
                    right += scores[a] > scores[b]
    assert counted > 40
    assert right / counted > 0.8


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "from comparisons, from rankings or from preferences; give one of them"),
        ({"comparisons": "c.jsonl", "preferences": "p.jsonl"}, "give one of them"),
        ({"rankings": "j.jsonl"}, "rankings and completions go together"),
        ({"comparisons": "c.jsonl", "completions": "a.jsonl"}, "rankings and completions go together"),
    ],
)
def test_what_does_not_go_together(
    given: dict[str, str], told: str, road: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=told):
        reward_recipe(road, tiny_model_dir, tmp_path, **given)
