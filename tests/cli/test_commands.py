"""The commands from outside: what they write, and one line for every mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tuneful.data.formats import read_candidates, write_jsonl


def tuneful(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    command = [sys.executable, "-m", "tuneful", *map(str, arguments)]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, env={**os.environ, **environment}, timeout=240
    )


@pytest.fixture(scope="module")
def answers(tmp_path_factory, tiny_model_dir) -> Path:
    """Completions that `generate` wrote for two prompts."""
    folder = tmp_path_factory.mktemp("cli")
    prompts = folder / "prompts.jsonl"
    write_jsonl(prompts, ({"prompt": [{"role": "user", "content": text}]} for text in ("hot house", "cold tea")))
    out = folder / "answers.jsonl"
    options = ("--num-samples", 3, "--max-new-tokens", 5)
    done = tuneful("generate", "--model", tiny_model_dir, "--in", prompts, "--out", out, *options, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["completions"] == 6
    return out


def test_generate_writes_completions_that_can_be_read(answers):
    items = read_candidates(answers)
    assert [len(item.completions) for item in items] == [3, 3]
    assert len({c.id for item in items for c in item.completions}) == 6


def test_score_adds_a_score_to_each_answer(answers, tmp_path):
    done = tuneful("score", "--reward", "shorter", "--in", answers, "--out", tmp_path / "scored.jsonl")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "scored.jsonl").open()]
    assert [row["score"] for row in rows] == [-len(row["completion"].split()) for row in rows]


def test_nothing_is_overwritten_without_force(answers, tmp_path):
    before = answers.read_bytes()
    done = tuneful("score", "--reward", "shorter", "--in", answers, "--out", answers)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--force" in done.stderr
    assert answers.read_bytes() == before


def test_train_takes_one_algorithm(tmp_path):
    recipe = Path(__file__).parents[2] / "recipes" / "demo.toml"
    done = tuneful("train", recipe, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "use tuneful run" in done.stderr


REWARD_OF_NAN = (
    "import torch\n\ndef score(prompts, completions):\n    return torch.full((len(prompts),), float('nan'))\n"
)

RECIPE = """
[[stage]]
name = "ppo"
algorithm = "ppo"
model = "{model}"
prompts = "{prompts}"
reward = "{reward}"
num_steps = 1
prompts_per_step = 4
max_new_tokens = {length}
"""


def mistakes(folder: Path, model: Path) -> dict[str, tuple[list[object], str]]:
    """Name -> (arguments, what the one line says)."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    prompts = folder / "prompts.jsonl"
    texts = [
        f"hot house {a} {b}" for a in "tea tap dog day rain".split() for b in "red cold green fine fix help".split()
    ]
    write_jsonl(prompts, ({"prompt": [{"role": "user", "content": text}]} for text in texts))
    broken = folder / "broken.jsonl"
    broken.write_text('{"prompt": "hot"}\n{"prompt": \n')
    empty = folder / "empty.jsonl"
    write_jsonl(empty, [{"prompt": "hot", "completions": [{"text": ""}]}])
    long = folder / "long.jsonl"
    write_jsonl(long, [{"prompt": [{"role": "user", "content": "hot " * 200}]}])
    (folder / "nan.py").write_text(REWARD_OF_NAN)

    def variant(name: str, **tokens: str | None) -> Path:
        tokenizer = AutoTokenizer.from_pretrained(model)
        for token, value in tokens.items():
            setattr(tokenizer, token, value)
        AutoModelForCausalLM.from_pretrained(model).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        return folder / name

    def recipe(name: str, *, model: Path = model, reward: str = "shorter", length: int = 5, extra: str = "") -> Path:
        path = folder / f"{name}.toml"
        path.write_text(RECIPE.format(model=model, prompts=prompts, reward=reward, length=length) + extra)
        return path

    def run(path: Path) -> list[object]:
        return ["run", path, "--out", folder / f"out-{path.stem}"]

    def generate(source: Path, of: Path = model) -> list[object]:
        return ["generate", "--model", of, "--in", source, "--out", folder / "unwritten.jsonl"]

    return {
        "missing file": (generate(folder / "no.jsonl"), "no.jsonl"),
        "broken JSON line": (generate(broken), "broken.jsonl:2"),
        "empty completion": (["score", "--reward", "shorter", "--in", empty, "--out", folder / "s"], "empty.jsonl:1"),
        "prompt longer than the context": (generate(long), "max_prompt_tokens"),
        "missing model": (generate(prompts, folder / "nowhere"), "no such model directory"),
        "unknown key": (run(recipe("key", extra="clipp = 0.1\n")), 'did you mean "clip"?'),
        "pad = eos": (run(recipe("pad", model=variant("pad-eos", pad_token="<eos>"))), "pad_token and eos_token"),
        "no end token": (run(recipe("eos", model=variant("no-eos", eos_token=None))), "no end token"),
        "NaN reward": (run(recipe("nan", reward=f"{folder}/nan.py:score")), "reward is nan"),
        "unknown reward": (run(recipe("reward", reward="shortest")), 'did you mean "shorter"?'),
    }


def test_every_mistake_is_one_line_that_names_it(tmp_path, tiny_model_dir):
    for name, (arguments, said) in mistakes(tmp_path, tiny_model_dir).items():
        done = tuneful(*arguments)
        lines = [line for line in done.stderr.splitlines() if "Error" in line or "Traceback" in line]
        assert done.returncode == 2, (name, done.stderr)
        assert len(lines) == 1, (name, done.stderr)
        assert said in " ".join(done.stderr.split()), (name, done.stderr)
