"""Counter-based draws: splitmix64 in plain integers, uniforms that look independent, tokens that follow the softmax."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from tuneful.errors import ConfigError
from tuneful.generation.sampling import Sampling, draw, fold, uniforms


def splitmix64(state: int) -> int:
    """The generator's first output from `state`, in unbounded integers."""
    state = (state + 0x9E3779B97F4A7C15) % 2**64
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) % 2**64
    return state ^ (state >> 31)


def rows(*pairs: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    prompt, sample = np.array(pairs, dtype=np.int64).T
    return prompt, sample


def test_the_reference_gives_the_published_outputs() -> None:
    """First outputs of the published C code for seeds 0 and 1234567."""
    assert splitmix64(0) == 0xE220A8397B1DCDAF
    assert splitmix64(1234567) == 6457827717110365317


def test_fold_is_splitmix64_without_its_last_bit() -> None:
    assert fold(0) == 0xE220A8397B1DCDAF >> 1
    assert fold(1234567) == 6457827717110365317 >> 1
    assert fold(3, 7) == splitmix64((splitmix64(3) + 7) % 2**64) >> 1


def test_fold_tells_keys_and_their_order_apart() -> None:
    folded = {fold(a, b) for a in range(30) for b in range(30)}
    assert len(folded) == 900
    assert fold(-1) == fold(2**64 - 1)
    assert all(0 <= seed < 2**63 for seed in folded)


@pytest.mark.parametrize(("seed", "prompt", "sample", "token"), [(0, 0, 0, 0), (5, 2, 3, 11), (2**63 - 1, 9, 0, 400)])
def test_a_uniform_in_plain_integers(seed: int, prompt: int, sample: int, token: int) -> None:
    state = splitmix64(seed)
    for key in (prompt, sample, token):
        state = splitmix64((state + key) % 2**64)
    (found,) = uniforms(seed, *rows((prompt, sample)), token).tolist()
    assert found == (state >> 11) / 2**53


def test_a_uniform_does_not_depend_on_its_neighbours() -> None:
    alone = uniforms(7, *rows((4, 1)), 3)
    among = uniforms(7, *rows((0, 0), (4, 1), (9, 2)), 3)
    assert alone[0] == among[1]


def test_uniforms_look_uniform_and_independent() -> None:
    """Kolmogorov-Smirnov over all, and no correlation between neighbours along seed, prompt, sample and token."""
    grid = np.array([[p, s] for p in range(20) for s in range(20)], dtype=np.int64)
    cube = torch.stack(
        [torch.stack([uniforms(seed, grid[:, 0], grid[:, 1], token) for token in range(20)]) for seed in range(5)]
    ).reshape(5, 20, 20, 20)  # seed, token, prompt, sample
    assert cube.min() >= 0
    assert cube.max() < 1
    assert stats.kstest(cube.flatten().numpy(), "uniform").pvalue > 0.001
    for dim in range(4):
        size = cube.shape[dim]
        left, right = cube.narrow(dim, 0, size - 1).flatten(), cube.narrow(dim, 1, size - 1).flatten()
        correlation = float(torch.corrcoef(torch.stack([left, right]))[0, 1])
        assert abs(correlation) < 4 / len(left) ** 0.5


def test_draw_by_hand() -> None:
    """Probabilities 1/2, 1/4, 1/4: the cumulative sums are 1/2, 3/4, 1."""
    logits = torch.tensor([[0.5, 0.25, 0.25]]).log().expand(6, 3)
    uniform = torch.tensor([0.0, 0.49, 0.51, 0.74, 0.76, 1 - 2.0**-53], dtype=torch.float64)
    assert draw(logits, uniform).tolist() == [0, 0, 1, 1, 2, 2]


def test_draw_never_takes_a_forbidden_token() -> None:
    """Also not at the ends of the unit interval, where the first and last tokens stand."""
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]]).expand(4, 5)
    uniform = torch.tensor([0.0, 0.5, 0.25, 1 - 2.0**-53], dtype=torch.float64)
    assert draw(logits, uniform).tolist() == [1, 3, 1, 3]


def test_draws_follow_the_softmax() -> None:
    logits = torch.tensor([2.0, 0.3, -1.0, 0.0, 1.1])
    num = 20_000
    uniform = uniforms(1, np.arange(num), np.zeros(num, dtype=np.int64), 0)
    counts = torch.bincount(draw(logits.expand(num, 5), uniform), minlength=5)
    weights = [float(np.exp(x)) for x in logits.tolist()]
    expected = [num * w / sum(weights) for w in weights]
    assert stats.chisquare(counts.numpy(), expected).pvalue > 0.001


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_samples": 0}, "num_samples must be at least 1, got 0"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ({"max_prompt_tokens": 0}, "max_prompt_tokens must be at least 1, got 0"),
        ({"temperature": -0.5}, "temperature must be 0 (greedy) or above, got -0.5"),
        ({"temperature": math.nan}, "temperature must be 0 (greedy) or above, got nan"),
        ({"temperature": math.inf}, "temperature must be 0 (greedy) or above, got inf"),
        ({"stop": ("end", "")}, "stop holds an empty string, which every text contains; leave it out"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Sampling(**settings)
    assert str(error.value) == message
