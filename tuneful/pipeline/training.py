"""The stages that train: what each reads, the roles and the engine it builds, and the model it leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from tuneful.algorithms import loop
from tuneful.algorithms.dpo import DPO, DPOConfig
from tuneful.algorithms.ilql import ILQL, ILQLConfig
from tuneful.algorithms.kto import BALANCED, KTO, KTOConfig, pull
from tuneful.algorithms.orpo import ORPO, ORPOConfig
from tuneful.algorithms.reward_model import (
    Groups,
    RewardModel,
    RewardModelConfig,
    group_labels,
    group_pairs,
    group_rankings,
)
from tuneful.algorithms.sft import SFT, SFTConfig
from tuneful.algorithms.simpo import SimPO, SimPOConfig
from tuneful.engines import sharding
from tuneful.engines.local import LocalEngine
from tuneful.generation.rollout import Scored
from tuneful.generation.sampling import Sampling
from tuneful.models.loading import load_tokenizer
from tuneful.models.roles import policy_roles, reward_roles
from tuneful.pipeline import learner_inputs, memory
from tuneful.pipeline.accuracy import reward_accuracy
from tuneful.pipeline.answers import stage_answers
from tuneful.pipeline.assembly import engine_of, holding, present, save_role, with_heads, within_context
from tuneful.pipeline.context import Context
from tuneful.pipeline.outcome import Facts, write_stage_report
from tuneful.pipeline.rows import (
    held_out_comparisons,
    training_answers,
    training_comparisons,
    training_demonstrations,
    training_rankings,
)
from tuneful.pipeline.scored import scored_comparisons, scored_completions, standardised
from tuneful.records import Comparison, UnpairedPreference
from tuneful.rewards.learned import LearnedReward
from tuneful.rewards.load import load_reward
from tuneful.runs.directory import RunDirectory

PairConfig = TypeVar("PairConfig", DPOConfig, ORPOConfig, SimPOConfig)


def train_sft(context: Context, record: RunDirectory, given: learner_inputs.SFTInputs, config: SFTConfig) -> Facts:
    """`model/`: the model that imitates the demonstrations."""
    path = context.model(given.model)
    tokenizer = load_tokenizer(path)
    demonstrations = training_demonstrations(context, given.demonstrations, stage=record.name)
    num_steps = config.num_steps(len(demonstrations))
    roles = policy_roles(path, lora=given.lora, with_reference=False, **holding(given), seed=config.seed)
    config = within_context(config, present(roles.policy))
    engine = engine_of(context, roles, tokenizer, config, num_steps, given)
    learner = SFT(engine, demonstrations, config, tokenizer)
    memory.tell_plan(context, record, engine, memory.plan_sft(engine, learner))
    ended = _run(context, learner, record, num_steps, given.save_every)
    memory.record_peak(record)
    save_role(present(roles.policy), tokenizer, record)
    write_stage_report(record, {"ended": ended, "num_demonstrations": len(demonstrations)})
    return {"ended": ended}


def train_reward(
    context: Context, record: RunDirectory, given: learner_inputs.RewardInputs, config: RewardModelConfig
) -> Facts:
    """`model/`: a sequence classifier with `reward.json`, normalised on reference completions."""
    path = context.model(given.model)
    roles = reward_roles(path, lora=given.lora, **holding(given), seed=config.seed)
    role = present(roles.reward)
    tokenizer = load_tokenizer(path, needs_end=role.head is not None)
    encoding = {"role": role, "tokenizer": tokenizer, "max_tokens": config.max_tokens}
    groups, counts = _judged(context, record, given, encoding)
    num_steps = config.num_steps(len(groups))
    engine = engine_of(context, roles, tokenizer, config, num_steps, given)
    learner = RewardModel(engine, groups, config)
    sampling = Sampling(max_new_tokens=given.max_new_tokens, max_prompt_tokens=given.max_prompt_tokens)
    prompts = context.prompts(given.normalise_prompts).read("rl", purpose="train", stage=record.name)
    asked = [prompts[i % len(prompts)] for i in range(given.normalise_samples)]
    memory.tell_plan(context, record, engine, memory.plan_reward(engine, learner, asked, sampling))
    ended = _run(context, learner, record, num_steps, given.save_every)

    rollout = stage_answers(
        context, given.normalise_model, asked, sampling, seed=context.seed_of("normalise"), dtype=given.base_dtype
    )
    reward = LearnedReward(role, tokenizer, max_tokens=config.max_tokens)
    with sharding.whole(role.model):
        reward = reward.normalised_on(asked, rollout.as_completions(), length_control=given.length_control)
    memory.record_peak(record)
    facts = {
        "gain": reward.gain,
        "bias": reward.bias,
        "length_slope": reward.length_slope,
        "reads": "pooled" if role.head is None else "last token",
        "base": path,
        "max_tokens": config.max_tokens,
    }
    save_role(role, tokenizer, record, facts)
    report: dict[str, Any] = {"ended": ended, "num_prompts": len(groups), **counts}
    if given.test is not None:
        held_out = held_out_comparisons(context, given.test, stage=record.name)
        with sharding.whole(role.model):
            report["reward_model"] = reward_accuracy(reward, held_out)
    write_stage_report(record, report)
    return {"ended": ended}


def train_dpo(context: Context, record: RunDirectory, given: learner_inputs.DPOInputs, config: DPOConfig) -> Facts:
    """`model/`: the tuned policy."""
    return _train_on_pairs(DPO, context, record, given, config, with_reference=True)


def train_orpo(context: Context, record: RunDirectory, given: learner_inputs.PairInputs, config: ORPOConfig) -> Facts:
    """`model/`: the tuned policy."""
    return _train_on_pairs(ORPO, context, record, given, config, with_reference=False)


def train_simpo(context: Context, record: RunDirectory, given: learner_inputs.PairInputs, config: SimPOConfig) -> Facts:
    """`model/`: the tuned policy."""
    return _train_on_pairs(SimPO, context, record, given, config, with_reference=False)


def train_kto(context: Context, record: RunDirectory, given: learner_inputs.KTOInputs, config: KTOConfig) -> Facts:
    """`model/`: the tuned policy."""
    path = context.model(given.model)
    tokenizer = load_tokenizer(path)
    answers = training_answers(context, given.preferences, stage=record.name)
    num_steps = config.num_steps(len(answers))
    roles = policy_roles(path, lora=given.lora, **holding(given), seed=config.seed)
    config = within_context(config, present(roles.policy))
    engine = engine_of(context, roles, tokenizer, config, num_steps, given)
    memory.tell_plan(context, record, engine, memory.plan_kto(engine, answers, config))
    _tell_pull(context, answers, config)
    learner = KTO(engine, answers, config, tokenizer)
    ended = _run(context, learner, record, num_steps, given.save_every)
    memory.record_peak(record)
    save_role(present(roles.policy), tokenizer, record)
    write_stage_report(record, {"ended": ended, "num_answers": len(answers)})
    return {"ended": ended}


def _train_on_pairs(
    learn: Callable[[LocalEngine, Sequence[Comparison], PairConfig, Any], loop.Learner],
    context: Context,
    record: RunDirectory,
    given: learner_inputs.DPOInputs | learner_inputs.PairInputs,
    config: PairConfig,
    *,
    with_reference: bool,
) -> Facts:
    path = context.model(given.model)
    tokenizer = load_tokenizer(path)
    comparisons = training_comparisons(context, given.comparisons, stage=record.name)
    num_steps = config.num_steps(len(comparisons))
    roles = policy_roles(path, lora=given.lora, with_reference=with_reference, **holding(given), seed=config.seed)
    config = within_context(config, present(roles.policy))
    engine = engine_of(context, roles, tokenizer, config, num_steps, given)
    memory.tell_plan(context, record, engine, memory.plan_pairs(engine, comparisons, config))
    learner = learn(engine, comparisons, config, tokenizer)
    ended = _run(context, learner, record, num_steps, given.save_every)
    memory.record_peak(record)
    save_role(present(roles.policy), tokenizer, record)
    write_stage_report(record, {"ended": ended, "num_comparisons": len(comparisons)})
    return {"ended": ended}


def _judged(
    context: Context, record: RunDirectory, given: learner_inputs.RewardInputs, encoding: Mapping[str, Any]
) -> tuple[Groups, dict[str, int]]:
    """What a reward learns from, by prompt, and how much of it there is."""
    if given.rankings is not None:
        assert given.completions is not None
        rankings = training_rankings(context, given.rankings, given.completions, stage=record.name)
        return group_rankings(rankings, **encoding), {"num_rankings": len(rankings)}
    if given.preferences is not None:
        answers = training_answers(context, given.preferences, stage=record.name)
        return group_labels(answers, **encoding), {"num_answers": len(answers)}
    assert given.comparisons is not None
    comparisons = training_comparisons(context, given.comparisons, stage=record.name)
    return group_pairs(comparisons, **encoding), {"num_comparisons": len(comparisons)}


def _tell_pull(context: Context, answers: Sequence[UnpairedPreference], config: KTOConfig) -> None:
    """Say where good and bad answers do not pull alike, and which weight would mend it."""
    found, (least, most) = pull(answers, config), BALANCED
    if least - 1e-6 <= found <= most + 1e-6:
        return
    mend = "there are no bad answers" if found == float("inf") else "there are no good answers"
    if 0 < found < float("inf"):
        weight = config.desirable_weight * least / found
        mend = f"desirable_weight = {weight:.3g} to {weight * most / least:.3g} would be"
    context.display.note(
        f"warning: desirable_weight x good answers / (undesirable_weight x bad answers) is {found:.3g}, and {least:g} "
        f"to {most:g} is advised; {mend}"
    )


def train_ilql(context: Context, record: RunDirectory, given: learner_inputs.ILQLInputs, config: ILQLConfig) -> Facts:
    """`model/`: the policy, with the action values that guide it."""
    path = context.model(given.model)
    tokenizer = load_tokenizer(path)
    roles = policy_roles(path, lora=given.lora, with_reference=False, **holding(given), seed=config.seed)
    config = within_context(config, present(roles.policy))
    scored = _scored(context, record, given, tokenizer, config.max_tokens)
    num_steps = config.num_steps(len(scored))
    engine = engine_of(context, with_heads(roles, config.seed), tokenizer, config, num_steps, given)
    learner = ILQL(engine, scored, config)
    memory.tell_plan(context, record, engine, memory.plan_scored(engine, learner))
    ended = _run(context, learner, record, num_steps, given.save_every)
    memory.record_peak(record)
    save_role(present(roles.policy), tokenizer, record, guide=engine.guide)
    write_stage_report(record, {"ended": ended, "num_completions": len(scored)})
    return {"ended": ended, "num_completions": len(scored)}


def _scored(
    context: Context, record: RunDirectory, given: learner_inputs.ILQLInputs, tokenizer: Any, max_tokens: int
) -> list[Scored]:
    """Completions with their scores, brought to mean 0 and standard deviation 1."""
    how: dict[str, Any] = {"max_tokens": max_tokens, "stage": record.name}
    if given.comparisons is not None:
        return standardised(scored_comparisons(context, given.comparisons, tokenizer, **how))
    assert given.completions is not None and given.reward is not None
    reward = load_reward(given.reward, model=context.model)
    return standardised(scored_completions(context, given.completions, reward, tokenizer, **how))


def _run(context: Context, learner: loop.Learner, record: RunDirectory, num_steps: int, save_every: int) -> str:
    return loop.run(learner, record, num_steps=num_steps, save_every=save_every, progress=context.display.step)
