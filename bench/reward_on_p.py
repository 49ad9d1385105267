"""What a reward model gains when it is trained on the consensus's p and not on majority votes.

    python bench/reward_on_p.py [--seeds 8] [--prompts 800] [--test-prompts 400] [--json]

The demo world, where the true reward of every answer is known. The base answers `--prompts` prompts four times; ten
labelers, eight careful, one who ranks at random and one upside down, give three rankings to each item. From the same
judgments come three sets of training pairs: `p`, the reliability-weighted consensus with p as the label; `majority`,
the side with more votes, as if sure; and `share`, the same side with (votes + 1) / (n + 2) as the label, which is as
soft as p and knows nothing of who said it. Each trains the demo's reward stage (recipes/demo.toml) from the same
initial weights, on the same prompts in the same order for as many steps.

Judged is the share of pairs of answers to held-out prompts that a model puts in their true order: by what labelers were
after (V), and by what an answer is worth (U), which leaves out the flattery that all labelers like. No label takes part
in that. A seed draws who is who, who judges what, and the noise; answers and initial weights stay. The interval is that
of Student's t over the seeds' paired differences, and is asked to leave 0 out for `p` less `majority` by V.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from tuneful.algorithms.reward_model import RewardModel, RewardModelConfig, group_pairs
from tuneful.data.completions import with_ids
from tuneful.demo.labelers import Kind, simulate
from tuneful.demo.run import shipped_worlds
from tuneful.demo.utility import labelers_utility, true_utility
from tuneful.engines.local import LocalEngine
from tuneful.evaluation.intervals import wins
from tuneful.feedback.baselines import vote_shares
from tuneful.feedback.consensus import consensus
from tuneful.feedback.export import agreed_comparisons
from tuneful.generation.sampling import Sampling
from tuneful.models.loading import load_tokenizer
from tuneful.models.roles import reward_roles
from tuneful.pipeline.answers import stage_answers
from tuneful.pipeline.context import Context, Silent
from tuneful.pipeline.learner_inputs import RewardInputs
from tuneful.pipeline.recipe import load_recipe
from tuneful.records import Candidates, Comparison, Judgment
from tuneful.rewards.learned import LearnedReward
from tuneful.rollouts.collect import candidates_of

RECIPE: Final = Path(__file__).parent.parent / "recipes" / "demo.toml"

POPULATION: Final[tuple[Kind, ...]] = (*8 * ("careful",), "random", "upside-down")
"""20 % bad, half of them random and half inverted."""

RANKINGS: Final = 3
"""Of each item, by three of the labelers."""

SAMPLES: Final = 4

ARMS: Final = ("p", "majority", "share")
TRUTHS: Final = {"V": labelers_utility, "U": true_utility}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8, help="of the labels")
    parser.add_argument("--prompts", type=int, default=800)
    parser.add_argument("--test-prompts", type=int, default=400)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    began = time.perf_counter()
    stage = next(stage for stage in load_recipe(RECIPE).stages if stage.name == "reward")
    base, learnt, judged = _answered(given.prompts, given.test_prompts)
    test = HeldOut.of(judged)
    rows = []
    for seed in range(given.seeds):
        said = simulate(learnt, labelers_per_item=RANKINGS, seed=seed, population=POPULATION).judgments
        row: dict[str, Any] = {"seed": seed}
        for arm, comparisons in pairs(said, learnt).items():
            row[arm] = test.accuracy(train(base, stage.inputs, stage.config, comparisons))
        rows.append(row)
        print(f"seed {seed}   " + "   ".join(f"{arm} {row[arm]['V']:.4f}" for arm in ARMS), flush=True)
    result = {"bench": "reward_on_p", "prompts": given.prompts, "test_pairs": test.num_pairs, "seeds": rows}
    result |= {"differences": differences(rows), "seconds": round(time.perf_counter() - began)}
    result["passed"] = result["differences"]["p - majority"]["V"]["interval"][0] > 0
    print("\n".join(table(result)))
    if given.json:
        print(json.dumps(result))


def _answered(num_prompts: int, num_test: int) -> tuple[str, list[Candidates], list[Candidates]]:
    """The base's directory, and its answers to prompts to learn from and to held-out ones."""
    with tempfile.TemporaryDirectory() as folder:
        context = Context.of(load_recipe(RECIPE), Path(folder), shipped_worlds(), Silent())
        splits = context.prompts("demo:prompts")
        found = []
        for number, prompts in enumerate(
            (splits.read("reward", purpose="train")[:num_prompts], splits.read("test", purpose="report")[:num_test])
        ):
            sampling = Sampling(num_samples=SAMPLES, max_new_tokens=48)
            rollout = stage_answers(context, "demo:base", prompts, sampling, seed=number, dtype="float32")
            found.append(list(with_ids(candidates_of(prompts, rollout, "demo:base"))))
        return context.model("demo:base"), found[0], found[1]


