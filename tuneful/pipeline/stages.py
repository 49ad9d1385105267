"""The stages: each reads its inputs through the context, works, and leaves what it made in its run directory."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from tuneful.algorithms import loop
from tuneful.algorithms.dpo import DPO, DPOConfig
from tuneful.algorithms.ppo import PPO, PPOConfig
from tuneful.algorithms.reward_model import RewardModel, RewardModelConfig, group_pairs
from tuneful.algorithms.sft import SFT, SFTConfig
from tuneful.algorithms.start_up import NUM_ROLLOUTS, check_start
from tuneful.algorithms.stopping import KLBudget, StopRule, Threshold
from tuneful.data.formats import read_candidates
from tuneful.data.jsonl import write_jsonl
from tuneful.data.preferences import comparison_row
from tuneful.data.splits import Purpose
from tuneful.engines import ranks, sharding
from tuneful.engines.local import LocalEngine
from tuneful.engines.remote import RemoteSampler
from tuneful.engines.remote_engine import RemoteEngine
from tuneful.errors import ConfigError
from tuneful.evaluation.comparison import Measure, compare_models
from tuneful.evaluation.intervals import MeasuredJSON, bootstrap_mean
from tuneful.evaluation.report import MAX_SAMPLES, write_json, write_report
from tuneful.evaluation.text_measures import eos_share, num_words
from tuneful.feedback.consensus import consensus
from tuneful.feedback.judgments import read_judgments, write_judgments
from tuneful.generation.rollout import Rollout
from tuneful.generation.sampling import Sampling, fold
from tuneful.models.forward import policy_outputs
from tuneful.models.loading import Dtype, load_language_model, load_tokenizer, save_model, write_reward_file
from tuneful.models.roles import Role, Roles, policy_roles, reward_roles
from tuneful.pipeline import inputs, memory
from tuneful.pipeline.accuracy import policy_accuracy, reward_accuracy
from tuneful.pipeline.answers import answer, note_waves, write_answers
from tuneful.pipeline.context import Context
from tuneful.pipeline.dev_evaluation import DevEvaluation
from tuneful.pipeline.recipe import Stage
from tuneful.pipeline.rows import (
    agreed_comparisons,
    held_out_comparisons,
    rater_rows,
    training_comparisons,
    training_demonstrations,
)
from tuneful.records import Prompt
from tuneful.rewards.learned import LearnedReward
from tuneful.rewards.load import load_reward
from tuneful.rewards.reward import Reward
from tuneful.rewards.tables import RewardInput
from tuneful.rollouts.collect import shared_scores
from tuneful.runs.directory import RunDirectory
from tuneful.runs.logs import newest_rows

PURPOSES: Mapping[str, Purpose] = {"reward": "train", "rl": "train", "dev": "stop", "test": "report"}
"""What the prompts of each split may be read for."""

_PAGE = 10_000
"""Bytes that a report's page has at least."""

Facts = dict[str, Any]
"""What a stage has to say in its `run.json`, besides what every stage says."""


def generate(context: Context, record: RunDirectory, given: inputs.GenerateInputs) -> Facts:
    """`completions.jsonl`: num_samples completions of every prompt, each with its id."""
    purpose = PURPOSES[given.split]
    prompts = context.prompts(given.prompts).read(given.split, purpose=purpose, stage=record.name)[given.offset :]
    prompts = prompts[: given.limit]
    if not prompts:
        raise ConfigError(f"{record.name}: offset = {given.offset} passes over all prompts of the {given.split} split")
    rollout = _answers(context, given.model, prompts, _sampling(given), context.seed_of("generate"), given.dtype)
    write_answers(record.path / "completions.jsonl", prompts, rollout, given.model, force=True)
    return {"num_prompts": len(prompts), "num_completions": len(rollout)}


def label(context: Context, record: RunDirectory, given: inputs.LabelInputs) -> Facts:
    """`judgments.jsonl`: rankings of the completions; `kinds.json` when a simulation knows who is who."""
    candidates = read_candidates(context.file(given.completions, "completions.jsonl"))
    labeling = context.raters(given.raters)(candidates, given.raters_per_item, context.seed, context.round)
    write_judgments(record.path / "judgments.jsonl", labeling.judgments, force=True)
    if labeling.kinds:
        (record.path / "kinds.json").write_text(json.dumps(dict(labeling.kinds), indent=2), encoding="utf-8")
    return {"num_judgments": len(labeling.judgments)}


