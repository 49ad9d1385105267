"""`small:rude_a` and `small:rude_b`: classifiers of rudeness that share no word they were taught, so that one may be a
reward while the other only judges.

Each is a small RoBERTa, from random weights, taught on sentences of DialogSum's training summaries with a word put in
at a random place: a word of its list of the demo world in one half, a word of other summaries in the other. So neither
length nor a strange word gives the label away, and neither classifier ever reads a word of the other's list.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from numpy.random import Generator, default_rng

from tuneful.algorithms.loop import Progress
from tuneful.data.sources import cache_folder
from tuneful.demo.base import store
from tuneful.demo.dialogues import NUM_TRAINING, training_dialogues
from tuneful.demo.toxicity import toxicity_a, toxicity_b
from tuneful.demo.world import world
from tuneful.records import content_hash

LABELS = ("nothate", "hate")
SHAPE: dict[str, Any] = {
    "vocab_size": 2048,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 130,
}
NUM_STEPS = 200
SENTENCES_PER_STEP = 32
LEARNING_RATE = 1e-3

LabeledSentence = tuple[str, int]
"""A text and the number of its label."""


def rude_a(progress: Progress) -> Path:
    """Directory of the classifier that knows list A, trained now unless it is in the cache."""
    return _classifier("a", progress)


def rude_b(progress: Progress) -> Path:
    """Directory of the classifier that knows list B, trained now unless it is in the cache."""
    return _classifier("b", progress)


def labeled_sentences(which: str, summaries: list[str], number: int, rng: Generator) -> list[LabeledSentence]:
    """`number` texts of one to three neighbouring sentences, labeled by list `which` ("a" or "b") of the demo world.

    Every other one is given a word of that list. What holds a word of the other list is not drawn.
    """
    lists = world().toxicity
    own, measure, other = (
        (sorted(lists.a), toxicity_a, toxicity_b) if which == "a" else (sorted(lists.b), toxicity_b, toxicity_a)
    )
    split = [re.split(r"(?<=[.!?])\s+", summary) for summary in summaries if not other(summary)]
    common = sorted({word for sentences in split for sentence in sentences for word in sentence.split()})
    rows = []
    for i in range(number):
        sentences = split[rng.integers(len(split))]
        start = rng.integers(len(sentences))
        words = " ".join(sentences[start : start + rng.integers(1, 4)]).split()
        word = str(rng.choice(own if i % 2 else common))
        words.insert(int(rng.integers(len(words) + 1)), word if rng.random() < 0.5 else f"{word}.")
        text = " ".join(words)
        rows.append((text, int(measure(text))))
    return rows


def _classifier(which: str, progress: Progress) -> Path:
    settings = (SHAPE, NUM_STEPS, SENTENCES_PER_STEP, LEARNING_RATE, NUM_TRAINING, sorted(world().toxicity.a))
    folder = cache_folder() / f"small-rude-{which}-{content_hash(settings, sorted(world().toxicity.b))}"
    return folder if folder.is_dir() else _train(which, folder, progress)


def _train(which: str, folder: Path, progress: Progress) -> Path:
    from transformers import RobertaConfig, RobertaForSequenceClassification

    summaries = [row["summary"] for row in training_dialogues()]
    rows = labeled_sentences(which, summaries, NUM_STEPS * SENTENCES_PER_STEP, default_rng(0))
    tokenizer = _tokenizer([text for text, _ in rows])
    labels: dict[str, Any] = {
        "id2label": dict(enumerate(LABELS)),
        "label2id": {label: i for i, label in enumerate(LABELS)},
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = RobertaForSequenceClassification(RobertaConfig(**SHAPE, **labels))
    model.eval()  # without dropout
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    for step in range(NUM_STEPS):
        part = rows[step * SENTENCES_PER_STEP : (step + 1) * SENTENCES_PER_STEP]
        read = tokenizer([text for text, _ in part], return_tensors="pt", padding=True, truncation=True)
        loss = model(**read, labels=torch.tensor([label for _, label in part])).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        progress(step + 1, NUM_STEPS, {"loss": float(loss.detach())})
    store(model, tokenizer, folder)
    return folder


def _tokenizer(texts: list[str]) -> Any:
    """Byte-level BPE of the texts in RoBERTa's form."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaTokenizer

    pieces = ByteLevelBPETokenizer()
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pieces.train_from_iterator(texts, vocab_size=SHAPE["vocab_size"], special_tokens=specials, show_progress=False)
    trained = json.loads(pieces.to_str())["model"]
    merges: Any = [tuple(pair) for pair in trained["merges"]]
    return RobertaTokenizer(vocab=trained["vocab"], merges=merges, model_max_length=128)
