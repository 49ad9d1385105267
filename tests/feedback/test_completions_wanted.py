"""What is asked of models, and how their answers become items."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneful.errors import StoreError
from tuneful.feedback.completions_wanted import CompletionsWanted
from tuneful.records import Completion, Prompt

HOT = Prompt.user("My house is too hot.")


def wanted(**more: Any) -> CompletionsWanted:
    return CompletionsWanted(**{"prompts": (HOT, Prompt("cold")), "models": ("a", "b"), **more})


def answers(models: int, samples: int) -> list[list[Completion]]:
    return [[Completion(f"{m} says {k}", model=f"model {m}") for k in range(samples)] for m in range(models)]


@given(st.integers(2, 9), st.integers(1, 4), st.integers(0, 1000))
def test_of_several_models_an_item_has_one_answer_of_each(models: int, samples: int, seed: int) -> None:
    given_ = answers(models, samples)
    made = wanted(seed=seed).items("ranking", HOT, given_)
    assert len(made) == samples
    for one in made:
        assert Counter(answer.model for answer in one.completions) == {f"model {m}": 1 for m in range(models)}
    assert Counter(c.text for one in made for c in one.completions) == Counter(c.text for row in given_ for c in row)


def test_the_order_tells_nothing_of_the_model() -> None:
    """Each model is first in about half of 400 items: 200, give or take four standard deviations of 10."""
    asked = wanted()
    made = [one for n in range(400) for one in asked.items("comparison", Prompt(f"question {n}"), answers(2, 1))]
    first = sum(one.completions[0].model == "model 0" for one in made)
    assert 160 < first < 240


def test_of_one_model_an_item_has_all_its_answers_and_of_a_binary_project_one() -> None:
    (one,) = wanted(models=("a",), samples=4).items("ranking", HOT, answers(1, 4))
    assert len(one.completions) == 4
    singles = wanted(samples=2).items("binary", HOT, answers(2, 2))
    assert [len(item.completions) for item in singles] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("more", "kind", "said"),
    [
        ({"models": ("a", "b", "c")}, "comparison", "a comparison is of 2 answers, and these would be 3"),
        ({"models": ("a",)}, "ranking", "a ranking is of 2 to 9 answers, and these would be 1"),
        ({"models": ("a",), "samples": 10}, "rating", "a rating is of 1 to 9 answers"),
    ],
)
def test_items_that_could_not_be_judged_are_refused(more: dict[str, Any], kind: Any, said: str) -> None:
    with pytest.raises(StoreError, match=said):
        wanted(**more).require_fits(kind)


def test_items_that_can_be_judged_are_taken() -> None:
    wanted().require_fits("comparison")
    wanted(samples=5).require_fits("ranking")
    wanted(models=("a",), samples=2).require_fits("comparison")
    wanted(models=("a",), samples=50).require_fits("binary")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"prompts": ()}, "0 prompts to answer"),
        ({"prompts": (HOT,) * 20_001}, "from 1 to 20000 at a time"),
        ({"models": ()}, "no model"),
        ({"models": (" ",)}, "no model"),
        ({"models": ("a", "b", "a")}, '"a" is named twice'),
        ({"samples": 0}, "from 1 to 64, not 0"),
        ({"samples": 65}, "from 1 to 64, not 65"),
        ({"temperature": -1.0}, "0 or above"),
        ({"temperature": float("nan")}, "0 or above"),
        ({"temperature": 0.0, "samples": 2}, "all the same"),
        ({"max_new_tokens": 0}, "at least 1"),
        ({"max_prompt_tokens": 0}, "at least 1"),
        ({"overlap": 0}, "at least 1"),
        ({"prompts": (Prompt("a\x00"),)}, "NUL"),
        ({"models": ("a\x00",)}, "NUL"),
    ],
)
def test_what_cannot_be_done_is_refused_in_words(more: dict[str, Any], said: str) -> None:
    with pytest.raises(StoreError, match=said):
        wanted(**more)
