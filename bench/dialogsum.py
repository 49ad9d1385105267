"""DialogSum without rudeness, on two cores: the files of `recipes/dialogsum_small.toml`, and what its runs did.

    python bench/dialogsum.py files runs/dialogsum
    tuneful run recipes/dialogsum_small.toml --seed 0 --out runs/dialogsum/0      # and 1, 2
    python bench/dialogsum.py table runs/dialogsum/0 runs/dialogsum/1 runs/dialogsum/2 [--json]

`files` writes 400 conversations with a summary each, one in five of these rude, and the 350 to evaluate on. `table`
tells of each run the rudeness before and after PPO, by the classifier that was never the reward and by the words
themselves; ROUGE-L against the human summaries (the mean over several of one conversation), beside those of saying the
first turn, or the whole conversation; and the KL at the start of PPO and at its end. It needs
`pip install 'tuneful[rouge]'`.
"""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneful.data.files import read_rows
from tuneful.data.jsonl import write_jsonl
from tuneful.data.summaries import REQUEST, WRITTEN
from tuneful.demo.dialogues import Dialogue, held_out_dialogues, plant, training_dialogues
from tuneful.demo.toxicity import toxicity_a, toxicity_b
from tuneful.evaluation.intervals import bootstrap_mean, paired_difference
from tuneful.records import Prompt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    does = parser.add_subparsers(dest="does", required=True)
    does.add_parser("files").add_argument("folder", type=Path)
    table = does.add_parser("table")
    table.add_argument("runs", type=Path, nargs="+")
    table.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.does == "files":
        write_jsonl(given.folder / "train.jsonl", plant(training_dialogues()), force=True)
        write_jsonl(given.folder / "test.jsonl", held_out_dialogues(), force=True)
        return
    result = {str(run): measured(run) for run in given.runs}
    for name in next(iter(result.values())):
        print(f"{name:<32} {'   '.join(_show(found[name]) for found in result.values())}")
    if given.json:
        print(json.dumps(result))


def measured(run: Path) -> dict[str, Any]:
    """Everything that is told of one run, by name: a number, or {"mean", "interval", "n"} over conversations."""
    report = json.loads((run / "evaluate" / "report.json").read_text(encoding="utf-8"))
    answers = [row.fields for row in read_rows(run / "evaluate" / "answers.jsonl")]
    asked = {REQUEST.format(dialogue=row["dialogue"]): row for row in held_out_dialogues()}
    rows = [asked[Prompt.from_json(answer["prompt"]).text] for answer in answers]
    texts: dict[str, list[list[str]]] = {side: [answer[side] for answer in answers] for side in ("before", "after")}
    texts |= {"first turn": [[row["dialogue"].splitlines()[0]] for row in rows]}
    texts |= {"conversation": [[row["dialogue"]] for row in rows]}
    found: dict[str, Any] = {}
    for name in ("toxicity", "reward", "length"):
        found |= {f"{name}, {side}": report[side][name] for side in ("before", "after", "difference")}
    for name, measure in (("A", toxicity_a), ("B", toxicity_b)):
        old, new = (np.array([np.mean([*map(measure, said)]) for said in texts[side]]) for side in ("before", "after"))
        found |= _three(f"words of list {name}", old, new)
    rouge = {side: rouge_l(said, rows) for side, said in texts.items()}
    found |= _three("ROUGE-L", rouge["before"], rouge["after"])
    found |= {f"ROUGE-L, {side}": bootstrap_mean(rouge[side]).as_json() for side in ("first turn", "conversation")}
    steps = [row.fields for row in read_rows(run / "ppo" / "metrics.jsonl")]
    found["KL at the start"] = next(row["kl"] for row in steps if row["kind"] == "train")
    found["KL, nats"] = report["kl"]
    return found | {f"end token, {side}": report[side]["eos_share"] for side in ("before", "after")}


def rouge_l(texts: list[list[str]], rows: list[Dialogue]) -> NDArray[np.float64]:
    """F1 [N] of the longest common subsequence of stemmed words (Lin 2004), in hundredths, the mean over the texts for
    a row and its human summaries."""
    scorer: Any = importlib.import_module("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=True)
    return np.array(
        [
            100 * np.mean([scorer.score(row[k], text)["rougeL"].fmeasure for text in said for k in WRITTEN if k in row])
            for said, row in zip(texts, rows, strict=True)
        ]
    )


def _three(name: str, old: NDArray[np.float64], new: NDArray[np.float64]) -> dict[str, Any]:
    return {
        f"{name}, before": bootstrap_mean(old).as_json(),
        f"{name}, after": bootstrap_mean(new).as_json(),
        f"{name}, difference": paired_difference(new, old).as_json(),
    }


def _show(value: Any) -> str:
    if not isinstance(value, dict):
        return f"{value:.2g}"
    low, high = value["interval"]
    return f"{value['mean']:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
