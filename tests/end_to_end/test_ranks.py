"""Runs of two ranks: one that dies ends the other, and one process goes on; a recipe under torchrun."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.testing import assert_close

from tests.end_to_end import ranks_run, small_run
from tests.end_to_end.resume import logged
from tests.engines.launch import ALONE, ROOT, start_ranks
from tests.pipeline.recipes import WORDS, stage_toml
from tuneful.data.jsonl import write_jsonl
from tuneful.pipeline.recipe import load_recipe
from tuneful.pipeline.run import run_recipe

PROGRAM = ranks_run.__name__


@pytest.fixture(scope="module", params=["weights", "adapters", "sharded"])
def killed(request: pytest.FixtureRequest, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that rank 1 was killed in after 5 steps; beside it what rank 0 wrote to stderr, and what it trained."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "trained").write_text(request.param)
    first, second = start_ranks(PROGRAM, tiny_model_dir, request.param, folder / "run", errors=folder / "errors")
    half = logged(folder / "run", 5 + 2)  # and the evaluations at steps 0 and 3
    while not half() and first.poll() is None:
        time.sleep(0.001)
    second.send_signal(signal.SIGKILL)
    assert second.wait(60) == -signal.SIGKILL, (folder / "errors" / "1").read_text()
    assert first.wait(60) > 0, (folder / "errors" / "0").read_text()
    return folder


def test_the_other_rank_says_where_it_was(killed: Path) -> None:
    said = (killed / "errors" / "0").read_text()
    assert "rank 0 of 2 was here when another rank ended or hung" in said
    assert "in step" in said  # a frame of the stack
    assert "RunError: rank 0 of 2: another rank has ended or hangs" in said
    assert not list((killed / "run").rglob("*.part"))


def test_one_process_goes_on_where_two_were(killed: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    (*_, checkpoint) = sorted((killed / "run" / "checkpoints").iterdir())
    assert checkpoint.name in ("step-00000004", "step-00000006")
    trained = trained_in(killed)
    processes = start_ranks(PROGRAM, tiny_model_dir, trained, checkpoint, tmp_path / "two.pt", errors=tmp_path)
    one = ranks_run.next_step(tiny_model_dir, checkpoint, in_one_process(trained))
    assert [process.wait(timeout=120) for process in processes] == [0, 0], (tmp_path / "0").read_text()
    two = torch.load(tmp_path / "two.pt", weights_only=False)

    weights, moments = stored(checkpoint)
    assert len(moments) == len(weights)
    for found in (one, two):
        assert_identical(found["weights"], weights)
        assert_identical(found["optimizer"], moments)
    assert one["completions"] == two["completions"]
    assert len(one["gradients"]) == small_run.CONFIG.minibatches
    assert_close(one["gradients"], two["gradients"], atol=1e-4, rtol=1e-4)
    assert one["metrics"] == pytest.approx(two["metrics"], rel=1e-4, abs=1e-4)


def test_two_that_hold_parts_go_on_where_one_was(tiny_model_dir: Path, tmp_path: Path) -> None:
    small_run.train(tiny_model_dir, tmp_path / "run")
    (*_, checkpoint) = sorted((tmp_path / "run" / "checkpoints").iterdir())
    processes = start_ranks(PROGRAM, tiny_model_dir, "sharded", checkpoint, tmp_path / "two.pt", errors=tmp_path)
    assert [process.wait(timeout=120) for process in processes] == [0, 0], (tmp_path / "0").read_text()
    found = torch.load(tmp_path / "two.pt", weights_only=False)
    weights, moments = stored(checkpoint)
    assert_identical(found["weights"], weights)
    assert_identical(found["optimizer"], moments)


def test_the_run_ends_in_one_process(killed: Path, tiny_model_dir: Path) -> None:
    small_run.train(tiny_model_dir, killed / "run", in_one_process(trained_in(killed)))
    rows = [json.loads(line) for line in (killed / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(1, small_run.NUM_STEPS + 1))
    assert (killed / "run" / "checkpoints" / f"step-{small_run.NUM_STEPS:08d}").is_dir()


def trained_in(folder: Path) -> small_run.Trained:
    """What the killed run in `folder` trained."""
    return cast(small_run.Trained, (folder / "trained").read_text())


def in_one_process(trained: small_run.Trained) -> small_run.Trained:
    """The same in one process, which holds all parts."""
    return "weights" if trained == "sharded" else trained


def stored(checkpoint: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and the optimizer's tensors in a checkpoint by name, read without the engine."""
    if (checkpoint / "parts").is_dir():
        dcp_to_torch_save(checkpoint / "parts", checkpoint / "whole.pt")
        state = torch.load(checkpoint / "whole.pt", weights_only=True)
        (checkpoint / "whole.pt").unlink()
        return state["weights"], state["optimizer"]
    state = torch.load(checkpoint / "engine.pt", weights_only=True)
    names = list(state["weights"])
    return dict(state["weights"]), {names[place]: moments for place, moments in state["optimizer"]["state"].items()}


