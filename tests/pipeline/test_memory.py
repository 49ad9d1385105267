"""The memory plan against the bytes of tensors that were counted while the same steps ran."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.allocations import counted
from tests.conftest import WORDS
from tuneful.algorithms.dpo import DPO, DPOConfig
from tuneful.algorithms.dqn import DQN, DQNConfig
from tuneful.algorithms.kto import KTO, KTOConfig, unpair
from tuneful.algorithms.nlpo import NLPO, NLPOConfig
from tuneful.algorithms.ppo import PPO, PPOConfig
from tuneful.algorithms.raft import RAFT, RAFTConfig
from tuneful.algorithms.reward_model import RewardModel, RewardModelConfig, group_pairs
from tuneful.algorithms.sft import SFT, SFTConfig
from tuneful.algorithms.simpo import SimPO, SimPOConfig
from tuneful.algorithms.start_up import NUM_ROLLOUTS, check_start
from tuneful.engines import ranks
from tuneful.engines.local import LocalEngine
from tuneful.engines.memory import Pass, Plan, Row, exact_kl, total
from tuneful.engines.remote import RemoteSampler
from tuneful.engines.remote_engine import RemoteEngine
from tuneful.generation.sampling import Sampling
from tuneful.models.adapters import LoRA
from tuneful.models.loading import load_language_model, load_tokenizer
from tuneful.models.roles import Role, Roles, policy_roles, reward_roles
from tuneful.pipeline import memory
from tuneful.pipeline.assembly import with_heads
from tuneful.pipeline.context import Context, Silent
from tuneful.pipeline.memory import (
    in_words,
    plan_kto,
    plan_on_policy,
    plan_pairs,
    plan_reward,
    plan_sft,
    record_peak,
    tell_plan,
)
from tuneful.records import Comparison, Demonstration, Prompt
from tuneful.rewards.learned import LearnedReward
from tuneful.runs.directory import RunDirectory

LORA = LoRA(rank=4)

Case = tuple[LocalEngine, Callable[[], Any], Callable[[LocalEngine, Any], Plan]]
"""An engine, how a learner on it is made, and its plan."""


@pytest.fixture(scope="module")
def model_dir(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama in which activations weigh more than weights, with grouped heads, that seldom ends a completion."""
    return small_llama(tiny_model_dir, tmp_path_factory.mktemp("small-llama"))


