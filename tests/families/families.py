"""Tiny models of each family, of the real configuration classes, with few random weights and small windows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers
from transformers import (
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    ModernBertConfig,
    ModernBertModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizer,
    T5Config,
    T5ForConditionalGeneration,
)

from tests.conftest import WORDS, save_bert

IDS: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
GROUPED = SHAPE | {"num_key_value_heads": 2}
WINDOW: dict[str, Any] = {"sliding_window": 5}
BY_TURNS = WINDOW | {"layer_types": ["sliding_attention", "full_attention"]}
GEMMA = GROUPED | {"head_dim": 8, "query_pre_attn_scalar": 8}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "bos_token_id": 1, "eos_token_id": 2}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4}
T5 |= {"pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0}
BART = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
BART |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 128}

Build = Callable[[int], Any]
"""Number of tokens -> model of random weights."""

DECODERS: dict[str, Build] = {
    "Llama": lambda size: LlamaForCausalLM(LlamaConfig(vocab_size=size, **GROUPED, **IDS)),
    "Qwen3": lambda size: Qwen3ForCausalLM(Qwen3Config(vocab_size=size, head_dim=8, **GROUPED, **IDS)),
    "GPT-2": lambda size: GPT2LMHeadModel(GPT2Config(vocab_size=size, **GPT2)),
    "Mistral": lambda size: MistralForCausalLM(MistralConfig(vocab_size=size, **GROUPED, **IDS, sliding_window=None)),
    "Mistral with a window": lambda size: MistralForCausalLM(
        MistralConfig(vocab_size=size, **GROUPED, **IDS, **WINDOW)
    ),
    "Gemma": lambda size: GemmaForCausalLM(GemmaConfig(vocab_size=size, head_dim=8, **GROUPED, **IDS)),
    "Gemma 2": lambda size: Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=size,
            **GEMMA,
            **IDS,
            **BY_TURNS,
            attn_logit_softcapping=5.0,
            final_logit_softcapping=10.0,
        )
    ),
    "Gemma 3": lambda size: Gemma3ForCausalLM(Gemma3TextConfig(vocab_size=size, **GEMMA, **IDS, **BY_TURNS)),
}
ENCODER_DECODERS: dict[str, Build] = {
    "T5": lambda size: T5ForConditionalGeneration(T5Config(vocab_size=size, **T5)),  # type: ignore[arg-type]
    "BART": lambda size: BartForConditionalGeneration(BartConfig(vocab_size=size, **BART)),  # type: ignore[arg-type]
}
ENCODERS: dict[str, Build] = {
    "BERT": lambda size: BertModel(BertConfig(vocab_size=size, **SHAPE)),
    "RoBERTa": lambda size: RobertaModel(
        RobertaConfig(vocab_size=size, **SHAPE | {"max_position_embeddings": 130}, type_vocab_size=1)
    ),
    "ModernBERT": lambda size: ModernBertModel(
        ModernBertConfig(
            vocab_size=size,
            **SHAPE,
            local_attention=8,
            global_attn_every_n_layers=2,
            pad_token_id=0,
            cls_token_id=2,
            sep_token_id=3,
        )
    ),
    "DeBERTa": lambda size: DebertaV2Model(
        DebertaV2Config(
            vocab_size=size,
            **SHAPE,
            relative_attention=True,
            position_buckets=8,
            pos_att_type=["p2c", "c2p"],
            norm_rel_ebd="layer_norm",
            share_att_key=True,
            type_vocab_size=0,
        )
    ),
}
POLICIES = DECODERS | ENCODER_DECODERS
FAMILIES = POLICIES | ENCODERS

TRAINED = ("Llama", "Qwen3", "GPT-2", "T5", "BART")
"""Those that go through every stage: SFT, reward model, PPO, save, reload, resume."""
REWARDS = ("BERT", "RoBERTa")
"""Encoders that are trained as reward models and used in PPO."""


def save(name: str, folder: Path, tiny_model_dir: Path) -> Path:
    """A model of the family `name` of wide weights, with a tokenizer of the family's form."""
    if name in ("BERT", "ModernBERT", "DeBERTa"):
        save_bert(folder, BertModel, WORDS, seed=0)
        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    elif name in ("RoBERTa", "BART"):
        tokenizer = byte_tokenizer()
    else:
        tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
        if name == "T5":
            tokenizer.bos_token = tokenizer.chat_template = None
    model = widen(FAMILIES[name](len(tokenizer)))
    if name == "BART":
        model.final_logits_bias[0, tokenizer.eos_token_id] = 6  # among 260 tokens the end is seldom drawn
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def byte_tokenizer() -> Any:
    """As RoBERTa's and BART's: <s> begins and </s> ends a text, ids 0 and 2; <pad> is 1. Every byte is a token."""
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    vocabulary |= {character: 4 + i for i, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer: Any = RobertaTokenizer(vocab=vocabulary | {"<mask>": len(vocabulary)}, merges=[], model_max_length=128)
    return tokenizer


def widen(model: Any) -> Any:
    """Draw the weights wide, so that a wrong position, mask or window shows."""
    torch.manual_seed(4)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and "relative_attention_bias" not in name:
                weight.normal_(std=0.25)
    return model.eval()
