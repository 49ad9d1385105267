"""What the tests of ranks compare: the same work by one process and by each of several that share it.

As a program, `MODEL OUT` with the environment that torchrun gives, it does its part and leaves `OUT/<rank>.pt`; with
`MODEL OUT shard` each holds a part of the layers alone.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tuneful.algorithms import dpo, kto, ppo, reward_model, sft
from tuneful.algorithms.loop import Learner
from tuneful.engines import ranks, sharding
from tuneful.engines.local import LocalEngine
from tuneful.engines.optimization import Optimization
from tuneful.engines.protocol import Batch
from tuneful.errors import RewardError, TunefulError
from tuneful.generation.sampling import Sampling
from tuneful.models.adapters import LoRA
from tuneful.models.loading import load_tokenizer
from tuneful.models.roles import Roles, policy_roles, reward_roles
from tuneful.records import Comparison, Completion, Demonstration, Prompt
from tuneful.rollouts.collect import collect, shared_scores

PROMPTS = [
    Prompt.user("hello"),
    Prompt.user("how do i cook bread today please help me now"),
    Prompt.user("why"),
    Prompt.user("stop the rain now"),
    Prompt.user("turn the light on"),
]
MICROBATCHES = (8_192, 40, 1)
"""Tokens: all rows at once, a few, one by one."""
OPTIMIZATION = Optimization(learning_rate=1e-3)


def variety(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
    """The share of different words."""
    words = [c.text.split() or ["nothing"] for c in completions]
    return torch.tensor([len(set(w)) / len(w) for w in words])


Hold = Callable[[Roles], None]
"""What is done to roles before an engine has them: nothing, or `sharding.shard`."""


def outcome(model: Path, hold: Hold = lambda roles: None) -> dict[str, Any]:
    """What every rank must have in its hands at the end."""
    tokenizer = load_tokenizer(model)
    roles = policy_roles(model, lora=LoRA(rank=2), value="head")
    torch.manual_seed(0)
    for weight in roles.weights().values():  # so that values and the KL are not 0
        weight.data.normal_(std=0.1)
    hold(roles)
    all_trained = policy_roles(model)
    hold(all_trained)
    sampling = Sampling(num_samples=2, max_new_tokens=12)
    engine = LocalEngine(roles, tokenizer)
    rollout = engine.sample(PROMPTS, sampling, seed=3, values=True)
    experience = collect(engine, PROMPTS, sampling, variety, seed=3, with_values=True)
    return {
        "rollout": rollout,
        "one prompt": engine.sample(PROMPTS[1:2], sampling, seed=3),
        "scores": experience.scores,
        "reference": experience.reference_logprobs,
        "kl": engine.kl(rollout)[0],
        "gradients": {tokens: _gradient(roles, tokenizer, tokens) for tokens in MICROBATCHES},
        "one row": _gradient(roles, tokenizer, 40, rows=1),
        "of all weights": {tokens: _gradient(all_trained, tokenizer, tokens) for tokens in MICROBATCHES},
        "of all weights, again": _gradient(all_trained.recomputing(), tokenizer, 40),
        "runs": {name: _weights(partial(learn, hold=hold), model) for name, learn in LEARNERS.items()},
        "held": _held(model, hold),
        "asked": _asked(),
        "error": _error_of_one_rank(),
        "different": _error_of_difference(),
    }


def _gradient(roles: Roles, tokenizer: Any, tokens: int, rows: int = 8) -> tuple[Tensor, dict[str, float]]:
    """Gradient of the supervised loss over `rows` rows, flat, and its metrics; the value head gets none."""
    engine = LocalEngine(roles, tokenizer, tokens_per_microbatch=tokens)
    metrics = engine.forward_backward(*_supervised(rows))
    ranks.add_gradients(w for w in engine.parameters() if not sharding.is_part(w))
    found = [sharding.gathered(w.grad) for w in engine.parameters() if w.grad is not None]
    for weight in engine.parameters():
        weight.grad = None
    return torch.cat([gradient.flatten() for gradient in found]), metrics


def _supervised(rows: int) -> tuple[Batch, Any]:
    """A batch of random rows and the supervised loss over it."""
    draw = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 12, (2, rows), generator=draw).tolist()
    prompts, completions = ([torch.randint(3, 80, (n,), generator=draw).tolist() for n in side] for side in lengths)
    batch = Batch(role="policy", prompts=prompts, completions=completions)
    return batch, partial(sft.nll_loss, num_tokens=sum(lengths[1]))


def _held(model: Path, hold: Hold) -> int:
    """Bytes that a policy, its reference and the optimizer take after a step."""
    before = _live_bytes()
    roles = policy_roles(model)
    hold(roles)
    engine = LocalEngine(roles, load_tokenizer(model))
    engine.forward_backward(*_supervised(8))
    engine.step(1.0)
    engine.sample(PROMPTS, Sampling(max_new_tokens=4), seed=0)
    return _live_bytes() - before


def _live_bytes() -> int:
    """Bytes of all floating-point tensors that Python knows, each memory once."""
    gc.collect()
    tensors = [sharding.own_part(x.detach()) for x in gc.get_objects() if type(x) in (Tensor, nn.Parameter)]
    stores = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors if x.is_floating_point()}
    return sum(stores.values())


def _weights(learn: Callable[[Path], Learner], model: Path) -> dict[str, Any]:
    """Flat weights before and after three steps, and the last metrics."""
    learner = learn(model)
    engine = learner.engine
    assert isinstance(engine, LocalEngine)

    def flat() -> Tensor:
        return torch.cat([sharding.gathered(w).flatten() for w in engine.parameters()])

    before = flat()
    metrics = [learner.step() for _ in range(3)]
    return {"before": before, "after": flat(), "metrics": metrics}


def _sft(model: Path, hold: Hold) -> Learner:
    tokenizer = load_tokenizer(model)
    roles = policy_roles(model)
    hold(roles)
    engine = LocalEngine(roles, tokenizer, optimization=OPTIMIZATION, tokens_per_microbatch=60)
    rows = [Demonstration(prompt, answer) for prompt in PROMPTS for answer in ("yes please", "no no no not now")]
    return sft.SFT(engine, rows, sft.SFTConfig(demonstrations_per_step=7), tokenizer)


def _comparisons() -> list[Comparison]:
    return [
        Comparison(prompt, "yes please", worse) for prompt in PROMPTS for worse in ("no no no not now", "sorry")
    ] + [Comparison(PROMPTS[0], "yes please", "why")]


def _reward(model: Path, hold: Hold) -> Learner:
    tokenizer = load_tokenizer(model)
    roles = reward_roles(model, lora=LoRA(rank=2))
    hold(roles)
    assert roles.reward is not None
    engine = LocalEngine(roles, tokenizer, optimization=OPTIMIZATION, tokens_per_microbatch=60)
    groups = reward_model.group_pairs(_comparisons(), roles.reward, tokenizer, 64)
    return reward_model.RewardModel(engine, groups, reward_model.RewardModelConfig(prompts_per_step=3))


def _dpo(model: Path, hold: Hold) -> Learner:
    tokenizer = load_tokenizer(model)
    roles = policy_roles(model, lora=LoRA(rank=2))
    hold(roles)
    engine = LocalEngine(roles, tokenizer, optimization=OPTIMIZATION, tokens_per_microbatch=60)
    return dpo.DPO(engine, _comparisons(), dpo.DPOConfig(pairs_per_step=5), tokenizer)


def _kto(model: Path, hold: Hold) -> Learner:
    tokenizer = load_tokenizer(model)
    roles = policy_roles(model, lora=LoRA(rank=2))
    hold(roles)
    engine = LocalEngine(roles, tokenizer, optimization=OPTIMIZATION, tokens_per_microbatch=60)
    return kto.KTO(engine, kto.unpair(_comparisons()), kto.KTOConfig(answers_per_step=5), tokenizer)


def _ppo(model: Path, hold: Hold) -> Learner:
    config = ppo.PPOConfig(
        num_steps=3, prompts_per_step=5, samples_per_prompt=2, max_new_tokens=8, epochs=2, minibatches=2
    )
    roles = policy_roles(model, lora=LoRA(rank=2), value="head")
    hold(roles)
    engine = LocalEngine(roles, load_tokenizer(model), optimization=OPTIMIZATION, tokens_per_microbatch=60)
    return ppo.PPO(engine, PROMPTS, variety, config)


LEARNERS = {"sft": _sft, "reward": _reward, "dpo": _dpo, "kto": _kto, "ppo": _ppo}


def _asked() -> list[str]:
    """The texts that this rank asks a reward about."""
    asked: list[str] = []

    def reward(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
        asked.extend(c.text for c in completions)
        return torch.zeros(len(completions))

    prompts = [prompt for prompt in PROMPTS for _ in range(2)]
    shared_scores(reward, prompts, [Completion(f"{k}") for k in range(10)])
    return asked


def _error_of_one_rank() -> str:
    """What is raised here when the last rank's reward fails."""

    def reward(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
        if ranks.rank() == ranks.world_size() - 1:
            raise RewardError("no answer")
        return torch.zeros(len(completions))

    try:
        shared_scores(reward, PROMPTS, [Completion("yes")] * len(PROMPTS))
    except TunefulError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def _error_of_difference() -> str:
    try:
        ranks.refuse_different("the numbers", str(ranks.rank()))
    except TunefulError as error:
        return f"{type(error).__name__}: {error}".partition(";")[0]
    return "nothing"


if __name__ == "__main__":
    torch.set_num_threads(1)
    with ranks.process_group():
        hold = (sharding.shard,) if sys.argv[3:] == ["shard"] else ()
        torch.save(outcome(Path(sys.argv[1]), *hold), Path(sys.argv[2]) / f"{ranks.rank()}.pt")
