"""What a second round of labels changes in the demo world.

    tuneful run recipes/demo_rounds.toml --seed 0 --out runs/rounds-0                # and seeds 1, 2
    tuneful run recipes/demo_rounds.toml --seed 0 --out runs/more-0 --set samples.again.model=demo:base
    python bench/rounds.py --rounds runs/rounds-* --control runs/more-* [--json]

The control has as many labels, of answers of the base in both rounds. For every run: what its policy was worth on the
test prompts after each round. Then the differences with their intervals, over prompts and seeds: round 2 - round 1, and
after round 2 the runs - the controls of the same seeds. True utility is computed here; the runs never saw it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneful.data.files import read_rows
from tuneful.demo.toxicity import toxicity_b
from tuneful.demo.utility import filler_count, true_utility
from tuneful.evaluation.intervals import hierarchical_difference
from tuneful.evaluation.text_measures import num_words
from tuneful.records import Prompt

STAGES = ("evaluate", "evaluate_2")
MEASURES: dict[str, Callable[[Prompt, str], float]] = {
    "true utility": true_utility,
    "filler": lambda _, text: float(filler_count(text)),
    "toxicity": lambda _, text: toxicity_b(text),
    "words": lambda _, text: float(num_words(text)),
}


def by_prompt(run: Path, stage: str) -> dict[str, NDArray[np.float64]]:
    """Each measure of the tuned answers of a stage, mean over the samples of each test prompt."""
    rows = [
        (Prompt.from_json(row.fields["prompt"]), row.fields["after"])
        for row in read_rows(run / stage / "answers.jsonl")
    ]
    return {
        name: np.array([np.mean([measure(prompt, text) for text in texts]) for prompt, texts in rows])
        for name, measure in MEASURES.items()
    }


def reported(run: Path, stage: str) -> dict[str, float]:
    """What the stage itself reported: KL to the base, and the reward that this round's policy was trained on."""
    report = json.loads((run / stage / "report.json").read_text())
    return {"kl": report["kl"]["mean"], "reward": report["after"]["reward"]["mean"]}


def difference(ones: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The others minus the ones, seed by seed and prompt by prompt, with the sign in every seed."""
    told = {}
    for name in MEASURES:
        per_seed = [other[name] - one[name] for one, other in zip(ones, others, strict=True)]
        told[name] = hierarchical_difference(per_seed).as_json() | {"seeds": [float(d.mean()) for d in per_seed]}
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=Path, nargs="+", required=True)
    parser.add_argument("--control", type=Path, nargs="*", default=[])
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    seen = {run: [by_prompt(run, stage) for stage in STAGES] for run in [*given.rounds, *given.control]}
    for run, rounds in seen.items():
        for stage, measured in zip(STAGES, rounds, strict=True):
            numbers = {name: float(values.mean()) for name, values in measured.items()} | reported(run, stage)
            print(f"{run.name:<14} {stage:<11} " + "  ".join(f"{name} {value:.3f}" for name, value in numbers.items()))
    result = {"round 2 - round 1": difference(*([seen[r][k] for r in given.rounds] for k in (0, 1)))}
    if given.control:
        result["control, round 2 - round 1"] = difference(*([seen[r][k] for r in given.control] for k in (0, 1)))
        result["rounds - control, after round 2"] = difference(
            [seen[r][1] for r in given.control], [seen[r][1] for r in given.rounds]
        )
    for what, measures in result.items():
        print(what)
        for name, m in measures.items():
            seeds = ", ".join(f"{value:+.3f}" for value in m["seeds"])
            print(f"  {name:<13} {m['mean']:+.3f} [{m['interval'][0]:+.3f}, {m['interval'][1]:+.3f}]   seeds {seeds}")
    if given.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
