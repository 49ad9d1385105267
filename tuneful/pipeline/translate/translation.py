"""What became of the settings of another tool: a recipe of one stage, and a reason for each setting that has no place.

A translator reads every setting through a `Reading`, which keeps what was asked for. A setting that nobody asked for
is unknown, and told: none is dropped in silence.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from tuneful.errors import ConfigError

Group = Literal["learned", "other", "unknown"]
"""Whether leaving a setting out changes what is learned, changes something else, or nobody knows."""

HEADER = ("seed", "splits")
"""What stands above the stage."""


@dataclass(frozen=True, slots=True)
class Counterpart:
    """A setting of the recipe and where it comes from."""

    theirs: str
    """The settings it follows from, as `name = value`; "" for what no setting of theirs says."""
    ours: str
    """Its name, such as `optimization.learning_rate`."""
    value: Any
    note: str = ""
    """How it was converted, or what differs; the recipe has it as a comment."""
    pending: bool = False
    """It stands for something that has to be written or set before the recipe can run."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A setting without counterpart."""

    name: str
    value: Any
    why: str
    group: Group
    silent: bool = False
    """The file says nothing: it is the tool's default."""


@dataclass(frozen=True, slots=True)
class Translation:
    """The settings of one file, read."""

    tool: str
    kind: str
    """The algorithm or class of settings, as the tool calls it."""
    algorithm: str
    """Ours, and the name of the stage."""
    counterparts: tuple[Counterpart, ...]
    lost: tuple[Lost, ...]
    at_default: int
    """Settings without counterpart that stand at the tool's default, or have no effect there."""

    def recipe(self, opening: str = "") -> str:
        """The text of the recipe; opening: a comment at its head."""
        above = [line for one in self.counterparts if one.ours in HEADER for line in _line(one)]
        below = [line for one in self.counterparts if one.ours not in HEADER for line in _line(one)]
        stage = ["[[stage]]", f'name = "{self.algorithm}"', *below]
        return "\n".join([*([f"# {opening}"] if opening else []), *above, "", *stage, ""])


