"""A model whose logits spread over nats, and a process that serves it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving.process import Served


@pytest.fixture(scope="session")
def base_dir(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama with its weights drawn wide."""
    import torch
    from transformers import AutoModelForCausalLM

    from tuneful.models.loading import load_tokenizer, save_model

    directory = tmp_path_factory.mktemp("served-llama")
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    with torch.random.fork_rng():
        torch.manual_seed(6)
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.data.normal_(std=0.2)
    save_model(model, load_tokenizer(tiny_model_dir), directory)
    return directory


@pytest.fixture(scope="session")
def served(base_dir: Path) -> Iterator[Served]:
    """One process for all tests that leave it running."""
    process = Served(base_dir)
    yield process
    process.kill()
