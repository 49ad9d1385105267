"""`--track` on the commands that run recipes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tuneful.data.jsonl import write_jsonl


def tuneful(*arguments: object, python_path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tuneful", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(python_path), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=240)


@pytest.fixture
def recipe(tmp_path, tiny_model_dir) -> Path:
    write_jsonl(
        tmp_path / "rows.jsonl", [{"prompt": f"hot {w}", "completion": "yes"} for w in "tea tap dog day".split()]
    )
    path = tmp_path / "recipe.toml"
    path.write_text(
        f'splits = {{ reward = 1.0 }}\n[[stage]]\nname = "first"\nalgorithm = "sft"\nmodel = "{tiny_model_dir}"\n'
        f'demonstrations = "{tmp_path / "rows.jsonl"}"\ndemonstrations_per_step = 2\n'
    )
    return path


SERVICE = """
import json, pathlib, types
def init(name, **_):
    file = pathlib.Path(__file__).with_name(__name__ + ".jsonl")
    print("talks a lot")
    log = lambda measures, step: file.open("a").write(json.dumps([step, measures]) + "\\n")
    return types.SimpleNamespace(
        step=0, _next_step=0, log=log, define_metric=lambda *a, **k: None, finish=lambda **k: None
    )
"""


@pytest.mark.parametrize("command", ["run", "train"])
def test_a_run_is_shown_by_two_trackers_and_prints_its_results_alone(recipe, tmp_path, command):
    services = tmp_path / "services"
    services.mkdir()
    for name in ("wandb", "trackio"):
        (services / f"{name}.py").write_text(SERVICE)
    trackers = ("--track", "wandb", "--track", "trackio")
    done = tuneful(command, recipe, "--out", tmp_path / "out", *trackers, "--json", python_path=services)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["seconds"].keys() == {"first"}
    logged = [json.loads(line)["loss"] for line in (tmp_path / "out" / "first" / "metrics.jsonl").open()]
    for name in ("wandb", "trackio"):
        shown = [json.loads(line) for line in (services / f"{name}.jsonl").open()]
        assert [(step, row["first/train/loss"]) for step, row in shown] == list(enumerate(logged))


@pytest.mark.parametrize("command", ["run", "train", "demo"])
def test_a_tracker_that_is_not_installed_is_one_line(recipe, tmp_path, command):
    (tmp_path / "services").mkdir()
    (tmp_path / "services" / "wandb.py").write_text("import a_package_that_is_not_there")
    arguments = [command] if command == "demo" else [command, recipe]
    done = tuneful(*arguments, "--out", tmp_path / "out", "--track", "wandb", python_path=tmp_path / "services")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "ConfigError: --track wandb: No module named 'a_package_that_is_not_there'; pip install 'tuneful[wandb]'\n"
    )
    assert not (tmp_path / "out").exists()
