from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sharing

from tuneful.errors import RunError
from tuneful.pipeline.recipe import Recipe, load_recipe, shipped_recipe


def recipe_of(variant: str, name: str = "demo", seed: int = 0) -> Recipe:
    return load_recipe(shipped_recipe(name), sharing.overrides(name, variant), seed=seed)


def before_ppo(variant: str, seed: int = 0) -> Recipe:
    recipe = recipe_of(variant, seed=seed)
    return replace(recipe, stages=tuple(stage for stage in recipe.stages if stage.kind not in ("ppo", "evaluate")))


def inputs_of(variant: str, name: str = "demo") -> tuple[Any, Any]:
    stages = {stage.name: stage.inputs for stage in recipe_of(variant, name).stages}
    return stages["reward"], stages["ppo"]


@pytest.mark.parametrize("name", ["demo", "hh_small"])
def test_a_variant_is_what_it_is_called(name: str) -> None:
    held = {}
    for variant in sharing.VARIANTS:
        reward, ppo = inputs_of(variant, name)
        held[variant] = (ppo.lora is not None, reward.lora is not None, ppo.share_base, ppo.value, ppo.value_from)
    assert held == {
        "lora-shared-head": (True, True, True, "head", None),
        "lora-shared-adapter": (True, True, True, "adapter", None),
        "lora-shared-model": (True, True, True, "model", None),
        "lora-own-head": (True, False, False, "head", None),
        "lora-own-adapter": (True, False, False, "adapter", None),
        "lora-own-model": (True, False, False, "model", None),
        "lora-shared-start": (True, True, True, "adapter", "@reward"),
        "lora-beside-head": (True, True, False, "head", None),
        "full-own-head": (False, False, False, "head", None),
        "full-own-model": (False, False, False, "model", None),
    }


@pytest.mark.parametrize("name", ["demo", "hh_small"])
def test_within_one_policy_ppo_has_one_config(name: str) -> None:
    for policy in ("lora", "full"):
        variants = [variant for variant in sharing.VARIANTS if variant.startswith(policy)]
        configs = [stage.config for v in variants for stage in recipe_of(v, name).stages if stage.kind == "ppo"]
        assert len(configs) == len(variants)
        assert len(set(configs)) == 1


def write_done(run: Path, recipe: Recipe, names: list[str], *, mark: str) -> None:
    """Finished stages as a run leaves them, each with a file that says whose it is."""
    for stage in recipe.stages:
        if stage.name in names:
            folder = run / stage.name
            folder.mkdir(parents=True)
            parents = {"labels": ["samples"], "consensus": ["labels", "samples"], "reward": ["consensus"]}
            record = {"seed": recipe.seed, **stage.as_table()}
            manifest = {"recipe": record, "done": True, "parents": parents.get(stage.name, []), "environment": {}}
            (folder / "run.json").write_text(json.dumps(manifest), encoding="utf-8")
            (folder / "mark").write_text(mark, encoding="utf-8")


def marks(run: Path) -> dict[str, str]:
    return {file.parent.name: file.read_text() for file in sorted(run.glob("*/mark"))}


def test_what_another_run_made_alike_is_copied_and_nothing_else(tmp_path: Path) -> None:
    shared, own = before_ppo("lora-shared-head"), before_ppo("lora-own-head")
    write_done(tmp_path / "one", shared, ["samples", "labels", "consensus", "reward"], mark="one")
    assert not sharing.borrow(own, tmp_path / "two", [tmp_path / "one"])
    assert marks(tmp_path / "two") == {"samples": "one", "labels": "one", "consensus": "one"}
    assert not sharing.borrow(shared, tmp_path / "three", [tmp_path / "two", tmp_path / "one"])
    assert marks(tmp_path / "three") == {"samples": "one", "labels": "one", "consensus": "one", "reward": "one"}


def test_a_stage_made_from_what_is_missing_is_not_copied(tmp_path: Path) -> None:
    recipe = before_ppo("lora-shared-head")
    write_done(tmp_path / "one", recipe, ["samples", "consensus", "reward"], mark="one")
    sharing.borrow(recipe, tmp_path / "two", [tmp_path / "one"])
    assert marks(tmp_path / "two") == {"samples": "one"}


