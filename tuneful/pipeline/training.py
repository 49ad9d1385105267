"""The stages that train: what each reads, the roles and the engine it builds, and the model it leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any, TypeVar

import torch

from tuneful.algorithms import loop
from tuneful.algorithms.a2c import A2C, A2CConfig
from tuneful.algorithms.dpo import DPO, DPOConfig
from tuneful.algorithms.dqn import DQN, DQNConfig
from tuneful.algorithms.grpo import GRPO, GRPOConfig
from tuneful.algorithms.ilql import ILQL, ILQLConfig, Scored
from tuneful.algorithms.kto import BALANCED, KTO, KTOConfig, pull
from tuneful.algorithms.nlpo import NLPO, NLPOConfig
from tuneful.algorithms.on_policy import OnPolicyConfig
from tuneful.algorithms.orpo import ORPO, ORPOConfig
from tuneful.algorithms.ppo import PPO, PPOConfig
from tuneful.algorithms.raft import RAFT, RAFTConfig
from tuneful.algorithms.reinforce import Reinforce, ReinforceConfig, RLOOConfig
from tuneful.algorithms.reward_model import RewardModel, RewardModelConfig, group_pairs
from tuneful.algorithms.sft import SFT, SFTConfig
from tuneful.algorithms.simpo import SimPO, SimPOConfig
from tuneful.algorithms.start_up import NUM_ROLLOUTS, check_start
from tuneful.algorithms.stopping import KLBudget, StopRule, Threshold
from tuneful.algorithms.trpo import TRPO, TRPOConfig
from tuneful.data.templates import pair_ids
from tuneful.engines import ranks, sharding
from tuneful.engines.local import LocalEngine
from tuneful.engines.remote import RemoteSampler
from tuneful.engines.remote_engine import RemoteEngine
from tuneful.errors import ConfigError
from tuneful.generation.guided import Guide
from tuneful.generation.sampling import Sampling
from tuneful.models.loading import context_length, load_tokenizer, save_model, write_reward_file
from tuneful.models.q_heads import QHeads
from tuneful.models.roles import Role, Roles, policy_roles, reward_roles
from tuneful.pipeline import inputs, memory
from tuneful.pipeline.accuracy import reward_accuracy
from tuneful.pipeline.answers import note_waves, stage_answers
from tuneful.pipeline.context import Context
from tuneful.pipeline.dev_evaluation import DevEvaluation
from tuneful.pipeline.guided import save_guide
from tuneful.pipeline.outcome import Facts, write_stage_report
from tuneful.pipeline.rows import (
    held_out_comparisons,
    training_answers,
    training_comparisons,
    training_completions,
    training_demonstrations,
)
from tuneful.records import Comparison, UnpairedPreference
from tuneful.rewards.learned import LearnedReward
from tuneful.rewards.load import load_reward
from tuneful.rewards.reward import Reward
from tuneful.rollouts.collect import shared_scores
from tuneful.runs.directory import RunDirectory

RowsConfig = TypeVar("RowsConfig", SFTConfig, DPOConfig, ORPOConfig, SimPOConfig, KTOConfig, ILQLConfig)
PairConfig = TypeVar("PairConfig", DPOConfig, ORPOConfig, SimPOConfig)

LEARNERS: Mapping[type[OnPolicyConfig], Any] = {
    ReinforceConfig: Reinforce,
    RLOOConfig: Reinforce,
    GRPOConfig: GRPO,
    A2CConfig: A2C,
    PPOConfig: PPO,
    NLPOConfig: NLPO,
    TRPOConfig: TRPO,
    RAFTConfig: RAFT,
    DQNConfig: DQN,
}
"""The learner of each kind of settings."""


def train_sft(context: Context, record: RunDirectory, given: inputs.SFTInputs, config: SFTConfig) -> Facts:
    """`model/`: the model that imitates the demonstrations."""
    path = context.model(given.model)
    tokenizer = load_tokenizer(path)
    demonstrations = training_demonstrations(context, given.demonstrations, stage=record.name)
    num_steps = config.num_steps(len(demonstrations))
    roles = policy_roles(path, lora=given.lora, with_reference=False, **_holding(given), seed=config.seed)
    config = _within_context(config, _present(roles.policy))
    engine = _engine(context, roles, tokenizer, config, num_steps, given)
    learner = SFT(engine, demonstrations, config, tokenizer)
    memory.tell_plan(context, record, engine, memory.plan_sft(engine, learner))
    ended = _run(context, learner, record, num_steps, given.save_every)
    memory.record_peak(record)
    _save_role(_present(roles.policy), tokenizer, record)
    write_stage_report(record, {"ended": ended, "num_demonstrations": len(demonstrations)})
    return {"ended": ended}


def train_reward(
    context: Context, record: RunDirectory, given: inputs.RewardInputs, config: RewardModelConfig
) -> Facts:
    """`model/`: a sequence classifier with `reward.json`, normalised on reference completions."""
    path = context.model(given.model)
    roles = reward_roles(path, lora=given.lora, **_holding(given), seed=config.seed)
    role = _present(roles.reward)
    tokenizer = load_tokenizer(path, needs_end=role.head is not None)
    comparisons = training_comparisons(context, given.comparisons, stage=record.name)
    groups = group_pairs(comparisons, role, tokenizer, config.max_tokens)
    num_steps = config.num_steps(len(groups))
    engine = _engine(context, roles, tokenizer, config, num_steps, given)
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
        reward = reward.normalised_on(asked, rollout.as_completions())
    memory.record_peak(record)
    facts = {
        "gain": reward.gain,
        "bias": reward.bias,
        "reads": "pooled" if role.head is None else "last token",
        "base": path,
        "max_tokens": config.max_tokens,
    }
    _save_role(role, tokenizer, record, facts)
    report: dict[str, Any] = {"ended": ended, "num_prompts": len(groups), "num_comparisons": len(comparisons)}
    if given.test is not None:
        held_out = held_out_comparisons(context, given.test, stage=record.name)
        with sharding.whole(role.model):
            report["reward_model"] = reward_accuracy(reward, held_out)
    write_stage_report(record, report)
    return {"ended": ended}


def train_on_policy(
    context: Context, record: RunDirectory, given: inputs.OnPolicyInputs, config: OnPolicyConfig
) -> Facts:
    """`model/`: the tuned policy. Start-up checks first; evaluations on dev prompts feed the stop rules."""
    path = context.model(given.model)
    tokenizer = load_tokenizer(path)
    remote = None
    if given.sampler is not None:
        remote = RemoteSampler(given.sampler, tokenizer, folder=record.path / "published")
        remote.refuse_other_base(path)
    reference = context.model(given.reference) if given.reference else None
    valued: dict[str, Any] = {}
    if isinstance(given, inputs.ActorCriticInputs):
        valued["value"] = given.value
        valued["value_from"] = context.model(given.value_from) if given.value_from else None
    roles = policy_roles(
        path,
        lora=given.lora,
        reference=reference,
        **valued,
        **_holding(given),
        seed=config.seed,
    )
    if isinstance(config, DQNConfig):
        roles = _with_heads(roles, config.seed)
    engine = _engine(context, roles, tokenizer, config, config.updates, given, remote)
    note_waves(engine, context.display.note)
    if given.share_base:
        assert isinstance(given.reward, str)
        reward: Reward = LearnedReward.load(context.model(given.reward), base=_present(roles.policy))
    else:
        reward = load_reward(given.reward, model=context.model)
    second = load_reward(given.second_reward, model=context.model) if given.second_reward else None
    splits = context.prompts(given.prompts)
    prompts = splits.read("rl", purpose="train", stage=record.name)
    dev = splits.read("dev", purpose="stop", stage=record.name)[: given.evaluate_prompts]
    pretraining: dict[str, Any] = {}
    if isinstance(given, inputs.PPOInputs) and given.pretraining is not None:
        pretraining["pretraining"] = _pretraining(context, record, given.pretraining, _present(roles.policy), tokenizer)
    learner = LEARNERS[type(config)](engine, prompts, reward, config, **pretraining)
    evaluated = len(dev) * given.evaluate_samples
    together = max(config.completions_per_step, evaluated)
    others = [second] if second is not None else []
    plan = memory.plan_on_policy(
        engine, learner.collector, others=others, evaluated=evaluated, checked=min(NUM_ROLLOUTS, together)
    )
    memory.tell_plan(context, record, engine, plan)
    if ranks.from_first(record.latest_checkpoint) is None:
        tuned = given.start == "tuned"
        guide, engine.guide = engine.guide, None  # what is checked is the model
        checks = check_start(engine, prompts, reward, config, seed=config.seed, tuned=tuned, rows=together)
        engine.guide = guide
        for finding in checks:
            context.display.note(f"{'✓' if finding.passed else 'warning:'} {finding.name}: {finding.value:.2g}")
        record.update(checks=[asdict(f) | {"passed": f.passed} for f in checks])
    _tell_trust(context, record, engine)
    evaluate = DevEvaluation(
        engine, dev, reward, second, config, num_samples=given.evaluate_samples, phrase_z=given.alarm.phrase_z
    )
    ended = loop.run(
        learner,
        record,
        num_steps=config.num_steps,
        evaluate=evaluate,
        evaluate_every=given.evaluate_every,
        stop_rules=_stop_rules(given),
        save_every=given.save_every,
        progress=context.display.step,
    )
    _tell_trust(context, record, engine)
    memory.record_peak(record)
    _save_role(_present(roles.policy), tokenizer, record, guide=engine.guide, base=reference or path)
    alarms = [row for row in record.metrics.rows() if row["kind"] == "alarm"]
    write_stage_report(record, {"ended": ended, "alarm": alarms[0] if alarms else None})
    return {"ended": ended}


def _pretraining(
    context: Context, record: RunDirectory, source: str, policy: Role, tokenizer: Any
) -> list[tuple[list[int], list[int]]]:
    """Ids of demonstrations, cut to the model's context as those of a supervised stage are."""
    longest = _within_context(SFTConfig(), policy).max_tokens
    rows = training_demonstrations(context, source, stage=record.name)
    return [pair_ids(row.prompt, row.completion, tokenizer, max_tokens=longest) for row in rows]


