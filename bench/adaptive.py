"""Labels saved by asking again where the order is unsure: accuracy by number of labels, for several ways to go on.

    python bench/adaptive.py [--datasets 20] [--bad 0 0.2 0.3] [--answers 4] [--items 400] [--json]
    python bench/adaptive.py --cost 20000 [--postgresql] [--json]

The world is that of bench/consensus.py: 30 labelers, 400 items of 4 answers, a part of the labelers bad, half of those
at random and half upside down. Every item has six rankings ready, of six labelers; a way decides which items get the
next one, by the product's own consensus and gains. `fixed 3` gives every item a first, a second and a third ranking, in
random order; the others fit anew eight times for each ranking to an item. What is told:

- the pair accuracy of the consensus with 1, 1.5, 2, 2.5 and 3 labels to an item, means over data sets;
- at which share of its labels each way is as accurate as `fixed 3` in the end, and as a majority vote of the same three
  labels: where the mean curve crosses the mean accuracy, with a bootstrap over data sets (1.05 stands for "never");
- the calibration error of p (ECE, bench/consensus.py) where the curve crosses;
- how many labels to an item a way took where it ended by itself.

With --cost a store is filled with so many items of three labels each, a third of them with one place open, and adapted
in a process of its own while this one claims and submits: seconds of `adapt` from first to last, and milliseconds of a
claim and submit before, meanwhile and after.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import consensus as world
import numpy as np
import postgresql
from numpy.typing import NDArray
from sqlalchemy import Connection, insert, update

from tuneful.evaluation.intervals import bootstrap_mean
from tuneful.feedback.adaptive import adapt
from tuneful.feedback.assignment import claim
from tuneful.feedback.consensus import Consensus, consensus
from tuneful.feedback.gains import outlooks, wanted
from tuneful.feedback.items import add_items
from tuneful.feedback.projects import add_rater, create_project, set_overlap
from tuneful.feedback.store import Store
from tuneful.feedback.submission import Said, submit
from tuneful.feedback.tables import item, judgment
from tuneful.records import Candidates, Completion, Prompt

Floats = NDArray[np.float64]

FIXED, MOST = 3, 6
BAD_SHARES = (0.0, 0.2, 0.3)
STEPS = 8
"""Fits for each label to an item."""

SHOWN = (1.0, 1.5, 2.0, 2.5, 3.0)
"""Labels to an item at which accuracy is told."""

CLAIMS = 200
"""Claims timed before and after an adaptation."""

NUM_RESAMPLES = 2_000
NEVER = 1.05
MOST_SHARE, MOST_ECE = 0.6, 0.02
"""What is asked: of the share of labels, and of the calibration error."""


@dataclass(frozen=True)
class Way:
    """overlap: labels that every item gets. most: that it may get while less than `sure` of its pairs are expected to
    be in order. queue: what gains most comes first, else what was dealt first."""

    name: str
    overlap: int
    most: int
    sure: float = 0.9
    queue: bool = False


WAYS = (
    Way("fixed 3", FIXED, FIXED),
    Way("adaptive 2 to 6", 2, MOST),
    Way("adaptive 2 to 6, sure .85", 2, MOST, sure=0.85),
    Way("queue 1 to 6", 1, MOST, queue=True),
)


@dataclass(frozen=True)
class Curve:
    """labels: to an item; accuracy and ece with so many. ended: nothing more was wanted."""

    labels: tuple[float, ...]
    accuracy: tuple[float, ...]
    ece: tuple[float, ...]
    ended: bool


def follow(way: Way, data: world.Data, seed: int) -> Curve:
    """One data set labeled in this way, up to as many labels as `fixed 3` takes."""
    said = data.judgments()
    num_items = len(data.value)
    judged = dict.fromkeys((f"item-{i}" for i in range(num_items)), 1)
    dealt = np.random.default_rng(seed).permutation(num_items).tolist()
    given = [said[MOST * i] for i in dealt]
    labels, accuracy, ece = [], [], []
    while True:
        found = consensus(given)
        labels.append(len(given) / num_items)
        accuracy.append(data.accuracy(world.leads_by_score(data, found)))
        ece.append(world.calibration_error(data, found, seed))
        chosen = _next(way, found, judged, dealt)[: min(num_items // STEPS, FIXED * num_items - len(given))]
        if not chosen:
            return Curve(tuple(labels), tuple(accuracy), tuple(ece), len(given) < FIXED * num_items)
        for i in chosen:
            given.append(said[MOST * i + judged[f"item-{i}"]])
            judged[f"item-{i}"] += 1


def _next(way: Way, found: Consensus, judged: dict[str, int], dealt: list[int]) -> list[int]:
    """Items that get one more label, those that get it first in front."""
    seen = outlooks(found)
    more = wanted(seen, judged, sure=way.sure, most=way.most)
    open_ = [i for i in dealt if judged[f"item-{i}"] < way.overlap or f"item-{i}" in more]
    if way.queue:
        return sorted(open_, key=lambda i: -seen[f"item-{i}"].gain)
    # As they were dealt, a second label after all first ones; what adapts has no rounds.
    return sorted(open_, key=lambda i: min(judged[f"item-{i}"], way.overlap))


def crossing(labels: Floats, curves: Floats, goal: float) -> float:
    """Where the mean of curves [D, L] first reaches `goal`, as a share of FIXED labels to an item; NEVER if not."""
    mean = curves.mean(0)
    above = np.flatnonzero(mean >= goal)
    if not len(above):
        return NEVER
    k = int(above[0])
    if k == 0:
        return float(labels[0]) / FIXED
    part = (goal - mean[k - 1]) / (mean[k] - mean[k - 1])
    return float(labels[k - 1] + part * (labels[k] - labels[k - 1])) / FIXED


def crossings(labels: Floats, curves: Floats, goals: Floats) -> dict[str, Any]:
    """The share at which the mean curve [D, L] reaches the mean goal [D], with an interval over data sets."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(curves), size=(NUM_RESAMPLES, len(curves)))
    shares = [crossing(labels, curves[rows], float(goals[rows].mean())) for rows in drawn]
    low, high = np.quantile(shares, [0.025, 0.975])
    share = crossing(labels, curves, float(goals.mean()))
    return {"mean": share, "interval": [float(low), float(high)], "n": len(curves)}


