"""Two processes of one thread beside one process of two threads: the same PPO steps, on the same weights and prompts.

    python bench/ranks.py [--size S] [--workload ragged] [--rounds 5] [--json]

A step is 32 completions of at most 64 tokens, 4 epochs and 16 optimizer steps; the policy and its value head train
adapters of rank 16, and a rule gives the reward. The sides take turns; each prints its own medians, the ratio is of the
samples per second. It needs two free cores: on a machine that does other work it measures that.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from typing import Any

import peer

STEPS, ROLLOUTS, NEW_TOKENS, RANK = 4, 32, 64, 16
THREADS = {"ranks": 1, "threads": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=peer.SIZES, default="S")
    parser.add_argument("--workload", choices=["fixed", "ragged"], default="ragged")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", choices=THREADS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        start(given)
        return
    peer.prepare(given.size, given.workload)
    told = peer.take_turns(sys.argv, list(THREADS), given.rounds)
    sides = {side: peer.medians(told[side]) for side in THREADS}
    result = {
        "bench": "ranks",
        "size": given.size,
        "workload": given.workload,
        "rounds": given.rounds,
        **sides,
        **peer.ratio(told, "ranks", "threads", "samples_per_s", "speed"),
        **peer.medians(told["machine"]),
    }
    print(json.dumps(result) if given.json else "\n".join(f"{name:<10} {value}" for name, value in result.items()))


def start(given: argparse.Namespace) -> None:
    """One side: itself, or, where it is made of ranks, as many processes of its kind."""
    if given.side == "threads" or "RANK" in os.environ:
        measure(given)
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [
        subprocess.Popen([sys.executable, *sys.argv], env=os.environ | world | {"RANK": rank, "LOCAL_RANK": rank})
        for rank in ("0", "1")
    ]
    statuses = [rank.wait() for rank in ranks]
    if any(statuses):
        raise SystemExit(f"the ranks ended with {statuses}")


def measure(given: argparse.Namespace) -> None:
    """The JSON line of this side, by rank 0."""
    import torch

    from tuneful.algorithms.ppo import PPO, PPOConfig
    from tuneful.engines import ranks
    from tuneful.engines.local import LocalEngine
    from tuneful.engines.optimization import Optimization
    from tuneful.models.adapters import LoRA
    from tuneful.models.loading import load_tokenizer
    from tuneful.models.roles import policy_roles

    torch.set_num_threads(THREADS[given.side])
    base = peer.base(given.size, given.workload)
    config = PPOConfig(
        num_steps=STEPS + 1,
        prompts_per_step=ROLLOUTS,
        max_new_tokens=NEW_TOKENS,
        max_prompt_tokens=peer.PROMPT_TOKENS[given.workload],
        epochs=4,
        minibatches=4,
        optimization=Optimization(learning_rate=1e-5),
    )
    with ranks.process_group():
        engine = LocalEngine(
            policy_roles(base, lora=LoRA(rank=RANK, alpha=2 * RANK), value="head"),
            load_tokenizer(base),
            optimization=config.optimization,
            total_steps=config.updates,
        )
        learner = PPO(engine, peer.prompts(base, ROLLOUTS * (STEPS + 1), given.workload), different_words, config)
        seconds, metrics = [], {}
        for _ in range(STEPS + 1):
            began = time.perf_counter()
            metrics = learner.step()
            seconds.append(time.perf_counter() - began)
        if ranks.rank() == 0:
            step = statistics.median(seconds[1:])
            told = {"seconds": step, "samples_per_s": ROLLOUTS / step, "policy_loss": metrics["policy_loss"]}
            print(json.dumps(told | {"reward": metrics["reward"], "mib": peer.resident()}))


def different_words(prompts: Any, completions: Any) -> Any:
    """The share of words that differ, a reward that costs nothing."""
    import torch

    words = [c.text.split() or ["nothing"] for c in completions]
    return torch.tensor([len(set(w)) / len(w) for w in words])


if __name__ == "__main__":
    main()
