"""Run directories under what really happens to them: kills, full disks, second writers, other recipes."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tuneful.errors import ConfigError, RunError
from tuneful.runs.directory import RunDirectory

RECIPE: dict[str, Any] = {"seed": 1, "ppo": {"clip": 0.2, "betas": (0.9, 0.95)}, "stage": [{"name": "a"}]}


def save(run: RunDirectory, step: int, **kwargs: Any) -> None:
    with run.checkpoint(step, **kwargs) as directory:
        (directory / "state").write_text(str(step))


def child(code: str, path: Path) -> subprocess.Popen[str]:
    """A Python process that runs `code` with the names `path`, `RunDirectory`, `RunError` and the modules below."""
    head = (
        "import os, resource, sys, time\nfrom pathlib import Path\nfrom tuneful.errors import RunError\n"
        "from tuneful.runs.directory import RunDirectory\npath = Path(sys.argv[1])\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", head + code, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_new_run(tmp_path: Path) -> None:
    with RunDirectory.open(tmp_path / "new" / "run", RECIPE) as run:
        assert run.name == "run"
        assert not run.done
        assert run.latest_checkpoint() is None
        manifest = json.loads((run.path / "run.json").read_text())
    assert manifest["recipe"] == {"seed": 1, "ppo": {"clip": 0.2, "betas": [0.9, 0.95]}, "stage": [{"name": "a"}]}
    assert manifest["done"] is False
    assert manifest["environment"]["python"].startswith("3.")


def test_facts_and_the_end(tmp_path: Path) -> None:
    with RunDirectory.open(tmp_path, RECIPE) as run:
        run.update(data={"train": "abc"})
        run.update(kl=float("nan"))
        run.finish(seconds=3.5)
    with RunDirectory.open(tmp_path, RECIPE) as run:
        assert run.done
        assert run.manifest["data"] == {"train": "abc"}
        assert run.manifest["kl"] is None
        assert run.manifest["seconds"] == 3.5


def test_resume_cuts_the_logs_back_to_the_checkpoint(tmp_path: Path) -> None:
    with RunDirectory.open(tmp_path, RECIPE) as run:
        for step in (1, 2, 3):
            run.metrics.write({"step": step})
            run.samples.write({"text": step})
            if step == 2:
                save(run, step)
    with RunDirectory.open(tmp_path, RECIPE) as run:
        latest = run.latest_checkpoint()
        assert latest == (2, tmp_path / "checkpoints" / "step-00000002")
        run.resume_logs(latest[1])
        run.metrics.write({"step": 3, "again": True})
        assert list(run.metrics.rows()) == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]
        assert list(run.samples.rows()) == [{"text": 1}, {"text": 2}]
        run.resume_logs(None)
        assert run.metrics.size() == run.samples.size() == 0


def test_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    with RunDirectory.open(tmp_path, RECIPE) as run:
        for step in (5, 10, 99_999_999, 100_000_000):
            save(run, step)
        names = [p.name for p in sorted((tmp_path / "checkpoints").iterdir())]
        assert names == ["step-100000000", "step-99999999"]
        assert run.latest_checkpoint() == (100_000_000, tmp_path / "checkpoints" / "step-100000000")
        save(run, 200_000_000, keep=1)
        assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-200000000"]
        with pytest.raises(RunError, match="step-200000000: exists already"):
            save(run, 200_000_000)
        with pytest.raises(ConfigError, match="keep = 0"):
            save(run, 300_000_000, keep=0)


def test_a_checkpoint_that_fails_leaves_the_earlier_one(tmp_path: Path) -> None:
    with RunDirectory.open(tmp_path, RECIPE) as run:
        save(run, 1)
        with (
            pytest.raises(RunError, match="step-00000002: cannot be written: No space left on device; free space"),
            run.checkpoint(2),
        ):
            raise OSError(28, "No space left on device")
        for error in (KeyboardInterrupt("by hand"), ValueError("a bug"), RuntimeError("shapes do not match")):
            with pytest.raises(type(error), match=str(error)), run.checkpoint(2):
                raise error
        assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]
        save(run, 2)
        assert run.latest_checkpoint() == (2, tmp_path / "checkpoints" / "step-00000002")


def test_checkpoints_left_by_kills_do_not_pile_up(tmp_path: Path) -> None:
    """A kill between a new checkpoint and the removal of an old one leaves one too many; many kills leave no more."""
    with RunDirectory.open(tmp_path, RECIPE) as run:
        for step in (1, 2, 3, 4):
            save(run, step, keep=4)
        with run.checkpoint(5):
            assert [p.name for p in sorted((tmp_path / "checkpoints").glob("step-*"))] == [
                "step-00000003",
                "step-00000004",
            ]


def test_another_recipe_is_refused_with_the_difference(tmp_path: Path) -> None:
    RunDirectory.open(tmp_path, RECIPE).close()
    other = {"seed": 1, "ppo": {"clip": 0.3, "betas": [0.9, 0.99], "epochs": 4}, "stage": [{"name": "b"}]}
    with pytest.raises(RunError) as error:
        RunDirectory.open(tmp_path, other)
    assert str(error.value) == (
        f"{tmp_path}: holds a run of another recipe: ppo.betas.1 = 0.95 there, 0.99 here, "
        'ppo.clip = 0.2 there, 0.3 here, ppo.epochs = nothing there, 4 here, stage = ["a"] there, ["b"] here; '
        "choose another --out, or --force to remove that run"
    )
    RunDirectory.open(tmp_path / "wide", {f"x{i}": i for i in range(8)}).close()
    with pytest.raises(RunError, match=r"x0 = 0 there, nothing here.* and 3 more; "):
        RunDirectory.open(tmp_path / "wide", {})
    RunDirectory.open(tmp_path, RECIPE).close()  # a refusal holds no lock


def test_differences_of_stages_are_told_as_users_write_them(tmp_path: Path) -> None:
    def recipe(kl_coef: float, model: str, *names: str) -> dict[str, Any]:
        config, inputs = {"kl_coef": kl_coef, "sampling": {"temperature": 1.0}}, {"model": model}
        return {"stages": [{"name": name, "kind": "ppo", "inputs": inputs, "config": config} for name in names]}

    RunDirectory.open(tmp_path, recipe(0.05, "@sft", "sft", "ppo")).close()
    for other, told in (
        (recipe(0.1, "@sft", "sft", "ppo"), "sft.kl_coef = 0.05 there, 0.1 here, ppo.kl_coef = 0.05 there, 0.1 here; "),
        (recipe(0.05, "m", "sft", "ppo"), 'sft.model = "@sft" there, "m" here, ppo.model = "@sft" there, "m" here; '),
        (recipe(0.05, "@sft", "ppo", "sft"), 'stages = ["sft", "ppo"] there, ["ppo", "sft"] here; '),
        (recipe(0.05, "@sft", "ppo"), 'stages = ["sft", "ppo"] there, ["ppo"] here; '),
    ):
        with pytest.raises(RunError) as error:
            RunDirectory.open(tmp_path, other)
        assert f"holds a run of another recipe: {told}choose" in str(error.value)


def test_force_removes_the_old_run(tmp_path: Path) -> None:
    with RunDirectory.open(tmp_path, RECIPE) as run:
        run.metrics.write({"step": 1})
        save(run, 1)
        (tmp_path / "model").mkdir()
        run.finish()
    with RunDirectory.open(tmp_path, {"seed": 2}, force=True) as run:
        assert not run.done
        assert run.manifest["recipe"] == {"seed": 2}
        assert run.latest_checkpoint() is None
        assert run.metrics.size() == 0
        assert not (tmp_path / "model").exists()


def test_force_never_removes_what_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("three years")
    for force in (False, True):
        with pytest.raises(RunError, match=r'holds "thesis.txt" but no run'):
            RunDirectory.open(tmp_path, RECIPE, force=force)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    (tmp_path / "run.json").write_text('{"name": "some other tool"}')
    with pytest.raises(RunError, match=r"run.json: not the record of a run"):
        RunDirectory.open(tmp_path, RECIPE, force=True)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(RunError, match=r"run.json: not valid JSON"):
        RunDirectory.open(tmp_path, RECIPE, force=True)
    assert (tmp_path / "thesis.txt").exists()


def test_a_kill_while_force_removes_leaves_no_half_run(tmp_path: Path) -> None:
    with RunDirectory.open(tmp_path, RECIPE) as run:
        save(run, 1)
        run.finish()

    def killed(path: Path) -> None:
        raise KeyboardInterrupt(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            RunDirectory.open(tmp_path, {"seed": 2}, force=True)
    assert (tmp_path / "checkpoints").exists()
    with RunDirectory.open(tmp_path, RECIPE) as run:  # no force: clearing is finished, and nothing of the old is taken
        assert not run.done
        assert run.latest_checkpoint() is None


def test_leftovers_of_a_crash_are_cleared(tmp_path: Path) -> None:
    RunDirectory.open(tmp_path, RECIPE).close()
    (tmp_path / ".run.json.part").write_text('{"rec')
    (tmp_path / "checkpoints" / ".step-00000007.part" / "deep").mkdir(parents=True)
    with RunDirectory.open(tmp_path, RECIPE) as run:
        assert run.latest_checkpoint() is None
    assert not [*tmp_path.rglob("*.part")]


def test_going_on_with_other_software_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    RunDirectory.open(tmp_path, RECIPE).close()
    RunDirectory.open(tmp_path, RECIPE).close()
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    RunDirectory.open(tmp_path, RECIPE).close()
    with RunDirectory.open(tmp_path, RECIPE) as run:
        assert run.manifest["environment"]["threads"] == "1"
        assert [later["threads"] for later in run.manifest["continued_in"]] == ["2"]


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    process = child("run = RunDirectory.open(path, {})\nprint('open', flush=True)\ntime.sleep(60)", tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    try:
        for force in (False, True):
            with pytest.raises(RunError, match=f"in use by process {process.pid} on "):
                RunDirectory.open(tmp_path, {}, force=force)
    finally:
        process.kill()
        process.communicate()
    RunDirectory.open(tmp_path, {}).close()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file/run: cannot be written: Not a directory; choose another place"):
        RunDirectory.open(tmp_path / "file" / "run", RECIPE)


def test_a_full_disk_leaves_everything_before_it(tmp_path: Path) -> None:
    with RunDirectory.open(tmp_path, {}) as run:
        run.metrics.write({"step": 1})
        save(run, 1)
        run.update(data="abc")
    code = """
