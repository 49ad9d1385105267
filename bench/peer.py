"""What the benches against a peer share: the models and prompts both sides start from, and runs that take turns.

Each side runs in a process of its own, ours and theirs in turn, so that a machine that slows down slows both. A side
prints one JSON line; the ratio is of medians. The machine's peaks of multiplying and copying are taken in the same run.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from tuneful.data.sources import cache_folder

Workload = Literal["fixed", "ragged"]

SIZES = {
    "XS": {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 344},
    "S": {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 688},
    "M": {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "intermediate_size": 1376},
}
"""About 1.4 M, 5 M and 30 M parameters with a vocabulary of 4,096 and a head of its own."""

VOCABULARY = 4_096

PROMPT_TOKENS = {"fixed": 64, "ragged": 128}
ENDS_AT = 24
"""Tokens at which the completions end on average that a base for the ragged workload learns from."""

MEAN_TOKENS = 18, 30
"""Between which the mean of a side's completions must lie."""

COMPLETION_TOKENS = 64
"""The most tokens of an answer that the learners' benches read, its end token included."""

PEAKS = "peaks"
"""What this file is told to measure the machine."""

BASELINE = {
    ("ppo", "S", "full", "fixed"): 3.79,
    ("ppo", "S", "lora", "fixed"): 3.98,
    ("ppo", "M", "full", "fixed"): 0.727,
    ("ppo", "M", "lora", "fixed"): 0.770,
    ("reward", "S", "full", "ragged"): 16.4,
    ("reward", "S", "lora", "ragged"): 16.1,
    ("sft", "S", "full", "ragged"): 1900.0,
    ("sft", "S", "lora", "ragged"): 2155.0,
    ("sft", "M", "full", "ragged"): 475.5,
    ("dpo", "S", "full", "ragged"): 6.7,
    ("dpo", "S", "lora", "ragged"): 6.2,
    ("generation", "S", "full", "fixed"): 2364.0,
    ("generation", "M", "full", "fixed"): 610.0,
}
"""What the peer reached alone, by (bench, size, shape, workload): rollouts, pairs or tokens per second, the
median of three processes, the mean of two, or one. TRL 1.12.0 for PPO, 1.16.0 else; transformers for generation."""

BASELINE_GFLOPS = 220.0
"""The best float32 matrix product of the machine of those runs."""


def base(size: str, workload: Workload) -> Path:
    """A Llama with the tokenizer of `small:base`, made once: random weights, or for the ragged workload 300 steps of
    SFT on HH completions that are cut so that their end token comes at 24 tokens on average."""
    folder = cache_folder() / "bench" / f"{size}-{workload}"
    if not (folder / "config.json").exists():
        _make_base(folder, size, workload)
    return folder


def prepare(size: str, workload: Workload) -> None:
    """Have `base` made by a process of its own: Linux hands the most that a process ever held down to those that it
    starts, so what one that times others held would hide what they hold."""
    subprocess.run([sys.executable, __file__, size, workload], check=True)


def trunk_params(size: str) -> int:
    """Weights of the layers that every token goes through, without embeddings, head and norms."""
    shape = SIZES[size]
    width = shape["hidden_size"]
    return shape["num_hidden_layers"] * (4 * width**2 + 3 * width * shape["intermediate_size"])


def closing_params(size: str) -> int:
    """Those of them in the last layer that make no keys and values."""
    width = SIZES[size]["hidden_size"]
    return 2 * width**2 + 3 * width * SIZES[size]["intermediate_size"]


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


def pairs(path: Path, count: int) -> list[Any]:
    """The first comparisons of HH's test file as plain text: of each prompt the last 128 tokens, of each answer the
    first 63, which leaves room for the end token. Pairs whose two sides begin alike are left out; each is a group."""
    from tuneful.data.formats import read_comparisons
    from tuneful.data.sources import resolve
    from tuneful.data.templates import pair_ids, prompt_ids
    from tuneful.models.loading import load_tokenizer
    from tuneful.records import Comparison, Prompt

    tokenizer = load_tokenizer(path)

    def cut(comparison: Comparison) -> Comparison:
        asked = prompt_ids(comparison.prompt, tokenizer, max_tokens=PROMPT_TOKENS["ragged"])
        sides = (
            pair_ids(comparison.prompt, s, tokenizer, max_tokens=None) for s in (comparison.chosen, comparison.rejected)
        )
        answers = [answer[:-1][: COMPLETION_TOKENS - 1] for _, answer in sides]
        prompt = Prompt(tokenizer.decode(asked, clean_up_tokenization_spaces=False))
        chosen, rejected = (tokenizer.decode(a, clean_up_tokenization_spaces=False) for a in answers)
        return Comparison(prompt, chosen, rejected)

    found = map(cut, read_comparisons(resolve("hh-harmless/test"), on_skip=lambda _: None))
    kept = list(itertools.islice((c for c in found if c.chosen != c.rejected), count))
    return [replace(kept[i % len(kept)], group=str(i)) for i in range(count)]


