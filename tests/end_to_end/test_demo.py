"""The demo as a user runs it: the whole road, offline, and every line it must show."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MEASURED = {"mean", "interval", "n"}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}
    environment["TUNEFUL_CACHE"] = str(folder / "cache")
    command = [sys.executable, "-m", "tuneful", "demo", "--out", str(folder / "run"), "--seed", "0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def report(out: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((out / "report.json").read_text())
    return result


def test_everything_required_is_there(report: dict[str, Any]) -> None:
    """The bars are written out here once more, so that the demo cannot lower its own."""
    assert report["recovered"] >= 0.6
    assert report["difference"]["true_utility"]["interval"][0] > 0
    assert report["difference"]["toxicity"]["interval"][1] < 0
    assert report["difference"]["filler"]["mean"] <= 1
    assert report["win_rate"]["mean"] >= 0.75
    assert report["kl_at_start"] < 1e-3
    assert 0.5 <= report["kl"]["mean"] <= 6
    assert report["alarm"] is None
    assert all(line["passed"] for line in report["required"])
    verdicts = {(r["kind"], r["verdict"]) for r in report["labelers"]}
    assert {("random", "random"), ("upside-down", "inverted"), ("careful", "reliable")} <= verdicts
    assert not verdicts & {(k, v) for k in ("careful", "hasty", "tone-only") for v in ("random", "inverted")}
    assert ("careful", "noisy") not in verdicts


def test_the_report_has_its_shape(report: dict[str, Any]) -> None:
    assert {"base", "samples", "labels", "consensus", "reward", "ppo", "evaluate", "total"} <= report["seconds"].keys()
    assert report["reward_model"]["heldout_accuracy"].keys() == MEASURED
    assert {r["kind"] for r in report["labelers"]} == {"careful", "hasty", "random", "upside-down", "tone-only"}
    for side in ("before", "after", "difference"):
        for name in ("true_utility", "toxicity", "length", "filler"):
            assert report[side][name].keys() == MEASURED
            assert report[side][name]["n"] >= 300


def test_reports_are_on_prompts_no_stage_has_used(out: Path) -> None:
    from tuneful.data.files import read_rows
    from tuneful.data.formats import read_candidates
    from tuneful.records import Prompt

    reads = {
        "samples": {("demo:prompts", "reward", "train")},
        "reward": {("@consensus", "reward", "train"), ("demo:prompts", "rl", "train")},
        "ppo": {("demo:prompts", "rl", "train"), ("demo:prompts", "dev", "stop")},
        "evaluate": {("demo:prompts", "test", "report")},
    }
    used = {item.prompt.id for item in read_candidates(out / "samples" / "completions.jsonl")}
    for stage, expected in reads.items():
        record = json.loads((out / stage / "run.json").read_text())
        assert {(r["source"], r["split"], r["purpose"]) for r in record["reads"]} == expected
        learned_from = {split for _, split, purpose in expected if purpose != "report"}
        used |= {prompt for prompt, split in record["splits"].items() if split in learned_from}
    tested = {Prompt.from_json(row.fields["prompt"]).id for row in read_rows(out / "evaluate" / "answers.jsonl")}
    assert len(tested) >= 300
    assert not tested & used


def test_the_page_stands_alone(out: Path) -> None:
    page = (out / "report.html").read_text()
    assert "://" not in page
    assert page.count("<svg") >= 4