run = RunDirectory.open(path, {})
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
def attempt(write):
    try:
        write()
        print("nothing was refused")
    except RunError as error:
        print(error)
def save():
    with run.checkpoint(2) as directory:
        (directory / "state").write_bytes(bytes(100_000))
attempt(save)
attempt(lambda: run.update(data="x" * 100_000))
attempt(lambda: run.metrics.write({"text": "x" * 100_000}))
print(run.manifest["data"])
"""
    out, err = child(code, tmp_path).communicate(timeout=60)
    mend = "cannot be written: File too large; free space or rights, then run again to continue"
    assert (out.splitlines(), err) == (
        [
            f"{tmp_path}/checkpoints/step-00000002: {mend}",
            f"{tmp_path}/run.json: {mend}",
            f"{tmp_path}/metrics.jsonl: {mend}",
            "abc",
        ],
        "",
    )
    with RunDirectory.open(tmp_path, {}) as run:
        assert run.manifest["data"] == "abc"
        assert list(run.metrics.rows()) == [{"step": 1}]
        assert run.latest_checkpoint() == (1, tmp_path / "checkpoints" / "step-00000001")
    assert not [*tmp_path.rglob("*.part")]


def test_a_full_disk_is_told_by_whatever_library_meets_it(tmp_path: Path) -> None:
    """torch, safetensors and tokenizers each raise an exception of their own, none of them an OSError."""
    code = """
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models
run = RunDirectory.open(path, {})
weights = {"weight": torch.zeros(100_000)}
tokenizer = Tokenizer(models.WordLevel({f"word {i}": i for i in range(10_000)}, unk_token="word 0"))
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for step, save in enumerate([torch.save, save_file, lambda _, file: tokenizer.save(str(file))]):
    try:
        with run.checkpoint(step) as directory:
            save(weights, directory / "weights")
    except RunError as error:
        print(error)
