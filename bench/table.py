"""The table of speed and memory beside the peer: one comparison after the other, a line of JSON each, in Markdown.

    python bench/table.py --trl trl-1.12 [--out bench/results.jsonl] [--size S] [--rounds 5]

A comparison whose line is in the file is not run again, unless it is void: a table that was cut off goes on, and one
that is finished is only printed, as it is without --trl. Take the machine for it alone. What is compared by learning,
by ranks, and by exactness has scripts of its own (docs/benchmarks.md).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import peer

HERE = Path(__file__).parent


class Comparison(NamedTuple):
    """A script of this folder with its settings, and what is asked of it: times as fast, share of the memory. None: it
    is measured and nothing is asked."""

    name: str
    command: tuple[str, ...]
    speed: float | None
    memory: float | None = None


def _ppo(workload: str, shape: str, *more: str) -> tuple[str, ...]:
    return ("ppo.py", "--workload", workload, "--shape", shape, "--tokens-per-microbatch", "2048", *more)


COMPARISONS = [
    Comparison("PPO, ragged, LoRA", _ppo("ragged", "lora"), 4.0, 1 / 4),
    Comparison("PPO, fixed, LoRA", _ppo("fixed", "lora"), 2.2),
    Comparison("PPO, ragged, full", _ppo("ragged", "full"), 2.0),
    Comparison("PPO, fixed, full", _ppo("fixed", "full"), 1.3),
    *(
        Comparison(f"{name}, {shape}", ("learners.py", bench, "--shape", shape, *more), 1.5, 2 / 3)
        for name, bench, more in (
            ("reward model", "reward", ()),
            ("DPO", "dpo", ()),
            ("SFT", "sft", ("--tokens-per-microbatch", "512")),
        )
        for shape in ("lora", "full")
    ),
    *(
        Comparison(f"generation, {batch} prompts, {shape}", ("generation.py", "--batch", batch, "--shape", shape), 3.0)
        for batch, shape in (("128", "full"), ("128", "lora"), ("32", "full"))
    ),
    Comparison("PPO, ragged, LoRA, value model", _ppo("ragged", "lora", "--value", "model"), None),
    Comparison("generation, fixed, full", ("generation.py", "--workload", "fixed", "--shape", "full"), None),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl", type=Path, help="the folder that holds TRL 1.12.0; without it nothing is run")
    parser.add_argument("--out", type=Path, default=HERE / "results.jsonl")
    parser.add_argument("--size", choices=peer.SIZES, default="S")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    if given.trl:
        missing = [one for one in COMPARISONS if found(given.out, one, given.size) is None]
        refused = [one.name for one in missing if not compare(one, given)]
        if refused:
            print(f"without a result: {', '.join(refused)}", file=sys.stderr)
    print("\n".join(table(given.out, given.size)))


def found(results: Path, one: Comparison, size: str) -> dict[str, Any] | None:
    """The last line of a comparison that is not void."""
    lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    told = [line for line in map(json.loads, lines) if (line["comparison"], line["size"]) == (one.name, size)]
    return next((line for line in reversed(told) if not line["void"]), None)


def compare(one: Comparison, given: argparse.Namespace) -> bool:
    """Run a comparison and keep its line; False where the script would not give one."""
    script, *settings = one.command
    if script == "ppo.py":
        settings += ["--trl", str(given.trl)]
    command = [str(HERE / script), *settings, "--size", given.size, "--rounds", str(given.rounds), "--json"]
    print(f"{one.name}: {' '.join(command)}", file=sys.stderr, flush=True)
    run = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, check=False, text=True)
    if run.returncode:
        return False
    commit = subprocess.run(
        ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"], stdout=subprocess.PIPE, check=True, text=True
    )
    about = {"comparison": one.name, "date": f"{datetime.now(UTC):%Y-%m-%d}", "commit": commit.stdout.strip()}
    with given.out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(about | json.loads(run.stdout.strip().splitlines()[-1])) + "\n")
    return True


def table(results: Path, size: str) -> list[str]:
    """Rows of Markdown, one for each comparison that has a line; with the range of the rounds' ratios, and the peer's
    speed as a multiple of what it was alone, where that is known."""
    rows = [
        f"| {size} | times as fast | asked | share of memory | asked | the peer, of its baseline | at |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in COMPARISONS:
        told = found(results, one, size)
        if told is None:
            continue
        cells = [one.name, _ranged(told, "speed"), "" if one.speed is None else f"{one.speed:.1f}"]
        cells += [_ranged(told, "memory"), "" if one.memory is None else f"{one.memory:.2f}"]
        cells += [_of_baseline(told)]
        cells += [f"{told['date']}, {told['commit']}"]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def _of_baseline(told: dict[str, Any]) -> str:
    """With the workload that tells it, where that is another than the line's."""
    share, by = told["trl_of_baseline"], told.get("baseline_workload", told["workload"])
    return "" if share is None else f"{share:.2f}" + (f" ({by})" if by != told["workload"] else "")


def _ranged(told: dict[str, Any], name: str) -> str:
    least, most = told[f"{name}_range"]
    return f"{told[name]:.2f} ({least:.2f} to {most:.2f})"


if __name__ == "__main__":
    main()