def reach_consensus(context: Context, record: RunDirectory, given: inputs.ConsensusInputs) -> Facts:
    """`comparisons.jsonl` with p and weight per pair; `report.json` with a verdict on every rater."""
    judged = [item for path in context.files(given.completions, "completions.jsonl") for item in read_candidates(path)]
    found = consensus(j for path in context.files(given.judgments, "judgments.jsonl") for j in read_judgments(path))
    comparisons = agreed_comparisons(found, judged)
    write_jsonl(record.path / "comparisons.jsonl", map(comparison_row, comparisons), force=True)
    counts = {"num_comparisons": len(comparisons)}
    _report(record, {"labelers": rater_rows(found), "agreement": {"alpha": found.alpha}, **counts})
    return counts


def train_sft(context: Context, record: RunDirectory, given: inputs.SFTInputs, config: SFTConfig) -> Facts:
    """`model/`: the model that imitates the demonstrations."""
    path = context.model(given.model)
    tokenizer = load_tokenizer(path)
    demonstrations = training_demonstrations(context, given.demonstrations, stage=record.name)
    num_steps = config.num_steps(len(demonstrations))
    roles = policy_roles(path, lora=given.lora, with_reference=False, **_holding(given), seed=config.seed)
    engine = _engine(roles, tokenizer, config, num_steps, given)
    learner = SFT(engine, demonstrations, config, tokenizer)
    memory.tell_plan(context, record, engine, memory.plan_sft(engine, learner))
    ended = _run(context, learner, record, num_steps, given.save_every)
    memory.record_peak(record)
    _save_role(_present(roles.policy), tokenizer, record)
    _report(record, {"ended": ended, "num_demonstrations": len(demonstrations)})
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
    engine = _engine(roles, tokenizer, config, num_steps, given)
    learner = RewardModel(engine, groups, config)
    sampling = Sampling(max_new_tokens=given.max_new_tokens, max_prompt_tokens=given.max_prompt_tokens)
    memory.tell_plan(context, record, engine, memory.plan_reward(engine, learner, sampling))
    ended = _run(context, learner, record, num_steps, given.save_every)

    prompts = context.prompts(given.normalise_prompts).read("rl", purpose="train", stage=record.name)
    asked = [prompts[i % len(prompts)] for i in range(given.normalise_samples)]
    rollout = _answers(context, given.normalise_model, asked, sampling, context.seed_of("normalise"), given.base_dtype)
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
    _report(record, report)
    return {"ended": ended}


def train_ppo(context: Context, record: RunDirectory, given: inputs.PPOInputs, config: PPOConfig) -> Facts:
    """`model/`: the tuned policy. Start-up checks first; evaluations on dev prompts feed the stop rules."""
    path = context.model(given.model)
    tokenizer = load_tokenizer(path)
    remote = None
    if given.sampler is not None:
        remote = RemoteSampler(given.sampler, tokenizer, folder=record.path / "published")
        remote.refuse_other_base(path)
    reference = context.model(given.reference) if given.reference else None
    value_from = context.model(given.value_from) if given.value_from else None
    roles = policy_roles(
        path,
        lora=given.lora,
        reference=reference,
        value=given.value,
        value_from=value_from,
        **_holding(given),
        seed=config.seed,
    )
    engine = _engine(roles, tokenizer, config, config.updates, given, remote)
    note_waves(engine, context.display.note)
    if given.share_base:
        assert isinstance(given.reward, str)
        reward: Reward = LearnedReward.load(context.model(given.reward), base=_present(roles.policy))
    else:
        reward = _reward(context, given.reward)
    second = _reward(context, given.second_reward) if given.second_reward else None
    splits = context.prompts(given.prompts)
    prompts = splits.read("rl", purpose="train", stage=record.name)
    dev = splits.read("dev", purpose="stop", stage=record.name)[: given.evaluate_prompts]
    learner = PPO(engine, prompts, reward, config)
    beside = max(NUM_ROLLOUTS, len(dev) * given.evaluate_samples)
    others = [second] if second is not None else []
    memory.tell_plan(context, record, engine, memory.plan_ppo(engine, learner, others=others, most_rows=beside))
    if ranks.from_first(record.latest_checkpoint) is None:
        checks = check_start(engine, prompts, reward, config, seed=config.seed, tuned=given.start == "tuned")
        for finding in checks:
            context.display.note(f"{'✓' if finding.passed else 'warning:'} {finding.name}: {finding.value:.2g}")
        record.update(checks=[asdict(f) | {"passed": f.passed} for f in checks])
    if isinstance(engine, RemoteEngine) and engine.trusted is not None:
        taken = "the sampler's logprobs are taken" if engine.trusted else "warning: logprobs are computed again here"
        context.display.note(f"{taken}, see engine_mismatch in metrics.jsonl")
        record.update(sampler_logprobs="taken" if engine.trusted else "recomputed")
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
    memory.record_peak(record)
    _save_role(_present(roles.policy), tokenizer, record)
    alarms = [row for row in record.metrics.rows() if row["kind"] == "alarm"]
    _report(record, {"ended": ended, "alarm": alarms[0] if alarms else None})
    return {"ended": ended}


