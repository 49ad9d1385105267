"""The package from Python: every public name is there, documented, typed, and imported when it is used."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys

import pytest

import tuneful

IMPORTED_BY_THE_PACKAGE = """
import json, sys
import tuneful
print(json.dumps(sorted(sys.modules)))
"""


@pytest.mark.parametrize("name", tuneful.__all__)
def test_public_name_is_there_and_documented(name: str) -> None:
    public = getattr(tuneful, name)
    assert public.__name__ == name
    assert inspect.getdoc(public)
    assert name in dir(tuneful)


def test_type_checkers_are_told_of_the_same_names_in_the_same_modules() -> None:
    tree = ast.parse(inspect.getsource(tuneful))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    told = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert sorted(told) == sorted(tuneful.__all__)
    assert {name: getattr(tuneful, name).__module__ for name in told} == told


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Promt"):
        _ = tuneful.Promt


def test_importing_the_package_loads_no_framework() -> None:
    command = [sys.executable, "-c", IMPORTED_BY_THE_PACKAGE]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert not {"torch", "transformers", "numpy"} & set(json.loads(done.stdout))
