"""The commands from outside: what they write, and one line for every mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tuneful.data.formats import read_candidates, read_comparisons
from tuneful.data.jsonl import write_jsonl
from tuneful.feedback.judgments import write_judgments
from tuneful.models.loading import load_scorer, load_tokenizer, save_model
from tuneful.records import Judgment


def tuneful(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tuneful", *map(str, arguments)]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, env={**os.environ, **environment}, timeout=240
    )


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


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
    given, rows = read(answers), read(tmp_path / "scored.jsonl")
    scores = [[c.pop("score") for c in row["completions"]] for row in rows]
    assert rows == given
    assert scores == [[-len(c["text"].split()) for c in row["completions"]] for row in given]


def test_score_takes_a_table_as_a_recipe_writes_it(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "hot", "completion": "cold tea please"}])
    sum_of_two = '[{reward = "longer", clip = 2.0}, {reward = {rule = "length", budget = 1}, weight = 0.5}]'
    done = tuneful("score", "--reward", sum_of_two, "--in", tmp_path / "rows.jsonl", "--out", tmp_path / "out.jsonl")
    assert done.returncode == 0, done.stderr
    assert read(tmp_path / "out.jsonl")[0]["score"] == 1.0  # min(3, 2) - 0.5 * 2


def test_score_keeps_what_the_rows_hold(tmp_path):
    demonstrations = [
        {"prompt": "hot", "completion": "cold tea", "source": 7},
        {"source": None, "completion": "why", "prompt": "tea"},
    ]
    write_jsonl(tmp_path / "rows.jsonl", demonstrations)
    done = tuneful("score", "--reward", "shorter", "--in", tmp_path / "rows.jsonl", "--out", tmp_path / "out.jsonl")
    assert done.returncode == 0, done.stderr
    given = zip(demonstrations, (-2.0, -1.0), strict=True)
    assert read(tmp_path / "out.jsonl") == [{**row, "score": score} for row, score in given]


def test_parquet_goes_in_and_out(answers, tiny_model_dir, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    out, scored = tmp_path / "answers.parquet", tmp_path / "scored.parquet"
    given = ("--in", answers, "--max-new-tokens", 5, "--num-samples", 2)
    done = tuneful("generate", "--model", tiny_model_dir, *given, "--out", out)
    assert done.returncode == 0, done.stderr
    done = tuneful("score", "--reward", "shorter", "--in", out, "--out", scored)
    assert done.returncode == 0, done.stderr
    rows = parquet.read_table(scored).to_pylist()
    assert [len(row["completions"]) for row in rows] == [2, 2]
    assert all(c["score"] == -len(c["text"].split()) for row in rows for c in row["completions"])
    refused = tuneful("score", "--reward", "shorter", "--in", out, "--out", scored)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "scored.parquet: exists already" in refused.stderr


def test_score_takes_conversations(tmp_path):
    rows = [{"messages": [{"role": "user", "content": "hot"}, {"role": "assistant", "content": "cold tea"}]}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    done = tuneful("score", "--reward", "shorter", "--in", tmp_path / "rows.jsonl", "--out", tmp_path / "out.jsonl")
    assert done.returncode == 0, done.stderr
    assert read(tmp_path / "out.jsonl") == [{**rows[0], "score": -2.0}]


def test_label_finds_the_consensus_and_exports_it(tmp_path):
    completions, judgments, out = (tmp_path / f"{name}.jsonl" for name in ("completions", "judgments", "pairs"))
    texts = {"a": "Close the blinds.", "b": "It depends.", "c": "It is not hot."}
    write_jsonl(completions, [{"prompt": "hot", "completions": [{"id": k, "text": t} for k, t in texts.items()]}])
    ranking = Judgment(id="", item="i", prompt="p", completions=("b", "a", "c"), rater="", ranks=(2, 1, 3))
    write_judgments(judgments, [replace(ranking, id=name, rater=name) for name in ("ann", "ben")])

    told = json.loads(tuneful("label", "consensus", "--judgments", judgments, "--json").stdout)
    assert told["pairs"] == 3
    assert [(rater["id"], rater["agreement"], rater["num_judgments"]) for rater in told["raters"]] == [
        ("ann", 1.0, 1),
        ("ben", 1.0, 1),
    ]
    shown = tuneful("label", "consensus", "--judgments", judgments).stdout.splitlines()
    assert [line.split()[0] for line in shown] == ["ann", "ben", "3"]
    assert all("unknown" in line and line.endswith("1 judgments") for line in shown[:2])
    done = tuneful("label", "export", "--judgments", judgments, "--in", completions, "--out", out)
    assert done.stdout == f"3 comparisons in {out}\n", done.stderr
    pairs = {(pair.chosen, pair.rejected) for pair in read_comparisons(out)}
    assert pairs == {(texts[better], texts[worse]) for better, worse in ("ab", "ac", "bc")}


def test_evaluate_measures_toxicity_by_a_list_of_words(answers, tiny_model_dir, tmp_path):
    """Every answer but an empty one holds a word of the tiny model's vocabulary, or one of its marks."""
    (tmp_path / "words.txt").write_text("\n".join(load_tokenizer(tiny_model_dir).get_vocab()))
    options = ("--in", answers, "--num-samples", 2, "--max-new-tokens", 4, "--toxicity", tmp_path / "words.txt")
    models = ("--before", tiny_model_dir, "--after", tiny_model_dir)
    done = tuneful("evaluate", *models, *options, "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    rows = read(tmp_path / "out" / "evaluate" / "answers.jsonl")
    spoken = [bool(text) for row in rows for text in row["after"]]
    assert json.loads(done.stdout)["after"]["toxicity"]["mean"] == sum(spoken) / len(spoken) > 0


def test_evaluate_tells_how_often_a_reward_prefers_what_people_prefer(tmp_path):
    """ "shorter" prefers one of the two chosen sides; by words they are 1 against 2 and 3 against 1."""
    texts = [("yes", "no no"), ("why is that", "thanks")]
    write_jsonl(
        tmp_path / "pairs.jsonl", [{"prompt": f"p{n}", "chosen": c, "rejected": r} for n, (c, r) in enumerate(texts)]
    )
    given = ("evaluate", "--in", tmp_path / "pairs.jsonl", "--reward", "shorter")
    shown = tuneful(*given, "--out", tmp_path / "out")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines()[0].split() == ["reward", "0.500", "[0.000,", "1.000]", "2", "prompts"]
    told = json.loads(tuneful(*given, "--out", tmp_path / "other", "--json").stdout)
    assert told["reward_model"]["heldout_accuracy"] == {"mean": 0.5, "interval": [0.0, 1.0], "n": 2}


def test_evaluate_ranks_the_models_in_annotations(tmp_path):
    """The good model wins 8 of 8, the bad one 2 of 8; all answers are equally long."""
    rows = [
        {"instruction": f"i{n}", "generator_1": "base", "generator_2": model, "output_1": "one", "output_2": "two"}
        | {"preference": 2 if model == "good" or n < 2 else 1, "annotator": "judge"}
        for n in range(8)
        for model in ("bad", "good")
    ]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    (tmp_path / "board.csv").write_text(
        "name,samples,win_rate,length_controlled_winrate\nBad,x/results/bad/o.json,26.0,\n"
    )
    given = (
        "evaluate",
        "--in",
        tmp_path / "rows.jsonl",
        "--leaderboard",
        tmp_path / "board.csv",
        "--out",
        tmp_path / "out",
    )
    done = tuneful(*given)
    assert done.returncode == 0, done.stderr
    first, good, bad, last = done.stdout.splitlines()
    assert first.startswith("against base")
    # the standard error of 2 ones among 8: sqrt(8 * .25 * .75 / 7 / 8) = .1637
    assert good.split()[:4] == ["good", "100.00", "0.00", "-"]
    assert bad.split()[:5] == ["bad", "25.00", "16.37", "26.00", "(-1.00)"]
    assert last == f"the report is {tmp_path / 'out' / 'report.html'}"
    assert "Against base" in (tmp_path / "out" / "report.html").read_text()
    again = tuneful(*given)
    assert again.returncode == 2
    assert "exists already" in again.stderr
    by_name = tuneful("evaluate", "--in", "rows", "--out", tmp_path / "named", TUNEFUL_DATA=str(tmp_path))
    assert by_name.returncode == 0, by_name.stderr
    assert by_name.stdout.splitlines()[1].split() == ["good", "100.00", "0.00", *good.split()[3:]]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--before", "a"), "--before and --after go together"),
        (("--before", "a", "--after", "b", "--model", "c"), "--model says nothing with --before and --after"),
        (
            ("--reward", "shorter", "--leaderboard", "x.csv"),
            "--leaderboard says nothing with --reward or --model alone",
        ),
        (("--reward", "shorter", "--num-samples", "4"), "--num-samples says nothing with --reward or --model alone"),
        (("--max-prompt-tokens", "9"), "--max-prompt-tokens says nothing with a file of annotations"),
        ((), "holds no annotations; for prompts give --before and --after, for comparisons --reward or --model"),
    ],
)
def test_evaluate_says_which_flags_go_together(tmp_path, flags, said):
    write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "p"}])
    done = tuneful("evaluate", "--in", tmp_path / "rows.jsonl", "--out", tmp_path / "out", *flags)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_long_prompt_can_be_cut(answers, tiny_model_dir, tmp_path):
    write_jsonl(tmp_path / "long.jsonl", [{"prompt": "hot " * 200}])
    options = ("--out", tmp_path / "out.jsonl", "--max-new-tokens", 3, "--max-prompt-tokens", 20)
    done = tuneful("generate", "--model", tiny_model_dir, "--in", tmp_path / "long.jsonl", *options)
    assert done.returncode == 0, done.stderr
    assert len(read_candidates(tmp_path / "out.jsonl")) == 1


