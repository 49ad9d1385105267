"""A pipeline whose run is shown by a tracker, killed on the way and run again."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tuneful.data.jsonl import write_jsonl
from tuneful.errors import ConfigError
from tuneful.pipeline.context import Silent
from tuneful.pipeline.recipe import load_recipe
from tuneful.pipeline.run import run_recipe

STAGE = """
[[stage]]
name = "{name}"
algorithm = "sft"
model = "{model}"
demonstrations = "{folder}/sft.jsonl"
demonstrations_per_step = 4
save_every = 2
"""


@pytest.fixture
def recipe(tmp_path, tiny_model_dir) -> Path:
    rows = [{"prompt": f"hot {a} {b}", "completion": "yes please"} for a in ("tea", "day") for b in "abcdefghijk"]
    write_jsonl(tmp_path / "sft.jsonl", rows)
    stages = [STAGE.format(name=name, model=tiny_model_dir, folder=tmp_path) for name in ("first", "second")]
    path = tmp_path / "recipe.toml"
    path.write_text("[splits]\nrl = 1.0\n" + "".join(stages))
    return path


@pytest.fixture
def shown(monkeypatch) -> list[tuple[int, dict[str, float]]]:
    """What wandb is shown, over all processes."""
    rows: list[tuple[int, dict[str, float]]] = []

    def init(**given: Any) -> SimpleNamespace:
        assert given["config"]["stages"]["second"]["config"]["demonstrations_per_step"] == 4
        return SimpleNamespace(
            step=rows[-1][0] + 1 if rows else 0,
            define_metric=lambda *_, **__: None,
            log=lambda measures, step: rows.append((step, measures)),
            finish=lambda **_: None,
        )

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    return rows


class Killed(Silent):
    """Ctrl-C in step 3 of the second stage, whose checkpoint is at step 2."""

    def stage(self, name: str, kind: str) -> None:
        self.now = name

    def step(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        if (self.now, done) == ("second", 3):
            raise KeyboardInterrupt


def test_a_run_that_is_continued_is_shown_as_its_logs_hold_it(recipe, shown, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run_recipe(load_recipe(recipe), out, display=Killed(), track=["wandb"])
    assert [row.get("second/step") for _, row in shown][-3:] == [1, 2, 3]
    run_recipe(load_recipe(recipe), out, track=["wandb"])
    logged = [
        json.loads(line)
        for name in ("first", "second")
        for line in (out / name / "metrics.jsonl").open(encoding="utf-8")
    ]
    assert [step for step, _ in shown] == list(range(len(logged)))
    losses = [row.get("first/train/loss", row.get("second/train/loss")) for _, row in shown]
    assert losses == [row["loss"] for row in logged]
    assert len(losses) == 12  # two stages of 22 demonstrations, 4 at a time
    run_recipe(load_recipe(recipe), out, track=["wandb"])
    assert len(shown) == 12
    for file in out.rglob("run.json"):
        assert "wandb" not in file.read_text()


def test_a_tracker_that_is_missing_is_told_before_anything_is_done(recipe, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(ConfigError, match=r"pip install 'tuneful\[trackio\]'"):
        run_recipe(load_recipe(recipe), tmp_path / "out", track=["trackio"])
    assert not (tmp_path / "out").exists()