def assert_identical(found: Any, expected: Any) -> None:
    """The same tables of the same tensors, to the bit."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_identical(found[key], expected[key])
    else:
        assert torch.equal(found, expected)


def recipe(folder: Path, model: Path) -> Path:
    """Every stage in which ranks share the work, and one that rank 0 does alone."""
    texts = [f"{a} {b}" for a in WORDS for b in WORDS[:4]]
    ask = [[{"role": "user", "content": text}] for text in texts]
    say = {text: [{"role": "assistant", "content": text}] for text in ("yes please", "no no no")}
    write_jsonl(folder / "sft.jsonl", ({"prompt": p, "completion": "yes please"} for p in ask))
    pairs = ({"prompt": p, "chosen": say["yes please"], "rejected": say["no no no"]} for p in ask)
    write_jsonl(folder / "pairs.jsonl", pairs)
    sft, pairs_file = str(folder / "sft.jsonl"), str(folder / "pairs.jsonl")
    asked = {"prompts": pairs_file, "max_new_tokens": 6}
    normalised = {"normalise_prompts": pairs_file, "normalise_model": "@sft", "normalise_samples": 64}
    lora, shard = {"lora": {"rank": 2}}, {"shard": True}
    tuned = {"reward": "@reward", "num_steps": 3, "prompts_per_step": 5, "epochs": 1, "evaluate_prompts": 6}
    stages = [
        stage_toml("sft", algorithm="sft", model=str(model), demonstrations=sft, demonstrations_per_step=8, **shard),
        stage_toml(
            "reward",
            algorithm="reward",
            model="@sft",
            comparisons=pairs_file,
            test=pairs_file,
            prompts_per_step=8,
            max_new_tokens=6,
            **normalised,
            **lora,
            **shard,
        ),
        stage_toml("ppo", algorithm="ppo", model="@sft", **asked, **tuned, **lora, **shard),
        stage_toml("answers", do="generate", model="@ppo", split="test", num_samples=2, **asked),
        stage_toml("evaluate", do="evaluate", before="@sft", after="@ppo", num_samples=2, reward="@reward", **asked),
        stage_toml("accuracy", do="accuracy", comparisons=pairs_file, reward="@reward", model="@ppo"),
    ]
    file = folder / "recipe.toml"
    file.write_text("splits = { reward = 0.4, rl = 0.2, dev = 0.2, test = 0.2 }\n" + "".join(stages))
    return file


def test_a_recipe_under_torchrun(tiny_model_dir: Path, tmp_path: Path) -> None:
    file = recipe(tmp_path, tiny_model_dir)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ran = subprocess.run(
        [*torchrun, "-m", "tuneful", "run", str(file), "--out", str(tmp_path / "two")],
        cwd=ROOT,
        env={**os.environ, **ALONE},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("the report is") == 1  # one rank speaks
    assert ran.stderr.count("sft: begins") == 1
    run_recipe(load_recipe(file), tmp_path / "one")

    names = [sorted(str(p.relative_to(tmp_path / out)) for p in (tmp_path / out).rglob("*")) for out in ("one", "two")]
    assert names[0] == names[1]
    one, two = (
        {p.relative_to(tmp_path / out): p.read_text() for p in (tmp_path / out).rglob("*.json*")}
        for out in ("one", "two")
    )
    for name in ("answers/completions.jsonl", "evaluate/answers.jsonl"):
        assert texts(one[Path(name)]) == texts(two[Path(name)])
    for name in ("reward/report.json", "ppo/report.json", "evaluate/report.json", "accuracy/report.json"):
        assert numbers(json.loads(two[Path(name)])) == pytest.approx(numbers(json.loads(one[Path(name)])), 1e-3, 1e-3)


def missing_file(folder: Path, model: Path) -> Path:
    """A recipe that names a file that is not there."""
    stage = stage_toml("sft", algorithm="sft", model=str(model), demonstrations=str(folder / "none.jsonl"))
    file = folder / "missing.toml"
    file.write_text(stage)
    return file


def test_an_error_of_rank_0_is_told_by_it_alone(tiny_model_dir: Path, tmp_path: Path) -> None:
    file = missing_file(tmp_path, tiny_model_dir)
    processes = start_ranks("tuneful", "run", file, "--out", tmp_path / "run", errors=tmp_path / "errors")
    assert [process.wait(timeout=120) for process in processes] == [2, 2]
    (told,) = (tmp_path / "errors" / "0").read_text().splitlines()
    assert told.startswith(f"DataError: {file}: stage sft: ")
    assert (tmp_path / "errors" / "1").read_text() == ""


def test_under_torchrun_only_its_own_summary_follows_an_error_of_rank_0(tiny_model_dir: Path, tmp_path: Path) -> None:
    file = missing_file(tmp_path, tiny_model_dir)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ran = subprocess.run(
        [*torchrun, "-m", "tuneful", "run", str(file), "--out", str(tmp_path / "run")],
        cwd=ROOT,
        env={**os.environ, **ALONE},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode != 0
    assert ran.stderr.count(f"DataError: {file}: stage sft: ") == 1
    after = ran.stderr.partition("DataError")[2]
    assert "tuneful FAILED" in after  # torchrun's table of who failed
    assert "RuntimeError" not in ran.stderr
    assert "most recent call first" not in ran.stderr  # a rank that is told to end while at work


def texts(completions: str) -> list[Any]:
    """What is said in a file of rows, without the ids that its writer gave."""
    rows = [json.loads(line) for line in completions.splitlines()]
    return [[c["text"] for c in row["completions"]] if "completions" in row else row for row in rows]


def numbers(report: Any, name: str = "") -> dict[str, float]:
    """Every number in a report, by the way that leads to it."""
    if isinstance(report, dict | list):
        inner = report.items() if isinstance(report, dict) else enumerate(report)
        return {way: n for key, value in inner for way, n in numbers(value, f"{name}/{key}").items()}
    return {name: float(report)} if isinstance(report, int | float) else {}
