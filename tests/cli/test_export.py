"""`tuneful export` from outside: what it prints, what it leaves, and one line for every mistake."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoTokenizer

IDS = torch.tensor([[1, 7, 9, 30, 12]])


def tuneful(*arguments: object, before: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tuneful", *map(str, arguments)]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, env=dict(os.environ), timeout=240, preexec_fn=before
    )


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    """An adapter of somebody else's, by peft alone."""
    folder = tmp_path_factory.mktemp("cli-export") / "adapter"
    base: Any = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    model: Any = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    torch.manual_seed(4)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data.normal_(std=0.3)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model_dir).save_pretrained(folder)
    return folder


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    lines = [line for line in done.stderr.splitlines() if "Error" in line or "Traceback" in line]
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_an_adapter_is_merged(adapter: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    done = tuneful("export", adapter, "--merge", "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    weights = (tmp_path / "out" / "model.safetensors").stat().st_size
    base: Any = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    assert told == {
        "out": str(tmp_path / "out"),
        "source": str(adapter),
        "form": "merged",
        "num_weights": sum(p.numel() for p in base.parameters()),
        "dtypes": ["float32"],
        "num_bytes": weights,
        "lost": [],
        "pushed": None,
    }
    merged: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert_close(merged(IDS).logits, PeftModel.from_pretrained(base, adapter)(IDS).logits, atol=1e-5, rtol=1e-5)


def test_a_line_for_people(adapter: Path, tmp_path: Path) -> None:
    done = tuneful("export", adapter, "--out", tmp_path / "out")
    assert done.stdout.startswith(f"an adapter from {adapter} in {tmp_path / 'out'}: "), done.stderr
    assert "Failed to load" not in done.stderr  # what bitsandbytes says of a kernel when peft looks for it


def test_every_mistake_is_one_line(adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work.txt").touch()
    out = ("--out", tmp_path / "out")
    for arguments, said in (
        ((tmp_path / "mine", *out), "no model (config.json or adapter_config.json) and no run (run.json) is there"),
        ((adapter, "--out", tmp_path / "mine", "--force"), "holds files that are no export of ours"),
        ((adapter, *out, "--dtype", "bfloat16"), "--dtype bfloat16 needs --merge"),
    ):
        assert said in error_of(tuneful("export", *arguments))
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_one_line(adapter: Path, tmp_path: Path) -> None:
    """No file may grow beyond 30 kB, which the weights of the merged model do."""
    done = tuneful(
        *("export", adapter, "--merge", "--out", tmp_path / "out"),
        before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000)),
    )
    assert "cannot be written" in error_of(done)
    assert list(tmp_path.iterdir()) == []
