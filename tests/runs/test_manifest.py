"""Hashes against the shell's, versions against the packages'."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tuneful.errors import DataError
from tuneful.runs.manifest import environment, file_hash, tree_hash


def test_hashes_are_those_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two").write_text("2")
    (tmp_path / "one").write_text("1")
    # printf 1 | sha256sum
    assert file_hash(tmp_path / "one") == "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
    command = "sha256sum b/two one | sha256sum"
    printed = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert tree_hash(tmp_path) == printed.stdout.split()[0]


def test_a_renamed_file_is_another_tree(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("1")
    before = tree_hash(tmp_path)
    (tmp_path / "one").rename(tmp_path / "two")
    assert tree_hash(tmp_path) != before


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none: cannot be read: No such file"):
        file_hash(tmp_path / "none")
    with pytest.raises(DataError, match="no files there"):
        tree_hash(tmp_path)


def test_versions_without_importing_anything_heavy() -> None:
    code = (
        "import sys; from tuneful.runs.manifest import environment; versions = environment();"
        "sys.exit(repr(sorted({'torch', 'transformers', 'peft', 'numpy'} & sys.modules.keys())) + versions['torch'])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    import torch

    assert run.stderr.strip() == "[]" + torch.__version__
    assert environment()["python"] == ".".join(map(str, sys.version_info[:3]))