def train_dpo(context: Context, record: RunDirectory, given: inputs.DPOInputs, config: DPOConfig) -> Facts:
    """`model/`: the tuned policy."""
    return _train_on_pairs(DPO, context, record, given, config, with_reference=True)


def train_orpo(context: Context, record: RunDirectory, given: inputs.PairInputs, config: ORPOConfig) -> Facts:
    """`model/`: the tuned policy."""
    return _train_on_pairs(ORPO, context, record, given, config, with_reference=False)


def train_simpo(context: Context, record: RunDirectory, given: inputs.PairInputs, config: SimPOConfig) -> Facts:
    """`model/`: the tuned policy."""
    return _train_on_pairs(SimPO, context, record, given, config, with_reference=False)


def train_kto(context: Context, record: RunDirectory, given: inputs.KTOInputs, config: KTOConfig) -> Facts:
    """`model/`: the tuned policy."""
    path = context.model(given.model)
    tokenizer = load_tokenizer(path)
    answers = training_answers(context, given.preferences, stage=record.name)
    num_steps = config.num_steps(len(answers))
    roles = policy_roles(path, lora=given.lora, **_holding(given), seed=config.seed)
    config = _within_context(config, _present(roles.policy))
    engine = _engine(context, roles, tokenizer, config, num_steps, given)
    memory.tell_plan(context, record, engine, memory.plan_kto(engine, answers, config))
    _tell_pull(context, answers, config)
    learner = KTO(engine, answers, config, tokenizer)
    ended = _run(context, learner, record, num_steps, given.save_every)
    memory.record_peak(record)
    _save_role(_present(roles.policy), tokenizer, record)
    write_stage_report(record, {"ended": ended, "num_answers": len(answers)})
    return {"ended": ended}


