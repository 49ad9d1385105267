"""What inputs of a stage can name: a path, a data set's name, `world:thing`, `@stage`; and which of them name it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Annotated, Any, Literal, get_args, get_type_hints

Kind = Literal["models", "data", "prompts", "tests", "judgments", "words", "rewards", "raters", "measures"]
"""What an input can name."""

ModelInput = Annotated[str, "models"]
DataInput = Annotated[str, "data"]
PromptsInput = Annotated[str, "data", "prompts"]
TestInput = Annotated[str, "data", "tests"]
JudgmentsInput = Annotated[str, "data", "judgments"]
RatersInput = Annotated[str, "raters"]
MeasureInput = Annotated[str, "measures"]

JUDGED: tuple[Kind, ...] = ("prompts", "tests")
"""What names data whose dev and test splits a stage may evaluate on."""


def named(given: Any, kind: Kind) -> list[str]:
    """What the inputs of a stage that are marked as `kind` name, in the order of its fields and of tables in them."""
    return [text for _, marks, text in marked(given) if kind in marks]


def marked(given: Any) -> Iterator[tuple[str, set[Any], str]]:
    """(setting, marks, text) of all texts in the inputs of a stage that name something, those in tables included."""
    for name, hint in get_type_hints(type(given), include_extras=True).items():
        value, marks = getattr(given, name), _marks(hint)
        for inner in value if isinstance(value, tuple) else (value,):
            if is_dataclass(inner):
                yield from ((name, marks_inside, text) for _, marks_inside, text in marked(inner))
            elif isinstance(inner, str) and marks:
                yield name, marks, inner


def _marks(hint: Any) -> set[Any]:
    """The marks of an annotated type, also inside `X | None` and `tuple[X, ...]`."""
    return {*getattr(hint, "__metadata__", ()), *(mark for inner in get_args(hint) for mark in _marks(inner))}
