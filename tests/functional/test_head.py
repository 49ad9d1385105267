"""Log-probabilities in parts against those from all logits at once, values and gradients."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from tuneful.functional import head as module
from tuneful.functional.head import head_kl, head_logprobs


def whole(logits: Tensor, ids: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """By torch's own cross-entropy and categorical distribution."""
    scaled = logits / temperature
    return -nn.functional.cross_entropy(scaled, ids, reduction="none"), torch.distributions.Categorical(
        logits=scaled
    ).entropy()


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("entropy_grad", [False, True])
@pytest.mark.parametrize("at_once", [1, 23, 40, 2**22])
def test_parts_add_up(temperature: float, entropy_grad: bool, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", at_once)
    monkeypatch.setattr(module, "TOKENS_AT_ONCE", 1)
    torch.manual_seed(0)
    head = nn.Linear(6, 11)
    states, ids = torch.randn(9, 6, requires_grad=True), torch.randint(11, (9,))
    inputs = [states, *head.parameters()]
    ours = head_logprobs(
        head, states, ids, temperature=temperature, entropy_grad=entropy_grad, weights=[*head.parameters()]
    )
    theirs = whole(head(states), ids, temperature)
    assert_close(ours, theirs)
    assert ours[1].requires_grad == entropy_grad

    def loss(logprobs: Tensor, entropy: Tensor) -> Any:
        signs = torch.linspace(-1, 2, 9)
        return (signs * logprobs.exp()).sum() + (signs.flip(0) * entropy).sum() * entropy_grad

    found, expected = (torch.autograd.grad(loss(*pair), inputs) for pair in (ours, theirs))
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other)


def test_by_hand() -> None:
    """The head copies; softmax(ln 3, 0) = (3/4, 1/4), and the gradient of log 3/4 is 1 - 3/4, 0 - 1/4."""
    states = torch.tensor([[math.log(3), 0.0]], requires_grad=True)
    logprobs, entropy = head_logprobs(lambda x: 1.0 * x, states, torch.tensor([0]))
    assert_close(logprobs, torch.tensor([math.log(0.75)]))
    assert_close(entropy, torch.tensor([-0.75 * math.log(0.75) - 0.25 * math.log(0.25)]))
    logprobs.sum().backward()
    assert_close(states.grad, torch.tensor([[0.25, -0.25]]))


@pytest.mark.parametrize(("tokens_at_once", "largest"), [(1, 3), (7, 7)])
def test_never_more_logits_than_allowed(tokens_at_once: int, largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", 30)
    monkeypatch.setattr(module, "TOKENS_AT_ONCE", tokens_at_once)
    made: list[int] = []
    head = nn.Linear(4, 10)

    def watched(x: Tensor) -> Tensor:
        made.append(len(x))
        return head(x)  # type: ignore[no-any-return]

    states = torch.randn(20, 4, requires_grad=True)
    head_logprobs(watched, states, torch.zeros(20, dtype=torch.int64))[0].sum().backward()
    assert max(made) == largest
    assert sum(made) == 40  # forward, and again backward


def test_no_tokens() -> None:
    states = torch.empty(0, 4, requires_grad=True)
    logprobs, _ = head_logprobs(nn.Linear(4, 10), states, torch.empty(0, dtype=torch.int64))
    logprobs.sum().backward()
    assert logprobs.shape == (0,)
    assert states.grad is not None


class TestKL:
    @pytest.mark.parametrize("temperature", [1.0, 0.7])
    @pytest.mark.parametrize("at_once", [1, 100, 2**22])
    def test_is_that_of_all_logits_at_once_in_float64(
        self, temperature: float, at_once: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "LOGITS_AT_ONCE", at_once)
        monkeypatch.setattr(module, "TOKENS_AT_ONCE", 4)
        torch.manual_seed(0)
        heads = nn.Linear(6, 11), nn.Linear(3, 11)
        states = torch.randn(9, 6), torch.randn(9, 3)
        p, q = (
            (rows.double() @ head.weight.double().T + head.bias.double()) / temperature
            for head, rows in zip(heads, states, strict=True)
        )
        p, q = p - p.exp().sum(-1, keepdim=True).log(), q - q.exp().sum(-1, keepdim=True).log()
        found = head_kl(heads[0], states[0], heads[1], states[1], temperature=temperature)
        assert_close(found.double(), (p.exp() * (p - q)).sum(-1), atol=1e-6, rtol=1e-5)
        assert not found.requires_grad

    def test_never_more_logits_than_allowed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "LOGITS_AT_ONCE", 200)
        monkeypatch.setattr(module, "TOKENS_AT_ONCE", 4)
        made: list[int] = []
        head = nn.Linear(4, 10)

        def watched(x: Tensor) -> Tensor:
            made.append(len(x))
            return head(x)  # type: ignore[no-any-return]

        states = torch.randn(22, 4)
        assert not head_kl(watched, states, watched, states).any()
        assert max(made) == 5
        assert sum(made) == 2 * 22

    def test_of_no_tokens(self) -> None:
        head, none = nn.Linear(4, 10), torch.empty(0, 4)
        assert head_kl(head, none, head, none).shape == (0,)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("entropy_grad", [False, True])
def test_tokens_among_few(temperature: float, entropy_grad: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the logits of the others were -inf; a row that names none chooses among all."""
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", 23)
    monkeypatch.setattr(module, "TOKENS_AT_ONCE", 1)
    torch.manual_seed(0)
    head, states = nn.Linear(6, 11), torch.randn(5, 6, requires_grad=True)
    allowed = [[1, 4, 7], [], [0], [10, 2], []]
    ids = torch.tensor([4, 9, 0, 10, 3])
    inputs = [states, *head.parameters()]
    ours = head_logprobs(
        head,
        states,
        ids,
        temperature=temperature,
        entropy_grad=entropy_grad,
        weights=[*head.parameters()],
        allowed=allowed,
    )
    picked, spread = [], []
    for row, (few, token) in enumerate(zip(allowed, ids.tolist(), strict=True)):
        of = few or list(range(11))
        logprobs = (head(states[row])[of] / temperature).log_softmax(-1)
        picked.append(logprobs[of.index(token)])
        spread.append(-(logprobs.exp() * logprobs).sum())
    theirs = torch.stack(picked), torch.stack(spread)
    assert_close(ours, theirs)
    weight = torch.linspace(1, 2, 5)
    both = (ours[0] * weight).sum() + ((ours[1] * weight).sum() if entropy_grad else 0)
    whole_sum = (theirs[0] * weight).sum() + ((theirs[1] * weight).sum() if entropy_grad else 0)
    assert_close(torch.autograd.grad(both, inputs), torch.autograd.grad(whole_sum, inputs), atol=1e-5, rtol=1e-5)
