"""The whole table beside the peer: every comparison in turn, a line of JSON each, and the table in Markdown.

    python bench/table.py --trl trl-1.12 [--out bench/results.jsonl] [--size S] [--rounds 5]

A comparison whose line is in the file is not run again: a table that was cut off goes on, and one that is finished is
only printed. Take the machine for it alone: some two hours for S on two cores, a day for M.
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
    """A script of this folder with its settings, and what is asked of it: times as fast, share of the memory."""

    name: str
    command: tuple[str, ...]
    speed: float
    memory: float | None = None


COMPARISONS = [
    Comparison("PPO, ragged, LoRA", ("ppo.py", "--workload", "ragged", "--shape", "lora"), 4.0, 1 / 4),
    Comparison("PPO, fixed, LoRA", ("ppo.py", "--workload", "fixed", "--shape", "lora"), 2.2),
    Comparison(
        "PPO, ragged, full",
        ("ppo.py", "--workload", "ragged", "--shape", "full", "--tokens-per-microbatch", "2048"),
        2.0,
    ),
    Comparison(
        "PPO, fixed, full", ("ppo.py", "--workload", "fixed", "--shape", "full", "--tokens-per-microbatch", "2048"), 1.3
    ),
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
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl", type=Path, required=True, help="the folder that holds TRL 1.12.0")
    parser.add_argument("--out", type=Path, default=HERE / "results.jsonl")
    parser.add_argument("--size", choices=peer.SIZES, default="S")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    for one in COMPARISONS:
        if found(given.out, one, given.size) is None:
            compare(one, given)
    print("\n".join(table(given.out, given.size)))


def found(results: Path, one: Comparison, size: str) -> dict[str, Any] | None:
    """The last line of a comparison."""
    lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    told = [line for line in map(json.loads, lines) if (line["comparison"], line["size"]) == (one.name, size)]
    return told[-1] if told else None


def compare(one: Comparison, given: argparse.Namespace) -> None:
    script, *settings = one.command
    if script == "ppo.py":
        settings += ["--trl", str(given.trl)]
    command = [str(HERE / script), *settings, "--size", given.size, "--rounds", str(given.rounds), "--json"]
    print(f"{one.name}: {' '.join(command)}", file=sys.stderr, flush=True)
    told = json.loads(_output([sys.executable, *command]).splitlines()[-1])
    commit = _output(["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"])
    about = {"comparison": one.name, "date": f"{datetime.now(UTC):%Y-%m-%d}", "commit": commit}
    with given.out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(about | told) + "\n")


def _output(command: list[str]) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.strip()


def table(results: Path, size: str) -> list[str]:
    """Rows of Markdown, one for each comparison that has a line."""
    rows = [f"| {size} | speed | asked | memory | asked |", "|---|---|---|---|---|"]
    for one in COMPARISONS:
        told = found(results, one, size)
        if told is not None:
            asked = "" if one.memory is None else f"{one.memory:.2f}"
            rows.append(f"| {one.name} | {told['speed']:.2f} | {one.speed:.1f} | {told['memory']:.2f} | {asked} |")
    return rows


if __name__ == "__main__":
    main()
