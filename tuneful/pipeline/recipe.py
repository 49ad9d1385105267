"""Recipes: a TOML file of `[[stage]]` tables becomes frozen settings, checked before anything is loaded.

seed = 0
[splits]                  # shares of the prompts; the default is 40/40/10/10
reward = 0.4

[[stage]]
name = "ppo"
algorithm = "ppo"         # or do = "generate" | "label" | "collect" | "consensus" | "evaluate" | "accuracy" | …
model = "@sft"            # inputs by stage name, path or data set
kl_coef = 0.05            # settings below

With `rounds = 2` above the stages they run twice; see tuneful.pipeline.rounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from tuneful.algorithms.a2c import A2CConfig
from tuneful.algorithms.dpo import DPOConfig
from tuneful.algorithms.dqn import DQNConfig
from tuneful.algorithms.grpo import GRPOConfig
from tuneful.algorithms.ilql import ILQLConfig
from tuneful.algorithms.kto import KTOConfig
from tuneful.algorithms.nlpo import NLPOConfig
from tuneful.algorithms.orpo import ORPOConfig
from tuneful.algorithms.ppo import PPOConfig
from tuneful.algorithms.raft import RAFTConfig
from tuneful.algorithms.reinforce import ReinforceConfig, RLOOConfig
from tuneful.algorithms.reward_model import RewardModelConfig
from tuneful.algorithms.sft import SFTConfig
from tuneful.algorithms.simpo import SimPOConfig
from tuneful.algorithms.trpo import TRPOConfig
from tuneful.data.splits import SHARES, split_of
from tuneful.errors import ConfigError, did_you_mean
from tuneful.generation.sampling import fold
from tuneful.pipeline import inputs, learner_inputs, marks
from tuneful.pipeline.rounds import Turn, unrolled
from tuneful.records import Prompt
from tuneful.settings import as_table, build, override, parse_override, read_toml, require_at_least, require_seed

ALGORITHMS: dict[str, tuple[type, type]] = {
    "sft": (learner_inputs.SFTInputs, SFTConfig),
    "reward": (learner_inputs.RewardInputs, RewardModelConfig),
    "reinforce": (learner_inputs.OnPolicyInputs, ReinforceConfig),
    "rloo": (learner_inputs.OnPolicyInputs, RLOOConfig),
    "grpo": (learner_inputs.OnPolicyInputs, GRPOConfig),
    "a2c": (learner_inputs.ActorCriticInputs, A2CConfig),
    "ppo": (learner_inputs.PPOInputs, PPOConfig),
    "nlpo": (learner_inputs.NLPOInputs, NLPOConfig),
    "trpo": (learner_inputs.TRPOInputs, TRPOConfig),
    "raft": (learner_inputs.OnPolicyInputs, RAFTConfig),
    "dqn": (learner_inputs.DQNInputs, DQNConfig),
    "ilql": (learner_inputs.ILQLInputs, ILQLConfig),
    "dpo": (learner_inputs.DPOInputs, DPOConfig),
    "orpo": (learner_inputs.PairInputs, ORPOConfig),
    "simpo": (learner_inputs.PairInputs, SimPOConfig),
    "kto": (learner_inputs.KTOInputs, KTOConfig),
}
"""Inputs and settings of each algorithm."""

_OTHER_SAMPLER = "the sampler would draw from another distribution than the policy that is updated; set temperature"

LEFT_OUT = {
    **dict.fromkeys(learner_inputs.ON_POLICY, dict.fromkeys(("top_k", "top_p"), _OTHER_SAMPLER)),
    "nlpo": {"top_k": _OTHER_SAMPLER},  # whose update knows of its own top_p
    "dqn": {"top_p": _OTHER_SAMPLER},  # whose values choose among its own top_k
}
"""By algorithm, settings that are asked for and left out, and why."""

ACTIONS: dict[str, type] = {
    "generate": inputs.GenerateInputs,
    "label": inputs.LabelInputs,
    "collect": inputs.CollectInputs,
    "consensus": inputs.ConsensusInputs,
    "best_of_n": inputs.BestOfNInputs,
    "evaluate": inputs.EvaluateInputs,
    "accuracy": inputs.AccuracyInputs,
    "audiences": inputs.AudiencesInputs,
}
"""Inputs of everything that is no algorithm."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What a recipe says before its stages."""

    seed: int = 0
    """Everything random follows from it."""
    held_out: tuple[str, ...] = ()
    """Files that are wholly test; what shares a first turn with them trains nothing."""
    splits: Mapping[str, float] = field(default_factory=lambda: dict(SHARES))
    """Shares of all other prompts."""
    rounds: int = 1
    """How often the stages run."""

    def __post_init__(self) -> None:
        require_seed(self, "")
        require_at_least(1, self, "", "rounds")
        for name in self.splits:
            if name not in SHARES:
                raise ConfigError(f'splits: no split is called "{name}"{did_you_mean(name, SHARES)}')
        split_of(Prompt("any"), self.splits)  # refuses shares that cannot be cut


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: its name, what it does, what it takes in, the algorithm's settings (None for an action), its round."""

    name: str
    kind: str
    inputs: Any
    config: Any
    round: int = 1

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
    of_header = [f.name for f in fields(Header)]
    _refuse_unknown(tables, ("stage", *of_header), str(path))
    stages = tables.pop("stage", [])
    if not isinstance(stages, list) or not stages or not all(isinstance(stage, dict) for stage in stages):
        raise ConfigError(f"{path}: a recipe needs at least one [[stage]] table, with two brackets")
    named: dict[str, dict[str, Any]] = {}
    for number, stage in enumerate(stages, start=1):
        name = str(stage.get("name", number))
        if name in named:
            raise ConfigError(f'{path}: two stages are called "{name}"')
        if name in of_header:
            raise ConfigError(f'{path}: no stage can be called "{name}", which is a setting of the whole run')
        named[name] = stage
    known = [*named, *of_header]
    for assignment in overrides:
        first, *setting = parse_override(assignment)[0]
        if first not in known:
            raise ConfigError(f'--set {assignment}: the recipe has no stage "{first}"{did_you_mean(first, known)}')
        if first in named and not setting:
            raise ConfigError(
                f'--set {assignment}: "{first}" is a stage; say which of its settings, {first}.NAME=value'
            )
    changed = override({**tables, **named}, overrides)
    if seed is not None:
        changed["seed"] = seed
    header = build(Header, {name: value for name, value in changed.items() if name not in named}, where=str(path))
    stages_of_all = {name: changed[name] for name in named}
    if "rounds" not in changed:
        _refuse_of_rounds(stages_of_all, str(path))
    # What `again` says is checked even where rounds = 1, so that it still holds when rounds is raised.
    says_again = any("again" in table for table in stages_of_all.values())
    checked_rounds = max(header.rounds, 2) if says_again else header.rounds
    built: list[Stage] = []
    try:
        turns = unrolled(stages_of_all, checked_rounds)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    for turn in turns:
        stage = _stage(turn, f"{path}: stage {turn.table.get('name')}", header.seed)
        if stage.name in [s.name for s in built]:
            raise ConfigError(f'{path}: two stages are called "{stage.name}"; round {turn.round} gives that name')
        _check_references(stage, built, str(path))
        built.append(stage)
    kept = tuple(stage for stage in built if stage.round <= header.rounds)
    return Recipe(str(path), header.seed, header.splits, kept, header.held_out)


