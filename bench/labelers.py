"""Labelers at work: an open-loop load on `tuneful web`, each claim and each submit at a time that was fixed before.

    python bench/labelers.py --labelers 200 --every 10 --minutes 5 [--postgresql] [--json]
    python bench/labelers.py --rate [--postgresql] [--json]

Every labeler asks for one item and judges one in each period of `--every` seconds, at moments drawn before the load
begins: the claim in the first half of the labeler's own period, the submit in the second. A latency counts from that
moment, so that a request that waits for a slow one before it is late by that wait. Claims and submits are told apart.

With --rate the same labelers work faster and faster, each pace for `--step-seconds`, until p95 of claims or submits is
past 100 ms or a request fails; told is the last pace before. The database is a file on disk, and its settings are read
back. Beside the load a file of its own on the same disk is written and synced five times a second (`disk`): what takes
long there is not the server. The load comes from this process, whose share of a core is told; above one core the run is
void, for it took what the server needed. So is one while other processes worked, one shorter than five minutes, and one
on a file system that is memory. The result is appended to `--results`, with what made it void.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import resource
import shutil
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from typing import Any

import postgresql
from clients import Connection, Labeler, NoAnswerError, Server, add_questions, commit, judge, labelers, usage
from sqlalchemy import func, select

from tuneful.feedback.projects import create_project
from tuneful.feedback.store import Store
from tuneful.feedback.tables import judgment

HERE = Path(__file__).parent

P95_MS, P99_MS = 100.0, 250.0
"""What is asked of claims and of submits."""

SHORTEST_MINUTES = 5.0

OTHERS_CORES = 0.2
"""How much of a core other processes may take while a run goes on; it needs the machine for itself."""

PAGE = 4096

OVERLAP = 3

FIRST_RATE, FASTER = 20.0, 1.25
"""Judgments per second that a search begins with, and how much the next step is faster."""

SETTINGS = {
    "sqlite": ("journal_mode", "synchronous", "foreign_keys"),
    "postgresql": ("fsync", "synchronous_commit", "full_page_writes"),
}
"""What decides whether a commit is on the disk; synchronous 2 is FULL."""

SAFE = {
    "sqlite": {"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1"},
    "postgresql": {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labelers", type=int, default=200)
    parser.add_argument("--every", type=float, default=10.0, help="seconds in which each labeler judges one item")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--rate", action="store_true", help="search the highest number of judgments per second")
    parser.add_argument("--step-seconds", type=float, default=30.0)
    parser.add_argument("--items", type=int, default=0, help="items of the project; as many as are needed, at least")
    parser.add_argument("--answers", type=int, default=4)
    parser.add_argument("--words", type=int, default=100, help="words of an answer")
    parser.add_argument("--postgresql", action="store_true")
    parser.add_argument("--folder", type=Path, help="where the database is made; a folder for temporary files else")
    parser.add_argument("--results", type=Path, default=HERE / "labelers.jsonl")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with place(given) as (url, folder):
        result = {
            "bench": "labelers",
            "mode": "rate" if given.rate else "load",
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "commit": commit(),
            "cores": os.cpu_count(),
            "labelers": given.labelers,
            "answers": given.answers,
            "words": given.words,
            **(search(given, url, folder) if given.rate else load(given, url, folder)),
        }
    with given.results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")
    print(json.dumps(result) if given.json else "\n".join(f"{name:<16} {value}" for name, value in result.items()))


@contextmanager
def place(given: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    """The URL of a new database and a folder on the same disk, both gone afterwards."""
    if given.folder:
        given.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="tuneful-load-", dir=given.folder))
    with ExitStack() as until_the_end:
        until_the_end.callback(shutil.rmtree, folder)
        if given.postgresql:
            yield postgresql.create_database(until_the_end.enter_context(postgresql.serve(given.folder))), folder
        else:
            yield f"sqlite:///{folder / 'judgments.db'}", folder


@contextmanager
def synced(folder: Path) -> Iterator[list[float]]:
    """Meanwhile, the seconds of each write of a page and its fdatasync to a file in the folder."""
    taken: list[float] = []
    over = Event()

    def work() -> None:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(PAGE))
            os.fsync(file.fileno())
            while not over.wait(0.2):
                began = time.perf_counter()
                os.pwrite(file.fileno(), bytes(PAGE), 0)  # in place, so that nothing but the page waits for the disk
                os.fdatasync(file.fileno())
                taken.append(time.perf_counter() - began)

    thread = Thread(target=work)
    thread.start()
    try:
        yield taken
    finally:
        over.set()
        thread.join()


@dataclass(frozen=True, slots=True)
class World:
    """A project in a store, its labelers, the server that they work with, and a folder on the store's disk."""

    store: Store
    project: str
    labelers: Sequence[Labeler]
    server: Server
    folder: Path
    seed: int


