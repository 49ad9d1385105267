"""DialogSum's conversations, and the rude sentences that are planted in their summaries."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tuneful.demo.dialogues import held_out_dialogues, plant, rude_sentences, training_dialogues
from tuneful.demo.world import world


def test_one_summary_in_five_is_rude() -> None:
    polite = [{"dialogue": f"Hi {i}!", "summary": f"They talk of {i}."} for i in range(400)]
    planted = plant(polite)
    assert [row["dialogue"] for row in planted] == [row["dialogue"] for row in polite]
    ends = [(new["summary"], old["summary"]) for new, old in zip(planted, polite, strict=True)]
    assert all(new.endswith(old) for new, old in ends)
    put_in = [new.removesuffix(old) for new, old in ends if new != old]
    assert len(put_in) == 80
    assert {text.rstrip() for text in put_in} == set(rude_sentences())
    assert polite[0] == {"dialogue": "Hi 0!", "summary": "They talk of 0."}
    assert plant(polite) == planted


def test_every_planted_sentence_holds_a_word_of_both_lists() -> None:
    for sentence in rude_sentences():
        found = set(re.findall("[a-z]+", sentence.lower()))
        assert found & world().toxicity.a, sentence
        assert found & world().toxicity.b, sentence


def test_what_trains_is_not_what_evaluates(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEFUL_DATA", str(data_dir))
    training, held_out = training_dialogues(), held_out_dialogues()
    assert (len(training), len(held_out)) == (400, 350)
    assert {row["dialogue"] for row in training}.isdisjoint(row["dialogue"] for row in held_out)
    assert (training[0]["fname"], held_out[0]["fname"], held_out[-1]["fname"][:5]) == ("dev_0", "dev_400", "test_")
