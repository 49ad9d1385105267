"""The loop with a learner that only counts: what it calls, logs, saves, stops at and resumes from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tuneful.algorithms.loop import Evaluation, run
from tuneful.algorithms.stopping import Action, StopRule, Threshold
from tuneful.engines.protocol import Metrics
from tuneful.errors import RunError
from tuneful.runs.directory import RunDirectory


class Engine:
    """Its only weight is how often it was updated."""

    def __init__(self) -> None:
        self.weight = 0

    def save(self, path: Path) -> None:
        (path / "weight").write_text(str(self.weight))

    def load(self, path: Path) -> None:
        self.weight = int((path / "weight").read_text())


class Counter:
    """A learner whose loss is 1 / steps. `dies_at`: the step in which its process would have been killed."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.engine: Any = Engine()
        self.steps = 0
        self.dies_at = dies_at

    def step(self) -> Metrics:
        if self.steps + 1 == self.dies_at:
            raise KeyboardInterrupt
        self.steps += 1
        self.engine.weight += 1
        return {"loss": 1 / self.steps}

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def restore(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


@dataclass
class AtStep:
    """Fires from a step on, and remembers the evaluations it was shown."""

    step: int
    action: Action = "stop"
    shown: Sequence[Mapping[str, float]] = ()

    def check(self, step: int, evaluations: Sequence[Mapping[str, float]]) -> str | None:
        self.shown = list(evaluations)
        return f"{self.action} at {step}" if step >= self.step else None


def evaluate(step: int) -> Evaluation:
    return Evaluation({"reward": step / 10}, [{"completion": f"after {step}"}])


def rows(path: Path, kind: str) -> list[dict[str, Any]]:
    lines = (path / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def samples(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "samples.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("num_steps", "every", "expected"),
    [(6, 2, [0, 2, 4, 6]), (5, 2, [0, 2, 4, 5]), (3, 0, [0, 3]), (2, 5, [0, 2])],
)
def test_evaluations_come_first_every_so_often_and_last(
    tmp_path: Path, num_steps: int, every: int, expected: list[int]
) -> None:
    with RunDirectory.open(tmp_path / "run", {}) as record:
        reason = run(Counter(), record, num_steps=num_steps, evaluate=evaluate, evaluate_every=every)
    assert reason == f"all {num_steps} steps done"
    assert [row["step"] for row in rows(tmp_path / "run", "evaluation")] == expected
    assert [row["reward"] for row in rows(tmp_path / "run", "evaluation")] == [step / 10 for step in expected]
    assert samples(tmp_path / "run") == [{"step": s, "completion": f"after {s}"} for s in expected]


def test_every_step_is_logged_and_told(tmp_path: Path) -> None:
    told: list[tuple[int, int, dict[str, float]]] = []
    with RunDirectory.open(tmp_path / "run", {}) as record:
        run(Counter(), record, num_steps=3, progress=lambda done, of, metrics: told.append((done, of, dict(metrics))))
    logged = rows(tmp_path / "run", "train")
    assert [(row["step"], row["loss"]) for row in logged] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert all(row["seconds"] >= 0 for row in logged)
    assert told == [(1, 3, {"loss": 1.0}), (2, 3, {"loss": 0.5}), (3, 3, {"loss": 1 / 3})]


def test_checkpoints_every_so_often_and_at_the_end(tmp_path: Path) -> None:
    with RunDirectory.open(tmp_path / "run", {}) as record:
        run(Counter(), record, num_steps=5, save_every=2)
    assert [p.name for p in sorted((tmp_path / "run" / "checkpoints").iterdir())] == ["step-00000004", "step-00000005"]


def test_without_save_every_nothing_is_saved(tmp_path: Path) -> None:
    with RunDirectory.open(tmp_path / "run", {}) as record:
        run(Counter(), record, num_steps=5)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_stop_rule_ends_the_run_and_saves(tmp_path: Path) -> None:
    learner = Counter()
    with RunDirectory.open(tmp_path / "run", {}) as record:
        reason = run(
            learner,
            record,
            num_steps=9,
            evaluate=evaluate,
            evaluate_every=2,
            stop_rules=[AtStep(3)],
            save_every=3,
        )
    assert reason == "stop at 4"
    assert learner.steps == 4  # rules look at evaluations, and 4 is the first one after 3
    (alarm,) = rows(tmp_path / "run", "alarm")
    assert (alarm["step"], alarm["reason"], alarm["action"]) == (4, "stop at 4", "stop")
    assert (tmp_path / "run" / "checkpoints" / "step-00000004").exists()


def test_a_rule_that_logs_does_not_end_the_run(tmp_path: Path) -> None:
    with RunDirectory.open(tmp_path / "run", {}) as record:
        reason = run(Counter(), record, num_steps=4, evaluate=evaluate, evaluate_every=1, stop_rules=[AtStep(3, "log")])
    assert reason == "all 4 steps done"
    assert [(row["step"], row["action"]) for row in rows(tmp_path / "run", "alarm")] == [(3, "log"), (4, "log")]


def test_the_first_stopping_rule_names_the_reason_and_all_are_logged(tmp_path: Path) -> None:
    rules: list[StopRule] = [AtStep(1, "log"), Threshold(measure="reward", at_least=0.1), AtStep(1, "stop")]
    with RunDirectory.open(tmp_path / "run", {}) as record:
        reason = run(Counter(), record, num_steps=4, evaluate=evaluate, evaluate_every=1, stop_rules=rules)
    assert reason == "reward reached 0.1, the goal was 0.1"
    logged = [row["reason"] for row in rows(tmp_path / "run", "alarm")]
    assert logged == ["log at 1", reason, "stop at 1"]


def test_rules_see_all_evaluations_also_those_before_a_resume(tmp_path: Path) -> None:
    rule = AtStep(99)
    with RunDirectory.open(tmp_path / "run", {}) as record, pytest.raises(KeyboardInterrupt):
        run(Counter(dies_at=6), record, num_steps=8, evaluate=evaluate, evaluate_every=2, save_every=3)
    with RunDirectory.open(tmp_path / "run", {}) as record:
        run(
            Counter(),
            record,
            num_steps=8,
            evaluate=evaluate,
            evaluate_every=2,
            stop_rules=[rule],
            save_every=3,
        )
    # Saved at 3, so the evaluation at 4 was cut off and made again; 0 and 2 were read back.
    assert [dict(e) for e in rule.shown] == [{"step": s, "reward": s / 10} for s in (0, 2, 4, 6, 8)]
    assert [row["step"] for row in rows(tmp_path / "run", "evaluation")] == [0, 2, 4, 6, 8]
    assert [row["step"] for row in rows(tmp_path / "run", "train")] == list(range(1, 9))


def test_a_resumed_learner_and_engine_continue(tmp_path: Path) -> None:
    with RunDirectory.open(tmp_path / "run", {}) as record, pytest.raises(KeyboardInterrupt):
        run(Counter(dies_at=6), record, num_steps=8, save_every=2)
    learner = Counter()
    with RunDirectory.open(tmp_path / "run", {}) as record:
        run(learner, record, num_steps=8, save_every=2)
    assert learner.steps == learner.engine.weight == 8
    assert [row["loss"] for row in rows(tmp_path / "run", "train")] == [1 / k for k in range(1, 9)]


def test_a_run_that_died_before_its_first_checkpoint_starts_anew(tmp_path: Path) -> None:
    with RunDirectory.open(tmp_path / "run", {}) as record, pytest.raises(KeyboardInterrupt):
        run(Counter(dies_at=2), record, num_steps=3, evaluate=evaluate, evaluate_every=1, save_every=2)
    with RunDirectory.open(tmp_path / "run", {}) as record:
        run(Counter(), record, num_steps=3, evaluate=evaluate, evaluate_every=1, save_every=2)
    assert [row["step"] for row in rows(tmp_path / "run", "train")] == [1, 2, 3]
    assert [row["step"] for row in samples(tmp_path / "run")] == [0, 1, 2, 3]


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    for _ in range(2):
        learner = Counter()
        with RunDirectory.open(tmp_path / "run", {}) as record:
            assert run(learner, record, num_steps=4, save_every=2) == "all 4 steps done"
    assert learner.steps == 4
    assert len(rows(tmp_path / "run", "train")) == 4


def test_a_stopped_run_stays_stopped(tmp_path: Path) -> None:
    for _ in range(2):  # the second time as after a kill between the last checkpoint and the end of the stage
        learner = Counter()
        with RunDirectory.open(tmp_path / "run", {}) as record:
            reason = run(
                learner,
                record,
                num_steps=9,
                evaluate=evaluate,
                evaluate_every=2,
                stop_rules=[AtStep(4)],
                save_every=2,
            )
        assert reason == "stop at 4"
        assert learner.steps == 4
    assert len(rows(tmp_path / "run", "alarm")) == 1


def test_a_failed_save_leaves_the_earlier_checkpoint(tmp_path: Path) -> None:
    class Full(Engine):
        def save(self, path: Path) -> None:
            super().save(path)
            if self.weight == 4:
                raise OSError(28, "No space left on device", str(path / "weight"))

    learner = Counter()
    learner.engine = Full()
    with RunDirectory.open(tmp_path / "run", {}) as record:
        with pytest.raises(RunError, match="No space left on device") as error:
            run(learner, record, num_steps=8, save_every=2)
        assert "\n" not in str(error.value)
        assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000002"]
