"""A PPO run that is killed, interrupted or refused the disk, and started again, ends bitwise as if nothing had been."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.resume import NUM_ROWS, Runner, kill, logged, moments, outcome, runner
from tests.end_to_end.small_run import EVALUATE_EVERY, NUM_STEPS, PROMPTS


@pytest.fixture(scope="module", params=["weights", "adapters"])
def program(
    request: pytest.FixtureRequest, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Runner]:
    with runner(tiny_model_dir, tmp_path_factory.mktemp("errors") / "stderr", request.param) as running:
        yield running


@pytest.fixture(scope="module")
def whole(program: Runner, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What an undisturbed run leaves."""
    out = tmp_path_factory.mktemp("whole") / "run"
    program.run(out)
    return outcome(out)


def test_the_undisturbed_run_holds_what_is_compared(whole: dict[str, Any]) -> None:
    seen = whole
    kinds = [row["kind"] for row in seen["metrics"]]
    assert kinds.count("train") == NUM_STEPS
    assert kinds.count("evaluation") == 1 + NUM_STEPS // EVALUATE_EVERY
    assert len(seen["samples"].splitlines()) == len(PROMPTS) * kinds.count("evaluation")
    coefficients = [row["kl_coef"] for row in seen["metrics"] if row["kind"] == "train"]
    assert len(set(coefficients)) > 1  # the controller's state matters
    assert seen["learner"]["steps"] == NUM_STEPS


def test_no_step_repeats_another(whole: dict[str, Any]) -> None:
    rows = [row for row in whole["metrics"] if row["kind"] == "train"]
    assert len({json.dumps({**row, "step": 0}) for row in rows}) == NUM_STEPS


def test_three_kills(program: Runner, whole: dict[str, Any], tmp_path: Path) -> None:
    for k, (moment, when) in enumerate(moments(3, seed=2)):
        out = tmp_path / str(k)
        assert kill(program, out, when(out)) == -signal.SIGKILL, moment
        assert not (out / "checkpoints" / "step-00000012").exists(), moment
        program.run(out)
        assert outcome(out) == whole, moment


def test_control_c(program: Runner, whole: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert kill(program, out, logged(out, NUM_ROWS // 2), signal.SIGINT) == 1
    program.run(out)
    assert outcome(out) == whole


@pytest.mark.parametrize("program", ["weights"], indirect=True)  # adapters would fit
def test_a_full_disk_while_saving_keeps_the_earlier_checkpoint(
    program: Runner, whole: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    already = len(program.errors())
    program.start(out, full_disk=True)
    assert program.wait() == 2
    (line,) = program.errors()[already:].splitlines()
    assert line.startswith(f"RunError: {out / 'checkpoints' / 'step-00000004'}")
    assert "free space" in line
    assert [p.name for p in (out / "checkpoints").iterdir()] == ["step-00000002"]
    program.run(out)
    assert outcome(out) == whole
