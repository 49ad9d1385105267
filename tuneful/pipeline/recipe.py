"""Recipes: a TOML file of `[[stage]]` tables becomes frozen settings, checked before anything is loaded.

seed = 0
[splits]                  # shares of the prompts; the default is 40/40/10/10
reward = 0.4

[[stage]]
name = "ppo"
algorithm = "ppo"         # or do = "generate" | "label" | "consensus" | "evaluate"
model = "@sft"            # inputs by stage name, path or data set
kl_coef = 0.05            # settings below
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tuneful.algorithms.dpo import DPOConfig
from tuneful.algorithms.ppo import PPOConfig
from tuneful.algorithms.reward_model import RewardModelConfig
from tuneful.algorithms.sft import SFTConfig
from tuneful.data.splits import SHARES
from tuneful.errors import ConfigError, did_you_mean
from tuneful.pipeline import inputs
from tuneful.settings import as_table, build, parse_override, read_toml

ALGORITHMS: dict[str, tuple[type, type]] = {
    "sft": (inputs.SFTInputs, SFTConfig),
    "reward": (inputs.RewardInputs, RewardModelConfig),
    "ppo": (inputs.PPOInputs, PPOConfig),
    "dpo": (inputs.DPOInputs, DPOConfig),
}
"""Inputs and settings of each algorithm."""

ACTIONS: dict[str, type] = {
    "generate": inputs.GenerateInputs,
    "label": inputs.LabelInputs,
    "consensus": inputs.ConsensusInputs,
    "evaluate": inputs.EvaluateInputs,
}
"""Inputs of everything that is no algorithm."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: its name, what it does, what it takes in, and the algorithm's settings (None for an action)."""

    name: str
    kind: str
    inputs: Any
    config: Any

    def as_table(self) -> dict[str, Any]:
        table = {"name": self.name, "kind": self.kind, "inputs": as_table(self.inputs)}
        return table if self.config is None else table | {"config": as_table(self.config)}


@dataclass(frozen=True, slots=True)
class Recipe:
    """A whole run, resolved: every default is filled in."""

    source: str
    seed: int
    splits: Mapping[str, float]
    stages: tuple[Stage, ...]
    held_out: tuple[str, ...] = ()

    def as_table(self) -> dict[str, Any]:
        """The JSON-ready form that `run.json` holds and that decides whether a run is continued."""
        stages = [stage.as_table() for stage in self.stages]
        return {"seed": self.seed, "held_out": self.held_out, "splits": dict(self.splits), "stages": stages}


def load_recipe(path: Path, overrides: Iterable[str] = (), *, seed: int | None = None) -> Recipe:
    """The recipe in `path` with `stage.setting=value` (or `seed=1`) overrides applied.

    Raises ConfigError naming the file, the stage, the setting and the way out.
    """
    tables = read_toml(path)
    _refuse_unknown(tables, ("seed", "held_out", "splits", "stage"), str(path))
    stages = [dict(stage) for stage in tables.get("stage", [])]
    by_name = {stage.get("name"): stage for stage in stages}
    for assignment in overrides:
        names, value = parse_override(assignment)
        if len(names) == 1:
            _refuse_unknown({names[0]: value}, ("seed",), f"--set {assignment}")
            tables[names[0]] = value
            continue
        if names[0] not in by_name:
            known = did_you_mean(names[0], [n for n in by_name if n])
            raise ConfigError(f'--set {assignment}: the recipe has no stage "{names[0]}"{known}')
        node = by_name[names[0]]
        for name in names[1:-1]:
            node[name] = node = dict(node.get(name, {}))
        node[names[-1]] = value
    if seed is not None:
        tables["seed"] = seed
    if not stages:
        raise ConfigError(f"{path}: a recipe needs at least one [[stage]] table")
    number = int(tables.get("seed", 0))
    built: list[Stage] = []
    for position, table in enumerate(stages, start=1):
        stage = _stage(table, f"{path}: stage {table.get('name', position)}", number)
        _check_references(stage, built, str(path))
        built.append(stage)
    return Recipe(
        str(path), number, dict(tables.get("splits", SHARES)), tuple(built), tuple(tables.get("held_out", ()))
    )


def shipped_recipe(name: str) -> Path:
    """The file of a recipe that comes with tuneful, installed or in a clone."""
    package = Path(__file__).parent.parent
    for folder in (package / "recipes", package.parent / "recipes"):
        if (folder / f"{name}.toml").exists():
            return folder / f"{name}.toml"
    raise ConfigError(f'no recipe "{name}" comes with tuneful')


def _stage(table: dict[str, Any], where: str, seed: int) -> Stage:
    table = dict(table)
    name = table.pop("name", None)
    if not isinstance(name, str) or not name.isidentifier():
        raise ConfigError(f"{where}: every stage needs a name of letters, digits and _, got {name!r}")
    algorithm, action = table.pop("algorithm", None), table.pop("do", None)
    if (algorithm is None) == (action is None):
        raise ConfigError(f'{where}: say either algorithm = "…" or do = "…"')
    if action is not None:
        if action not in ACTIONS:
            raise ConfigError(f'{where}: do = "{action}" is unknown{did_you_mean(action, ACTIONS)}')
        return Stage(name, action, build(ACTIONS[action], table, where=where), None)
    if algorithm not in ALGORITHMS:
        raise ConfigError(f'{where}: algorithm = "{algorithm}" is unknown{did_you_mean(algorithm, ALGORITHMS)}')
    inputs_type, config_type = ALGORITHMS[algorithm]
    of_inputs = {f.name for f in fields(inputs_type)}
    of_config = {f.name for f in fields(config_type)}
    _refuse_unknown(table, of_inputs | of_config, where)
    settings = {"seed": seed} | {k: v for k, v in table.items() if k in of_config}
    taken_in = {k: v for k, v in table.items() if k in of_inputs}
    return Stage(name, algorithm, build(inputs_type, taken_in, where=where), build(config_type, settings, where=where))


def _check_references(stage: Stage, before: list[Stage], where: str) -> None:
    names = [s.name for s in before]
    if stage.name in names:
        raise ConfigError(f'{where}: two stages are called "{stage.name}"')
    for setting, value in as_table(stage.inputs).items():
        if isinstance(value, str) and value.startswith("@") and value[1:] not in names:
            near = did_you_mean(value[1:], names)
            raise ConfigError(f'{where}: stage {stage.name}: {setting} = "{value}" names no earlier stage{near}')


def _refuse_unknown(table: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    choices = list(known)
    for key in table:
        if key not in choices:
            raise ConfigError(f'{where}: unknown setting "{key}"{did_you_mean(key, choices)}')
