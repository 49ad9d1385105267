from __future__ import annotations

import pytest
import torch

from tuneful.generation.nucleus import in_nucleus

PROBABILITIES = torch.tensor([[0.15, 0.5, 0.05, 0.3]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("top_p", "min_tokens", "left"),
    [
        # .5 + .3 does not hold .9, with .15 it does; .5 + .3 holds .79. At .8 rounding decides, see below.
        (0.9, 1, [0.157895, 0.526316, 0, 0.315789]),
        (0.79, 1, [0, 0.625, 0, 0.375]),
        (0.4, 1, [0, 1, 0, 0]),
        (0.4, 3, [0.157895, 0.526316, 0, 0.315789]),
    ],
)
def test_a_nucleus_by_hand(top_p: float, min_tokens: int, left: list[float]) -> None:
    logits = PROBABILITIES.log() + 7.0  # the same distribution
    inside = in_nucleus(logits, top_p, min_tokens=min_tokens)
    renormalised = logits.masked_fill(~inside, -torch.inf).softmax(-1)[0]
    assert renormalised.tolist() == pytest.approx(left, abs=1e-6)


def test_at_the_border_three_are_left() -> None:
    """In float64 the softmax of these logs is .5 and a little less than .3: two tokens do not hold .8."""
    assert in_nucleus(PROBABILITIES.log(), 0.8).tolist() == [[True, True, False, True]]