def recorded_recipe(table: Mapping[str, Any], source: str) -> Recipe:
    """The recipe that `run.json` holds: what `as_table` gave. Raises ConfigError where settings have changed since."""
    return Recipe(
        source, table["seed"], table["splits"], tuple(_recorded(s, source) for s in table["stages"]), table["held_out"]
    )


def _recorded(table: Mapping[str, Any], source: str) -> Stage:
    name, kind, where = table["name"], table["kind"], f"{source}: stage {table['name']}"
    if kind in ACTIONS:
        return Stage(name, kind, build(ACTIONS[kind], _given(table["inputs"]), where=where), None)
    inputs_type, config_type = ALGORITHMS[kind]
    taken_in: Any = build(inputs_type, _given(table["inputs"]), where=where)
    return Stage(name, kind, taken_in, build(config_type, _given(table["config"]), where=where))


def _given(table: Any) -> Any:
    """A table without the settings that were left out, which JSON has as null."""
    if isinstance(table, list):
        return [_given(one) for one in table]
    if isinstance(table, Mapping):
        return {name: _given(value) for name, value in table.items() if value is not None}
    return table


def shipped_recipe(name: str) -> Path:
    """The file of a recipe that comes with tuneful, installed or in a clone."""
    package = Path(__file__).parent.parent
    for folder in (package / "recipes", package.parent / "recipes"):
        if (folder / f"{name}.toml").exists():
            return folder / f"{name}.toml"
    raise ConfigError(f'no recipe "{name}" comes with tuneful')


