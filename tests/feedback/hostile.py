"""Texts that must come through every file as they are."""

from __future__ import annotations

HOSTILE = [
    "<script>alert(1)</script>",
    "\u202eright to left\u202c and \u2066isolated\u2069",
    "zero\u200bwidth \ufeff",
    "\x00\x01\x1b[31mred\x7f\x85",
    "line\u2028separator\r\nand\ttab",
    "=HYPERLINK(1)",
    "x" * 1_000_000,
    "e\u0301\u0301\u0301 \U0001f469\u200d\U0001f469",
]
