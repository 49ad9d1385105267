"""What the records of a run say of how a model came to be: the sections of its card, as lines of Markdown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from tuneful.data.formats import read_candidates
from tuneful.data.sources import hub_dataset, local
from tuneful.errors import DataError, RunError
from tuneful.evaluation.report import label, number
from tuneful.feedback.audiences import FEWEST_PEOPLE
from tuneful.feedback.judgments import read_judgments
from tuneful.pipeline.learner_inputs import ON_POLICY
from tuneful.pipeline.markdown import cell, code, counted, measured, place, told
from tuneful.records import Judgment, RaterKind
from tuneful.runs.lineage import Lineage, StageRecord, short_name, siblings, table_or_empty
from tuneful.runs.logs import read_log
from tuneful.runs.manifest import environment, file_hash

_MADE = {
    "generate": "{num_completions} completions of {num_prompts} prompts, sampled from {model}",
    "label": "{num_judgments} judgments by {raters} of the completions of {completions}",
    "collect": "{num_judgments} judgments of project {project} of the store {store}",
    "consensus": "{num_comparisons} comparisons that the judgments of {judgments} agree on",
    "sft": "supervised training of {model} on {num_demonstrations} demonstrations of {demonstrations}",
    "reward": "a reward model, trained from {model} on {num_comparisons} comparisons of {comparisons}",
    **{kind: kind.upper() + " on {model} with the reward {reward} and prompts of {prompts}" for kind in ON_POLICY},
    "ilql": "ILQL on {model} with {num_completions} scored completions",
    "dpo": "DPO on {model} with {num_comparisons} comparisons of {comparisons}",
    "orpo": "ORPO on {model} with {num_comparisons} comparisons of {comparisons}",
    "simpo": "SimPO on {model} with {num_comparisons} comparisons of {comparisons}",
    "kto": "KTO on {model} with {num_answers} judged answers of {preferences}",
}
"""What the stages of each kind did, in terms of their inputs and counts."""

_TRAINED_ON = (
    "prompts",
    "comparisons",
    "demonstrations",
    "preferences",
    "completions",
    "judgments",
    "normalise_prompts",
)
_SETTINGS = (
    "num_steps",
    "epochs",
    "prompts_per_step",
    "samples_per_prompt",
    "pairs_per_step",
    "answers_per_step",
    "clip",
    "loss",
    "beta",
    "label_noise",
    "odds_ratio_coef",
    "target_margin",
    "desirable_weight",
    "undesirable_weight",
    "kl_coef",
)
_VERDICTS = ("reliable", "unknown", "noisy", "random", "inverted")
_RATERS: Mapping[RaterKind, str] = {"human": "people", "ai": "AI raters", "simulated": "simulated raters"}


def stages(found: Lineage) -> list[str]:
    """A line on each stage, in order."""
    if not found.stages:
        return ["Not known: no record of a run (`run.json`) stands beside this model."]
    lines = []
    for number_, stage in enumerate(found.stages, start=1):
        known = {name: ", ".join(map(place, named)) for name in stage.inputs if (named := _named(stage, name))}
        counts = {**stage.report, **stage.manifest}
        known |= {name: number(value) for name, value in counts.items() if name.startswith("num_")}
        made = _MADE[stage.kind].format_map(_OrUnknown(known)) if stage.kind in _MADE else code(stage.kind)
        lines.append(f"{number_}. {code(stage.name)}: {made}.")
    return lines


def judgments(found: Lineage) -> list[str]:
    """Number, raters, agreement and instructions behind every consensus; and what has no judgments on record."""
    lines = []
    for stage in found.of_kind("consensus"):
        lines += [f"- {code(stage.name)} was reached on {_on_judgments(_judgments_of(stage))}", *_on_raters(stage)]
    for stage in found.of_kind("reward", "sft", "dpo", "orpo", "simpo", "kto"):
        names = ("comparisons", "demonstrations", "preferences")
        given = next((stage.inputs[name] for name in names if stage.inputs.get(name)), None)
        if isinstance(given, str) and not given.startswith("@"):
            lines.append(f"- Who judged or wrote {place(given)}, which {code(stage.name)} learned from, is not known.")
    return lines


def counts_of_groups(groups: Iterable[str]) -> dict[str, int]:
    """How many raters are in each group, as a card may tell it, the largest first.

    Groups of fewer than FEWEST_PEOPLE are put together as "other groups". Were these still too few, their number would
    follow from the total; so the smallest of the others joins them.
    """
    shown = Counter(groups).most_common()
    others = 0
    while shown and (shown[-1][1] < FEWEST_PEOPLE or 0 < others < FEWEST_PEOPLE):
        others += shown.pop()[1]
    return dict(shown) | ({"other groups": others} if others >= FEWEST_PEOPLE else {})


def rewards(found: Lineage) -> list[str]:
    """Every reward model with its accuracy beside what length alone gives; any other reward by its name."""
    lines = []
    for stage in found.of_kind("reward"):
        report = table_or_empty(stage.report.get("reward_model"))
        if not report:
            lines.append(f"- {code(stage.name)}: its stage measured no accuracy on held-out pairs.")
            continue
        accuracy = table_or_empty(report.get("heldout_accuracy"))
        prompts = f"{counted(accuracy.get('n'))} prompts"
        lines.append(f"- {code(stage.name)}: accuracy on held-out pairs {measured(accuracy)}, of {prompts}.")
        for name, value in table_or_empty(report.get("baselines")).items():
            lines.append(f"- {code(label(name))} on the same pairs: {measured(value)}.")
    given = found.maker.inputs.get("reward") if found.maker else None
    if isinstance(given, str) and not given.startswith("@"):
        lines.append(f"- The reward was {place(given)}.")
    return lines


def training(found: Lineage) -> list[str]:
    """Settings of the stage that made the model, how it ended, and what KL it spent."""
    maker = found.maker
    if maker is None:
        return []
    rate = table_or_empty(maker.config.get("optimization")).get("learning_rate")
    settings = {name: maker.config.get(name) for name in _SETTINGS} | {"learning_rate": rate}
    settings |= {f"lora.{name}": value for name, value in table_or_empty(maker.inputs.get("lora")).items()}
    listed = ", ".join(f"{code(name)} {number(value)}" for name, value in settings.items() if value is not None)
    lines = [f"- {code(maker.kind)}: {listed}.", f"- How it ended: {told(maker.report.get('ended'))}."]
    if "kl_coef" in maker.config:
        lines.append(f"- KL spent: {_kl_spent(maker)}.")
    if "alarm" in maker.report:
        alarm = table_or_empty(maker.report["alarm"])
        rang = f"rang at step {number(alarm.get('step'))}, {told(alarm.get('reason'))}" if alarm else "did not ring"
        lines.append(f"- The alarm for reward hacking {rang}.")
    return lines


def evaluation(found: Lineage) -> list[str]:
    """What the evaluations of this model in its run measured, with intervals."""
    lines: list[str] = []
    for stage in _stages_about(found, "evaluate", "after"):
        report, before = stage.report, place(str(stage.inputs.get("before")))
        prompts = f"{counted(report.get('num_prompts'))} test prompts"
        lines += [
            f"{code(stage.name)}: {before} before, this model after, on {prompts}; 95 % intervals over prompts.",
            "",
        ]
        lines += ["| measure | before | after | difference |", "|---|---|---|---|"]
        for name, change in table_or_empty(report.get("difference")).items():
            sides = (table_or_empty(report.get(side)).get(name) for side in ("before", "after"))
            lines.append(f"| {cell(label(name))} | {' | '.join(map(measured, (*sides, change)))} |")
        lines.append("")
        if "win_rate" in report:
            judge = stage.inputs.get("judge") or ("reward" if stage.inputs.get("reward") else "people")
            lines.append(f"- Win rate by {place(str(judge))}, ties one half: {measured(report['win_rate'])}.")
        lines += _by_people(table_or_empty(report.get("people")))
        kl = table_or_empty(report.get("kl"))
        lines += [f"- KL to the model before: {measured(kl)} nats per answer, {told(kl.get('estimator'))}.", ""]
    if not lines and found.stages:
        return ["Not measured: no stage of its run has evaluated this model."]
    return lines[:-1]


def raters_by_kind(counts: Mapping[str, Any]) -> str:
    """How many of each kind judged, as "3 people, 2 simulated raters". counts: by `RaterKind`."""
    return ", ".join(f"{number(counts[kind])} {name}" for kind, name in _RATERS.items() if counts.get(kind))


def _by_people(people: Mapping[str, Any]) -> list[str]:
    """What an evaluation was told by people who compared both models."""
    if not people:
        return []
    by = raters_by_kind(table_or_empty(people.get("num_labelers")))
    rates = f"{measured(people.get('win_rate'))}; by their consensus: {measured(people.get('win_rate_by_consensus'))}"
    lines = [f"- Win rate by {number(people.get('num_judgments'))} judgments of {by}, ties one half: {rates}."]
    for name, share in table_or_empty(people.get("agreement")).items():
        lines.append(f"- {code(label(name))} prefers what they prefer: {measured(share)}.")
    return lines


def limits(found: Lineage) -> list[str]:
    """What must not be read into the numbers, and what could not be followed."""
    lines = [] if _people_judged(found) else ["- No person judged this model's answers."]
    given = [judgment for stage in found.of_kind("consensus") for judgment in _judgments_of(stage) or ()]
    if given and all(judgment.rater_kind != "human" for judgment in given):
        lines.append("- No judgment that it came from is a person's: it shows what its raters prefer.")
    reward = found.maker.inputs.get("reward") if found.maker else None
    if reward and any(stage.inputs.get("reward") == reward for stage in _stages_about(found, "evaluate", "after")):
        lines.append(
            "- The reward in the table is what the model was tuned on; a higher one is no proof of better answers."
        )
    return [*lines, *(f"- Not followed: {code(sentence)}." for sentence in found.lost)]


def software(found: Lineage) -> list[str]:
    """Versions, the seed, and the hashes of what was read."""
    lines = [f"- Exported with {_versions(environment())}."]
    if found.maker is not None:
        recipe = table_or_empty(found.maker.manifest.get("recipe"))
        lines += [
            f"- Trained with {_versions(table_or_empty(found.maker.manifest.get('environment')))}.",
            f"- Seed {told(recipe.get('seed'))}.",
        ]
    read = {(short_name(name), str(digest)) for s in found.stages for name, digest in {**s.data, **s.models}.items()}
    return [*lines, *(f"- Read {code(name)}, SHA-256 {code(digest)}." for name, digest in sorted(read))]


def datasets(found: Lineage) -> list[str]:
    """Hub ids of the data sets that the stages trained on."""
    given = ((s, name) for s in found.stages for setting in _TRAINED_ON for name in _named(s, setting))
    ids = {hub_dataset(name, from_file=name in stage.data) for stage, name in given if not name.startswith("@")}
    return sorted(id_ for id_ in ids if id_ is not None)


class _OrUnknown(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return counted(None) if key.startswith("num_") else "something not known"


def _on_judgments(given: list[Judgment] | None) -> str:
    if not given:
        return "judgments that are no longer where they were: their number, raters and instructions are not known."
    replaced = {judgment.replaces for judgment in given}
    standing = [judgment for judgment in given if judgment.id not in replaced]
    raters: Counter[str] = Counter(kind for kind, _ in {(judgment.rater_kind, judgment.rater) for judgment in standing})
    by = raters_by_kind(raters)
    versions = sorted({judgment.instructions for judgment in standing} - {""})
    named = f"instructions {', '.join(map(code, versions))}" if versions else "their instructions are not known"
    return f"{number(len(standing))} judgments by {by}; {named}."


def _on_raters(stage: StageRecord) -> list[str]:
    verdicts = Counter(table_or_empty(rater).get("verdict") for rater in stage.report.get("labelers") or ())
    named = ", ".join(f"{number(verdicts[name])} {name}" for name in _VERDICTS if verdicts[name])
    groups = ", ".join(f"{code(name)} {number(count)}" for name, count in counts_of_groups(_groups_of(stage)).items())
    alpha = table_or_empty(stage.report.get("agreement")).get("alpha")
    return [
        f"- Krippendorff's alpha: {'not known' if alpha is None else number(alpha)}.",
        f"- Verdicts on the raters: {named or 'not known'}.",
        *([f"- Groups of raters: {groups}."] if groups else []),
    ]


def _named(stage: StageRecord, setting: str) -> tuple[str, ...]:
    """What an input of a stage names, a text or a list as of a consensus of several rounds; () for anything else."""
    value = stage.inputs.get(setting)
    return tuple(name for name in (value if isinstance(value, list) else [value]) if isinstance(name, str))


def _judgments_of(stage: StageRecord) -> list[Judgment] | None:
    """What a consensus was reached on; None when a file of it is gone or has changed."""
    found: list[Judgment] = []
    try:
        for given in _named(stage, "judgments"):
            file = stage.folder.parent / given[1:] / "judgments.jsonl" if given.startswith("@") else local(given)
            if file is None or (not given.startswith("@") and file_hash(file) != stage.data.get(given)):
                return None
            found += read_judgments(file)
    except DataError:
        return None
    return found


def _groups_of(stage: StageRecord) -> list[str]:
    """The group of each rater, where whoever labeled has left them."""
    groups: dict[str, str] = {}
    try:
        for given in _named(stage, "judgments"):
            file = stage.folder.parent / given.removeprefix("@") / "kinds.json"
            groups |= {rater: str(group) for rater, group in table_or_empty(json.loads(file.read_bytes())).items()}
    except (OSError, ValueError):
        return []
    return list(groups.values())


def _kl_spent(maker: StageRecord) -> str:
    try:
        rows = [row for row in read_log(maker.folder / "metrics.jsonl") if row.get("kind") == "evaluation"]
    except RunError:
        return "not known"
    if not rows or rows[-1].get("kl") is None:
        return "not known"
    return f"{number(rows[-1]['kl'])} nats per completion on dev prompts after step {number(rows[-1]['step'])}"


def _stages_about(found: Lineage, kind: str, setting: str) -> list[StageRecord]:
    """The stages of the run, of this kind, whose `setting` is this model."""
    if found.maker is None:
        return []
    named = f"@{found.maker.name}"
    return [stage for stage in siblings(found.maker) if stage.kind == kind and stage.inputs.get(setting) == named]


def _people_judged(found: Lineage) -> bool:
    """Whether people judged this model's answers, for an evaluation or for a consensus of the run."""
    for stage in _stages_about(found, "evaluate", "after"):
        if table_or_empty(table_or_empty(stage.report.get("people")).get("num_labelers")).get("human"):
            return True
    answers = {f"@{stage.name}": stage for stage in _stages_about(found, "generate", "model")}
    for stage in siblings(found.stages[-1]) if answers else ():
        # Ids, since of a consensus of several rounds some judgments are of other models' answers.
        own = {id_ for name in answers.keys() & _named(stage, "completions") for id_ in _completions_of(answers[name])}
        given = (_judgments_of(stage) or ()) if own else ()
        if any(judgment.rater_kind == "human" and own & set(judgment.completions) for judgment in given):
            return True
    return False


def _completions_of(stage: StageRecord) -> set[str]:
    """The ids of what a stage sampled; none where the file is gone."""
    try:
        items = read_candidates(stage.folder / "completions.jsonl")
    except DataError:
        return set()
    return {completion.id for item in items for completion in item.completions}


def _versions(versions: Mapping[str, Any]) -> str:
    names = ("tuneful", "python", "torch", "transformers", "peft")
    return ", ".join(f"{name} {code(versions[name])}" for name in names if versions.get(name)) or "unknown versions"
