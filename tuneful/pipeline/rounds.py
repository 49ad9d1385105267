"""Rounds: the stages of a recipe, written once and run several times, the later ones on what the earlier ones made.

    rounds = 2

    [[stage]]
    name = "samples"
    do = "generate"
    model = "base"
    again = { model = "@ppo" }     # in later rounds the tuned policy answers

Round 1 runs the stages as they stand. In round r each is called `name_r`, and its settings are those of its table with
those of `again` in their place. `@stage` means that stage in the same round where it runs before this one, else in the
round before; so `@ppo` above is the policy of the round before. A stage with `once = true` runs in round 1 alone, and
all rounds read what it made. A consensus is reached on the judgments of all rounds so far, so that what follows it
learns from old and new (iterated RLHF: Bai et al. 2022, arXiv 2204.05862, section 4.5; Llama 2, arXiv 2307.09288).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuneful.errors import ConfigError

POOLED: Mapping[str, tuple[str, ...]] = {"consensus": ("judgments", "completions")}
"""By kind of stage, the settings that name the stages of all rounds so far."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One stage of one round: its round, from 1, and its table, with the names of that round."""

    round: int
    table: dict[str, Any]


def unrolled(tables: Mapping[str, Mapping[str, Any]], rounds: int) -> list[Turn]:
    """The stages `tables`, by name and in order, of all rounds in the order in which they run.

    Raises ConfigError for an `again` or `once` that cannot be, and for a recipe with nothing in its later rounds.
    """
    once = {name for name, table in tables.items() if _runs_once(name, table)}
    if rounds > 1 and once == tables.keys():
        raise ConfigError(f"rounds = {rounds}, but every stage says once = true; leave it out where a stage repeats")
    turns = []
    for number in range(1, rounds + 1):
        names = [name for name in tables if number == 1 or name not in once]
        for place, name in enumerate(names):
            before = names[:place]
            meant = {other: 1 if other in once else number if other in before else number - 1 for other in tables}
            turns.append(Turn(number, _table(name, tables[name], number, meant)))
    return turns


def _table(name: str, table: Mapping[str, Any], number: int, meant: Mapping[str, int]) -> dict[str, Any]:
    """The table of a stage in round `number`; meant: the round whose stage each `@stage` in it means."""
    own = {key: value for key, value in table.items() if key not in ("again", "once")}
    if number == 1:
        return own
    own |= {"name": _name(name, number), **table.get("again", {})}
    pooled = {
        setting: [f"@{_name(stage, r)}" for r in range(1, meant[stage] + 1)]
        for setting in POOLED.get(str(own.get("do")), ())
        if (stage := str(own.get(setting)).removeprefix("@")) in meant
    }
    return {key: _renamed(value, meant) for key, value in own.items()} | pooled


def _renamed(value: Any, meant: Mapping[str, int]) -> Any:
    """`value` with every `@stage` in it, also inside lists and tables, naming the stage of the round it means."""
    if isinstance(value, str):
        stage = value.removeprefix("@")
        return f"@{_name(stage, meant[stage])}" if value != stage and stage in meant else value
    if isinstance(value, Mapping):
        return {key: _renamed(item, meant) for key, item in value.items()}
    return [_renamed(item, meant) for item in value] if isinstance(value, list) else value


def _name(stage: str, number: int) -> str:
    return stage if number <= 1 else f"{stage}_{number}"


def _runs_once(name: str, table: Mapping[str, Any]) -> bool:
    """Whether a stage says so; what it says of rounds is looked at here."""
    once, again = table.get("once", False), table.get("again", {})
    if not isinstance(once, bool):
        raise ConfigError(f"stage {name}: once = {once!r}: write true, or leave it out")
    if not isinstance(again, Mapping):
        raise ConfigError(f'stage {name}: again = {again!r}: write a table of settings, such as {{ model = "@ppo" }}')
    for key in ("name", "do", "algorithm", "once"):
        if key in again:
            raise ConfigError(f'stage {name}: again cannot change "{key}"; add a stage that does the other thing')
    if once and again:
        raise ConfigError(f"stage {name}: once = true leaves no later round for again to change; drop one of them")
    return once
