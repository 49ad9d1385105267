"""What holding the roles of PPO on one base costs: a reward and a value on the policy's base, or models of their own.

    python bench/sharing.py demo --out runs/sharing --seeds 0 1 2 [--variants ...] [--json]
    python bench/sharing.py hh_small --out runs/sharing-hh --seeds 0 1 2 [--witness runs/minilm-0/minilm/model]

A variant is policy-reward-value. The policy is an adapter ("lora") or trained whole ("full"). The reward is an adapter
on the policy's base ("shared"), the same adapter on a second base ("beside"), or its "own" model, trained whole. The
value is a "head" on the policy's trunk, an "adapter" with a head, or a "model" of its own; "start" is the adapter that
starts from the reward's. Within one policy PPO's settings are equal, the learning rate too: a value model beside an
adapted policy is trained whole at the adapters' rate.

Finished runs are read, missing ones made, one after the other: first what comes before PPO, in a run of its own, then
each variant with those stages copied into it, so that variants differ in nothing but what they name and PPO has a fresh
process for its memory. Each run is a plain one, which `tuneful run` would continue.

Told are means over the seeds, and the differences to the first variant with t intervals over seeds. True utility in the
demo world is computed when a run is over. On hh_small the witness, one reward model that no policy was trained with,
scores what each policy says beyond saying it in fewer words (see witness.py). Seconds and the resident peak are those
of the PPO stage; the planned peak is what its tensors need, and held what weights and optimizer take of that. Where
other jobs run beside, compare CPU seconds, with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t
from witness import scores

from tuneful.demo.run import run_demo, shipped_worlds
from tuneful.pipeline.context import Silent
from tuneful.pipeline.recipe import Recipe, load_recipe, shipped_recipe
from tuneful.pipeline.run import run_recipe
from tuneful.runs.directory import RunDirectory
from tuneful.runs.lineage import read_stage

VARIANTS = (
    "lora-shared-head",
    "lora-shared-adapter",
    "lora-shared-model",
    "lora-own-head",
    "lora-own-adapter",
    "lora-own-model",
    "lora-shared-start",
    "lora-beside-head",
    "full-own-head",
    "full-own-model",
)

LORA_RATES: Mapping[str, Mapping[str, float]] = {
    "demo": {"reward": 2e-3, "ppo": 2e-3},
    "hh_small": {"reward": 1e-3, "ppo": 1e-3},
}
"""Learning rates of the stages that train adapters; a reward or a policy that is trained whole has the recipe's."""

MIB = 2**20

Numbers = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=LORA_RATES)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS, metavar="VARIANT")
    parser.add_argument("--witness", type=Path, help="a reward model that scores the answers of all policies")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found: dict[str, list[Numbers]] = {variant: [] for variant in given.variants}
    for seed in given.seeds:
        for variant in given.variants:
            numbers = measured(finished(given.recipe, variant, seed, given.out), given.witness)
            found[variant].append(numbers)
            told = "  ".join(f"{name} {value:.3f}" for name, value in numbers.items())
            print(f"{variant:<20} seed {seed}  {told}", flush=True)
    result = compared(found)
    print("\n".join(table(result)))
    if given.json:
        print(json.dumps({"seeds": given.seeds, **result}))


def overrides(recipe: str, variant: str) -> list[str]:
    """What `--set` of the shipped recipe makes the variant."""
    policy, reward, value = variant.split("-")
    rates = LORA_RATES[recipe]
    made = [f"ppo.value={'adapter' if value == 'start' else value}"]
    if value == "start":
        made += ["ppo.value_from=@reward"]
    if policy == "lora":
        made += ["ppo.lora={rank=8}", f"ppo.optimization.learning_rate={rates['ppo']}"]
    if reward != "own":
        made += ["reward.lora={rank=8}", f"reward.optimization.learning_rate={rates['reward']}"]
        made += [f"ppo.share_base={'true' if reward == 'shared' else 'false'}"]
    return made


def finished(name: str, variant: str, seed: int, out: Path) -> Path:
    """The finished run of a variant in `out`, made now where it is not there."""
    recipe = load_recipe(shipped_recipe(name), overrides(name, variant), seed=seed)
    run = out / f"{variant}-{seed}"
    before = out / f"before-{'own' if '-own-' in variant else 'shared'}-{seed}"
    if (run / "ppo").exists() and not finished_whole(run):
        shutil.rmtree(run)  # what a process that was cut off took is not in the record
    at = next(number for number, stage in enumerate(recipe.stages) if stage.kind == "ppo")
    for folder, part in ((before, replace(recipe, stages=recipe.stages[:at])), (run, recipe)):
        if not borrow(part, folder, sorted(out.glob(f"before-*-{seed}"))):
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
                process.submit(execute, part, folder).result()
    return run


def finished_whole(run: Path) -> bool:
    """Whether one process went through PPO and all after it."""
    manifest = _read(run / "run.json")
    return bool(manifest.get("done")) and "cpu_seconds" in manifest