def _train_on_pairs(
    learn: Callable[[LocalEngine, Sequence[Comparison], PairConfig, Any], loop.Learner],
    context: Context,
    record: RunDirectory,
    given: inputs.DPOInputs | inputs.PairInputs,
    config: PairConfig,
    *,
    with_reference: bool,
) -> Facts:
    path = context.model(given.model)
    tokenizer = load_tokenizer(path)
    comparisons = training_comparisons(context, given.comparisons, stage=record.name)
    num_steps = config.num_steps(len(comparisons))
    roles = policy_roles(path, lora=given.lora, with_reference=with_reference, **_holding(given), seed=config.seed)
    config = _within_context(config, _present(roles.policy))
    engine = _engine(context, roles, tokenizer, config, num_steps, given)
    memory.tell_plan(context, record, engine, memory.plan_pairs(engine, comparisons, config))
    learner = learn(engine, comparisons, config, tokenizer)
    ended = _run(context, learner, record, num_steps, given.save_every)
    memory.record_peak(record)
    _save_role(_present(roles.policy), tokenizer, record)
    write_stage_report(record, {"ended": ended, "num_comparisons": len(comparisons)})
    return {"ended": ended}


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


def train_ilql(context: Context, record: RunDirectory, given: inputs.ILQLInputs, config: ILQLConfig) -> Facts:
    """`model/`: the policy, with the action values that guide it."""
    path = context.model(given.model)
    tokenizer = load_tokenizer(path)
    roles = policy_roles(path, lora=given.lora, with_reference=False, **_holding(given), seed=config.seed)
    config = _within_context(config, _present(roles.policy))
    scored = _scored(context, record, given, tokenizer, config.max_tokens)
    num_steps = config.num_steps(len(scored))
    engine = _engine(context, _with_heads(roles, config.seed), tokenizer, config, num_steps, given)
    learner = ILQL(engine, scored, config)
    memory.tell_plan(context, record, engine, memory.plan_scored(engine, learner))
    ended = _run(context, learner, record, num_steps, given.save_every)
    memory.record_peak(record)
    _save_role(_present(roles.policy), tokenizer, record, guide=engine.guide)
    write_stage_report(record, {"ended": ended, "num_completions": len(scored)})
    return {"ended": ended, "num_completions": len(scored)}


