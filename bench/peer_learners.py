"""PPO, RLOO, GRPO and DPO beside TRL's in the demo world: what is learned, for how much KL, samples and time.

    python bench/peer_learners.py --out runs/peer --trl trl-1.12 --search        # seed 100, dev prompts
    python bench/peer_learners.py --out runs/peer --trl trl-1.12 [--seeds 3]     # with what the search found

PPO is that of TRL 1.12.0, the last release that has it, in the folder --trl; the others are of the TRL installed. Both
sides begin with `demo:base`, are given the same reward model or the same pairs, the same number of completions, epochs
and minibatches, and the same search: three learning rates by two leashes (`SEARCH`), one seed, judged on dev prompts by
true utility. Then seeds that were not searched with. Answers, consensus and reward model are made once, by the first
stages of recipes/demo_learners.toml. PPO's values are a model of their own on both sides. DPO of ours reads the
consensus's p, as it is made to; TRL's knows sides alone.

At first often (`EARLY`), then every ten steps either side's policy answers 100 dev prompts by our sampler, outside of
what is timed: the curve of true utility over KL, samples and seconds. In the end it answers 200 prompts, four times
each. Every run is a process of its own and a line in `OUT/peer.jsonl`; what is there is not run again. Told, for each
method, are the true utility that both reach, and its difference with its interval (Welch's t over seeds) at equal
samples, in the end; at equal seconds, those of the faster side; and at equal KL, the best of each curve within so many
nats (`NATS`). Also the seconds of training after which the rest of our curve is at what the peer ends with (`LAST`),
and after which it is not below that beyond the interval, both over the peer's seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
from demo_learners import RECIPE, SHARED, keep, lines, run, stages

METHODS = ("ppo", "rloo", "grpo", "dpo")
SIDES = ("ours", "trl")
STEPS, COMPLETIONS, GROUP, NEW_TOKENS = 110, 64, 4, 48
EPOCHS, MINIBATCHES = 2, 2
EVERY = 10
EARLY = (1, 2, 3, 4, 6, 8)
"""Steps after which a policy is looked at besides."""
LAST = 3
"""Points of a curve whose mean is its end; one alone is of 100 answers."""
SEARCH_SEED = 100
NATS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
SEARCH: dict[str, tuple[tuple[float, ...], tuple[float, float]]] = {
    "ppo": ((1e-4, 3e-4, 1e-3), (0.1, 0.3)),
    "rloo": ((1e-4, 3e-4, 1e-3), (0.1, 0.3)),
    "grpo": ((1e-4, 3e-4, 1e-3), (0.1, 0.3)),
    "dpo": ((1e-4, 3e-4, 1e-3), (0.03, 0.1)),
}
"""Learning rates, and what holds the policy back: the KL coefficient, or beta of DPO."""


Curve = list[dict[str, float]]
"""Points of a run: {"samples", "seconds", "kl", "utility"}."""


@dataclass(frozen=True)
class Job:
    """One training of one side. learning_rate, leash: see SEARCH."""

    side: str
    method: str
    seed: int
    learning_rate: float
    leash: float

    @property
    def key(self) -> tuple[Any, ...]:
        return (self.side, self.method, self.seed, self.learning_rate, self.leash)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trl", type=Path, required=True, help="the folder that holds TRL 1.12.0")
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--steps", type=int, default=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.job:
        print(json.dumps(train(Job(**json.loads(given.job)), given)))
        return
    by_name = stages()
    run(given.out / "shared", [by_name[name] for name in SHARED], SEARCH_SEED)
    results = given.out / "peer.jsonl"
    for method in given.only:
        for job in jobs(method, results, given):
            if job.key not in {tuple(line["key"]) for line in lines(results)}:
                measure(job, results, given)
    if given.search:
        return
    table = {method: compared(method, lines(results)) for method in given.only}
    if given.json:
        print(json.dumps({"bench": "peer_learners", "seeds": given.seeds, **table}))
        return
    for method, row in table.items():
        reached, near = (
            "never" if row[name] is None else f"after {row[name]:.2f} of them"
            for name in ("time_to_reach", "time_to_come_near")
        )
        print(
            f"{method:<5} ours {row['ours']:+.3f} (KL {row['ours_kl']:.2f}), TRL {row['trl']:+.3f} (KL "
            f"{row['trl_kl']:.2f}); seconds {row['seconds']:.2f} of TRL's, its end reached {reached}, within the "
            f"interval {near}"
        )
        at = {"samples": row["difference"], "seconds": row["at_equal_seconds"]}
        at |= {f"{nats:g} nats": of for nats, of in row["frontier"].items()}
        for name, of in at.items():
            low, high = of["interval"]
            print(f"      ours less TRL's at equal {name}: {of['mean']:+.3f} [{low:+.3f}, {high:+.3f}]")


def jobs(method: str, results: Path, given: argparse.Namespace) -> list[Job]:
    """What is to be run for a method: the search, or seeds with what it found, the sides in turn."""
    rates, leashes = SEARCH[method]
    if given.search:
        return [Job(side, method, SEARCH_SEED, lr, leash) for lr in rates for leash in leashes for side in SIDES]
    best = {side: found(side, method, lines(results)) for side in SIDES}
    return [Job(side, method, seed, *best[side]) for seed in range(given.seeds) for side in SIDES]


def found(side: str, method: str, kept: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Learning rate and leash that reached the highest true utility on dev prompts in the search."""
    own = [line for line in kept if line["key"][:3] == [side, method, SEARCH_SEED]]
    if len(own) < 6:
        raise SystemExit(f"{method}, {side}: {len(own)} of 6 runs of the search are there; run --search first")
    _, _, _, rate, leash = max(own, key=lambda line: line["dev"])["key"]
    return rate, leash