def _stage(turn: Turn, where: str, seed: int) -> Stage:
    table = dict(turn.table)
    name = table.pop("name", None)
    if not isinstance(name, str) or not name.isidentifier():
        raise ConfigError(f"{where}: every stage needs a name of letters, digits and _, got {name!r}")
    algorithm, action = table.pop("algorithm", None), table.pop("do", None)
    if (algorithm is None) == (action is None):
        raise ConfigError(f'{where}: say either algorithm = "…" or do = "…"')
    if action is not None:
        if action not in ACTIONS:
            raise ConfigError(f'{where}: do = "{action}" is unknown{did_you_mean(action, ACTIONS)}')
        return Stage(name, action, build(ACTIONS[action], table, where=where), None, turn.round)
    if algorithm not in ALGORITHMS:
        raise ConfigError(f'{where}: algorithm = "{algorithm}" is unknown{did_you_mean(algorithm, ALGORITHMS)}')
    inputs_type, config_type = ALGORITHMS[algorithm]
    of_inputs = {f.name for f in fields(inputs_type)}
    of_config = {f.name for f in fields(config_type)}
    for key in LEFT_OUT.get(algorithm, {}):
        if key in table:
            raise ConfigError(f'{where}: "{key}" is no setting of {algorithm}: {LEFT_OUT[algorithm][key]}')
    _refuse_unknown(table, of_inputs | of_config, where)
    own_seed = seed if turn.round == 1 else fold(seed, "round", turn.round)
    settings = {"seed": own_seed} | {k: v for k, v in table.items() if k in of_config}
    taken_in: Any = build(inputs_type, {k: v for k, v in table.items() if k in of_inputs}, where=where)
    config: Any = build(config_type, settings, where=where)
    try:
        taken_in.check_beside(config)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return Stage(name, algorithm, taken_in, config, turn.round)


def _refuse_of_rounds(tables: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """ConfigError for what a stage says of rounds in a recipe that does not mention them, perhaps by a slip."""
    for name, table in tables.items():
        for key in ("again", "once"):
            if key in table:
                raise ConfigError(
                    f'{where}: stage {name}: "{key}" says nothing without rounds; write rounds = 2 above the stages, '
                    f"or leave {key} out"
                )


def _check_references(stage: Stage, before: list[Stage], where: str) -> None:
    kinds = {s.name: s.kind for s in before}
    for setting, _, value in marks.marked(stage.inputs):
        if not value.startswith("@"):
            continue
        place = f'{where}: stage {stage.name}: {setting} = "{value}"'
        if value[1:] not in kinds:
            raise ConfigError(f"{place} names no earlier stage{did_you_mean(value[1:], kinds)}")
        made = inputs.MAKES.get(kinds[value[1:]], ("a report",))
        takes = inputs.TAKES.get(setting)
        trained_further = stage.kind == kinds[value[1:]] == "reward" and setting == "model"
        if takes not in made and not trained_further:
            wanted = f"needs {takes}" if takes else "names a file, data set or world, no stage"
            raise ConfigError(f"{place}: that stage makes {' and '.join(made)}, and {setting} {wanted}")


def _refuse_unknown(table: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    choices = list(known)
    for key in table:
        if key not in choices:
            raise ConfigError(f'{where}: unknown setting "{key}"{did_you_mean(key, choices)}')
