"""What differs between two texts: read without what is new it is the old one, and the other way round."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tuneful.web.wording import changes

TEXTS = st.lists(st.sampled_from(["", "Be kind.", "Be short.", "<b>"]), max_size=8).map("\n".join)


@given(TEXTS, TEXTS)
def test_both_texts_can_be_read_from_it(before: str, after: str) -> None:
    parts = changes(before, after)
    assert [line for kind, line in parts if kind != "new"] == before.splitlines()
    assert [line for kind, line in parts if kind != "old"] == after.splitlines()


def test_a_line_that_stays_is_not_told_as_new() -> None:
    assert changes("a\nb\nc", "a\nB\nc") == [("same", "a"), ("old", "b"), ("new", "B"), ("same", "c")]
    assert changes("a\r\nb", "a\nb") == [("same", "a"), ("same", "b")]