def train_dpo(context: Context, record: RunDirectory, given: inputs.DPOInputs, config: DPOConfig) -> Facts:
    """`model/`: the tuned policy."""
    path = context.model(given.model)
    tokenizer = load_tokenizer(path)
    comparisons = training_comparisons(context, given.comparisons, stage=record.name)
    num_steps = config.num_steps(len(comparisons))
    roles = policy_roles(path, lora=given.lora, **_holding(given), seed=config.seed)
    engine = _engine(roles, tokenizer, config, num_steps, given)
    memory.tell_plan(context, record, engine, memory.plan_dpo(engine, comparisons, config))
    learner = DPO(engine, comparisons, config, tokenizer)
    ended = _run(context, learner, record, num_steps, given.save_every)
    memory.record_peak(record)
    _save_role(_present(roles.policy), tokenizer, record)
    _report(record, {"ended": ended, "num_comparisons": len(comparisons)})
    return {"ended": ended}


def evaluate(context: Context, record: RunDirectory, given: inputs.EvaluateInputs) -> Facts:
    """`report.json` and `answers.jsonl`: both models on the same test prompts, with paired intervals.

    Perplexity is that of each side's answers under the model `before`, entropy that of each model on its own answers;
    both are of the models themselves, at temperature 1, whatever the answers were sampled at.
    """
    prompts = context.prompts(given.prompts).read("test", purpose="report", stage=record.name)[: given.limit]
    record.refuse_full(max(_PAGE, sum(len(prompt.text) for prompt in prompts)))
    sampling = _sampling(given)
    before = _answers(context, given.before, prompts, sampling, fold(context.seed, "before"), given.dtype)
    after_path = context.model(given.after)
    tokenizer = load_tokenizer(after_path)
    roles = Roles(
        policy=Role("policy", load_language_model(after_path, dtype=given.dtype)),
        reference=Role("reference", load_language_model(context.model(given.before), dtype=given.dtype)),
    )
    engine = LocalEngine(roles, tokenizer)
    after = engine.sample(prompts, sampling, seed=fold(context.seed, "after"), on_progress=_telling(context))
    kl, estimator = engine.kl(after)

    measures: dict[str, Measure] = {"length": lambda _, text: float(num_words(text))}
    for name in ("reward", "second_reward", "toxicity"):
        if (named := getattr(given, name)) is not None:
            measures[name] = _text_measure(_reward(context, named), prompts, before, after)
    measures |= {reference.partition(":")[2]: context.measure(reference) for reference in given.measures}
    old, new = _by_prompt(before.texts, given.num_samples), _by_prompt(after.texts, given.num_samples)
    judge = given.judge.rpartition(":")[2] if given.judge else ("reward" if given.reward else None)
    report = compare_models(prompts, old, new, measures, judge=judge, seed=context.seed)
    report["kl"] = bootstrap_mean(kl.cpu().numpy(), after.group.cpu().numpy()).as_json() | {"estimator": estimator}
    # At temperature 1 the sampler's logprobs are the model's own.
    logprobs = before.logprobs if sampling.temperature == 1 else engine.score("reference", _untempered(before))
    report["before"]["perplexity"] = _perplexity(before, logprobs)
    report["after"]["perplexity"] = _perplexity(after, engine.score("reference", _untempered(after)))
    for side, role, rollout in (("before", roles.reference, before), ("after", roles.policy, after)):
        report[side]["entropy"] = _entropy(_present(role), rollout, engine.tokens_per_microbatch)
        report[side]["eos_share"] = eos_share(rollout.finish)
        report[side].setdefault("toxicity", None)  # nothing here knows toxicity unless a measure of that name does
    rows = zip(prompts, old, new, strict=True)
    write_jsonl(
        record.path / "answers.jsonl",
        ({"prompt": p.as_json(), "before": b, "after": a} for p, b, a in rows),
        force=True,
    )
    report["samples"] = _side_by_side(prompts, old, new, measures, judge)
    _report(record, report)
    return {"num_prompts": len(prompts)}