print(list((path / "checkpoints").iterdir()))
"""
    out, err = child(code, tmp_path).communicate(timeout=60)
    *told, left = out.splitlines()
    assert (len(told), left, err) == (3, "[]", "")
    for step, line in enumerate(told):
        assert line.startswith(f"{tmp_path}/checkpoints/step-{step:08d}: cannot be written: ")
        assert line.endswith("; free space or rights, then run again to continue")


WRITER = """
run = RunDirectory.open(path, {})
latest = run.latest_checkpoint()
run.resume_logs(latest[1] if latest else None)
step = latest[0] if latest else 0
while True:
    print("step", flush=True)
    step += 1
    run.metrics.write({"step": step})
    run.update(step=step)
    with run.checkpoint(step) as directory:
        (directory / "deep").mkdir()
        for name in ("a", "b", "deep/c"):
            (directory / name).write_bytes(b"%d\\n" % step * 20_000)
"""


def test_kill_while_checkpoints_are_written(tmp_path: Path) -> None:
    """Ten SIGKILLs, each a few steps on; after each, the newest checkpoint is whole and the logs lead up to it."""
    moments = random.Random(0)
    reached, interrupted = 0, 0
    for _ in range(10):
        process = child(WRITER, tmp_path)
        assert process.stdout is not None
        for _ in range(moments.randint(2, 6)):
            assert process.stdout.readline() == "step\n"
        time.sleep(moments.uniform(0, 0.01))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        interrupted += any(tmp_path.rglob("*.part"))
        with RunDirectory.open(tmp_path, {}) as run:
            latest = run.latest_checkpoint()
            run.resume_logs(latest[1] if latest else None)
            step = latest[0] if latest else 0
            assert [row["step"] for row in run.metrics.rows()] == list(range(1, step + 1))
            checkpoints = sorted((tmp_path / "checkpoints").glob("*"))
        assert step >= reached
        assert len(checkpoints) <= 3
        for checkpoint in checkpoints:
            saved = int(checkpoint.name.removeprefix("step-"))
            for name in ("a", "b", "deep/c"):
                assert (checkpoint / name).read_bytes() == b"%d\n" % saved * 20_000
        reached = step
    assert reached > 10
    assert interrupted > 0


def test_an_output_replaces_the_earlier_one_whole_or_not_at_all(tmp_path: Path) -> None:
    with RunDirectory.open(tmp_path / "run", {}) as run:
        with run.output("model") as folder:
            (folder / "weights").write_text("first")

        def half() -> None:
            with run.output("model") as folder:
                (folder / "weights").write_text("half of the sec")
                raise OSError(28, "No space left on device")

        with pytest.raises(RunError, match="cannot be written"):
            half()
        assert (run.path / "model" / "weights").read_text() == "first"
        with run.output("model") as folder:
            (folder / "other").write_text("second")
        assert [p.name for p in (run.path / "model").iterdir()] == ["other"]
        assert not list(run.path.glob(".*.part"))
