"""PPO: our step beside TRL's, on the same weights and prompts. TRL 1.12.0 is its last release with PPO.

    pip install --no-deps --target trl-1.12 trl==1.12.0
    python bench/ppo.py --trl trl-1.12 [--size S] [--workload ragged] [--shape lora|full] [--rounds 5] [--json]
    python bench/ppo.py --trl trl-1.12 --planted [--rounds 3] [--steps 20] ...

A step is 32 completions of at most 64 tokens to prompts of 64 tokens (fixed) or up to 128 (ragged), 4 epochs and 16
optimizer steps. `lora`: adapters of rank 16 on all seven linear kinds; what each side makes of the other roles is its
own: ours one base for all, theirs a value and a reward model beside it; with `--value model` ours has a value model
too. `full`: all weights, with a value model, a reward model and a reference of their own on both sides. Memory is the
most that was resident above the imports.

`--planted` asks whether a step teaches as much: the reward is then the share of tokens of even id, `--rounds` seeds are
trained on each side for as many samples, and the reward of the last quarter of the steps is compared.
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
from typing import TYPE_CHECKING, Any

import peer
import scipy.stats
from limit import PPOWork, fraction_of_limit

if TYPE_CHECKING:
    from torch import Tensor

    from tuneful.records import Completion

ROLLOUTS, EPOCHS, MINIBATCHES, NEW_TOKENS, RANK = 32, 4, 4, 64, 16

PEER_BATCH, PEER_FORWARD = 8, 32
"""The peer's fastest, of those that peer_batches.py tries: a minibatch whole, and all its rollouts at once."""

PLANTED, PLANTED_RATE = 5.0, {"lora": 1e-3, "full": 1e-4}
"""Scale of the planted reward, and the learning rates with it."""

