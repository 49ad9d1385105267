"""How much of a witness's rise under PPO is length alone.

    tuneful run recipes/hh_small_minilm.toml --seed 0 --out runs/minilm-0      # and 1, 2
    python bench/witness.py runs/minilm-* [--json]

Of each run the witness, a reward model that no policy was trained with, scores three answers to each test prompt: the
base's, the tuned policy's, and the base's cut to the number of words that the tuned policy said. What the tuned policy
gains beyond the cut answers is not length. Intervals over prompts, and over prompts and seeds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuneful.data.files import read_rows
from tuneful.evaluation.intervals import bootstrap_mean, hierarchical_difference
from tuneful.records import Completion, Prompt
from tuneful.rewards.learned import LearnedReward


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--witness", type=Path, help="one reward model for all runs, not each run's own minilm/model")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    seen = {run: scores(run, given.witness or run / "minilm" / "model") for run in given.runs}
    result = {}
    for name, (one, other) in {
        "tuned - base": ("base", "tuned"),
        "cut - base": ("base", "cut"),
        "tuned - cut": ("cut", "tuned"),
    }.items():
        per_seed = [seen[run][other] - seen[run][one] for run in given.runs]
        result[name] = hierarchical_difference(per_seed).as_json()
        each = "  ".join(f"{d.mean():+.3f} {_interval(d)}" for d in per_seed)
        low, high = result[name]["interval"]
        print(f"{name:<13} {result[name]['mean']:+.3f} [{low:+.3f}, {high:+.3f}]   by seed {each}")
    if given.json:
        print(json.dumps(result))


def scores(run: Path, path: Path) -> dict[str, NDArray[np.float64]]:
    """Normalised scores [P] of the witness at `path`, one answer to each test prompt."""
    rows = [row.fields for row in read_rows(run / "evaluate" / "answers.jsonl")]
    prompts = [Prompt.from_json(row["prompt"]) for row in rows]
    base, tuned = ([row[side][0] for row in rows] for side in ("before", "after"))
    cut = [" ".join(b.split()[: len(t.split())]) for b, t in zip(base, tuned, strict=True)]
    witness = LearnedReward.load(path)
    answers = {"base": base, "tuned": tuned, "cut": cut}
    return {
        name: witness(prompts, [Completion(text) for text in texts]).cpu().double().numpy()
        for name, texts in answers.items()
    }


def _interval(differences: NDArray[np.float64]) -> str:
    low, high = bootstrap_mean(differences).as_json()["interval"]
    return f"[{low:+.3f}, {high:+.3f}]"


if __name__ == "__main__":
    main()
