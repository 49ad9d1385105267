"""The stages in which a policy learns from its own answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuneful.algorithms import loop
from tuneful.algorithms.a2c import A2C, A2CConfig
from tuneful.algorithms.dqn import DQN, DQNConfig
from tuneful.algorithms.grpo import GRPO, GRPOConfig
from tuneful.algorithms.nlpo import NLPO, NLPOConfig
from tuneful.algorithms.on_policy import OnPolicyConfig
from tuneful.algorithms.ppo import PPO, PPOConfig
from tuneful.algorithms.raft import RAFT, RAFTConfig
from tuneful.algorithms.reinforce import Reinforce, ReinforceConfig, RLOOConfig
from tuneful.algorithms.sft import SFTConfig
from tuneful.algorithms.start_up import NUM_ROLLOUTS, check_start
from tuneful.algorithms.stopping import KLBudget, StopRule, Threshold
from tuneful.algorithms.trpo import TRPO, TRPOConfig
from tuneful.data.templates import pair_ids
from tuneful.engines import ranks
from tuneful.engines.local import LocalEngine
from tuneful.engines.remote import RemoteSampler
from tuneful.engines.remote_engine import RemoteEngine
from tuneful.generation.rollout import Scored
from tuneful.models.loading import load_tokenizer
from tuneful.models.roles import Role, policy_roles
from tuneful.pipeline import learner_inputs, memory
from tuneful.pipeline.answers import note_waves
from tuneful.pipeline.assembly import engine_of, holding, present, save_role, with_heads, within_context
from tuneful.pipeline.context import Context
from tuneful.pipeline.dev_evaluation import DevEvaluation
from tuneful.pipeline.outcome import Facts, write_stage_report
from tuneful.pipeline.rows import training_demonstrations
from tuneful.pipeline.scored import scored_comparisons, scored_completions, standardised
from tuneful.records import Prompt
from tuneful.rewards.learned import LearnedReward
from tuneful.rewards.load import load_reward
from tuneful.rewards.reward import Reward
from tuneful.runs.directory import RunDirectory

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


@dataclass(frozen=True, slots=True)
class Assembled:
    """A learner with all it works on, before its first step. base: what its policy proposes tokens by where a guide
    chooses them, which is the reference, or the model it started from."""

    learner: Any
    engine: LocalEngine
    tokenizer: Any
    reward: Reward
    prompts: list[Prompt]
    base: str


def assemble(
    context: Context, name: str, folder: Path, given: learner_inputs.OnPolicyInputs, config: OnPolicyConfig
) -> Assembled:
    """The learner of the stage `name`; folder: where adapters lie that are given to a remote sampler."""
    path = context.model(given.model)
    tokenizer = load_tokenizer(path)
    remote = None
    if given.sampler is not None:
        remote = RemoteSampler(given.sampler, tokenizer, folder=folder)
        remote.refuse_other_base(path)
    reference = context.model(given.reference) if given.reference else None
    valued: dict[str, Any] = {}
    if isinstance(given, learner_inputs.ActorCriticInputs):
        valued["value"] = given.value
        valued["value_from"] = context.model(given.value_from) if given.value_from else None
    roles = policy_roles(
        path,
        lora=given.lora,
        reference=reference,
        **valued,
        **holding(given),
        seed=config.seed,
    )
    if isinstance(config, DQNConfig):
        roles = with_heads(roles, config.seed)
    engine = engine_of(context, roles, tokenizer, config, config.updates, given, remote)
    note_waves(engine, context.display.note)
    if given.share_base:
        assert isinstance(given.reward, str)
        reward: Reward = LearnedReward.load(context.model(given.reward), base=present(roles.policy))
    else:
        reward = load_reward(given.reward, model=context.model)
    prompts = context.prompts(given.prompts).read("rl", purpose="train", stage=name)
    beside: dict[str, Any] = {}
    if isinstance(given, learner_inputs.PPOInputs) and given.pretraining is not None:
        beside["pretraining"] = _pretraining(context, name, given.pretraining, present(roles.policy), tokenizer)
    if isinstance(given, learner_inputs.DQNInputs):
        assert isinstance(config, DQNConfig)
        beside["stored"] = _stored(context, name, given, config, reward, present(roles.policy), tokenizer)
    learner = LEARNERS[type(config)](engine, prompts, reward, config, **beside)
    return Assembled(learner, engine, tokenizer, reward, prompts, reference or path)


def train_on_policy(
    context: Context, record: RunDirectory, given: learner_inputs.OnPolicyInputs, config: OnPolicyConfig
) -> Facts:
    """`model/`: the tuned policy. Start-up checks first; evaluations on dev prompts feed the stop rules."""
    made = assemble(context, record.name, record.path / "published", given, config)
    learner, engine, reward = made.learner, made.engine, made.reward
    second = load_reward(given.second_reward, model=context.model) if given.second_reward else None
    dev = context.prompts(given.prompts).read("dev", purpose="stop", stage=record.name)[: given.evaluate_prompts]
    evaluated = len(dev) * given.evaluate_samples
    together = max(config.completions_per_step, evaluated)
    others = [second] if second is not None else []
    plan = memory.plan_on_policy(
        engine,
        learner.collector,
        others=others,
        evaluated=evaluated,
        checked=min(NUM_ROLLOUTS, together),
        rough=isinstance(learner, (DQN, NLPO, TRPO)),  # heads on every state, a cache more, gradients of gradients
    )
    memory.tell_plan(context, record, engine, plan)
    if ranks.from_first(record.latest_checkpoint) is None:
        tuned = given.start == "tuned"
        guide, engine.guide = engine.guide, None  # what is checked is the model
        checks = check_start(engine, made.prompts, reward, config, seed=config.seed, tuned=tuned, rows=together)
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
    save_role(present(engine.roles.policy), made.tokenizer, record, guide=engine.guide, base=made.base)
    alarms = [row for row in record.metrics.rows() if row["kind"] == "alarm"]
    write_stage_report(record, {"ended": ended, "alarm": alarms[0] if alarms else None})
    return {"ended": ended}


def _pretraining(
    context: Context, stage: str, source: str, policy: Role, tokenizer: Any
) -> list[tuple[list[int], list[int]]]:
    """Ids of demonstrations, cut to the model's context as those of a supervised stage are."""
    longest = _longest(policy)
    rows = training_demonstrations(context, source, stage=stage)
    return [pair_ids(row.prompt, row.completion, tokenizer, max_tokens=longest) for row in rows]