ADAM_EPSILON, UNCLIPPED = 1e-5, 1e9
"""Ours, which the peer is told; and its way with gradients, which it does not clip, whatever it is told."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl", type=Path, required=True, help="the folder that holds TRL 1.12.0")
    parser.add_argument("--size", choices=peer.SIZES, default="S")
    parser.add_argument("--workload", choices=["fixed", "ragged"], default="ragged")
    parser.add_argument("--shape", choices=["lora", "full"], default="lora")
    parser.add_argument("--value", choices=["head", "model"], help="of ours; head for lora, model for full")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--tokens-per-microbatch", type=int, default=1_024, help="of ours")
    parser.add_argument(
        "--peer-batch", type=int, choices=[1, 2, 4, 8], default=PEER_BATCH, help="rows in a pass of its update"
    )
    parser.add_argument("--peer-forward", type=int, default=PEER_FORWARD, help="rows that it samples and reads at once")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--planted", action="store_true", help="compare what is learned, not how fast")
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--side", choices=["ours", "trl"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.value = given.value or ("head" if given.shape == "lora" else "model")
    if given.side:
        print(json.dumps({"ours": ours, "trl": trl}[given.side](given)))
        return
    peer.prepare(given.size, given.workload)
    result = learned(given) if given.planted else timed(given)
    print(json.dumps(result) if given.json else "\n".join(f"{name:<10} {value}" for name, value in result.items()))


def timed(given: argparse.Namespace) -> dict[str, Any]:
    """Speed and memory of either side, medians of the rounds."""
    told = peer.take_turns(sys.argv, ["ours", "trl"], given.rounds, seeded=True)
    ours_, theirs = (peer.medians(told[side]) for side in ("ours", "trl"))
    peer.require_mean(given.workload, ours_, theirs)
    peaks = peer.medians(told["machine"])
    return {
        "bench": "ppo",
        "size": given.size,
        "workload": given.workload,
        "shape": given.shape,
        "device": peer.device(),
        "value": given.value,
        "rounds": given.rounds,
        "tokens_per_microbatch": given.tokens_per_microbatch,
        "peer_batch": given.peer_batch,
        "peer_forward": given.peer_forward,
        "ours": ours_,
        "trl": theirs,
        **peer.ratio(told, "ours", "trl", "samples_per_s", "speed"),
        **peer.ratio(told, "ours", "trl", "mib_above_imports", "memory"),
        "fraction_of_limit": reached(given, ours_, peaks),
        **peaks,
        **usual(given, theirs, peaks),
    }


def usual(given: argparse.Namespace, theirs: dict[str, float], peaks: dict[str, float]) -> dict[str, Any]:
    """Whether the peer was at its usual speed (peer.against_baseline), and the workload that tells it.

    Alone it was measured on the fixed workload of a CPU. For the ragged one three rounds of that follow, of the same
    size and shape; on a GPU nothing tells.
    """
    import torch

    if torch.cuda.is_available():
        return {"baseline_workload": "fixed", "trl_of_baseline": None, "void": None}
    place = {"bench": "ppo", "size": given.size, "shape": given.shape, "workload": "fixed"}
    if given.workload != "fixed" and tuple(place.values()) in peer.BASELINE:
        peer.prepare(given.size, "fixed")
        told = peer.take_turns([*sys.argv, "--workload", "fixed"], ["trl"], 3)
        theirs, peaks = peer.medians(told["trl"]), peer.medians(told["machine"])
    return {
        "baseline_workload": "fixed",
        **peer.against_baseline(theirs["samples_per_s"], peaks["gemm_gflops"], **place),
    }


def learned(given: argparse.Namespace) -> dict[str, Any]:
    """The planted reward that either side reached, by seed, and their difference with its interval (Welch's t)."""
    rewards: dict[str, list[float]] = {"ours": [], "trl": []}
    for seed in range(given.rounds):
        told = peer.take_turns([*sys.argv, "--seed", str(seed)], list(rewards), 1)
        for side, reached in rewards.items():
            reached.append(told[side][0]["last"])
    compared = scipy.stats.ttest_ind(rewards["ours"], rewards["trl"], equal_var=False)
    interval = compared.confidence_interval()
    return {
        "bench": "ppo, planted reward",
        "size": given.size,
        "workload": given.workload,
        "shape": given.shape,
        "samples": ROLLOUTS * (given.steps + 1),
        **rewards,
        "difference": statistics.mean(rewards["ours"]) - statistics.mean(rewards["trl"]),
        "interval": [interval.low, interval.high],
    }


def rate(given: argparse.Namespace) -> float:
    """The learning rate of both sides."""
    return PLANTED_RATE[given.shape] if given.planted else 1e-5


def missing_end(given: argparse.Namespace) -> float:
    """What an answer without an end loses: nothing where a reward is planted and, as in the fixed workload, the peer's
    answers go on after their end token."""
    return 0.0 if given.planted and given.workload == "fixed" else 1.0


def planted(ids: Sequence[int]) -> float:
    """PLANTED times the share of tokens of even id."""
    return PLANTED * sum(token % 2 == 0 for token in ids) / max(1, len(ids))


def reached(given: argparse.Namespace, measured: dict[str, float], peaks: dict[str, float]) -> float | None:
    """The share of the limit; None for adapters beside a value model that is trained whole, which it does not know."""
    if given.shape == "lora" and given.value == "model":
        return None
    seconds = ROLLOUTS / measured["samples_per_s"]
    flops, bytes_per_s = peaks["gemm_gflops"] * 1e9, peaks["copy_gb_s"] * 1e9
    return fraction_of_limit(seconds, work(given, measured), flops=flops, bytes_per_s=bytes_per_s)


def work(given: argparse.Namespace, measured: dict[str, float]) -> PPOWork:
    """What our step had to do, for the limit."""
    shape = peer.SIZES[given.size]
    lora = given.shape == "lora"
    return PPOWork(
        num_params=peer.trunk_params(given.size),
        closing_params=peer.closing_params(given.size),
        head_params=peer.VOCABULARY * shape["hidden_size"],
        rows=ROLLOUTS,
        prompt_tokens=measured["prompt_tokens"],
        completion_tokens=measured["completion_tokens"],
        epochs=EPOCHS,
        scoring_passes=2 if lora else 3,
        trained_models=1 if lora else 2,
        frozen_base=lora,
        cache_bytes=2 * shape["num_hidden_layers"] * shape["hidden_size"] * 4,
    )


def ours(given: argparse.Namespace) -> dict[str, float]:
    import torch

    from tuneful.algorithms.ppo import PPO, PPOConfig
    from tuneful.data.templates import prompt_ids
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
        max_grad_norm=UNCLIPPED,
        missing_eos_penalty=missing_end(given),
        optimization=Optimization(learning_rate=rate(given)),
        seed=given.seed,
    )
    longest = peer.PROMPT_TOKENS[given.workload] + NEW_TOKENS
    with tempfile.TemporaryDirectory() as folder:
        if given.shape == "lora":
            lora = LoRA(rank=RANK, alpha=2 * RANK)
            scorer = reward_roles(base, lora=lora, seed=given.seed).reward
            assert scorer is not None and scorer.adapters is not None
            scorer.adapters.save("reward", Path(folder))
            tokenizer.save_pretrained(folder)
            write_reward_file(Path(folder), {"gain": 1.0, "bias": 0.0, "base": str(base), "max_tokens": longest})
            del scorer
            roles = policy_roles(base, lora=lora, value=given.value, seed=given.seed)
            reward = LearnedReward.load(Path(folder), base=roles.policy)
        else:
            save_model(load_scorer(base, seed=given.seed), tokenizer, Path(folder))
            write_reward_file(Path(folder), {"gain": 1.0, "bias": 0.0, "max_tokens": longest})
            roles = policy_roles(base, value=given.value, seed=given.seed)
            reward = LearnedReward.load(Path(folder))
        rewards: list[float] = []

        def even(_: Any, completions: Sequence[Completion]) -> Tensor:
            scores = torch.tensor([planted(c.tokens or ()) for c in completions])
            rewards.append(float(scores.mean()))
            return scores

        engine = LocalEngine(
            roles,
            tokenizer,
            optimization=config.optimization,
            total_steps=config.updates,
            tokens_per_microbatch=given.tokens_per_microbatch,
        )
        learner = PPO(
            engine,
            peer.prompts(base, ROLLOUTS * (given.steps + 1), given.workload),
            even if given.planted else reward,
            config,
        )
        seconds, lengths = [], []
        for _ in range(given.steps + 1):
            start = time.perf_counter()
            metrics = learner.step()
            seconds.append(time.perf_counter() - start)
            lengths.append(float(metrics["length_tokens"]))
    if given.planted:
        return {"last": _last_quarter(rewards)}
    asked = [
        len(prompt_ids(prompt, tokenizer, max_tokens=config.max_prompt_tokens)) for prompt in learner.collector.prompts
    ]
    return _told(seconds, imported, statistics.mean(lengths)) | {"prompt_tokens": statistics.mean(asked)}


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
    from tuneful.models.loading import load_scorer

    peer.import_models()
    imported = peer.resident()
    base = peer.base(given.size, given.workload)
    tokenizer = AutoTokenizer.from_pretrained(base, padding_side="left")
    longest = peer.PROMPT_TOKENS[given.workload]
    ids = [
        prompt_ids(prompt, tokenizer, max_tokens=longest)
        for prompt in peer.prompts(base, ROLLOUTS * (given.steps + 1), given.workload)
    ]
    torch.manual_seed(given.seed)  # heads and adapters are drawn from here
    policy: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    value: Any = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=torch.float32)
    reward = load_scorer(base, seed=given.seed)  # ours' too: a default head's weights are a third of it
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
    rewards: list[float] = []
    scored = ppo_trainer.get_reward

    def even(model: Any, rows: Any, pad: int, context: int) -> Any:
        logits, scores, lengths = scored(model, rows, pad, context)
        if model is trainer.reward_model:
            answers = [[token for token in row if token != pad] for row in rows[:, context:].tolist()]
            scores = torch.tensor([planted(ids) for ids in answers], device=scores.device)
            rewards.append(float(scores.mean()))
        return logits, scores, lengths

    if given.planted:
        ppo_trainer.get_reward = even
    with tempfile.TemporaryDirectory() as folder:
        arguments = PPOConfig(
            output_dir=folder,
            per_device_train_batch_size=given.peer_batch,
            gradient_accumulation_steps=ROLLOUTS // given.peer_batch,
            local_rollout_forward_batch_size=given.peer_forward,
            num_mini_batches=MINIBATCHES,
            num_ppo_epochs=EPOCHS,
            total_episodes=ROLLOUTS * (given.steps + 1),
            response_length=NEW_TOKENS,
            temperature=1.0,  # its default is 0.7
            missing_eos_penalty=missing_end(given),
            stop_token="eos" if given.workload == "ragged" else None,
            num_sample_generations=0,
            learning_rate=rate(given),
            adam_epsilon=ADAM_EPSILON,
            seed=given.seed,
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
        accumulate(trainer.accelerator, ROLLOUTS // MINIBATCHES // given.peer_batch)
        trainer.train()
    if given.planted:
        return {"last": _last_quarter(rewards)}
    seconds = [later - sooner for sooner, later in itertools.pairwise(moments)]
    return _told(seconds, imported, statistics.mean(lengths) if lengths else float(NEW_TOKENS))


def accumulate(accelerator: Any, passes: int) -> None:
    """Have the peer step once for each minibatch, that is after so many passes. Told of parts of a batch, it would
    gather all of them and step four times in place of sixteen; and after every pass at the end of its prompts."""
    accelerator.gradient_accumulation_steps = passes
    accelerator.gradient_state.plugin_kwargs["sync_with_dataloader"] = False


def _last_quarter(rewards: Sequence[float]) -> float:
    return statistics.mean(rewards[-max(1, len(rewards) // 4) :])


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
