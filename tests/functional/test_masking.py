import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, tensor
from torch.testing import assert_close

from tuneful.functional.masking import masked_mean, masked_sum, masked_variance, whiten


def test_only_counted_tokens_are_summed_and_averaged() -> None:
    values = tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])
    mask = tensor([[True, False, True], [True, False, False]])
    assert_close(masked_sum(values, mask), tensor(13.0))  # 1 + 4 + 8
    assert_close(masked_mean(values, mask), tensor(13.0 / 3))


def test_a_sum_of_truths_is_a_count() -> None:
    hits = tensor([[True, True, False]])
    assert_close(masked_sum(hits, tensor([[True, False, True]])), tensor(1.0))


@pytest.mark.parametrize("stray", [math.inf, -math.inf, math.nan])
def test_what_stands_on_an_uncounted_position_never_matters(stray: float) -> None:
    mask = tensor([[True, True, False]])
    values = tensor([[1.0, 3.0, stray]], requires_grad=True)
    assert_close(masked_mean(values, mask), tensor(2.0))
    masked_sum(values, mask).backward()
    assert_close(values.grad, tensor([[1.0, 1.0, 0.0]]))
    assert_close(whiten(values.detach(), mask), tensor([[-1.0, 1.0, 0.0]]))


def test_the_mean_of_nothing_is_no_number_and_whitening_nothing_gives_nothing() -> None:
    nothing = tensor([[False, False]])
    assert masked_mean(tensor([[1.0, 2.0]]), nothing).isnan()
    assert_close(whiten(tensor([[1.0, 2.0]]), nothing), torch.zeros(1, 2))


def test_variance_is_the_population_variance() -> None:
    # 1, 2, 3, 4 around 2.5: (2.25 + .25 + .25 + 2.25) / 4
    assert_close(masked_variance(tensor([1.0, 2.0, 9.0, 3.0, 4.0]), tensor([1, 1, 0, 1, 1]).bool()), tensor(1.25))


def test_whitening_by_hand() -> None:
    # mean 2.5, standard deviation sqrt(1.25) = 1.118034: -1.5 / 1.118034 = -1.341641, -.5 / 1.118034 = -.447214
    mask = tensor([[True, True, False, True, True]])
    values = tensor([[1.0, 2.0, 100.0, 3.0, 4.0]])
    assert_close(whiten(values, mask), tensor([[-1.341641, -0.447214, 0.0, 0.447214, 1.341641]]), atol=1e-6, rtol=0)
    kept = whiten(values, mask, shift_mean=False)  # the same, plus 2.5
    assert_close(kept, tensor([[1.158359, 2.052786, 0.0, 2.947214, 3.841641]]), atol=1e-6, rtol=0)


@given(st.floats(-1e4, 1e4, width=32), st.integers(1, 300))
def test_equal_values_whiten_to_nothing(value: float, count: int) -> None:
    # A constant reward carries no news: whatever is left here would push every token the same way.
    values = torch.full((count,), value)
    assert_close(whiten(values, torch.ones(count, dtype=torch.bool)), torch.zeros(count), atol=0, rtol=0)


@given(st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=20), st.integers(1, 9))
def test_padding_moves_no_statistic(numbers: list[float], extra: int) -> None:
    values, mask = tensor([numbers]), torch.ones(1, len(numbers), dtype=torch.bool)
    longer, longer_mask = pad_right(values, extra, 7.0), pad_right(mask, extra, False)
    assert_close(masked_mean(longer, longer_mask), masked_mean(values, mask))
    assert_close(whiten(longer, longer_mask), pad_right(whiten(values, mask), extra, 0.0), atol=1e-4, rtol=1e-4)


def test_half_precision_is_summed_in_float32() -> None:
    # In bfloat16, with 8 bits of fraction, 256 + 1 is 256 again.
    values = tensor([256.0, 1.0, 1.0, 1.0], dtype=torch.bfloat16)
    mask = torch.ones(4, dtype=torch.bool)
    assert_close(masked_sum(values, mask), tensor(259.0))
    assert whiten(values, mask).dtype == torch.float32


def pad_right(values: Tensor, extra: int, filling: float) -> Tensor:
    return torch.nn.functional.pad(values, (0, extra), value=filling)