def test_another_seed_lends_nothing(tmp_path: Path) -> None:
    write_done(tmp_path / "one", before_ppo("lora-own-head", seed=1), ["samples"], mark="one")
    sharing.borrow(before_ppo("lora-own-head"), tmp_path / "two", [tmp_path / "one"])
    assert marks(tmp_path / "two") == {}


def test_a_run_of_other_settings_is_refused(tmp_path: Path) -> None:
    sharing.borrow(before_ppo("lora-own-head"), tmp_path / "one", [])
    with pytest.raises(RunError, match="lora = null there"):
        sharing.borrow(before_ppo("lora-shared-head"), tmp_path / "one", [])


def write_run(run: Path, *, recovered: float, seconds: float) -> Path:
    (run / "ppo").mkdir(parents=True)
    measured = {"mean": 0.84, "interval": [0.82, 0.86], "n": 400}
    report = {
        "reward_model": {"heldout_accuracy": measured},
        "recovered": recovered,
        "kl": {"mean": 1.8},
        "after": {"true_utility": {"mean": 0.85}, "length": {"mean": 8.0}},
        "difference": {"reward": {"mean": 1.25}},
    }
    record = {"seconds": {"ppo": seconds}, "cpu_seconds": {"ppo": seconds / 2}}
    parts = {"weights": 3 * sharing.MIB, "optimizer": sharing.MIB, "logits": 9 * sharing.MIB}
    memory = {"planned": 13 * sharing.MIB, "resident": 600 * sharing.MIB, "parts": parts}
    (run / "report.json").write_text(json.dumps(report), encoding="utf-8")
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")
    (run / "ppo" / "run.json").write_text(json.dumps({"memory": memory}), encoding="utf-8")
    return run


def test_the_numbers_of_a_run(tmp_path: Path) -> None:
    assert sharing.measured(write_run(tmp_path / "run", recovered=0.8, seconds=60.0)) == {
        "accuracy": 0.84,
        "accuracy low": 0.82,
        "accuracy high": 0.86,
        "true utility": 0.85,
        "recovered": 0.8,
        "own reward": 1.25,
        "kl": 1.8,
        "words": 8.0,
        "seconds": 60.0,
        "CPU seconds": 30.0,
        "held MiB": 4.0,
        "planned MiB": 13.0,
        "resident MiB": 600.0,
    }


def test_a_witness_tells_the_gain_and_what_of_it_is_not_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tuned 1, 2; base 0, 0; cut to the tuned's length 1, 1: the gain is 1.5, and .5 of it is more than length."""
    scores = {"tuned": np.array([1.0, 2.0]), "base": np.array([0.0, 0.0]), "cut": np.array([1.0, 1.0])}
    monkeypatch.setattr(sharing, "scores", lambda run, witness: scores)
    numbers = sharing.measured(write_run(tmp_path / "run", recovered=0.8, seconds=60.0), tmp_path / "witness")
    assert (numbers["witness"], numbers["beyond length"]) == (1.5, 0.5)


def test_differences_are_paired_by_seed_by_hand(tmp_path: Path) -> None:
    """.1, .2, .3: mean .2, standard error .1 / sqrt 3, and t of two degrees of freedom at .975 is 4.3027: ± .2484."""
    recovered = {"a": (0.6, 0.5, 0.7), "b": (0.7, 0.7, 1.0)}
    found = {
        name: [
            sharing.measured(write_run(tmp_path / f"{name}-{seed}", recovered=value, seconds=10.0))
            for seed, value in enumerate(values)
        ]
        for name, values in recovered.items()
    }
    result = sharing.compared(found)
    assert result["means"]["b"]["recovered"] == pytest.approx(0.8)
    assert result["baseline"] == "a"
    difference = result["differences"]["b"]["recovered"]
    assert difference["seeds"] == pytest.approx([0.1, 0.2, 0.3])
    assert [difference["mean"], *difference["interval"]] == pytest.approx([0.2, -0.0484, 0.4484], abs=1e-4)
    assert result["differences"]["b"]["seconds"] == {"mean": 0, "interval": [0, 0], "seeds": [0, 0, 0]}
    assert "    recovered      +0.200 [-0.048, +0.448]   seeds +0.100, +0.200, +0.300" in sharing.table(result)


def test_one_seed_has_no_interval() -> None:
    assert all(math.isnan(end) for end in sharing.paired([0.1])["interval"])