def texts_of(tiny_model_dir, folder, *options) -> list[str]:
    """Two answers to each of two prompts, of up to 12 tokens, with seed 0."""
    write_jsonl(folder / "asked.jsonl", [{"prompt": "hot house"}, {"prompt": "cold tea"}], force=True)
    asked = ("--in", folder / "asked.jsonl", "--out", folder / "told.jsonl", "--force")
    done = tuneful("generate", "--model", tiny_model_dir, *asked, "--num-samples", 2, "--max-new-tokens", 12, *options)
    assert done.returncode == 0, done.stderr
    return [c.text for item in read_candidates(folder / "told.jsonl") for c in item.completions]


def test_generate_stops_before_any_of_the_texts(tiny_model_dir, tmp_path):
    """Uniforms follow from seed, prompt and place, so up to the stop the words are those drawn without one."""
    free = texts_of(tiny_model_dir, tmp_path)
    ends = [free[0].split()[3], free[3].split()[2]]
    stopped = texts_of(tiny_model_dir, tmp_path, "--stop", ends[0], "--stop", ends[1], "--device", "cpu")
    assert stopped == [text[: min((text.find(end) for end in ends if end in text), default=None)] for text in free]
    assert stopped != free


def test_the_smallest_nucleus_is_the_likeliest_token(tiny_model_dir, tmp_path):
    likeliest = texts_of(tiny_model_dir, tmp_path, "--temperature", 0)
    assert texts_of(tiny_model_dir, tmp_path, "--top-p", 1e-6) == likeliest
    assert texts_of(tiny_model_dir, tmp_path, "--top-p", 1) == texts_of(tiny_model_dir, tmp_path) != likeliest


