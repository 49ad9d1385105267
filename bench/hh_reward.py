"""Our reward models on real preferences beside TRL's: same starting weights, rows, ids and budget.

    tuneful run recipes/hh_small.toml --seed 0 --out runs/hh-0      # and 1, 2
    python bench/hh_reward.py runs/hh-0 runs/hh-1 runs/hh-2 --out runs/hh-trl [--json]
    python bench/hh_reward.py ... --recipe recipes/hh_small_minilm.toml --stage minilm

For each run a TRL RewardTrainer is trained with the run's seed on the token ids that our reward stage saw, with its
learning rate, schedule, batch and epochs. Both are judged on the held-out pairs. Needs `pip install 'tuneful[dev]'`.
TRL gives an encoder no segment ids; the reward models it trains are scored by ours, which does.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tuneful.algorithms.reward_model import RewardModelConfig
from tuneful.demo.run import shipped_worlds
from tuneful.evaluation.intervals import Measured, bootstrap_mean, paired_difference, wins
from tuneful.evaluation.reward_accuracy import length_matched
from tuneful.models.loading import load_scorer
from tuneful.pipeline.context import Context, Silent
from tuneful.pipeline.learner_inputs import RewardInputs
from tuneful.pipeline.recipe import load_recipe
from tuneful.pipeline.rows import held_out_comparisons, training_comparisons
from tuneful.records import Comparison, Completion
from tuneful.rewards.learned import LearnedReward

RECIPE = Path(__file__).parents[1] / "recipes" / "hh_small.toml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--stage", default="reward")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    recipe = load_recipe(given.recipe)
    stage = next(stage for stage in recipe.stages if stage.name == given.stage)
    context = Context.of(recipe, given.out, shipped_worlds(), Silent())
    test = held_out_comparisons(context, stage.inputs.test)
    training = training_comparisons(context, stage.inputs.comparisons)

    ours, theirs = [], []
    for run in given.runs:
        seed = json.loads((run / "run.json").read_text())["recipe"]["seed"]
        reward = LearnedReward.load(run / given.stage / "model")
        ours.append(correct(reward, test))
        path = given.out / given.stage / f"seed-{seed}"
        if not (path / "config.json").exists():
            train_with_trl(reward, training, stage.inputs, stage.config, seed=seed, out=path)
        theirs.append(correct(LearnedReward.load(path), test))
    result = compare(np.stack(ours), np.stack(theirs), test)
    for name, value in result.items():
        print(f"{name:<32} {_show(value)}")
    if given.json:
        print(json.dumps(result))


def train_with_trl(
    reward: LearnedReward,
    training: list[Comparison],
    inputs: RewardInputs,
    config: RewardModelConfig,
    *,
    seed: int,
    out: Path,
) -> None:
    """A reward model by TRL's trainer from the model that ours started from, saved at `out`."""
    warnings.simplefilter("ignore")
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    rows: dict[str, list[list[int]]] = {"chosen_ids": [], "rejected_ids": []}
    for pair in training:
        for side, text in (("chosen_ids", pair.chosen), ("rejected_ids", pair.rejected)):
            prompt, completion = reward.encode(pair.prompt, Completion(text))
            rows[side].append([*prompt, *completion])
    base = json.loads((Path(str(reward.role.model.name_or_path)) / "reward.json").read_text())["base"]
    settings = config.optimization
    arguments = RewardConfig(
        output_dir=str(out),
        seed=seed,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup_steps,
        adam_epsilon=settings.adam_eps,
        weight_decay=settings.weight_decay,
        max_grad_norm=config.max_grad_norm,
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.prompts_per_step,
        max_length=config.max_tokens,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=not torch.cuda.is_available(),
        save_strategy="no",
        report_to="none",
        logging_steps=10,
    )
    model = load_scorer(base, seed=seed)
    trainer = RewardTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_dict(rows), processing_class=reward.tokenizer
    )
    trainer.train()
    trainer.save_model(str(out))


def correct(reward: LearnedReward, test: list[Comparison]) -> NDArray[np.float64]:
    """1 where the chosen side scores higher, ½ for a tie, [P]."""
    prompts = [c.prompt for c in test]
    chosen = reward.raw(prompts, [Completion(c.chosen) for c in test])
    rejected = reward.raw(prompts, [Completion(c.rejected) for c in test])
    return wins((chosen - rejected).cpu().numpy())


def compare(ours: NDArray[np.float64], theirs: NDArray[np.float64], test: list[Comparison]) -> dict[str, Any]:
    """Seed means [S, P] -> accuracies and paired differences, with bootstrap intervals over prompts."""
    lengths = np.array([[len(c.chosen.split()), len(c.rejected.split())] for c in test])
    shorter = wins(lengths[:, 1] - lengths[:, 0])
    matched = length_matched(lengths[:, 0], lengths[:, 1])
    groups = [c.prompt.id for c in test]
    mean, mean_of_theirs = ours.mean(0), theirs.mean(0)
    difference = paired_difference(mean, mean_of_theirs, groups)
    matched_groups = [g for g, inside in zip(groups, matched, strict=True) if inside]
    return {
        "pairs": len(test),
        "ours_by_seed": ours.mean(1).round(4).tolist(),
        "trl_by_seed": theirs.mean(1).round(4).tolist(),
        "ours": bootstrap_mean(mean, groups).as_json(),
        "trl": bootstrap_mean(mean_of_theirs, groups).as_json(),
        "shorter_wins": bootstrap_mean(shorter, groups).as_json(),
        "longer_wins": bootstrap_mean(1 - shorter, groups).as_json(),
        "ours_above_shorter_wins": paired_difference(mean, shorter, groups).as_json(),
        "ours_above_trl": difference.as_json(),
        "standard_errors_below_trl": -difference.mean / _standard_error(difference),
        "ours_length_matched": bootstrap_mean(mean[matched], matched_groups).as_json(),
        "trl_length_matched": bootstrap_mean(mean_of_theirs[matched], matched_groups).as_json(),
    }


def _standard_error(measured: Measured) -> float:
    return (measured.high - measured.low) / (2 * 1.96)


def _show(value: Any) -> str:
    if isinstance(value, dict):
        low, high = value["interval"]
        return f"{value['mean']:.3f} [{low:.3f}, {high:.3f}] (n {value['n']})"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
