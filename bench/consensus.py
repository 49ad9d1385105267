"""The consensus against counting votes, on labelers of whom a part is bad, and how sure it is, and how fast.

    python bench/consensus.py [--datasets 20] [--rankings 100000] [--json]
    python bench/consensus.py --crowdkit DIR [--crowdkit-datasets 3] [--json]

A data set has 30 labelers, 400 items of 4 answers and 3 rankings of each item. True values are N(0, 1); a good labeler
ranks by value / tau + Gumbel noise, tau such that two of them agree on 72 % of pairs; of the bad ones half rank at
random and half upside down. Accuracy: share of all pairs put in their true order, an even vote counting half; ours
takes the side whose confidence is above one half. AUC: how well the slope tells bad labelers from good ones when each
has ranked 10 items. ECE: |p - share of labels|, mean over 10 bins of equally many pairs, against 12,000 labels of
careful labelers who are not in the data. Means over data sets, with bootstrap intervals over data sets; differences are
paired. The seconds are CPU seconds of all threads, from judgments to the whole consensus: what one core needs.

With --crowdkit DIR (pip install --target DIR crowd-kit==1.4.2) its aggregators run on the pairs of the same data.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneful.evaluation.intervals import bootstrap_mean, paired_difference
from tuneful.feedback.consensus import Consensus, consensus
from tuneful.records import Judgment

Floats = NDArray[np.float64]

NUM_RATERS, SIZE, RATERS_PER_ITEM, NUM_ITEMS = 30, 4, 3, 400
AGREEMENT = 0.72
BAD_SHARES = (0.0, 0.1, 0.2, 0.3, 0.4)
RANKINGS_FOR_AUC = 10
LABELS_PER_PAIR = 5  # 12,000 in all
BINS = 10
FIRST, SECOND = np.triu_indices(SIZE, 1)


@dataclass(frozen=True)
class Target:
    """What is asked of the mean of one figure."""

    name: str
    asked: str
    holds: Callable[[float], bool]


TARGETS = (
    Target("accuracy, 30 % bad", ">= .83", lambda x: x >= 0.83),
    Target("ours - majority, 30 % bad", ">= .08", lambda x: x >= 0.08),
    Target("ours - majority, 0 % bad", ">= -.002", lambda x: x >= -0.002),
    Target("AUC inverted", ">= .99", lambda x: x >= 0.99),
    Target("AUC random", ">= .95", lambda x: x >= 0.95),
    *(Target(f"ECE, {share:.0%} bad".replace("%", " %"), "<= .02", lambda x: x <= 0.02) for share in BAD_SHARES),
    Target("CPU seconds", "<= 5", lambda x: x <= 5),
)


@dataclass(frozen=True)
class Data:
    """ranks, rater: int [I, N, K] and [I, N], N = 3 here; value: float [I, K]; kinds: of each labeler."""

    value: Floats
    rater: NDArray[np.int64]
    ranks: NDArray[np.int64]
    kinds: tuple[str, ...]

    def judgments(self) -> list[Judgment]:
        names = [f"rater-{n:03}" for n in range(len(self.kinds))]
        ids = [tuple(f"{i}-{k}" for k in range(self.value.shape[1])) for i in range(len(self.value))]
        return [
            Judgment(
                id=f"{i}-{n}",
                item=f"item-{i}",
                prompt=f"prompt-{i}",
                completions=ids[i],
                rater=names[n],
                rater_kind="simulated",
                ranks=tuple(ranks),
            )
            for i, (raters, rankings) in enumerate(zip(self.rater.tolist(), self.ranks.tolist(), strict=True))
            for n, ranks in zip(raters, rankings, strict=True)
        ]

    @property
    def truth(self) -> Floats:
        """Difference of the true values of each pair [I, P]."""
        first, second = np.triu_indices(self.value.shape[1], 1)
        return np.asarray(self.value[:, first] - self.value[:, second], np.float64)

    def accuracy(self, lead: Floats) -> float:
        """Of a lead of the first of each pair [I, P]; 0 counts half."""
        return float(np.mean(0.5 + 0.5 * np.sign(lead) * np.sign(self.truth)))


@cache
def tau() -> float:
    """Noise at which two good labelers agree on 72 % of pairs: E[p^2 + (1 - p)^2] over differences d ~ N(0, 2)."""
    from scipy.optimize import brentq

    nodes, weights = np.polynomial.hermite_e.hermegauss(101)
    weights = weights / weights.sum()

    def excess(noise: float) -> float:
        p = 1 / (1 + np.exp(-np.sqrt(2) * nodes / noise))
        return float(weights @ (p**2 + (1 - p) ** 2)) - AGREEMENT

    return float(brentq(excess, 0.05, 10))


def simulate(
    share_bad: float,
    *,
    num_items: int,
    seed: int,
    num_raters: int = NUM_RATERS,
    raters_per_item: int = RATERS_PER_ITEM,
    size: int = SIZE,
) -> Data:
    """raters_per_item has to divide num_raters."""
    rng = np.random.default_rng(seed)
    bad = round(share_bad * num_raters)
    kinds = ("good",) * (num_raters - bad) + ("random",) * (bad - bad // 2) + ("inverted",) * (bad // 2)
    direction = np.array([{"good": 1.0, "random": 0.0, "inverted": -1.0}[kind] for kind in kinds])
    # Everybody ranks as many items, in groups that are dealt anew each time round.
    rounds = -(-num_items * raters_per_item // num_raters)
    dealt = np.concatenate([rng.permutation(num_raters) for _ in range(rounds)])
    rater = dealt[: num_items * raters_per_item].reshape(num_items, raters_per_item)
    value = rng.normal(size=(num_items, size))
    utility = direction[rater][..., None] * value[:, None] / tau()
    utility += rng.gumbel(size=utility.shape)
    ranks = np.argsort(np.argsort(-utility, axis=2), axis=2) + 1
    return Data(value, rater, ranks, kinds)


def leads_by_score(data: Data, found: Consensus) -> Floats:
    """Lead of the first of each pair [I, P] by the consensus."""
    num_items, size = data.value.shape
    first, second = np.triu_indices(size, 1)
    score = np.array([[found.scores[f"{i}-{k}"][0] for k in range(size)] for i in range(num_items)])
    return np.asarray(score[:, first] - score[:, second], np.float64)


def leads(data: Data, found: Consensus) -> dict[str, Floats]:
    """Lead of the first of each pair [I, P] by ours and by the two ways of counting."""
    votes = np.sign(data.ranks[:, :, SECOND] - data.ranks[:, :, FIRST]).sum(1)
    places = data.ranks.sum(1)
    return {
        "ours": leads_by_score(data, found),
        "majority": votes.astype(np.float64),
        "Borda": (places[:, SECOND] - places[:, FIRST]).astype(np.float64),
    }


def calibration_error(data: Data, found: Consensus, seed: int) -> float:
    """ECE of p against labels of careful labelers, each of them new."""
    value = {f"{i}-{k}": v for (i, k), v in np.ndenumerate(data.value)}
    p = np.array([pair.p for pair in found.pairs])
    difference = np.array([value[pair.first] - value[pair.second] for pair in found.pairs])
    chance = 1 / (1 + np.exp(-difference / tau()))
    labels = np.random.default_rng(seed + 1_000_000).random((LABELS_PER_PAIR, len(p))) < chance
    bins = np.array_split(np.argsort(p, kind="stable"), BINS)
    return float(np.mean([abs(p[rows].mean() - labels[:, rows].mean()) for rows in bins]))


def areas(seed: int) -> dict[str, float]:
    """AUC of random and of inverted labelers against good ones, by the slope, at 30 % bad."""
    data = simulate(0.3, num_items=RANKINGS_FOR_AUC * NUM_RATERS // RATERS_PER_ITEM, seed=seed)
    slope = np.array([report.reliability for report in consensus(data.judgments()).raters])
    kind = np.array(data.kinds)
    good = slope[kind == "good"]
    return {
        bad: float(np.mean(0.5 + 0.5 * np.sign(good - slope[kind == bad][:, None]))) for bad in ("random", "inverted")
    }


def seconds(num_rankings: int) -> dict[str, float]:
    """Of the whole consensus, 300 labelers, a fifth of them bad: CPU time of all threads together, and by the clock."""
    judgments = simulate(0.2, num_items=num_rankings // RATERS_PER_ITEM, seed=0, num_raters=300).judgments()
    began, by_clock = time.process_time(), time.perf_counter()
    consensus(judgments)
    return {"mean": time.process_time() - began, "wall": time.perf_counter() - by_clock, "rankings": len(judgments)}


def measure(num_datasets: int, num_rankings: int) -> dict[str, Any]:
    """Every figure, each a mean with its interval."""
    figures: dict[str, list[float]] = {}

    def add(name: str, number: float) -> None:
        figures.setdefault(name, []).append(number)

    for share in BAD_SHARES:
        bad = f"{100 * share:.0f} % bad"
        for seed in range(num_datasets):
            data = simulate(share, num_items=NUM_ITEMS, seed=seed)
            found = consensus(data.judgments())
            accuracy = {name: data.accuracy(lead) for name, lead in leads(data, found).items()}
            add(f"accuracy, {bad}", accuracy["ours"])
            for name in ("majority", "Borda"):
                add(f"{name}, {bad}", accuracy[name])
                add(f"ours - {name}, {bad}", accuracy["ours"] - accuracy[name])
            add(f"ECE, {bad}", calibration_error(data, found, seed))
    for seed in range(num_datasets):
        for kind, area in areas(seed).items():
            add(f"AUC {kind}", area)
    result: dict[str, Any] = {name: bootstrap_mean(numbers).as_json() for name, numbers in figures.items()}
    result["CPU seconds"] = seconds(num_rankings)
    return result


def crowd_kit(folder: Path, num_datasets: int) -> dict[str, Any]:
    """Accuracy of crowd-kit's aggregators on the pairs of the same data, and the seconds of a data set."""
    sys.path.insert(0, str(folder))
    import pandas
    from crowdkit.aggregation import BradleyTerry, DawidSkene, MajorityVote, NoisyBradleyTerry

    def frame(data: Data) -> Any:
        """One row a vote: left and right are the answers, first and second, and label the preferred one."""
        item = np.repeat(np.arange(len(data.value)), RATERS_PER_ITEM * len(FIRST))
        rater = np.repeat(data.rater.ravel(), len(FIRST))
        first, second = (np.tile(side, data.rater.size) for side in (FIRST, SECOND))
        won = (data.ranks[:, :, FIRST] < data.ranks[:, :, SECOND]).ravel()
        left, right = (SIZE * item + side for side in (first, second))
        return pandas.DataFrame(
            {
                "task": item * len(FIRST) + np.tile(np.arange(len(FIRST)), data.rater.size),
                "worker": rater,
                "left": left,
                "right": right,
                "label": np.where(won, left, right),
                "won": won.astype(int),
            }
        )

    def by_label(model: Any, rows: Any, data: Data) -> Floats:
        """Lead by the probability that the first side won, 0 where it is one half."""
        given = rows[["task", "worker"]].assign(label=rows["won"])
        p = model.fit_predict_proba(given).reindex(columns=[0, 1]).fillna(0).sort_index()
        return np.asarray(p[1] - p[0], np.float64).reshape(len(data.value), -1)

    def by_score(model: Any, rows: Any, data: Data) -> Floats:
        score = model.fit_predict(rows[["worker", "left", "right", "label"]]).sort_index()
        table = np.asarray(score, np.float64).reshape(data.value.shape)
        return table[:, FIRST] - table[:, SECOND]

    ways: dict[str, Callable[[Any, Data], Floats]] = {
        "MajorityVote": lambda rows, data: by_label(MajorityVote(), rows, data),
        "DawidSkene": lambda rows, data: by_label(DawidSkene(n_iter=100), rows, data),
        # with its default tolerance it ends after two rounds, since it compares an array with itself
        "BradleyTerry": lambda rows, data: by_score(BradleyTerry(n_iter=100, tol=0), rows, data),
        "NoisyBradleyTerry": lambda rows, data: by_score(NoisyBradleyTerry(n_iter=100), rows, data),
    }
    result: dict[str, Any] = {}
    for share in BAD_SHARES:
        bad = f"{100 * share:.0f} % bad"
        accuracy: dict[str, list[float]] = {name: [] for name in ("ours", *ways)}
        taken = dict.fromkeys(accuracy, 0.0)
        for seed in range(num_datasets):
            data = simulate(share, num_items=NUM_ITEMS, seed=seed)
            judgments, rows = data.judgments(), frame(data)
            began = time.perf_counter()
            accuracy["ours"].append(data.accuracy(leads(data, consensus(judgments))["ours"]))
            taken["ours"] += time.perf_counter() - began
            for name, way in ways.items():
                began = time.perf_counter()
                with warnings.catch_warnings(), np.errstate(all="ignore"):
                    warnings.simplefilter("ignore")
                    accuracy[name].append(data.accuracy(way(rows, data)))
                taken[name] += time.perf_counter() - began
        for name, numbers in accuracy.items():
            measured: dict[str, Any] = {**bootstrap_mean(numbers).as_json()}
            result[f"{name}, {bad}"] = measured | {"seconds": taken[name] / num_datasets}
            if name != "ours":
                result[f"ours - {name}, {bad}"] = paired_difference(accuracy["ours"], numbers).as_json()
    return result


