"""Texts as a reader may see them: what is not seen is named, what is seen stays."""

from __future__ import annotations

import pytest

from tuneful.visible import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u202eb\x1b\x00", "a⟨U+202E⟩b⟨U+001B⟩⟨U+0000⟩"),
        ("no\u00adbreak \u200b\u2066\ufeff", "no⟨U+00AD⟩break ⟨U+200B⟩⟨U+2066⟩⟨U+FEFF⟩"),
        ("\u3164blank\u115f\uffa0\u1160", "⟨U+3164⟩blank⟨U+115F⟩⟨U+FFA0⟩⟨U+1160⟩"),
        ("\U000e0041\ud800\uffff", "⟨U+E0041⟩⟨U+D800⟩⟨U+FFFF⟩"),
        ("line\u2028end\u2029", "line⟨U+2028⟩end⟨U+2029⟩"),
    ],
)
def test_what_is_not_seen_is_named(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize(
    "text",
    ["line\nnext\tcell", "👩\u200d👩\u200d👧", "می\u200cخواهم", "\u06dd٢٨٦", "קפה, café, カフェ", "e\u0301\ufe0f"],
)
def test_what_is_seen_stays(text: str) -> None:
    assert visible(text) == text


def test_the_end_of_a_line_in_two_characters_is_one() -> None:
    assert visible("a\r\nb\rc") == "a\nb⟨U+000D⟩c"
