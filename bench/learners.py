"""SFT, reward model and DPO: our step beside TRL's, on the same weights and the same token ids.

    python bench/learners.py {sft,reward,dpo} [--size S] [--shape full|lora] [--rounds 5] [--steps 20] [--json]

A step is 16 pairs of HH's test file (for SFT their chosen sides): of the prompt the last 128 tokens, of an answer with
its end token 64. AdamW at a constant rate, in float32, without dropout, weight decay or gradient checkpointing. `lora`:
the same adapters of rank 16 on all seven linear kinds. Both sides see the same rows in the same order, so their losses
must agree in the first step and in the last, or there is no result. SFT is run with TRL's packing too; the faster
counts. What DPO's reference says of a pair is part of a step, whenever it is computed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peer

PAIRS, RANK, RATE, BETA = 16, 16, 1e-4, 0.1
MAX_TOKENS = peer.PROMPT_TOKENS["ragged"] + peer.COMPLETION_TOKENS
PACKED_TOKENS, PACKED_ROWS = 512, 4
"""TRL's packs, and how many make a step of about as many tokens. It joins the rows of a batch to one, whose attention
is then the square of them all, so each is a batch of its own."""
WARM_UP = 3
TOLERANCE = 1e-5
"""How far apart the losses of the two sides may lie: less than training moves them in these few steps. Packs are other
batches, whose losses cannot be compared."""

SIDES = {"sft": ("ours", "trl", "packed"), "reward": ("ours", "trl"), "dpo": ("ours", "trl")}
RATES = {"sft": "tokens_per_s", "reward": "pairs_per_s", "dpo": "pairs_per_s"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", choices=SIDES)
    parser.add_argument("--size", choices=peer.SIZES, default="S")
    parser.add_argument("--shape", choices=["full", "lora"], default="full")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="steps that are timed, after three that are not")
    parser.add_argument("--tokens-per-microbatch", type=int, default=1_024, help="of ours")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", choices=SIDES["sft"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(json.dumps(ours(given) if given.side == "ours" else trl(given)))
        return
    peer.prepare(given.size, "fixed")
    sides = SIDES[given.bench]
    runs = peer.take_turns(sys.argv, sides, given.rounds)
    told = {side: peer.medians(numbers) for side, numbers in runs.items()}
    require_agreement(told["ours"], told["trl"])
    rate = RATES[given.bench]
    best = max(sides[1:], key=lambda side: told[side][rate])
    peaks = told.pop("machine")
    result = {
        "bench": given.bench,
        "size": given.size,
        "workload": "ragged",
        "shape": given.shape,
        "device": peer.device(),
        "rounds": given.rounds,
        "tokens_per_microbatch": given.tokens_per_microbatch,
        **told,
        "faster": best,
        **peer.ratio(runs, "ours", best, rate, "speed"),
        **peer.ratio(runs, "ours", best, "mib_above_imports", "memory"),
        **peaks,
        **peer.against_baseline(
            told["trl"][rate],
            peaks["gemm_gflops"],
            bench=given.bench,
            size=given.size,
            shape=given.shape,
            workload="ragged",
        ),
    }
    print(json.dumps(result) if given.json else "\n".join(f"{name:<15} {value}" for name, value in result.items()))


def require_agreement(ours: dict[str, float], theirs: dict[str, float]) -> None:
    """Stop unless the two sides computed the same losses: then the mathematics is the same."""
    for name in ("first_loss", "last_loss"):
        if not abs(ours[name] - theirs[name]) <= TOLERANCE:
            raise SystemExit(
                f"{name} is {ours[name]:.5f} here and {theirs[name]:.5f} there, further apart than {TOLERANCE}; "
                "the sides do not compute the same step, so their speeds say nothing"
            )


def ours(given: argparse.Namespace) -> dict[str, float]:
    from tuneful.algorithms.dpo import DPO, DPOConfig
    from tuneful.algorithms.reward_model import RewardModel, RewardModelConfig, group_pairs
    from tuneful.algorithms.sft import SFT, SFTConfig
    from tuneful.engines.local import LocalEngine
    from tuneful.engines.optimization import Optimization
    from tuneful.models.adapters import LoRA
    from tuneful.models.loading import load_tokenizer
    from tuneful.models.roles import policy_roles, reward_roles
    from tuneful.records import Demonstration

    peer.import_models()
    imported = peer.resident()
    base = peer.base(given.size, "fixed")
    tokenizer = load_tokenizer(base)
    pairs, steps = _data(given, base, tokenizer)
    lora = LoRA(rank=RANK, alpha=2 * RANK) if given.shape == "lora" else None
    optimization = Optimization(learning_rate=RATE, schedule="constant")
    if given.bench == "reward":
        roles = reward_roles(base, lora=lora)
    else:
        roles = policy_roles(base, lora=lora, with_reference=given.bench == "dpo")
    engine = LocalEngine(
        roles,
        tokenizer,
        optimization=optimization,
        total_steps=len(steps),
        tokens_per_microbatch=given.tokens_per_microbatch,
    )
    learner: Any
    before = 0.0
    if given.bench == "sft":
        sft = SFTConfig(demonstrations_per_step=PAIRS, max_tokens=MAX_TOKENS, optimization=optimization)
        learner = SFT(engine, [Demonstration(pair.prompt, pair.chosen) for pair in pairs], sft, tokenizer)
    elif given.bench == "reward":
        assert roles.reward is not None
        reward = RewardModelConfig(prompts_per_step=PAIRS, max_tokens=MAX_TOKENS, optimization=optimization)
        learner = RewardModel(engine, group_pairs(pairs, roles.reward, tokenizer, MAX_TOKENS), reward)
    else:
        dpo = DPOConfig(pairs_per_step=PAIRS, beta=BETA, max_tokens=MAX_TOKENS, optimization=optimization)
        start = time.perf_counter()
        learner = DPO(engine, pairs, dpo, tokenizer)  # asks the reference about all pairs: each step bears its share
        before = (time.perf_counter() - start) / len(steps)
    seconds, losses = [], []
    for _ in steps:
        start = time.perf_counter()
        losses.append(learner.step()["loss"])
        seconds.append(before + time.perf_counter() - start)
    return _told(given, seconds, [_num_tokens(step) for step in steps], losses, imported)


def trl(given: argparse.Namespace) -> dict[str, float]:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

    from tuneful.models.loading import load_scorer

    peer.import_models()
    imported = peer.resident()
    base = peer.base(given.size, "fixed")
    tokenizer = AutoTokenizer.from_pretrained(base)
    _, steps = _data(given, base, tokenizer)
    rows = [row for step in steps for row in step]
    packed = given.side == "packed"
    moments, losses, tokens = [], [], []

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            moments.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            moments.append(time.perf_counter())

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            if "loss" in logs:
                losses.append(float(logs["loss"]))

    class GivenIds(DPOTrainer):
        """TRL's, for rows that are tokenized already."""

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, Any] = {
            "output_dir": folder,
            "seed": 0,
            "max_steps": len(steps),
            "max_length": PACKED_TOKENS if packed else MAX_TOKENS,
            "per_device_train_batch_size": 1 if packed else PAIRS,
            "gradient_accumulation_steps": PACKED_ROWS if packed else 1,
            "train_sampling_strategy": "sequential",
            "learning_rate": RATE,
            "lr_scheduler_type": "constant",
            "adam_epsilon": 1e-5,
            "weight_decay": 0.0,
            "max_grad_norm": 1.0,
            "gradient_checkpointing": False,
            "bf16": False,
            "use_cpu": not torch.cuda.is_available(),
            "report_to": "none",
            "save_strategy": "no",
            "eval_strategy": "no",
            "logging_steps": 1,
            "disable_tqdm": True,
        }
        adapter: Any = None
        if given.shape == "lora":
            kind: dict[str, Any] = {"task_type": "CAUSAL_LM"}
            if given.bench == "reward":
                kind = {"task_type": "SEQ_CLS", "modules_to_save": ["score"]}
            adapter = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", **kind)
        shared: dict[str, Any] = {"processing_class": tokenizer, "peft_config": adapter, "callbacks": [Clock()]}
        torch.manual_seed(0)  # the adapters are drawn from here, as ours are
        trainer: Any
        if given.bench == "reward":
            data = {"chosen_ids": [p + c for p, c, _ in rows], "rejected_ids": [p + r for p, _, r in rows]}
            trainer = RewardTrainer(
                load_scorer(base), RewardConfig(**settings), train_dataset=Dataset.from_dict(data), **shared
            )
        else:
            model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
            torch.manual_seed(0)
            if given.bench == "sft":
                data = {
                    "input_ids": [p + c for p, c, _ in rows],
                    "labels": [[-100] * len(p) + c for p, c, _ in rows],
                }
                trainer = SFTTrainer(
                    model, SFTConfig(packing=packed, **settings), train_dataset=Dataset.from_dict(data), **shared
                )
            else:
                data = dict(
                    zip(("prompt_ids", "chosen_ids", "rejected_ids"), map(list, zip(*rows, strict=True)), strict=True)
                )
                trainer = GivenIds(
                    model, args=DPOConfig(beta=BETA, **settings), train_dataset=Dataset.from_dict(data), **shared
                )
        if packed:
            step_tokens = trainer.training_step

            def counted(model: Any, inputs: Any, *rest: Any) -> Any:
                tokens.append(inputs["input_ids"].numel())  # packs hold no padding
                return step_tokens(model, inputs, *rest)

            trainer.training_step = counted
        trainer.train()
    if packed:
        per_step = [sum(tokens[k : k + PACKED_ROWS]) for k in range(0, len(tokens), PACKED_ROWS)]
    else:
        per_step = [_num_tokens(step) for step in steps]
    seconds = [later - sooner for sooner, later in itertools.pairwise(moments)]
    return _told(given, seconds, per_step, losses, imported)


