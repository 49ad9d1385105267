"""From a file of another tool to a recipe that loads."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tuneful.errors import ConfigError, did_you_mean
from tuneful.pipeline.recipe import load_recipe
from tuneful.pipeline.translate import rl4lms, trl
from tuneful.pipeline.translate.translation import Reading, Translation


def translate(path: Path, *, kind: str | None = None, devices: int = 1, rows: int | None = None) -> Translation:
    """The settings in `path`, a YAML or JSON file of RL4LMs or TRL, as a recipe and what has no counterpart.

    kind: "ppo", "dpo", "grpo", "rloo", "sft" or "reward", where TRL's settings do not tell it. devices: on how many the
    run was. rows: of its training data, from which numbers of steps follow.
    Raises ConfigError, naming file and setting, for what cannot be read and for values that no recipe takes.
    """
    tree = read_settings(path)
    if kind is not None and kind not in trl.READERS:
        raise ConfigError(f'--kind: no settings are called "{kind}"{did_you_mean(kind, trl.READERS)}')
    if isinstance(tree.get("alg"), Mapping):
        if kind is not None:
            raise ConfigError(f"{path}: RL4LMs' files say which algorithm they are of, alg.id; leave --kind out")
        found = rl4lms.read(tree, str(path), devices=devices, rows=rows)
    else:
        found = trl.read(Reading(str(path), tree, devices=devices, rows=rows), kind)
    _refuse_invalid(found, path)
    return found


def read_settings(path: Path) -> dict[str, Any]:
    """The mapping in a YAML or JSON file, which is YAML too."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    except yaml.YAMLError as error:
        mend = "write what config.to_dict() gives, with json.dump" if "constructor" in str(error) else "mend that line"
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}; {mend}") from None
    if not isinstance(tree, dict) or not all(isinstance(name, str) for name in tree):
        raise ConfigError(f"{path}: holds {type(tree).__name__}, no settings by name; give the tool's own YAML or JSON")
    return tree


def _refuse_invalid(found: Translation, path: Path) -> None:
    """ConfigError for values that our settings refuse, in their words."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "recipe.toml"
        written.write_text(found.recipe(), encoding="utf-8")
        try:
            load_recipe(written)
        except ConfigError as error:
            said = str(error).removeprefix(f"{written}: ")
            raise ConfigError(f"{path}: no recipe can say this: {said}") from None
