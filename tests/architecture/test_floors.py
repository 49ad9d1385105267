"""Imports run one way. Every import of the package is read from its source, those inside functions included.

A module name in a string (`import_module("tuneful.x")`, a reward written "tuneful.x:f") counts as an import too.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "tuneful"

FLOORS: tuple[set[str], ...] = (
    {"errors", "records", "servers", "settings", "visible"},
    {"functional", "data", "runs"},
    {"models", "feedback"},
    {"generation"},
    {"rewards", "engines"},
    {"rollouts"},
    {"algorithms"},
    {"evaluation"},
    {"pipeline"},
    {"client", "demo", "serving", "web"},
    {"cli"},
    {"__init__", "__main__"},
)
WITHOUT_TORCH = {"client", "data", "runs", "feedback", "web"}
BRINGS_TORCH = {"torch", "transformers", "peft", "accelerate"}
SEES_THE_TRUTH = {"tuneful.demo.utility", "tuneful.demo.labelers", "tuneful.demo.report", "tuneful.demo.run"}
NAMES_WITHOUT_AN_IDEA = {"utils", "common", "helpers", "core"}

FILES = sorted(PACKAGE.rglob("*.py"))
IN_A_STRING = re.compile(r"(tuneful(?:\.\w+)+)(?::\w+)?")


def module_name(file: Path, package: Path = PACKAGE) -> str:
    """`tuneful/demo/run.py` -> "tuneful.demo.run", `tuneful/demo/__init__.py` -> "tuneful.demo"."""
    parts = file.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): file for file in FILES}


def place(module: str) -> str:
    """The folder or top-level file of the package that `module` belongs to."""
    return module.split(".")[1] if "." in module else "__init__"


def floor(module: str) -> int:
    return next(i for i, places in enumerate(FLOORS) if place(module) in places)


def imports(
    source: str, module: str, *, is_package: bool = False, known: frozenset[str] = frozenset(MODULES)
) -> set[str]:
    """Full names of the modules that `source` imports; `from tuneful.a import b` is `tuneful.a.b` if that is a module.

    The version, which stands in the package's own `__init__`, belongs to no floor and is left out.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                above = module.split(".")[: -node.level + is_package or None]
                origin = ".".join([*above, origin] if origin else above)
            for alias in node.names:
                inner = f"{origin}.{alias.name}"
                if inner != "tuneful.__version__":
                    found.add(inner if inner in known else origin)
        elif isinstance(node, ast.Constant) and (named := IN_A_STRING.fullmatch(str(node.value))):
            found.update({named[1]} & known)
    return found - {module}


@cache
def imports_of(module: str) -> frozenset[str]:
    file = MODULES[module]
    source = file.read_text(encoding="utf-8")
    return frozenset(imports(source, module, is_package=file.name == "__init__.py"))


def reached(module: str) -> Iterator[tuple[str, str]]:
    """Every (importer, imported) pair on the roads that start at `module` and stay in the package."""
    seen, ahead = {module}, [module]
    while ahead:
        importer = ahead.pop()
        for imported in imports_of(importer):
            yield importer, imported
            if imported in MODULES and imported not in seen:
                seen.add(imported)
                ahead.append(imported)


def upward(importer: str, imported: str) -> bool:
    if place(importer) == place(imported):
        return False
    return floor(imported) > floor(importer) or floor(imported) == floor(importer) != 0


def test_every_folder_stands_on_a_floor() -> None:
    known = set().union(*FLOORS)
    lost = sorted(name for name in MODULES if place(name) not in known)
    assert not lost, f"give these a floor in {Path(__file__).name}: {lost}"


def test_imports_run_one_way() -> None:
    wrong = [
        f"{importer} imports {imported}"
        for importer in MODULES
        for imported in imports_of(importer)
        if imported.split(".")[0] == "tuneful" and upward(importer, imported)
    ]
    assert not wrong, "\n".join(sorted(wrong))


