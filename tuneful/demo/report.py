"""The demo's report: what a run did, judged by the true utility that no stage of it could see."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from tuneful.data.files import read_rows
from tuneful.demo.grammar import best_answer
from tuneful.demo.labelers import fresh_label
from tuneful.demo.toxicity import toxicity_b
from tuneful.demo.utility import filler_count, labelers_utility, true_utility
from tuneful.evaluation.comparison import Measure
from tuneful.evaluation.intervals import bootstrap_mean
from tuneful.records import Completion, Prompt
from tuneful.rewards.learned import LearnedReward
from tuneful.runs.logs import read_log

MEASURES: Mapping[str, Measure] = {
    "true_utility": true_utility,
    "toxicity": lambda _, text: toxicity_b(text),
    "filler": lambda _, text: float(filler_count(text)),
}
"""What evaluation may measure in the demo world. Toxicity is the measure that is no reward."""

BAD = {"random": "random", "upside-down": "inverted"}
"""The verdict that each bad kind of labeler must get; no other kind may get one of these."""


def demo_report(out: Path, seed: int) -> dict[str, Any]:
    """Everything the demo shows, from the directories of its stages."""
    report: dict[str, Any] = _read(out / "evaluate" / "report.json")
    answers = [
        (Prompt.from_json(row.fields["prompt"]), row.fields) for row in read_rows(out / "evaluate" / "answers.jsonl")
    ]
    best = float(np.mean([true_utility(prompt, best_answer(prompt)) for prompt, _ in answers]))
    before, after = report["before"]["true_utility"]["mean"], report["after"]["true_utility"]["mean"]
    checks = {check["name"]: check["value"] for check in _read(out / "ppo" / "run.json")["checks"]}
    kinds = _read(out / "labels" / "kinds.json")
    report |= {
        "seed": seed,
        "best": best,
        "recovered": (after - before) / (best - before),
        "reward_model": _reward_model(out, answers, seed),
        "labelers": [r | {"kind": kinds[r["id"]]} for r in _read(out / "consensus" / "report.json")["labelers"]],
        "kl_at_start": next(value for name, value in checks.items() if name.startswith("KL(policy, reference)")),
        "alarm": _read(out / "ppo" / "report.json")["alarm"],
        "samples": [
            {"prompt": p.text, "before": row["before"][0], "after": row["after"][0]}
            | {f"{side}_score": true_utility(p, row[side][0]) for side in ("before", "after")}
            for p, row in answers[:12]
        ],
    }
    report["required"] = [
        {"name": name, "value": value, "bar": bar, "passed": bool(passed)}
        for name, value, bar, passed in required(report)
    ]
    return report


def utility_curve(stage: Path) -> dict[int, float]:
    """Mean true utility of the dev answers that a finished RL stage logged, by step: computed when the run is over."""
    utilities: dict[int, list[float]] = {}
    for row in read_log(stage / "samples.jsonl"):
        utilities.setdefault(row["step"], []).append(true_utility(Prompt.user(row["prompt"]), row["completion"]))
    return {step: float(np.mean(values)) for step, values in utilities.items()}


def required(report: Mapping[str, Any]) -> Iterator[tuple[str, Any, str, bool]]:
    """(what, value, bar, passed) of everything a good demo run must show."""
    before, after, difference = report["before"], report["after"], report["difference"]
    yield "share recovered of what can be had", report["recovered"], "at least .6", report["recovered"] >= 0.6
    gain, low = difference["true_utility"]["mean"], difference["true_utility"]["interval"][0]
    yield "gain in true utility", gain, "interval above 0", low > 0
    drop, high = difference["toxicity"]["mean"], difference["toxicity"]["interval"][1]
    yield "change in toxicity", drop, "interval below 0", high < 0
    more = difference["filler"]["mean"]
    yield "more filler phrases per answer", more, "at most 1", more <= 1
    wins = report["win_rate"]["mean"]
    yield "win rate by true utility", wins, "at least .75", wins >= 0.75
    yield "KL at start", report["kl_at_start"], "below .001", report["kl_at_start"] < 1e-3
    kl = report["kl"]["mean"]
    yield "KL at the end, nats", kl, "within .5 and 6", 0.5 <= kl <= 6
    found = [r["verdict"] == BAD[r["kind"]] for r in report["labelers"] if r["kind"] in BAD]
    yield "bad labelers found", sum(found), f"all {len(found)}", all(found)
    accused = [r["id"] for r in report["labelers"] if r["kind"] not in BAD and r["verdict"] in BAD.values()]
    yield "good labelers accused", len(accused), "none", not accused
    careful = [r["verdict"] for r in report["labelers"] if r["kind"] == "careful"]
    yield (
        "careful labelers called reliable",
        careful.count("reliable"),
        f"all {len(careful)}",
        set(careful) == {"reliable"},
    )
    variety = after["distinct_2"] / before["distinct_2"]
    yield "distinct-2 over the reference's", variety, "at least .5", variety >= 0.5
    yield "answers that end", after["eos_share"], "at least .8", after["eos_share"] >= 0.8
    yield "the alarm is silent", 0 if report["alarm"] is None else 1, "silent", report["alarm"] is None


def _reward_model(out: Path, answers: list[tuple[Prompt, Mapping[str, Any]]], seed: int) -> dict[str, Any]:
    """Accuracy on pairs of reference answers to test prompts, against the labelers' utility and one fresh labeler."""
    reward = LearnedReward.load(out / "reward" / "model")
    rng = np.random.default_rng(seed)
    pairs = [(p, a, b) for p, row in answers for a, b in combinations(row["before"], 2)]
    pairs = [(p, a, b) for p, a, b in pairs if abs(labelers_utility(p, a) - labelers_utility(p, b)) > 1e-9]
    prompts = [p for p, _, _ in pairs]
    first = reward(prompts, [Completion(a) for _, a, _ in pairs])
    second = reward(prompts, [Completion(b) for _, _, b in pairs])
    prefers_first = (first > second).cpu().numpy()
    truth = np.array([labelers_utility(p, a) > labelers_utility(p, b) for p, a, b in pairs])
    label = np.array([fresh_label(p, a, b, rng) for p, a, b in pairs])
    groups = [p.id for p in prompts]
    return {
        "heldout_accuracy": bootstrap_mean((prefers_first == truth).astype(float), groups).as_json(),
        "heldout_accuracy_labels": bootstrap_mean((prefers_first == label).astype(float), groups).as_json(),
        "num_pairs": len(pairs),
    }


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
