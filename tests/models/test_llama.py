"""Our pass of Llama-like models against transformers' own, row by row without padding: states, scores, gradients."""

from __future__ import annotations

from functools import partial
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
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from tuneful.errors import ModelError
from tuneful.functional.attention import Piece
from tuneful.models import llama
from tuneful.models.adapters import AdapterSet, LoRA
from tuneful.models.llama import is_llama_like, own_states
from tuneful.models.ragged import Ragged

SHAPE: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
SCALED = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
CONFIGS = {
    "llama": LlamaConfig(**SHAPE),
    "llama, every bias, scaled angles": LlamaConfig(
        **SHAPE,
        attention_bias=True,
        mlp_bias=True,
        rope_parameters=SCALED | {"original_max_position_embeddings": 8},
        tie_word_embeddings=True,
    ),
    "mistral": MistralConfig(**SHAPE, sliding_window=None),
    "qwen2": Qwen2Config(**SHAPE),
    "qwen3, wide heads": Qwen3Config(**SHAPE, head_dim=16),
}

# Prompts of one token, equal prompts, equal but for the last token; answers of one token and of none.
PROMPTS = [[7, 9, 30], [5], [7, 9, 30], [7, 9, 31], [40, 41, 42, 43, 44]]
COMPLETIONS = [[8, 2], [20, 21, 22, 2], [9], [33, 2], []]


@pytest.fixture(params=[0, 1_000], ids=["rows attend alone", "together"])
def alone_from(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of attending, whatever the length of the rows."""
    monkeypatch.setattr(llama, "ALONE_FROM", request.param)


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(3)
    made = AutoModelForCausalLM.from_config(CONFIGS[request.param]).eval()
    for name, weight in made.named_parameters():
        if name.endswith(("norm.weight", "bias")):
            weight.data.normal_(1.0, 0.3)
    return made


def ragged(*, predicting: bool = False) -> Ragged:
    return Ragged(PROMPTS, COMPLETIONS, torch.device("cpu"), predicting=predicting)


def row_by_row(model: Any, *, predicting: bool) -> Tensor:
    """States of transformers' pass from the last prompt token on, each row alone."""
    states = []
    for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True):
        whole = model.base_model(torch.tensor([[*prompt, *completion]])).last_hidden_state[0]
        states.append(whole[len(prompt) - 1 : -1 if predicting else None])
    return torch.cat(states)