def _stored(
    context: Context,
    stage: str,
    given: learner_inputs.DQNInputs,
    config: DQNConfig,
    reward: Reward,
    policy: Role,
    tokenizer: Any,
) -> list[Scored]:
    """What DQN's replay begins with. Scores of comparisons are brought to the size of a reward model's."""
    how: dict[str, Any] = {"max_tokens": _longest(policy), "stage": stage}
    if given.comparisons is not None:
        return standardised(scored_comparisons(context, given.comparisons, tokenizer, **how))
    if given.completions is None:
        return []
    how["missing_eos_penalty"] = config.missing_eos_penalty
    return scored_completions(context, given.completions, reward, tokenizer, **how)


def _longest(policy: Role) -> int:
    """Tokens of prompt and answer that a supervised stage reads of a row."""
    return within_context(SFTConfig(), policy).max_tokens


def _tell_trust(context: Context, record: RunDirectory, engine: LocalEngine) -> None:
    """Say whether a server's logprobs are taken, where `run.json` does not say so yet."""
    if not isinstance(engine, RemoteEngine) or engine.trusted is None:
        return
    found = "taken" if engine.trusted else "recomputed"
    if record.manifest.get("sampler_logprobs") != found:
        taken = "the sampler's logprobs are taken" if engine.trusted else "warning: logprobs are computed again here"
        context.display.note(f"{taken}, see engine_mismatch in metrics.jsonl")
        record.update(sampler_logprobs=found)


def _stop_rules(given: learner_inputs.OnPolicyInputs) -> list[StopRule]:
    rules: list[StopRule] = [Threshold(measure=name, at_least=bar) for name, bar in given.threshold.items()]
    if given.kl_budget is not None:
        rules.append(KLBudget(nats=given.kl_budget))
    return [*rules, given.alarm]
