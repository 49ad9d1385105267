"""Learners of a recipe over seeds: run, read, added to, and refused before anything is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.recipes import WORDS, stage_toml
from tuneful.data.jsonl import write_jsonl
from tuneful.errors import ConfigError
from tuneful.pipeline.compare import compare_recipes
from tuneful.pipeline.context import World

TOY = {"toy": World(measures={"words": lambda _, text: float(len(text.split()))})}


@pytest.fixture
def recipe(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """PPO, best-of-n and a learner that nobody evaluates, on the tiny model."""
    prompts = tmp_path / "prompts.jsonl"
    write_jsonl(prompts, ({"prompt": f"{one} {other}"} for one in WORDS for other in WORDS[:3]))
    common: dict[str, Any] = {"model": tiny_model_dir, "prompts": prompts, "reward": "shorter", "max_new_tokens": 5}
    steps = {"num_steps": 2, "prompts_per_step": 4, "evaluate_every": 1, "evaluate_prompts": 3, "save_every": 0}
    judged = {"prompts": prompts, "limit": 4, "num_samples": 2, "max_new_tokens": 5, "measures": ["toy:words"]}
    path = tmp_path / "small.toml"
    path.write_text(
        "splits = { reward = 0.3, rl = 0.3, dev = 0.2, test = 0.2 }\n"
        + stage_toml("ppo", algorithm="ppo", epochs=1, **common, **steps)
        + stage_toml("other", algorithm="reinforce", **common, **steps)
        + stage_toml("judge", do="evaluate", before=tiny_model_dir, after="@ppo", judge="toy:words", **judged)
        + stage_toml("best", do="best_of_n", **common | judged | {"num_samples": 4})
    )
    return path


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_each_learner_with_each_seed(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = compare_recipes([recipe], out, seeds=[0, 1], worlds=TOY)
    assert report == read(out / "report.json")
    assert report["measure"] == "words"
    rows = {row["learner"]: row for row in report["learners"]}
    assert rows.keys() == {"ppo", "best"}
    ppo, best = rows["ppo"], rows["best"]
    assert (ppo["algorithm"], ppo["seeds"]) == ("ppo", [0, 1])

    judged = [read(out / "small" / f"seed-{seed}" / "judge" / "report.json") for seed in (0, 1)]
    gains = [one["difference"]["words"]["mean"] for one in judged]
    assert ppo["difference"]["words"]["mean"] == pytest.approx(sum(gains) / 2)
    assert ppo["kl"]["mean"] == pytest.approx(sum(one["kl"]["mean"] for one in judged) / 2)
    assert ppo["samples"]["mean"] == 2 * 4
    logs = [(out / "small" / f"seed-{seed}" / "ppo" / "metrics.jsonl").read_text().splitlines() for seed in (0, 1)]
    of_steps = [one["seconds"] for log in logs for one in map(json.loads, log) if one["kind"] == "train"]
    assert ppo["seconds"]["mean"] == pytest.approx(sum(of_steps) / 2)
    assert best["samples"]["mean"] == 4 * 4
    assert best["kl"]["mean"] == pytest.approx(1.386294 - 0.75)  # log 4 - 3/4
    assert [point["kl"] for point in best["curve"]] == pytest.approx([0, 0.693147 - 0.5, 1.386294 - 0.75])
    assert [point["seconds"] / best["seconds"]["mean"] for point in best["curve"]] == pytest.approx([1 / 4, 1 / 2, 1])
    noted = [read(out / "small" / f"seed-{seed}" / "best" / "run.json")["memory"] for seed in (0, 1)]
    above = [max(0, one["resident"] - one["resident_before"]) for one in noted]
    assert best["memory"]["mean"] == pytest.approx(sum(above) / 2)
    assert "small" in (out / "report.html").read_text()


def test_who_learns_from_stored_answers_has_drawn_none(tiny_model_dir: Path, tmp_path: Path) -> None:
    prompts, answers = tmp_path / "prompts.jsonl", tmp_path / "answers.jsonl"
    asked = [f"{one} {other}" for one in WORDS for other in WORDS[:3]]
    write_jsonl(prompts, ({"prompt": prompt} for prompt in asked))
    write_jsonl(answers, ({"prompt": prompt, "completions": [{"text": "yes"}]} for prompt in asked))
    common: dict[str, Any] = {"model": tiny_model_dir, "prompts": prompts, "reward": "shorter", "max_new_tokens": 5}
    learns = {"completions": answers, "offline": True, "num_steps": 2, "evaluate_every": 1, "evaluate_prompts": 3}
    judged = {"prompts": prompts, "limit": 4, "max_new_tokens": 5, "measures": ["toy:words"], "judge": "toy:words"}
    path = tmp_path / "stored.toml"
    path.write_text(
        "splits = { reward = 0.3, rl = 0.3, dev = 0.2, test = 0.2 }\n"
        + stage_toml("dqn", algorithm="dqn", completions_per_update=4, **common, **learns)
        + stage_toml("judge", do="evaluate", before=tiny_model_dir, after="@dqn", **judged)
    )
    (row,) = compare_recipes([path], tmp_path / "out", seeds=[0], worlds=TOY)["learners"]
    assert row["samples"] == 0
    assert [(point["step"], point["samples"]) for point in row["curve"]] == [(0, 0), (1, 0), (2, 0)]


def test_a_curve_measures_the_answers_to_dev_prompts(recipe: Path, tmp_path: Path) -> None:
    compare_recipes([recipe], tmp_path / "out", seeds=[0], worlds=TOY)
    (row,) = (row for row in read(tmp_path / "out" / "report.json")["learners"] if row["learner"] == "ppo")
    stage = tmp_path / "out" / "small" / "seed-0" / "ppo"
    answers = [json.loads(line) for line in (stage / "samples.jsonl").read_text().splitlines()]
    logged = [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]
    assert [point["step"] for point in row["curve"]] == [0, 1, 2]
    for point in row["curve"]:
        lengths = [len(one["completion"].split()) for one in answers if one["step"] == point["step"]]
        assert len(lengths) == 3
        assert point["measure"] == pytest.approx(sum(lengths) / 3)
        assert point["samples"] == 4 * point["step"]
        of_training = [r["seconds"] for r in logged if r["kind"] == "train" and r["step"] <= point["step"]]
        assert point["seconds"] == pytest.approx(sum(of_training))


def test_a_seed_more_runs_that_seed_alone(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    compare_recipes([recipe], out, seeds=[0], worlds=TOY)
    first = (out / "small" / "seed-0" / "ppo" / "metrics.jsonl").stat().st_mtime_ns
    report = compare_recipes([recipe], out, seeds=[0, 1], worlds=TOY)
    assert all(row["seeds"] == [0, 1] for row in report["learners"])
    assert (out / "small" / "seed-0" / "ppo" / "metrics.jsonl").stat().st_mtime_ns == first


def test_two_recipes_are_told_apart(recipe: Path, tmp_path: Path) -> None:
    other = recipe.with_name("larger.toml")
    other.write_text(recipe.read_text())
    report = compare_recipes([recipe, other], tmp_path / "out", seeds=[0], worlds=TOY)
    assert {row["learner"] for row in report["learners"]} == {
        "small: ppo",
        "small: best",
        "larger: ppo",
        "larger: best",
    }


@pytest.mark.parametrize(
    ("old", "new", "measure", "told"),
    [
        ('after = "@ppo"', 'after = "elsewhere"', "length", None),
        ('judge = "toy:words"\n', "", None, "the evaluations judge by None; say --measure NAME"),
        ("", "", "wrds", 'stage judge: nothing called "wrds" is measured there; did you mean "words"'),
        ("", "", "reward", 'stage judge: nothing called "reward" is measured there'),
    ],
)
def test_what_cannot_be_compared_is_refused_first(
    recipe: Path, tmp_path: Path, old: str, new: str, measure: str | None, told: str | None
) -> None:
    text = recipe.read_text().replace(old, new) if old else recipe.read_text()
    if told is None:  # no evaluation of a learner, and no best_of_n
        text = text[: text.index('[[stage]]\nname = "best"')]
        told = "nothing to compare"
    recipe.write_text(text)
    with pytest.raises(ConfigError, match=told):
        compare_recipes([recipe], tmp_path / "out", seeds=[0], measure=measure, worlds=TOY)
    assert not (tmp_path / "out").exists()


def test_a_seed_of_a_stage_is_refused_where_there_are_several(recipe: Path, tmp_path: Path) -> None:
    recipe.write_text(recipe.read_text().replace('name = "ppo"\n', 'name = "ppo"\nseed = 5\n'))
    with pytest.raises(ConfigError, match=r"small.toml: stage ppo sets seed = 5"):
        compare_recipes([recipe], tmp_path / "out", seeds=[0, 1], worlds=TOY)
    assert not (tmp_path / "out").exists()


def test_two_recipes_of_one_name_are_refused(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    other = tmp_path / "more" / recipe.name
    other.write_text(recipe.read_text())
    with pytest.raises(ConfigError, match=r"two recipes have one name.*rename one"):
        compare_recipes([recipe, other], tmp_path / "out", worlds=TOY)