def table(result: dict[str, Any]) -> list[str]:
    """A line for every figure, with what was asked and whether it is kept."""
    targets = {target.name: target for target in TARGETS}
    lines = []
    for name, measured in result.items():
        mean = measured["mean"]
        target = targets.get(name)
        verdict = f"   {target.asked:<9} {'pass' if target.holds(mean) else 'FAIL'}" if target else ""
        between = "[{:+.4f}, {:+.4f}]".format(*measured["interval"]) if "interval" in measured else 20 * " "
        more = f"   {measured['seconds']:.2f} s a data set" if "seconds" in measured else ""
        lines.append(f"{name:<34} {mean:+.4f} {between}{verdict}{more}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", type=int, default=20)
    parser.add_argument("--rankings", type=int, default=100_000, help="of 4 answers, for the seconds")
    parser.add_argument("--crowdkit", type=Path, metavar="DIR", help="compare with crowd-kit, installed in DIR")
    parser.add_argument("--crowdkit-datasets", type=int, default=3, help="for each share; NoisyBradleyTerry is slow")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    result = measure(given.datasets, given.rankings)
    print(f"{given.datasets} data sets for each share, tau {tau():.3f}; {given.rankings:,} rankings for the seconds")
    print("\n".join(table(result)))
    told: dict[str, Any] = {"bench": "consensus", "datasets": given.datasets, "figures": result}
    told["passed"] = {target.name: target.holds(result[target.name]["mean"]) for target in TARGETS}
    if given.crowdkit:
        told["crowd_kit"] = crowd_kit(given.crowdkit, given.crowdkit_datasets)
        print(f"crowd-kit on the pairs of the same data, {given.crowdkit_datasets} data sets for each share")
        print("\n".join(table(told["crowd_kit"])))
    if given.json:
        print(json.dumps(told))


if __name__ == "__main__":
    main()