def execute(recipe: Recipe, folder: Path) -> None:
    """Run the recipe into the folder, a whole demo with the demo's report; its record then has CPU seconds by stage."""
    clock = Clock()
    if Path(recipe.source).stem == "demo" and recipe.stages[-1].kind == "evaluate":
        run_demo(recipe, folder, display=clock)
    else:
        run_recipe(recipe, folder, worlds=shipped_worlds(), display=clock)
    clock.stage("end", "")
    with RunDirectory.open(folder, recipe.as_table()) as run:
        run.update(cpu_seconds={name: end - begin for (name, begin), (_, end) in pairwise(clock.began)})


class Clock(Silent):
    """A display that shows nothing and takes the time: what CPU time this process had used when each stage began."""

    def __init__(self) -> None:
        self.began: list[tuple[str, float]] = []

    def stage(self, name: str, kind: str) -> None:
        self.began.append((name, time.process_time()))


def borrow(recipe: Recipe, folder: Path, others: Sequence[Path]) -> bool:
    """Copy into a run the stages of its recipe that it lacks and another one has finished; whether it is whole.

    Raises RunError when the folder holds a run of another recipe.
    """
    wanted = {stage.name: json.loads(json.dumps({"seed": recipe.seed, **stage.as_table()})) for stage in recipe.stages}
    with RunDirectory.open(folder, recipe.as_table()) as run:
        for name in wanted:
            lender = next((other for other in others if same(other, name, wanted)), None)
            if lender is not None and not (folder / name).exists():
                with run.output(name) as part:
                    shutil.copytree(lender / name, part, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
        return run.done


def same(run: Path, name: str, wanted: Mapping[str, Any]) -> bool:
    """Whether a run has finished the stage `name` as it is wanted, and all that it was made from."""
    record = read_stage(run / name)
    return (
        record is not None
        and bool(record.manifest.get("done"))
        and record.manifest["recipe"] == wanted[name]
        and all(same(run, parent, wanted) for parent in record.manifest["parents"])
    )


def measured(run: Path, witness: Path | None = None) -> Numbers:
    """The numbers of one run: what its reward model knows, what its policy became, what PPO took."""
    report = _read(run / "report.json")
    manifest = _read(run / "run.json")
    memory = _read(run / "ppo" / "run.json")["memory"]
    held = memory["parts"]["weights"] + memory["parts"]["optimizer"]
    accuracy = report["reward_model"]["heldout_accuracy"]
    numbers = {"accuracy": accuracy["mean"], "accuracy low": accuracy["interval"][0]}
    numbers |= {"accuracy high": accuracy["interval"][1]}
    if "recovered" in report:
        numbers |= {"true utility": report["after"]["true_utility"]["mean"], "recovered": report["recovered"]}
    if witness is not None:
        seen = scores(run, witness)
        numbers |= {"witness": float((seen["tuned"] - seen["base"]).mean())}
        numbers |= {"beyond length": float((seen["tuned"] - seen["cut"]).mean())}
    numbers |= {"own reward": report["difference"]["reward"]["mean"], "kl": report["kl"]["mean"]}
    numbers |= {"words": report["after"]["length"]["mean"]}
    numbers |= {"seconds": manifest["seconds"]["ppo"], "CPU seconds": manifest["cpu_seconds"]["ppo"]}
    peaks = {"held MiB": held, "planned MiB": memory["planned"], "resident MiB": memory["resident"]}
    return numbers | {name: size / MIB for name, size in peaks.items()}


def compared(found: Mapping[str, Sequence[Numbers]]) -> dict[str, Any]:
    """Means over seeds of every variant, and the differences to the first one, paired by seed, with t intervals."""
    first = next(iter(found))
    result: dict[str, Any] = {"baseline": first, "means": {}, "differences": {}}
    for variant, runs in found.items():
        result["means"][variant] = {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}
        if variant != first:
            result["differences"][variant] = {
                name: paired([run[name] - base[name] for run, base in zip(runs, found[first], strict=True)])
                for name in runs[0]
                if not name.startswith("accuracy ")
            }
    return result


def paired(differences: Sequence[float]) -> dict[str, Any]:
    """Mean of one difference per seed, and its 95 % interval by Student's t; NaN for one seed alone."""
    n, mean = len(differences), float(np.mean(differences))
    half = float(t.ppf(0.975, n - 1) * np.std(differences, ddof=1) / math.sqrt(n)) if n > 1 else math.nan
    return {"mean": mean, "interval": [mean - half, mean + half], "seeds": list(differences)}


def table(result: Mapping[str, Any]) -> list[str]:
    """The means, and below each the differences, in lines."""
    lines = []
    for variant, means in result["means"].items():
        told = "  ".join(f"{name} {value:.3f}" for name, value in means.items())
        lines.append(f"{variant:<20} mean    {told}")
        for name, difference in result["differences"].get(variant, {}).items():
            low, high = difference["interval"]
            seeds = ", ".join(f"{value:+.3f}" for value in difference["seeds"])
            lines.append(f"    {name:<14} {difference['mean']:+.3f} [{low:+.3f}, {high:+.3f}]   seeds {seeds}")
    return lines


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
