"""The parts of a memory plan by hand, and against the sizes of transformers' models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tuneful.engines.memory import Pass, Plan, Row, Shape, Tokens, sampling
from tuneful.generation import decoding
from tuneful.models.adapters import AdapterSet, LoRA
from tuneful.models.loading import Dtype, load_language_model

GUIDE = Path(__file__).resolve().parents[2] / "docs/how-to/real-models.md"


def llama(**settings: Any) -> Any:
    from transformers import LlamaConfig

    sizes = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "vocab_size": 300}
    return LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, **settings)


@pytest.mark.parametrize("tied", [True, False])
def test_weights_are_those_of_transformers_model_but_for_norms(tied: bool) -> None:
    from transformers import LlamaForCausalLM

    config = llama(tie_word_embeddings=tied)
    matrices = sum(weight.numel() for weight in LlamaForCausalLM(config).parameters() if weight.dim() > 1)
    assert Shape.of(config).weights() == 4 * matrices
    assert Shape.of(config).weights("bfloat16") == 2 * matrices


def test_an_adapter_has_as_many_weights_as_peft_gives_it(tiny_model_dir: Any) -> None:
    model = load_language_model(tiny_model_dir)
    adapters = AdapterSet(model)
    adapters.add("policy", LoRA(rank=4))
    assert Shape.of(model.config).adapter(4) == sum(w.numel() for w in adapters.named_parameters("policy").values())


def test_four_bits_by_hand() -> None:
    """Linear layers are quantized; the embedding stays at two bytes.

    q 64 x 64, k and v 64 x 32, o 64 x 64, three of 64 x 160: 43,008 weights a layer, 86,016 in all. Half a byte each is
    43,008; a byte per 64 is 1,344; four bytes per 16,384 is 21. The embedding: 300 x 64 x 2 = 38,400.
    """
    assert Shape.of(llama(tie_word_embeddings=True)).weights("nf4") == 43_008 + 1_344 + 21 + 38_400


def test_tokens_of_two_rows_with_one_prompt_by_hand() -> None:
    """Prompts of 5 and 5 (the same) and 3 tokens: prefixes of 4 and 2; completions of 2, 1 and 3 tokens."""
    rows = [Row(5, 2, "a"), Row(5, 1, "a"), Row(3, 3, "b")]
    tokens = Tokens.of(rows, predicting=True)
    assert (tokens.prefix, tokens.own, tokens.all) == (6, 6, 12)
    assert (tokens.prefix_places, tokens.own_places) == (2 * 4, 3 * 3)
    assert (tokens.key_places, tokens.seen) == (3 * (4 + 3), 3 * (4 + 3) * 3)
    assert Tokens.of(rows, predicting=False).own == 3 + 2 + 4


def test_the_pass_of_another_family_reads_a_prompt_for_each_row_by_hand() -> None:
    """Prefixes of 4, 4 and 2 tokens, of which our own pass reads 4 and 2."""
    rows = [Row(5, 2, "a"), Row(5, 1, "a"), Row(3, 3, "b")]
    shape = Shape.of(llama())
    assert Pass(shape=shape, ours=False).tokens(rows, predicting=True).prefix == 4 + 4 + 2
    assert Pass(shape=shape).tokens(rows, predicting=True).prefix == 4 + 2


def test_what_a_layer_keeps_of_a_token_by_hand() -> None:
    """Prompts of one token: no prefix, no padding. d 64, f 160, q 64, k 32; 8 tokens, of which each sees 8.

    4 x 64 + 3 x 64 + 2 x 32 + 3 x 160 = 992 floats, 4 heads' log-sums and 8 cells of the mask: 1,004 x 4 bytes x 8.
    """
    one = Pass(shape=Shape.of(llama()), rank=4)
    embedding, first, *_ = one.frames(Tokens.of([Row(1, 8, 0)], predicting=True))
    assert (embedding.kept, first.kept) == (0, 1_004 * 4 * 8)


def test_a_head_in_half_precision_makes_its_logits_beside_float32_copies_by_hand() -> None:
    """Of 10 tokens over 300 words, d 64: 3,000 logits; 640 numbers of states and 2^18 of weights, on a CPU alone."""
    half = Pass(shape=Shape.of(llama()), itemsize=2, on_cpu=True)
    assert half.logits(10, 3) == 4 * (3_000 + 640 + 2**18)
    assert replace(half, on_cpu=False).logits(10, 3) == replace(half, itemsize=4).logits(10, 3) == 4 * 9_000


@pytest.mark.parametrize(("room", "rows"), [(1, 3), (4, 4), (256, 6)])
def test_the_samples_of_a_prompt_are_never_parted(monkeypatch: pytest.MonkeyPatch, room: int, rows: int) -> None:
    """Two prompts of 5 tokens, three samples of 3 each: keys and values of 8 tokens a row, 2 x 2 x 32 x 4 bytes."""
    monkeypatch.setattr(decoding, "MAX_CACHE", room * 8 * 512)
    asked = [Row(5, 3, prompt) for prompt in range(2) for _ in range(3)]
    assert sampling(Pass(shape=Shape.of(llama())), asked, on_cpu=True)["keys and values"] == rows * 8 * 512


def test_the_peak_is_that_of_the_largest_phase() -> None:
    plan = Plan(
        always={"weights": 5}, phases={"sampling": {"logits": 7}, "updating": {"gradients": 2, "activations": 6}}
    )
    assert (plan.phase, plan.peak, plan.parts) == ("updating", 13, {"weights": 5, "gradients": 2, "activations": 6})


def test_half_precision_keeps_the_bytes_that_the_module_says() -> None:
    """24 d + 8 q + 4 k + 8 f + 4 x 7 ranks of a token, 4 x 4 of log-sums, 2 x 8 of the mask."""
    one = Pass(shape=Shape.of(llama()), itemsize=torch.bfloat16.itemsize, rank=4)
    first = one.frames(Tokens.of([Row(1, 8, 0)], predicting=True))[1]
    assert 24 * 64 + 8 * 64 + 4 * 32 + 8 * 160 == 3_456
    assert first.kept == (3_456 + 7 * 4 * 4 + 4 * 4 + 2 * 8) * 8


def qwen3(hidden: int, feed_forward: int, layers: int, heads: int) -> Any:
    from transformers import Qwen3Config

    sizes = {"hidden_size": hidden, "intermediate_size": feed_forward, "num_hidden_layers": layers}
    sizes |= {"num_attention_heads": heads, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936}
    return Qwen3Config(**sizes, tie_word_embeddings=True)


def meta(hidden: int, feed_forward: int, layers: int, keys: int, vocabulary: int, *, tied: bool = False) -> Any:
    from transformers import LlamaConfig

    sizes = {"hidden_size": hidden, "intermediate_size": feed_forward, "num_hidden_layers": layers}
    sizes |= {"num_attention_heads": 32, "num_key_value_heads": keys, "vocab_size": vocabulary}
    return LlamaConfig(**sizes, tie_word_embeddings=tied)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("Qwen3-0.6B", qwen3(1_024, 3_072, 28, 16)),
        ("Llama-3.2-1B", meta(2_048, 8_192, 16, 8, 128_256, tied=True)),
        ("Qwen3-1.7B", qwen3(2_048, 6_144, 28, 16)),
        ("Qwen3-4B", qwen3(2_560, 9_728, 36, 32)),
        ("Llama-2-7b", meta(4_096, 11_008, 32, 32, 32_000)),
        ("Llama-3.1-8B", meta(4_096, 14_336, 32, 8, 128_256)),
    ],
)
def test_the_table_in_the_guide_is_the_planner_s(name: str, config: Any) -> None:
    shape = Shape.of(config)
    dtypes: tuple[Dtype, ...] = ("float32", "bfloat16", "nf4")
    adapter = shape.adapter(16)
    cells = [
        name,
        f"{shape.weights() / 4e9:.2f} B",
        *(f"{shape.weights(dtype) / 2**30:.1f}" for dtype in dtypes),
        f"{adapter / 1e6:.0f} M, {16 * adapter / 2**30:.1f}",
        f"{shape.cache(2) / 2**10:.0f} KiB",
        *(f"{Pass(shape=shape, itemsize=size, rank=16).per_token() / 2**20:.1f} MiB" for size in (4, 2)),
    ]
    assert f"| {' | '.join(cells)} |" in GUIDE.read_text(encoding="utf-8")
