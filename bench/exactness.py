"""How far the sampler's logprobs are from the trainer's, after training, at every batch composition.

    python bench/exactness.py [--size S] [--steps 200] [--tokens 10000] [--json]

A ragged base (peer.py) gets an adapter of rank 16, trained by PPO updates on a planted reward (tokens in a fixed set),
so that policy and base differ. Then completions are sampled with room for 1, 7, 32 and 256 rows, prompts
entering as others leave, and scored again by the trainer's pass in micro-batches of 256, 1,024 and 8,192 tokens, and
every eighth row alone by transformers' whole model. Printed: the largest difference of any token from either.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

import peer
import torch
from torch import Tensor

from tuneful.algorithms.ppo import PPO, PPOConfig
from tuneful.engines.local import LocalEngine
from tuneful.engines.optimization import Optimization
from tuneful.generation import decoding
from tuneful.generation.sampling import Sampling
from tuneful.models.adapters import LoRA
from tuneful.models.forward import whole_model_logprobs
from tuneful.models.loading import load_tokenizer
from tuneful.models.roles import policy_roles
from tuneful.records import Completion, Prompt

ROOMS, MICROBATCHES, UPDATES_PER_STEP = (1, 7, 32, 256), (256, 1_024, 8_192), 4
NEW_TOKENS, PROMPT_TOKENS = 64, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=peer.SIZES, default="S")
    parser.add_argument("--steps", type=int, default=200, help="optimizer steps")
    parser.add_argument("--tokens", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    base = peer.base(given.size, "ragged")
    engine = trained(base, given.steps)
    result: dict[str, Any] = {"bench": "exactness", "size": given.size, "steps": engine.updates}
    for room in ROOMS:
        decoding.MAX_ROWS = room
        num_prompts = max(room, 16)
        tokens, rows, seed = 0, 0, 0
        worst = {f"room_{room}_microbatch_{size}": 0.0 for size in MICROBATCHES} | {f"room_{room}_whole_model": 0.0}
        while tokens < given.tokens / len(ROOMS):
            sampling = Sampling(max_new_tokens=NEW_TOKENS, max_prompt_tokens=PROMPT_TOKENS)
            rollout = engine.sample(peer.prompts(base, num_prompts, "ragged"), sampling, seed=seed)
            tokens, rows, seed = tokens + rollout.num_tokens, rows + len(rollout), seed + 1
            for size in MICROBATCHES:
                engine.tokens_per_microbatch = size
                largest(worst, f"room_{room}_microbatch_{size}", (engine.score("policy", rollout) - rollout.logprobs))
            for k in range(0, len(rollout), 8):
                row = rollout.completions[k]
                policy = engine.roles.policy
                assert policy is not None
                with torch.no_grad():
                    alone = whole_model_logprobs(policy, rollout.prompts[k], row, rollout.temperature)
                largest(worst, f"room_{room}_whole_model", alone - rollout.logprobs[k, : len(row)])
        result |= worst | {f"room_{room}_tokens": tokens, f"room_{room}_mean_length": tokens / rows}
    result["largest"] = max(value for key, value in result.items() if "_microbatch_" in key)
    result["largest_whole_model"] = max(value for key, value in result.items() if key.endswith("_whole_model"))
    result["tokens"] = sum(value for key, value in result.items() if key.endswith("_tokens"))
    print(json.dumps(result) if given.json else "\n".join(f"{name:<24} {value}" for name, value in result.items()))


def trained(base: Any, steps: int) -> LocalEngine:
    """A policy after so many optimizer steps of PPO on the planted reward."""
    roles = policy_roles(base, lora=LoRA(rank=16, alpha=32), value="head")
    config = PPOConfig(
        num_steps=steps // UPDATES_PER_STEP,
        prompts_per_step=32,
        max_new_tokens=NEW_TOKENS,
        max_prompt_tokens=PROMPT_TOKENS,
        epochs=2,
        minibatches=UPDATES_PER_STEP // 2,
        optimization=Optimization(learning_rate=1e-3),
    )
    engine = LocalEngine(roles, load_tokenizer(base), optimization=config.optimization, total_steps=config.updates)
    learner = PPO(engine, peer.prompts(base, 512, "ragged"), planted, config)
    for _ in range(config.num_steps):
        learner.step()
    return engine


def planted(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
    """Tokens with an even id, of those that there is room for: a share of the answer would be had for one token, and
    no step of decoding would be compared."""
    return torch.tensor([sum(token % 2 == 0 for token in c.tokens or ()) / NEW_TOKENS for c in completions])


def largest(worst: dict[str, float], name: str, difference: Tensor) -> None:
    worst[name] = max(worst[name], float(difference.abs().max()))


if __name__ == "__main__":
    main()