def test_run_names_the_reports_that_exist(tmp_path):
    from tuneful.cli.run import written_reports

    for folder in ("ppo", "samples"):
        (tmp_path / folder).mkdir()
    (tmp_path / "ppo" / "report.html").touch()
    assert written_reports(tmp_path, ["samples", "ppo"]) == {"ppo": str(tmp_path / "ppo" / "report.html")}
    (tmp_path / "report.html").touch()
    assert list(written_reports(tmp_path, ["samples", "ppo"])) == ["", "ppo"]


PRESSES_CTRL_C = "import signal\n\ndef score(prompts, completions):\n    signal.raise_signal(signal.SIGINT)\n"


def test_ctrl_c_says_how_to_go_on_where_that_can_be(answers, tiny_model_dir, tmp_path):
    reward = tmp_path / "press.py"
    reward.write_text(PRESSES_CTRL_C)
    text = RECIPE.format(model=tiny_model_dir, prompts=prompts_file(tmp_path), reward=f"{reward}:score", length=5)
    (tmp_path / "ppo.toml").write_text(text)
    stopped = tuneful("train", tmp_path / "ppo.toml", "--out", tmp_path / "out")
    assert stopped.returncode == 130, stopped.stderr
    assert "stopped; the same command continues from the last checkpoint" in stopped.stderr
    stopped = tuneful("score", "--reward", f"{reward}:score", "--in", answers, "--out", tmp_path / "scored.jsonl")
    assert stopped.returncode == 130, stopped.stderr
    assert "continues" not in stopped.stderr


