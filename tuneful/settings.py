"""Settings: TOML tables become frozen dataclasses, checked value by value; what is unknown is refused by name."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Hashable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_type_hints

from tuneful.errors import ConfigError, did_you_mean

T = TypeVar("T")


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises ConfigError when the file is missing or not TOML; the message holds the line.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def build(cls: type[T], values: Mapping[str, Any], *, where: str) -> T:
    """An instance of dataclass `cls` from `values`; `where` (for example "recipe.toml: ppo") opens every error.

    Unknown keys are refused with the nearest valid name, and so are texts and truth values where a number belongs.
    Nested dataclasses are built from tables. What a dataclass itself refuses, with a ConfigError, is refused in its
    words.
    """
    _refuse_unknown(cls, values, where)
    import pydantic

    try:
        built: T = _adapter(cast("Hashable", cls)).validate_python(dict(values))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(p) for p in first["loc"])
        if first["type"].startswith("missing"):
            raise ConfigError(f'{where}: "{place}" is required') from None
        raise ConfigError(f'{where}: "{place}" = {first["input"]!r}: {first["msg"]}') from None
    _refuse_converted(values, built, where)
    return built


def require_at_least(least: float, config: object, table: str, *names: str, hint: str = "") -> None:
    """Refuse settings of a dataclass below `least`; None counts as left out.

    table: what stands before the name in the error, for example "ppo."; hint: what is usual.
    """
    for name in names:
        value = getattr(config, name)
        if value is not None and not value >= least:
            raise ConfigError(f"{table}{name} must be at least {least:g}, got {value}{hint and f'; {hint}'}")


def require_above(bound: float, config: object, table: str, *names: str, hint: str = "") -> None:
    """Refuse settings of a dataclass that are not above `bound`; see require_at_least."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not value > bound:
            raise ConfigError(f"{table}{name} must be above {bound:g}, got {value}{hint and f'; {hint}'}")


def refuse_idle(given: Any, table: str, prefix: str, why: str, mend: str) -> None:
    """ConfigError for a setting whose name begins so and that is not as it would be if left out, where it does nothing.

    given: a dataclass of settings; why, mend: what ends "... is not for" and "... leave it out, or".
    """
    for one in dataclasses.fields(given):
        if one.name.startswith(prefix) and getattr(given, one.name) != one.default:
            raise ConfigError(f"{table}{one.name} is not for {why}; leave it out, or {mend}")


def require_seed(config: object, table: str) -> None:
    """Refuse a `seed` that some generator of random numbers does not take."""
    seed: int = config.seed  # type: ignore[attr-defined]
    if not 0 <= seed < 2**63:
        raise ConfigError(f"{table}seed must lie between 0 and 2^63 - 1, got {seed}; any such number will do")


def parse_override(assignment: str) -> tuple[list[str], Any]:
    """`a.b=0.3` -> (["a", "b"], 0.3). The value is read as TOML, a bare word as a string."""
    path, equals, text = assignment.partition("=")
    if not equals or not path.strip():
        raise ConfigError(f'--set {assignment}: expected "name.setting=value"')
    try:
        value: Any = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    return path.strip().split("."), value


def override(tables: Mapping[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """A copy of nested `tables` with each `a.b=value` applied."""
    result: dict[str, Any] = _copy(tables)
    for assignment in assignments:
        path, value = parse_override(assignment)
        node = result
        for name in path[:-1]:
            node = node.setdefault(name, {})
            if not isinstance(node, dict):
                raise ConfigError(f'--set {assignment}: "{name}" is not a table')
        node[path[-1]] = value
    return result


def as_table(settings: Any) -> dict[str, Any]:
    """The JSON-ready table of a settings dataclass; the inverse of `build`."""
    return dataclasses.asdict(settings)


def _refuse_unknown(cls: Any, values: Mapping[str, Any], where: str) -> None:
    """Also inside nested tables, which pydantic would let pass in silence."""
    hints = get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls) if f.init]
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f'{where}: unknown setting "{key}"{did_you_mean(key, known)}')
        tables = [option for option in (hints[key], *get_args(hints[key])) if dataclasses.is_dataclass(option)]
        if len(tables) == 1 and isinstance(value, Mapping):  # a choice of tables has a reader of its own
            _refuse_unknown(tables[0], value, f"{where}: {key}")


def _refuse_converted(given: Any, built: Any, where: str, place: str = "") -> None:
    """ConfigError for what pydantic made into a number or truth value and what is none as it is written."""
    if isinstance(given, Mapping):
        for name, value in given.items():
            inner = built[name] if isinstance(built, Mapping) else getattr(built, name)
            _refuse_converted(value, inner, where, f"{place}.{name}" if place else str(name))
    elif isinstance(given, list | tuple):
        for number, (value, inner) in enumerate(zip(given, built, strict=True)):
            _refuse_converted(value, inner, where, f"{place}.{number}")
    elif type(given) is not type(built) and (
        isinstance(built, bool) or (isinstance(given, str | bool) and isinstance(built, int | float))
    ):
        wanted = "true or false" if isinstance(built, bool) else "a number"
        unquoted = ", without quotation marks" if isinstance(given, str) else ""
        raise ConfigError(f'{where}: "{place}" = {given!r}: write {wanted}{unquoted}')


def _copy(value: Any) -> Any:
    return {k: _copy(v) for k, v in value.items()} if isinstance(value, Mapping) else value


@cache
def _adapter(cls: Any) -> Any:
    import pydantic

    return pydantic.TypeAdapter(cls)
