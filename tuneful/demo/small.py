"""The small model of `recipes/hh_small.toml`: the one that is there by name, else one of its shape trained here.

`base-5m` is looked for in `$TUNEFUL_MODELS`, then in `../shared/models`. Without it a Llama of 5 M parameters and a
byte-level tokenizer are trained on both sides of the HH harmlessness comparisons, which takes some minutes and gives a
much weaker speaker: results with it are its own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from tuneful.algorithms.loop import Progress
from tuneful.algorithms.sft import SFT, SFTConfig
from tuneful.data.formats import read_comparisons
from tuneful.data.sources import cache_folder, resolve
from tuneful.data.transcripts import transcript
from tuneful.demo.base import store
from tuneful.demo.minilm import minilm
from tuneful.demo.rude import rude_a, rude_b
from tuneful.demo.t5 import small_t5
from tuneful.engines.local import LocalEngine
from tuneful.engines.optimization import Optimization
from tuneful.models.roles import Role, Roles, named_weights
from tuneful.pipeline.context import World
from tuneful.records import Comparison, Demonstration, Message, content_hash
from tuneful.settings import as_table

NAME = "base-5m"
SHAPE: dict[str, Any] = {
    "vocab_size": 4096,
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SOURCE = "hh-harmless/train"
CONFIG = SFTConfig(
    demonstrations_per_step=16,
    epochs=2,
    max_tokens=384,
    optimization=Optimization(learning_rate=1e-3, schedule="cosine", warmup_steps=20, adam_eps=1e-8),
)
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ ('\\n\\nHuman: ' if m['role'] == 'user' else '\\n\\nAssistant: ') + m['content'] }}"
    "{% if m['role'] == 'assistant' and loop.last %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n\\nAssistant:' }}{% endif %}"
)
"""The form of the HH transcripts."""


def small_world() -> World:
    """What `small:name` means in a recipe: this model, and those of files of their own."""
    return World(models={"base": small_base, "minilm": minilm, "t5": small_t5, "rude_a": rude_a, "rude_b": rude_b})


def small_base(progress: Progress) -> Path:
    """Directory of the small model, trained now when it is neither given nor cached."""
    named = os.environ.get("TUNEFUL_MODELS")
    for folder in [*([Path(named).expanduser()] if named else []), Path("../shared/models")]:
        if (folder / NAME).is_dir():
            return folder / NAME
    key = content_hash(SHAPE, SOURCE, CHAT_TEMPLATE, as_table(CONFIG))
    cached = cache_folder() / f"small-base-{key}"
    return cached if cached.is_dir() else _train(cached, progress)


def _train(folder: Path, progress: Progress) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    comparisons = read_comparisons(resolve(SOURCE), on_skip=lambda _: None)
    tokenizer = _tokenizer(comparisons)
    rows = [Demonstration(c.prompt, text) for c in comparisons for text in (c.chosen, c.rejected)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**SHAPE))
    num_steps = CONFIG.num_steps(len(rows))
    roles = Roles(policy=Role("policy", model, weights=named_weights("policy", model)))
    engine = LocalEngine(roles, tokenizer, optimization=CONFIG.optimization, total_steps=num_steps)
    learner = SFT(engine, rows, CONFIG, tokenizer)
    for step in range(num_steps):
        progress(step + 1, num_steps, learner.step())
    store(model, tokenizer, folder)
    return folder


def _tokenizer(comparisons: list[Comparison]) -> Any:
    """Byte-level BPE over the transcripts, with three different special tokens."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    texts = (
        transcript((*c.prompt.content, Message("assistant", c.chosen)))
        for c in comparisons
        if not isinstance(c.prompt.content, str)
    )
    bytes_ = ByteLevelBPETokenizer()
    bytes_.train_from_iterator(texts, vocab_size=SHAPE["vocab_size"], special_tokens=["<pad>", "<bos>", "<eos>"])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bytes_._tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        chat_template=CHAT_TEMPLATE,
        model_max_length=SHAPE["max_position_embeddings"],
        clean_up_tokenization_spaces=False,
    )