def findings(*arguments: object, status: int) -> dict[str, dict[str, Any]]:
    done = tuneful("doctor", *arguments, "--json")
    assert done.returncode == status, done.stderr
    told = json.loads(done.stdout)
    assert told["passed"] == (status == 0)
    return {f"{f['about']}: {f['name']}": f for f in told["findings"]}


def test_doctor_finds_a_sound_model_data_and_reward_sound(answers, tiny_model_dir, tmp_path):
    save_model(load_scorer(tiny_model_dir), load_tokenizer(tiny_model_dir), tmp_path / "scorer")
    table = f'[{{reward = "{tmp_path}/scorer", weight = 2.0}}, {{reward = {{rule = "length", target = 9}}}}]'
    summed = findings("--reward", table, status=0)
    assert summed["reward: largest change of a reward with its batch or padding"]["value"] < 1e-4
    found = findings("--model", tiny_model_dir, "--in", answers, "--reward", tmp_path / "scorer", status=0)
    assert found["data: format"]["value"] == "completions"
    assert (found["data: rows"]["value"], found["data: prompts"]["value"]) == (2, 2)
    assert (found["model: end token"]["value"], found["model: pad token"]["value"]) == ("<eos>", "<pad>")
    assert found["model: context"]["value"] == 128
    assert found["model: change of a logprob in a batch"]["value"] < 1e-4
    assert found["reward: largest change of a reward with its batch or padding"]["value"] < 1e-4


READS_ITS_NEIGHBOURS = (
    "import torch\n\ndef score(prompts, completions):\n    return torch.arange(float(len(completions)))\n"
)


def test_doctor_names_the_mend_of_what_is_broken(tmp_path):
    same = "\n\nHuman: hot?\n\nAssistant: yes"
    rows = [{"chosen": same, "rejected": same}, {"chosen": same, "rejected": same + " no"}]
    write_jsonl(tmp_path / "pairs.jsonl", [*rows, rows[1]])
    (tmp_path / "order.py").write_text(READS_ITS_NEIGHBOURS)
    options = ("--in", tmp_path / "pairs.jsonl", "--reward", f"{tmp_path}/order.py:score")
    found = findings(*options, "--model", tmp_path / "nowhere", status=1)
    assert found["data: rows skipped"]["value"] == 1
    assert "pairs.jsonl:1" in found["data: rows skipped"]["mend"]
    assert found["data: rows of a prompt seen before"]["value"] == 1
    assert found["data: rows that repeat another"]["value"] == 1
    assert found["data: comparisons"]["value"] == 2
    change = found["reward: largest change of a reward with its batch or padding"]
    assert change["value"] == 3.0  # the last of the four has number 3
    assert "neighbours" in change["mend"]
    failed = {name for name, finding in found.items() if finding["status"] == "fail"}
    assert failed == {"reward: largest change of a reward with its batch or padding", "model: error"}


