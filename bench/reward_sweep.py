"""Learning rate and epochs of a reward stage, chosen without its test file: cross-validation over its own rows.

    python bench/reward_sweep.py RECIPE --stage minilm --learning-rates 3e-5 1e-4 3e-4 --epochs 1 2
                                 [--folds 5] [--seeds 0 1 2] [--out sweep.jsonl]

The training comparisons are parted into folds by prompt group. Each fold is judged by a model trained on the others
with the stage's other settings; so every training pair is judged once per seed. One JSON line for each setting.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuneful.algorithms.reward_model import RewardModel, RewardModelConfig, group_pairs
from tuneful.demo.run import shipped_worlds
from tuneful.engines.local import LocalEngine
from tuneful.evaluation.intervals import bootstrap_mean, wins
from tuneful.models.loading import load_tokenizer
from tuneful.models.roles import reward_roles
from tuneful.pipeline.context import Context, Silent
from tuneful.pipeline.learner_inputs import RewardInputs
from tuneful.pipeline.recipe import load_recipe
from tuneful.pipeline.rows import training_comparisons
from tuneful.records import Comparison, Completion
from tuneful.rewards.learned import LearnedReward


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--stage", default="reward")
    parser.add_argument("--learning-rates", type=float, nargs="+", required=True)
    parser.add_argument("--epochs", type=int, nargs="+", default=[1])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    recipe = load_recipe(given.recipe)
    stage = next(stage for stage in recipe.stages if stage.name == given.stage)
    with tempfile.TemporaryDirectory() as folder:
        context = Context.of(recipe, Path(folder), shipped_worlds(), Silent())
        path = context.model(stage.inputs.model)
        rows = training_comparisons(context, stage.inputs.comparisons)
    fold = np.random.default_rng(0).permutation(len({row.group_key for row in rows})) % given.folds
    groups = {key: int(k) for key, k in zip(sorted({row.group_key for row in rows}), fold, strict=True)}
    for rate in given.learning_rates:
        for epochs in given.epochs:
            optimization = replace(stage.config.optimization, learning_rate=rate)
            seen = np.zeros((len(given.seeds), len(rows)))
            for s, seed in enumerate(given.seeds):
                config = replace(stage.config, optimization=optimization, epochs=epochs, seed=seed)
                for k in range(given.folds):
                    judged = [i for i, row in enumerate(rows) if groups[row.group_key] == k]
                    learnt = [row for row in rows if groups[row.group_key] != k]
                    seen[s, judged] = correct(path, stage.inputs, config, learnt, [rows[i] for i in judged])
            accuracy = bootstrap_mean(seen.mean(0), [row.group_key for row in rows])
            line = {"stage": given.stage, "learning_rate": rate, "epochs": epochs, "folds": given.folds}
            line |= {"by_seed": seen.mean(1).round(4).tolist(), "accuracy": accuracy.as_json()}
            print(json.dumps(line), flush=True)
            if given.out is not None:
                with given.out.open("a") as file:
                    file.write(json.dumps(line) + "\n")


def correct(
    path: str, inputs: RewardInputs, config: RewardModelConfig, learnt: Sequence[Comparison], judged: list[Comparison]
) -> NDArray[np.float64]:
    """Train on `learnt`; 1 for each pair of `judged` whose chosen side scores higher, ½ for a tie."""
    roles = reward_roles(path, lora=inputs.lora, dtype=inputs.base_dtype, seed=config.seed)
    role = roles.reward
    assert role is not None
    tokenizer = load_tokenizer(path, needs_end=role.head is not None)
    groups = group_pairs(learnt, role, tokenizer, config.max_tokens)
    steps = config.num_steps(len(groups))
    engine = LocalEngine(
        roles,
        tokenizer,
        optimization=config.optimization,
        total_steps=steps,
        tokens_per_microbatch=inputs.tokens_per_microbatch,
    )
    learner = RewardModel(engine, groups, config)
    for _ in range(steps):
        learner.step()
    reward = LearnedReward(role, tokenizer, max_tokens=config.max_tokens)
    prompts = [c.prompt for c in judged]
    sides = [reward.raw(prompts, [Completion(getattr(c, side)) for c in judged]) for side in ("chosen", "rejected")]
    return wins((sides[0] - sides[1]).cpu().numpy())


if __name__ == "__main__":
    main()
