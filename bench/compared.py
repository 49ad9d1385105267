"""What docs/explanation/learners.md and the learners' pages tell of `tuneful compare recipes/demo_learners.toml`.

    python bench/compared.py runs/learners [--plot docs/images/learners.svg] [--pages docs/explanation]

Printed is the table of all learners. With --pages the measured part of each learner's page is written anew: what it
gained, and of each metric the values of the first step, of the steps about a tenth of the way, and of the last fifth,
each from the lowest to the highest over seeds. Of the last fifth a twentieth is left out on both sides, so that one odd
step does not make a range.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from drawing import one_file

from tuneful.evaluation.report import learner_plots

NOT_TOLD = {"step", "kind", "seconds", "kl_coef", "replay"}
"""What says nothing of a run's health: settings, counts, the machine's time."""

PAGES: dict[str, dict[str, str]] = {
    "a2c": {"a2c": "A2C"},
    "dpo": {"dpo": "DPO", "ipo": "IPO"},
    "dqn": {"dqn": "DQN"},
    "grpo": {"grpo": "GRPO"},
    "ilql": {"ilql": "ILQL"},
    "kto": {"kto": "KTO"},
    "nlpo": {"nlpo": "NLPO"},
    "orpo": {"orpo": "ORPO"},
    "ppo": {"ppo": "PPO"},
    "raft": {"raft": "RAFT"},
    "reinforce": {"reinforce": "REINFORCE", "rloo": "RLOO"},
    "simpo": {"simpo": "SimPO"},
    "trpo": {"trpo": "TRPO"},
}
"""By page, the learners of the recipe and their names."""

BEGIN = "<!-- measured by bench/compared.py: nothing after this is kept -->"

Range = tuple[float, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--plot", type=Path, help="where to draw true utility against KL, samples and seconds, as SVG")
    parser.add_argument("--pages", type=Path, help="the folder of the pages whose measured part is written")
    given = parser.parse_args()
    report = json.loads((given.runs / "report.json").read_text(encoding="utf-8"))
    print("\n".join(table(report["learners"])))
    if given.plot:
        given.plot.write_text(one_file([plot["plot"] for plot in learner_plots(report)]), encoding="utf-8")
    if given.pages:
        rows = {row["learner"]: row for row in report["learners"]}
        for name, learners in PAGES.items():
            page = given.pages / f"{name}.md"
            before = page.read_text(encoding="utf-8").split(BEGIN)[0].rstrip("\n")
            parts = measured(learners, rows, given.runs)
            page.write_text("\n\n".join([before, BEGIN, *parts]) + "\n", encoding="utf-8")


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The learners in Markdown, in the order of their gain."""
    yield "| | learner | true utility gained | toxicity | filler | KL, nats | answers drawn | seconds | memory, MB |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for number, row in enumerate(rows, start=1):
        gains = [_measured(row["difference"][of], 2) for of in ("true_utility", "toxicity", "filler")]
        memory = _measured(row["memory"], 0, 1e-6) if row["memory"] else "not known"
        cost = [_measured(row["kl"], 2), f"{_mean(row['samples']):,.0f}", _measured(row["seconds"], 0), memory]
        yield f"| {number} | {' | '.join([row['learner'], *gains, *cost])} |"


def _measured(told: Any, digits: int, unit: float = 1.0) -> str:
    numbers = (told["mean"], *told["interval"]) if isinstance(told, dict) else (told,)
    mean, *interval = (f"{round(number * unit, digits) + 0.0:.{digits}f}".replace("-", "−") for number in numbers)
    return f"{mean} [{', '.join(interval)}]" if interval else mean


def _mean(told: Any) -> float:
    return float(told["mean"] if isinstance(told, dict) else told)


def measured(learners: dict[str, str], rows: dict[str, dict[str, Any]], runs: Path) -> Iterator[str]:
    """The paragraphs and tables of one page. learners: see PAGES."""
    seeds = spoken(next(rows[learner]["seeds"] for learner in learners))
    yield (
        f"**Measured in the demo world** (`tuneful compare recipes/demo_learners.toml`, {seeds}, 95 % intervals; "
        "[beside the others](learners.md)); of each metric the lowest and the highest over the seeds:"
    )
    for learner, name in learners.items():
        row = rows[learner]
        gain, start = _measured(row["difference"]["true_utility"], 2), _measured(row["before"]["true_utility"], 2)
        yield f"{name} changes true utility by {gain} from {start}, at a KL of {_measured(_mean(row['kl']), 1)} nats."
        head = ["| metric | first step | a tenth of the way | last fifth |", "|---|---|---|---|"]
        found = ranges(runs, learner).items()
        yield "\n".join([*head, *(f"| `{metric}` | {' | '.join(map(between, told))} |" for metric, told in found)])


def spoken(seeds: list[int]) -> str:
    """ "seed 0", "seeds 0 to 2", or "seeds 0, 1, 4"; ascending."""
    first, last = seeds[0], seeds[-1]
    if len(seeds) > 2 and last - first + 1 == len(seeds):
        return f"seeds {first} to {last}"
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def ranges(runs: Path, learner: str) -> dict[str, tuple[Range, Range, Range]]:
    """Of every metric its range over the runs: in the first step, a tenth of the way, in the last fifth."""
    found = [curves(path / learner / "metrics.jsonl") for path in sorted(runs.glob("*/seed-*"))]
    return {
        name: (
            _over([run[name][:1] for run in found]),
            _over([run[name][len(run[name]) // 10 - 1 : len(run[name]) // 10 + 1] for run in found]),
            _over([run[name][-(len(run[name]) // 5) :] for run in found], left_out=0.05),
        )
        for name in found[0]
    }


def curves(metrics: Path) -> dict[str, list[float]]:
    """Each metric of the training steps, in their order; steps that lack it are left out."""
    steps = [row for row in map(json.loads, metrics.read_text(encoding="utf-8").splitlines()) if row["kind"] == "train"]
    names = dict.fromkeys(name for step in steps for name in step if name not in NOT_TOLD)
    return {name: [step[name] for step in steps if step.get(name) is not None] for name in names}


def _over(parts: list[list[float]], left_out: float = 0.0) -> Range:
    low, high = np.quantile(np.concatenate(parts), [left_out, 1 - left_out])
    return float(low), float(high)


def between(told: Range) -> str:
    """Both ends with two digits, or one number where these are the same."""
    low, high = (0.0 if abs(end) < 5e-6 else float(f"{end:.2g}") for end in told)
    return (f"{low:g}" if low == high else f"{low:g} to {high:g}").replace("-", "−")


if __name__ == "__main__":
    main()
