"""PPO: our step beside TRL's, on the same weights and prompts. TRL 1.12.0 is its last release with PPO.

    pip install --no-deps --target trl-1.12 trl==1.12.0
    python bench/ppo.py --trl trl-1.12 [--size S] [--workload ragged] [--shape lora|full] [--rounds 5] [--json]

A step is 32 completions of at most 64 tokens to prompts of 64 tokens (fixed) or up to 128 (ragged), 4 epochs and 16
optimizer steps. `lora`: adapters of rank 16 on all seven linear kinds; what each side makes of the other roles is its
own: ours one base for all, theirs a value and a reward model beside it. `full`: all weights, with a value model, a
reward model and a reference of their own on both sides. Memory is the most that was resident above the imports.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import peer

ROLLOUTS, EPOCHS, MINIBATCHES, NEW_TOKENS, RANK = 32, 4, 4, 64, 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl", type=Path, required=True, help="the folder that holds TRL 1.12.0")
    parser.add_argument("--size", choices=peer.SIZES, default="S")
    parser.add_argument("--workload", choices=["fixed", "ragged"], default="ragged")
    parser.add_argument("--shape", choices=["lora", "full"], default="lora")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--tokens-per-microbatch", type=int, default=1_024, help="of ours")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", choices=["ours", "trl"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(json.dumps({"ours": ours, "trl": trl}[given.side](given)))
        return
    peer.base(given.size, given.workload)
    told = peer.take_turns(sys.argv, ["ours", "trl"], given.rounds)
    ours_, theirs = (peer.medians(told[side]) for side in ("ours", "trl"))
    result = {
        "bench": "ppo",
        "device": peer.device(),
        "size": given.size,
        "workload": given.workload,
        "shape": given.shape,
        "rounds": given.rounds,
        "ours": ours_,
        "trl": theirs,
        "speed": ours_["samples_per_s"] / theirs["samples_per_s"],
        "memory": ours_["mib_above_imports"] / theirs["mib_above_imports"],
        **peer.machine_peaks(),
    }
    print(json.dumps(result) if given.json else "\n".join(f"{name:<10} {value}" for name, value in result.items()))


def ours(given: argparse.Namespace) -> dict[str, float]:
    from tuneful.algorithms.ppo import PPO, PPOConfig
    from tuneful.engines.local import LocalEngine
    from tuneful.engines.optimization import Optimization
    from tuneful.models.adapters import LoRA
    from tuneful.models.loading import load_scorer, load_tokenizer, save_model, write_reward_file
    from tuneful.models.roles import policy_roles, reward_roles
    from tuneful.rewards.learned import LearnedReward

    peer.import_models()
    imported = peer.resident()
    base = peer.base(given.size, given.workload)
    tokenizer = load_tokenizer(base)
    config = PPOConfig(
        num_steps=given.steps + 1,
        prompts_per_step=ROLLOUTS,
        max_new_tokens=NEW_TOKENS,
        max_prompt_tokens=peer.PROMPT_TOKENS[given.workload],
        epochs=EPOCHS,
        minibatches=MINIBATCHES,
        optimization=Optimization(learning_rate=1e-5),
    )
    longest = peer.PROMPT_TOKENS[given.workload] + NEW_TOKENS
    with tempfile.TemporaryDirectory() as folder:
        if given.shape == "lora":
            lora = LoRA(rank=RANK, alpha=2 * RANK)
            scorer = reward_roles(base, lora=lora).reward
            assert scorer is not None and scorer.adapters is not None
            scorer.adapters.save("reward", Path(folder))
            tokenizer.save_pretrained(folder)
            write_reward_file(Path(folder), {"gain": 1.0, "bias": 0.0, "base": str(base), "max_tokens": longest})
            del scorer
            roles = policy_roles(base, lora=lora, value="head")
            reward = LearnedReward.load(Path(folder), base=roles.policy)
        else:
            save_model(load_scorer(base), tokenizer, Path(folder))
            write_reward_file(Path(folder), {"gain": 1.0, "bias": 0.0, "max_tokens": longest})
            roles = policy_roles(base, value="model")
            reward = LearnedReward.load(Path(folder))
        engine = LocalEngine(
            roles,
            tokenizer,
            optimization=config.optimization,
            total_steps=config.updates,
            tokens_per_microbatch=given.tokens_per_microbatch,
        )
        learner = PPO(engine, peer.prompts(base, ROLLOUTS * (given.steps + 1), given.workload), reward, config)
        seconds, lengths = [], []
        for _ in range(given.steps + 1):
            start = time.perf_counter()
            metrics = learner.step()
            seconds.append(time.perf_counter() - start)
            lengths.append(float(metrics["length_tokens"]))
    return _told(seconds, imported, statistics.mean(lengths))


def trl(given: argparse.Namespace) -> dict[str, float]:
    sys.path.insert(0, str(given.trl.resolve()))
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        TrainerCallback,
    )
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    from tuneful.data.templates import prompt_ids

    peer.import_models()
    imported = peer.resident()
    base = peer.base(given.size, given.workload)
    tokenizer = AutoTokenizer.from_pretrained(base, padding_side="left")
    longest = peer.PROMPT_TOKENS[given.workload]
    ids = [
        prompt_ids(prompt, tokenizer, max_tokens=longest)
        for prompt in peer.prompts(base, ROLLOUTS * (given.steps + 1), given.workload)
    ]
    policy: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    value, reward = (
        AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=torch.float32) for _ in range(2)
    )
    adapter, reference = None, None
    if given.shape == "lora":
        adapter = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    else:
        reference = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    moments, lengths = [], []

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            moments.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            moments.append(time.perf_counter())

    truncated = ppo_trainer.truncate_response

    def counted(stop: int, pad: int, responses: Any) -> Any:
        kept = truncated(stop, pad, responses)
        lengths.append(float((kept != pad).sum(1).float().mean()))
        return kept

    ppo_trainer.truncate_response = counted
    with tempfile.TemporaryDirectory() as folder:
        arguments = PPOConfig(
            output_dir=folder,
            per_device_train_batch_size=ROLLOUTS,
            gradient_accumulation_steps=1,
            local_rollout_forward_batch_size=ROLLOUTS,
            num_mini_batches=MINIBATCHES,
            num_ppo_epochs=EPOCHS,
            total_episodes=ROLLOUTS * (given.steps + 1),
            response_length=NEW_TOKENS,
            temperature=1.0,  # its default is 0.7
            missing_eos_penalty=1.0,
            stop_token="eos" if given.workload == "ragged" else None,
            num_sample_generations=0,
            learning_rate=1e-5,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=not torch.cuda.is_available(),
            report_to="none",
            save_strategy="no",
            eval_strategy="no",
            logging_strategy="no",
        )
        trainer = PPOTrainer(
            args=arguments,
            processing_class=tokenizer,
            model=policy,
            ref_model=reference,
            reward_model=reward,
            value_model=value,
            train_dataset=Dataset.from_dict({"input_ids": ids}),
            eval_dataset=Dataset.from_dict({"input_ids": ids[:2]}),
            peft_config=adapter,
            callbacks=[Clock()],
        )
        trainer.train()
    seconds = [later - sooner for sooner, later in itertools.pairwise(moments)]
    return _told(seconds, imported, statistics.mean(lengths) if lengths else float(NEW_TOKENS))


def _told(seconds: list[float], imported: float, length: float) -> dict[str, float]:
    """One warm-up step is left out."""
    return {
        "samples_per_s": ROLLOUTS / statistics.median(seconds[1:]),
        "mib_above_imports": peer.resident() - imported,
        "mib_of_imports": imported,
        "completion_tokens": length,
    }


if __name__ == "__main__":
    main()
