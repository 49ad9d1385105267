"""The stages: each reads its inputs through the context, works, and leaves what it made in its run directory.

Those that train stand in training.py.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from tuneful.data.completions import candidates_row
from tuneful.data.formats import read_candidates
from tuneful.data.jsonl import write_jsonl
from tuneful.data.preferences import comparison_row
from tuneful.data.splits import Purpose
from tuneful.engines import ranks
from tuneful.engines.local import LocalEngine
from tuneful.errors import ConfigError, DataError
from tuneful.evaluation.best_of_n import best_of_n_curve
from tuneful.evaluation.comparison import Measure, compare_models
from tuneful.evaluation.intervals import MeasuredJSON, bootstrap_mean
from tuneful.evaluation.text_measures import eos_share, num_words
from tuneful.feedback.consensus import consensus
from tuneful.feedback.criteria import of_one
from tuneful.feedback.dataset import of_audience
from tuneful.feedback.decisions import decisions
from tuneful.feedback.export import agreed_comparisons
from tuneful.feedback.implied import orders
from tuneful.feedback.items import candidates
from tuneful.feedback.judgments import read_judgments, write_judgments
from tuneful.feedback.pages import groups_of
from tuneful.feedback.projects import create_project, find_project, judgments, publish_instructions
from tuneful.feedback.recording import record as put_in
from tuneful.feedback.settling import FILE as DECISIONS
from tuneful.feedback.settling import decision_row, decisions_beside, settle
from tuneful.feedback.store import Store
from tuneful.generation.rollout import Rollout
from tuneful.generation.sampling import Sampling, fold
from tuneful.models.forward import policy_outputs
from tuneful.models.loading import load_language_model, load_tokenizer
from tuneful.models.roles import Role, Roles
from tuneful.pipeline import inputs, learner_inputs, memory, on_policy, training
from tuneful.pipeline.accuracy import policy_accuracy, reward_accuracy
from tuneful.pipeline.answers import note_waves, stage_answers, write_answers
from tuneful.pipeline.context import Context
from tuneful.pipeline.guided import load_policy
from tuneful.pipeline.outcome import Facts, write_stage_report
from tuneful.pipeline.preferred import preferred
from tuneful.pipeline.recipe import Stage
from tuneful.pipeline.rows import held_out_comparisons, rater_rows
from tuneful.records import Prompt
from tuneful.rewards.load import load_reward
from tuneful.rewards.reward import Reward
from tuneful.rollouts.collect import shared_scores
from tuneful.runs.directory import RunDirectory

PURPOSES: Mapping[str, Purpose] = {"reward": "train", "rl": "train", "dev": "stop", "test": "report"}
"""What the prompts of each split may be read for."""

_PAGE = 10_000
"""Bytes that a report's page has at least."""


def generate(context: Context, record: RunDirectory, given: inputs.GenerateInputs) -> Facts:
    """`completions.jsonl`: num_samples completions of every prompt, each with its id."""
    purpose = PURPOSES[given.split]
    prompts = context.prompts(given.prompts).read(given.split, purpose=purpose, stage=record.name)[given.offset :]
    prompts = prompts[: given.limit]
    if not prompts:
        raise ConfigError(f"{record.name}: offset = {given.offset} passes over all prompts of the {given.split} split")
    rollout = stage_answers(
        context, given.model, prompts, _sampling(given), seed=context.seed_of("generate"), dtype=given.dtype
    )
    write_answers(record.path / "completions.jsonl", prompts, rollout, given.model, force=True)
    return {"num_prompts": len(prompts), "num_completions": len(rollout)}


