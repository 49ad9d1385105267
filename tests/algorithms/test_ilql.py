"""ILQL: its four losses and their gradients by hand and by transformers, and what each setting does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from math import e, exp, log
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn, tensor
from torch.testing import assert_close

from tests.algorithms.conftest import WatchedEngine
from tuneful.algorithms import ilql
from tuneful.algorithms.ilql import ILQL, ILQLConfig
from tuneful.engines.optimization import Optimization
from tuneful.errors import ConfigError
from tuneful.generation.rollout import Scored
from tuneful.generation.sampling import Sampling
from tuneful.models.forward import Outputs
from tuneful.models.q_heads import QHeads
from tuneful.records import Prompt

Build = Callable[..., WatchedEngine]
SCORED = [
    Scored([1, 4, 30, 5], [31, 32, 33, 34, 2], 3.0),
    Scored([1, 4, 40, 41, 5], [50, 2], -1.0),
    Scored([1, 4, 30, 5], [60, 61, 62], 0.5),
    Scored([1, 4, 70, 71, 72, 5], [63, 64, 65, 2], 1.5, weight=0.5),
    Scored([1, 4, 73, 5], [2], 0.0),
]
"""Of the tiny model's tokens; fifteen, which weigh as much as thirteen."""

HAND = ILQLConfig(gamma=0.5, tau=0.7, cql_coef=0.3, awac_coef=0.4, awac_beta=0.5)
FIRST, SECOND, VALUE = [1.0, 2.0, 0.0], [0.5, 3.0, -1.0], [0.8]
FIRST_COPY, SECOND_COPY = [1.2, 0.1, 0.0], [1.0, 0.6, 0.0]
BETTER, WORSE = exp(0.5 * 0.2), exp(0.5 * -0.7)
"""Weights of the policy's two tokens: the copies' smaller values are 1 and .1, .2 above V and .7 below."""


def loss_by_hand(num_tokens: int = 2) -> tuple[Tensor, dict[str, float], QHeads, Tensor]:
    """What `ilql_loss` makes of the tokens 0 and 1 with a score of 2, heads that say the above whatever the state, and
    a policy that gives the tokens the log-probabilities -1 and -2."""
    heads = QHeads(4, 3)
    for head, values in zip(
        [*heads.q, *heads.target, heads.v], (FIRST, SECOND, FIRST_COPY, SECOND_COPY, VALUE), strict=True
    ):
        last: Any = head[2]
        nn.init.zeros_(last.weight)
        last.bias.data.copy_(tensor(values))
    logprobs = tensor([[-1.0, -2.0]], requires_grad=True)
    loss, metrics = ilql.ilql_loss(
        Outputs(torch.ones(1, 2, dtype=torch.bool), logprobs=logprobs, states=torch.randn(2, 4)),
        [1],
        heads=heads,
        scored=[Scored([0], [2], 9.0), Scored([0], [0, 1], 2.0)],
        config=HAND,
        num_tokens=num_tokens,
    )
    return loss, metrics, heads, logprobs


def test_the_losses_by_hand() -> None:
    """Targets of Q are half of the next V, .4, and the score, 2."""
    loss, metrics, *_ = loss_by_hand()
    of_first, of_second = log(e + e**2 + 1), log(exp(0.5) + e**3 + exp(-1))
    expected = {
        "q_loss": (0.6**2 + 0.0 + 0.1**2 + 1.0) / 2,
        "value_loss": (0.7 * 0.2**2 + 0.3 * 0.7**2) / 2,
        "cql_loss": ((of_first - 1) + (of_first - 2) + (of_second - 0.5) + (of_second - 3)) / 2,
        "policy_loss": (BETTER * 1 + WORSE * 2) / 2,
        "q": (1.0 + 2.0) / 2,
        "state_value": 0.8,
        "advantage": (0.2 - 0.7) / 2,
    }
    assert metrics == pytest.approx(expected, abs=1e-5)
    assert loss.item() == pytest.approx(0.685 + 0.0875 + 0.3 * 2.253280 + 0.4 * 1.257274, abs=1e-5)


