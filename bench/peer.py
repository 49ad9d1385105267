"""What the benches against a peer share: the models and prompts both sides start from, and runs that take turns.

Each side runs in a process of its own, ours and theirs in turn, so that a machine that slows down slows both. A side
prints one JSON line; the ratio is of medians. The machine's peaks of multiplying and copying are taken in the same run.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from tuneful.data.sources import cache_folder

Workload = Literal["fixed", "ragged"]

SIZES = {
    "S": {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 688},
    "M": {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "intermediate_size": 1376},
}
"""About 5 M and 30 M parameters with a vocabulary of 4,096 and a head of its own."""

PROMPT_TOKENS = {"fixed": 64, "ragged": 128}
ENDS_AT = 24
"""Tokens at which the completions end on average that a base for the ragged workload learns from."""


def base(size: str, workload: Workload) -> Path:
    """A Llama with the tokenizer of `small:base`, made once: random weights, or for the ragged workload 300 steps of
    SFT on HH completions that are cut so that their end token comes at 24 tokens on average."""
    folder = cache_folder() / "bench" / f"{size}-{workload}"
    if not (folder / "config.json").exists():
        _make_base(folder, size, workload)
    return folder


def prompts(path: Path, count: int, workload: Workload) -> list[Any]:
    """Prompts of HH's test file: for the fixed workload those of at least 64 tokens, all cut to 64 by the sampler."""
    from tuneful.data.formats import read_comparisons
    from tuneful.data.sources import resolve
    from tuneful.data.templates import prompt_ids
    from tuneful.models.loading import load_tokenizer

    tokenizer = load_tokenizer(path)
    found = [c.prompt for c in read_comparisons(resolve("hh-harmless/test"), on_skip=lambda _: None)]
    if workload == "fixed":
        found = [p for p in found if len(prompt_ids(p, tokenizer, max_tokens=None)) >= PROMPT_TOKENS["fixed"]]
    return [found[i % len(found)] for i in range(count)]


def resident() -> float:
    """The most memory this process has held so far, in MiB: of tensors on a GPU, where there is one, else resident."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def device() -> str:
    """The name of the GPU, or of the machine's kind."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"


def import_models() -> None:
    """What either side imports late, so that memory above the imports counts no module."""
    importlib.import_module("peft")
    for name in ("LlamaForCausalLM", "LlamaForSequenceClassification", "AutoTokenizer", "DynamicCache"):
        getattr(importlib.import_module("transformers"), name)


def take_turns(command: Sequence[str], sides: Sequence[str], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Run `command --side SIDE` for each side in turn, `rounds` times; the JSON line that each run printed last."""
    told: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for turn in range(rounds):
        for side in sides if turn % 2 == 0 else reversed(sides):
            run = subprocess.run(
                [sys.executable, *command, "--side", side],
                capture_output=True,
                check=False,
                text=True,
                env=os.environ | {"PYTHONWARNINGS": "ignore"},
            )
            if run.returncode:
                raise SystemExit(f"{side} failed:\n{run.stderr[-3000:]}")
            told[side].append(json.loads(run.stdout.strip().splitlines()[-1]))
            print(f"{turn + 1}/{rounds} {side:<6} {told[side][-1]}", file=sys.stderr, flush=True)
    return told


def medians(told: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The median of every number over the runs of a side."""
    return {name: statistics.median(run[name] for run in told) for name in told[0]}


def machine_peaks() -> dict[str, float]:
    """The best of several float32 matrix products in GFLOP/s and of several copies in GB/s, read and written."""
    import torch

    on, size = ("cuda", 4096) if torch.cuda.is_available() else ("cpu", 1024)
    a, b = torch.randn(size, size, device=on), torch.randn(size, size, device=on)
    large = torch.randn(32 * 2**20, device=on)
    product = min(_seconds(lambda: a @ b) for _ in range(20))
    copy = min(_seconds(large.clone) for _ in range(5))
    return {"gemm_gflops": 2 * size**3 / product / 1e9, "copy_gb_s": 2 * large.nbytes / copy / 1e9}


def _seconds(work: Any) -> float:
    import torch

    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


def _make_base(folder: Path, size: str, workload: Workload) -> None:
    import random

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tuneful.demo.run import shipped_worlds
    from tuneful.models.loading import load_tokenizer, save_model
    from tuneful.pipeline.context import Silent

    tokenizer = load_tokenizer(shipped_worlds()["small"].models["base"](Silent().step))
    torch.manual_seed(1234)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **SIZES[size],  # type: ignore[arg-type]
    )
    model: Any = LlamaForCausalLM(config)
    if workload == "ragged":
        from tuneful.data.formats import read_comparisons
        from tuneful.data.sources import resolve
        from tuneful.data.templates import pair_ids

        draw = random.Random(0)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        comparisons = read_comparisons(resolve("hh-harmless/train"), on_skip=lambda _: None)
        rows = [pair_ids(c.prompt, c.chosen, tokenizer, max_tokens=256) for c in comparisons]
        rows = [(prompt, answer) for prompt, answer in rows if len(answer) >= 2 * ENDS_AT]
        for step in range(300):
            batch = []
            for prompt, answer in draw.sample(rows, 16):
                length = draw.randint(2, 2 * ENDS_AT - 2)  # mean 24, the end token included
                batch.append((prompt[-128:], [*answer[:-1][: length - 1], tokenizer.eos_token_id]))
            width = max(len(prompt) + len(answer) for prompt, answer in batch)
            ids = [[*p, *a] + [0] * (width - len(p) - len(a)) for p, a in batch]
            targets = [[-100] * len(p) + a + [-100] * (width - len(p) - len(a)) for p, a in batch]
            loss = model(input_ids=torch.tensor(ids), labels=torch.tensor(targets)).loss
            for group in optimizer.param_groups:
                group["lr"] = 1e-3 * (1 - step / 300)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    save_model(model, tokenizer, folder)
