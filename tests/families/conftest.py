"""Each family's tiny model, written once, and what learners train on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.families.families import save
from tests.pipeline.recipes import WORDS
from tuneful.data.jsonl import write_jsonl


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Callable[[str], Path]:
    """The folder of a family's model by the family's name."""
    folders: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in folders:
            folders[name] = save(name, tmp_path_factory.mktemp("family"), tiny_model_dir)
        return folders[name]

    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Prompts of words that the tiny models know, with a good and a bad answer."""
    path = tmp_path / "data.jsonl"
    rows = [{"prompt": f"{one} {WORDS[0]}", "chosen": "yes please", "rejected": "no no"} for one in WORDS]
    write_jsonl(path, rows)
    return path
