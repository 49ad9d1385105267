"""Rewards that are rules: named in a recipe, or a function of one's own by `package.module:function`."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from tuneful.errors import RewardError, did_you_mean
from tuneful.records import Completion, Prompt
from tuneful.rewards.reward import Reward


def shorter(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
    """Minus the number of words."""
    return -torch.tensor([float(len(c.text.split())) for c in completions])


def longer(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
    """The number of words."""
    return -shorter(prompts, completions)


RULES: dict[str, Reward] = {"shorter": shorter, "longer": longer}
"""Rewards a recipe can name."""


def load_function(reference: str) -> Reward:
    """The function behind `package.module:function` or `./file.py:function`.

    Raises RewardError when the module, file or function does not exist.
    """
    place, _, name = reference.partition(":")
    try:
        if place.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(place).stem, place)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(place)
    except Exception as error:
        raise RewardError(f'reward "{reference}": {place} cannot be loaded: {type(error).__name__}: {error}') from error
    function = getattr(module, name, None)
    if not callable(function):
        functions = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise RewardError(f'reward "{reference}": {place} has no function "{name}"{did_you_mean(name, functions)}')
    return function  # type: ignore[no-any-return]
