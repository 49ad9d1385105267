"""The first step of PPO in every layout of its work: before a weight has moved the ratio is 1 and the KL is 0.

A Llama of the bench's size S. Three passes must agree: the sampler's, the trainer's, and transformers' own of a model
loaded anew, each row alone, without padding or cache. In the step after an update the first two must agree again while
the policy is away from its reference, so equal numbers are not those of a model that would say the same anyhow.
"""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from tests.algorithms.conftest import WatchedEngine
from tuneful.algorithms.on_policy import Collector
from tuneful.algorithms.ppo import PPO, PPOConfig
from tuneful.engines.local import LocalEngine
from tuneful.engines.optimization import Optimization
from tuneful.engines.protocol import Batch, Loss, Metrics
from tuneful.generation.rollout import Rollout
from tuneful.models import llama
from tuneful.models.adapters import LoRA
from tuneful.models.forward import Outputs
from tuneful.models.llama import is_llama_like
from tuneful.models.loading import load_tokenizer
from tuneful.models.roles import Roles, ValueKind, policy_roles
from tuneful.records import Prompt
from tuneful.rewards.reward import Reward

ROUNDING = 1e-5
"""Nats by which two correct passes in float32 may differ, in one logprob or in the KL of a whole completion."""

PROMPTS = {
    "prompts shared": ["the dog is on the door now", "the dog is on the door today"],
    "prompts apart": [
        "hello",
        "how do i cook bread",
        "why",
        "stop the rain",
        "you know me",
        "no",
        "shut it",
        "in town",
    ],
}
"""For eight completions: of two prompts that differ in their last token, four each; or of a prompt each."""

PASSES = {"our pass": True, "the padded pass": False}
"""Rows without padding, where an equal prompt runs once; or transformers' pass, as every other family has it."""

MICROBATCHES = {"small micro-batches": 30, "one micro-batch": 8_192}

MODELS: dict[str, tuple[LoRA | None, ValueKind]] = {
    "all weights, value head": (None, "head"),
    "all weights, value model": (None, "model"),
    "adapters, value head": (LoRA(rank=4), "head"),
    "adapters, value adapter": (LoRA(rank=4), "adapter"),
    "adapters, value model": (LoRA(rank=4), "model"),
}
"""What is trained, and where values come from: a head is read while decoding, the others in a pass of their own."""

LAYOUTS = [
    pytest.param(*layout, id=", ".join(layout)) for layout in itertools.product(PROMPTS, PASSES, MICROBATCHES, MODELS)
]


