"""`tuneful translate` from outside: the recipe, the table, and what is never overwritten."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tuneful.cli.main import main
from tuneful.pipeline.recipe import load_recipe

SETTINGS = """
sft_model_path: small
reward_model_path: judge
kl_coef: 0.1
total_episodes: 1024
logging_steps: 25
kl_estimator: k3
made_up: [1, 2]
"""


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "ppo.yaml"
    path.write_text(SETTINGS, encoding="utf-8")
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit status of a command."""
    monkeypatch.setattr(sys, "argv", ["tuneful", "translate", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_it_writes_a_recipe_and_tells_what_has_no_place(
    settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made" / "recipe.toml"
    assert run(monkeypatch, settings, "--out", out, "--devices", 4) == 0
    [stage] = load_recipe(out).stages
    assert (stage.config.kl_coef, stage.config.prompts_per_step, stage.config.num_steps) == (0.1, 32, 32)
    printed = capsys.readouterr().out
    assert "  kl_coef = 0.1 → kl_coef = 0.1\n" in printed
    assert "  cliprange = 0.2 (default) → clip = 0.2\n" in printed
    _, learned, unknown, other = (part.partition("\n")[2] for part in _parts(printed))
    assert 'kl_estimator = "k3"' in learned
    assert "made_up = [1, 2]" in unknown
    assert "logging_steps = 25" in other


def _parts(printed: str) -> list[str]:
    """The table, and what follows each of the titles of settings without counterpart."""
    titles = (
        "without counterpart, and it changes what",
        "unknown, and so left",
        "without counterpart, and it changes no",
    )
    places = [0, *(printed.index(title) for title in titles), len(printed)]
    return [printed[begin:end] for begin, end in pairwise(places)]


def test_it_does_not_overwrite(
    settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "recipe.toml"
    out.write_text("mine", encoding="utf-8")
    assert run(monkeypatch, settings, "--out", out) == 2
    assert "exists already" in capsys.readouterr().err
    assert out.read_text(encoding="utf-8") == "mine"
    assert run(monkeypatch, settings, "--out", out, "--force") == 0
    assert load_recipe(out).stages


def test_json_says_the_same(
    settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, settings, "--out", tmp_path / "recipe.toml", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["tool"], told["kind"], told["algorithm"]) == ("TRL", "PPOConfig", "ppo")
    assert {"theirs": "kl_coef = 0.1", "ours": "kl_coef", "value": 0.1, "note": "", "pending": False} in told[
        "counterparts"
    ]
    groups = {one["name"]: one["group"] for one in told["lost"]}
    assert groups["made_up"] == "unknown"
    assert groups["kl_estimator"] == "learned"
    assert groups["logging_steps"] == "other"


def test_a_mistake_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.yaml").write_text("{kl_coef: high}", encoding="utf-8")
    assert run(monkeypatch, tmp_path / "x.yaml", "--out", tmp_path / "recipe.toml") == 2
    assert capsys.readouterr().err.splitlines() == [
        f'ConfigError: {tmp_path / "x.yaml"}: kl_coef = "high": write a number'
    ]
    assert not (tmp_path / "recipe.toml").exists()