def test_a_completion_of_weight_three_by_hand() -> None:
    """Beside the tokens 0 and 1 token 1 alone, with three times their weight: five tokens in all."""
    _, _, heads, _ = loss_by_hand()
    _, metrics = ilql.ilql_loss(
        Outputs(
            tensor([[True, False], [True, True]]),
            logprobs=tensor([[-2.0, 0.0], [-1.0, -2.0]]),
            states=torch.randn(3, 4),
        ),
        [0, 1],
        heads=heads,
        scored=[Scored([0], [1], 2.0, weight=3.0), Scored([0], [0, 1], 2.0)],
        config=HAND,
        num_tokens=5,
    )
    of_first, of_second = log(e + e**2 + 1), log(exp(0.5) + e**3 + exp(-1))
    zero, one = (of_first - 1) + (of_second - 0.5), (of_first - 2) + (of_second - 3)
    expected = {
        "q_loss": (3 * 1.0 + 0.6**2 + 0.1**2 + 1.0) / 5,  # token 1 is worth 2 to either, said to be worth 2 and 3
        "value_loss": (3 * 0.3 * 0.7**2 + 0.7 * 0.2**2 + 0.3 * 0.7**2) / 5,
        "cql_loss": (3 * one + zero + one) / 5,
        "policy_loss": (3 * WORSE * 2 + BETTER * 1 + WORSE * 2) / 5,
        "q": (3 * 2.0 + 1.0 + 2.0) / 5,
        "state_value": 0.8,
        "advantage": (-3 * 0.7 + 0.2 - 0.7) / 5,
    }
    assert metrics == pytest.approx(expected, abs=1e-5)


def test_their_gradients_by_hand() -> None:
    """Of Q 2 (q - y), and by the cross-entropy the softmax less 1 for the token; of V the expectile's alone, since
    neither the target of Q nor the policy's weight passes any on; of the copies none."""
    loss, _, heads, logprobs = loss_by_hand(num_tokens=4)  # the other two are in another micro-batch
    loss.backward()  # type: ignore[no-untyped-call]
    of_q = ([2 * 0.6, 0.0, 0.0], [2 * 0.1, 2 * 1.0, 0.0])
    for head, said, squared in zip(heads.q, (FIRST, SECOND), of_q, strict=True):
        total = sum(map(exp, said))
        softmax = tensor([2 * exp(q) / total for q in said])  # of two tokens
        last: Any = head[2]  # type: ignore[index]
        assert_close(last.bias.grad, (tensor(squared) + 0.3 * (softmax - tensor([1.0, 1.0, 0.0]))) / 4)
    of_v: Any = heads.v[2]
    assert_close(of_v.bias.grad, tensor([-2 * (0.7 * 0.2 - 0.3 * 0.7) / 4]))
    assert_close(logprobs.grad, -0.4 * tensor([[BETTER, WORSE]]) / 4)
    assert all(weight.grad is None for weight in heads.target.parameters())


def test_the_gradient_reaches_the_whole_policy(heads_engine: Build) -> None:
    """Through transformers' own states and logits and all 82 values of each head, row by row."""
    engine = heads_engine()
    heads: Any = engine.roles.heads
    model: Any = engine.roles.policy.model  # type: ignore[union-attr]
    total = torch.zeros(())
    for prompt, completion, score, weight in SCORED:
        taken = torch.tensor(completion)[:, None]
        states = model.model(torch.tensor([prompt + completion])).last_hidden_state[0, len(prompt) - 1 : -1]
        logprobs = model.lm_head(states).log_softmax(-1).gather(-1, taken)[:, 0]
        v = heads.v(states)[:, 0]
        copies = [copy(states).gather(-1, taken)[:, 0].detach() for copy in heads.target]
        above = torch.minimum(*copies) - v
        y = 0.5 * torch.cat([v[1:].detach(), tensor([2 * score])])
        for head in heads.q:
            q = head(states)
            total = total + weight * (q.gather(-1, taken)[:, 0] - y).square().sum()
            total = total - weight * 0.3 * q.log_softmax(-1).gather(-1, taken).sum()
        total = total + weight * (torch.where(above < 0, 0.3, 0.7) * above.square()).sum()
        total = total - weight * 0.4 * ((0.5 * above.detach()).exp() * logprobs).sum()
    expected = torch.autograd.grad(total / 13, engine.parameters(), allow_unused=True)
    seen: list[Tensor | None] = []
    engine.step = lambda _: seen.extend(weight.grad for weight in engine.parameters()) or 0.0  # type: ignore[assignment, func-returns-value]
    ilql.update(engine, heads, SCORED, HAND)
    assert sum(grad is not None and bool(grad.any()) for grad in expected) > 20
    for found, wanted in zip(seen, expected, strict=True):
        assert (found is None or not found.any()) if wanted is None else found is not None
        if found is not None and wanted is not None:
            assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_micro_batches_do_not_change_the_update(heads_engine: Build) -> None:
    whole, cut = heads_engine(), heads_engine(tokens_per_microbatch=8)
    metrics = []
    for engine in (whole, cut):  # Adam's first step is the gradient's sign; a large epsilon keeps its size
        engine.optimization = Optimization(learning_rate=1.0, schedule="constant", adam_eps=1.0)
        heads: Any = engine.roles.heads
        metrics.append(ilql.update(engine, heads, SCORED, HAND))
    assert metrics[0] == pytest.approx(metrics[1], abs=1e-5)
    before = heads_engine().parameters()
    assert any(not torch.equal(one, other) for one, other in zip(whole.parameters(), before, strict=True))
    for one, other in zip(whole.parameters(), cut.parameters(), strict=True):
        assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_a_completion_of_weight_two_is_two_of_it(heads_engine: Build) -> None:
    found = []
    for scored in ([*SCORED, SCORED[0]], [SCORED[0]._replace(weight=2.0), *SCORED[1:]]):
        engine = heads_engine()
        engine.optimization = Optimization(learning_rate=1.0, schedule="constant", adam_eps=1.0)
        heads: Any = engine.roles.heads
        found.append((ilql.update(engine, heads, scored, HAND), engine.parameters()))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-5)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_it_goes_on_from_its_state(heads_engine: Build, tmp_path: Path) -> None:
    one, other = (ILQL(heads_engine(), SCORED, ILQLConfig(completions_per_step=2, polyak=0.5)) for _ in range(2))
    one.step()
    one.engine.save(tmp_path)
    state, expected = one.state(), one.step()
    other.engine.load(tmp_path)
    other.restore(state)
    assert other.step() == expected


