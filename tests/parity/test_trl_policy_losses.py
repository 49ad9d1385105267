"""GRPO's and RLOO's advantages, losses and gradients against TRL's own trainers, on the same tiny Llama.

Of TRL only the drawing of completions is replaced: it tokenizes the prompts, pads, reads policy and reference, scores,
makes advantages of the scores, and after the policy has moved the loss. TRL's default, k3 times the ratio, is another
number than k2 and has the same gradient: with l the log-ratio to the reference, that of rho (e^-l - 1 + l) is rho l.
TRL has no population's deviation; it is held by hand (tests/functional).
"""

from __future__ import annotations

import copy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import LlamaForCausalLM

from tests.parity.test_trl_losses import VOCABULARY, assert_same, assert_same_gradients, settings, tiny_llama, tokenizer
from tuneful.algorithms.grpo import GRPOConfig, grpo_loss
from tuneful.algorithms.on_policy import shaped_returns, token_weights
from tuneful.algorithms.reinforce import RLOOConfig, completion_loss
from tuneful.functional.advantages import group_advantages, leave_one_out
from tuneful.generation.rollout import Rollout
from tuneful.models.forward import policy_outputs
from tuneful.models.roles import Role

# TRL and what it imports warn about themselves; that is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")

SIZE, LONGEST, BATCH = 4, 9, 12


def moved(model: Any, seed: int) -> Any:
    """A copy whose weights are a little elsewhere, so that ratios lie on either side of the clip."""
    torch.manual_seed(seed)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(0.03 * torch.randn_like(weight))
    return other


def logprobs_of(model: Any, prompts: list[list[int]], completions: list[list[int]]) -> Tensor:
    with torch.no_grad():
        found = policy_outputs(Role("policy", model), prompts, completions).logprobs
    assert found is not None
    return found