@dataclass(slots=True)
class Reading:
    """The settings of a file by name, nested ones with dots, and what has become of each so far."""

    where: str
    """What opens every error: the file."""
    given: Mapping[str, Any]
    devices: int = 1
    """On how many the tool's run was: its batches are counted for one."""
    rows: int | None = None
    """Rows of the training data, from which numbers of steps follow."""
    counterparts: list[Counterpart] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    placed: set[str] = field(default_factory=set)
    """The settings that have a counterpart."""
    seen: dict[str, Any] = field(default_factory=dict)
    """The settings that were asked for, with their default where the file is silent."""

    def value(self, name: str, default: Any = None) -> Any:
        """A setting of any type."""
        return self.seen.setdefault(name, self.given.get(name, default))

    def number(self, name: str, default: float) -> float:
        """A number. YAML takes 1e-5 for a text, which is read as the number it is."""
        value = self.value(name, default)
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                raise self._error(name, value, "write a number") from None
        if value is None and name in self.given:
            value = default
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self._error(name, value, "write a number")
        self.seen[name] = value
        return value

    def whole(self, name: str, default: int, least: int = 1) -> int:
        """A whole number."""
        value = self.number(name, default)
        if value != int(value) or value < least:
            raise self._error(name, value, f"write a whole number of at least {least}")
        self.seen[name] = int(value)
        return int(value)

    def numbers(self, name: str) -> list[float] | None:
        """A list of numbers; None where there is none."""
        value = self.value(name)
        if value is None:
            return None
        if not isinstance(value, list) or any(
            isinstance(one, bool) or not isinstance(one, int | float) for one in value
        ):
            raise self._error(name, value, "write a list of numbers")
        return [float(one) for one in value]

    def flag(self, name: str, default: bool) -> bool:
        value = self.value(name, default)
        if value is None:
            value = self.seen[name] = default
        if not isinstance(value, bool):
            raise self._error(name, value, "write true or false")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        """A text; without a default it must be there."""
        value = self.value(name)
        value = self.seen[name] = default if value is None else value
        if value is None:
            raise ConfigError(f"{self.where}: {name} is missing; write it as the tool wants it")
        if not isinstance(value, str):
            raise self._error(name, value, "write a text")
        return value

    def put(self, ours: str, value: Any, *theirs: str, note: str = "", pending: bool = False) -> None:
        """A setting of the recipe that follows from settings which were read; see Counterpart."""
        shown = ", ".join(f"{name} = {show(self.seen[name])}{self._whose(name)}" for name in theirs)
        self.placed.update(theirs)
        self.counterparts.append(Counterpart(shown, ours, value, note, pending))

    def lose(self, name: str, why: str, group: Group = "learned") -> None:
        """A setting without counterpart, which was read."""
        self.lost.append(Lost(name, self.value(name), why, group, silent=name not in self.given))

    def lose_unless(self, harmless: bool, name: str, why: str, group: Group = "learned") -> None:
        """A setting that has no counterpart and needs none where it is `harmless`."""
        self.value(name)
        if not harmless:
            self.lose(name, why, group)

    def sweep(self, table: Mapping[str, str], group: Group, prefix: str = "") -> None:
        """Settings without counterpart: by reason, `name=default` each. None is asked for that the file does not say;
        one at its default, off or null is counted alone."""
        for why, listed in table.items():
            for name, default in defaults(listed).items():
                full = prefix + name
                if full in self.given and full not in self.seen:
                    value = self.value(full)
                    off = value is None or (value is False and default is not True)
                    self.lose_unless(off or same(value, default), full, why, group)

    def finish(self, tool: str, kind: str, algorithm: str, *, known: str) -> Translation:
        """All of it; what was never asked for is unknown. known: what of the tool this knows."""
        for name, value in self.given.items():
            if name not in self.seen:
                self.lost.append(Lost(name, value, f"not known of {known}", "unknown"))
        told = self.placed | {one.name for one in self.lost}
        at_default = len(set(self.given) - told)
        return Translation(tool, kind, algorithm, tuple(self.counterparts), tuple(self.lost), at_default)

    def _whose(self, name: str) -> str:
        return "" if name in self.given else " (default)"

    def _error(self, name: str, value: Any, mend: str) -> ConfigError:
        return ConfigError(f"{self.where}: {name} = {show(value)}: {mend}")


def flatten(tree: Mapping[str, Any], leaves: Iterable[str] = (), above: str = "") -> dict[str, Any]:
    """Nested mappings as dotted names; those named in `leaves`, and empty ones, stay whole."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping) and value and name not in leaves:
            flat |= flatten(value, leaves, f"{name}.")
        else:
            flat[name] = value
    return flat


def defaults(listed: str) -> dict[str, Any]:
    """`a=1 b=text c=null` as a mapping; values are YAML without blanks."""
    return {name: yaml.safe_load(value) for name, _, value in (one.partition("=") for one in listed.split())}


def same(value: Any, default: Any) -> bool:
    """Whether two settings say the same, whatever the case and whether in a list of one."""
    value, default = (one[0] if isinstance(one, list) and len(one) == 1 else one for one in (value, default))
    if isinstance(value, str) and isinstance(default, str):
        return value.casefold() == default.casefold()
    empty: tuple[Any, ...] = (None, "", [], {})
    return bool(value == default) or (value in empty and default in empty)


def show(value: Any) -> str:
    """A setting as JSON writes it, numbers short."""
    if isinstance(value, float):
        text = f"{value:g}" if value >= 1e6 and value == float(f"{value:g}") else repr(value)
        return re.sub(r"e([-+])0*", r"e\1", text).replace("e+", "e")
    return json.dumps(value, ensure_ascii=False, default=str)


def toml(value: Any) -> str:
    """A value as a recipe writes it."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{name} = {toml(inner)}' for name, inner in value.items())} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml(inner) for inner in value)}]"
    return show(value).replace("\x7f", "\\u007f")


def _line(one: Counterpart) -> list[str]:
    return [f"{one.ours} = {toml(one.value)}" + (f"  # {one.note}" if one.note else "")]
