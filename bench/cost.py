"""What a PPO step of ours costs as its prompts, its completions, the model and the samples of a prompt grow.

    python bench/cost.py [--rounds 3] [--steps 2] [--only prompts length model samples] [--plot docs/images/cost.svg]

Around one point (S, 32 prompts, one completion of 64 tokens each, fixed workload, adapters on one base) one thing at a
time is made smaller and larger. Each point is a process of its own, and the points take turns. A JSON line for each:
seconds of a step, memory above the imports, and the share of the limit (limit.py) that it reached on this machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import peer
from drawing import one_file
from limit import PPOWork, fraction_of_limit

EPOCHS, MINIBATCHES, RANK = 4, 4, 16
AROUND: dict[str, Any] = {"prompts": 32, "length": 64, "model": "S", "samples": 1}
GROWS: dict[str, tuple[Any, ...]] = {
    "prompts": (8, 16, 32, 64),
    "length": (16, 32, 64, 128),
    "model": ("XS", "S", "M"),
    "samples": (1, 2, 4),
}
NAMES = {
    "prompts": "prompts per step",
    "length": "tokens per completion",
    "model": "weights of the model, million",
    "samples": "completions per prompt",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="steps that are timed, after one that is not")
    parser.add_argument("--only", choices=GROWS, nargs="+", default=list(GROWS))
    parser.add_argument("--plot", type=Path, help="where to write the curves as SVG")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(json.dumps(measure(given.steps, **dict(zip(AROUND, json.loads(given.side), strict=True)))))
        return
    points = {grown: [AROUND | {grown: amount} for amount in GROWS[grown]] for grown in given.only}
    sides = list(dict.fromkeys(_side(point) for curve in points.values() for point in curve))
    for size in {point["model"] for curve in points.values() for point in curve}:
        peer.prepare(size, "fixed")
    told = {side: peer.medians(runs) for side, runs in peer.take_turns(sys.argv, sides, given.rounds).items()}
    peaks = told.pop("machine")
    curves: dict[str, tuple[tuple[float, float], ...]] = {}
    for grown, curve in points.items():
        for point in curve:
            cost = told[_side(point)]
            share = fraction_of_limit(
                cost["seconds"],
                work(**point),
                flops=peaks["gemm_gflops"] * 1e9,
                bytes_per_s=peaks["copy_gb_s"] * 1e9,
            )
            line = {"bench": "cost", "grown": grown, **point, "rounds": given.rounds, **cost, **peaks}
            print(json.dumps(line | {"fraction_of_limit": share}), flush=True)
        amounts = [_million(p["model"]) if grown == "model" else float(p[grown]) for p in curve]
        curves[NAMES[grown]] = tuple(
            (amount, told[_side(point)]["seconds"]) for amount, point in zip(amounts, curve, strict=True)
        )
    if given.plot:
        given.plot.parent.mkdir(parents=True, exist_ok=True)
        given.plot.write_text(drawing(curves), encoding="utf-8")


def measure(steps: int, *, prompts: int, length: int, model: str, samples: int) -> dict[str, float]:
    """Seconds of a step, the median, and memory: adapters of rank 16 for policy and reward on one base, value head."""
    from tuneful.algorithms.ppo import PPO, PPOConfig
    from tuneful.engines.local import LocalEngine
    from tuneful.engines.optimization import Optimization
    from tuneful.models.adapters import LoRA
    from tuneful.models.loading import load_tokenizer, write_reward_file
    from tuneful.models.roles import policy_roles, reward_roles
    from tuneful.rewards.learned import LearnedReward

    peer.import_models()
    imported = peer.resident()
    base = peer.base(model, "fixed")
    tokenizer = load_tokenizer(base)
    config = PPOConfig(
        num_steps=steps + 1,
        prompts_per_step=prompts,
        samples_per_prompt=samples,
        max_new_tokens=length,
        max_prompt_tokens=peer.PROMPT_TOKENS["fixed"],
        epochs=EPOCHS,
        minibatches=MINIBATCHES,
        optimization=Optimization(learning_rate=1e-5),
    )
    lora = LoRA(rank=RANK, alpha=2 * RANK)
    with tempfile.TemporaryDirectory() as folder:
        scorer = reward_roles(base, lora=lora).reward
        assert scorer is not None and scorer.adapters is not None
        scorer.adapters.save("reward", Path(folder))
        tokenizer.save_pretrained(folder)
        write_reward_file(Path(folder), {"gain": 1.0, "bias": 0.0, "base": str(base)})
        del scorer
        roles = policy_roles(base, lora=lora, value="head")
        reward = LearnedReward.load(Path(folder), base=roles.policy)
    engine = LocalEngine(roles, tokenizer, optimization=config.optimization, total_steps=config.updates)
    learner = PPO(engine, peer.prompts(base, prompts * (steps + 1), "fixed"), reward, config)
    seconds = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        learner.step()
        seconds.append(time.perf_counter() - start)
    return {"seconds": statistics.median(seconds[1:]), "mib_above_imports": peer.resident() - imported}


def work(*, prompts: int, length: int, model: str, samples: int) -> PPOWork:
    """What a step has to do at this point, for the limit."""
    shape = peer.SIZES[model]
    width, layers = shape["hidden_size"], shape["num_hidden_layers"]
    return PPOWork(
        num_params=peer.trunk_params(model),
        closing_params=peer.closing_params(model),
        head_params=peer.VOCABULARY * width,
        rows=prompts * samples,
        prompt_tokens=peer.PROMPT_TOKENS["fixed"],
        completion_tokens=length,
        samples_per_prompt=samples,
        epochs=EPOCHS,
        scoring_passes=2,
        trained_models=1,
        frozen_base=True,
        cache_bytes=2 * layers * width * 4,
    )


def drawing(curves: dict[str, tuple[tuple[float, float], ...]]) -> str:
    """One SVG file of a plot for each curve."""
    from tuneful.evaluation.plots import growth

    return one_file([growth(points, of=name) for name, points in curves.items()])


def _side(point: dict[str, Any]) -> str:
    return json.dumps(list(point.values()))


def _million(size: str) -> float:
    return peer.trunk_params(size) / 1e6


if __name__ == "__main__":
    main()
