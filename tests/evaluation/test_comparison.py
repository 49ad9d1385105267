"""Comparing models whose texts are written out, so that every number is known."""

from __future__ import annotations

import json

import pytest

from tuneful.errors import DataError
from tuneful.evaluation.comparison import compare_models
from tuneful.records import Prompt

PROMPTS = [Prompt.user("one"), Prompt.user("two")]
BEFORE = [["a", "a b"], ["a b c", "a"]]
AFTER = [["a b", "a b"], ["a b c", "a b c"]]


def num_words(prompt: Prompt, text: str) -> float:
    return len(text.split())


def test_a_comparison_by_hand() -> None:
    # lengths before 1 2 3 1, after 2 2 3 3: means 1.75 and 2.5; after is longer twice and equal twice
    report = compare_models(PROMPTS, BEFORE, AFTER, {"length": num_words}, judge="length")
    assert report["before"]["length"]["mean"] == 1.75
    assert report["after"]["length"] == {"mean": 2.5, "interval": [2.0, 3.0], "n": 2}
    assert report["difference"]["length"]["mean"] == 0.75
    assert report["win_rate"]["mean"] == 0.75
    # bigrams before: (a b) (a b) (b c); after: (a b) four times, (b c) twice, of which three are drawn:
    # 4 of the 20 draws are (a b) alone, none (b c) alone, so 36 unique ones in 20 draws of three
    assert report["before"]["distinct_2"] == pytest.approx(2 / 3)
    assert report["after"]["distinct_2"] == pytest.approx(36 / 60)
    assert (report["num_prompts"], report["num_samples"]) == (2, 4)
    assert sum(report["distributions"]["length"]["after"]) == 4
    assert len(report["distributions"]["length"]["edges"]) == len(report["distributions"]["length"]["before"]) + 1
    json.dumps(report, allow_nan=False)


def test_a_measure_sees_its_own_prompt() -> None:
    report = compare_models(PROMPTS, BEFORE, BEFORE, {"first": lambda prompt, text: prompt.text == "one"})
    assert report["after"]["first"]["mean"] == 0.5
    assert report["difference"]["first"] == {"mean": 0.0, "interval": [0.0, 0.0], "n": 2}
    assert "win_rate" not in report


def test_a_planted_phrase_is_listed() -> None:
    prompts = [Prompt.user(str(i)) for i in range(40)]
    before = [[f"turn tap {i}"] for i in range(40)]
    after = [[f"most awesome. turn tap {i}"] for i in range(40)]
    report = compare_models(prompts, before, after, {"length": num_words})
    assert "most awesome" in [phrase["ngram"] for phrase in report["phrases"]]


def test_refusals() -> None:
    with pytest.raises(DataError, match="2 prompts need as many rows"):
        compare_models(PROMPTS, BEFORE[:1], AFTER, {"length": num_words})
    with pytest.raises(DataError, match="prompt 1: 2 completions before and 1 after"):
        compare_models(PROMPTS, BEFORE, [AFTER[0], ["a"]], {"length": num_words})
    with pytest.raises(DataError, match='did you mean "length"'):
        compare_models(PROMPTS, BEFORE, AFTER, {"length": num_words}, judge="lenght")
    with pytest.raises(DataError, match='measure "odd" gave nan'):
        compare_models(PROMPTS, BEFORE, AFTER, {"odd": lambda prompt, text: float("nan")})
