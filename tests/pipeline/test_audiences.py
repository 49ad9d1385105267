"""A reward of their own for each group of people: from one store, as adapters on one base, and a mix of both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from sqlalchemy import update

from tests.pipeline.recipes import WORDS, stage_toml
from tuneful.errors import ConfigError, DataError
from tuneful.feedback.judgments import read_judgments
from tuneful.feedback.projects import create_project
from tuneful.feedback.recording import record
from tuneful.feedback.store import Store
from tuneful.feedback.tables import rater
from tuneful.pipeline.recipe import load_recipe
from tuneful.pipeline.run import run_recipe
from tuneful.records import Candidates, Completion, Judgment, Prompt
from tuneful.rewards.learned import LearnedReward
from tuneful.rewards.load import load_reward
from tuneful.rewards.tables import reward_text

PROMPTS = [Prompt.user(f"{a} {b}") for a in WORDS[:8] for b in WORDS[8:16]]
ITEMS = [
    Candidates(prompt, (Completion("red", id=f"{n}-red"), Completion("green", id=f"{n}-green")))
    for n, prompt in enumerate(PROMPTS)
]
SPLITS = "splits = { reward = 0.6, rl = 0.1, dev = 0.1, test = 0.2 }\n"


def word(item: Candidates, who: str, ranks: tuple[int, int]) -> Judgment:
    ids = tuple(one.id for one in item.completions)
    about = {"item": item.prompt.id, "prompt": item.prompt.id, "completions": ids}
    return Judgment(id=f"{who} {item.prompt.id}", rater=who, ranks=ranks, criterion="helpful", **about)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Five nurses who like red, five gardeners who like green, four cooks who like red."""
    groups = {f"nurse-{n}": ["nurses"] for n in range(5)} | {f"gardener-{n}": ["gardeners"] for n in range(5)}
    groups |= {f"cook-{n}": ["cooks"] for n in range(4)}
    likes = {"nurses": (1, 2), "gardeners": (2, 1), "cooks": (1, 2)}
    said = [word(item, who, likes[mine[0]]) for item in ITEMS for who, mine in groups.items()]
    opened = Store.open(tmp_path / "judgments.db")
    project = create_project(opened, "colours", criteria=("helpful",), now=0.0)
    record(opened, project, ITEMS, said, now=1.0)
    for who, mine in groups.items():
        opened.write(
            lambda c, who=who, mine=mine: c.execute(update(rater).where(rater.c.id == who).values(groups=mine))
        )
    opened.close()
    return tmp_path / "judgments.db"


def recipe(folder: Path, store: Path, model: Path) -> Path:
    """As docs/how-to/audiences.md has it."""
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": prompt.as_json()}) + "\n" for prompt in PROMPTS))
    normalised = {"normalise_prompts": prompts, "normalise_model": model, "normalise_samples": 64, "max_new_tokens": 5}
    adapter = {"lora": {"rank": 2}, "optimization": {"learning_rate": 0.05}, "prompts_per_step": 8, "epochs": 4}
    stages = []
    for name in ("nurses", "gardeners"):
        stages += [
            stage_toml(f"{name}_said", do="collect", store=store, project="colours", audience=name),
            stage_toml(f"{name}_agree", do="consensus", judgments=f"@{name}_said", completions=f"@{name}_said"),
            stage_toml(name, algorithm="reward", model=model, comparisons=f"@{name}_agree", **normalised, **adapter),
        ]
    agreed = ["@nurses_agree", "@gardeners_agree"]
    stages.append(stage_toml("table", do="audiences", rewards=["@nurses", "@gardeners"], comparisons=agreed))
    (folder / "audiences.toml").write_text(SPLITS + "".join(stages))
    return folder / "audiences.toml"


def test_each_audience_gets_its_own_reward_and_a_mix_weighs_them(
    store: Path, tmp_path: Path, tiny_model_dir: Path
) -> None:
    out = tmp_path / "out"
    run_recipe(load_recipe(recipe(tmp_path, store, tiny_model_dir)), out)
    raters = {one.rater for one in read_judgments(out / "nurses_said" / "judgments.jsonl")}
    assert raters == {f"nurse-{n}" for n in range(5)}
    table = json.loads((out / "table" / "report.json").read_text())["audiences"]
    accuracy = {mine: {of: found["mean"] for of, found in row.items()} for mine, row in table.items()}
    assert accuracy == {
        "@nurses": {"@nurses_agree": 1.0, "@gardeners_agree": 0.0},
        "@gardeners": {"@nurses_agree": 0.0, "@gardeners_agree": 1.0},
    }
    folders = {name: out / name / "model" for name in ("nurses", "gardeners")}
    for folder in folders.values():  # adapters, not models
        assert (folder / "adapter_config.json").exists()
        assert not (folder / "model.safetensors").exists()
    parts = [f'{{ reward = "{folders[name]}", weight = {weight}, name = "{name}" }}' for name, weight in MIX.items()]
    mixed = load_reward(reward_text(f"[{', '.join(parts)}]", where="--reward"))
    asked = ([PROMPTS[0]] * 2, [Completion("red"), Completion("green")])
    apart = {name: LearnedReward.load(folder)(*asked) for name, folder in folders.items()}
    assert apart["nurses"][0] > apart["nurses"][1]
    assert apart["gardeners"][0] < apart["gardeners"][1]
    torch.testing.assert_close(mixed(*asked), sum(weight * apart[name] for name, weight in MIX.items()))


MIX = {"nurses": 0.7, "gardeners": 0.3}


@pytest.mark.parametrize(
    ("audience", "told"),
    [("cooks", 'audience "cooks": has fewer than 5 people'), ("nurse", 'nobody of it.*did you mean "nurses"')],
)
def test_an_audience_that_is_too_small_or_unknown_is_refused(
    store: Path, tmp_path: Path, audience: str, told: str
) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(stage_toml("said", do="collect", store=store, project="colours", audience=audience))
    with pytest.raises(DataError, match=told):
        run_recipe(load_recipe(path), tmp_path / "out")


def test_a_table_needs_each_name_once(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(stage_toml("table", do="audiences", rewards=["runs/a", "runs/a"], comparisons=["pairs.jsonl"]))
    with pytest.raises(ConfigError, match=r"rewards = .*each once"):
        load_recipe(path)
