"""Simulated raters whose kind and whose items' true values the tests know, and `feedback` does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from tuneful.records import Judgment

TAU = 1 / 1.7
"""Noise of a careful rater, in standard deviations of the true value: two of them agree on 73 % of pairs."""


@dataclass(frozen=True)
class Simulation:
    judgments: list[Judgment]
    kinds: dict[str, str]
    value: dict[str, float]

    def difference(self, first: str, second: str) -> float:
        return self.value[first] - self.value[second]


def noisy_ranks(utility: NDArray[np.float64], rng: np.random.Generator) -> tuple[int, ...]:
    """Ranks by utility plus Gumbel noise, which is a Plackett-Luce ranking."""
    order = np.argsort(-(utility + rng.gumbel(size=len(utility))))
    return tuple(int(rank) + 1 for rank in np.argsort(order))


def simulate_raters(
    kinds: Sequence[str],
    *,
    seed: int,
    num_items: int = 800,
    num_completions: int = 4,
    raters_per_item: int = 3,
    tau: float = TAU,
) -> Simulation:
    """Every rater of `kinds` ranks an equal share of the items; ids are drawn anew, so they say nothing of the kind."""
    rng = np.random.default_rng(seed)
    value = rng.normal(size=(num_items, num_completions))
    tone = 0.5 * value + np.sqrt(0.75) * rng.normal(size=value.shape)
    utility = {
        "careful": value / tau,
        "hasty": value / (2 * tau),
        "random": 0 * value,
        "inverted": -value / tau,
        "tone": tone / tau,
    }
    names = [rng.bytes(4).hex() for _ in kinds]
    load = np.zeros(len(kinds))
    judgments = []
    for item in range(num_items):
        chosen = np.lexsort((rng.random(len(kinds)), load))[:raters_per_item]
        load[chosen] += 1
        judgments += [
            Judgment(
                id=rng.bytes(16).hex(),
                item=f"item-{item}",
                prompt=f"prompt-{item}",
                completions=tuple(f"{item}-{k}" for k in range(num_completions)),
                rater=names[rater],
                rater_kind="simulated",
                ranks=noisy_ranks(utility[kinds[rater]][item], rng),
            )
            for rater in chosen
        ]
    true_value = {f"{i}-{k}": float(v) for (i, k), v in np.ndenumerate(value)}
    return Simulation(judgments, dict(zip(names, kinds, strict=True)), true_value)


@pytest.fixture
def simulate() -> Callable[..., Simulation]:
    return simulate_raters
