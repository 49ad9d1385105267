"""Whether PPO and RLOO ever collapse in the demo world, over many seeds.

    python bench/stability.py --out runs/stability [--seeds 8] [--learners ppo rloo] [--kl-coef .3] [--json]

The learners of recipes/demo_learners.toml on the demo's leash, each seed with labels, a reward model and a policy of
its own. A run has collapsed when its true utility on test prompts ends below the base's, when more than half of the
best gain that it had on dev prompts is gone in the end, when its answers have less than half as many different word
pairs as the base's, or when more than a fifth of them have no end token. Runs that are done are not repeated.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from demo_learners import SHARED, run, stages

from tuneful.demo.report import utility_curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--learners", nargs="+", default=["ppo", "rloo"])
    parser.add_argument("--kl-coef", type=float, default=0.3, help="their leash: .3 is that of recipes/demo.toml")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    by_name = stages()
    for name in given.learners:
        by_name[name]["kl_coef"] = given.kl_coef
    own = [by_name[part] for name in given.learners for part in (name, f"evaluate_{name}")]
    told: dict[str, list[dict[str, Any]]] = {name: [] for name in given.learners}
    for seed in range(given.seeds):
        folder = given.out / f"seed-{seed}"
        run(folder, [*(by_name[name] for name in SHARED), *own], seed)
        for name, rows in told.items():
            rows.append(verdict(folder, name) | {"seed": seed})
            if not given.json:
                print(f"{name:<6} seed {seed}  {rows[-1]}", flush=True)
    collapses = {name: sum(bool(row["collapsed"]) for row in rows) for name, rows in told.items()}
    if given.json:
        print(json.dumps({"bench": "stability", "seeds": given.seeds, "collapses": collapses, **told}))
    else:
        print(", ".join(f"{name}: {count} of {given.seeds} collapsed" for name, count in collapses.items()))


def verdict(run_folder: Path, name: str) -> dict[str, Any]:
    """The numbers of one run, and why it has collapsed, if it has."""
    report = json.loads((run_folder / f"evaluate_{name}" / "report.json").read_text(encoding="utf-8"))
    curve = utility_curve(run_folder / name)
    start, end, best = curve[0], curve[max(curve)], max(curve.values())
    numbers = {
        "gain": report["difference"]["true_utility"]["mean"],
        "gain_lost": (best - end) / (best - start) if best > start else 1.0,
        "distinct_2": report["after"]["distinct_2"] / report["before"]["distinct_2"],
        "eos_share": report["after"]["eos_share"],
        "kl": report["kl"]["mean"],
    }
    reasons = {
        "ends below the base": numbers["gain"] < 0,
        "lost its gain": numbers["gain_lost"] > 0.5,
        "says the same": numbers["distinct_2"] < 0.5,
        "does not end": numbers["eos_share"] < 0.8,
    }
    return numbers | {"collapsed": [reason for reason, holds in reasons.items() if holds]}


if __name__ == "__main__":
    main()