def measure(job: Job, results: Path, given: argparse.Namespace) -> None:
    """Train in a process of its own and keep the line."""
    own = ["--out", str(given.out), "--trl", str(given.trl), "--steps", str(given.steps)]
    command = [sys.executable, __file__, *own, "--job", json.dumps(job.__dict__)]
    ran = subprocess.run(command, capture_output=True, check=False, text=True)
    if ran.returncode:
        raise SystemExit(f"{job} failed:\n{ran.stderr[-3000:]}")
    line = {"key": list(job.key), **json.loads(ran.stdout.strip().splitlines()[-1])}
    keep(results, line)
    print(
        f"{job} test {line['test']:+.3f} dev {line['dev']:+.3f} KL {line['kl']:.2f} {line['seconds']:.0f} s", flush=True
    )


def compared(method: str, kept: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Both sides over the seeds that were not searched with, each with what its search found, not an earlier one."""
    own: dict[str, list[dict[str, Any]]] = {}
    for side in SIDES:
        best = found(side, method, kept)
        runs = [line for line in kept if line["key"][:2] == [side, method] and line["key"][2] != SEARCH_SEED]
        own[side] = [line for line in runs if tuple(line["key"][3:]) == best]
    curves = {side: [line["curve"] for line in of] for side, of in own.items()}
    test = {side: [line["test"] for line in of] for side, of in own.items()}
    seconds = {side: statistics.mean(line["seconds"] for line in of) for side, of in own.items()}
    short = min(seconds.values())
    ends = [statistics.mean(point["utility"] for point in curve[-LAST:]) for curve in curves["trl"]]
    rests = [{"ours": rest, "trl": ends} for rest in held(curves["ours"])]
    after = [statistics.mean(point["seconds"] for point in points) for points in zip(*curves["ours"], strict=True)]
    reached = [at for at, of in zip(after, rests, strict=True) if difference(of)["mean"] >= 0]
    near = [at for at, of in zip(after, rests, strict=True) if difference(of)["interval"][1] >= 0]
    shared = [nats for nats in NATS if nats <= min(curve[-1]["kl"] for of in curves.values() for curve in of)]
    return {
        **{side: statistics.mean(of) for side, of in test.items()},
        **{f"{side}_kl": statistics.mean(line["kl"] for line in of) for side, of in own.items()},
        "difference": difference(test),
        "at_equal_seconds": difference(
            {side: [in_seconds(curve, short) for curve in of] for side, of in curves.items()}
        ),
        "frontier": {
            nats: difference({side: [within(curve, nats) for curve in of] for side, of in curves.items()})
            for nats in shared
        },
        "seconds": seconds["ours"] / seconds["trl"],
        "time_to_reach": reached[0] / seconds["trl"] if reached else None,
        "time_to_come_near": near[0] / seconds["trl"] if near else None,
    }


def difference(of: dict[str, list[float]]) -> dict[str, Any]:
    """{"mean", "interval"}: ours less the peer's, a number a seed, by Welch's t."""
    interval = scipy.stats.ttest_ind(of["ours"], of["trl"], equal_var=False).confidence_interval()
    mean = statistics.mean(of["ours"]) - statistics.mean(of["trl"])
    return {"mean": mean, "interval": [float(interval.low), float(interval.high)]}


def within(curve: Curve, nats: float) -> float:
    """The highest utility of a curve at no more KL than `nats`, between two points in proportion."""
    heights = [point["utility"] for point in curve if point["kl"] <= nats]
    for one, other in pairwise(curve):
        near, far = sorted((one, other), key=lambda point: point["kl"])
        if near["kl"] <= nats < far["kl"]:
            share = (nats - near["kl"]) / (far["kl"] - near["kl"])
            heights.append(near["utility"] + share * (far["utility"] - near["utility"]))
    return max(heights)


def in_seconds(curve: Curve, seconds: float) -> float:
    """The utility after so many seconds of training, between two points in proportion."""
    return float(np.interp(seconds, [p["seconds"] for p in curve], [p["utility"] for p in curve]))


def held(curves: Sequence[Curve]) -> Iterator[list[float]]:
    """For each point, by seed, the mean of the utilities from there on: a first point above would be the luckiest."""
    for at in range(len(curves[0])):
        yield [statistics.mean(point["utility"] for point in curve[at:]) for curve in curves]


@dataclass
class Ground:
    """What both sides are given, and how their policies are judged."""

    out: Path
    seed: int
    curve: list[dict[str, float]] = field(default_factory=list)
    spent: float = 0.0
    """Seconds of training so far."""
    _since: float = 0.0

    @cached_property
    def context(self) -> Any:
        from tuneful.demo.run import shipped_worlds
        from tuneful.pipeline.context import Context, Silent
        from tuneful.pipeline.recipe import load_recipe

        recipe = load_recipe(RECIPE, seed=SEARCH_SEED)
        return Context.of(recipe, self.out / "shared", shipped_worlds(), Silent())

    @cached_property
    def base(self) -> str:
        path: str = self.context.model("demo:base")
        return path

    @cached_property
    def tokenizer(self) -> Any:
        from tuneful.models.loading import load_tokenizer

        return load_tokenizer(self.base)

    @cached_property
    def reference(self) -> Any:
        from tuneful.models.loading import load_language_model
        from tuneful.models.roles import Role

        return Role("reference", load_language_model(self.base))

    @cached_property
    def reward(self) -> Any:
        from tuneful.rewards.learned import LearnedReward

        return LearnedReward.load(self.out / "shared" / "reward" / "model")

    def prompts(self, split: str, purpose: str) -> list[Any]:
        found: list[Any] = self.context.prompts("demo:prompts").read(split, purpose=purpose, stage="peer")
        return found

    def pairs(self) -> list[Any]:
        from tuneful.pipeline.rows import training_comparisons

        pairs: list[Any] = training_comparisons(self.context, "@consensus", stage="peer")
        return pairs

    def start(self) -> None:
        """The clock of training runs from here."""
        self._since = time.perf_counter()

    def pause(self) -> None:
        self.spent += time.perf_counter() - self._since

    def look(self, policy: Any, samples: int) -> None:
        """A point of the curve; the clock stands meanwhile."""
        self.pause()
        utility, kl = self.judged(policy, self.prompts("dev", "stop")[:100], 1)
        self.curve.append({"samples": samples, "seconds": self.spent, "kl": kl, "utility": utility})
        self.start()

    def judged(self, policy: Any, prompts: list[Any], samples: int) -> tuple[float, float]:
        """Mean true utility of a policy's answers, and its KL from the base in nats per answer."""
        from tuneful.engines.local import LocalEngine
        from tuneful.generation.sampling import Sampling
        from tuneful.models.roles import Role, Roles

        training = policy.training
        policy.eval()
        engine = LocalEngine(Roles(policy=Role("policy", policy), reference=self.reference), self.tokenizer)
        rollout = engine.sample(prompts, Sampling(num_samples=samples, max_new_tokens=NEW_TOKENS), seed=self.seed)
        kl, _ = engine.kl(rollout)
        policy.train(training)
        utility = self.context.measure("demo:true_utility")
        rows = zip(rollout.group.tolist(), rollout.texts, strict=True)
        return statistics.mean(utility(prompts[g], text) for g, text in rows), float(kl.mean())

    def ended(self, policy: Any) -> dict[str, Any]:
        """What a run has to tell."""
        test, kl = self.judged(policy, self.prompts("test", "report")[:200], 4)
        dev, _ = self.judged(policy, self.prompts("dev", "stop")[:100], 4)
        return {"test": test, "dev": dev, "kl": kl, "seconds": self.spent, "curve": self.curve}


def train(job: Job, given: argparse.Namespace) -> dict[str, Any]:
    if job.side == "trl" and job.method == "ppo":
        sys.path.insert(0, str(given.trl.resolve()))
    ground = Ground(given.out, job.seed)
    if job.side == "ours":
        return ours(job, ground, given.steps)
    sides: dict[str, Callable[..., Any]] = {"ppo": trl_ppo, "rloo": trl_group, "grpo": trl_group, "dpo": trl_dpo}
    with tempfile.TemporaryDirectory() as folder:
        return ground.ended(sides[job.method](job, ground, given.steps, folder))


def ours(job: Job, ground: Ground, steps: int) -> dict[str, Any]:
    from tuneful.algorithms.dpo import DPO, DPOConfig
    from tuneful.algorithms.grpo import GRPO, GRPOConfig
    from tuneful.algorithms.ppo import PPO, PPOConfig
    from tuneful.algorithms.reinforce import Reinforce, RLOOConfig
    from tuneful.engines.local import LocalEngine
    from tuneful.engines.optimization import Optimization
    from tuneful.models.roles import policy_roles

    optimization = Optimization(learning_rate=job.learning_rate)
    sampled: dict[str, Any] = {
        "num_steps": steps,
        "max_new_tokens": NEW_TOKENS,
        "kl_coef": job.leash,
        "epochs": EPOCHS,
        "minibatches": MINIBATCHES,
        "optimization": optimization,
        "seed": job.seed,
    }
    grouped = sampled | {"prompts_per_step": COMPLETIONS // GROUP, "samples_per_prompt": GROUP}
    roles = policy_roles(ground.base, value="model" if job.method == "ppo" else None, seed=job.seed)
    assert roles.policy is not None
    learner: Any
    if job.method == "dpo":
        pairs = ground.pairs()
        config: Any = DPOConfig(beta=job.leash, optimization=optimization, seed=job.seed)
        steps = config.num_steps(len(pairs))
        engine = LocalEngine(roles, ground.tokenizer, optimization=optimization, total_steps=steps)
        ground.start()
        learner = DPO(engine, pairs, config, ground.tokenizer)
    else:
        made: dict[str, tuple[type, Any]] = {
            "ppo": (PPO, PPOConfig(**sampled, prompts_per_step=COMPLETIONS)),
            "rloo": (Reinforce, RLOOConfig(**grouped)),
            "grpo": (GRPO, GRPOConfig(**grouped)),
        }
        learn, config = made[job.method]
        engine = LocalEngine(roles, ground.tokenizer, optimization=optimization, total_steps=config.updates)
        ground.start()
        learner = learn(engine, ground.prompts("rl", "train"), ground.reward, config)
    drawn = 0 if job.method == "dpo" else COMPLETIONS
    ground.look(roles.policy.model, 0)
    for step in range(1, steps + 1):
        learner.step()
        if due(step, steps):
            ground.look(roles.policy.model, step * drawn)
    ground.pause()
    return ground.ended(roles.policy.model)


def trl_settings(job: Job, folder: str) -> dict[str, Any]:
    """What all trainers of the peer are told."""
    return {
        "output_dir": folder,
        "learning_rate": job.learning_rate,
        "lr_scheduler_type": "linear",
        "adam_epsilon": 1e-5,
        "max_grad_norm": 1.0,
        "seed": job.seed,
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "eval_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
    }


def due(step: int, steps: int) -> bool:
    """Whether the policy is looked at after this step of so many."""
    return step in EARLY or step % EVERY == 0 or step == steps


def watching(ground: Ground, policy: Any, of_step: int, completions: int) -> Any:
    """A callback that starts the clock and looks at the policy.

    of_step: optimizer steps of a step, which draws so many completions.
    """
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            ground.start()
            ground.look(policy, 0)

        def on_step_end(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
            step, within_step = divmod(state.global_step, of_step)
            if not within_step and due(step, state.max_steps // of_step):
                ground.look(policy, step * completions)

        def on_train_end(self, *_: Any, **__: Any) -> None:
            ground.pause()

    return Watch()


def trl_ppo(job: Job, ground: Ground, steps: int, folder: str) -> Any:
    import torch
    from datasets import Dataset
    from ppo import accumulate
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    from tuneful.data.batching import shuffled_batches
    from tuneful.data.templates import prompt_ids
    from tuneful.models.loading import load_scorer

    torch.manual_seed(job.seed)
    policy: Any = AutoModelForCausalLM.from_pretrained(ground.base, dtype=torch.float32)
    reference: Any = AutoModelForCausalLM.from_pretrained(ground.base, dtype=torch.float32)
    value: Any = AutoModelForSequenceClassification.from_pretrained(ground.base, num_labels=1, dtype=torch.float32)
    torch.nn.init.zeros_(value.score.weight)  # as ours begins
    scored = ppo_trainer.get_reward

    def normalised(model: Any, rows: Any, pad: int, context: int) -> Any:
        logits, scores, lengths = scored(model, rows, pad, context)
        if model is trainer.reward_model:
            scores = ground.reward.gain * scores + ground.reward.bias
        return logits, scores, lengths

    ppo_trainer.get_reward = normalised
    prompts = ground.prompts("rl", "train")
    batch = shuffled_batches(len(prompts), COMPLETIONS, job.seed)
    asked = [prompts[k] for step in range(steps) for k in batch(step)]
    ids = [prompt_ids(prompt, ground.tokenizer, max_tokens=None) for prompt in asked]
    trainer = PPOTrainer(
        args=PPOConfig(
            **trl_settings(job, folder),
            per_device_train_batch_size=COMPLETIONS // MINIBATCHES,
            gradient_accumulation_steps=MINIBATCHES,
            local_rollout_forward_batch_size=COMPLETIONS,
            num_mini_batches=MINIBATCHES,
            num_ppo_epochs=EPOCHS,
            total_episodes=COMPLETIONS * steps,
            response_length=NEW_TOKENS,
            temperature=1.0,
            missing_eos_penalty=1.0,
            stop_token="eos",
            num_sample_generations=0,
            kl_coef=job.leash,
        ),
        processing_class=AutoTokenizer.from_pretrained(ground.base, padding_side="left"),
        model=policy,
        ref_model=reference,
        reward_model=load_scorer(ground.out / "shared" / "reward" / "model"),
        value_model=value,
        train_dataset=Dataset.from_dict({"input_ids": ids}),
        eval_dataset=Dataset.from_dict({"input_ids": ids[:2]}),
        callbacks=[watching(ground, policy, 1, COMPLETIONS)],
    )
    accumulate(trainer.accelerator, 1)
    trainer.train()
    return policy


def trl_group(job: Job, ground: Ground, steps: int, folder: str) -> Any:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    from tuneful.data.templates import prompt_ids
    from tuneful.records import Completion
    from tuneful.rewards.reward import checked, penalise_missing_end

    torch.manual_seed(job.seed)
    tokenizer = AutoTokenizer.from_pretrained(ground.base, padding_side="left")
    policy: Any = AutoModelForCausalLM.from_pretrained(ground.base, dtype=torch.float32)
    prompts = {}
    for prompt in ground.prompts("rl", "train"):
        own = prompt_ids(prompt, ground.tokenizer, max_tokens=None)
        text = tokenizer.decode(own, clean_up_tokenization_spaces=False)
        text = text if tokenizer(text)["input_ids"] == own else text.removeprefix(tokenizer.bos_token)
        assert tokenizer(text)["input_ids"] == own, text
        prompts[text] = prompt

    def reward(prompts_: list[str], completion_ids: list[list[int]]) -> list[float]:
        asked = [prompts[text] for text in prompts_]
        answers = [
            Completion(
                ground.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False),
                tuple(ids),
                "eos" if ids and ids[-1] == tokenizer.eos_token_id else "length",
            )
            for ids in completion_ids
        ]
        scores: list[float] = penalise_missing_end(checked(ground.reward, asked, answers), answers, 1.0).tolist()
        return scores

    settings = trl_settings(job, folder) | {
        "num_generations": GROUP,
        "per_device_train_batch_size": COMPLETIONS // MINIBATCHES,
        "gradient_accumulation_steps": 1,
        "steps_per_generation": MINIBATCHES,
        "num_iterations": EPOCHS,
        "max_steps": steps * EPOCHS * MINIBATCHES,
        "max_completion_length": NEW_TOKENS,
        "temperature": 1.0,
        "beta": job.leash,
        "epsilon": 0.2,
    }
    config, trainer = (GRPOConfig, GRPOTrainer) if job.method == "grpo" else (RLOOConfig, RLOOTrainer)
    trainer(
        model=policy,
        reward_funcs=lambda prompts, completion_ids, **_: reward(prompts, completion_ids),
        args=config(**settings),
        train_dataset=Dataset.from_dict({"prompt": list(prompts)}),
        processing_class=tokenizer,
        callbacks=[watching(ground, policy, EPOCHS * MINIBATCHES, COMPLETIONS)],
    ).train()
    return policy


def trl_dpo(job: Job, ground: Ground, steps: int, folder: str) -> Any:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    from tuneful.data.templates import pair_ids

    torch.manual_seed(job.seed)
    tokenizer = AutoTokenizer.from_pretrained(ground.base)
    policy: Any = AutoModelForCausalLM.from_pretrained(ground.base, dtype=torch.float32)
    reference = AutoModelForCausalLM.from_pretrained(ground.base, dtype=torch.float32)
    ours, pairs = ground.tokenizer, ground.pairs()
    ground.start()  # of what comes before training, in our learner too: ids, and what the reference says of all pairs
    rows = []
    for pair in pairs:
        sides = [pair_ids(pair.prompt, text, ours, max_tokens=None) for text in (pair.chosen, pair.rejected)]
        rows.append({"prompt_ids": sides[0][0], "chosen_ids": sides[0][1], "rejected_ids": sides[1][1]})

    class Given(DPOTrainer):
        """Takes ids as they are: those that ours reads."""

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

    trainer = Given(
        model=policy,
        ref_model=reference,
        args=DPOConfig(
            **trl_settings(job, folder),
            per_device_train_batch_size=COMPLETIONS,
            num_train_epochs=1,
            beta=job.leash,
            max_length=None,
            precompute_ref_log_probs=True,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[watching(ground, policy, 1, 0)],
    )
    ground.pause()
    trainer.train()
    return policy


if __name__ == "__main__":
    main()