@pytest.mark.usefixtures("alone_from")
@pytest.mark.parametrize("predicting", [False, True])
def test_states_are_those_of_transformers(model: Any, predicting: bool) -> None:
    assert is_llama_like(model)
    with torch.no_grad():
        found = own_states(model, ragged(predicting=predicting))
        assert_close(found, row_by_row(model, predicting=predicting), atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("alone_from")
def test_the_last_state_of_each_row(model: Any) -> None:
    ends = torch.tensor([len(c) + 1 for c in COMPLETIONS]).cumsum(0) - 1
    with torch.no_grad():
        expected = row_by_row(model, predicting=False)[ends]
        assert_close(own_states(model, ragged(), last_only=True), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("alone_from")
@pytest.mark.parametrize("lora", [False, True], ids=["all weights", "adapters"])
def test_gradients_are_those_of_transformers(model: Any, lora: bool) -> None:
    if lora:
        adapters = AdapterSet(model.requires_grad_(False))
        adapters.add("one", LoRA(rank=3), seed=1)
        adapters.add("two", LoRA(rank=2), seed=2)
        for weight in [*adapters.named_parameters("one").values(), *adapters.named_parameters("two").values()]:
            weight.data.normal_(std=0.2, generator=torch.Generator().manual_seed(len(weight)))
        adapters.activate(("two",))
        weights = adapters.named_parameters("two")
    else:
        weights = dict(model.base_model.named_parameters())
    expected = row_by_row(model, predicting=True)
    found = own_states(model, ragged(predicting=True))
    assert_close(found, expected, atol=1e-5, rtol=1e-5)
    direction = torch.randn(found.shape, generator=torch.Generator().manual_seed(0))
    ours = torch.autograd.grad(found, [*weights.values()], direction)
    theirs = torch.autograd.grad(expected, [*weights.values()], direction)
    for name, one, other in zip(weights, ours, theirs, strict=True):
        assert_close(
            one, other, atol=2e-5 * float(other.abs().max()) + 1e-6, rtol=1e-4, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_computing_layers_again_changes_nothing_but_what_is_kept(model: Any) -> None:
    """Two passes with different adapters, backward in the other order: each layer runs again with its own."""
    adapters = AdapterSet(model.requires_grad_(False))
    for name in ("one", "two"):
        adapters.add(name, LoRA(rank=2), seed=1)
        for weight in adapters.named_parameters(name).values():
            weight.data.normal_(std=0.2, generator=torch.Generator().manual_seed(len(weight)))
    kept: list[int] = []

    def gradients(again: bool) -> list[Tensor]:
        total = torch.zeros(())
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
            for name in ("one", "two"):
                activate = partial(adapters.activate, (name,))
                activate()
                states = own_states(model, ragged(predicting=True), recompute=activate if again else None)
                total = total + states.square().sum()
        weights = [*adapters.named_parameters("one").values(), *adapters.named_parameters("two").values()]
        return [*torch.autograd.grad(total, weights)]

    expected = gradients(False)
    before = sum(kept)
    for one, other in zip(gradients(True), expected, strict=True):
        assert torch.equal(one, other)
    assert sum(kept) < before / 3


def test_adapters_off_are_the_base(model: Any) -> None:
    with torch.no_grad():
        before = own_states(model, ragged())
        adapters = AdapterSet(model.requires_grad_(False))
        adapters.add("one", LoRA(rank=3), seed=1)
        for weight in adapters.named_parameters("one").values():
            weight.data.fill_(0.1)
        adapters.activate(())
        assert torch.equal(own_states(model, ragged()), before)
        adapters.activate(("one",))
        assert not torch.allclose(own_states(model, ragged()), before, atol=1e-2)


def test_equal_prompts_run_once() -> None:
    """Five rows, four prompts, of which two have the same beginning: [7, 9], [], [40 .. 43]."""
    rows = ragged()
    assert rows.ids.tolist() == [7, 9, 30, 8, 2, 30, 9, 31, 33, 2, 5, 20, 21, 22, 2, 40, 41, 42, 43, 44]
    assert rows.positions.tolist() == [0, 1, 2, 3, 4, 2, 3, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    assert rows.prefix_of.tolist() == [0, 1, 0, 0, 2]
    assert rows.parts(rows.ids)[1].tolist() == [30, 8, 2, 5, 20, 21, 22, 2, 30, 9, 31, 33, 2, 44]


def test_a_row_with_a_prompt_of_its_own_is_one_piece() -> None:
    """Three rows read [7, 9], which stands at 0 and 1; the second row has no prefix, the last one its own."""
    rows = ragged()
    shared = slice(0, 2)
    of_shared = [Piece(2, 5, shared), Piece(5, 7, shared), Piece(7, 10, shared)]
    assert rows.pieces == [Piece(0, 2), *of_shared, Piece(10, 15), Piece(15, 20)]
    own = [of_shared[0], Piece(10, 15, slice(10, 10)), *of_shared[1:], Piece(19, 20, slice(15, 19))]
    assert rows.own_pieces == own


def test_parts_and_back() -> None:
    rows = ragged()
    x = torch.arange(20.0).requires_grad_()
    prefixes, own = rows.parts(x)
    assert prefixes.tolist() == [0, 1, 15, 16, 17, 18]
    assert own.tolist() == [2, 3, 4, 10, 11, 12, 13, 14, 5, 6, 7, 8, 9, 19]
    assert torch.equal(rows.joined(prefixes, own), x)
    assert torch.equal(rows.own_of(x), own)
    for part in (own, rows.own_of(x)):
        (gradient,) = torch.autograd.grad((part * part.detach()).sum(), x)
        assert gradient.tolist() == [0, 0, *range(2, 15), 0, 0, 0, 0, 19]


def test_padding_on_the_right_and_back() -> None:
    """Rows of 3, 5, 2, 3 and 1 tokens."""
    own = ragged().own
    flat = torch.arange(1.0, 15.0).requires_grad_()
    padded = own.pad(flat)
    expected = [[1, 2, 3, 0, 0], [4, 5, 6, 7, 8], [9, 10, 0, 0, 0], [11, 12, 13, 0, 0], [14, 0, 0, 0, 0]]
    assert padded.masked_fill(~own.mask, 0).tolist() == expected
    assert torch.equal(own.flatten(padded), flat)
    (gradient,) = torch.autograd.grad((padded * padded.detach()).sum(), flat)
    assert gradient.tolist() == flat.tolist()


def test_padding_gets_no_gradient() -> None:
    rows = ragged()
    padded = torch.ones(5, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad(rows.own.flatten(padded).sum(), padded)
    assert gradient.sum(1).tolist() == [3, 5, 2, 3, 1]
    assert torch.equal(gradient.bool(), rows.own.mask)


@pytest.mark.usefixtures("alone_from")
@pytest.mark.parametrize(
    ("prompts", "completions"),
    [
        ([[5], [8]], [[9, 2], [7]]),  # no prefix at all
        ([[5, 6, 7], [8, 9]], [[9, 2], [7]]),  # none shared
        ([[5, 6], [5, 6]], [[], []]),  # nothing to predict
    ],
)
def test_batches_of_one_kind(model: Any, prompts: list[list[int]], completions: list[list[int]]) -> None:
    weight = model.model.layers[0].self_attn.k_proj.weight
    found = own_states(model, Ragged(prompts, completions, torch.device("cpu"), predicting=True))
    rows = [
        model.base_model(torch.tensor([[*prompt, *completion]])).last_hidden_state[0][len(prompt) - 1 : -1]
        for prompt, completion in zip(prompts, completions, strict=True)
    ]
    expected = torch.cat(rows)
    assert_close(found, expected, atol=1e-5, rtol=1e-5)
    ours, theirs = (torch.autograd.grad(states.square().sum(), weight)[0] for states in (found, expected))
    assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_a_prompt_without_tokens_is_refused() -> None:
    with pytest.raises(ModelError, match="no tokens"):
        Ragged([[1], []], [[2], [2]], torch.device("cpu"))


@pytest.mark.parametrize(
    "config",
    [
        MistralConfig(**SHAPE, sliding_window=8),
        Qwen2Config(**SHAPE, sliding_window=8, use_sliding_window=True, max_window_layers=0),
        LlamaConfig(**SHAPE, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}),
        LlamaConfig(**SHAPE, hidden_act="gelu"),
    ],
    ids=["mistral with a window", "qwen2 with a window", "angles by length", "another activation"],
)
def test_what_it_does_not_compute_it_does_not_claim(config: Any) -> None:
    assert not is_llama_like(AutoModelForCausalLM.from_config(config))
    assert not is_llama_like(GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=20)))


def test_a_model_with_hooks_of_somebodys_own_runs_as_it_is(model: Any) -> None:
    taken_off = model.base_model.layers[1].register_forward_hook(lambda *_: None)
    assert not is_llama_like(model)
    taken_off.remove()
    assert is_llama_like(model)


def test_half_precision_is_as_close_to_the_truth_as_transformers() -> None:
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(CONFIGS["llama"]).to(torch.bfloat16).eval()
    with torch.no_grad():
        ours, theirs = own_states(model, ragged()), row_by_row(model, predicting=False)
        truth = row_by_row(model.float(), predicting=False)
    assert ours.dtype == torch.bfloat16
    assert (ours - truth).norm() < 1.3 * (theirs - truth).norm()
