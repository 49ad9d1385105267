"""Texts of people and models as a reader may safely see them."""

from __future__ import annotations

import unicodedata
from typing import Final

_LEFT: Final = frozenset("\n\t\u200c\u200d")
"""Besides newlines and tabs the joiners, which emoji and many scripts need."""

_FILLERS: Final = frozenset("\u115f\u1160\u3164\uffa0\ufffe\uffff")
"""Letters of Hangul that are blank, and what is no character, though their category does not say so."""

_SEEN: Final = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u08e2")
"""Marks around numbers in Arabic and Syriac: format characters that are seen."""


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
    if character in _LEFT or character in _SEEN:
        return False
    return character in _FILLERS or unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
