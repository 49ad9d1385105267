"""How tokens are drawn: settings, counter-based uniforms, inverse CDF.

The uniform behind token t of sample g of prompt i is a function of (seed, i, g, t) alone, so batch size, order, world
size and resume do not change what is sampled, up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tuneful.errors import ConfigError
from tuneful.records import content_hash
from tuneful.settings import require_at_least


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How completions are drawn."""

    num_samples: int = 1
    """Completions per prompt."""
    max_new_tokens: int = 128
    """Longest completion, the end token included."""
    max_prompt_tokens: int | None = None
    """Longer prompts lose their beginning; None: they are refused when they do not fit the context."""
    temperature: float = 1.0
    """Logits are divided by it; 0 takes the most likely token."""
    stop: tuple[str, ...] = ()
    """A completion ends where its text first contains one of these."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "", "num_samples", "max_new_tokens", "max_prompt_tokens")
        if not 0 <= self.temperature < math.inf:
            raise ConfigError(f"temperature must be 0 (greedy) or above, got {self.temperature}")
        if "" in self.stop:
            raise ConfigError("stop holds an empty string, which every text contains; leave it out")


@dataclass(frozen=True, slots=True)
class Draws:
    """What the uniforms of P prompts' samples follow from, see the module. seeds: uint64 [P]; numbers: int64 [P]."""

    seeds: npt.NDArray[np.uint64]
    numbers: npt.NDArray[np.int64]

    @classmethod
    def of(cls, draws: Sequence[tuple[int, int]]) -> Draws:
        """From each prompt's seed and its number among the prompts of that seed."""
        seeds = np.array([seed % 2**64 for seed, _ in draws], dtype=np.uint64)
        return cls(seeds, np.array([number for _, number in draws], dtype=np.int64))


def fold(*keys: int | str) -> int:
    """One 63-bit seed from several keys, for example (seed, "rollout", step); the word keeps purposes apart."""
    state = np.zeros(1, dtype=np.uint64)
    for key in keys:
        number = int(content_hash(key), 16) if isinstance(key, str) else key
        state = _mix(state + np.uint64(number % 2**64))
    return int(state[0] >> np.uint64(1))


def uniforms(
    seed: int | npt.NDArray[np.uint64],
    prompt: npt.NDArray[np.int64],
    sample: npt.NDArray[np.int64],
    token: npt.NDArray[np.int64] | int,
) -> Tensor:
    """float64 [R] in [0, 1) for rows (prompt, sample) at position `token`; `token` and `seed` are one per row, or one
    for all."""
    seeds = np.uint64(seed % 2**64) if isinstance(seed, int) else seed
    state = _mix(np.broadcast_to(seeds, prompt.shape))
    for key in (prompt, sample, np.broadcast_to(token, prompt.shape)):
        state = _mix(state + key.astype(np.uint64))
    return torch.from_numpy((state >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """Token ids int64 [R] by inverse CDF from logits [R, V] (already divided by the temperature)."""
    cumulative = logits.softmax(-1).cumsum(-1, dtype=torch.float64)
    target = uniform.to(logits.device)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1).clamp_max(logits.shape[-1] - 1)


def _mix(state: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The splitmix64 finaliser (Steele et al. 2014), elementwise modulo 2^64."""
    with np.errstate(over="ignore"):
        state = state + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return state ^ (state >> np.uint64(31))
