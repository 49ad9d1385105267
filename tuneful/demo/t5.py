"""`small:t5`: an encoder-decoder of 9.7 M parameters that was taught span corruption (Raffel et al. 2020, arXiv
1910.10683, 3.1.4) on the training dialogues of DialogSum and their polite summaries, with a tokenizer of their own.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from numpy.random import Generator, default_rng

from tuneful.algorithms.loop import Progress
from tuneful.algorithms.sft import nll_loss
from tuneful.data.sources import cache_folder
from tuneful.demo.base import store
from tuneful.demo.dialogues import NUM_TRAINING, training_dialogues
from tuneful.engines.local import LocalEngine
from tuneful.engines.optimization import Optimization
from tuneful.engines.protocol import Batch
from tuneful.models.roles import Role, Roles, named_weights
from tuneful.records import content_hash
from tuneful.settings import as_table

CORRUPTED = 0.15
"""Share of the tokens that is dropped."""
MEAN_SPAN = 3.0
"""Tokens in a dropped span, on average."""
SHAPE: dict[str, Any] = {
    "vocab_size": 1024,
    "d_model": 256,
    "d_kv": 64,
    "num_heads": 4,
    "d_ff": 1024,
    "num_layers": 4,
    "feed_forward_proj": "gated-gelu",
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
NUM_SENTINELS = 32
NUM_STEPS = 800
ROWS_PER_STEP = 16
TOKENS_PER_ROW = 96
OPTIMIZATION = Optimization(learning_rate=6e-4, schedule="cosine", warmup_steps=20, adam_eps=1e-8)


def small_t5(progress: Progress) -> Path:
    """Directory of the model, trained now unless it is in the cache."""
    settings = (SHAPE, NUM_SENTINELS, NUM_STEPS, ROWS_PER_STEP, TOKENS_PER_ROW, as_table(OPTIMIZATION))
    folder = cache_folder() / f"small-t5-{content_hash(settings, NUM_TRAINING, CORRUPTED, MEAN_SPAN)}"
    return folder if folder.is_dir() else _train(folder, progress)


def corrupt(ids: list[int], sentinels: list[int], rng: Generator) -> tuple[list[int], list[int]]:
    """What the encoder reads and what the decoder is to say, without an end token.

    Of n tokens .15 n are dropped, in spans of 3 on average; what is kept and what is dropped takes turns, and both are
    cut into their pieces evenly at random. Each span leaves its sentinel; the target is every span behind its sentinel,
    and a last sentinel. ids: at least 2.
    """
    num_dropped = max(round(CORRUPTED * len(ids)), 1)
    num_spans = max(round(num_dropped / MEAN_SPAN), 1)
    kept, dropped = _pieces(len(ids) - num_dropped, num_spans, rng), _pieces(num_dropped, num_spans, rng)
    source: list[int] = []
    target: list[int] = []
    place = 0
    for sentinel, stay, go in zip(sentinels, kept, dropped, strict=False):
        source += [*ids[place : place + stay], sentinel]
        target += [sentinel, *ids[place + stay : place + stay + go]]
        place += stay + go
    return source, [*target, sentinels[num_spans]]


def _pieces(total: int, number: int, rng: Generator) -> list[int]:
    """Sizes of the `number` pieces, none empty, into which `total` is cut; every way to cut is as likely."""
    cuts = sorted(int(cut) + 1 for cut in rng.choice(total - 1, number - 1, replace=False))
    return [high - low for low, high in zip([0, *cuts], [*cuts, total], strict=True)]


def _train(folder: Path, progress: Progress) -> Path:
    from transformers import T5Config, T5ForConditionalGeneration

    texts = [f"{row['dialogue']}\n{row['summary']}" for row in training_dialogues()]
    tokenizer = _tokenizer(texts)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = T5ForConditionalGeneration(T5Config(**SHAPE))
    model.eval()  # without dropout
    roles = Roles(policy=Role("policy", model, weights=named_weights("policy", model)))
    engine = LocalEngine(roles, tokenizer, optimization=OPTIMIZATION, total_steps=NUM_STEPS)
    sentinels = tokenizer.convert_tokens_to_ids([f"<extra_id_{i}>" for i in range(NUM_SENTINELS)])
    end = tokenizer.eos_token_id
    stream = [token for text in texts for token in [*tokenizer.encode(text, add_special_tokens=False), end]]
    rng = default_rng(0)
    for step in range(NUM_STEPS):
        starts = rng.integers(len(stream) - TOKENS_PER_ROW, size=ROWS_PER_STEP)
        pairs = [corrupt(stream[start : start + TOKENS_PER_ROW], sentinels, rng) for start in starts]
        batch = Batch(role="policy", prompts=[asked for asked, _ in pairs], completions=[[*t, end] for _, t in pairs])
        num_tokens = sum(map(len, batch.completions))
        metrics = engine.forward_backward(batch, partial(nll_loss, num_tokens=num_tokens))
        engine.step(1.0)
        progress(step + 1, NUM_STEPS, metrics)
    store(model, tokenizer, folder)
    return folder


def _tokenizer(texts: list[str]) -> Any:
    """BPE of the texts; as in T5's, a new line is a space, and a space belongs to the word behind it."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    pieces = Tokenizer(models.BPE(unk_token="<unk>"))
    pieces.normalizer = normalizers.Replace("\n", " ")
    pieces.pre_tokenizer = pre_tokenizers.Metaspace()
    pieces.decoder = decoders.Metaspace()
    sentinels = [f"<extra_id_{i}>" for i in range(NUM_SENTINELS)]
    specials = ["<pad>", "</s>", "<unk>", *sentinels]
    trainer = trainers.BpeTrainer(vocab_size=SHAPE["vocab_size"], special_tokens=specials, show_progress=False)
    pieces.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=pieces,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=sentinels,
        clean_up_tokenization_spaces=False,
    )