@pytest.fixture(params=range(2))
def rollout(request: pytest.FixtureRequest) -> Rollout:
    """Three prompts of four completions of ragged lengths, those of the last prompt equally good."""
    generator = torch.Generator().manual_seed(request.param)

    def words(most: int) -> list[int]:
        length = int(torch.randint(1, most, (), generator=generator))
        return torch.randint(3, len(VOCABULARY), (length,), generator=generator).tolist()

    prompts = [prompt for prompt in (words(6) for _ in range(BATCH // SIZE)) for _ in range(SIZE)]
    completions = [[*words(LONGEST), VOCABULARY["<eos>"]] for _ in prompts]
    width = max(map(len, completions))
    scores = torch.randn(BATCH, generator=generator)
    scores[-SIZE:] = 0.3
    policy = tiny_llama(LlamaForCausalLM, seed=0)
    logprobs = logprobs_of(policy, prompts, completions)
    return Rollout(
        prompts=prompts,
        completions=completions,
        texts=[""] * BATCH,
        group=torch.arange(BATCH) // SIZE,
        finish=["eos"] * BATCH,
        version=torch.zeros(BATCH, dtype=torch.int64),
        temperature=1.0,
        logprobs=logprobs,
        sampled_logprobs=logprobs,
        mask=torch.tensor([[t < len(c) for t in range(width)] for c in completions]),
        reference_logprobs=logprobs_of(moved(policy, seed=1), prompts, completions),
        scores=scores,
    )


def trainer_of(trl: ModuleType, kind: str, rollout: Rollout, folder: Path, *, kl_coef: float, **choices: Any) -> Any:
    """A trainer of TRL that draws the rollout's completions and scores them as it does."""
    from datasets import Dataset

    assert rollout.scores is not None
    config = getattr(trl, f"{kind}Config")(
        **settings(folder),
        num_generations=SIZE,
        per_device_train_batch_size=BATCH,
        num_iterations=2,  # so that GRPO, too, keeps what the policy said when it was sampled
        max_completion_length=LONGEST + 1,
        epsilon=0.2,
        beta=0.0,  # else it would load the reference by name
        **choices,
    )
    trainer = getattr(trl, f"{kind}Trainer")(
        model=tiny_llama(LlamaForCausalLM, seed=0),
        reward_funcs=lambda completions, **_: rollout.scores.tolist(),
        args=config,
        train_dataset=Dataset.from_list([{"prompt": "w3 w4"}] * BATCH),
        processing_class=tokenizer(),
    )
    trainer.beta, trainer.ref_model = kl_coef, moved(trainer.model, seed=1)
    drawn = rollout.completions if kind == "RLOO" else (rollout.completions, None)
    trainer._generate_single_turn = lambda *_: drawn
    return trainer


def their_inputs(trainer: Any, rollout: Rollout) -> dict[str, Tensor]:
    """What TRL hands to its loss."""
    texts = [" ".join(f"w{word}" for word in prompt) for prompt in rollout.prompts]
    trainer.model.train()
    inputs: dict[str, Tensor] = trainer._generate_and_score_completions([{"prompt": text} for text in texts])
    assert [ids[-len(p) :].tolist() for ids, p in zip(inputs["prompt_ids"], rollout.prompts, strict=True)] == (
        rollout.prompts
    )
    return inputs


def after_a_step(trainer: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, Any]:
    """TRL's loss once the policy has left the one that sampled, and a copy of that policy for ours."""
    elsewhere = moved(trainer.model, seed=2)
    trainer.model.load_state_dict(elsewhere.state_dict())
    trainer.model.eval()  # no accumulation, and dropout there is none
    loss: Tensor = trainer._compute_loss(trainer.model, inputs)
    return loss, elsewhere


@pytest.mark.parametrize(("kl_coef", "estimator"), [(0.0, "k2"), (0.3, "k2"), (0.3, "k3")])
@pytest.mark.parametrize(
    ("averaging", "loss_type", "spread", "scale_rewards"),
    [
        ("tokens", "bnpo", "sample", "group"),
        ("completions", "grpo", "sample", "group"),
        ("constant", "dr_grpo", "none", "none"),
    ],
)
def test_grpo(
    trl: ModuleType,
    rollout: Rollout,
    averaging: Any,
    loss_type: str,
    spread: Any,
    scale_rewards: str,
    kl_coef: float,
    estimator: Any,
    tmp_path: Path,
) -> None:
    choices = {"loss_type": loss_type, "scale_rewards": scale_rewards, "use_bias_correction_kl": estimator == "k2"}
    trainer = trainer_of(trl, "GRPO", rollout, tmp_path, kl_coef=kl_coef, **choices)
    inputs = their_inputs(trainer, rollout)
    assert rollout.scores is not None
    advantages = group_advantages(rollout.scores, SIZE, spread=spread)
    assert_close(advantages, inputs["advantages"], atol=1e-6, rtol=1e-6)
    theirs, ours = after_a_step(trainer, inputs)
    config = GRPOConfig(
        samples_per_prompt=SIZE, max_new_tokens=LONGEST + 1, averaging=averaging, kl_estimator=estimator
    )
    rows = list(range(BATCH))
    loss, metrics = grpo_loss(
        policy_outputs(Role("policy", ours), rollout.prompts, rollout.completions),
        rows,
        rollout=rollout,
        advantages=advantages,
        weights=token_weights(rollout.mask, averaging, config.max_new_tokens),
        rows=rows,
        config=config,
        num_tokens=rollout.num_tokens,
        kl_coef=kl_coef,
    )
    assert 0.05 < metrics["clip_fraction"] < 0.95
    same = assert_same if kl_coef == 0 or estimator == "k3" else assert_same_gradients
    same(loss, ours, theirs, trainer.model)


@pytest.mark.parametrize("kl_coef", [0.0, 0.3])
def test_rloo(trl: ModuleType, rollout: Rollout, kl_coef: float, tmp_path: Path) -> None:
    """The KL is in the reward, by the policy that sampled."""
    trainer = trainer_of(trl, "RLOO", rollout, tmp_path, kl_coef=kl_coef)
    inputs = their_inputs(trainer, rollout)
    returns = shaped_returns(rollout, kl_coef=kl_coef)
    advantages = returns - leave_one_out(returns, SIZE)
    assert_close(advantages, inputs["advantages"], atol=1e-5, rtol=1e-5)
    theirs, ours = after_a_step(trainer, inputs)
    rows = list(range(BATCH))
    loss, metrics = completion_loss(
        policy_outputs(Role("policy", ours), rollout.prompts, rollout.completions),
        rows,
        rollout=rollout,
        advantages=advantages,
        rows=rows,
        config=RLOOConfig(),
        num_tokens=rollout.num_tokens,
    )
    assert 0.05 < metrics["clip_fraction"] < 0.95
    assert_same(loss, ours, theirs, trainer.model)
