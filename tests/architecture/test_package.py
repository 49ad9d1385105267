"""What a user gets who installs the wheel: every file of the package, the recipes, and a command that runs."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import tuneful

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Standard output of a command; on failure the test shows everything it printed."""
    everything = {**os.environ, **environment}
    result = subprocess.run(command, cwd=cwd, env=everything, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, cwd=ROOT)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that holds the wheel alone; dependencies are those of the interpreter that runs the tests."""
    target = tmp_path_factory.mktemp("installed")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, "--no-index", "--no-deps", "--target", target, wheel, cwd=target)
    return target


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel: Path) -> None:
    package = {p.relative_to(ROOT).as_posix() for p in (ROOT / "tuneful").rglob("*") if p.is_file()}
    package = {name for name in package if "__pycache__" not in name}
    recipes = {f"tuneful/recipes/{p.relative_to(ROOT / 'recipes').as_posix()}" for p in (ROOT / "recipes").rglob("*.*")}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert "tuneful/py.typed" in held
    assert held == package | recipes


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    assert wheel.name == f"tuneful-{tuneful.__version__}-py3-none-any.whl"
    info = f"tuneful-{tuneful.__version__}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        assert "Apache License" in archive.read(f"{info}/licenses/LICENSE").decode()
        assert "tuneful = tuneful.cli.main:main" in archive.read(f"{info}/entry_points.txt").decode()


def test_the_installed_package_is_the_wheel_s(installed: Path, tmp_path: Path) -> None:
    where = run(
        sys.executable, "-c", "import tuneful; print(tuneful.__file__)", cwd=tmp_path, PYTHONPATH=str(installed)
    )
    assert Path(where.strip()) == installed / "tuneful" / "__init__.py"


def test_the_command_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    as_module = run(sys.executable, "-m", "tuneful", "--help", cwd=tmp_path, PYTHONPATH=str(installed))
    as_script = run(installed / "bin" / "tuneful", "--help", cwd=tmp_path, PYTHONPATH=str(installed))
    for shown in (as_module, as_script):
        assert "demo" in shown
        assert "run" in shown
