"""Questions in turns as MT-bench has them (Zheng et al. 2023, arXiv 2306.05685): `{"turns": [first, second]}`.

The second turn is asked after a model's answer to the first, so the first alone is a prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tuneful.data.fields import text_of
from tuneful.data.row import Row, Skip
from tuneful.records import Prompt


def prompts(rows: Iterable[Row], _: Skip) -> Iterator[Prompt]:
    """The first turn of every question."""
    for row in rows:
        turns = row.value("turns")
        if not isinstance(turns, list) or not turns:
            raise row.error("expected a list of at least one turn", "write what is asked", "turns")
        yield Prompt.user(text_of(row, turns[0], "turns[0]"))
