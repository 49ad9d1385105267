"""A tiny encoder whose tokenizer parts words."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import save_bert

PIECES = "how do i cook bread the dog is hot ##ter ##est please thank you good cold".split()


@pytest.fixture(scope="session")
def bert_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of one score (48 positions)."""
    from transformers import BertForSequenceClassification

    settings = {"num_labels": 1, "initializer_range": 0.3, "max_position_embeddings": 48}
    return save_bert(tmp_path_factory.mktemp("bert"), BertForSequenceClassification, PIECES, seed=2, **settings)
