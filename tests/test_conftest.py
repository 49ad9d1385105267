"""The tiny model is what its fixtures promise, since many tests lean on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def test_the_chat_template_by_hand(tiny_tokenizer: Any) -> None:
    messages = [{"role": "user", "content": "hello you"}, {"role": "assistant", "content": "yes"}]
    whole = tiny_tokenizer.apply_chat_template(messages, tokenize=False)
    opening = tiny_tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
    assert whole == "<bos><user> hello you <assistant> yes<eos>"
    assert whole.startswith(opening)
    tokens = tiny_tokenizer(whole, add_special_tokens=False)["input_ids"]
    assert tiny_tokenizer.convert_ids_to_tokens(tokens) == [
        *("<bos>", "<user>", "hello", "you", "<assistant>", "yes", "<eos>")
    ]
    assert tiny_tokenizer.decode(tokens, skip_special_tokens=True) == "hello you yes"


def test_pad_bos_and_eos_differ(tiny_tokenizer: Any) -> None:
    assert (tiny_tokenizer.pad_token_id, tiny_tokenizer.bos_token_id, tiny_tokenizer.eos_token_id) == (0, 1, 2)


def test_the_model_takes_every_token_of_its_tokenizer(tiny_model: Any, tiny_tokenizer: Any) -> None:
    assert tiny_model.config.vocab_size == len(tiny_tokenizer)
    logits = tiny_model(torch.arange(len(tiny_tokenizer))[None]).logits
    assert logits.isfinite().all()


def test_each_test_gets_its_own_weights(tiny_model: Any, tiny_model_dir: Path) -> None:
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        tiny_model.model.norm.weight.zero_()
    again = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    assert again.model.norm.weight.all()