@contextmanager
def world(given: argparse.Namespace, url: str, folder: Path, items: int) -> Iterator[World]:
    store = Store.open(url)
    project = create_project(store, "load", now=time.time())
    add_questions(store, project, items, overlap=OVERLAP, answers=given.answers, words=given.words, seed=given.seed)
    people = labelers(store, project, given.labelers)
    server = Server(url, folder)
    server.start()
    try:
        yield World(store, project, people, server, folder, given.seed)
    finally:
        server.kill()
        store.close()


def load(given: argparse.Namespace, url: str, folder: Path) -> dict[str, Any]:
    """One pace for `--minutes`."""
    periods = max(2, round(60 * given.minutes / given.every))
    items = max(given.items, enough(given.labelers, given.labelers * periods))
    with world(given, url, folder, items) as there:
        told = measure(there, given.every, periods)
        void = told.pop("void")
        if given.minutes < SHORTEST_MINUTES:
            void.append(f"shorter than {SHORTEST_MINUTES:.0f} minutes")
        durable = durability(there.store, folder)
        void += durable.pop("void")
    met = not told["errors"] and all(
        told[kind]["p95_ms"] <= P95_MS and told[kind]["p99_ms"] <= P99_MS for kind in ("claim", "submit")
    )
    return {"every": given.every, "minutes": given.minutes, "items": items, **told, **durable, "met": met, "void": void}


def search(given: argparse.Namespace, url: str, folder: Path) -> dict[str, Any]:
    """Faster until it is too fast; `judgments_per_s` of the last pace that held."""
    steps: list[dict[str, Any]] = []
    best = 0.0
    rate = FIRST_RATE
    with world(given, url, folder, given.items) as there:
        while True:
            periods = max(2, round(given.step_seconds * rate / given.labelers))
            every = given.labelers / rate
            items = enough(given.labelers, given.labelers * periods)
            shape = {"answers": given.answers, "words": given.words, "seed": given.seed}
            add_questions(there.store, there.project, items, overlap=OVERLAP, **shape)
            told = measure(there, every, periods)
            p95 = max(told["claim"]["p95_ms"], told["submit"]["p95_ms"])
            ended = "errors" if told["errors"] else "p95" if p95 > P95_MS else ""
            steps.append({"rate": round(rate, 1), **told, "ended": ended})
            if ended:
                break
            best, rate = told["judgments_per_s"], rate * FASTER
        durable = durability(there.store, folder)
    void = durable.pop("void") + [f"at {step['rate']}/s {why}" for step in steps for why in step.pop("void")]
    return {"judgments_per_s": best, "steps": steps, **durable, "void": void}


def enough(num_labelers: int, num_judgments: int) -> int:
    """Items with which nobody runs out: each labeler has one in hand, and judges none twice."""
    return math.ceil((num_judgments + num_labelers) / OVERLAP) + num_labelers


@dataclass(slots=True)
class Told:
    """What the clients of one run saw: seconds by kind, errors by what they were, how late the generator itself was."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {"claim": [], "submit": []})
    errors: Counter[str] = field(default_factory=Counter)
    own_delay: list[float] = field(default_factory=list)
    judged_at: list[float] = field(default_factory=list)
    """When a submit that was answered was due, in seconds from the load's begin."""
    reopened: int = 0


def measure(there: World, every: float, periods: int) -> dict[str, Any]:
    """The load of `periods` periods of all labelers."""
    with there.store.read() as connection:
        before = connection.execute(select(func.count()).select_from(judgment)).scalar_one()
    told = Told()
    idle, database = there.server.usage(), _database_seconds(there.store)
    machine, own, began = _machine_seconds(), _own_seconds(), time.perf_counter()
    with synced(there.folder) as disk:
        asyncio.run(_work(there, every, periods, told))
    seconds = time.perf_counter() - began
    steady = sum(every <= at < periods * every for at in told.judged_at)  # all labelers are at work
    used, own, machine = there.server.usage(), _own_seconds() - own, _machine_seconds() - machine
    database = _database_seconds(there.store) - database
    others = machine - own - database - (used.cpu - idle.cpu)
    void = ["the generator took more than one core"] if own > seconds else []
    if others > OTHERS_CORES * seconds:
        void.append(f"other processes took {others / seconds:.2f} cores")
    with there.store.read() as connection:
        stored = connection.execute(select(func.count()).select_from(judgment)).scalar_one() - before
    acknowledged = len(told.seconds["submit"])
    if stored < acknowledged:
        told.errors[f"lost {acknowledged - stored} of {acknowledged} judgments"] += 1
    return {
        "database": there.store.dialect,
        "seconds": round(seconds, 1),
        "judgments_per_s": round(steady / max(every, (periods - 1) * every), 2),
        **{kind: _spread(of_kind) for kind, of_kind in told.seconds.items()},
        "errors": dict(told.errors),
        "disk": _spread(disk),
        "generator": {
            "cores": round(own / seconds, 3),
            "delay_p99_ms": _spread(told.own_delay)["p99_ms"],
            "reopened": told.reopened,
        },
        "server": {
            "cores": round((used.cpu - idle.cpu) / seconds, 3),
            "ms_per_judgment": round(1000 * (used.cpu - idle.cpu) / max(1, acknowledged), 2),
            "idle_mib": round(idle.mib),
            "mib": round(used.mib),
            "peak_mib": round(used.peak_mib),
        },
        "database_cores": round(database / seconds, 3),
        "others_cores": round(others / seconds, 3),
        "void": void,
    }


