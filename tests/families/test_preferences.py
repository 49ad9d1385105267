"""The learners from preferences on an encoder-decoder and on decoders that run on other passes: where they start.

What they read of a row is what transformers' plain pass says of the row alone; the rest is arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.families.test_read import PROMPTS, plain_logprobs, theirs_of
from tuneful.algorithms.dpo import DPO, DPOConfig
from tuneful.algorithms.kto import KTO, KTOConfig, unpair
from tuneful.algorithms.orpo import ORPO, ORPOConfig
from tuneful.algorithms.simpo import SimPO, SimPOConfig
from tuneful.engines.local import LocalEngine
from tuneful.engines.optimization import Optimization
from tuneful.models.adapters import LoRA
from tuneful.models.loading import load_tokenizer
from tuneful.models.roles import policy_roles
from tuneful.records import Comparison

PAIRS = [
    Comparison(PROMPTS[0], "yes please", "no"),
    Comparison(PROMPTS[1], "wait a day", "the door is hot now so shut the door", p=0.8),
    Comparison(PROMPTS[2], "good dog", "why"),
]
OPTIMIZATION = Optimization(learning_rate=1e-2, schedule="constant")


@pytest.fixture(params=[None, LoRA(rank=2)], ids=["all weights", "adapters"])
def engine(request: pytest.FixtureRequest, name: str, folder_of: Callable[[str], Path]) -> LocalEngine:
    roles = policy_roles(folder_of(name), lora=request.param)
    tokenizer = load_tokenizer(folder_of(name))
    return LocalEngine(roles, tokenizer, optimization=OPTIMIZATION, tokens_per_microbatch=40)


NAMES = pytest.mark.parametrize("name", ["T5", "BART", "GPT-2"])


@NAMES
def test_those_with_a_reference_start_at_it(engine: LocalEngine) -> None:
    for loss, start in (("dpo", log(2)), ("ipo", 4.0)):
        config = DPOConfig(loss=loss, beta=0.25, pairs_per_step=3)  # type: ignore[arg-type]
        learner = DPO(engine, PAIRS, config, engine.tokenizer)
        assert _unmoved(engine, learner)["loss"] == pytest.approx(start, abs=1e-4)
    kto = KTO(engine, unpair(PAIRS), KTOConfig(answers_per_step=6), engine.tokenizer)
    metrics = _unmoved(engine, kto)
    assert metrics["loss"] == pytest.approx(0.5, abs=1e-4)
    assert metrics["reference_point"] == pytest.approx(0, abs=1e-4)


@NAMES
def test_those_without_one_read_means_per_token(engine: LocalEngine) -> None:
    orpo = ORPO(engine, PAIRS, ORPOConfig(pairs_per_step=3), engine.tokenizer)
    theirs = theirs_of(engine)
    means = torch.stack(
        [plain_logprobs(theirs, *row).mean() for row in zip(orpo.pairs.prompts, orpo.pairs.completions, strict=True)]
    )
    p = torch.tensor([pair.p for pair in PAIRS])
    nll = -(p * means[0::2] + (1 - p) * means[1::2]).mean()
    assert _unmoved(engine, orpo)["nll"] == pytest.approx(float(nll), rel=1e-4)
    simpo = SimPO(engine, PAIRS, SimPOConfig(pairs_per_step=3, beta=2.0), engine.tokenizer)
    lead = 2 * (means[0::2] - means[1::2]).mean()
    assert _unmoved(engine, simpo)["margin"] == pytest.approx(float(lead), rel=1e-3, abs=1e-4)


@NAMES
def test_they_learn(engine: LocalEngine) -> None:
    learner = KTO(engine, unpair(PAIRS), KTOConfig(beta=0.5, answers_per_step=6), engine.tokenizer)
    seen = [learner.step() for _ in range(6)]
    assert seen[-1]["loss"] < seen[0]["loss"] - 0.05
    assert seen[-1]["margin"] > 0.2


def _unmoved(engine: LocalEngine, learner: Any) -> dict[str, float]:
    """The metrics of a step whose update is thrown away."""
    step = engine.step
    engine.step = lambda max_norm: 0.0  # type: ignore[method-assign]
    try:
        metrics: dict[str, float] = learner.step()
    finally:
        engine.step = step  # type: ignore[method-assign]
        for weight in engine.parameters():
            weight.grad = None
    return metrics