def label(context: Context, record: RunDirectory, given: inputs.LabelInputs) -> Facts:
    """`judgments.jsonl`: rankings of the completions; `judgments.db`, the store that holds them, with a place in every
    item for one person more (`tuneful web --store`); `kinds.json` when a simulation knows who is who."""
    judged = read_candidates(context.file(given.completions, "completions.jsonl"))
    labeling = context.raters(given.raters)(judged, given.raters_per_item, context.seed, context.round)
    for left in record.path.glob("judgments.db*"):  # of a run that was killed here
        left.unlink()
    store = Store.open(record.path / "judgments.db")
    project = create_project(store, record.name, now=time.time())
    put_in(store, project, judged, labeling.judgments, room=1, now=time.time())
    if labeling.instructions:
        publish_instructions(store, project, labeling.instructions, now=time.time())
    write_judgments(record.path / "judgments.jsonl", judgments(store, project), force=True)
    store.close()
    if labeling.kinds:
        (record.path / "kinds.json").write_text(json.dumps(dict(labeling.kinds), indent=2), encoding="utf-8")
    return {"num_judgments": len(labeling.judgments)}


def collect(context: Context, record: RunDirectory, given: inputs.CollectInputs) -> Facts:
    """`judgments.jsonl` and `completions.jsonl`: what was judged in a project of a store, as it is at this moment, by
    its own criterion where there are several; `decisions.jsonl`: what its lead settled, if anything."""
    store = Store.open(given.store, make=False)
    project = find_project(store, given.project)
    with store.snapshot() as then:
        own, _ = of_one(judgments(then, project.id), project.criteria)
        said = of_audience(own, given.audience, groups_of(then, project.id))
        offered = candidates(then, project.id)
        made = [] if given.audience else decisions(then, project.id)  # an audience speaks for itself
    if len(said) < given.fewest:
        raise DataError(
            f'{store}: project "{project.name}" has {len(said)} judgments, and fewest = {given.fewest}; go on labeling '
            f"(tuneful web --store {store}), then run this again"
        )
    write_judgments(record.path / "judgments.jsonl", said, force=True)
    write_jsonl(record.path / "completions.jsonl", map(candidates_row, offered), force=True)
    (record.path / DECISIONS).unlink(missing_ok=True)  # of a run that was killed here
    if made:
        write_jsonl(record.path / DECISIONS, map(decision_row, made))
    store.close()
    return {"num_judgments": len(said), "num_decisions": len(made)}


def reach_consensus(context: Context, record: RunDirectory, given: inputs.ConsensusInputs) -> Facts:
    """`comparisons.jsonl` with p and weight per pair; `report.json` with a verdict on every rater. Items stand as a
    `decisions.jsonl` beside the judgments has them, where there is one."""
    judged = [item for path in context.files(given.completions, "completions.jsonl") for item in read_candidates(path)]
    said = list(context.files(given.judgments, "judgments.jsonl"))
    found = consensus(orders(j for path in said for j in read_judgments(path)))
    settled = settle(found, [one for path in said for one in decisions_beside(path)])
    comparisons = agreed_comparisons(settled, judged)
    write_jsonl(record.path / "comparisons.jsonl", map(comparison_row, comparisons), force=True)
    counts = {"num_comparisons": len(comparisons)}
    write_stage_report(record, {"labelers": rater_rows(found), "agreement": {"alpha": found.alpha}, **counts})
    return counts