def majority(data: world.Data) -> float:
    """Accuracy of counting the votes of the first three labels."""
    ranks = data.ranks[:, :FIXED]
    first, second = np.triu_indices(ranks.shape[2], 1)
    votes = np.sign(ranks[:, :, second] - ranks[:, :, first]).sum(1)
    return data.accuracy(votes.astype(np.float64))


def measure(num_datasets: int, share_bad: float, num_items: int, size: int, ways: Sequence[Way]) -> dict[str, Any]:
    """Every figure of one share of bad labelers."""
    sets = [
        world.simulate(share_bad, num_items=num_items, seed=seed, raters_per_item=MOST, size=size)
        for seed in range(num_datasets)
    ]
    curves = {way.name: [follow(way, data, seed) for seed, data in enumerate(sets)] for way in ways}
    grid = np.linspace(1, FIXED, 1 + (FIXED - 1) * STEPS)

    def on_grid(name: str, what: str) -> Floats:
        """[D, L]; a way that ended early stays where it was."""
        return np.array([np.interp(grid, one.labels, getattr(one, what)) for one in curves[name]])

    fixed = on_grid(WAYS[0].name, "accuracy")[:, -1]
    votes = np.array([majority(data) for data in sets])
    told: dict[str, Any] = {"majority of 3": bootstrap_mean(votes).as_json()}
    for way in ways:
        accuracy, ece = on_grid(way.name, "accuracy"), on_grid(way.name, "ece")
        reached = crossings(grid, accuracy, fixed)
        place = min(math.ceil((reached["mean"] * FIXED - 1) * STEPS - 1e-9), len(grid) - 1)
        ends = [one.labels[-1] for one in curves[way.name] if one.ended]
        told[way.name] = {
            "accuracy": {
                f"{n:g} labels": bootstrap_mean(accuracy[:, np.abs(grid - n).argmin()]).as_json() for n in SHOWN
            },
            "share of fixed 3": reached,
            "share of a majority of 3": crossings(grid, accuracy, votes),
            "ECE": bootstrap_mean(ece[:, place]).as_json(),
            "ended": {"data sets": len(ends), "labels": float(np.mean(ends)) if ends else None},
        }
    return told


def cost(url: str, num_items: int) -> dict[str, Any]:
    """Seconds of `adapt` on a store of so many items, and what raters notice of it."""
    store = Store.open(url)
    project, raters = fill(store, num_items)

    def work(until: Callable[[int], bool]) -> list[float]:
        """Milliseconds of each claim and submit together, one rater after the other."""
        taken: list[float] = []
        while not until(len(taken)):
            rater = raters[len(taken) % len(raters)]
            began = time.perf_counter()
            given = claim(store, project, rater, now=time.time())
            if given is not None:
                said = Said(id=str(uuid.uuid4()), ranks=(1, 2, 3, 4), flags={}, values={})
                submit(store, given.id, rater, said, now=time.time())
            taken.append(1000 * (time.perf_counter() - began))
        return taken

    before = work(lambda done: done == CLAIMS)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other:
        adapting = other.submit(timed_adapt, url, project)
        meanwhile = work(lambda _: adapting.done())
        told = adapting.result()
    after = work(lambda done: done == CLAIMS)
    store.close()
    spread = {"before": before, "meanwhile": meanwhile, "after": after}
    return {
        "items": num_items,
        **told,
        "ms": {
            name: {"n": len(one)} | {f"p{q}": round(float(np.percentile(one, q)), 1) for q in (50, 99, 100)}
            for name, one in spread.items()
        },
    }


