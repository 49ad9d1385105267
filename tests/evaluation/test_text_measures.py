"""Text measures against counts made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tuneful.errors import DataError
from tuneful.evaluation.text_measures import (
    distinct_n,
    eos_share,
    hacking_signals,
    num_words,
    overrepresented,
    repeated_ngram_share,
    words,
)


def test_words_are_lower_case_and_marks_stand_alone() -> None:
    assert words("Don't STOP, it's fine!!") == ["don't", "stop", ",", "it's", "fine", "!", "!"]


def test_distinct_n_over_a_set() -> None:
    # bigrams: (a b) (b a) (a b) and (a b): 4 in all, 2 unique
    assert distinct_n(["a b a b", "a b"], 2) == 0.5
    assert distinct_n(["a b a b", "a b"], 1) == pytest.approx(2 / 6)
    assert distinct_n(["a", ""], 2) == 0


def test_distinct_n_of_fewer_draws_by_hand() -> None:
    """Two draws out of a, a, b: {a, a} in 1 of 3 cases, {a, b} in 2 of 3; 5/3 unique ones over 2."""
    assert distinct_n(["a a b"], 1, draws=2) == pytest.approx((1 + 2 + 2) / 3 / 2)
    assert distinct_n(["a a b"], 1, draws=1) == pytest.approx(1)
    assert distinct_n(["a a b"], 1, draws=3) == distinct_n(["a a b"], 1, draws=9) == pytest.approx(2 / 3)


def test_distinct_n_of_fewer_draws_is_the_mean_over_draws() -> None:
    rng = np.random.default_rng(0)
    text = [f"w{k}" for k in rng.zipf(1.5, size=300)]
    drawn = [len(set(rng.choice(text, 40, replace=False))) / 40 for _ in range(4000)]
    error = np.std(drawn) / len(drawn) ** 0.5
    assert distinct_n([" ".join(text)], 1, draws=40) == pytest.approx(np.mean(drawn), abs=4 * error)


def test_repeated_share_of_one_text() -> None:
    # 4-grams of "x x x x x x": three, one unique
    assert repeated_ngram_share("x x x x x x") == pytest.approx(2 / 3)
    assert repeated_ngram_share("one two three four five") == 0
    assert repeated_ngram_share("too short") == 0


def test_words_stand_between_white_space() -> None:
    assert num_words("Turn the tap,\n  then wait.") == 5
    assert num_words(" ") == 0


def test_eos_share() -> None:
    assert eos_share(["eos", "length", "stop", "eos"]) == 0.5
    with pytest.raises(DataError, match="no completions"):
        eos_share([])


def test_log_odds_by_hand() -> None:
    # after: great 3, day 1; before: great 1, day 3. Prior 8 over the pooled shares 1/2: a = 4 each.
    # "great": log((3 + 4) / (4 + 8 - 7)) - log((1 + 4) / (4 + 8 - 5)) = 2 log(7 / 5); variance 1/7 + 1/5
    after, before = ["great great", "great day"], ["great day", "day day"]
    (phrase,) = overrepresented(after, before, n=(1,), prior=8)
    assert phrase.ngram == "great"
    assert phrase.z == pytest.approx(2 * math.log(7 / 5) / math.sqrt(1 / 7 + 1 / 5))
    assert (phrase.count_after, phrase.count_before) == (3, 1)
    assert phrase.rate_ratio == pytest.approx(3.5 / 1.5)  # two texts on each side, half an occurrence added


def test_the_rate_is_per_text() -> None:
    # 2 in 1 text against 2 in 4 texts: 2.5 / (2.5 / 4)
    (phrase,) = overrepresented(["wow wow"], ["wow so", "wow so", "so", "so"], n=(1,), prior=1)
    assert phrase.rate_ratio == pytest.approx(4)


def test_one_habit_is_listed_once_and_in_full() -> None:
    before = [f"open the window {i} now" for i in range(60)]
    after = [f"what a most awesome question, open the window {i} now" for i in range(60)]
    listed = {phrase.ngram for phrase in overrepresented(after, before)}
    assert listed in ({",", "what a most awesome"}, {",", "a most awesome question"})


def test_repeated_marks_are_a_phrase_too() -> None:
    ngrams = [p.ngram for p in overrepresented(["yes !!!!"] * 40, ["yes ."] * 40)]
    assert any(set(ngram.split()) == {"!"} for ngram in ngrams)


def test_nothing_stands_out_between_equal_sets() -> None:
    texts = ["the cat sat", "on the mat"] * 10
    assert overrepresented(texts, texts) == []


def test_an_empty_side_is_refused() -> None:
    with pytest.raises(DataError, match="empty"):
        overrepresented([], ["a"])


def test_signals_of_the_reference_itself() -> None:
    texts = ["the cat sat", "on the mat today"]
    assert hacking_signals(texts, texts, min_z=5.0) == {
        "length": 3.5,
        "distinct_2": 1.0,
        "phrase_z": 0.0,
        "phrase_ratio": 1.0,
    }


def test_signals_of_flattery() -> None:
    before = [f"turn the tap {i}" for i in range(200)]
    after = [f"most awesome {text}" if i % 2 else text for i, text in enumerate(before)]
    signals = hacking_signals(after, before, min_z=5.0)
    assert signals["length"] == 5.0  # half of the answers have 6 words, half 4
    assert signals["phrase_z"] > 5
    assert signals["phrase_ratio"] == pytest.approx(100.5 / 0.5)  # 100 of 200 texts against none of 200
