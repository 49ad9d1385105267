"""What tests of whole pipelines write: recipes from their stages, and words that the tiny models know."""

from __future__ import annotations

import json
from collections.abc import Mapping

WORDS = "bread cold cook day dog door fine fix green help hot house light near quiet rain red sleep tap tea".split()


def stage_toml(name: str, **settings: object) -> str:
    """A `[[stage]]` table of a recipe."""
    return "[[stage]]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in {"name": name, **settings}.items())


def _toml(value: object) -> str:
    """Texts, numbers and lists are written as in JSON; a path is a text."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {_toml(item)}' for key, item in value.items())} }}"
    return json.dumps(value, default=str)
