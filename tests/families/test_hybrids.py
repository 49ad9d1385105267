"""Decoders of recurrent layers beside attention: rows of different lengths, sampled and trained, against transformers'
own pass over each row alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, BambaConfig, JambaConfig

from tests.families.families import GROUPED, IDS
from tuneful.engines.local import LocalEngine
from tuneful.generation.sampling import Sampling
from tuneful.models.roles import Role, Roles
from tuneful.records import Prompt

PROMPTS = [
    Prompt("why"),
    Prompt("how do i cook bread today"),
    Prompt("hello"),
    Prompt("the dog is on the door and hot"),
]
WIDE = {"initializer_range": 0.2}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8}
JAMBA = {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2, "num_experts_per_tok": 1}
JAMBA |= {"mamba_d_state": 4, "use_mamba_kernels": False}
HYBRIDS: dict[str, Any] = {
    "Jamba": lambda size: JambaConfig(vocab_size=size, **GROUPED, **IDS, **WIDE, **JAMBA),
    "Bamba": lambda size: BambaConfig(vocab_size=size, **GROUPED, **IDS, **WIDE, **MAMBA, attn_layer_indices=[1]),
}


@pytest.mark.parametrize("name", HYBRIDS)
def test_rows_of_different_lengths_are_what_each_is_alone(name: str, tiny_tokenizer: Any) -> None:
    """Two samples of each prompt, which end at different steps."""
    model = AutoModelForCausalLM.from_config(HYBRIDS[name](len(tiny_tokenizer))).eval()
    engine = LocalEngine(Roles(policy=Role("policy", model)), tiny_tokenizer)
    rollout = engine.sample(PROMPTS, Sampling(num_samples=2, max_new_tokens=40), seed=0)
    assert engine.waves == "layers of linear_attention do not keep the keys of all tokens"
    lengths = rollout.mask.sum(-1).tolist()
    assert len(set(lengths)) > 2
    trained = engine.score("policy", rollout)
    for row, (prompt, completion) in enumerate(zip(rollout.prompts, rollout.completions, strict=True)):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        alone = logits.log_softmax(-1).gather(-1, torch.tensor(completion)[:, None]).squeeze(-1)
        assert_close(rollout.logprobs[row, : lengths[row]], alone, atol=2e-5, rtol=0)
        assert_close(trained[row, : lengths[row]], alone, atol=2e-5, rtol=0)
