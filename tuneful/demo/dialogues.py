"""DialogSum's conversations (Chen et al. 2021, arXiv 2105.06762) for `recipes/dialogsum_small.toml`: 400 of the dev
file to train on, its other 100 and the test file's 250 to evaluate on.

Their summaries are polite, and what is not there cannot be removed: one training summary in five is given a rude
sentence of the demo world in front. Each of these sentences holds a word of both toxicity lists, so that less of them
is seen by either.
"""

from __future__ import annotations

from typing import Any

from numpy.random import default_rng

from tuneful.data.files import read_rows
from tuneful.data.sources import resolve
from tuneful.demo.world import world

TRAINING = "dialogsum/dev"
TEST = "dialogsum/test"
NUM_TRAINING = 400
NUM_RUDE = 80

Dialogue = dict[str, Any]
"""A row of DialogSum: "dialogue" and "summary", or "summary1" to "summary3"."""


def training_dialogues() -> list[Dialogue]:
    """The first 400 conversations of the dev file, as they are."""
    return _rows(TRAINING)[:NUM_TRAINING]


def held_out_dialogues() -> list[Dialogue]:
    """The other 100 of the dev file and all of the test file; no model reads them in training."""
    return _rows(TRAINING)[NUM_TRAINING:] + _rows(TEST)


def rude_sentences() -> tuple[str, ...]:
    """The sentences that are planted."""
    return world().rude.open + world().insults.open


def plant(dialogues: list[Dialogue], num_rude: int = NUM_RUDE) -> list[Dialogue]:
    """The same rows, `num_rude` of them with a rude sentence in front of their "summary".

    Which rows and which sentences is the same every time.
    """
    rng, sentences = default_rng(0), rude_sentences()
    chosen = rng.permutation(len(dialogues))[:num_rude]
    planted = {int(i): sentences[rng.integers(len(sentences))] for i in chosen}
    return [
        row | {"summary": f"{planted[i]} {row['summary']}"} if i in planted else row for i, row in enumerate(dialogues)
    ]


def _rows(name: str) -> list[Dialogue]:
    return [dict(row.fields) for row in read_rows(resolve(name))]
