"""The loop every algorithm runs in: step, log, evaluate, save, stop, resume.

A learner knows its mathematics; this knows everything else. Killed at any moment and started again, a run continues
from its newest checkpoint with its logs cut back to it, and ends bitwise where it would have ended.

Among several ranks all run it. What rank 0 finds in its run directory decides for all where they go on; the others have
directories of their own, which are thrown away (engines.ranks.run_directory).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tuneful.algorithms.stopping import StopRule
from tuneful.engines import ranks
from tuneful.engines.protocol import Engine, Metrics
from tuneful.runs.directory import RunDirectory


class Learner(Protocol):
    """An algorithm with its data. `state` is what JSON can hold; weights and optimizer are the engine's to save."""

    engine: Engine

    def step(self) -> Metrics:
        """Collect or draw data, update once, and say what happened."""
        ...

    def state(self) -> dict[str, Any]:
        """Controllers and data position."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        ...


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one evaluation saw: measures by name, and a few samples for people to read."""

    measures: Mapping[str, float]
    samples: Sequence[Mapping[str, Any]] = field(default_factory=list)


Progress = Callable[[int, int, Mapping[str, float]], None]
"""(steps done, steps in all, latest metrics): told after every step."""


def run(
    learner: Learner,
    record: RunDirectory,
    *,
    num_steps: int,
    evaluate: Callable[[int], Evaluation] | None = None,
    evaluate_every: int = 0,
    stop_rules: Sequence[StopRule] = (),
    save_every: int = 0,
    progress: Progress | None = None,
) -> str:
    """Run `learner` to `num_steps` or until a rule stops it; the reason it ended.

    evaluate: called at step 0, every `evaluate_every` steps and at the end; its measures feed the stop rules.
    save_every: steps between checkpoints; 0 saves none.
    """
    step, evaluations = _resume(learner, record)
    reason = ranks.from_first(lambda: _stopped(record))
    if evaluate is not None and not evaluations:
        evaluations.append(_evaluate(evaluate, step, record))
    while step < num_steps and reason is None:
        started = time.perf_counter()
        metrics = learner.step()
        step += 1
        record.metrics.write({"step": step, "kind": "train", **metrics, "seconds": time.perf_counter() - started})
        if progress is not None:
            progress(step, num_steps, metrics)
        due = step == num_steps or (evaluate_every > 0 and step % evaluate_every == 0)
        if evaluate is not None and due:
            evaluations.append(_evaluate(evaluate, step, record))
            reason = _check(stop_rules, step, evaluations, record)
        if save_every > 0 and (step % save_every == 0 or step == num_steps or reason):
            _save(learner, record, step)
    return reason or f"all {num_steps} steps done"


def _check(
    stop_rules: Sequence[StopRule], step: int, evaluations: Sequence[Mapping[str, float]], record: RunDirectory
) -> str | None:
    """The first reason to end the run; every reason, also of rules that only log, is written down."""
    stop = None
    for rule in stop_rules:
        reason = rule.check(step, evaluations)
        if reason is not None:
            record.metrics.write({"step": step, "kind": "alarm", "reason": reason, "action": rule.action})
            stop = stop or (reason if rule.action == "stop" else None)
    return stop


def _stopped(record: RunDirectory) -> str | None:
    """Why a rule has ended this run in an earlier process, which was then killed before it could say so."""
    alarms = (row for row in record.metrics.rows() if row["kind"] == "alarm" and row["action"] == "stop")
    return next((str(row["reason"]) for row in alarms), None)


def _evaluate(evaluate: Callable[[int], Evaluation], step: int, record: RunDirectory) -> Mapping[str, float]:
    started = time.perf_counter()
    seen = evaluate(step)
    for sample in seen.samples:
        record.samples.write({"step": step, **sample})
    measures = {"step": float(step), **seen.measures}
    record.metrics.write({**measures, "step": step, "kind": "evaluation", "seconds": time.perf_counter() - started})
    return measures


def _save(learner: Learner, record: RunDirectory, step: int) -> None:
    with record.checkpoint(step) as folder:
        learner.engine.save(folder)
        (folder / "learner.json").write_text(json.dumps(learner.state()), encoding="utf-8")


def _resume(learner: Learner, record: RunDirectory) -> tuple[int, list[Mapping[str, float]]]:
    """The step to continue from and the evaluations seen until then; (0, []) for a fresh run."""
    latest = ranks.from_first(record.latest_checkpoint)
    if ranks.rank() == 0:  # the others have logged nothing yet
        record.resume_logs(None if latest is None else latest[1])
    if latest is None:
        return 0, []
    step, folder = latest
    learner.engine.load(folder)
    learner.restore(json.loads((folder / "learner.json").read_text(encoding="utf-8")))
    seen = ranks.from_first(lambda: [row for row in record.metrics.rows() if row["kind"] == "evaluation"])
    return step, [{name: value for name, value in row.items() if name not in ("kind", "seconds")} for row in seen]