def test_every_setting_changes_the_outcome(heads_engine: Build, prompts: list[Prompt]) -> None:
    """How long a text may be and how often all are gone over is the caller's: it cuts the rows and counts the steps.
    How the policy speaks changes no weight."""
    felt = replace(
        HAND, completions_per_step=3, polyak=0.5, max_grad_norm=0.05, optimization=Optimization(learning_rate=1e-2)
    )
    alternatives: dict[str, Any] = {
        "completions_per_step": 2,
        "epochs": 4,
        "tau": 0.9,
        "gamma": 0.9,
        "cql_coef": 0.0,
        "awac_coef": 1.0,
        "awac_beta": 0.0,
        "polyak": 0.1,
        "max_grad_norm": 0.01,
        "optimization": Optimization(learning_rate=5e-3),
        "seed": 1,
    }
    speaking = {"guide_scale": 40.0, "top_k": 2}

    def outcome(config: ILQLConfig) -> tuple[str, list[list[int]]]:
        engine = heads_engine(optimization=config.optimization, total_steps=config.num_steps(len(SCORED)))
        learner = ILQL(engine, SCORED, config)
        for _ in range(2):
            learner.step()
        said = engine.sample(prompts, Sampling(num_samples=4, max_new_tokens=8), seed=0).completions
        return engine.weight_hash(), said

    assert alternatives.keys() | speaking.keys() | {"max_tokens"} == {f.name for f in fields(ILQLConfig)}
    weights, said = outcome(felt)
    assert [n for n, other in alternatives.items() if outcome(replace(felt, **{n: other}))[0] == weights] == []
    for name, other in speaking.items():
        found = outcome(replace(felt, **{name: other}))
        assert found[0] == weights
        assert found[1] != said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("completions_per_step", 0),
        ("epochs", 0),
        ("max_tokens", 0),
        ("top_k", 0),
        ("tau", 1.0),
        ("gamma", 0.0),
        ("polyak", 1.1),
        ("cql_coef", -0.1),
        ("awac_coef", -0.1),
        ("awac_beta", -0.1),
        ("guide_scale", -1.0),
        ("max_grad_norm", 0.0),
        ("seed", -1),
    ],
)
def test_a_wrong_setting_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"ilql\.{name} must") as error:
        ILQLConfig(**{name: value})
    assert str(value) in str(error.value)


def test_what_it_cannot_learn_from_is_refused(policy_engine: Build, heads_engine: Build) -> None:
    with pytest.raises(ConfigError, match="ilql needs the LocalEngine and roles with QHeads"):
        ILQL(policy_engine(), SCORED, ILQLConfig())
    with pytest.raises(ConfigError, match="ilql: no scored completions to learn from"):
        ILQL(heads_engine(), [], ILQLConfig())


def test_a_pass_that_is_not_whole_counts_as_a_step() -> None:
    """5 completions, 3 at a time, twice over: ten in four steps."""
    assert ILQLConfig(completions_per_step=3, epochs=2).num_steps(5) == 4
