"""The least that a PPO step can take on a machine: its useful operations at the machine's best pace of multiplying, and
where decoding only waits for weights and cache, their bytes at the best pace of copying. What a step reached of it is
the limit over the time it took. Padding, rows computed twice and Python are no use and do not count.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PPOWork:
    """What a step has to do, whoever does it."""

    num_params: float
    """Weights that every token goes through: without embeddings and head."""
    closing_params: float = 0.0
    """Those of them in the last layer that do not make keys and values: nobody asks for what they make of a prompt."""
    head_params: float = 0.0
    """Weights of the language model's head, which completion tokens alone go through."""
    rows: int
    """Completions of a step, all decoded together."""
    prompt_tokens: float
    """Of a row, on average."""
    completion_tokens: float
    """Of a row, on average."""
    samples_per_prompt: int = 1
    epochs: int
    scoring_passes: int
    """Models that read the rows without a gradient: reference, reward, and a value model that shares no trunk."""
    trained_models: int
    """1 where policy and value share a trunk, else 2."""
    frozen_base: bool
    """Adapters are trained: the weights themselves need no gradient, 4 operations a token and weight in place of 6."""
    cache_bytes: float = 0.0
    """Of keys and values, per token."""
    bytes_per_param: float = 4.0


def ppo_limit(work: PPOWork, *, flops: float, bytes_per_s: float) -> dict[str, float]:
    """Seconds of each part of a step, and of the `step`, at `flops` operations and `bytes_per_s` bytes a second.

    A token costs 2 operations for each weight forward and 4 backward (2 where the weight is frozen). Attention's own
    products are left out: they are small while rows are shorter than six times the hidden width. A prompt is read once
    for all its samples, in training once an epoch.
    """
    of_completion = work.rows * work.completion_tokens
    prompts = work.rows * work.prompt_tokens / work.samples_per_prompt
    of_prompts = work.num_params - work.closing_params
    trunk = of_prompts * prompts + work.num_params * of_completion
    trunk_and_head = work.num_params + work.head_params
    read = work.bytes_per_param * trunk_and_head
    read += work.rows * (work.prompt_tokens + work.completion_tokens / 2) * work.cache_bytes
    backward_and_forward = (4 if work.frozen_base else 6) * work.epochs
    parts = {
        "prefill": 2 * of_prompts * prompts / flops,
        "decode": work.completion_tokens * max(2 * trunk_and_head * work.rows / flops, read / bytes_per_s),
        "score": 2 * (trunk * work.scoring_passes + work.head_params * of_completion) / flops,
        "train": backward_and_forward * (trunk * work.trained_models + work.head_params * of_completion) / flops,
    }
    return parts | {"step": sum(parts.values())}


def fraction_of_limit(seconds: float, work: PPOWork, *, flops: float, bytes_per_s: float) -> float:
    """What share of the best that can be had a step of so many seconds is."""
    return ppo_limit(work, flops=flops, bytes_per_s=bytes_per_s)["step"] / seconds
