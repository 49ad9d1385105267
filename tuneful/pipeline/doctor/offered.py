"""What a data file offers to try a model and a reward on: nothing where it holds none or is broken.

That is a finding of the look at the data.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tuneful.data import formats
from tuneful.errors import DataError
from tuneful.records import Comparison, Completion, Demonstration, Prompt


def prompts_of(path: Path | None) -> list[Prompt]:
    """Its prompts, each once."""
    return list(dict.fromkeys(_read(path, "prompts")))


def comparisons_of(path: Path | None) -> list[Comparison]:
    """Its comparisons."""
    return _read(path, "comparisons")


def demonstrations_of(path: Path | None) -> list[Demonstration]:
    """The answers to imitate; where it compares, the preferred ones, and where it says nothing of worth, all."""
    return _read(path, "demonstrations") or [Demonstration(p, c.text) for p, c in _read(path, "answers")]


def answers_of(path: Path | None) -> list[tuple[Prompt, Completion]]:
    """Every answer, both sides of comparisons one after the other."""
    return (
        _read(path, "answers")
        or [(c.prompt, Completion(text)) for c in comparisons_of(path) for text in (c.chosen, c.rejected)]
        or [(d.prompt, Completion(d.completion)) for d in demonstrations_of(path)]
    )


def _read(path: Path | None, kind: formats.Kind) -> list[Any]:
    if path is None:
        return []
    try:
        return formats.read(path, kind, on_skip=lambda _: None)
    except DataError:
        return []