Row = tuple[list[int], list[int], list[int]]
"""Ids of a prompt, of its chosen and of its rejected answer."""


def _data(given: argparse.Namespace, base: Path, tokenizer: Any) -> tuple[list[Any], list[list[Row]]]:
    """The pairs of the whole run, and the ids of each step in the order in which our learners take them."""
    from tuneful.data.batching import shuffled_batches
    from tuneful.data.templates import pair_ids

    num_steps = given.steps + WARM_UP
    pairs = peer.pairs(base, num_steps * PAIRS)

    def ids(number: int) -> Row:
        pair = pairs[number]
        prompt, chosen = pair_ids(pair.prompt, pair.chosen, tokenizer, max_tokens=MAX_TOKENS)
        _, rejected = pair_ids(pair.prompt, pair.rejected, tokenizer, max_tokens=MAX_TOKENS)
        return prompt, chosen, rejected

    batch = shuffled_batches(len(pairs), PAIRS, seed=0)
    return pairs, [[ids(number) for number in batch(step)] for step in range(num_steps)]


def _num_tokens(step: Sequence[Row]) -> int:
    """Real tokens of the demonstrations of a step."""
    return sum(len(prompt) + len(chosen) for prompt, chosen, _ in step)


def _told(
    given: argparse.Namespace, seconds: list[float], tokens: list[int], losses: list[float], imported: float
) -> dict[str, float]:
    """Three warm-up steps are left out."""
    done = tokens if given.bench == "sft" else [PAIRS] * len(seconds)
    return {
        RATES[given.bench]: statistics.median(n / s for n, s in list(zip(done, seconds, strict=True))[WARM_UP:]),
        "mib_above_imports": peer.resident() - imported,
        "mib_of_imports": imported,
        "first_loss": losses[0],
        "last_loss": losses[-1],
    }


if __name__ == "__main__":
    main()
