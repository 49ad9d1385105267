"""What several reward models together are worth to PPO: where their errors differ, and where all share one.

    python bench/ensembles.py --out runs/ensembles [--seeds 4] [--json]

Two cases in the demo world. `noise`: 300 prompts, and a quarter of the consensus's pairs turned round by lot, so that
each member has its own mistakes to learn. `flattery`: the demo's 800 prompts and labelers, who all like a flattering
phrase that is worth less than nothing; no member can know better. Three reward models differ in their seeds alone, and
the same PPO, with the same leash and steps, is given the first of them, their mean, the worst of them (WCO), and their
mean less VARIANCE_COEF times their variance (UWO; Coste et al. 2023, arXiv 2310.02743).

A line for each case, seed and reward goes to `OUT/ensembles.jsonl`, and lines that are there are not made again. Told
is the true utility gained over the base on 200 test prompts, less what the single model gained with the same seed, with
Student's t interval over seeds.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from demo_learners import given_by, keep, lines, run, stages

from tuneful.data.formats import read_comparisons
from tuneful.data.jsonl import write_jsonl
from tuneful.data.preferences import comparison_row
from tuneful.evaluation.intervals import mean_over_seeds

MEMBERS = 3
VARIANCE_COEF = 0.5
KL_COEF = 0.1
"""A third of the demo's, so that there is room to over-optimise."""
NOISE = 0.25
PROMPTS = {"noise": 300, "flattery": 800}
REWARDS: dict[str, dict[str, Any]] = {
    "mean": {"combine": "mean"},
    "worst": {"combine": "worst"},
    "mean - variance": {"combine": "mean_minus_variance", "variance_coef": VARIANCE_COEF},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    results = given.out / "ensembles.jsonl"
    by_name = stages()
    for case in PROMPTS:
        for seed in range(given.seeds):
            if len(told(results, case, seed)) <= len(REWARDS):
                measure(given.out / f"{case}-{seed}", by_name, case, seed, results)
    table = {case: compared(results, case, given.seeds) for case in PROMPTS}
    if given.json:
        print(json.dumps({"bench": "ensembles", "seeds": given.seeds, **table}))
        return
    for case, rows in table.items():
        for name, row in rows.items():
            low, high = row["difference"]["interval"]
            print(
                f"{case:<9} {name:<16} true utility gained {row['gain']:+.3f}, above the single model's "
                f"{row['difference']['mean']:+.3f} [{low:+.3f}, {high:+.3f}]"
            )


def told(results: Path, case: str, seed: int) -> dict[str, dict[str, Any]]:
    """The lines of one case and seed, by reward."""
    return {line["reward"]: line for line in lines(results) if (line["case"], line["seed"]) == (case, seed)}


def measure(folder: Path, by_name: dict[str, dict[str, Any]], case: str, seed: int, results: Path) -> None:
    """Judgments, members, and a policy for each reward."""
    made = [by_name["samples"] | {"limit": PROMPTS[case]}, by_name["labels"], by_name["consensus"]]
    run(folder / "shared", made, seed)
    pairs = folder / "shared" / "consensus" / "comparisons.jsonl"
    if case == "noise":
        pairs = turned(pairs, folder / "pairs.jsonl", seed)
    members = [
        by_name["reward"] | {"name": f"member_{k}", "comparisons": str(pairs), "seed": 1000 * seed + k}
        for k in range(MEMBERS)
    ]
    run(folder / "members", members, seed)
    models = [str(folder / "members" / f"member_{k}" / "model") for k in range(MEMBERS)]
    rewards: dict[str, Any] = {"one": models[0]} | {name: {"ensemble": models, **how} for name, how in REWARDS.items()}
    for name, reward in rewards.items():
        if name in told(results, case, seed):
            continue
        own = folder / name.replace(" - ", "-")
        policy = by_name["ppo"] | {"reward": reward, "kl_coef": KL_COEF}
        judge = {key: given_by(folder, value) for key, value in by_name["evaluate_ppo"].items() if key != "reward"}
        run(own, [policy, judge], seed)
        report = json.loads((own / "evaluate_ppo" / "report.json").read_text(encoding="utf-8"))
        gains = {of: report["difference"][of]["mean"] for of in ("true_utility", "toxicity", "filler", "length")}
        line = {"case": case, "seed": seed, "reward": name, **gains, "kl": report["kl"]["mean"]}
        keep(results, line)
        print(json.dumps(line), flush=True)


def turned(pairs: Path, out: Path, seed: int) -> Path:
    """The same pairs with hard labels, NOISE of them turned round by lot."""
    draw = random.Random(seed)
    rows = [replace(pair, p=1.0, weight=1.0) for pair in read_comparisons(pairs, on_skip=lambda _: None)]
    noisy = [replace(row, chosen=row.rejected, rejected=row.chosen) if draw.random() < NOISE else row for row in rows]
    write_jsonl(out, map(comparison_row, noisy), force=True)
    return out


def compared(results: Path, case: str, seeds: int) -> dict[str, Any]:
    """By reward: the mean gain, and its difference from the single model's, seed by seed."""
    by_seed = [told(results, case, seed) for seed in range(seeds)]
    gains = {name: [of[name]["true_utility"] for of in by_seed] for name in ("one", *REWARDS)}
    return {
        name: {
            "gain": sum(gains[name]) / seeds,
            "difference": mean_over_seeds(
                [gain - single for gain, single in zip(gains[name], gains["one"], strict=True)]
            ).as_json(),
        }
        for name in REWARDS
    }


if __name__ == "__main__":
    main()