def measure_accuracy(context: Context, record: RunDirectory, given: inputs.AccuracyInputs) -> Facts:
    """`report.json`: how often a reward, or a model's log-probability, prefers the chosen answers."""
    held_out = held_out_comparisons(context, given.comparisons, stage=record.name)
    report: dict[str, Any] = {"num_comparisons": len(held_out)}
    if given.reward is not None:
        report["reward_model"] = reward_accuracy(_reward(context, given.reward), held_out)
    if given.model is not None:
        model = context.model(given.model)
        report["log_probability"] = policy_accuracy(model, held_out, on_progress=_telling(context))
    _report(record, report)
    return {"num_comparisons": len(held_out)}


Run = Callable[..., Facts]

RUNS: dict[str, Run] = {
    "generate": generate,
    "label": label,
    "consensus": reach_consensus,
    "sft": train_sft,
    "reward": train_reward,
    "ppo": train_ppo,
    "dpo": train_dpo,
    "evaluate": evaluate,
    "accuracy": measure_accuracy,
}
"""What runs each kind of stage."""

WITHOUT_MODELS = {"label", "consensus"}
"""Stages that rank 0 runs alone."""


def run_stage(context: Context, stage: Stage, record: RunDirectory) -> None:
    """Run one stage into its directory, which then says what was done and which prompts were read for it."""
    settings = () if stage.config is None else (stage.config,)
    facts = RUNS[stage.kind](context, record, stage.inputs, *settings)
    record.finish(**facts, **context.provenance(stage.name))


def _engine(
    roles: Roles,
    tokenizer: Any,
    config: Any,
    num_updates: int,
    given: inputs.TrainingInputs,
    remote: RemoteSampler | None = None,
) -> LocalEngine:
    if given.shard:
        sharding.shard(roles)
    build = LocalEngine if remote is None else partial(RemoteEngine, remote=remote)
    return build(
        roles.recomputing() if given.recompute_layers else roles,
        tokenizer,
        optimization=config.optimization,
        total_steps=num_updates,
        tokens_per_microbatch=given.tokens_per_microbatch,
    )


def _holding(given: inputs.TrainingInputs) -> dict[str, Any]:
    """How models are loaded; what will be split begins on the CPU, for it does not fit elsewhere."""
    return {"dtype": given.base_dtype, "device": "cpu" if given.shard and ranks.world_size() > 1 else None}


def _run(context: Context, learner: loop.Learner, record: RunDirectory, num_steps: int, save_every: int) -> str:
    return loop.run(learner, record, num_steps=num_steps, save_every=save_every, progress=context.display.step)


def _answers(
    context: Context, model: str, prompts: Sequence[Prompt], sampling: Sampling, seed: int, dtype: Dtype
) -> Rollout:
    return answer(
        context.model(model),
        prompts,
        sampling,
        seed=seed,
        dtype=dtype,
        on_progress=_telling(context),
        note=context.display.note,
    )


def _telling(context: Context) -> Callable[[int, int], None]:
    return lambda done, total: context.display.step(done, total, {})


def _sampling(given: inputs.SamplingInputs) -> Sampling:
    return Sampling(
        num_samples=given.num_samples,
        max_new_tokens=given.max_new_tokens,
        max_prompt_tokens=given.max_prompt_tokens,
        temperature=given.temperature,
    )


