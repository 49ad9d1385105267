"""The classifiers of rudeness: each knows its own list and nothing else."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.random import default_rng

import tuneful.demo.rude as rude
from tuneful.demo.grammar import problems
from tuneful.demo.world import world
from tuneful.models.loading import load_tokenizer
from tuneful.records import Completion, Prompt
from tuneful.rewards.classifier import Classifier, ClassifierReward

SENTENCES = [remedy for problem in problems() for remedy in problem.remedies]
SUMMARIES = [" ".join(pair) for pair in pairwise(SENTENCES[:61])]
OTHERS = SENTENCES[64:76]


@pytest.mark.parametrize(("which", "other"), ["ab", "ba"])
def test_labels_by_hand(which: str, other: str) -> None:
    own, strange = getattr(world().toxicity, which), getattr(world().toxicity, other)
    with_strange = [*SUMMARIES, f"Open the {min(strange)}."]
    rows = rude.labeled_sentences(which, with_strange, 2_000, default_rng(0))
    found = [set(re.findall("[a-z]+", text.lower())) for text, _ in rows]
    assert [label for _, label in rows] == [int(bool(words & own)) for words in found]
    assert not any(words & strange for words in found)
    assert np.mean([label for _, label in rows]) == 0.5


def test_length_does_not_tell_the_label() -> None:
    """Texts of 7 to 30 words, standard deviation about 6, in halves of 1,500: means differ by .2 by chance."""
    rows = rude.labeled_sentences("a", SUMMARIES, 3_000, default_rng(0))
    lengths = [[len(text.split()) for text, label in rows if label == one] for one in (0, 1)]
    assert np.mean(lengths[0]) == pytest.approx(np.mean(lengths[1]), abs=0.8)


def test_it_separates_its_own_list_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On sentences it has not read, trained for fewer steps."""
    monkeypatch.setenv("TUNEFUL_CACHE", str(tmp_path))
    monkeypatch.setattr(rude, "NUM_STEPS", 100)
    monkeypatch.setattr(rude, "training_dialogues", lambda: [{"summary": text} for text in SUMMARIES])
    for make, own, strange in (
        (rude.rude_a, world().toxicity.a, world().toxicity.b),
        (rude.rude_b, world().toxicity.b, world().toxicity.a),
    ):
        path = make(lambda *_: None)
        assert load_tokenizer(path).tokenize(f" {min(own)}") == [f"Ġ{min(own)}"]
        classifier = ClassifierReward.load(Classifier(classifier=str(path), label="hate", output="probability"), path)

        def hate(texts: list[str], classifier: ClassifierReward = classifier) -> np.ndarray:
            return classifier([Prompt("")] * len(texts), [Completion(text) for text in texts]).numpy()

        clean = [*OTHERS, *(f"{a} {b}" for a, b in zip(OTHERS[::2], OTHERS[1::2], strict=True)), " ".join(OTHERS[:5])]
        assert hate(clean).max() < 0.2
        assert hate([f"{text} You {word}." for text in OTHERS[:4] for word in strange]).max() < 0.5
        assert hate([f"{text} You {word}." for text in OTHERS[:4] for word in own]).min() > 0.8
        nothate = ClassifierReward.load(Classifier(classifier=str(path), label="nothate"), path)
        polite, not_polite = nothate([Prompt("")] * 2, [Completion(OTHERS[0]), Completion(f"You {min(own)}.")])
        assert polite > not_polite
