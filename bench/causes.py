"""How often the cause of a rater's disagreement is found, and how often a good rater is accused.

    python bench/causes.py [--datasets 40] [--judgments 30 60 150] [--json]

A data set has 16 good raters and one of each bad kind; each ranks `judgments` items of 4 answers, on two criteria,
three raters to an item. Good raters are people: they differ in how careful they are (slope 1.7, a sixth more or less),
in pace, in how near two answers must be for a tie, and each leans a little to length and to place. Longer answers are
somewhat better (correlation .3), and on one criterion only. Half of a data set's items were judged under a first
version of the instructions.

For each bad kind: the share of data sets in which its cause was named, and in which it was the only one named; for the
good ones, the share of raters accused of anything. Intervals are Wilson's. The last number of judgments is held against
the targets.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneful.evaluation.intervals import Measured, MeasuredJSON
from tuneful.feedback.causes import Cause, causes
from tuneful.feedback.consensus import consensus
from tuneful.feedback.shares import wilson
from tuneful.records import Judgment

BAD = ("inverted", "random", "one criterion swapped", "too fast", "position", "length", "ties", "changed")
NUM_GOOD = 16
CRITERIA = ("helpful", "harmless")
SIZE, RATERS_PER_ITEM = 4, 3
SLOPE = 1.7
FOUND, ACCUSED = 0.80, 0.02
"""Targets: share of bad raters whose cause is named, at least; share of good raters accused, at most."""


@dataclass(frozen=True)
class World:
    judgments: list[Judgment]
    kinds: dict[str, str]
    lengths: dict[str, float]

    def causes(self) -> dict[str, tuple[Cause, ...]]:
        found = {c: consensus([j for j in self.judgments if j.criterion == c]) for c in CRITERIA}
        return causes(self.judgments, found, self.lengths)


def simulate(kinds: Sequence[str], *, num_judgments: int, seed: int) -> World:
    """Each rater of `kinds` ("good" or a cause) ranks about `num_judgments` items on both criteria."""
    rng = np.random.default_rng(seed)
    num_items = len(kinds) * num_judgments // RATERS_PER_ITEM
    longer = rng.normal(size=(num_items, SIZE))
    own = rng.normal(size=(2, num_items, SIZE))
    value = {"helpful": 0.3 * longer + np.sqrt(0.91) * own[0], "harmless": own[1]}
    words = np.round(np.exp(4.5 + 0.5 * longer))
    names = [rng.bytes(4).hex() for _ in kinds]
    people = [_Rater(kind, rng) for kind in kinds]
    load = np.zeros(len(kinds))
    judgments = []
    for item in range(num_items):
        ids = tuple(f"{item}-{k}" for k in range(SIZE))
        chosen = np.lexsort((rng.random(len(kinds)), load))[:RATERS_PER_ITEM]
        load[chosen] += 1
        late = 2 * item >= num_items
        for n in chosen:
            shown = rng.permutation(SIZE)
            place = np.empty(SIZE)
            place[shown] = np.arange(SIZE)
            judgments += [
                Judgment(
                    id=rng.bytes(16).hex(),
                    item=f"item {item}",
                    prompt=f"prompt {item}",
                    completions=ids,
                    rater=names[n],
                    rater_kind="simulated",
                    ranks=people[n].rank(value[criterion][item], longer[item], place, criterion, late, rng),
                    criterion=criterion,
                    shown_order=tuple(ids[k] for k in shown),
                    instructions="second" if late else "first",
                    seconds=float(people[n].seconds(words[item].sum(), rng)),
                    created_at=f"2026-01-{1 + 27 * item // num_items:02}T09:00:00+00:00",
                )
                for criterion in CRITERIA
            ]
    lengths = {f"{i}-{k}": float(n) for (i, k), n in np.ndenumerate(words)}
    return World(judgments, dict(zip(names, kinds, strict=True)), lengths)


class _Rater:
    def __init__(self, kind: str, rng: np.random.Generator) -> None:
        self.kind = kind
        self.slope = SLOPE * np.exp(rng.normal(0, 0.15))
        self.pace = np.exp(rng.normal(0, 0.3))
        self.near = rng.uniform(0, 0.3)
        self.to_length, self.to_first = rng.normal(0, 0.1, size=2)
        self.side = rng.choice([-1, 1])
        if kind == "too fast":
            self.slope, self.pace = SLOPE / 3, 0.25 * self.pace
        elif kind == "position":
            self.slope, self.to_first = SLOPE / 2, 0.75 * self.side
        elif kind == "length":
            self.slope, self.to_length = SLOPE / 2, 0.75 * self.side

    def rank(
        self,
        value: NDArray[np.float64],
        longer: NDArray[np.float64],
        place: NDArray[np.float64],
        criterion: str,
        late: bool,
        rng: np.random.Generator,
    ) -> tuple[int, ...]:
        """1 the best; two neighbours that are nearer than `near` tie."""
        first = (place.mean() - place) / place.std()
        utility = self.to_length * longer + self.to_first * first
        slope = self.slope
        if self.kind == "random" or (self.kind == "changed" and late):
            slope, utility = 0.0, 0 * utility
        elif self.kind == "inverted" or (self.kind == "one criterion swapped" and criterion == "harmless"):
            slope = -slope
        utility = utility + slope * value + rng.gumbel(size=SIZE)
        order = np.argsort(-utility)
        near = self.near
        if self.kind == "ties":
            near = rng.choice([1.5, 10.0])
        group = np.concatenate(([1], 1 + np.cumsum(-np.diff(utility[order]) > near)))
        ranks = np.empty(SIZE, np.int64)
        ranks[order] = group
        return tuple(ranks.tolist())

    def seconds(self, words: float, rng: np.random.Generator) -> float:
        return self.pace * (5 + words / 4) * rng.lognormal(sigma=0.4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", type=int, default=40)
    parser.add_argument("--judgments", type=int, nargs="+", default=[30, 60, 150])
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    result: dict[str, Any] = {"bench": "causes", "datasets": given.datasets, "judgments": {}}
    for number in given.judgments:
        began = time.perf_counter()
        found = measure(given.datasets, number)
        result["judgments"][number] = found
        print(f"{number} rankings of each criterion by each rater, {time.perf_counter() - began:.0f} s")
        for kind in BAD:
            told, alone = found["named"][kind], found["alone"][kind]
            print(f"  {kind:<22} named {_share(told)}   alone {_share(alone)}")
        print(f"  {'good raters':<22} accused {_share(found['accused'])}   of {found['as'] or 'nothing'}")
    passed = {
        **{kind: found["named"][kind]["mean"] >= FOUND for kind in BAD},
        "good raters": found["accused"]["mean"] <= ACCUSED,
    }
    result["passed"] = passed
    for kind, well in passed.items():
        target = f"accused <= {ACCUSED:.0%}" if kind == "good raters" else f"named >= {FOUND:.0%}"
        print(f"{kind:<24} {target:<16} {'pass' if well else 'FAIL'}")
    if given.json:
        print(json.dumps(result))


def measure(num_datasets: int, num_judgments: int) -> dict[str, Any]:
    """Over the data sets of seeds 0, 1, ...: how often each cause was named, and what good raters were accused of."""
    named, alone, accused = dict.fromkeys(BAD, 0), dict.fromkeys(BAD, 0), 0
    blamed: dict[str, int] = {}
    for seed in range(num_datasets):
        world = simulate((*NUM_GOOD * ("good",), *BAD), num_judgments=num_judgments, seed=seed)
        for rater, found in world.causes().items():
            names, kind = [cause.name for cause in found], world.kinds[rater]
            if kind == "good":
                accused += bool(names)
                for name in names:
                    blamed[name] = blamed.get(name, 0) + 1
            else:
                named[kind] += kind in names
                alone[kind] += names == [kind]
    return {
        "named": {kind: _measured(count, num_datasets) for kind, count in named.items()},
        "alone": {kind: _measured(count, num_datasets) for kind, count in alone.items()},
        "accused": _measured(accused, NUM_GOOD * num_datasets),
        "as": blamed,
    }


def _measured(count: int, num: int) -> MeasuredJSON:
    share = wilson(count / num, num)
    return Measured(share.value, share.low, share.high, num).as_json()


def _share(measured: dict[str, Any]) -> str:
    low, high = measured["interval"]
    return f"{measured['mean']:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
