"""Does a merged model cost what its base costs? Size, and tokens per second of both in turns, by transformers alone.

    tuneful export runs/mine/ppo --merge --out merged
    python bench/export.py --base base --merged merged [--adapter runs/mine/ppo/model] [--json]

The runs alternate, so that whatever else the machine does meets all sides alike. The ratio is the median over rounds,
with its quartiles. An adapter that is not merged can be timed beside them.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import quantiles
from typing import Any

import torch

from tuneful.pipeline.export import weights_in


def load(path: Path) -> Any:
    """A model as anybody would load it, in float32."""
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM

    auto = AutoPeftModelForCausalLM if (path / "adapter_config.json").exists() else AutoModelForCausalLM
    return auto.from_pretrained(path, dtype=torch.float32).eval()


def tokens_per_second(model: Any, *, batch: int, prompt: int, new: int) -> float:
    """Greedy decoding of exactly `new` tokens for `batch` equal prompts."""
    ids = torch.arange(3, 3 + prompt).expand(batch, prompt)
    started = time.perf_counter()
    out = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        min_new_tokens=new,
        max_new_tokens=new,
        do_sample=False,
        pad_token_id=0,
    )
    seconds = time.perf_counter() - started
    assert out.shape == (batch, prompt + new)
    return batch * new / seconds


def spread(values: Sequence[float], base: Sequence[float] | None = None) -> dict[str, float]:
    """Median and quartiles of values, or of their ratios to the base's in the same round."""
    ratios = [value / of for value, of in zip(values, base, strict=True)] if base else list(values)
    low, middle, high = quantiles(ratios, n=4)
    return {"median": middle, "low": low, "high": high}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--merged", type=Path, required=True)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--new", type=int, default=32)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    sides = {"base": given.base, "merged": given.merged} | ({"adapter": given.adapter} if given.adapter else {})
    models = {name: load(path) for name, path in sides.items()}
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(given.rounds + 1):
        names = list(models) if turn % 2 else list(models)[::-1]
        for name in names:
            speed = tokens_per_second(models[name], batch=given.batch, prompt=given.prompt, new=given.new)
            if turn:  # the first is for warming up
                speeds[name].append(speed)
    (base, base_bytes), (merged, merged_bytes) = (weights_in(sides[name]) for name in ("base", "merged"))
    result: dict[str, Any] = {
        "same_tensors": base == merged,
        "num_tensors": len(merged),
        "bytes": {"base": base_bytes, "merged": merged_bytes},
        "tokens_per_second": {n: spread(s) for n, s in speeds.items()},
        "ratio_to_base": {n: spread(s, speeds["base"]) for n, s in speeds.items() if n != "base"},
        "rounds": given.rounds,
    }
    print(f"same names, types and shapes of {len(merged)} tensors: {'yes' if base == merged else 'no'}")
    print(f"bytes of weights: base {base_bytes:,}, merged {merged_bytes:,}")
    for name, speed in result["tokens_per_second"].items():
        told = f"{name:<8} {speed['median']:8.0f} tokens/s"
        if name != "base":
            ratio = result["ratio_to_base"][name]
            told += f"   {ratio['median']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}] of the base's"
        print(told)
    if given.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