@pytest.fixture(scope="module")
def folder(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights; the end token is drawn often enough that rows end at different steps."""
    shape = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 688}
    ids = {"vocab_size": 4_096, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(LlamaConfig(**shape, **ids, max_position_embeddings=64, initializer_range=1 / 32))
    model.lm_head.weight.data[2] *= 9
    path = tmp_path_factory.mktemp("S")
    model.save_pretrained(path)
    load_tokenizer(tiny_model_dir).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    """The same model as transformers loads it."""
    return AutoModelForCausalLM.from_pretrained(folder)


class TellingEngine(WatchedEngine):
    """Keeps what the trainer's passes said of each row before the update."""

    def forward_backward(self, batch: Batch, loss: Loss) -> Metrics:
        self.said: dict[tuple[tuple[int, ...], tuple[int, ...]], Tensor] = {}
        self.passes = 0

        def telling(outputs: Outputs, part: list[int]) -> tuple[Tensor, Metrics]:
            assert outputs.logprobs is not None and outputs.values is not None
            self.passes += 1
            for row, *numbers in zip(part, outputs.logprobs.detach(), outputs.values.detach(), strict=True):
                self.said[tuple(batch.prompts[row]), tuple(batch.completions[row])] = torch.stack(numbers)
            return loss(outputs, part)

        return super().forward_backward(batch, telling)

    def said_of(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """The trainer's logprobs and values [N, T] of the rows of `rollout`."""
        rows = zip(rollout.prompts, rollout.completions, strict=True)
        logprobs, values = torch.stack([self.said[tuple(p), tuple(c)] for p, c in rows]).unbind(1)
        return logprobs, values


class TellingCollector(Collector):
    """Keeps what was collected, and the KL of each completion over the whole vocabulary."""

    collected: Rollout
    exact_kl: Tensor

    def rollout(self, *arguments: Any, **more: Any) -> Rollout:
        self.collected = super().rollout(*arguments, **more)
        assert isinstance(self.engine, LocalEngine)
        self.exact_kl, estimator = self.engine.kl(self.collected)
        assert estimator == "exact"
        return self.collected


def roles_of(folder: Path, model: str, *, our_pass: bool) -> Roles:
    """Policy and reference, which say the same, and values that are not 0."""
    lora, kind = MODELS[model]
    roles = policy_roles(folder, lora=lora, value=kind)
    assert roles.policy is not None and roles.reference is not None
    assert roles.value is not None and roles.value.head is not None
    nn.init.normal_(roles.value.head.weight, std=1 / 16, generator=torch.Generator().manual_seed(1))
    for role in (roles.policy, roles.reference, roles.value):
        if not our_pass:  # a model with hooks of somebody's own runs as it is
            role.model.base_model.register_forward_hook(lambda *_: None)
        assert is_llama_like(role.model) == our_pass
    return roles


@torch.no_grad()
def plain(theirs: Any, head: nn.Linear, rollout: Rollout) -> tuple[Tensor, Tensor]:
    """Logprobs and values [N, T] by transformers alone."""
    logprobs, values = torch.zeros(2, *rollout.mask.shape)
    for row, (prompt, completion) in enumerate(zip(rollout.prompts, rollout.completions, strict=True)):
        said = theirs(torch.tensor([prompt + completion]), output_hidden_states=True, use_cache=False)
        before = slice(len(prompt) - 1, -1)
        chosen = said.logits[0, before].log_softmax(-1).gather(-1, torch.tensor(completion)[:, None])
        logprobs[row, : len(completion)] = chosen[:, 0]
        values[row, : len(completion)] = head(said.hidden_states[-1][0, before])[:, 0]
    return logprobs, values


def apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


@pytest.mark.parametrize(("prompts", "way", "microbatch", "model"), LAYOUTS)
def test_ratio_1_and_kl_0(
    prompts: str,
    way: str,
    microbatch: str,
    model: str,
    folder: Path,
    theirs: Any,
    variety: Reward,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(llama, "ALONE_FROM", 0)  # short as they are, rows attend alone, as longer ones do
    roles = roles_of(folder, model, our_pass=PASSES[way])
    assert roles.value is not None and roles.value.head is not None
    head = copy.deepcopy(roles.value.head)
    engine = TellingEngine(
        roles,
        load_tokenizer(folder),
        optimization=Optimization(learning_rate=3e-4, schedule="constant"),
        tokens_per_microbatch=MICROBATCHES[microbatch],
    )
    count = len(PROMPTS[prompts])
    config = PPOConfig(
        num_steps=2, prompts_per_step=count, samples_per_prompt=8 // count, max_new_tokens=12, epochs=1, kl_coef=0.1
    )
    asked = [Prompt(text) for text in PROMPTS[prompts]]
    learner = PPO(engine, asked, variety, config)
    learner.collector = collector = TellingCollector(engine, asked, variety, config, with_values=True)

    metrics = learner.step()
    rollout = collector.collected
    assert rollout.values is not None and rollout.reference_logprobs is not None
    assert len({*rollout.mask.sum(-1).tolist()}) > 1
    assert engine.scored == (["reference"] if "head" in model else ["value", "reference"])
    assert (engine.passes > 2) == (microbatch == "small micro-batches")
    logprobs, values = engine.said_of(rollout)
    expected, expected_values = plain(theirs, head, rollout)

    assert apart(logprobs, rollout.logprobs) <= ROUNDING  # so every ratio is 1
    assert (metrics["clip_fraction"], metrics["approx_kl"] < 1e-10) == (0, True)
    assert float((rollout.logprobs - rollout.reference_logprobs).sum(-1).abs().max()) <= ROUNDING
    assert float(collector.exact_kl.abs().max()) <= ROUNDING
    for found in (logprobs, rollout.logprobs, rollout.reference_logprobs):
        assert apart(found, expected) <= ROUNDING
    for found in (values, rollout.values):
        assert apart(found, expected_values) <= ROUNDING
    assert float(expected_values.abs().max()) > 1

    again = learner.step()
    rollout = collector.collected
    assert rollout.values is not None and rollout.reference_logprobs is not None
    logprobs, values = engine.said_of(rollout)
    assert apart(logprobs, rollout.logprobs) <= ROUNDING
    assert again["clip_fraction"] == 0
    assert apart(values, rollout.values) <= ROUNDING
    assert apart(rollout.reference_logprobs, plain(theirs, head, rollout)[0]) <= ROUNDING
    assert apart(logprobs, rollout.reference_logprobs) > 1e-2
    assert float(collector.exact_kl.max()) > 1e-3
