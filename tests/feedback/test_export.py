from __future__ import annotations

from dataclasses import replace

import pytest

from tuneful.errors import DataError
from tuneful.feedback.consensus import consensus
from tuneful.feedback.export import rankings_of, to_comparisons
from tuneful.feedback.slopes import PRIOR_SLOPE
from tuneful.records import Candidates, Completion, Judgment, Prompt

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


def test_rankings_keep_each_raters_order_and_weigh_it_by_the_rater() -> None:
    judged = [Candidates(PROMPT, tuple(Completion(text, id=name) for name, (_, text) in TEXTS.items()))]
    said = [replace(j, ranks=(2, 1, None)) if j.rater == "ben" else j for j in agreed()]
    corrected = replace(agreed()[0], id="later", ranks=(1, 2, 2), replaces="ann")
    first, second = rankings_of([*said, corrected], judged)
    assert first.completions == second.completions == ("No idea.", "Change the washer.", "Go away.")
    assert {first.ranks, second.ranks} == {(2, 1, None), (1, 2, 2)}
    slopes = {r.rater: r.reliability / PRIOR_SLOPE for r in consensus([*said, corrected]).raters}
    assert {(r.ranks, r.slope) for r in (first, second)} == {((2, 1, None), slopes["ben"]), ((1, 2, 2), slopes["ann"])}


def test_a_ranking_of_what_has_no_text_is_named() -> None:
    judged = [Candidates(PROMPT, (Completion("Change the washer.", id="a"),))]
    with pytest.raises(DataError, match='completion "b" has no text'):
        rankings_of(agreed(), judged)