def test_functional_is_torch_and_nothing_else() -> None:
    allowed = {"torch"} | sys.stdlib_module_names
    wrong = [
        f"{importer} imports {imported}"
        for importer in MODULES
        if place(importer) == "functional"
        for imported in imports_of(importer)
        if imported.split(".")[0] not in {*allowed, "tuneful"}
    ]
    assert not wrong, "\n".join(sorted(wrong))


def test_data_runs_feedback_web_and_client_never_reach_torch() -> None:
    wrong = {
        f"{start} reaches {imported} through {importer}"
        for start in MODULES
        if place(start) in WITHOUT_TORCH
        for importer, imported in reached(start)
        if imported.split(".")[0] in BRINGS_TORCH
    }
    assert not wrong, "\n".join(sorted(wrong))


def test_only_labelers_and_the_evaluation_see_the_true_utility() -> None:
    """A reward, an alarm or a stop rule that read the truth would prove nothing."""
    wrong = [m for m in MODULES if m not in SEES_THE_TRUTH and "tuneful.demo.utility" in imports_of(m)]
    assert not wrong
    recipes = [r.name for r in (ROOT / "recipes").rglob("*.toml") if "demo.utility" in r.read_text(encoding="utf-8")]
    assert not recipes


def test_every_name_carries_an_idea() -> None:
    empty = [
        str(path.relative_to(ROOT))
        for folder in (PACKAGE, ROOT / "tests")
        for path in folder.rglob("*")
        if path.stem in NAMES_WITHOUT_AN_IDEA and (path.is_dir() or path.suffix == ".py")
    ]
    assert not empty, "what is the idea of these?"


RUN_BY_ALEMBIC = "tuneful.feedback.migrations.env"


@pytest.mark.parametrize("module", [module for module in MODULES if module != RUN_BY_ALEMBIC])
def test_module_can_be_imported(module: str) -> None:
    importlib.import_module(module)


# The reader of imports is itself tested, on sources that break each rule.


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import torch.nn as nn", {"torch.nn"}),
        ("def f():\n    from tuneful.demo import utility", {"tuneful.demo.utility"}),
        ("from tuneful.demo import run_demo", {"tuneful.demo"}),
        ("from tuneful.demo.utility import parse", {"tuneful.demo.utility"}),
        ("from . import utility", {"tuneful.demo.utility"}),
        ("from .utility import parse", {"tuneful.demo.utility"}),
        ("from .. import demo", {"tuneful.demo"}),
        ("import_module('tuneful.demo.utility')", {"tuneful.demo.utility"}),
        ("reward = 'tuneful.demo.utility:true_utility'", {"tuneful.demo.utility"}),
        ("'tuneful.demo.utility is not for you'", set()),
        ("from tuneful import __version__", set()),
    ],
)
def test_imports_are_found_wherever_they_stand(source: str, found: set[str]) -> None:
    known = frozenset({"tuneful", "tuneful.demo", "tuneful.demo.utility", "tuneful.demo.alarm"})
    assert imports(source, "tuneful.demo.alarm", known=known) == found


def test_relative_imports_of_a_package_start_at_itself() -> None:
    known = frozenset({"tuneful", "tuneful.demo", "tuneful.demo.utility"})
    assert imports("from . import utility", "tuneful.demo", is_package=True, known=known) == {"tuneful.demo.utility"}


@pytest.mark.parametrize(
    ("importer", "imported", "wrong"),
    [
        ("tuneful.rewards.rules", "tuneful.models.roles", False),
        ("tuneful.models.roles", "tuneful.rewards.rules", True),
        ("tuneful.rewards.rules", "tuneful.engines.local", True),
        ("tuneful.rewards.rules", "tuneful.rewards.reward", False),
        ("tuneful.settings", "tuneful.errors", False),
        ("tuneful.errors", "tuneful.functional.kl", True),
        ("tuneful.cli.main", "tuneful", True),
        ("tuneful", "tuneful.algorithms.ppo", False),
    ],
)
def test_what_counts_as_upward(importer: str, imported: str, wrong: bool) -> None:
    assert upward(importer, imported) is wrong
