"""A recipe that has its policy sampled by a server: the same run as without, also when the server dies on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from tests.pipeline.recipes import WORDS, stage_toml
from tests.serving.process import Served, relay
from tuneful import servers
from tuneful.data.jsonl import write_jsonl
from tuneful.errors import ConfigError, GenerationError
from tuneful.pipeline.context import Silent
from tuneful.pipeline.recipe import load_recipe
from tuneful.pipeline.run import run_recipe

REWARD = """
import os, signal, torch
from pathlib import Path

def score(prompts, completions):
    victim = Path(__file__).with_name("victim")
    if len(prompts) == 4 and victim.exists():
        calls = Path(__file__).with_name("calls")
        calls.write_text(calls.read_text() + "x" if calls.exists() else "x")
        if len(calls.read_text()) == 2:
            os.kill(int(victim.read_text()), signal.SIGKILL)
    return torch.tensor([float(len(set(c.tokens))) for c in completions])
"""


@pytest.fixture
def recipe(base_dir: Path, tmp_path: Path) -> Path:
    """PPO of 3 steps of 4 answers, each step saved. Its reward kills the process named in `victim` in step 2."""
    prompts = [{"prompt": [{"role": "user", "content": f"{a} {b}"}]} for a in WORDS for b in WORDS[:2]]
    write_jsonl(tmp_path / "prompts.jsonl", prompts)
    (tmp_path / "reward.py").write_text(REWARD)
    stage = stage_toml(
        "ppo",
        algorithm="ppo",
        model=base_dir,
        prompts=tmp_path / "prompts.jsonl",
        reward=f"{tmp_path}/reward.py:score",
        lora={"rank": 2},
        optimization={"learning_rate": 0.01},
        num_steps=3,
        prompts_per_step=4,
        max_new_tokens=6,
        save_every=1,
        evaluate_every=2,
        evaluate_prompts=3,
    )
    path = tmp_path / "recipe.toml"
    path.write_text("splits = { rl = 0.5, dev = 0.4, test = 0.1 }\n" + stage)
    return path


def test_a_run_through_a_server_that_is_killed(
    recipe: Path, base_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "FIRST_WAIT", 0.01)
    run_recipe(load_recipe(recipe), tmp_path / "here")
    first = Served(base_dir)
    asked = load_recipe(recipe, [f'ppo.sampler="{first.url}"'])
    (tmp_path / "victim").write_text(str(first.process.pid))
    with pytest.raises(GenerationError, match=r"does not answer, asked 6 times for .*; is it running\?"):
        run_recipe(asked, tmp_path / "there")
    first.kill()
    assert not (tmp_path / "there/ppo/model").exists()
    second = Served(base_dir, first.port)
    try:
        run_recipe(asked, tmp_path / "there")
    finally:
        second.kill()
    weights = [load_file(tmp_path / run / "ppo/model/adapter_model.safetensors") for run in ("here", "there")]
    for name, weight in weights[0].items():
        assert_close(weights[1][name], weight, atol=1e-4, rtol=0)
    rows = [json.loads(line) for line in (tmp_path / "there/ppo/metrics.jsonl").read_text().splitlines()]
    mismatches = [row["engine_mismatch"] for row in rows if row["kind"] == "train"]
    assert len(mismatches) == 3
    assert all(0 <= mismatch < 1e-4 for mismatch in mismatches)
    assert json.loads((tmp_path / "there/ppo/run.json").read_text())["sampler_logprobs"] == "taken"


def test_trust_that_ends_on_the_way_is_told(
    recipe: Path, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log-probabilities that are off from the second version on: the start-up check has seen none of them."""

    def later(path: str, status: int, answer: Any) -> tuple[int, Any]:
        if "choices" in answer and not answer["model"].startswith("policy-0-"):
            for choice in answer["choices"]:
                choice["logprobs"]["token_logprobs"] = [x - 0.25 for x in choice["logprobs"]["token_logprobs"]]
        return status, answer

    notes: list[str] = []
    display = Silent()
    monkeypatch.setattr(display, "note", notes.append)
    with relay(served.url, later) as url:
        run_recipe(load_recipe(recipe, [f'ppo.sampler="{url}"']), tmp_path / "run", display=display)
    assert json.loads((tmp_path / "run/ppo/run.json").read_text())["sampler_logprobs"] == "recomputed"
    told = [note.partition(",")[0] for note in notes if "engine_mismatch" in note]
    assert told == ["the sampler's logprobs are taken", "warning: logprobs are computed again here"]


def test_a_server_that_is_not_there_or_has_another_model_ends_the_run_at_its_start(
    recipe: Path, served: Served, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "FIRST_WAIT", 0.01)
    with pytest.raises(GenerationError, match=r"sampler http://127.0.0.1:9 does not answer, .* for its models"):
        run_recipe(load_recipe(recipe, ['ppo.sampler="http://127.0.0.1:9"']), tmp_path / "nobody")
    other = [f'ppo.sampler="{served.url}"', f'ppo.model="{tiny_model_dir}"']
    with pytest.raises(ConfigError, match="the policy's base is"):
        run_recipe(load_recipe(recipe, other), tmp_path / "other")


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["ppo.sampler=localhost"], 'sampler: "localhost" is no URL; write it as "http://127.0.0.1:8000"'),
        (["ppo.sampler=http://me:word@there:8000"], "sampler: the URL holds a password or key"),
    ],
)
def test_a_sampler_that_cannot_be_one(recipe: Path, overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_recipe(recipe, overrides)


def test_a_sampler_needs_an_adapter(recipe: Path) -> None:
    recipe.write_text("".join(line for line in recipe.open() if not line.startswith("lora")))
    with pytest.raises(ConfigError, match="sampler needs lora"):
        load_recipe(recipe, ["ppo.sampler=http://127.0.0.1:8000"])