def test_doctor_says_each_thing_once(tmp_path):
    found = findings("--model", tmp_path / "nowhere", status=1)["model: error"]
    assert (found["value"], found["mend"]) == (f"{tmp_path}/nowhere: no such model directory", "")


def test_doctor_sees_text_that_misses_the_chat_template(tmp_path, tiny_model_dir):
    chat = [{"role": "user", "content": "hot"}]
    for prompts, plain in ((["hot", "cold", chat], 2), ([chat], None)):
        write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": prompt} for prompt in prompts], force=True)
        found = findings("--model", tiny_model_dir, "--in", tmp_path / "prompts.jsonl", status=0)
        assert found.get("model: prompts of plain text", {"value": None})["value"] == plain


def test_doctor_reads_data_as_the_model_will_and_beside_a_test_file(tmp_path, tiny_model_dir):
    chat = [[{"role": "user", "content": text}] for text in ("hot house", "cold tea", "tea " * 20)]
    write_jsonl(tmp_path / "train.jsonl", ({"prompt": prompt} for prompt in chat))
    write_jsonl(tmp_path / "test.jsonl", [{"prompt": chat[0]}])
    files = ("--in", tmp_path / "train.jsonl", "--test", tmp_path / "test.jsonl")
    found = findings(*files, "--model", tiny_model_dir, "--max-prompt-tokens", 10, status=1)
    assert found[f"leakage: prompts in {tmp_path}/train.jsonl that are there, too"]["value"] == 1
    assert found["model: prompts of more than 10 tokens"]["value"] == 1
    done = tuneful("doctor", *files[2:])
    assert (done.returncode, done.stdout) == (2, "")
    assert "add --in FILE" in done.stderr


def test_doctor_trains_copies_when_asked(tmp_path, tiny_model_dir):
    pair = {"prompt": [{"role": "user", "content": "hot house"}], "chosen": "open the door", "rejected": "no"}
    write_jsonl(tmp_path / "pairs.jsonl", [pair])
    weights = (tiny_model_dir / "model.safetensors").read_bytes()
    found = findings("--deep", "--model", tiny_model_dir, "--in", tmp_path / "pairs.jsonl", status=0)
    gradient = "change of a step's gradient with its micro-batches, relative to its norm"
    for about, learned, bar in (
        ("model trained as policy", "loss per token after learning 64 demonstrations by heart, in nats", 0.1),
        ("model trained as reward model", "share of pairs ranked wrongly after learning 64 by heart", 0.05),
    ):
        assert found[f"{about}: {gradient}"]["value"] < 1e-4
        assert found[f"{about}: {learned}"]["value"] < bar
    assert (tiny_model_dir / "model.safetensors").read_bytes() == weights


def test_doctor_needs_a_model_to_train():
    done = tuneful("doctor", "--deep", "--reward", "shorter")
    assert (done.returncode, done.stdout) == (2, "")
    assert "add --model, or --reward DIRECTORY" in done.stderr


def test_nothing_is_overwritten_without_force(answers, tmp_path):
    before = answers.read_bytes()
    done = tuneful("score", "--reward", "shorter", "--in", answers, "--out", answers)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--force" in done.stderr
    assert answers.read_bytes() == before


