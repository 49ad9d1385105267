"""`tuneful compare` and `tuneful trace` from outside: what they print."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.test_commands import tuneful
from tests.pipeline.recipes import WORDS, stage_toml
from tuneful.data.jsonl import write_jsonl


@pytest.fixture(scope="module")
def compared(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Where two seeds of PPO and REINFORCE lie, and what the command printed."""
    folder = tmp_path_factory.mktemp("compare")
    prompts = folder / "prompts.jsonl"
    write_jsonl(prompts, ({"prompt": f"{one} {other}"} for one in WORDS for other in WORDS[:3]))
    asked = {"prompts": prompts, "max_new_tokens": 5}
    steps = {"num_steps": 2, "prompts_per_step": 4, "evaluate_every": 1, "evaluate_prompts": 3, "save_every": 1}
    text = "splits = { reward = 0.3, rl = 0.3, dev = 0.2, test = 0.2 }\n"
    for kind in ("ppo", "reinforce"):
        text += stage_toml(kind, algorithm=kind, model=tiny_model_dir, reward="shorter", epochs=1, **asked, **steps)
        judged = {"before": tiny_model_dir, "after": f"@{kind}", "limit": 4, "num_samples": 2, "reward": "shorter"}
        text += stage_toml(f"judge_{kind}", do="evaluate", **judged, **asked)
    (folder / "two.toml").write_text(text)
    out = folder / "out"
    done = tuneful("compare", folder / "two.toml", "--seeds", 2, "--seed", 5, "--out", out)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_compare_prints_a_row_for_each_learner_and_names_its_page(compared: tuple[Path, str]) -> None:
    out, printed = compared
    head, *rows, last = printed.splitlines()[-4:]
    assert head.split()[:3] == ["gain", "in", "reward"]
    assert {row.split()[0] for row in rows} == {"ppo", "reinforce"}
    assert all(row.split()[-1] == "2" for row in rows)
    assert last == f"the report is {out / 'report.html'}"
    assert (out / "two" / "seed-6" / "ppo" / "model").is_dir()


def test_compare_again_reads_what_is_there(compared: tuple[Path, str]) -> None:
    out, _ = compared
    done = tuneful("compare", out.parent / "two.toml", "--seeds", 2, "--seed", 5, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((out / "report.json").read_text())


def test_trace_prints_a_line_for_each_token(compared: tuple[Path, str]) -> None:
    out, _ = compared
    run = out / "two" / "seed-5"
    done = tuneful("trace", run, "--stage", "ppo", "--sample", 2)
    assert done.returncode == 0, done.stderr
    shown = done.stdout.splitlines()
    place = next(number for number, line in enumerate(shown) if line.startswith("token"))
    assert shown[place].split() == "token p p ref KL entropy reward value advantage ratio clip".split()
    as_json = json.loads(tuneful("trace", run, "--stage", "ppo", "--sample", 2, "--json").stdout)
    assert len(shown) - place - 1 == len(as_json["tokens"]) > 0
    assert f"score {as_json['score']:+.3f}" in done.stdout


def test_trace_of_a_run_with_two_learners_asks_which(compared: tuple[Path, str]) -> None:
    out, _ = compared
    done = tuneful("trace", out / "two" / "seed-5")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("say --stage ppo or reinforce")
