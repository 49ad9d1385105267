"""Which prompts say the same: by hand, by a count over tuples of words, and on the demo's and HH's prompts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneful.data.formats import read_prompts
from tuneful.data.overlap import RUN, Seen, overlapping
from tuneful.records import Message, Prompt

POST = "My landlord says that the heating will not be mended before the end of the month, and what can I do about it?"


@pytest.mark.parametrize(
    ("text", "overlaps"),
    [
        (POST, True),
        (
            "my landlord SAYS: 'that the heating will (not) be mended before (the) end' -- he is wrong",
            True,
        ),  # 13 in a row
        ("my landlord SAYS: 'that the heating will (not) be mended before the' -- he is wrong", False),  # 12 in a row
        ("What about the heating?", False),
        ("tap, the  DRIPS", False),
        ("The tap drips!", True),
        ("?!", False),
        ("", False),
    ],
)
def test_overlap_by_hand(text: str, overlaps: bool) -> None:
    seen = Seen([Prompt.user(POST), Prompt("the tap drips"), Prompt("...")])
    assert seen.overlaps(Prompt(text)) is overlaps


def test_the_first_user_turn_is_compared() -> None:
    talk = Prompt(
        (Message("system", "Be brief."), Message("user", "Why?"), Message("assistant", POST), Message("user", "So?"))
    )
    assert overlapping([Prompt("so"), Prompt(POST), Prompt("WHY")], [talk]) == [2]


def test_nothing_overlaps_with_nothing() -> None:
    assert overlapping([Prompt(POST)], []) == []


texts = st.lists(st.sampled_from(["tap", "the", "drips"]), max_size=RUN + 4).map(" ".join)


@given(st.lists(texts, max_size=4), st.lists(texts, max_size=4))
def test_overlap_is_that_of_sets_of_words(some: list[str], others: list[str]) -> None:
    def parts(text: str) -> set[tuple[str, ...]]:
        said = tuple(text.split())
        return {said[i : i + 13] for i in range(len(said) - 12)} | ({said} if said else set())

    given_away = set().union(*map(parts, others))
    # Equal as a whole, or a run of 13: a text of 13 words is both.
    expected = [
        i for i, text in enumerate(some) if {p for p in parts(text) & given_away if len(p) == 13} or text in others
    ]
    expected = [i for i in expected if some[i]]
    assert overlapping([Prompt(text) for text in some], [Prompt(text) for text in others]) == expected


def test_hh_small_trains_on_no_near_copy_of_its_test_file(data_dir: Path) -> None:
    # Counted apart, with tuples of words: 18 of 1,492 share their whole first turn and no other one overlaps.
    train, test = (
        read_prompts(data_dir / "hh-harmless" / f"{name}.jsonl.gz", on_skip=lambda _: None)
        for name in ("train", "test")
    )
    equal = {prompt.first_turn for prompt in test}
    found = [train[i] for i in overlapping(train, test)]
    assert {prompt.first_turn for prompt in found} <= equal
    assert len({prompt.first_turn for prompt in found}) == 18
