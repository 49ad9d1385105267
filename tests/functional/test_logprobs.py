import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor
from torch.testing import assert_close

from tuneful.functional.logprobs import token_entropy, token_logprobs, vocabulary_logprobs

LOG_3 = math.log(3)


def test_logprobs_by_hand() -> None:
    # softmax(ln 3, 0) = (3/4, 1/4)
    logits = tensor([[[LOG_3, 0.0], [LOG_3, 0.0]]])
    assert_close(token_logprobs(logits, tensor([[0, 1]])), tensor([[math.log(0.75), math.log(0.25)]]))


def test_temperature_divides_the_logits() -> None:
    # At temperature 1/2 the odds 3 become 9: (9/10, 1/10).
    logits = tensor([[LOG_3, 0.0]])
    assert_close(token_logprobs(logits, tensor([0]), temperature=0.5), tensor([math.log(0.9)]))
    entropy = -0.9 * math.log(0.9) - 0.1 * math.log(0.1)
    assert_close(token_entropy(logits, temperature=0.5), tensor([entropy]))


def test_gradient_is_one_hot_minus_probability() -> None:
    logits = tensor([[LOG_3, 0.0]], requires_grad=True)
    token_logprobs(logits, tensor([0])).sum().backward()
    assert_close(logits.grad, tensor([[0.25, -0.25]]))  # 1 - 3/4, 0 - 1/4


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_entropy_of_equal_chances_is_log_of_their_number(size: int) -> None:
    assert_close(token_entropy(torch.full((3, size), 5.0)), torch.full((3,), math.log(size)))


def test_a_ruled_out_token_adds_nothing_to_value_or_gradient() -> None:
    logits = tensor([0.3, -math.inf, -0.4], requires_grad=True)
    without = tensor([0.3, -0.4], requires_grad=True)
    entropy, expected = token_entropy(logits), token_entropy(without)
    assert_close(entropy, expected)
    entropy.backward()
    expected.backward()
    assert logits.grad is not None and without.grad is not None
    assert_close(logits.grad[[0, 2]], without.grad)
    assert logits.grad[1] == 0


@given(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=12), st.floats(-100, 100), st.floats(0.1, 5))
def test_probabilities_sum_to_one_and_ignore_a_shift(numbers: list[float], shift: float, temperature: float) -> None:
    logits = tensor([numbers]).expand(len(numbers), -1)
    logprobs = token_logprobs(logits, torch.arange(len(numbers)), temperature=temperature)
    assert_close(logprobs.exp().sum(), tensor(1.0))
    shifted = token_logprobs(logits + shift, torch.arange(len(numbers)), temperature=temperature)
    assert_close(shifted, logprobs, atol=1e-3, rtol=1e-4)
    assert_close(vocabulary_logprobs(logits[0], temperature=temperature), logprobs)


def test_half_precision_logits_are_worked_on_in_float32() -> None:
    logits = torch.randn(4, 6, 50, generator=torch.Generator().manual_seed(0)).bfloat16()
    ids = torch.arange(24).view(4, 6)
    exact = logits.double().log_softmax(-1)
    logprobs, entropy = token_logprobs(logits, ids), token_entropy(logits)
    assert logprobs.dtype == entropy.dtype == torch.float32
    assert_close(logprobs.double(), exact.gather(-1, ids.unsqueeze(-1)).squeeze(-1), atol=1e-5, rtol=0)
    assert_close(entropy.double(), torch.special.entr(exact.exp()).sum(-1), atol=1e-5, rtol=0)
