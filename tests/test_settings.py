"""Settings: what a TOML table may say, and how a mistake is named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tuneful.errors import ConfigError
from tuneful.settings import as_table, build, override, parse_override, read_toml, require_above


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    on: bool = False
    ends: tuple[float, float] = (0, 1)

    def __post_init__(self) -> None:
        require_above(0, self, "inner.", "rate")


@dataclass(frozen=True, kw_only=True)
class Outer:
    clip: float
    steps: int = 3
    inner: Inner = Inner()
    maybe: Inner | None = None


def test_a_table_becomes_a_dataclass_and_back():
    settings = build(Outer, {"clip": 1, "inner": {"rate": 0.5}}, where="x")
    assert settings == Outer(clip=1.0, inner=Inner(0.5))
    inner = {"rate": 0.5, "on": False, "ends": (0, 1)}
    assert as_table(settings) == {"clip": 1.0, "steps": 3, "inner": inner, "maybe": None}
    assert build(Outer, as_table(settings), where="x") == settings


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"clip": 1, "stepps": 2}, 'r.toml: unknown setting "stepps"; did you mean "steps"?'),
        ({"clip": 1, "inner": {"rat": 2}}, 'r.toml: inner: unknown setting "rat"; did you mean "rate"?'),
        ({"clip": 1, "maybe": {"rat": 2}}, 'r.toml: maybe: unknown setting "rat"; did you mean "rate"?'),
        ({"clip": "wide"}, "r.toml: \"clip\" = 'wide': "),
        ({"clip": 1, "steps": 2.5}, 'r.toml: "steps" = 2.5: '),
        ({"clip": "2"}, "r.toml: \"clip\" = '2': write a number, without quotation marks"),
        ({"clip": True}, 'r.toml: "clip" = True: write a number'),
        ({"clip": 1, "steps": "3"}, "r.toml: \"steps\" = '3': write a number, without quotation marks"),
        ({"clip": 1, "inner": {"on": "yes"}}, "r.toml: \"inner.on\" = 'yes': write true or false, without quotation"),
        ({"clip": 1, "inner": {"on": 1}}, 'r.toml: "inner.on" = 1: write true or false'),
        ({"clip": 1, "maybe": {"ends": [0, "1"]}}, "r.toml: \"maybe.ends.1\" = '1': write a number, without quotation"),
        ({}, 'r.toml: "clip" is required'),
        ({"clip": 1, "inner": {"rate": -1}}, "r.toml: inner.rate must be above 0, got -1"),
    ],
)
def test_a_mistake_names_file_setting_and_value(table, said):
    with pytest.raises(ConfigError) as error:
        build(Outer, table, where="r.toml")
    assert str(error.value).startswith(said)


def test_overrides_read_their_value_as_toml():
    assert parse_override("a.b=0.3") == (["a", "b"], 0.3)
    assert parse_override("a=[1, 2]") == (["a"], [1, 2])
    assert parse_override("a=cosine") == (["a"], "cosine")
    tables = {"a": {"b": 1, "c": 2}}
    assert override(tables, ["a.b=3"]) == {"a": {"b": 3, "c": 2}}
    assert tables == {"a": {"b": 1, "c": 2}}
    with pytest.raises(ConfigError, match=r"--set a.b: expected"):
        parse_override("a.b")
    with pytest.raises(ConfigError, match=r'"b" is not a table'):
        override({"a": {"b": 1}}, ["a.b.c=2"])


def test_a_missing_or_broken_file_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"no\.toml: no such file"):
        read_toml(tmp_path / "no.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("a = \n")
    with pytest.raises(ConfigError, match=r"broken\.toml: not valid TOML: .*line 1"):
        read_toml(broken)
