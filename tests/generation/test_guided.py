"""Sampling by value against hand-worked numbers and a plain loop."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, tensor
from torch.testing import assert_close

from tuneful.data.templates import prompt_ids
from tuneful.generation.guided import Guide, possible, weighed
from tuneful.generation.sampler import Sampler
from tuneful.generation.sampling import Sampling
from tuneful.models.q_heads import QHeads
from tuneful.models.roles import Role
from tuneful.records import Prompt

PROMPTS = [Prompt("hello"), Prompt("how do i cook bread today"), Prompt("why")]


@pytest.mark.parametrize(("scale", "share"), [(0.0, 0.5), (1.0, 0.731059), (4.0, 0.982014)])
def test_two_equal_tokens_of_which_one_is_better(scale: float, share: float) -> None:
    """Q - V = (1, 0): e^b / (e^b + 1)."""
    found = weighed(tensor([[-2.0, -2.0]]), tensor([[1.0, 0.0]]), scale).softmax(-1)
    assert_close(found, tensor([[share, 1 - share]]), atol=1e-6, rtol=0)
    shifted = weighed(tensor([[-2.0, -2.0]]), tensor([[8.5, 7.5]]), scale).softmax(-1)
    assert_close(shifted, found)  # a state value that is taken off changes nothing


def test_the_best_token_is_one_that_the_base_can_say() -> None:
    logits, q = tensor([[0.0, -1.0, -1e4]]), tensor([[1.0, 2.0, 9.0]])
    assert weighed(logits, q, math.inf).softmax(-1).tolist() == [[0.0, 1.0, 0.0]]
    assert possible(q, logits.log_softmax(-1)).tolist() == [[1.0, 2.0, -math.inf]]


@pytest.fixture
def heads(tiny_model: Any) -> QHeads:
    """Heads whose values are of the size of logits."""
    made = QHeads(32, tiny_model.config.vocab_size, seed=3)
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_(std=0.3)
    return made


@pytest.mark.parametrize("epsilon", [0.0, 0.3])
@pytest.mark.parametrize("beside", [False, True], ids=["own proposals", "those of another"])
def test_what_is_drawn_from(tiny_model: Any, tiny_tokenizer: Any, heads: QHeads, epsilon: float, beside: bool) -> None:
    """Token by token through transformers: 5 proposals, weighed by e^(2 Q), mixed with epsilon of the base."""
    policy = Role("policy", tiny_model.eval())
    base = Role("base", tiny_model) if beside else None
    guide = Guide(heads=heads, scale=2.0, top_k=5, base=base, temperature=0.8)
    sampling = Sampling(num_samples=2, max_new_tokens=6, temperature=0.8)
    ids = [prompt_ids(prompt, tiny_tokenizer, max_tokens=None) for prompt in PROMPTS]
    hook = guide.choose(ids, sampling, epsilon=epsilon)
    rollout = Sampler(policy, tiny_tokenizer).sample(PROMPTS, sampling, seed=1, choose=hook)
    for row, completion in enumerate(rollout.completions):
        whole = torch.tensor([rollout.prompts[row] + completion])
        with torch.no_grad():
            out = tiny_model(whole, output_hidden_states=True)
        start = len(rollout.prompts[row]) - 1
        for t, token in enumerate(completion):
            logits, state = out.logits[0, start + t] / 0.8, out.hidden_states[-1][0, start + t]
            top = logits.topk(5).indices
            q = torch.minimum(*(head(state)[top] for head in heads.q))
            by_value, by_base = (logits[top] + 2.0 * q).softmax(-1), logits[top].softmax(-1)
            among = (1 - epsilon) * by_value + epsilon * by_base
            place = (top == token).nonzero()
            assert len(place) == 1
            assert_close(rollout.sampled_logprobs[row, t], among[place[0, 0]].log(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("beside", [False, True], ids=["own proposals", "those of another"])
def test_a_temperature_is_that_of_the_whole_policy(tiny_model: Any, heads: QHeads, beside: bool) -> None:
    """Values of a policy of T = .8: at 2 it is its .4th power, and what is likeliest at .8 is so at 0."""
    base = Role("base", tiny_model.eval()) if beside else None
    guide = Guide(heads=heads, scale=2.0, top_k=5, base=base, temperature=0.8)
    ids = [[5, 6, 7]]
    with torch.no_grad():
        out = tiny_model(torch.tensor(ids), output_hidden_states=True)
    logits, hidden = out.logits[:, -1], out.hidden_states[-1][:, -1]

    def policy(temperature: float) -> Tensor:
        hook: Any = guide.choose(ids, Sampling(max_new_tokens=2, temperature=temperature))
        rows = torch.tensor([0])
        hook.admit(rows)
        found: Tensor = hook(logits / (temperature or 1.0), hidden, rows).log_softmax(-1)
        return found

    assert_close(policy(2.0), (0.4 * policy(0.8)).log_softmax(-1), atol=1e-5, rtol=1e-5)
    assert_close(policy(0.0), (0.8 * policy(0.8)).log_softmax(-1), atol=1e-5, rtol=1e-5)  # the sampler takes the best


def test_at_first_the_reference_is_what_is_drawn_from(tiny_model: Any, tiny_tokenizer: Any) -> None:
    policy = Role("policy", tiny_model.eval())
    size = tiny_model.config.vocab_size
    guide = Guide(heads=QHeads(32, size), scale=10.0, top_k=size)
    sampling = Sampling(num_samples=2, max_new_tokens=6)
    ids = [prompt_ids(prompt, tiny_tokenizer, max_tokens=None) for prompt in PROMPTS]
    guided = Sampler(policy, tiny_tokenizer).sample(PROMPTS, sampling, seed=1, choose=guide.choose(ids, sampling))
    assert guided.completions == Sampler(policy, tiny_tokenizer).sample(PROMPTS, sampling, seed=1).completions


def test_the_copies_follow(heads: QHeads) -> None:
    before = [weight.clone() for weight in heads.target.parameters()]
    heads.follow(0.25)
    for copied, then, weight in zip(heads.target.parameters(), before, heads.q.parameters(), strict=True):
        assert_close(copied.detach(), 0.75 * then + 0.25 * weight.detach())
    states, actions = torch.randn(3, 32), torch.tensor([[1, 2], [3, 4], [5, 6]])
    heads.follow(1.0)
    assert_close(heads.least(states, actions, target=True), heads.least(states, actions))
    assert not any(weight.requires_grad for weight in heads.target.parameters())
