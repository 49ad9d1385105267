"""Our forward passes against transformers' own, with its attention masks and positions, on three model families.

The reference pads as trainers usually do (left, right) or runs each row alone; ours has no attention mask at all.
Weights are drawn wide, so that a wrong position, mask or shift moves logprobs by whole nats.
"""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tuneful.models.forward import policy_kl, policy_outputs
from tuneful.models.roles import Role

VOCABULARY = 61
PAD = 0
Rows = list[list[int]]


def build(family: str) -> Any:
    shared = {"vocab_size": VOCABULARY, "initializer_range": 0.2, "pad_token_id": PAD, "bos_token_id": 1}
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(1)
    if family == "gpt2":
        model: Any = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, **shared))
    elif family == "llama":
        model = LlamaForCausalLM(LlamaConfig(num_key_value_heads=2, max_position_embeddings=64, **size, **shared))
    else:
        config = Qwen3Config(num_key_value_heads=2, head_dim=8, max_position_embeddings=64, **size, **shared)
        model = Qwen3ForCausalLM(config)
    return model.eval()


@pytest.fixture(scope="module", params=["llama", "gpt2", "qwen3"])
def model(request: pytest.FixtureRequest) -> Any:
    return build(request.param)


def ragged(num_rows: int, longest: int, vocabulary: int, seed: int) -> tuple[Rows, Rows]:
    """Prompts and completions of 1 to `longest` tokens; no pad id among them."""
    draw = random.Random(seed)

    def row() -> list[int]:
        return [draw.randrange(1, vocabulary) for _ in range(draw.randint(1, longest))]

    return [row() for _ in range(num_rows)], [row() for _ in range(num_rows)]


@torch.no_grad()
def plain_logprobs(model: Any, prompt: Rows, completion: Rows, side: str) -> list[Tensor]:
    """Logprobs of each row's completion by transformers alone."""
    rows = [p + c for p, c in zip(prompt, completion, strict=True)]
    if side == "none":
        return [plain_logprobs(model, [p], [c], "right")[0] for p, c in zip(prompt, completion, strict=True)]
    width = max(map(len, rows))
    pads = [[PAD] * (width - len(row)) for row in rows]
    ids = torch.tensor([pad + row if side == "left" else row + pad for pad, row in zip(pads, rows, strict=True)])
    attended = (ids != PAD).long()
    positions = (attended.cumsum(-1) - 1).clamp_min(0)
    logprobs = model(input_ids=ids, attention_mask=attended, position_ids=positions).logits.log_softmax(-1)
    found = []
    for k, (p, c) in enumerate(zip(prompt, completion, strict=True)):
        start = (len(pads[k]) if side == "left" else 0) + len(p)
        found.append(torch.stack([logprobs[k, start + t - 1, token] for t, token in enumerate(c)]))
    return found


@pytest.mark.parametrize("side", ["none", "right", "left"])
def test_logprobs_equal_a_plain_forward(model: Any, side: str) -> None:
    prompts, completions = ragged(9, 20, VOCABULARY, seed=3)
    outputs = policy_outputs(Role("policy", model), prompts, completions)
    assert outputs.logprobs is not None
    for k, theirs in enumerate(plain_logprobs(model, prompts, completions, side)):
        assert_close(outputs.logprobs[k, : len(theirs)], theirs, atol=1e-5, rtol=0)


def test_the_comparison_would_see_a_shift(model: Any) -> None:
    """The same tokens one position later have other logprobs, so equal numbers mean equal positions."""
    prompts, completions = ragged(9, 20, VOCABULARY, seed=3)
    shifted = plain_logprobs(model, [[5, *p] for p in prompts], completions, "none")
    for ours, theirs in zip(plain_logprobs(model, prompts, completions, "none"), shifted, strict=True):
        assert (ours - theirs).abs().max() > 1e-2


def test_temperature_divides_the_plain_logits(model: Any) -> None:
    prompts, completions = [[7, 9, 4]], [[3, 8]]
    logits = model(torch.tensor([[7, 9, 4, 3, 8]])).logits[0]
    expected = torch.stack([(logits[2] / 0.5).log_softmax(-1)[3], (logits[3] / 0.5).log_softmax(-1)[8]])
    outputs = policy_outputs(Role("policy", model), prompts, completions, temperature=0.5)
    assert outputs.logprobs is not None
    assert_close(outputs.logprobs[0], expected, atol=1e-5, rtol=0)


def test_entropy_equals_that_of_the_plain_distribution(model: Any) -> None:
    logits = model(torch.tensor([[7, 9, 4, 3, 8]])).logits[0, 2:4]
    outputs = policy_outputs(Role("policy", model), [[7, 9, 4]], [[3, 8]])
    assert outputs.entropy is not None
    assert_close(outputs.entropy[0], torch.distributions.Categorical(logits=logits).entropy(), atol=1e-5, rtol=0)


def test_kl_of_ragged_rows(model: Any) -> None:
    """Flat and in row order: two predicting positions of the first row, one of the second."""
    other = copy.deepcopy(model)
    for weight in other.parameters():
        weight.data += 0.05 * torch.randn(weight.shape)
    kl, row = policy_kl(Role("policy", model), Role("reference", other), [[7, 9], [4]], [[3, 8], [6]], temperature=0.7)
    assert row.tolist() == [0, 0, 1]

    def plain(one: Any) -> Tensor:
        first, second = (one(torch.tensor([row])).logits[0] for row in ([7, 9, 3, 8], [4, 6]))
        return (torch.cat([first[1:3], second[:1]]).double() / 0.7).log_softmax(-1)

    with torch.no_grad():
        p, q = plain(model), plain(other)
    expected = (p.exp() * (p - q)).sum(-1)
    assert expected.min() > 1e-4
    assert_close(kl.double(), expected, atol=1e-6, rtol=1e-3)


def test_a_trained_model_on_thousands_of_tokens(base_model_dir: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(base_model_dir, dtype=torch.float32)
    prompts, completions = ragged(40, 70, model.config.vocab_size, seed=5)
    completions = [c + c for c in completions]
    assert sum(map(len, completions)) >= 2_000
    with torch.no_grad():
        outputs = policy_outputs(Role("policy", model), prompts, completions)
    assert outputs.logprobs is not None
    for side in ("right", "left"):
        for k, theirs in enumerate(plain_logprobs(model, prompts, completions, side)):
            assert_close(outputs.logprobs[k, : len(theirs)], theirs, atol=1e-5, rtol=0)