def _scored(
    context: Context, record: RunDirectory, given: inputs.ILQLInputs, tokenizer: Any, max_tokens: int
) -> list[Scored]:
    """Completions with their scores, brought to mean 0 and standard deviation 1."""
    if given.comparisons is not None:
        comparisons = training_comparisons(context, given.comparisons, stage=record.name)
        sides = [((c.prompt, c.chosen), (c.prompt, c.rejected)) for c in comparisons]
        answers = [side for pair in sides for side in pair]
        scores = torch.tensor([p for c in comparisons for p in (c.p, 1 - c.p)])
    else:
        assert given.completions is not None and given.reward is not None
        found = training_completions(context, given.completions, stage=record.name)
        reward = load_reward(given.reward, model=context.model)
        scores = shared_scores(reward, [prompt for prompt, _ in found], [completion for _, completion in found])
        answers = [(prompt, completion.text) for prompt, completion in found]
    spread = float(scores.std(correction=0))
    scores = (scores - scores.mean()) / (spread if spread > 0 else 1.0)
    ids = [pair_ids(prompt, text, tokenizer, max_tokens=max_tokens) for prompt, text in answers]
    return [Scored(prompt, completion, score) for (prompt, completion), score in zip(ids, scores.tolist(), strict=True)]


def _with_heads(roles: Roles, seed: int) -> Roles:
    """The same with action values on the policy's states."""
    policy = _present(roles.policy)
    config = policy.model.config.get_text_config()
    return replace(roles, heads=QHeads(config.hidden_size, config.vocab_size, seed=seed).to(policy.device))


