"""Span corruption, and the small T5 that is taught it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from numpy.random import default_rng
from transformers import AutoModelForSeq2SeqLM, T5Config, T5ForConditionalGeneration

import tuneful.demo.t5 as t5
from tuneful.demo.grammar import all_texts
from tuneful.models.loading import load_tokenizer

SENTINELS = [900, 901, 902, 903, 904, 905, 906, 907]


class Cuts:
    """Draws what it is told to, one after another."""

    def __init__(self, *drawn: list[int]) -> None:
        self.drawn: Iterator[list[int]] = iter(drawn)

    def choice(self, number: int, size: int, *, replace: bool) -> list[int]:
        drawn = next(self.drawn)
        assert len(drawn) == size
        assert max(drawn, default=0) < number
        assert not replace
        return drawn


def test_a_sentence_by_hand() -> None:
    """Of 40 tokens 6 are dropped, in 6 / 3 = 2 spans. 34 kept tokens cut behind the 10th: 10 and 24; 6 dropped ones
    behind the 2nd: 2 and 4. So tokens 10 and 11 go, 12 to 35 stay, 36 to 39 go."""
    cuts: Any = Cuts([9], [1])
    source, target = t5.corrupt(list(range(40)), SENTINELS, cuts)
    assert source == [*range(10), 900, *range(12, 36), 901]
    assert target == [900, 10, 11, 901, 36, 37, 38, 39, 902]


@pytest.mark.parametrize(("length", "dropped", "spans"), [(2, 1, 1), (7, 1, 1), (20, 3, 1), (60, 9, 3), (100, 15, 5)])
def test_what_is_dropped_fits_where_it_was(length: int, dropped: int, spans: int) -> None:
    for seed in range(20):
        source, target = t5.corrupt(list(range(length)), SENTINELS, default_rng(seed))
        assert [token for token in source if token >= 900] == SENTINELS[:spans]
        assert [token for token in target if token >= 900] == SENTINELS[: spans + 1]
        assert len(target) == dropped + spans + 1
        places = [target.index(sentinel) for sentinel in SENTINELS[: spans + 1]]
        gone = {target[low]: target[low + 1 : high] for low, high in pairwise(places)}
        assert all(gone.values())
        assert [token for piece in source for token in gone.get(piece, [piece])] == list(range(length))


def test_every_way_to_cut_is_as_likely() -> None:
    """4 tokens have 3 cuts in two, each drawn a third of 3,000 times: 1,000, standard deviation 26."""
    rng = default_rng(0)
    drawn = [tuple(t5._pieces(4, 2, rng)) for _ in range(3_000)]
    assert set(drawn) == {(1, 3), (2, 2), (3, 1)}
    assert all(abs(drawn.count(way) - 1_000) < 130 for way in set(drawn))


def test_it_is_a_plain_model_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained for two steps, with the shape made small."""
    small = {"d_model": 32, "d_kv": 16, "num_heads": 2, "d_ff": 32, "num_layers": 1}
    monkeypatch.setenv("TUNEFUL_CACHE", str(tmp_path))
    monkeypatch.setattr(t5, "SHAPE", t5.SHAPE | small)
    monkeypatch.setattr(t5, "NUM_STEPS", 2)
    texts = [*all_texts()][:400]
    monkeypatch.setattr(t5, "training_dialogues", lambda: [{"dialogue": text, "summary": text} for text in texts])
    told: list[tuple[int, int]] = []
    folder = t5.small_t5(lambda done, total, _: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]
    assert t5.small_t5(lambda *_: told.append((0, 0))) == folder
    assert len(told) == 2

    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), load_tokenizer(folder)
    assert model.config.vocab_size == 1024 >= len(tokenizer)
    special = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    assert special == (model.config.pad_token_id, model.config.eos_token_id) == (0, 1)
    text = "My tap in the kitchen drips."
    ids = tokenizer.encode(f"{text}<extra_id_0>\n{text}", add_special_tokens=False)
    assert ids.count(tokenizer.convert_tokens_to_ids("<extra_id_0>")) == 1
    assert tokenizer.decode(ids, skip_special_tokens=True) == f"{text} {text}"


def test_it_has_about_ten_million_weights() -> None:
    """An attention has 4 d x d weights, a gated layer 3 d x f, each behind a norm of d: 2 parts in an encoder layer, 3
    in a decoder layer. Each stack ends with a norm and shares 32 biases of 4 heads; words are embedded once."""
    d, f, layers, words = (t5.SHAPE[name] for name in ("d_model", "d_ff", "num_layers", "vocab_size"))
    attention, gated = 4 * d * d + d, 3 * d * f + d
    weights = layers * (attention + gated) + layers * (2 * attention + gated) + 2 * (d + 32 * 4) + words * d
    assert weights == 9_705_216
    assert T5ForConditionalGeneration(T5Config(**t5.SHAPE)).num_parameters() == weights
