"""TRL in the version that the comparisons are with."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

import pytest

PINNED = "1.16.0"


@pytest.fixture(scope="session")
def trl() -> ModuleType:
    try:
        found = version("trl")
    except PackageNotFoundError:
        pytest.skip("trl is not installed")
    if found != PINNED:
        pytest.skip(f"trl {found} is installed, the comparison is with {PINNED}")
    import trl

    return trl