def _tell_trust(context: Context, record: RunDirectory, engine: LocalEngine) -> None:
    """Say whether a server's logprobs are taken, where `run.json` does not say so yet."""
    if not isinstance(engine, RemoteEngine) or engine.trusted is None:
        return
    found = "taken" if engine.trusted else "recomputed"
    if record.manifest.get("sampler_logprobs") != found:
        taken = "the sampler's logprobs are taken" if engine.trusted else "warning: logprobs are computed again here"
        context.display.note(f"{taken}, see engine_mismatch in metrics.jsonl")
        record.update(sampler_logprobs=found)


def _engine(
    context: Context,
    roles: Roles,
    tokenizer: Any,
    config: Any,
    num_updates: int,
    given: inputs.TrainingInputs,
    remote: RemoteSampler | None = None,
) -> LocalEngine:
    optimization = config.optimization.within(num_updates)
    if optimization != config.optimization:
        context.display.note(
            f"the learning rate rises over {optimization.warmup_steps} steps, not over optimization.warmup_steps = "
            f"{config.optimization.warmup_steps}: the run has {num_updates}"
        )
    if given.shard:
        sharding.shard(roles)
    build = LocalEngine if remote is None else partial(RemoteEngine, remote=remote)
    return build(
        roles.recomputing() if given.recompute_layers else roles,
        tokenizer,
        optimization=optimization,
        total_steps=num_updates,
        tokens_per_microbatch=given.tokens_per_microbatch,
    )


def _holding(given: inputs.TrainingInputs) -> dict[str, Any]:
    """How models are loaded; what will be split begins on the CPU, for it does not fit elsewhere."""
    return {"dtype": given.base_dtype, "device": "cpu" if given.shard and ranks.world_size() > 1 else None}


def _within_context(config: RowsConfig, policy: Role) -> RowsConfig:
    """`config` with no row longer than the model's context; a learned position beyond it does not exist."""
    context = context_length(policy.model)
    return config if context is None else replace(config, max_tokens=min(config.max_tokens, context))


def _run(context: Context, learner: loop.Learner, record: RunDirectory, num_steps: int, save_every: int) -> str:
    return loop.run(learner, record, num_steps=num_steps, save_every=save_every, progress=context.display.step)


def _stop_rules(given: inputs.OnPolicyInputs) -> list[StopRule]:
    rules: list[StopRule] = [Threshold(measure=name, at_least=bar) for name, bar in given.threshold.items()]
    if given.kl_budget is not None:
        rules.append(KLBudget(nats=given.kl_budget))
    return [*rules, given.alarm]


def _save_role(
    role: Role,
    tokenizer: Any,
    record: RunDirectory,
    reward: Mapping[str, Any] | None = None,
    *,
    guide: Guide | None = None,
    base: str | None = None,
) -> None:
    """`model/`, whole or not at all, by rank 0; `reward` becomes its `reward.json`. All ranks call this.

    guide: what chooses the tokens of a policy that speaks by value; base: the model that proposes them, if another.
    """
    weights = sharding.full_weights(role.model) if role.adapters is None else None
    if ranks.rank() > 0:
        return
    with record.output("model") as folder:
        if role.adapters is not None:
            role.adapters.save(role.name, folder)
            tokenizer.save_pretrained(folder)
        else:
            save_model(role.model, tokenizer, folder, weights)
        if reward is not None:
            write_reward_file(folder, dict(reward))
        if guide is not None:
            save_guide(folder, guide, base=base if guide.base is not None else None)


def _present(role: Role | None) -> Role:
    if role is None:
        raise ConfigError("this stage needs a role that was not built")
    return role