def evaluate(context: Context, record: RunDirectory, given: inputs.EvaluateInputs) -> Facts:
    """`report.json` and `answers.jsonl`: both models on the same test prompts, with paired intervals; `judgments.jsonl`
    with what people said of the two, where a project of theirs is named.

    Perplexity is that of each side's answers under the model `before`, entropy that of each model on its own answers;
    both are of the models themselves, at temperature 1, whatever the answers were sampled at.
    """
    prompts = context.prompts(given.prompts).read("test", purpose="report", stage=record.name)
    record.refuse_full(max(_PAGE, sum(len(prompt.text) for prompt in prompts)))
    people = None
    if given.people is not None:  # first of all, since it may say that too few have judged yet
        people = preferred(context, given, {prompt.id for prompt in prompts})
        write_judgments(record.path / "judgments.jsonl", people.judgments, force=True)
    prompts = prompts[: given.limit]
    sampling = _sampling(given)
    before = stage_answers(
        context, given.before, prompts, sampling, seed=fold(context.seed, "before"), dtype=given.dtype
    )
    after_path = context.model(given.after)
    tokenizer = load_tokenizer(after_path)
    policy, guide = load_policy(after_path, dtype=given.dtype)
    reference = Role("reference", load_language_model(context.model(given.before), dtype=given.dtype))
    engine = LocalEngine(Roles(policy=policy, reference=reference), tokenizer)
    engine.guide = guide
    note_waves(engine, context.display.note)
    after = engine.sample(prompts, sampling, seed=fold(context.seed, "after"), on_progress=context.progress)
    kl, estimator = engine.kl(after)

    measures: dict[str, Measure] = {"length": lambda _, text: float(num_words(text))}
    named = {name: getattr(given, name) for name in ("reward", "second_reward", "toxicity")}
    rewards = {name: load_reward(one, model=context.model) for name, one in named.items() if one is not None}
    for name, reward in rewards.items():
        measures[name] = _text_measure(reward, prompts, before, after)
    measures |= {name.partition(":")[2]: context.measure(name) for name in given.measures}
    old, new = _by_prompt(before.texts, given.num_samples), _by_prompt(after.texts, given.num_samples)
    judge = given.win_judge if given.win_judge in measures else None
    report = compare_models(prompts, old, new, measures, judge=judge, seed=context.seed)
    if people is not None:
        report["people"] = people.as_report({name: one for name, one in rewards.items() if name != "toxicity"})
        if given.win_judge == "people":
            report["win_rate"] = report["people"]["win_rate"]
    report["kl"] = bootstrap_mean(kl.cpu().numpy(), after.group.cpu().numpy()).as_json() | {"estimator": estimator}
    # At temperature 1 the sampler's logprobs are the model's own.
    logprobs = before.logprobs if sampling.temperature == 1 else engine.score("reference", _untempered(before))
    report["before"]["perplexity"] = _perplexity(before, logprobs)
    report["after"]["perplexity"] = _perplexity(after, engine.score("reference", _untempered(after)))
    for side, role, rollout in (("before", reference, before), ("after", policy, after)):
        if side == "after" and guide is not None:
            report[side]["entropy"] = _sampled_entropy(rollout)
        else:
            report[side]["entropy"] = _entropy(role, rollout, engine.tokens_per_microbatch)
        report[side]["eos_share"] = eos_share(rollout.finish)
        report[side].setdefault("toxicity", None)  # nothing here knows toxicity unless a measure of that name does
    rows = zip(prompts, old, new, strict=True)
    write_jsonl(
        record.path / "answers.jsonl",
        ({"prompt": p.as_json(), "before": b, "after": a} for p, b, a in rows),
        force=True,
    )
    report["samples"] = _side_by_side(prompts, old, new, measures, judge)
    write_stage_report(record, report)
    read = {} if people is None else {"people": people.source(record.path / "judgments.jsonl")}
    return {"num_prompts": len(prompts), **read}


def keep_best(context: Context, record: RunDirectory, given: inputs.BestOfNInputs) -> Facts:
    """`report.json`: measures of the best of n answers for n = 1, 2, 4 … num_samples; `completions.jsonl`: the best of
    all of each prompt."""
    prompts = context.prompts(given.prompts).read(given.split, purpose=PURPOSES[given.split], stage=record.name)
    prompts = prompts[: given.limit]
    memory.begin_peaks(record)
    seed = context.seed_of("best_of_n")
    rollout = stage_answers(context, given.model, prompts, _sampling(given), seed=seed, dtype=given.dtype)
    named = {name: getattr(given, name) for name in ("reward", "second_reward", "toxicity")}
    measures: dict[str, Measure] = {"length": lambda _, text: float(num_words(text))}
    for name, one in named.items():
        if one is not None:
            measures[name] = _text_measure(load_reward(one, model=context.model), prompts, rollout)
    measures |= {name.partition(":")[2]: context.measure(name) for name in given.measures}
    texts = _by_prompt(rollout.texts, given.num_samples)
    values = {
        name: [[measure(prompt, text) for text in row] for prompt, row in zip(prompts, texts, strict=True)]
        for name, measure in measures.items()
    }
    memory.record_peak(record)
    sizes = [2**k for k in range(given.num_samples.bit_length()) if 2**k < given.num_samples]
    curve = best_of_n_curve(values["reward"], values, [*sizes, given.num_samples], seed=context.seed)
    best = [
        place * given.num_samples + max(range(len(row)), key=lambda k: (row[k], k))  # as `expected_best` takes ties
        for place, row in enumerate(values["reward"])
    ]
    write_answers(record.path / "completions.jsonl", prompts, rollout.rows(best), given.model, force=True)
    write_stage_report(record, {"best_of_n": curve})
    return {"num_prompts": len(prompts), "num_completions": len(prompts)}


