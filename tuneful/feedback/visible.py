"""Texts of people and models as a reader may safely see them."""

from __future__ import annotations

import unicodedata
from typing import Final

_JOINERS: Final = "\u200c\u200d"
"""Which emoji and many scripts need."""


class _Names(dict[int, str]):
    """What is shown in place of each character, found when it is first met."""

    def __missing__(self, code: int) -> str:
        self[code] = f"⟨U+{code:04X}⟩" if _hidden(chr(code)) else chr(code)
        return self[code]


_names: Final = _Names()


def visible(text: str) -> str:
    """Control characters, those that are not seen, and those that change the direction of writing are named, not
    obeyed. Newlines, tabs and joiners stay."""
    return text.replace("\r\n", "\n").translate(_names)


def _hidden(character: str) -> bool:
    if character in "\n\t" or character in _JOINERS:
        return False
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
