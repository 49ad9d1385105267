"""Generation: our sampler beside transformers' `generate`, on the same weights and prompts.

    python bench/generation.py [--size S] [--workload ragged] [--shape full|lora] [--batch 32] [--rounds 5] [--json]

A call goes from prompts to texts: it samples at temperature 1, from the whole distribution, at most 64 tokens to each
of `--batch` prompts of 64 tokens (fixed) or up to 128 (ragged), all decoded together on both sides. `full`: a plain
model. `lora`: an adapter of rank 16 on all seven linear kinds, as a policy has it while it is trained; the peer merges
it for the call and takes it out again, which is faster than to carry it along. Tokens up to the end token are counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import peer

NEW_TOKENS, RANK = 64, 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=peer.SIZES, default="S")
    parser.add_argument("--workload", choices=["fixed", "ragged"], default="ragged")
    parser.add_argument("--shape", choices=["full", "lora"], default="full")
    parser.add_argument("--batch", type=int, default=32, help="prompts of a call")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=5, help="calls that are timed, after one that is not")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", choices=["ours", "transformers"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(json.dumps({"ours": ours, "transformers": transformers}[given.side](given)))
        return
    peer.prepare(given.size, given.workload)
    told = peer.take_turns(sys.argv, ["ours", "transformers"], given.rounds)
    ours_, theirs = (peer.medians(told[side]) for side in ("ours", "transformers"))
    peer.require_mean(given.workload, ours_, theirs)
    peaks = peer.medians(told["machine"])
    place = {"bench": "generation", "size": given.size, "workload": given.workload, "shape": given.shape}
    result = {
        **place,
        "device": peer.device(),
        "batch": given.batch,
        "rounds": given.rounds,
        "ours": ours_,
        "transformers": theirs,
        **peer.ratio(told, "ours", "transformers", "tokens_per_s", "speed"),
        **peer.ratio(told, "ours", "transformers", "mib_above_imports", "memory"),
        **peaks,
        **peer.against_baseline(theirs["tokens_per_s"], peaks["gemm_gflops"], **place),
    }
    print(json.dumps(result) if given.json else "\n".join(f"{name:<15} {value}" for name, value in result.items()))


def ours(given: argparse.Namespace) -> dict[str, float]:
    from tuneful.generation.sampler import Sampler
    from tuneful.generation.sampling import Sampling
    from tuneful.models.adapters import LoRA
    from tuneful.models.loading import load_tokenizer
    from tuneful.models.roles import policy_roles

    peer.import_models()
    imported = peer.resident()
    base = peer.base(given.size, given.workload)
    prompts = peer.prompts(base, given.batch * (given.calls + 1), given.workload)
    lora = LoRA(rank=RANK, alpha=2 * RANK) if given.shape == "lora" else None
    policy = policy_roles(base, lora=lora, with_reference=False).policy
    assert policy is not None
    sampler = Sampler(policy, load_tokenizer(base))
    sampling = Sampling(max_new_tokens=NEW_TOKENS, max_prompt_tokens=peer.PROMPT_TOKENS[given.workload])

    def call(number: int) -> list[int]:
        few = prompts[number * given.batch : (number + 1) * given.batch]
        return [len(row) for row in sampler.sample(few, sampling, seed=number).completions]

    return _told(given, call, imported)


def transformers(given: argparse.Namespace) -> dict[str, float]:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tuneful.data.templates import prompt_ids

    peer.import_models()
    imported = peer.resident()
    base = peer.base(given.size, given.workload)
    tokenizer = AutoTokenizer.from_pretrained(base, padding_side="left")
    longest = peer.PROMPT_TOKENS[given.workload]
    prompts = peer.prompts(base, given.batch * (given.calls + 1), given.workload)
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    if given.shape == "lora":
        kind = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, kind).eval()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)

    @torch.no_grad()
    def call(number: int) -> list[int]:
        few = prompts[number * given.batch : (number + 1) * given.batch]
        ids = [prompt_ids(prompt, tokenizer, max_tokens=longest) for prompt in few]
        padded = tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(model.device)
        if given.shape == "lora":
            model.merge_adapter()
        rows = model.generate(**padded, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=NEW_TOKENS)
        if given.shape == "lora":
            model.unmerge_adapter()
        new = rows[:, padded["input_ids"].shape[1] :]
        tokenizer.batch_decode(new, skip_special_tokens=True)
        return [_ended(row, tokenizer.eos_token_id) for row in new.tolist()]

    return _told(given, call, imported)


def _ended(row: Sequence[int], end: int) -> int:
    """Tokens up to the end token, itself included."""
    return row.index(end) + 1 if end in row else len(row)


def _told(given: argparse.Namespace, call: Callable[[int], list[int]], imported: float) -> dict[str, float]:
    """`call` returns the lengths of its completions; the first call warms up."""
    speeds, lengths = [], []
    for number in range(given.calls + 1):
        start = time.perf_counter()
        rows = call(number)
        speeds.append(sum(rows) / (time.perf_counter() - start))
        lengths += rows
    return {
        "tokens_per_s": statistics.median(speeds[1:]),
        "mib_above_imports": peer.resident() - imported,
        "mib_of_imports": imported,
        "completion_tokens": statistics.mean(lengths),
    }


if __name__ == "__main__":
    main()
