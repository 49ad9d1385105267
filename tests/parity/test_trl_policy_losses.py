"""GRPO's and RLOO's losses against TRL's own trainers, on the same tiny Llama, completions and old logprobs."""

from __future__ import annotations

import copy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from tests.parity.test_trl_losses import VOCABULARY, assert_same, settings, tiny_llama, tokenizer
from tuneful.algorithms.grpo import GRPOConfig, grpo_loss
from tuneful.algorithms.on_policy import token_weights
from tuneful.algorithms.reinforce import RLOOConfig, completion_loss
from tuneful.functional.advantages import group_advantages, leave_one_out
from tuneful.generation.rollout import Rollout
from tuneful.models.forward import policy_outputs
from tuneful.models.roles import Role

# TRL and what it imports warn about themselves; that is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")

SIZE, LONGEST = 4, 9


@pytest.fixture(params=range(2))
def rollout(request: pytest.FixtureRequest) -> Rollout:
    """Three prompts of four completions of ragged lengths, old logprobs near those of the policy and not the same."""
    generator = torch.Generator().manual_seed(request.param)

    def words(most: int) -> list[int]:
        length = int(torch.randint(1, most, (), generator=generator))
        return torch.randint(3, len(VOCABULARY), (length,), generator=generator).tolist()

    prompts = [prompt for prompt in (words(6) for _ in range(3)) for _ in range(SIZE)]
    completions = [[*words(LONGEST), VOCABULARY["<eos>"]] for _ in prompts]
    width = max(map(len, completions))
    mask = torch.tensor([[t < len(c) for t in range(width)] for c in completions])
    with torch.no_grad():
        now = policy_outputs(Role("policy", tiny_llama(LlamaForCausalLM, seed=0)), prompts, completions).logprobs
    assert now is not None
    old, reference = (now + 0.3 * torch.randn(now.shape, generator=generator) * mask for _ in range(2))
    return Rollout(
        prompts=prompts,
        completions=completions,
        texts=[""] * len(prompts),
        group=torch.arange(len(prompts)) // SIZE,
        finish=["eos"] * len(prompts),
        version=torch.zeros(len(prompts), dtype=torch.int64),
        temperature=1.0,
        logprobs=old,
        sampled_logprobs=old,
        mask=mask,
        reference_logprobs=reference,
        scores=torch.randn(len(prompts), generator=generator),
    )


def padded(rows: list[list[int]], side: str) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    gaps = [[0] * (width - len(row)) for row in rows]
    ids = [gap + row if side == "left" else row + gap for gap, row in zip(gaps, rows, strict=True)]
    kept = [
        [0] * len(g) + [1] * len(r) if side == "left" else [1] * len(r) + [0] * len(g)
        for g, r in zip(gaps, rows, strict=True)
    ]
    return torch.tensor(ids), torch.tensor(kept)


def as_inputs(rollout: Rollout, advantages: Tensor) -> dict[str, Tensor]:
    prompt_ids, prompt_mask = padded(rollout.prompts, "left")
    completion_ids, completion_mask = padded(rollout.completions, "right")
    assert rollout.reference_logprobs is not None
    return {
        "prompt_ids": prompt_ids,
        "prompt_mask": prompt_mask,
        "completion_ids": completion_ids,
        "completion_mask": completion_mask,
        "advantages": advantages,
        "old_per_token_logps": rollout.logprobs,
        "ref_per_token_logps": rollout.reference_logprobs,
        "old_logps": (rollout.logprobs * rollout.mask).sum(1),
    }


def their_loss(trainer: Any, inputs: dict[str, Tensor]) -> Tensor:
    trainer.model.eval()  # no accumulation, and dropout there is none
    loss: Tensor = trainer._compute_loss(trainer.model, inputs)
    return loss


def prompts_alone() -> Any:
    from datasets import Dataset

    return Dataset.from_list([{"prompt": "w3 w4"}] * SIZE)


@pytest.mark.parametrize("kl_coef", [0.0, 0.04])
@pytest.mark.parametrize(
    ("averaging", "loss_type"), [("tokens", "bnpo"), ("completions", "grpo"), ("constant", "dr_grpo")]
)
def test_grpo(
    trl: ModuleType, rollout: Rollout, averaging: Any, loss_type: str, kl_coef: float, tmp_path: Path
) -> None:
    model = tiny_llama(LlamaForCausalLM, seed=0)
    ours = copy.deepcopy(model)
    assert rollout.scores is not None
    advantages = group_advantages(rollout.scores, SIZE, spread="sample")
    trainer = trl.GRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=trl.GRPOConfig(
            **settings(tmp_path),
            num_generations=SIZE,
            per_device_train_batch_size=SIZE,
            max_completion_length=LONGEST + 1,
            loss_type=loss_type,
            beta=0.0,  # else it loads a reference, and here logprobs of one are given
            epsilon=0.2,
            use_bias_correction_kl=False,
        ),
        train_dataset=prompts_alone(),
        processing_class=tokenizer(),
    )
    trainer.beta = kl_coef
    theirs = their_loss(trainer, as_inputs(rollout, advantages))
    config = GRPOConfig(samples_per_prompt=SIZE, max_new_tokens=LONGEST + 1, averaging=averaging)
    rows = list(range(len(rollout)))
    outputs = policy_outputs(Role("policy", ours), rollout.prompts, rollout.completions)
    loss, _ = grpo_loss(
        outputs,
        rows,
        rollout=rollout,
        advantages=advantages,
        weights=token_weights(rollout.mask, averaging, config.max_new_tokens),
        rows=rows,
        config=config,
        num_tokens=rollout.num_tokens,
        kl_coef=kl_coef,
    )
    assert_same(loss, ours, theirs, trainer.model)


def test_rloo(trl: ModuleType, rollout: Rollout, tmp_path: Path) -> None:
    model = tiny_llama(LlamaForCausalLM, seed=0)
    ours = copy.deepcopy(model)
    assert rollout.scores is not None
    advantages = rollout.scores - leave_one_out(rollout.scores, SIZE)
    trainer = trl.RLOOTrainer(
        model=model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=trl.RLOOConfig(
            **settings(tmp_path), num_generations=SIZE, per_device_train_batch_size=SIZE, epsilon=0.2, beta=0.0
        ),
        train_dataset=prompts_alone(),
        processing_class=tokenizer(),
    )
    theirs = their_loss(trainer, as_inputs(rollout, advantages))
    rows = list(range(len(rollout)))
    outputs = policy_outputs(Role("policy", ours), rollout.prompts, rollout.completions)
    loss, _ = completion_loss(
        outputs,
        rows,
        rollout=rollout,
        advantages=advantages,
        rows=rows,
        config=RLOOConfig(),
        num_tokens=rollout.num_tokens,
    )
    assert_same(loss, ours, theirs, trainer.model)