async def _work(there: World, every: float, periods: int, told: Told) -> None:
    chance = random.Random(f"{there.seed} {every}")
    plans = []
    for _ in there.labelers:
        phase = chance.random()
        # From 0 to half a period after the period's begin the claim, from half of it to its end the submit.
        moments = [(phase + k + chance.random() / 2, phase + k + (1 + chance.random()) / 2) for k in range(periods)]
        plans.append([(every * a, every * b) for a, b in moments])
    start = asyncio.get_running_loop().time() + 0.5
    async with asyncio.TaskGroup() as group:
        for labeler, plan in zip(there.labelers, plans, strict=True):
            group.create_task(_labeler(there, labeler, plan, start, told, random.Random(chance.random())))


async def _labeler(
    there: World,
    labeler: Labeler,
    plan: Sequence[tuple[float, float]],
    start: float,
    told: Told,
    chance: random.Random,
) -> None:
    connection = Connection(there.server.port, labeler)
    for claim_at, submit_at in plan:
        answer = await _ask(connection, "claim", f"/p/{there.project}/claim", {"besides": []}, start + claim_at, told)
        if answer is None:
            continue
        given = answer["assignment"]
        if given is None:
            told.errors["claim: nothing to judge"] += 1
            continue
        body = judge(given, chance, id_=str(uuid.uuid4()))
        receipt = await _ask(connection, "submit", f"/a/{given['id']}/submit", body, start + submit_at, told)
        if receipt is not None:
            told.judged_at.append(submit_at)
    connection.close()


async def _ask(connection: Connection, kind: str, path: str, body: object, due: float, told: Told) -> Any:
    """The answer, None when there was none of status 200. The latency is from `due`, a time of the loop's clock."""
    clock = asyncio.get_running_loop().time
    if (left := due - clock()) > 0:
        await asyncio.sleep(left)
        told.own_delay.append(clock() - due)
    try:
        try:
            status, answer = await connection.post(path, body)
        except NoAnswerError as error:
            if not error.stale:
                raise
            told.reopened += 1  # as a browser does
            status, answer = await connection.post(path, body)
    except NoAnswerError as error:
        told.errors[f"{kind}: {error}"] += 1
        return None
    if status != 200:
        told.errors[f"{kind}: status {status}, {str(answer.get('error'))[:80]}"] += 1
        return None
    told.seconds[kind].append(clock() - due)
    return answer


def durability(store: Store, folder: Path) -> dict[str, Any]:
    """What the database says of its commits, and the disk it lies on; void: why that would not be safe."""
    read = "PRAGMA" if store.dialect == "sqlite" else "SHOW"
    with store.read() as connection:
        found = {
            name: str(connection.exec_driver_sql(f"{read} {name}").scalar_one()) for name in SETTINGS[store.dialect]
        }
        if store.dialect == "postgresql":
            folder = Path(connection.exec_driver_sql("SHOW data_directory").scalar_one())
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    above = [(point, kind) for point, kind in mounts if folder.resolve().is_relative_to(point)]
    kind = max(above, key=lambda mount: len(mount[0]))[1]
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    void = [f"{name} is {value}" for name, value in found.items() if value != SAFE[store.dialect][name]]
    if kind in ("tmpfs", "ramfs"):
        void.append(f"the database lies in memory ({kind})")
    return {"settings": found, "file_system": kind, "folder_mib": round(size / 2**20, 1), "void": void}


def _spread(seconds: Sequence[float]) -> dict[str, Any]:
    """Percentiles in ms: the smallest value that at least that share does not exceed."""
    ordered = sorted(seconds)

    def percentile(share: float) -> float:
        return round(1000 * ordered[max(0, math.ceil(share * len(ordered)) - 1)], 2) if ordered else 0.0

    names = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99, "max_ms": 1.0}
    return {"num": len(ordered), **{name: percentile(share) for name, share in names.items()}}


def _own_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _database_seconds(store: Store) -> float:
    """CPU seconds of PostgreSQL's processes; SQLite's are the server's."""
    if store.dialect == "sqlite":
        return 0.0
    with store.read() as connection:
        data = Path(connection.exec_driver_sql("SHOW data_directory").scalar_one())
    return usage(int((data / "postmaster.pid").read_text().splitlines()[0])).cpu


def _machine_seconds() -> float:
    """CPU seconds that all processes have used together: user, nice, system, interrupts."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return (sum(fields[:3]) + sum(fields[5:7])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
