"""What it is worth that a judge says how sure it is: the consensus with its probabilities, and with its order alone.

    python bench/judges.py [--datasets 10] [--json]

A data set has 600 items of 2 or 4 answers of true values N(0, 1), all ranked by one judge, and by two of 20 people or
by nobody else. People rank by 1.7 value + Gumbel noise. A judge sees value + noise and gives a pair that it sees x
apart the probability sigma(slope x). What is measured is the log-loss of p where a careful person's answer is drawn
from sigma(1.7 x true difference), in nats, less is better. Means over data sets; the differences, with probabilities
less without, are paired, with bootstrap intervals over data sets.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
from scipy.special import expit

from tuneful.evaluation.intervals import paired_difference
from tuneful.feedback.consensus import consensus
from tuneful.feedback.slopes import PRIOR_SLOPE
from tuneful.records import Judgment

NUM_ITEMS, NUM_PEOPLE = 600, 20


@dataclass(frozen=True)
class Judge:
    name: str
    slope: float
    noise: float


JUDGES = (
    Judge("right but for noise of .5", PRIOR_SLOPE, 0.5),
    Judge("noise of 1", PRIOR_SLOPE, 1.0),
    Judge("five times too sure, noise of .7", 5 * PRIOR_SLOPE, 0.7),
    Judge("ten times too unsure, noise of .5", PRIOR_SLOPE / 10, 0.5),
)


def simulate(judge: Judge, size: int, people: int, seed: int) -> tuple[list[Judgment], dict[str, float]]:
    """The judgments, and the true value of each completion."""
    rng = np.random.default_rng(seed)
    said: list[Judgment] = []
    value: dict[str, float] = {}
    for n in range(NUM_ITEMS):
        ids = tuple(f"{n}-{k}" for k in range(size))
        true = rng.normal(size=size)
        value.update(zip(ids, true.tolist(), strict=True))

        def ranks(seen: np.ndarray) -> tuple[int, ...]:
            return tuple(((-seen).argsort().argsort() + 1).tolist())

        about = Judgment(id=f"{n}", item=f"item {n}", prompt=f"prompt {n}", completions=ids, rater="judge")
        for who in rng.choice(NUM_PEOPLE, people, replace=False):
            drawn = ranks(PRIOR_SLOPE * true + rng.gumbel(size=size))
            said.append(replace(about, id=f"{n} {who}", rater=f"person {who}", ranks=drawn))
        seen = true + judge.noise * rng.normal(size=size)
        sure = {
            f"{ids[a]}>{ids[b]}": float(expit(judge.slope * (seen[a] - seen[b])))
            for a, b in permutations(range(size), 2)
        }
        said.append(replace(about, rater_kind="ai", ranks=ranks(seen), values=sure))
    return said, value


def loss(said: list[Judgment], value: dict[str, float]) -> float:
    pairs = consensus(said).pairs
    p = np.array([pair.p for pair in pairs])
    first = expit(PRIOR_SLOPE * np.array([value[pair.first] - value[pair.second] for pair in pairs]))
    return float(-(first * np.log(p) + (1 - first) * np.log(1 - p)).mean())


def measure(num_datasets: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for judge in JUDGES:
        for size in (2, 4):
            for people in (0, 2):
                losses = []
                for seed in range(num_datasets):
                    said, value = simulate(judge, size, people, seed)
                    losses.append((loss(said, value), loss([replace(one, values={}) for one in said], value)))
                soft, firm = (list(column) for column in zip(*losses, strict=True))
                row = {"judge": judge.name, "answers": size, "people": people}
                means = {"order": float(np.mean(firm)), "probabilities": float(np.mean(soft))}
                rows.append(row | means | {"difference": paired_difference(soft, firm).as_json()})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = measure(given.datasets)
    if given.json:
        print(json.dumps({"bench": "judges", "datasets": given.datasets, "rows": rows}))
        return
    for row in rows:
        told = row["difference"]
        assert isinstance(told, dict)
        low, high = told["interval"]
        print(
            f"{row['judge']:<34} {row['answers']} answers, {row['people']} people: order {row['order']:.4f}, "
            f"probabilities {row['probabilities']:.4f}, {told['mean']:+.4f} [{low:+.4f}, {high:+.4f}]"
        )


if __name__ == "__main__":
    main()