def measure_accuracy(context: Context, record: RunDirectory, given: inputs.AccuracyInputs) -> Facts:
    """`report.json`: how often a reward, or a model's log-probability, prefers the chosen answers."""
    held_out = held_out_comparisons(context, given.comparisons, stage=record.name)
    report: dict[str, Any] = {"num_comparisons": len(held_out)}
    if given.reward is not None:
        report["reward_model"] = reward_accuracy(load_reward(given.reward, model=context.model), held_out)
    if given.model is not None:
        model = context.model(given.model)
        report["log_probability"] = policy_accuracy(model, held_out, on_progress=context.progress)
    write_stage_report(record, report)
    return {"num_comparisons": len(held_out)}


def compare_audiences(context: Context, record: RunDirectory, given: inputs.AudiencesInputs) -> Facts:
    """`report.json`: a table of how often each reward prefers what each audience prefers."""
    held_out = {name: held_out_comparisons(context, name, stage=record.name) for name in given.comparisons}
    table: dict[str, dict[str, MeasuredJSON]] = {}
    for name in given.rewards:
        reward = load_reward(name, model=context.model)
        table[name] = {of: reward_accuracy(reward, pairs)["heldout_accuracy"] for of, pairs in held_out.items()}
        told = ", ".join(f"{found['mean']:.3f} on {of}" for of, found in table[name].items())
        context.display.note(f"accuracy of {name}: {told}")
    write_stage_report(record, {"audiences": table})
    return {"num_comparisons": sum(map(len, held_out.values()))}


Run = Callable[..., Facts]

RUNS: dict[str, Run] = {
    "generate": generate,
    "label": label,
    "collect": collect,
    "consensus": reach_consensus,
    "sft": training.train_sft,
    "reward": training.train_reward,
    **dict.fromkeys(learner_inputs.ON_POLICY, on_policy.train_on_policy),
    "dpo": training.train_dpo,
    "orpo": training.train_orpo,
    "simpo": training.train_simpo,
    "kto": training.train_kto,
    "ilql": training.train_ilql,
    "best_of_n": keep_best,
    "evaluate": evaluate,
    "accuracy": measure_accuracy,
    "audiences": compare_audiences,
}
"""What runs each kind of stage."""

WITHOUT_MODELS = {"label", "collect", "consensus"}
"""Stages that rank 0 runs alone."""


def run_stage(context: Context, stage: Stage, record: RunDirectory) -> None:
    """Run one stage into its directory, which then says what was done and which prompts were read for it."""
    settings = () if stage.config is None else (stage.config,)
    facts = RUNS[stage.kind](context, record, stage.inputs, *settings)
    record.finish(**facts, **context.provenance(stage.name))


def _sampling(given: inputs.SamplingInputs) -> Sampling:
    return Sampling(
        num_samples=given.num_samples,
        max_new_tokens=given.max_new_tokens,
        max_prompt_tokens=given.max_prompt_tokens,
        temperature=given.temperature,
    )


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
    return _mean_over_tokens(ranks.add_up(entropy), rollout)


def _sampled_entropy(rollout: Rollout) -> MeasuredJSON:
    """The same of what was drawn from, by its tokens alone: the mean of minus their logprobs."""
    return _mean_over_tokens(-rollout.sampled_logprobs, rollout)


def _mean_over_tokens(numbers: Tensor, rollout: Rollout) -> MeasuredJSON:
    group = rollout.group[:, None].expand_as(rollout.mask)
    return bootstrap_mean(numbers[rollout.mask].cpu().numpy(), group[rollout.mask].cpu().numpy()).as_json()


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