def small_llama(tokenizer: Path, directory: Path, vocabulary: int = 1_500) -> Path:
    """`directory`, in which it now is."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(config)
    model.save_pretrained(directory)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(directory)
    return directory


def said(count: int, seed: int, words: int = 40) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(words // 2, words))) for _ in range(count)]


def engine(roles: Roles, path: Path, tokens: int, recompute: bool) -> LocalEngine:
    roles = roles.recomputing() if recompute else roles
    return LocalEngine(roles, load_tokenizer(path), total_steps=10, tokens_per_microbatch=tokens)


def sft(path: Path, tokens: int, lora: LoRA | None, recompute: bool, **roles: Any) -> Case:
    ours = engine(policy_roles(path, lora=lora, with_reference=False, **roles), path, tokens, recompute)
    rows = [Demonstration(Prompt(p), c) for p, c in zip(said(60, 0), said(60, 1), strict=True)]
    return ours, lambda: SFT(ours, rows, SFTConfig(demonstrations_per_step=20), ours.tokenizer), plan_sft


def reward(path: Path, tokens: int, lora: LoRA | None, recompute: bool, **roles: Any) -> Case:
    ours = engine(reward_roles(path, lora=lora, **roles), path, tokens, recompute)
    config = RewardModelConfig(prompts_per_step=10)
    assert ours.roles.reward is not None
    groups = group_pairs(comparisons(), ours.roles.reward, ours.tokenizer, config.max_tokens)
    return (
        ours,
        lambda: RewardModel(ours, groups, config),
        partial(plan_reward, normalised=[Prompt("hello")], how=Sampling(max_new_tokens=1)),
    )


def dpo(path: Path, tokens: int, lora: LoRA | None, recompute: bool, **roles: Any) -> Case:
    ours = engine(policy_roles(path, lora=lora, **roles), path, tokens, recompute)
    config = DPOConfig(pairs_per_step=10)
    return (
        ours,
        lambda: DPO(ours, comparisons(), config, ours.tokenizer),
        lambda ours, _: plan_pairs(ours, comparisons(), config),
    )


def simpo(path: Path, tokens: int, lora: LoRA | None, recompute: bool, **roles: Any) -> Case:
    ours = engine(policy_roles(path, lora=lora, with_reference=False, **roles), path, tokens, recompute)
    config = SimPOConfig(pairs_per_step=10)
    return (
        ours,
        lambda: SimPO(ours, comparisons(), config, ours.tokenizer),
        lambda ours, _: plan_pairs(ours, comparisons(), config),
    )


def kto(path: Path, tokens: int, lora: LoRA | None, recompute: bool, **roles: Any) -> Case:
    ours = engine(policy_roles(path, lora=lora, **roles), path, tokens, recompute)
    answers, config = unpair(comparisons()), KTOConfig(answers_per_step=20)
    return (
        ours,
        lambda: KTO(ours, answers, config, ours.tokenizer),
        lambda ours, _: plan_kto(ours, answers, config),
    )


def comparisons() -> list[Comparison]:
    sides = zip(said(40, 0), said(40, 1), said(40, 2), strict=True)
    return [Comparison(Prompt(prompt), chosen, rejected) for prompt, chosen, rejected in sides]


ONE_EACH = PPOConfig(prompts_per_step=24, max_new_tokens=24, epochs=1)
FOUR_EACH = PPOConfig(prompts_per_step=12, samples_per_prompt=4, max_new_tokens=24, epochs=1)


def ppo(
    path: Path, tokens: int, lora: LoRA | None, recompute: bool, config: PPOConfig = ONE_EACH, **roles: Any
) -> Case:
    ours = engine(policy_roles(path, lora=lora, **({"value": "head"} | roles)), path, tokens, recompute)

    def variety(prompts: Any, completions: Any) -> torch.Tensor:
        return torch.tensor([float(len(set(c.tokens or ()))) for c in completions])

    return ours, lambda: PPO(ours, [Prompt(text) for text in said(48, 0)], variety, config), plan_collected


def plan_collected(ours: LocalEngine, learner: PPO) -> Plan:
    return plan_on_policy(ours, learner.collector)


def tensors(roles: Roles) -> list[torch.Tensor]:
    """Of all models."""
    models = [role.model for role in (roles.policy, roles.reference, roles.value, roles.reward) if role is not None]
    return [tensor for model in models for tensor in (*model.parameters(), *model.buffers())]


def test_what_nlpo_and_dqn_hold_beside_the_roles_is_planned(model_dir: Path) -> None:
    """NLPO's mask policy is a third model. DQN's heads are 4 of d -> 2 d -> V, two of which follow, and one of 1."""
    config, d, vocabulary = {"prompts_per_step": 4, "max_new_tokens": 8}, 96, 1_500

    def weights(roles: Roles, make: Callable[..., Any], settings: Any) -> int:
        ours = LocalEngine(roles, load_tokenizer(model_dir), total_steps=10)
        learner = make(ours, [Prompt("hello")], lambda *_: torch.zeros(4), settings)
        return plan_on_policy(ours, learner.collector).always["weights"]

    ppo = weights(policy_roles(model_dir, value="head"), PPO, PPOConfig(**config))
    nlpo = weights(policy_roles(model_dir, value="head"), NLPO, NLPOConfig(**config))
    assert nlpo - ppo == 4 * sum(weight.numel() for weight in load_language_model(model_dir).parameters())
    raft = weights(policy_roles(model_dir), RAFT, RAFTConfig(**config))
    dqn = weights(with_heads(policy_roles(model_dir), seed=0), DQN, DQNConfig(**config))
    to_hidden = d * 2 * d + 2 * d
    assert dqn - raft == 4 * (4 * (to_hidden + (2 * d + 1) * vocabulary) + to_hidden + 2 * d + 1)


@pytest.mark.parametrize(
    ("build", "tokens", "lora", "recompute", "roles"),
    [
        pytest.param(sft, 400, LORA, False, {}, id="sft"),
        pytest.param(sft, 2_000, LORA, False, {}, id="sft, large micro-batches"),
        pytest.param(sft, 2_000, None, False, {}, id="sft, all weights"),
        pytest.param(sft, 400, None, False, {}, id="sft, all weights, small micro-batches"),
        pytest.param(sft, 2_000, LORA, True, {}, id="sft, layers again"),
        pytest.param(sft, 2_000, None, True, {}, id="sft, all weights, layers again"),
        pytest.param(sft, 2_000, LORA, False, {"dtype": "bfloat16"}, id="sft, bfloat16"),
        pytest.param(sft, 2_000, LORA, False, {"dtype": "nf4"}, id="sft, nf4"),
        pytest.param(reward, 400, LORA, False, {}, id="reward"),
        pytest.param(reward, 2_000, LORA, False, {"dtype": "bfloat16"}, id="reward, bfloat16"),
        pytest.param(reward, 2_000, None, False, {}, id="reward, all weights"),
        pytest.param(reward, 2_000, None, True, {}, id="reward, all weights, layers again"),
        pytest.param(dpo, 400, LORA, False, {}, id="dpo"),
        pytest.param(dpo, 2_000, None, False, {}, id="dpo, all weights"),
        pytest.param(dpo, 2_000, LORA, True, {}, id="dpo, layers again"),
        pytest.param(simpo, 2_000, None, False, {}, id="simpo, all weights"),
        pytest.param(kto, 400, LORA, False, {}, id="kto"),
        pytest.param(kto, 2_000, None, False, {}, id="kto, all weights"),
        pytest.param(kto, 2_000, LORA, True, {}, id="kto, layers again"),
        pytest.param(ppo, 2_000, LORA, False, {}, id="ppo"),
        pytest.param(ppo, 400, LORA, False, {}, id="ppo, small micro-batches"),
        pytest.param(ppo, 2_000, None, False, {}, id="ppo, all weights"),
        pytest.param(ppo, 2_000, LORA, False, {"value": "adapter"}, id="ppo, value adapter"),
        pytest.param(ppo, 2_000, LORA, True, {"value": "adapter"}, id="ppo, value adapter, layers again"),
        pytest.param(ppo, 2_000, LORA, False, {"value": "model"}, id="ppo, value model"),
        pytest.param(ppo, 400, None, False, {"value": "model"}, id="ppo, all weights, value model"),
        pytest.param(ppo, 400, None, True, {"value": "model"}, id="ppo, all weights, value model, layers again"),
        pytest.param(ppo, 2_000, LORA, False, {"value": "adapter", "dtype": "bfloat16"}, id="ppo, bfloat16"),
        pytest.param(ppo, 4_000, LORA, False, {"config": FOUR_EACH}, id="ppo, samples"),
        pytest.param(
            ppo,
            4_000,
            LORA,
            False,
            {"config": replace(FOUR_EACH, minibatches=3), "value": "adapter"},
            id="ppo, samples, minibatches",
        ),
        pytest.param(
            ppo,
            4_000,
            LORA,
            False,
            {"config": replace(FOUR_EACH, minibatches=15)},
            id="ppo, samples, more minibatches than prompts",
        ),
    ],
)
def test_the_plan_is_right_within_a_fifth(
    build: Callable[..., Case], tokens: int, lora: LoRA | None, recompute: bool, roles: dict[str, Any], model_dir: Path
) -> None:
    """Of two steps: in the second the optimizer has its moments from the beginning."""
    ours, make, plan = build(model_dir, tokens, lora, recompute, **roles)
    with counted(tensors(ours.roles)) as found:
        learner = make()
        learner.step()
        learner.step()
        if isinstance(learner, PPO):  # as on dev prompts
            ours.kl(learner.collector.rollout(learner.collector.prompts[:24], seed=0))
    planned = plan(ours, learner)
    assert planned.peak == pytest.approx(found.num_bytes, rel=0.2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_plan_of_sampling_alone_is_right_too(dtype: Any, model_dir: Path) -> None:
    """Never the peak above. In float32 its copies of the weights count, in bfloat16 keys, values and logits alone."""
    ours, make, plan = ppo(model_dir, 400, LORA, False, dtype=dtype)
    learner = make()
    with counted(tensors(ours.roles)) as found:
        ours.sample(learner.collector.prompts[:24], learner.config.sampling, seed=0)
    planned = plan(ours, learner)
    assert planned.always["weights"] + total(planned.phases["sampling"]) == pytest.approx(found.num_bytes, rel=0.2)


def test_the_message_of_all_gradients_between_ranks_is_planned(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All weights trained, on rows that hold less than their gradients."""
    ours, _, _ = sft(model_dir, 400, None, False)
    learner = SFT(ours, [Demonstration(Prompt("a"), "b")], SFTConfig(demonstrations_per_step=1), ours.tokenizer)
    learner.step()
    for weight in ours.parameters():
        weight.grad = torch.ones_like(weight)
    moments = [moment for state in ours._optimizer.state.values() for moment in state.values()]
    before = [*tensors(ours.roles), *moments, *(w.grad for w in ours.parameters() if w.grad is not None)]
    monkeypatch.setattr(ranks, "world_size", lambda: 2)
    monkeypatch.setattr(ranks, "add_up", lambda numbers: numbers)
    with counted(before) as found:
        ranks.add_gradients(ours.parameters())
    assert plan_sft(ours, learner).peak == pytest.approx(found.num_bytes, rel=0.05)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_exact_kl_never_holds_all_logits_of_a_pass(dtype: Any, tiny_model_dir: Path, tmp_path: Path) -> None:
    """Of 24 tokens of each of 24 rows, in one pass, two models' logits; and it holds what is planned."""
    ours, make, _ = ppo(small_llama(tiny_model_dir, tmp_path, 8_000), 2_000, LORA, False, dtype=dtype)
    rollout = ours.sample(make().collector.prompts[:24], Sampling(max_new_tokens=24), seed=0)
    before = tensors(ours.roles)
    with counted(before) as found:
        ours.kl(rollout)
    taken = found.num_bytes - sum({tensor.data_ptr(): tensor.nbytes for tensor in before}.values())
    assert taken < 2 * int(rollout.mask.sum()) * 8_000 * 4
    assert ours.roles.policy is not None
    rows = [Row(len(p), len(c), k) for k, (p, c) in enumerate(zip(rollout.prompts, rollout.completions, strict=True))]
    planned = exact_kl(Pass.of(ours.roles.policy), rows, tokens_per_microbatch=2_000)
    assert total(planned) == pytest.approx(taken, rel=0.2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_a_reward_is_normalised_with_is_planned(dtype: Any, model_dir: Path) -> None:
    """Answers of a second model to 200 prompts, none cut, beside the reward and its optimizer."""
    asked, how = [Prompt(text) for text in said(200, 3, words=8)], Sampling(max_new_tokens=40)
    ours, make, _ = reward(model_dir, 400, LORA, False, dtype=dtype)
    learner = make()
    learner.step()
    planned = plan_reward(ours, learner, asked, how)
    moments = [moment for state in ours._optimizer.state.values() for moment in state.values()]
    with counted([*tensors(ours.roles), *moments]) as found:
        second = Roles(policy=Role("policy", load_language_model(model_dir, dtype=dtype)))
        engine(second, model_dir, 400, False).sample(asked, how, seed=0)
    assert total(planned.always) + total(planned.phases["normalising"]) == pytest.approx(found.num_bytes, rel=0.2)


def test_the_references_answers_are_planned_where_a_server_samples_the_rest(model_dir: Path, tmp_path: Path) -> None:
    local, make, _ = ppo(model_dir, 400, LORA, False)
    learner = make()
    elsewhere = RemoteSampler("http://127.0.0.1:9", local.tokenizer, folder=tmp_path)  # which is never asked
    ours = RemoteEngine(local.roles, local.tokenizer, elsewhere, tokens_per_microbatch=400)
    with counted(tensors(ours.roles)) as found:
        ours.as_reference().sample(learner.collector.prompts[:12], learner.config.sampling, seed=0)
    planned = plan_on_policy(ours, learner.collector, evaluated=12)
    assert planned.always["weights"] + total(planned.phases["sampling"]) == pytest.approx(found.num_bytes, rel=0.2)


@pytest.mark.parametrize(("prompts", "tokens"), [(24, 2_000), (8, 8_000)])
@pytest.mark.parametrize("shared", [True, False])
def test_the_checks_before_the_first_step_are_planned(
    prompts: int, tokens: int, shared: bool, model_dir: Path, tmp_path: Path
) -> None:
    """Their 256 rows fill a micro-batch where a step's do not; beside a learned reward, on the base or its own."""
    ours, _, _ = ppo(model_dir, tokens, LORA, False)
    judged = learned_reward(model_dir, tmp_path, ours.roles.policy if shared else None)
    config = PPOConfig(prompts_per_step=prompts, max_new_tokens=24, epochs=1)
    learner = PPO(ours, [Prompt(text) for text in said(48, 0)], judged, config)
    before = [*tensors(ours.roles), *judged.role.model.parameters()]
    with counted(before) as found:
        check_start(ours, learner.collector.prompts, judged, config, seed=0)
        learner.step()
        learner.step()
    planned = plan_on_policy(ours, learner.collector, checked=NUM_ROLLOUTS)
    assert planned.peak == pytest.approx(found.num_bytes, rel=0.2)


def test_the_checks_hold_no_more_than_steps_of_as_many_rows(model_dir: Path, tmp_path: Path) -> None:
    """Of 8 rows, in micro-batches that would hold all 256, which take 51 MiB together where a step takes 12."""
    ours, _, _ = ppo(model_dir, 8_000, LORA, False)
    judged = learned_reward(model_dir, tmp_path, ours.roles.policy)
    config = PPOConfig(prompts_per_step=8, max_new_tokens=24, epochs=1)
    learner = PPO(ours, [Prompt(text) for text in said(48, 0)], judged, config)
    before = tensors(ours.roles)
    with counted(before) as checks:
        check_start(ours, learner.collector.prompts, judged, config, seed=0, rows=8)
    with counted(before) as steps:
        learner.step()
        learner.step()
    assert checks.num_bytes < steps.num_bytes


def learned_reward(path: Path, tmp_path: Path, base: Role | None) -> LearnedReward:
    """An adapter that is kept in `tmp_path`, on the model of `base` or on one of its own."""
    stored = reward_roles(path, lora=LORA).reward
    assert stored is not None and stored.adapters is not None
    stored.adapters.save("reward", tmp_path)
    load_tokenizer(path).save_pretrained(tmp_path)
    return LearnedReward.load(tmp_path, base=base)


def test_one_base_counts_once_whatever_stands_on_it(model_dir: Path, tmp_path: Path) -> None:
    """Policy, value and reward as adapters weigh less than two of this model; three models of their own do not."""
    ours, _, _ = ppo(model_dir, 400, LORA, False, value="adapter")
    config, asked = PPOConfig(prompts_per_step=8, max_new_tokens=8, epochs=1), [Prompt(text) for text in said(8, 0)]
    one = sum(tensor.nbytes for tensor in load_language_model(model_dir).parameters())
    for base, low, high in ((None, 2.0, 2.3), (ours.roles.policy, 1.0, 1.3)):
        judged = learned_reward(model_dir, tmp_path, base)
        weights = plan_on_policy(ours, PPO(ours, asked, judged, config).collector).always["weights"]
        assert low * one < weights < high * one


def test_a_stage_tells_its_plan_and_warns_of_what_is_not_there(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    display = Silent()
    monkeypatch.setattr(display, "note", notes.append)
    context = Context(tmp_path, 0, {}, (), {}, display, ())
    ours, make, plan = sft(model_dir, 2_000, LORA, False)
    planned = plan(ours, make())
    with RunDirectory.open(tmp_path / "sft", {}) as record:
        tell_plan(context, record, ours, planned)
        record_peak(record)
        kept = record.manifest["memory"]
    assert [kept["planned"], kept["while"]] == [planned.peak, "updating"]
    assert sum(kept["parts"].values()) == kept["planned"]
    assert kept["resident"] > planned.always["weights"]
    (note,) = notes
    assert note == (
        "memory: about 35 MiB at most, while updating: weights 2 MiB, activations 33 MiB; "
        "lower tokens_per_microbatch or set recompute_layers to need less"
    )

    monkeypatch.setattr(memory, "_free", lambda engine: 2**20)
    with RunDirectory.open(tmp_path / "again", {}) as record:
        tell_plan(context, record, ours, planned)
    assert notes[-1] == (
        "warning: 33 MiB more are to be taken and 1 MiB are free; lower tokens_per_microbatch or set recompute_layers"
    )


@pytest.mark.parametrize(
    ("build", "lora", "dtype", "words"),
    [(sft, None, "float32", "set lora"), (sft, LORA, "float32", 'set base_dtype = "bfloat16"')],
)
def test_where_weights_are_the_most_it_names_what_makes_them_fewer(
    build: Callable[..., Case], lora: LoRA | None, dtype: Any, words: str, model_dir: Path
) -> None:
    ours, _, _ = build(model_dir, 1, lora, False, dtype=dtype)
    held = Plan(always={"weights": 9 * 2**20, "optimizer": 0}, phases={"updating": {"gradients": 0, "activations": 5}})
    assert in_words(held, ours).endswith(f"; {words} to need less")


def test_another_family_is_planned_roughly_and_says_so(tiny_tokenizer: Any, tmp_path: Path) -> None:
    """GPT-2, on transformers' own modules: within a factor of two."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=1_500, n_embd=96, n_layer=3, n_head=4, bos_token_id=1, eos_token_id=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    ours, make, plan = sft(tmp_path, 2_000, LORA, False)
    with counted(tensors(ours.roles)) as found:
        learner = make()
        learner.step()
    planned = plan(ours, learner)
    assert planned.peak == pytest.approx(found.num_bytes, rel=0.5)
    assert in_words(planned, ours).startswith("memory: roughly ")
