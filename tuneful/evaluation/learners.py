"""Several learners side by side, each trained with several seeds: what they reached, and what it cost.

Never by KL or by reward alone: more KL buys more of either (Gao et al. 2022, arXiv 2210.10760), so a measure that was
not trained on stands against KL, against samples and against seconds, over the whole of each run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from tuneful.errors import DataError, did_you_mean
from tuneful.evaluation.intervals import MeasuredJSON, mean_over_seeds


@dataclass(frozen=True, slots=True)
class Point:
    """A moment of a training run. measure: mean of the compared measure; kl: nats per completion; samples: completions
    drawn until then; seconds: of training until then, evaluations left out."""

    step: int
    measure: float
    kl: float
    samples: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Learned:
    """What one learner reached with one seed, on prompts that it was not trained on.

    before, difference: by measure, with intervals over prompts. samples: completions it drew for itself. seconds: of
    its steps, evaluations and loading left out; of best-of-n all. memory: bytes above those that the process held
    before its stage, None where that is not known. curve: the moments of its run that were evaluated.
    """

    learner: str
    algorithm: str
    seed: int
    before: Mapping[str, MeasuredJSON]
    difference: Mapping[str, MeasuredJSON]
    kl: float
    samples: int
    seconds: float
    memory: int | None = None
    curve: tuple[Point, ...] = ()


def compare_learners(runs: Sequence[Learned], measure: str) -> list[dict[str, Any]]:
    """One row per learner, the one with the largest gain in `measure` first.

    {"learner", "algorithm", "seeds": [seed], "before": {measure: mean}, "difference": {measure: measured},
     "kl", "seconds", "samples", "memory": measured, or the number of one seed, or None, "gained": whether the interval
     of the gain in `measure` lies above 0 and every seed gained, "curve": [{"step", "measure", "kl", "samples",
     "seconds"}], means over the seeds that were evaluated at that step}

    Intervals are over seeds (`mean_over_seeds`); with one seed that of a difference is over prompts, and other numbers
    have none. Raises DataError for a learner without `measure`, and for one that has a seed twice.
    """
    rows = []
    for name in dict.fromkeys(run.learner for run in runs):
        own = sorted((run for run in runs if run.learner == name), key=lambda run: run.seed)
        seeds = [run.seed for run in own]
        if len(set(seeds)) < len(seeds):
            raise DataError(f"{name}: a seed is there twice, of {seeds}")
        if measure not in own[0].difference:
            known = own[0].difference
            raise DataError(f'{name}: nothing called "{measure}" was measured{did_you_mean(measure, known)}')
        difference = {of: _gain([run.difference[of] for run in own]) for of in own[0].difference}
        memory = [run.memory for run in own if run.memory is not None]
        rows.append(
            {
                "learner": name,
                "algorithm": own[0].algorithm,
                "seeds": seeds,
                "before": {of: mean(run.before[of]["mean"] for run in own) for of in own[0].before},
                "difference": difference,
                "kl": _over_seeds([run.kl for run in own]),
                "samples": _over_seeds([run.samples for run in own]),
                "seconds": _over_seeds([run.seconds for run in own]),
                "memory": _over_seeds(memory) if len(memory) == len(own) else None,
                "gained": difference[measure]["interval"][0] > 0
                and all(run.difference[measure]["mean"] > 0 for run in own),
                "curve": _mean_curve([run.curve for run in own]),
            }
        )
    return sorted(rows, key=lambda row: -row["difference"][measure]["mean"])


def _gain(of_seeds: Sequence[MeasuredJSON]) -> MeasuredJSON:
    return of_seeds[0] if len(of_seeds) == 1 else mean_over_seeds([one["mean"] for one in of_seeds]).as_json()


def _over_seeds(numbers: Sequence[float]) -> MeasuredJSON | float:
    return numbers[0] if len(numbers) == 1 else mean_over_seeds(numbers).as_json()


def _mean_curve(curves: Sequence[Sequence[Point]]) -> list[dict[str, float]]:
    """By step, over the curves that have it: a run that ended early is missing from then on."""
    steps = sorted({point.step for curve in curves for point in curve})
    found = []
    for step in steps:
        here = [point for curve in curves for point in curve if point.step == step]
        numbers = {name: mean(getattr(p, name) for p in here) for name in ("measure", "kl", "samples", "seconds")}
        found.append({"step": step, **numbers})
    return found
