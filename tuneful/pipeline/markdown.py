"""Words of strangers and numbers of records, as they can stand in a Markdown page without breaking it."""

from __future__ import annotations

import re
from pathlib import Path

from tuneful.evaluation.report import number, shown
from tuneful.runs.lineage import short_name

LONGEST = 200
"""Characters of a text that are shown."""


def code(text: object) -> str:
    """Any text as a code span on one line; at most LONGEST characters of it."""
    plain = " ".join(shown(str(text)).split())[:LONGEST] or "?"
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", plain)), default=0))
    gap = " " if plain[0] == "`" or plain[-1] == "`" else ""
    return f"{fence}{gap}{plain}{gap}{fence}"


def cell(text: object) -> str:
    """A code span inside a table."""
    return code(text).replace("|", "\\|")


def place(name: str) -> str:
    """What an input of a stage names, for a page anybody may read: a stage, a name, and of a path the last part."""
    if name.startswith("@"):
        return code(name[1:])
    path = Path(name).expanduser()
    is_path = path.is_absolute() or name.startswith((".", "~")) or path.exists()
    return code(short_name(name) if is_path else name)


def told(value: object) -> str:
    """A text, or that it is not known."""
    return "not known" if value is None else code(value)


def counted(value: object) -> str:
    """A number, or that it is not known; before the noun that it counts."""
    return "an unknown number of" if value is None else number(value)


def measured(value: object) -> str:
    """`0.71 [0.68, 0.74]`: the mean and its interval; a plain number where nothing says how sure it is."""
    if not isinstance(value, dict) or "mean" not in value:
        return "not measured" if value is None else number(value)
    low, high = map(number, value.get("interval") or (None, None))
    return f"{number(value['mean'])} [{low}, {high}]"
