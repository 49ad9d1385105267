"""Every setting of TRL's classes is translated, or told to have no counterpart: a new release shows what is new."""

from __future__ import annotations

import dataclasses
import enum
import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tuneful.pipeline.recipe import load_recipe
from tuneful.pipeline.translate.file import translate

CLASSES = {
    "DPOConfig": "trl",
    "GRPOConfig": "trl",
    "RLOOConfig": "trl",
    "SFTConfig": "trl",
    "RewardConfig": "trl",
    "PPOConfig": "trl.experimental.ppo",
}

NOT_OURS = {"PPOConfig": {"stop_token"}, "SFTConfig": {"completion_only_loss"}}
"""What a recipe cannot say of TRL's own defaults."""


def settings_of(trl: ModuleType, name: str) -> dict[str, Any]:
    """Every field of a class with its default, as JSON holds it."""
    try:
        cls = getattr(importlib.import_module(CLASSES.get(name, "trl")), name)
    except ModuleNotFoundError:
        pytest.skip(f"TRL {trl.__version__} has no {name}")
    found = {}
    for field in dataclasses.fields(cls):
        made = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        found[field.name] = made.value if isinstance(made, enum.Enum) else made
    return found


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("of_script", [False, True], ids=["class", "script"])
def test_every_setting_of_trl_is_known(trl: ModuleType, tmp_path: Path, name: str, of_script: bool) -> None:
    settings = settings_of(trl, name)
    if of_script:
        settings |= settings_of(trl, "ModelConfig") | settings_of(trl, "ScriptArguments")
    (tmp_path / "settings.json").write_text(json.dumps(settings, default=str), encoding="utf-8")
    found = translate(tmp_path / "settings.json")
    assert found.kind == name
    assert [one.name for one in found.lost if one.group == "unknown"] == []
    assert {one.name for one in found.lost} == NOT_OURS.get(name, set())  # so the defaults in our tables are TRL's
    (tmp_path / "recipe.toml").write_text(found.recipe(), encoding="utf-8")
    assert load_recipe(tmp_path / "recipe.toml").stages


@pytest.mark.parametrize("name", CLASSES)
def test_the_defaults_are_those_of_trl(trl: ModuleType, tmp_path: Path, name: str) -> None:
    """A file that says one setting stands for the same recipe as one that says them all at TRL's defaults."""
    settings = settings_of(trl, name)
    (tmp_path / "all.json").write_text(json.dumps(settings, default=str), encoding="utf-8")
    (tmp_path / "one.json").write_text(json.dumps({"seed": settings["seed"]}), encoding="utf-8")
    kind = name.removesuffix("Config").lower()
    spelled, silent = (translate(tmp_path / f"{which}.json", kind=kind) for which in ("all", "one"))
    assert [(one.ours, one.value) for one in silent.counterparts] == [
        (one.ours, one.value) for one in spelled.counterparts
    ]
