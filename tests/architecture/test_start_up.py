"""The command answers at once: what is slow to import is imported by the command that needs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "transformers", "peft", "datasets", "scipy", "matplotlib", "pandas"}


def imported_by(statement: str) -> set[str]:
    """Top-level names of what a fresh interpreter has imported after `statement`."""
    code = f"{statement}\nimport json, sys\nprint('\\n' + json.dumps(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return {name.split(".")[0] for name in json.loads(result.stdout.splitlines()[-1])}


def test_the_package_imports_nothing_heavy() -> None:
    assert not imported_by("import tuneful") & HEAVY


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    call = (
        "import sys\nfrom tuneful.cli.main import main\n"
        f"sys.argv = {['tuneful', *arguments]}\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code"
    )
    imported = imported_by(call)
    assert "tuneful" in imported
    assert not imported & HEAVY
