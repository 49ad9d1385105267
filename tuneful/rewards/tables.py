"""What a recipe or command may write as a reward: a text, a table that names its kind, or a list of weighted parts.

A table's kind is the setting that only this kind has: `rule`, `classifier`, `judge` or `ensemble`.
"""

from __future__ import annotations

import math
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationInfo

from tuneful.errors import ConfigError, did_you_mean, nearest
from tuneful.rewards.classifier import Classifier
from tuneful.rewards.ensemble import Ensemble
from tuneful.rewards.judge import Judge
from tuneful.rewards.rules import FormatRule, LengthRule, WordsRule
from tuneful.settings import build, require_above

KINDS: Mapping[str, type] = {"classifier": Classifier, "judge": Judge, "ensemble": Ensemble}
RULE_TABLES: Mapping[str, type] = {"length": LengthRule, "format": FormatRule, "words": WordsRule}


def _read(value: Any, info: ValidationInfo) -> Any:
    return value if value is None else reward_of(value, where=info.field_name or "reward")


RewardTable = LengthRule | FormatRule | WordsRule | Classifier | Judge | Ensemble
OneReward = Annotated[Annotated[str, "rewards"] | RewardTable, BeforeValidator(_read)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One part of a sum of rewards."""

    reward: OneReward
    """Any reward but another list."""
    weight: float = 1.0
    """What its score is multiplied by; negative for what is unwanted."""
    clip: float | None = None
    """Its score is held within plus and minus this first."""
    name: str | None = None
    """What its mean is called in the metrics, after `reward_`; without it, a name made from `reward`."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.weight):
            raise ConfigError(f"weight must be a finite number, got {self.weight}; 1 counts a score as it is")
        require_above(0, self, "", "clip", hint="10 is usual for logits")


RewardInput = Annotated[Annotated[str, "rewards"] | RewardTable | tuple[Part, ...], BeforeValidator(_read)]
"""The `reward` of a recipe."""


def reward_of(value: Any, *, where: str) -> RewardInput:
    """What TOML gives for a reward as its dataclass; `where` opens every error.

    Raises ConfigError naming the setting, with the kinds there are or the nearest name.
    """
    if isinstance(value, str):
        return _not_empty(value, where)
    if isinstance(value, RewardTable):
        return value
    if isinstance(value, Mapping):
        made: RewardTable = build(_kind(value, where), value, where=where)
        return made
    if not isinstance(value, Sequence) or not value:
        raise ConfigError(f"{where} = {value!r}: a reward is a text, a table or a list of parts")
    parts = tuple(_part(part, f"{where}: part {number}") for number, part in enumerate(value, start=1))
    try:
        part_names(parts)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return parts


def reward_text(text: str, *, where: str) -> RewardInput:
    """The reward of a command line: a text as it is, a table or list as a recipe would write it behind `reward =`."""
    if not text.lstrip().startswith(("{", "[")):
        return _not_empty(text, where)
    try:
        value = tomllib.loads(f"reward = {text}")["reward"]
    except tomllib.TOMLDecodeError as error:
        example = '{rule = "length", target = 40}'
        raise ConfigError(f"{where} {text}: not valid TOML: {error}; write it as in a recipe, {example}") from None
    return reward_of(value, where=where)


def toxicity_text(text: str, *, where: str) -> RewardInput:
    """A measure of toxicity from a command line: a file of words, any of which makes a text toxic, a classifier, or
    what `reward_text` reads."""
    if text.lstrip().startswith(("{", "[")) or ":" in text or not text.strip():
        return reward_text(text, where=where)
    if Path(text).expanduser().is_file() or text.endswith(".txt"):
        return WordsRule(rule="words", file=text, measure="any")
    return Classifier(classifier=text, output="probability")


def part_names(parts: Sequence[Part]) -> tuple[str, ...]:
    """The names of the parts of a sum. Raises ConfigError when two are the same."""
    names = tuple(part.name or _name(part.reward) for part in parts)
    [(name, often)] = Counter(names).most_common(1)
    if often > 1:
        raise ConfigError(f'{often} parts are called "{name}"; give each a name = "…" of its own')
    return names


def _name(reward: str | RewardTable) -> str:
    """`@reward` and `runs/x/reward` are "reward", `./mine.py:score` is "score", a table has the name of its kind."""
    if isinstance(reward, str):
        return PurePath(reward.rpartition(":")[2]).name.removeprefix("@")
    if isinstance(reward, LengthRule | FormatRule | WordsRule):
        return reward.rule
    return type(reward).__name__.lower()


def _not_empty(text: str, where: str) -> str:
    """The text; an empty path would be the current folder."""
    if not text.strip():
        raise ConfigError(f'{where} = "{text}": names no reward; leave it out where there is none')
    return text


def _part(value: Any, where: str) -> Part:
    if isinstance(value, Part):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} = {value!r}: a part is a table, {{reward = …, weight = …}}")
    if isinstance(value.get("reward"), Sequence) and not isinstance(value["reward"], str):
        raise ConfigError(f"{where}: reward is a list; a part of a sum is no sum itself, write all parts in one list")
    return build(Part, value, where=where)


def _kind(table: Mapping[str, Any], where: str) -> type:
    """The dataclass that a table is to become."""
    if "rule" in table:
        rule = str(table["rule"])
        if rule not in RULE_TABLES:
            raise ConfigError(f'{where}: rule = "{rule}" is unknown{did_you_mean(rule, RULE_TABLES)}')
        return RULE_TABLES[rule]
    for name, kind in KINDS.items():
        if name in table:
            return kind
    if "reward" in table:
        raise ConfigError(f"{where}: parts of a sum stand in a list, [{{reward = …, weight = …}}]")
    near = nearest(next(iter(table), ""), ["rule", *KINDS])
    mend = "" if near is None else f'; did you mean "{near}"?'
    *names, last = (f'"{name}"' for name in ("rule", *KINDS))
    raise ConfigError(f"{where}: a table needs one of {', '.join(names)} or {last}{mend}")