def against_baseline(
    throughput: float, gemm_gflops: float, *, bench: str, size: str, shape: str, workload: str
) -> dict[str, float | bool | None]:
    """The peer's throughput for each GFLOP/s of the machine, as a multiple of what it was alone; a run in which that
    is further than a quarter from 1 is void. None where the peer was not measured alone."""
    alone = BASELINE.get((bench, size, shape, workload))
    if alone is None:
        return {"trl_of_baseline": None, "void": None}
    share = (throughput / gemm_gflops) / (alone / BASELINE_GFLOPS)
    return {"trl_of_baseline": share, "void": not 0.75 <= share <= 1.25}


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


def take_turns(
    command: Sequence[str], sides: Sequence[str], rounds: int, *, seeded: bool = False
) -> dict[str, list[dict[str, Any]]]:
    """Run `command --side SIDE` for each side in turn, `rounds` times; the JSON line that each run printed last.

    seeded: each round has a seed of its own, so that no side has long answers in all of them.
    Under "machine": its peaks, taken after each round.
    """
    told: dict[str, list[dict[str, Any]]] = {side: [] for side in [*sides, "machine"]}
    for turn in range(rounds):
        for side in sides if turn % 2 == 0 else reversed(sides):
            run = subprocess.run(
                [sys.executable, *command, *(["--seed", str(turn)] if seeded else []), "--side", side],
                capture_output=True,
                check=False,
                text=True,
                env=os.environ | {"PYTHONWARNINGS": "ignore"},
            )
            if run.returncode:
                raise SystemExit(f"{side} failed:\n{run.stderr[-3000:]}")
            told[side].append(json.loads(run.stdout.strip().splitlines()[-1]))
            print(f"{turn + 1}/{rounds} {side:<6} {told[side][-1]}", file=sys.stderr, flush=True)
        # By a process of its own: what this one held would count as the least that those started later ever held.
        peaks = subprocess.run([sys.executable, __file__, PEAKS], capture_output=True, check=True, text=True)
        told["machine"].append(json.loads(peaks.stdout.strip().splitlines()[-1]))
    return told


def ratio(told: dict[str, list[dict[str, Any]]], ours: str, theirs: str, number: str, name: str) -> dict[str, Any]:
    """The ratio of the medians under `name`, and the least and the most of the rounds."""
    rounds = [one[number] / other[number] for one, other in zip(told[ours], told[theirs], strict=True)]
    of_medians = medians(told[ours])[number] / medians(told[theirs])[number]
    return {name: of_medians, f"{name}_range": [min(rounds), max(rounds)]}


def require_mean(workload: Workload, *sides: dict[str, float]) -> None:
    """Stop unless the completions of a ragged workload are as long as they are meant to be, on all sides."""
    least, most = MEAN_TOKENS
    for side in sides:
        if workload == "ragged" and not least <= side["completion_tokens"] <= most:
            raise SystemExit(
                f"completions have {side['completion_tokens']:.1f} tokens on average, not {least} to {most}; remove "
                f"{cache_folder() / 'bench'} to train the base anew"
            )


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
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = LlamaForCausalLM(config).to(device)
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
            inputs, labels = (torch.tensor(of, device=device) for of in (ids, targets))
            loss = model(input_ids=inputs, labels=labels).loss
            for group in optimizer.param_groups:
                group["lr"] = 1e-3 * (1 - step / 300)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    save_model(model, tokenizer, folder)


if __name__ == "__main__":
    if sys.argv[1:] == [PEAKS]:
        print(json.dumps(machine_peaks()))
    else:
        base(*sys.argv[1:])  # type: ignore[arg-type]