def test_only_a_file_is_overwritten(answers, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    done = tuneful("score", "--reward", "shorter", "--in", answers, "--out", tmp_path / "pipe", "--force")
    assert (done.returncode, done.stdout) == (2, "")
    assert "pipe: is a device or pipe, which is not replaced by a file" in done.stderr
    assert (tmp_path / "pipe").is_fifo()


def test_agreement_that_is_undefined_is_said_in_a_sentence(tmp_path):
    alone = Judgment(id="1", item="i", prompt="p", completions=("a", "b"), rater="ann", ranks=(1, 2))
    write_judgments(tmp_path / "one.jsonl", [alone])
    told = tuneful("label", "consensus", "--judgments", tmp_path / "one.jsonl").stdout.splitlines()[-1]
    assert told == ("1 pairs, Krippendorff's alpha undefined: no two judgments order the same pair of completions")


def test_a_log_hears_of_every_stage_and_adapters_warn_of_nothing(tmp_path, tiny_model_dir):
    rows = [{"prompt": f"hot {w}", "completion": "yes"} for w in "tea tap dog day rain red cold green".split()]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'splits = {{ reward = 1.0 }}\n[[stage]]\nname = "first"\nalgorithm = "sft"\nmodel = "{tiny_model_dir}"\n'
        f'demonstrations = "{tmp_path / "rows.jsonl"}"\ndemonstrations_per_step = 4\nlora = {{ rank = 2 }}\n'
    )
    for steps in (["first: 1/2  loss", "first: 2/2  loss"], []):
        done = tuneful("run", recipe, "--out", tmp_path / "out", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["seconds"]
        begin, *told, end = done.stderr.splitlines()
        assert (begin, end.split(" after ")[0]) == ("first: begins", "first: done")
        plans = [line for line in told if line.startswith("· memory: ")]
        assert len(plans) == bool(steps)
        assert [line.rpartition(" ")[0] for line in told if line not in plans] == steps
    done = tuneful("run", recipe, "--out", tmp_path / "out", "--set", "first.epochs=3")
    assert "first.epochs = 1 there, 3 here; choose" in done.stderr


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


def prompts_file(folder: Path) -> Path:
    """Enough prompts that every split has some."""
    texts = [
        f"hot house {a} {b}" for a in "tea tap dog day rain".split() for b in "red cold green fine fix help".split()
    ]
    write_jsonl(folder / "prompts.jsonl", ({"prompt": [{"role": "user", "content": text}]} for text in texts))
    return folder / "prompts.jsonl"


def mistakes(folder: Path, model: Path) -> dict[str, tuple[list[object], str]]:
    """Name -> (arguments, what the one line says)."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    prompts = prompts_file(folder)
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

    labeled = folder / "labeled"
    save_model(load_scorer(model, num_labels=2), load_tokenizer(model), labeled)
    pair = folder / "pair.jsonl"
    write_jsonl(pair, [{"prompt": "hot", "completion": "tea"}])

    def score(reward: str) -> list[object]:
        return ["score", "--reward", reward, "--in", pair, "--out", folder / "unscored.jsonl"]

    def run(path: Path) -> list[object]:
        return ["run", path, "--out", folder / f"out-{path.stem}"]

    def evaluate(*measured: str) -> list[object]:
        return ["evaluate", "--before", model, "--after", model, "--in", prompts, "--out", folder / "eval", *measured]

    def generate(source: Path, of: Path = model) -> list[object]:
        return ["generate", "--model", of, "--in", source, "--out", folder / "unwritten.jsonl"]

    return {
        "missing file": (generate(folder / "no.jsonl"), "no.jsonl"),
        "broken JSON line": (generate(broken), "broken.jsonl:2"),
        "empty completion": (["score", "--reward", "shorter", "--in", empty, "--out", folder / "s"], "empty.jsonl:1"),
        "prompt longer than the context": (generate(long), "max_prompt_tokens"),
        "nucleus of nothing": ([*generate(prompts), "--top-p", 0], "top_p must lie above 0 and be at most 1"),
        "nucleus of one": ([*generate(prompts), "--top-p", 0.9, "--temperature", 0], "leave one out"),
        "stop at nothing": ([*generate(prompts), "--stop", ""], "stop holds an empty string"),
        "no device": ([*generate(prompts), "--device", "gpu"], "--device gpu: no device; give cpu, cuda, or cuda:1"),
        "device that is not there": ([*generate(prompts), "--device", "cuda:99"], "there is no such GPU here"),
        "missing model": (generate(prompts, folder / "nowhere"), "no such model directory"),
        "unknown key": (run(recipe("key", extra="clipp = 0.1\n")), 'did you mean "clip"?'),
        "no end token": (run(recipe("eos", model=variant("no-eos", eos_token=None))), "no end token"),
        "NaN reward": (run(recipe("nan", reward=f"{folder}/nan.py:score")), "reward is nan"),
        "unknown kind of reward": (score("{rul = 'length'}"), 'did you mean "rule"?'),
        "classifier without its label": (score(f'{{classifier = "{labeled}"}}'), '0 = "LABEL_0", 1 = "LABEL_1"'),
        "judge that is not there": (
            score('{judge = "http://127.0.0.1:9/v1", model = "m", retries = 0}'),
            "judge m at http://127.0.0.1:9/v1 cannot be reached",
        ),
        "reward that is not there": (evaluate("--reward", "shortest"), 'stage evaluate: reward: reward "shortest": no'),
        "words that are not there": (evaluate("--toxicity", "none.txt"), "stage evaluate: toxicity: none.txt: cannot"),
        "unknown reward": (run(recipe("reward", reward="shortest")), 'did you mean "shorter"?'),
    }


def test_every_mistake_is_one_line_that_names_it(tmp_path, tiny_model_dir):
    for name, (arguments, said) in mistakes(tmp_path, tiny_model_dir).items():
        done = tuneful(*arguments)
        lines = [line for line in done.stderr.splitlines() if "Error" in line or "Traceback" in line]
        assert done.returncode == 2, (name, done.stderr)
        assert len(lines) == 1, (name, done.stderr)
        assert said in " ".join(done.stderr.split()), (name, done.stderr)


def test_a_full_disk_at_the_start_is_one_line(tmp_path):
    """Where nothing at all can be written a library may ask for a temporary folder while it is imported."""
    import resource

    (tmp_path / "sitecustomize.py").write_text(
        "import sys, tempfile\nclass Asks:\n    def find_spec(self, name, path, target=None):\n"
        "        if name == 'torch':\n            tempfile.gettempdir()\nsys.meta_path.insert(0, Asks())\n"
    )
    write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "hot", "completion": "tea"}])
    done = subprocess.run(
        [sys.executable, "-m", "tuneful", "score", "--reward", "shorter", "--in", "rows.jsonl", "--out", "s.jsonl"],
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).resolve().parents[2]}"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("RunError: No usable temporary directory found in ['")
    assert done.stderr.endswith("; free space there, or set TMPDIR to a folder with some\n")
    assert done.stderr.count("\n") == 1


def test_a_full_disk_is_one_line_and_keeps_what_was_saved(tmp_path, tiny_model_dir):
    """No file may grow beyond 30 kB: the model cannot be written, the log of its training is there."""
    import resource

    rows = [{"prompt": [{"role": "user", "content": f"hot {w}"}], "completion": "yes"} for w in "tea tap dog".split()]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'splits = {{ reward = 1.0 }}\n[[stage]]\nname = "sft"\nalgorithm = "sft"\nmodel = "{tiny_model_dir}"\n'
        f'demonstrations = "{tmp_path / "rows.jsonl"}"\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "tuneful", "run", str(recipe), "--out", str(tmp_path / "out")],
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000)),
    )
    lines = [line for line in done.stderr.splitlines() if "Error" in line or "Traceback" in line]
    assert done.returncode == 2, done.stderr
    assert len(lines) == 1
    assert "cannot be written" in " ".join(done.stderr.split())
    assert not (tmp_path / "out" / "sft" / "model").exists()
    assert (tmp_path / "out" / "sft" / "metrics.jsonl").read_text().count("\n") == 1
