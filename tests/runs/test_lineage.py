"""The way back from a model, through folders that are there and folders that are not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tuneful.runs.lineage import lineage, read_stage, siblings
from tuneful.runs.manifest import tree_hash


def stage(folder: Path, kind: str, *parents: str, done: bool = True, **facts: Any) -> Path:
    """A stage's directory with a model in it."""
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text(json.dumps({"of": folder.name}))
    manifest = {"recipe": {"kind": kind, "inputs": {}}, "parents": list(parents), "done": done, **facts}
    (folder / "run.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    stage(tmp_path / "run" / "labels", "label")
    stage(tmp_path / "run" / "reward", "reward", "labels")
    stage(tmp_path / "run" / "sft", "sft", "labels")
    stage(tmp_path / "run" / "ppo", "ppo", "reward", "sft")
    return tmp_path / "run"


def names(model: Path) -> list[str]:
    return [found.name for found in lineage(model).stages]


def test_each_stage_stands_once_and_after_its_parents(run: Path) -> None:
    assert names(run / "ppo" / "model") == ["labels", "reward", "sft", "ppo"]
    assert names(run / "reward" / "model") == ["labels", "reward"]


def test_a_model_that_no_run_made(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "ppo" / "model", tmp_path / "elsewhere" / "model")
    found = lineage(tmp_path / "elsewhere" / "model")
    assert (found.stages, found.lost, found.maker) == ([], [], None)
    assert lineage(run / "ppo").stages == []


def test_a_model_of_another_run_is_followed_while_it_is_the_same(run: Path, tmp_path: Path) -> None:
    other = run / "sft" / "model"
    stage(tmp_path / "second" / "dpo", "dpo", models={str(other): tree_hash(other)})
    assert names(tmp_path / "second" / "dpo" / "model") == ["labels", "sft", "dpo"]
    (other / "config.json").write_text("{}")
    found = lineage(tmp_path / "second" / "dpo" / "model")
    assert [s.name for s in found.stages] == ["dpo"]
    assert found.lost == ["the model sft/model, which dpo read, has changed since"]


def test_what_is_gone_is_told_and_the_rest_is_read(run: Path, tmp_path: Path) -> None:
    shutil.rmtree(run / "labels")
    (run / "sft" / "run.json").write_text("{")
    stage(run / "last", "dpo", "ppo", models={str(tmp_path / "base"): "abc"})
    found = lineage(run / "last" / "model")
    assert [s.name for s in found.stages] == ["reward", "ppo", "last"]
    assert found.lost == [
        "the folder of stage labels, which reward built on, is gone",
        "the record of stage sft cannot be read",
        "the model base, which last read, is no longer where it was",
    ]


def test_records_that_lead_in_a_circle(run: Path) -> None:
    shutil.rmtree(run / "sft")
    stage(run / "sft", "sft", "ppo")
    assert set(names(run / "ppo" / "model")) == {"labels", "reward", "sft", "ppo"}


@pytest.mark.parametrize("content", ["[]", '{"recipe": 3, "parents": "labels", "models": [1]}', '"x"'])
def test_records_of_another_shape(run: Path, content: str) -> None:
    (run / "ppo" / "run.json").write_text(content)
    assert lineage(run / "ppo" / "model").stages == []


def test_siblings_are_the_finished_stages_beside(run: Path) -> None:
    stage(run / "evaluate", "evaluate", "ppo", done=False)
    (run / "run.json").write_text(json.dumps({"recipe": {"stages": []}, "done": True}))
    ppo = read_stage(run / "ppo")
    assert ppo is not None
    assert [s.name for s in siblings(ppo)] == ["labels", "reward", "sft"]
