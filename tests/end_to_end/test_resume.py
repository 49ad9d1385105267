"""A PPO run that is killed, interrupted or refused the disk, and started again, ends bitwise as if nothing had been."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.resume import Runner, after, kill, moments, outcome, runner, undisturbed
from tests.end_to_end.small_run import EVALUATE_EVERY, NUM_STEPS, PROMPTS


@pytest.fixture(scope="module")
def program(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    with runner(tiny_model_dir, tmp_path_factory.mktemp("errors") / "stderr") as running:
        yield running


@pytest.fixture(scope="module")
def whole(program: Runner, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """An undisturbed run and the seconds it took."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return out, undisturbed(program, out)


def test_the_undisturbed_run_holds_what_is_compared(whole: tuple[Path, float]) -> None:
    seen = outcome(whole[0])
    kinds = [row["kind"] for row in seen["metrics"]]
    assert kinds.count("train") == NUM_STEPS
    assert kinds.count("evaluation") == 1 + NUM_STEPS // EVALUATE_EVERY
    assert len(seen["samples"].splitlines()) == len(PROMPTS) * kinds.count("evaluation")
    coefficients = [row["kl_coef"] for row in seen["metrics"] if row["kind"] == "train"]
    assert len(set(coefficients)) > 1  # the controller's state matters
    assert seen["learner"]["steps"] == NUM_STEPS


def test_another_seed_gives_another_outcome(whole: tuple[Path, float]) -> None:
    rows = [row for row in outcome(whole[0])["metrics"] if row["kind"] == "train"]
    assert len({json.dumps({**row, "step": 0}) for row in rows}) == NUM_STEPS  # no step repeats another


def test_three_kills(program: Runner, whole: tuple[Path, float], tmp_path: Path) -> None:
    expected = outcome(whole[0])
    for k, (moment, when) in enumerate(moments(3, whole[1], seed=1)):
        out = tmp_path / str(k)
        kill(program, out, when(out))
        program.run(out)
        assert outcome(out) == expected, moment


def test_control_c(program: Runner, whole: tuple[Path, float], tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert kill(program, out, after(0.6 * whole[1]), signal.SIGINT)
    program.run(out)
    assert outcome(out) == outcome(whole[0])


def test_a_full_disk_while_saving_keeps_the_earlier_checkpoint(
    program: Runner, whole: tuple[Path, float], tmp_path: Path
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
    assert outcome(out) == outcome(whole[0])