def of_store(num_items: int, *, on_postgresql: bool) -> dict[str, Any]:
    """`cost` on a new database, which is gone afterwards."""
    if on_postgresql:
        with postgresql.serve() as server:
            return {"database": "postgresql"} | cost(postgresql.create_database(server), num_items)
    with tempfile.TemporaryDirectory() as folder:
        return {"database": "sqlite"} | cost(f"sqlite:///{Path(folder) / 'judgments.db'}", num_items)


def timed_adapt(url: str, project: str) -> dict[str, float]:
    """What it did, and its seconds by the clock and of its own process."""
    store = Store.open(url)
    began, own = time.perf_counter(), time.process_time()
    done = adapt(store, project, now=time.time())
    taken = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - own}
    store.close()
    return {name: round(one, 2) for name, one in taken.items()} | asdict(done)


def fill(store: Store, num_items: int) -> tuple[str, list[str]]:
    """A project of items with three rankings each, every third item with room for one more, and its raters."""
    data = world.simulate(0.2, num_items=num_items, seed=0)
    project = create_project(store, "cost", now=0.0)
    set_overlap(store, project, most=MOST, sure=0.9, now=0.0)
    raters = [add_rater(store, project, now=0.0) for _ in data.kinds]
    answers = [tuple(Completion(f"answer {k}", id=f"{k}") for k in range(world.SIZE)) for _ in range(num_items)]
    asked = [Candidates(Prompt(f"question {i}"), offered) for i, offered in enumerate(answers)]
    ids = add_items(store, project, asked, overlap=FIXED + 1, now=0.0)
    rows = [
        {
            "id": str(uuid.uuid4()),
            "project": project,
            "item": ids[i],
            "rater": raters[rater],
            "ranks": ranks,
            "flags": {},
            "values": {},
            "criterion": "preference",
            "shown_order": [],
            "counted": True,
            "created_at": 1.0,
        }
        for i, (people, rankings) in enumerate(zip(data.rater.tolist(), data.ranks.tolist(), strict=True))
        for rater, ranks in zip(people, rankings, strict=True)
    ]
    full = (item.c.project == project, item.c.position % 3 != 0)

    def work(connection: Connection) -> None:
        connection.execute(insert(judgment), rows)
        connection.execute(update(item).where(item.c.project == project).values(submitted=FIXED))
        connection.execute(update(item).where(*full).values(overlap=FIXED))

    store.write(work)
    return project, raters


def lines(bad: str, told: dict[str, Any]) -> list[str]:
    """A table for people."""
    head = "".join(f"{n:>8g}" for n in SHOWN)
    out = [f"{bad:<31}{head}   of fixed 3            of majority         ECE    ended"]
    for name, figures in told.items():
        if name == "majority of 3":
            out.append(f"{name:<31}{figures['mean']:>40.4f}")
            continue
        means = "".join(f"{one['mean']:8.4f}" for one in figures["accuracy"].values())
        shares = []
        for of in ("share of fixed 3", "share of a majority of 3"):
            low, high = figures[of]["interval"]
            shares.append(f"   {figures[of]['mean']:.3f} [{low:.3f}, {high:.3f}]")
        ended = figures["ended"]
        end = f"{ended['data sets']} at {ended['labels']:.2f}" if ended["data sets"] else "none"
        out.append(f"{name:<31}{means}{''.join(shares)}   {figures['ECE']['mean']:.4f}   {end}")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", type=int, default=20)
    parser.add_argument("--bad", type=float, nargs="+", default=BAD_SHARES, help="shares of bad labelers")
    parser.add_argument("--items", type=int, default=world.NUM_ITEMS)
    parser.add_argument("--answers", type=int, default=world.SIZE, help="of each item; 2 are comparisons")
    parser.add_argument("--cost", type=int, default=0, metavar="ITEMS", help="time `adapt` on a store of so many")
    parser.add_argument("--postgresql", action="store_true", help="of --cost")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.cost:
        print(json.dumps({"bench": "adaptive", "mode": "cost"} | of_store(given.cost, on_postgresql=given.postgresql)))
        return
    began = time.process_time()
    figures = {}
    for share in given.bad:
        bad = f"{100 * share:.0f} % bad"
        figures[bad] = measure(given.datasets, share, given.items, given.answers, WAYS)
        print("\n".join(lines(bad, figures[bad])), flush=True)
    told: dict[str, Any] = {"bench": "adaptive", "datasets": given.datasets, "items": given.items}
    told |= {"answers": given.answers, "figures": figures}
    told["passed"] = {
        bad: {
            name: {
                f"<= {MOST_SHARE} of the labels": one["share of fixed 3"]["mean"] <= MOST_SHARE,
                f"ECE <= {MOST_ECE}": one["ECE"]["mean"] <= MOST_ECE,
            }
            for name, one in of_share.items()
            if name in {way.name for way in WAYS[1:]}
        }
        for bad, of_share in figures.items()
    }
    told["cpu_seconds"] = round(time.process_time() - began, 1)
    print(f"{told['cpu_seconds']:.0f} CPU seconds")
    if given.json:
        print(json.dumps(told))


if __name__ == "__main__":
    main()
