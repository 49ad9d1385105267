"""Entropy in training beside temperature at inference, on a finished demo.

    python bench/temperature.py --run runs/demo [--json] [--plot docs/images/temperature.svg]

In training: the entropy that PPO logged, step by step, of the policy at the temperature that it sampled at, which is 1
in the demo. At inference: base and tuned model answer 200 dev prompts four times at each of TEMPERATURES. Told of each:
nats per token of the distribution that was drawn from, different word pairs as a share of all, answers that end, and
true utility with its interval over prompts.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from drawing import one_file

from tuneful.demo.run import shipped_worlds
from tuneful.evaluation import plots
from tuneful.evaluation.intervals import bootstrap_mean
from tuneful.evaluation.text_measures import distinct_n, eos_share
from tuneful.generation.sampling import Sampling
from tuneful.pipeline.answers import stage_answers
from tuneful.pipeline.context import Context, Silent
from tuneful.pipeline.recipe import recorded_recipe
from tuneful.records import Prompt
from tuneful.runs.lineage import read_stage
from tuneful.runs.logs import read_log

TEMPERATURES = (0.25, 0.5, 0.7, 1.0, 1.3, 1.6)
PROMPTS, SAMPLES = 200, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plot", type=Path, help="where to draw both, as SVG")
    given = parser.parse_args()
    record = read_stage(given.run)
    if record is None:
        raise SystemExit(f"{given.run}: holds no run; make one with `make demo`")
    recipe = recorded_recipe(record.manifest["recipe"], str(given.run / "run.json"))
    context = Context.of(recipe, given.run, shipped_worlds(), Silent())
    prompts = context.prompts("demo:prompts").read("dev", purpose="stop", stage="temperature")[:PROMPTS]
    logged = [row for row in read_log(given.run / "ppo" / "metrics.jsonl") if row["kind"] == "train"]
    training = {row["step"]: row["entropy"] for row in logged}
    table = {
        side: {str(t): answered(context, model, prompts, t) for t in TEMPERATURES}
        for side, model in (("base", "demo:base"), ("tuned", "@ppo"))
    }
    if given.plot:
        given.plot.write_text(drawing(training, table), encoding="utf-8")
    if given.json:
        print(json.dumps({"bench": "temperature", "training": training, **table}))
        return
    steps = sorted(training)
    for step in (steps[0], *steps[9::10]):
        print(f"step {step:>4}  entropy {training[step]:.3f}")
    for side, rows in table.items():
        for temperature, row in rows.items():
            low, high = row["true_utility"]["interval"]
            print(
                f"{side:<6} temperature {temperature:<5} nats per token {row['entropy']:.3f}  different word pairs "
                f"{row['distinct_2']:.3f}  ended {row['eos_share']:.3f}  true utility "
                f"{row['true_utility']['mean']:+.3f} [{low:+.3f}, {high:+.3f}]"
            )


def drawing(training: dict[int, float], table: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Entropy over steps; under it true utility against entropy, a line for each model, a number for a temperature."""
    points = [
        plots.Series(
            curve=tuple((row["entropy"], row["true_utility"]["mean"]) for row in rows.values()),
            end=(rows[t]["entropy"], rows[t]["true_utility"]["mean"]),
            interval=None,
        )
        for rows in table.values()
        for t in rows
    ]
    entropy = plots.over_steps(tuple(sorted(training.items())), (), name="nats per token over steps")
    utility = plots.learners(points, start=None, over="nats per token", name="true utility over nats per token")
    return one_file([entropy, utility])


def answered(context: Context, model: str, prompts: list[Prompt], temperature: float) -> dict[str, Any]:
    """What the answers of one model at one temperature are like."""
    sampling = Sampling(num_samples=SAMPLES, max_new_tokens=48, temperature=temperature)
    rollout = stage_answers(context, model, prompts, sampling, seed=0, dtype="float32")
    utility = context.measure("demo:true_utility")
    group = rollout.group.tolist()
    values = [utility(prompts[g], text) for g, text in zip(group, rollout.texts, strict=True)]
    return {
        "entropy": -float(rollout.sampled_logprobs[rollout.mask].mean()),
        "distinct_2": distinct_n(rollout.texts, 2),
        "eos_share": eos_share(rollout.finish),
        "true_utility": bootstrap_mean(values, group).as_json(),
    }


if __name__ == "__main__":
    main()
