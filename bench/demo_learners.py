"""Which learning rate and leash suit each learner in the demo world: a small search on dev prompts, alike for all.

    python bench/demo_learners.py --out runs/search [--only ppo rloo] [--seed 100]

What all share is made once: answers, consensus, reward model, by the first stages of recipes/demo_learners.toml. Then
each learner is trained with every pair of RATES and of its leashes (LEASHES), one process each, answers 100 dev prompts
four times, and a line goes to `OUT/search.jsonl`: true utility there, KL, seconds. Lines that are there are not
made again. Printed is each learner's best by true utility, for the recipe to hold; `tuneful compare` then runs
other seeds. That the choice is by true utility, which nobody has outside a made-up world, is the same for all.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from statistics import mean
from typing import Any

from tuneful.data.formats import read_candidates
from tuneful.demo.run import demo_world

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "demo_learners.toml"
SHARED = ("samples", "labels", "consensus", "reward")

RATES = {
    **dict.fromkeys(("ppo", "nlpo", "rloo", "grpo", "dpo", "ipo", "kto", "simpo", "orpo"), (1e-4, 3e-4, 9e-4)),
    **dict.fromkeys(("a2c", "reinforce", "raft", "raft_random", "dqn", "trpo"), (3.3e-4, 1e-3, 3e-3)),
    "ilql": (1e-3, 3e-3, 9e-3),
}
"""The learning rates that are tried; TRPO's is that of its value function."""

LEASHES: dict[str, tuple[str, tuple[float, float]]] = {
    "trpo": ("max_kl", (0.01, 0.03)),
    "dpo": ("beta", (0.03, 0.1)),
    "ipo": ("beta", (0.03, 0.1)),
    "kto": ("beta", (0.03, 0.1)),
    "simpo": ("beta", (2.0, 5.0)),
    "orpo": ("odds_ratio_coef", (0.1, 1.0)),
    "ilql": ("guide_scale", (16.0, 64.0)),
}
"""The setting that holds a learner back, and the two that are tried; of all others `kl_coef`, .1 and .3."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", help="names of learners in the recipe; without it, all")
    parser.add_argument("--seed", type=int, default=100, help="of all runs here; not one that counts later")
    given = parser.parse_args()
    by_name = stages()
    results = given.out / "search.jsonl"
    run(given.out / "shared", [by_name[name] for name in SHARED], given.seed)
    learners = {name: stage for name, stage in by_name.items() if "algorithm" in stage and name not in SHARED}
    for name in given.only or learners:
        for change in changes(learners[name]):
            if change not in [line["change"] for line in told(results, name)]:
                measure(given.out, learners[name], change, given.seed, results)
    for name in learners:
        own = told(results, name)
        if own:
            best = max(own, key=lambda line: line["true_utility"])
            print(f"{name:<12} {json.dumps(best['change'])}  true utility {best['true_utility']:+.3f} of {len(own)}")


def stages() -> dict[str, dict[str, Any]]:
    """The stages of the recipe, by name."""
    return {stage["name"]: stage for stage in tomllib.loads(RECIPE.read_text(encoding="utf-8"))["stage"]}


def lines(results: Path) -> list[dict[str, Any]]:
    """What a bench has kept so far; nothing where it has not begun."""
    return [json.loads(line) for line in (results.read_text(encoding="utf-8").splitlines() if results.exists() else ())]


def keep(results: Path, line: dict[str, Any]) -> None:
    """Add a line to what is kept."""
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def changes(stage: dict[str, Any]) -> list[dict[str, float]]:
    """The settings that are tried for a learner."""
    leash, values = LEASHES.get(stage["name"], ("kl_coef", (0.1, 0.3)))
    return [{"learning_rate": rate, leash: value} for rate in RATES[stage["name"]] for value in values]


def told(results: Path, name: str) -> list[dict[str, Any]]:
    """The lines of a learner."""
    return [line for line in lines(results) if line["learner"] == name]


def measure(out: Path, stage: dict[str, Any], change: dict[str, float], seed: int, results: Path) -> None:
    """Train with `change`, answer dev prompts, and keep the line."""
    name = stage["name"]
    leash = {setting: value for setting, value in change.items() if setting != "learning_rate"}
    optimization = stage["optimization"] | {"learning_rate": change["learning_rate"]}
    answers = {"do": "generate", "model": f"@{name}", "prompts": "demo:prompts", "split": "dev"}
    answers |= {"name": "answers", "limit": 100, "num_samples": 4, "max_new_tokens": 48}
    tuned = {key: given_by(out, value) for key, value in stage.items()} | leash | {"optimization": optimization}
    folder = out / "-".join([name, *(f"{value:g}" for value in change.values())])
    started = time.perf_counter()
    run(folder, [tuned, answers], seed)
    seconds = time.perf_counter() - started
    utility = demo_world().measures["true_utility"]
    judged = read_candidates(folder / "answers" / "completions.jsonl")
    line = {
        "learner": name,
        "change": change,
        "seed": seed,
        "true_utility": mean(utility(one.prompt, answer.text) for one in judged for answer in one.completions),
        "kl": last_kl(folder / name / "metrics.jsonl"),
        "seconds": seconds,
    }
    keep(results, line)
    print(json.dumps(line), flush=True)


def given_by(out: Path, value: Any) -> Any:
    """What a stage takes from a shared one, as the file or folder that it left."""
    places = {"@reward": "reward/model", "@consensus": "consensus/comparisons.jsonl"}
    places["@samples"] = "samples/completions.jsonl"
    return str(out / "shared" / places[value]) if isinstance(value, str) and value in places else value


def last_kl(metrics: Path) -> float | None:
    """The KL of the last evaluation; learners from preferences have none."""
    rows = map(json.loads, metrics.read_text(encoding="utf-8").splitlines())
    evaluated = [row["kl"] for row in rows if row["kind"] == "evaluation"]
    return evaluated[-1] if evaluated else None


def run(folder: Path, tables: list[dict[str, Any]], seed: int) -> None:
    """`tuneful run` of the stages of these tables in a process of its own; a run that is done is not repeated."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    recipe = folder.parent / f"{folder.name}.toml"
    recipe.write_text("".join(f"[[stage]]\n{toml(stage)}\n" for stage in tables), encoding="utf-8")
    command = [sys.executable, "-m", "tuneful", "run", str(recipe), "--out", str(folder), "--seed", str(seed)]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, env=os.environ)
    if ran.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{ran.stderr[-2000:]}")


def toml(table: dict[str, Any]) -> str:
    return "".join(f"{name} = {_value(value)}\n" for name, value in table.items())


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_value(inner)}" for name, inner in value.items()) + " }"
    return json.dumps(value)


if __name__ == "__main__":
    main()