def _reward(context: Context, reward: RewardInput) -> Reward:
    return load_reward(reward, model=context.model)


def _stop_rules(given: inputs.PPOInputs) -> list[StopRule]:
    rules: list[StopRule] = [Threshold(measure=name, at_least=bar) for name, bar in given.threshold.items()]
    if given.kl_budget is not None:
        rules.append(KLBudget(nats=given.kl_budget))
    return [*rules, given.alarm]


def _save_role(role: Role, tokenizer: Any, record: RunDirectory, reward: Mapping[str, Any] | None = None) -> None:
    """`model/`, whole or not at all, by rank 0; `reward` becomes its `reward.json`. All ranks call this."""
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


def _report(record: RunDirectory, report: Mapping[str, Any]) -> None:
    if ranks.rank() > 0:
        return
    write_json(record.path / "report.json", report)
    rows = list(record.metrics.rows())
    samples = report.get("samples") or newest_rows(record.samples.path, MAX_SAMPLES)
    write_report(record.path / "report.html", report, metrics=rows, samples=samples, title=record.name)


def _text_measure(reward: Reward, prompts: Sequence[Prompt], *rollouts: Rollout) -> Measure:
    """A reward as a measure of texts, scored once for all texts that will be asked for."""
    known: dict[tuple[str, str], float] = {}
    for rollout in rollouts:
        asked = [prompts[g] for g in rollout.group.tolist()]
        scores = shared_scores(reward, asked, rollout.as_completions())
        known |= {(p.id, t): float(s) for p, t, s in zip(asked, rollout.texts, scores, strict=True)}
    return lambda prompt, text: known[prompt.id, text]


def _perplexity(rollout: Rollout, logprobs: Tensor) -> float:
    """exp of the mean negative log-likelihood per token: how odd the texts are to the model of these logprobs."""
    return math.exp(-float((logprobs * rollout.mask).sum()) / rollout.num_tokens)


def _untempered(rollout: Rollout) -> Rollout:
    """The same tokens, to be scored by a model's own distribution."""
    return replace(rollout, temperature=1.0)


@torch.no_grad()
def _entropy(role: Role, rollout: Rollout, tokens_per_microbatch: int) -> MeasuredJSON:
    """Mean entropy in nats of the model's next-token distribution, at temperature 1, over all tokens of `rollout`."""
    entropy = torch.zeros(rollout.mask.shape, device=role.device)
    lengths = [len(p) + len(c) for p, c in zip(rollout.prompts, rollout.completions, strict=True)]
    for rows in ranks.microbatches(lengths, tokens_per_microbatch):
        prompts, completions = [rollout.prompts[i] for i in rows], [rollout.completions[i] for i in rows]
        outputs = policy_outputs(role, prompts, completions, width=entropy.shape[1])
        assert outputs.entropy is not None
        entropy[rows] = outputs.entropy
    ranks.add_up(entropy)
    group = rollout.group[:, None].expand_as(rollout.mask)
    return bootstrap_mean(entropy[rollout.mask].cpu().numpy(), group[rollout.mask].cpu().numpy()).as_json()


def _by_prompt(texts: Sequence[str], num_samples: int) -> list[list[str]]:
    return [list(texts[i : i + num_samples]) for i in range(0, len(texts), num_samples)]


def _side_by_side(
    prompts: Sequence[Prompt],
    before: Sequence[Sequence[str]],
    after: Sequence[Sequence[str]],
    measures: Mapping[str, Measure],
    judge: str | None,
) -> list[dict[str, Any]]:
    """The first answers of 12 prompts, with the judge's measure."""
    rows = []
    for prompt, old, new in islice(zip(prompts, before, after, strict=True), 12):
        row: dict[str, Any] = {"prompt": prompt.text, "before": old[0], "after": new[0]}
        if judge is not None:
            row |= {"before_score": measures[judge](prompt, old[0]), "after_score": measures[judge](prompt, new[0])}
        rows.append(row)
    return rows


def _present(role: Role | None) -> Role:
    if role is None:
        raise ConfigError("this stage needs a role that was not built")
    return role
