from __future__ import annotations

import pytest

from tuneful.errors import DataError
from tuneful.feedback.consensus import consensus
from tuneful.feedback.export import to_comparisons
from tuneful.records import Judgment, Prompt

PROMPT = Prompt("How do I fix a tap?")
TEXTS = {"a": (PROMPT, "Change the washer."), "b": (PROMPT, "No idea."), "c": (PROMPT, "Go away.")}


def agreed() -> list[Judgment]:
    return [
        Judgment(id=rater, item="i", prompt=PROMPT.id, completions=("b", "a", "c"), rater=rater, ranks=(2, 1, 3))
        for rater in ("ann", "ben")
    ]


def test_comparisons_carry_p_weight_and_group() -> None:
    found = consensus(agreed())
    rows = to_comparisons(found, TEXTS)
    assert [(row.chosen, row.rejected) for row in rows] == [
        (TEXTS[q.first][1], TEXTS[q.second][1]) for q in found.pairs
    ]
    assert {row.chosen for row in rows} == {"Change the washer.", "No idea."}
    assert [row.p for row in rows] == [pair.p for pair in found.pairs]
    assert {row.weight for row in rows} == {1 / 3}
    assert {row.group for row in rows} == {"i"}
    assert {row.prompt for row in rows} == {PROMPT}


def test_a_completion_without_text_is_named() -> None:
    with pytest.raises(DataError, match='completion "c" has no text'):
        to_comparisons(consensus(agreed()), {k: TEXTS[k] for k in "ab"})


def test_texts_of_two_prompts_are_refused() -> None:
    with pytest.raises(DataError, match="answer different prompts"):
        to_comparisons(consensus(agreed()), TEXTS | {"c": (Prompt("Other?"), "Go away.")})