def pairs(said: Sequence[Judgment], items: Sequence[Candidates]) -> dict[str, list[Comparison]]:
    """The comparisons of each arm, from the same judgments and in the same order of items."""
    texts = {one.id: (item.prompt, one.text) for item in items for one in item.completions}
    counted: dict[str, list[Comparison]] = {"majority": [], "share": []}
    for share in vote_shares(said):
        if share.majority is None:
            continue
        chosen, rejected = sorted((share.first, share.second), key=lambda one: one != share.majority)
        (prompt, better), (_, worse) = texts[chosen], texts[rejected]
        if better == worse:
            continue
        for arm, p in (("majority", 1.0), ("share", max(share.p, 1 - share.p))):
            counted[arm].append(Comparison(prompt, better, worse, p=p, group=share.item))
    return {"p": agreed_comparisons(consensus(said), items)} | counted


def train(
    base: str, inputs: RewardInputs, config: RewardModelConfig, comparisons: Sequence[Comparison]
) -> LearnedReward:
    """The reward model of these comparisons; weights, order and steps depend on the recipe's seed alone."""
    roles = reward_roles(base, lora=inputs.lora, dtype=inputs.base_dtype, seed=config.seed)
    role = roles.reward
    assert role is not None
    tokenizer = load_tokenizer(base, needs_end=True)
    groups = group_pairs(comparisons, role, tokenizer, config.max_tokens)
    steps = config.num_steps(len(groups))
    engine = LocalEngine(
        roles,
        tokenizer,
        optimization=config.optimization.within(steps),
        total_steps=steps,
        tokens_per_microbatch=inputs.tokens_per_microbatch,
    )
    learner = RewardModel(engine, groups, config)
    for _ in range(steps):
        learner.step()
    return LearnedReward(role, tokenizer, max_tokens=config.max_tokens)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Answers to held-out prompts, and the true differences of the pairs of answers to one prompt.

    first, second: int [P], numbers of answers. truth: float [P] by name of the truth.
    """

    items: Sequence[Candidates]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    truth: Mapping[str, NDArray[np.float64]]

    @classmethod
    def of(cls, items: Sequence[Candidates]) -> HeldOut:
        sizes = [len(item.completions) for item in items]
        starts = np.cumsum([0, *sizes[:-1]])
        places = [start + np.array(np.triu_indices(size, 1)) for start, size in zip(starts, sizes, strict=True)]
        first, second = np.concatenate(places, axis=1)
        worth = {
            name: np.array([truth(item.prompt, one.text) for item in items for one in item.completions])
            for name, truth in TRUTHS.items()
        }
        return cls(items, first, second, {name: all_[first] - all_[second] for name, all_ in worth.items()})

    @property
    def num_pairs(self) -> dict[str, int]:
        """Pairs that differ in truth; the others have no order."""
        return {name: int(np.count_nonzero(truth)) for name, truth in self.truth.items()}

    def accuracy(self, reward: LearnedReward) -> dict[str, float]:
        """Share of the pairs that differ in truth whose better side scores higher, ties one half."""
        asked = [(item.prompt, one) for item in self.items for one in item.completions]
        scores = reward.raw([prompt for prompt, _ in asked], [one for _, one in asked]).cpu().numpy()
        lead = scores[self.first] - scores[self.second]
        return {name: float(wins((lead * np.sign(truth))[truth != 0]).mean()) for name, truth in self.truth.items()}


def differences(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """`p` less each other arm, by each truth."""
    return {
        f"p - {arm}": {
            name: mean_difference([row["p"][name] for row in rows], [row[arm][name] for row in rows]) for name in TRUTHS
        }
        for arm in ARMS[1:]
    }


def mean_difference(ours: Sequence[float], theirs: Sequence[float], *, level: float = 0.95) -> dict[str, Any]:
    """Mean of the paired differences with Student's t interval over the pairs."""
    each = [a - b for a, b in zip(ours, theirs, strict=True)]
    mean = fmean(each)
    half = float(t.ppf((1 + level) / 2, len(each) - 1)) * stdev(each) / math.sqrt(len(each))
    return {"mean": mean, "interval": [mean - half, mean + half], "n": len(each)}


def table(result: Mapping[str, Any]) -> list[str]:
    """A line for each arm and each difference."""
    lines = [
        f"{arm:<14} " + "   ".join(f"{name} {fmean(row[arm][name] for row in result['seeds']):.4f}" for name in TRUTHS)
        for arm in ARMS
    ]
    for name, found in result["differences"].items():
        told = [
            f"{truth} {one['mean']:+.4f} [{one['interval'][0]:+.4f}, {one['interval'][1]:+.4f}]"
            for truth, one in found.items()
        ]
        lines.append(f"{name:<14} " + "   ".join(told))
    asked = f"p - majority by V leaves 0 out: {'pass' if result['passed'] else 'FAIL'}"
    return [*lines, f"{asked}   ({result['test_pairs']['V']} pairs by V, {result['seconds']} s)"]


if __name__ == "__main__":
    main()
