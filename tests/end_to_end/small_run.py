"""A small real PPO run as a process of its own, for tests that kill it.

Started with MODEL TRAINED, see `roles_of`. Reads lines `DIRECTORY [full disk]` on standard input and answers each with
two lines: the number of the process that trains there, and once that is over, its exit status. Loading torch once and
forking for every run keeps them short.
"""

from __future__ import annotations

import os
import resource
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor

from tuneful.algorithms.loop import Evaluation, Progress, run
from tuneful.algorithms.ppo import PPO, PPOConfig
from tuneful.engines.local import LocalEngine
from tuneful.engines.optimization import Optimization
from tuneful.engines.ranks import run_directory
from tuneful.engines.sharding import shard
from tuneful.errors import TunefulError
from tuneful.generation.sampling import Sampling
from tuneful.models.adapters import LoRA
from tuneful.models.loading import load_tokenizer
from tuneful.models.roles import Roles, policy_roles
from tuneful.records import Completion, Prompt

NUM_STEPS = 12
SAVE_EVERY = 2
EVALUATE_EVERY = 3
PROMPTS = [Prompt.user(f"{verb} the {noun}") for verb in ("open", "shut", "fix") for noun in ("door", "tap", "light")]
CONFIG = PPOConfig(
    num_steps=NUM_STEPS,
    prompts_per_step=8,
    max_new_tokens=6,
    epochs=1,
    minibatches=2,
    kl_target=1.0,
    kl_horizon=100,
    optimization=Optimization(learning_rate=1e-2),
)


def variety(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
    """The share of different words."""
    words = [c.text.split() or ["nothing"] for c in completions]
    return torch.tensor([len(set(w)) / len(w) for w in words])


Trained = Literal["weights", "adapters", "sharded"]


def roles_of(model: Path, trained: Trained) -> Roles:
    """A policy with a value head: all its weights are trained, or adapters, or each of several ranks holds a part."""
    roles = policy_roles(model, lora=LoRA(rank=2) if trained == "adapters" else None, value="head")
    if trained == "sharded":
        shard(roles)
    return roles


def train(model: Path, out: Path, trained: Trained = "weights", progress: Progress | None = None) -> None:
    roles = roles_of(model, trained)
    engine = LocalEngine(roles, load_tokenizer(model), optimization=CONFIG.optimization, total_steps=CONFIG.updates)

    def evaluate(step: int) -> Evaluation:
        rollout = engine.sample(PROMPTS, Sampling(max_new_tokens=6), seed=step)
        reward = float(variety(PROMPTS, rollout.as_completions()).mean())
        samples = [{"prompt": p.text, "completion": t} for p, t in zip(PROMPTS, rollout.texts, strict=True)]
        return Evaluation({"reward": reward, "kl": float(engine.kl(rollout)[0].mean())}, samples)

    with run_directory(out, {"name": "small run"}) as record:
        run(
            PPO(engine, PROMPTS, variety, CONFIG),
            record,
            num_steps=NUM_STEPS,
            evaluate=evaluate,
            evaluate_every=EVALUATE_EVERY,
            save_every=SAVE_EVERY,
            progress=progress,
        )


def fill_disk(step: int, num_steps: int, metrics: object) -> None:
    """From the step after the first checkpoint on, no file can grow beyond 20 KB: smaller than the weights."""
    if step == SAVE_EVERY + 1:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))


def main() -> None:
    torch.set_num_threads(1)
    model, trained = Path(sys.argv[1]), cast(Trained, sys.argv[2])
    for line in sys.stdin:
        out, _, disk = line.strip().partition(" ")
        child = os.fork()
        if child == 0:
            status = 1
            try:
                train(model, Path(out), trained, fill_disk if disk else None)
                status = 0
            except TunefulError as error:
                sys.stderr.write(f"{type(error).__name__}: {error}\n")
                status = 2
            except BaseException:
                traceback.print_exc()
                raise
            finally:  # never back into the loop, which is the parent's
                os._exit(status)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        _, ended = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(ended)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
