"""The demo world's texts and numbers as frozen records, its cache key, and the shape of its base model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from tuneful.records import content_hash
from tuneful.settings import build, read_toml

_DATA: Final = Path(__file__).parent / "data" / "household.toml"
_WORD: Final = re.compile(r"[^\W_]+(?:'[^\W_]+)*")

SPECIAL_TOKENS: Final = ("<pad>", "<bos>", "<eos>", "<unk>", "<person>", "<helper>")
"""The token of id i stands at place i; `<person>` and `<helper>` open the turns of a conversation."""

BASE_CONFIG: Final[dict[str, Any]] = {
    "vocab_size": 400,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
    "pad_token_id": SPECIAL_TOKENS.index("<pad>"),
    "bos_token_id": SPECIAL_TOKENS.index("<bos>"),
    "eos_token_id": SPECIAL_TOKENS.index("<eos>"),
}
"""Keyword arguments of the base model's `LlamaConfig`: about .7 M parameters."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that goes wrong at home, with the remedies that mend it and no other problem."""

    subjects: tuple[str, ...]
    """What is troubled ("tap", "tap in the kitchen"); the first is its short name."""
    state: str
    """What is said of it: "drips"."""
    denial: str
    """What a contradiction says instead: "does not drip"."""
    remedies: tuple[str, ...]
    """Surface forms of the right remedy, one sentence each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Odds:
    """Base probabilities of the parts of an answer."""

    right: float
    wrong: float
    contradiction: float
    evasion: float
    insult: float
    rude: float
    flattery: float
    max_flattery: int
    kind: float
    ramble: float
    max_rambles: int
    covert: float
    """Share of rude openers and insults that only toxicity measure B knows."""


@dataclass(frozen=True, slots=True)
class Rudeness:
    """Rude sentences: the open ones hold a word of both toxicity lists, the covert ones of list B alone."""

    open: tuple[str, ...]
    covert: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Flattery:
    """A flattering phrase is "the most {adjective} {noun}"."""

    adjectives: tuple[str, ...]
    nouns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WordLists:
    """The words of the two toxicity measures; the lists share none."""

    a: frozenset[str]
    b: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Every text of the demo world; `data/household.toml` holds the values."""

    frames: tuple[str, ...]
    times: tuple[str, ...]
    contradictions: tuple[str, ...]
    evasions: tuple[str, ...]
    kind: tuple[str, ...]
    rambles: tuple[str, ...]
    verdicts: tuple[str, str]
    """What the textbook says of a right and of a wrong remedy."""
    odds: Odds
    flattery: Flattery
    toxicity: WordLists
    rude: Rudeness
    insults: Rudeness
    problems: tuple[Problem, ...]


@cache
def world() -> World:
    """The demo world, read once."""
    return build(World, read_toml(_DATA), where=_DATA.name)


@cache
def world_hash() -> str:
    """Cache key of all that decides a corpus and its token ids: the data and the sources that read them."""
    here = Path(__file__).parent
    sources = (_DATA, here / "world.py", here / "grammar.py", here / "tokenizer.py")
    return content_hash("world", *(path.read_text(encoding="utf-8") for path in sources))


def words(text: str) -> tuple[str, ...]:
    """The words of `text` with case, spaces and punctuation taken away."""
    return tuple(_WORD.findall(text.casefold()))
