"""A second model that reads along has, at every draw, the logits that transformers gives it for the row so far."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

from tuneful.data.templates import prompt_ids
from tuneful.generation import decoding
from tuneful.generation.lockstep import Lockstep
from tuneful.generation.sampler import Sampler
from tuneful.generation.sampling import Sampling
from tuneful.models.adapters import AdapterSet, LoRA
from tuneful.models.roles import Role
from tuneful.records import Prompt

PROMPTS = [Prompt(text) for text in ("hello", "how do i cook bread today", "why", "stop the rain now please")]
SAMPLING = Sampling(num_samples=2, max_new_tokens=24)


def drawn_anew(model: Any, seed: int) -> Any:
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(std=0.25)
    return model.eval()


def two_models(make: Callable[[], Any]) -> tuple[Role, Role]:
    return Role("policy", drawn_anew(make(), 1)), Role("mask", drawn_anew(make(), 2))


def two_adapters(model: Any) -> tuple[Role, Role]:
    """On one base: reading along must not leave the wrong one switched on."""
    adapters = AdapterSet(drawn_anew(model, 1).requires_grad_(False))
    for seed, name in enumerate(("policy", "mask")):
        adapters.add(name, LoRA(rank=2), seed=seed)
        for weight in adapters.named_parameters(name).values():
            weight.data.normal_(std=0.3, generator=torch.Generator().manual_seed(seed))
    return Role("policy", model, adapters, ("policy",)), Role("mask", model, adapters, ("mask",))


@pytest.fixture(params=["llama", "llama, adapters", "gpt2", "t5"])
def roles(request: pytest.FixtureRequest, tiny_model: Any) -> tuple[Role, Role]:
    ids = {"vocab_size": tiny_model.config.vocab_size, "eos_token_id": 2, "bos_token_id": 1}
    if request.param == "gpt2":
        return two_models(lambda: GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, **ids)))
    if request.param == "t5":
        size = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
        return two_models(
            lambda: T5ForConditionalGeneration(T5Config(**size, vocab_size=ids["vocab_size"], eos_token_id=2))
        )
    if request.param == "llama":
        return two_models(lambda: copy.deepcopy(tiny_model))
    return two_adapters(tiny_model)


@torch.no_grad()
def next_logits(role: Role, prompt: list[int], said: list[int]) -> Tensor:
    """[V], by transformers alone."""
    role.activate()
    model = role.model
    if model.config.is_encoder_decoder:
        begun = torch.tensor([[model.config.decoder_start_token_id, *said]])
        asked = torch.tensor([[*prompt, model.config.eos_token_id]])
        logits: Tensor = model(input_ids=asked, decoder_input_ids=begun).logits[0, -1]
        return logits
    return model(torch.tensor([prompt + said])).logits[0, -1]  # type: ignore[no-any-return]


def ended_sooner(logits: Tensor, hidden: Tensor, rows: Tensor) -> Tensor:
    """So that rows leave at different times."""
    logits[:, 2] += 4.0
    return logits


class Watching:
    """A hook that keeps what the second model said at every draw."""

    def __init__(self, beside: Lockstep) -> None:
        self.admit, self.drawn, self.drop = beside.admit, beside.drawn, beside.drop
        self.beside = beside
        self.seen: dict[int, list[Tensor]] = {}

    def __call__(self, logits: Tensor, hidden: Tensor, rows: Tensor) -> Tensor:
        for row, theirs in zip(rows.tolist(), self.beside.logits(rows), strict=True):
            self.seen.setdefault(row, []).append(theirs)
        return ended_sooner(logits, hidden, rows)


@pytest.mark.parametrize("max_rows", [2, 4, 256])
def test_it_reads_what_is_drawn(
    roles: tuple[Role, Role], tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch, max_rows: int
) -> None:
    monkeypatch.setattr(decoding, "MAX_ROWS", max_rows)
    policy, mask = roles
    ids = [prompt_ids(prompt, tiny_tokenizer, max_tokens=None) for prompt in PROMPTS]
    hook = Watching(Lockstep(mask, ids, num_samples=2, max_new_tokens=24))
    waves = policy.model.config.is_encoder_decoder
    told = Sampler(policy, tiny_tokenizer, waves=waves).sample(PROMPTS, SAMPLING, seed=3, choose=hook)
    assert len(set(map(len, told.completions))) > 3
    for row, completion in enumerate(told.completions):
        expected = [next_logits(mask, told.prompts[row], completion[:t]) for t in range(len(completion))]
        assert_close(torch.stack(hook.seen[row]), torch.stack(expected), atol=1e-4, rtol=1e-4)
    free = Sampler(policy, tiny_tokenizer, waves=waves).sample(PROMPTS, SAMPLING, seed=3, choose=ended_sooner)
    assert told.completions == free.completions
    assert_close(told.logprobs, free.logprobs, atol=2e-5, rtol=1e-5)
