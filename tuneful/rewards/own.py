"""Rewards of one's own: a Python function by `package.module:function` or `./file.py:function`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from torch import Tensor

from tuneful.errors import RewardError, did_you_mean
from tuneful.records import Completion, Prompt, content_hash
from tuneful.rewards.reward import Reward, checked


@dataclass(frozen=True, slots=True)
class OwnReward:
    """A user's function, whose mistakes are told by the name it was given and the line of its file.

    reference: what the recipe or command says. file: where the function's module stands, when it has a file.
    """

    reference: str
    function: Reward
    file: str | None

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
        """float32 [N] scores of N completions.

        Raises RewardError for what `checked` refuses, and from any exception of the function, an exit included.
        """
        try:
            return checked(self.function, prompts, completions)
        except RewardError as error:
            raise RewardError(f'reward "{self.reference}": {error}') from error
        except (Exception, SystemExit) as error:
            raise RewardError(
                f'reward "{self.reference}": raised {_told(error, self.file)}; '
                "a reward is called with prompts and completions and returns one number for each completion"
            ) from error


def load_function(reference: str) -> OwnReward:
    """The function behind `package.module:function` or `./file.py:function`.

    Raises RewardError when the module, file or function does not exist.
    """
    place, _, name = reference.partition(":")
    try:
        module = _run(Path(place).expanduser()) if place.endswith(".py") else _import(place)
    except SystemExit as error:
        raise RewardError(
            f'reward "{reference}": {place} ends the program when it is loaded: {_told(error, place)}; '
            'keep what is for a script alone behind if __name__ == "__main__"'
        ) from error
    except Exception as error:
        raise RewardError(f'reward "{reference}": {place} cannot be loaded: {_told(error, place)}') from error
    function = getattr(module, name, None)
    if not callable(function):
        functions = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise RewardError(f'reward "{reference}": {place} has no function "{name}"{did_you_mean(name, functions)}')
    return OwnReward(reference, function, getattr(module, "__file__", None))


def _import(name: str) -> ModuleType:
    """The module of this name, which may also stand in the current folder."""
    with _importable_from(Path.cwd()):
        return importlib.import_module(name)


def _run(file: Path) -> ModuleType:
    """The file as a module; it can import what stands beside it, as a script can.

    Its name is made of its path, so that it never stands in for a module that is called like it.
    """
    path = file.resolve()
    name = f"tuneful_reward_{content_hash(str(path))}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses, among others, look up the module of a class
    try:
        with _importable_from(path.parent):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _importable_from(folder: Path) -> Iterator[None]:
    """Modules in `folder` can be imported meanwhile."""
    importlib.invalidate_caches()
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _told(error: BaseException, file: str | None) -> str:
    """An exception in one line, with the last line of `file` that led to it."""
    said = str(error).strip().partition("\n")[0]
    told = type(error).__name__ + (f": {said}" if said else "")
    if file is None:
        return told
    here = Path(file).expanduser().resolve()
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).resolve() == here]
    return f"{told} at {Path(file)}:{lines[-1]}" if lines else told
