"""kill -9 of the labeling server under load, again and again: nothing lost, nothing twice, no place given away twice.

    python bench/kills.py --runs 1000 [--postgresql] [--results bench/kills.jsonl] [--json]

A run is one SIGKILL of the server's whole process group at a time drawn before the run's first request: half of them at
any moment of the load's first second, half a few milliseconds after a certain submit was sent, where it is written and
its answer is due. Labelers go on through it, as pages with an outbox do: they send again what was not answered, send
twice at once, send old letters after new ones, revise, extend, and stop for a while. Beside them one labeler leaves an
item whose lease ends in the run, and may come back late, and another one waits for that place. The server is started
again, everybody comes to an end with what they have in hand, and the history checker (tests/feedback/store/history.py)
holds all that they sent and were told against the rows of the store.

A store serves `KILLS_OF_A_STORE` runs, and is checked with its whole history after each. Each run adds a line to the
results; runs that have one are not run again, so that what was cut off goes on. A run that found something keeps its
log, the rows and the server's output below `--keep`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import postgresql
from clients import Connection, Labeler, NoAnswerError, Server, add_questions, commit, judge, labelers

from tuneful.feedback.assignment import AHEAD, LEASE_SECONDS, claim
from tuneful.feedback.projects import create_project
from tuneful.feedback.store import Store

HERE = Path(__file__).parent

KILLS_OF_A_STORE = 20

CLIENTS = 8

ITEMS, OVERLAP = 3000, 2

LOAD_SECONDS = 1.0
"""Within which a kill at any moment comes."""

AFTER_SUBMITS, SOON_SECONDS = 40, 0.02
"""A kill beside a submit comes after one of the first so many, and so soon."""

SETTLE_SECONDS = 0.3
"""How long new work is begun after the restart."""

LONGEST_SECONDS = 120.0
"""A run that takes longer has clients who do not come to an end."""

LEAST_ACKNOWLEDGED = 500

NO_ANSWER = "no answer"
"""As the history checker reads it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One run, drawn before it: the kill comes `delay` seconds after the submit number `after` was sent, 0: after the
    load began. An item is left with a lease that ends `lease` seconds after the begin; its labeler comes `back` seconds
    after that, None: never."""

    run: int
    seed: int
    after: int
    delay: float
    lease: float
    back: float | None


def draw(run: int, seed: int = 0) -> Plan:
    chance = random.Random(f"{seed} {run}")
    beside_a_submit = chance.random() < 0.5
    return Plan(
        run=run,
        seed=seed,
        after=chance.randint(1, AFTER_SUBMITS) if beside_a_submit else 0,
        delay=chance.uniform(0, SOON_SECONDS if beside_a_submit else LOAD_SECONDS),
        lease=chance.uniform(0.2, 1.8),
        back=chance.uniform(0, 0.5) if chance.random() < 0.5 else None,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--postgresql", action="store_true")
    parser.add_argument("--results", type=Path, default=HERE / "kills.jsonl")
    parser.add_argument("--keep", type=Path, default=Path("runs/kills"), help="for what a failed run leaves")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    database = "postgresql" if given.postgresql else "sqlite"
    result = kill_often(database, given.runs, results=given.results, keep=given.keep, seed=given.seed, tell=True)
    print(json.dumps(result) if given.json else "\n".join(f"{name:<14} {value}" for name, value in result.items()))
    if given.runs >= 100 and result["acknowledged"] < LEAST_ACKNOWLEDGED:
        raise SystemExit(f"{result['acknowledged']} judgments were acknowledged, fewer than {LEAST_ACKNOWLEDGED}")
    if result["violations"]:
        raise SystemExit(f"{len(result['violations'])} runs found something; see {given.results} and {given.keep}")


def kill_often(
    database: str, runs: int, *, results: Path, keep: Path, seed: int = 0, tell: bool = False
) -> dict[str, Any]:
    """Make the runs that have no line in `results` yet; what all of them together saw."""
    missing = [run for run in range(runs) if run not in {line["run"] for line in _lines(results, database, seed)}]
    results.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as until_the_end:
        server = until_the_end.enter_context(postgresql.serve()) if database == "postgresql" and missing else None
        about = {"bench": "kills", "database": database, "date": f"{datetime.now(UTC):%Y-%m-%d}", "commit": commit()}
        for k in range(0, len(missing), KILLS_OF_A_STORE):
            plans = [draw(run, seed) for run in missing[k : k + KILLS_OF_A_STORE]]
            for told in kills(plans, server=server, keep=keep):
                with results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(about | told) + "\n")
                if tell:
                    found = f", FOUND {told['violations']}" if told["violations"] else ""
                    counts = f"{told['acknowledged']} acknowledged, {told['between']} killed before their answer"
                    print(f"{database} {told['run']}: {counts}{found}", file=sys.stderr, flush=True)
    return summary([line for line in _lines(results, database, seed) if line["run"] < runs])


def summary(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    sums = ("requests", "acknowledged", "unanswered", "between", "again", "revisions", "late", "surplus")
    freed = sorted(line["freed_after"] for line in lines if line["freed_after"] is not None)
    return {
        "bench": "kills",
        "database": lines[0]["database"] if lines else None,
        "runs": len(lines),
        **{name: sum(line[name] for line in lines) for name in sums},
        "kills_between": sum(line["between"] > 0 for line in lines),
        "freed": len(freed),
        "freed_after_median": round(freed[len(freed) // 2], 3) if freed else None,
        "commits": sorted({line["commit"] for line in lines}),
        "violations": {line["run"]: line["violations"] for line in lines if line["violations"]},
    }


def kills(plans: Sequence[Plan], *, server: str | None, keep: Path) -> Iterator[dict[str, Any]]:
    """One store, killed by one plan after the other; a line for each. server: of PostgreSQL, None for SQLite.

    It ends after a run that found something, so that what comes after is not told again: the runs that are left get a
    store of their own.
    """
    left = list(plans)
    while left:
        folder = Path(tempfile.mkdtemp(prefix="tuneful-kills-"))
        url = f"sqlite:///{folder / 'judgments.db'}" if server is None else postgresql.create_database(server)
        with closing(Scene(url, folder)) as scene:
            while left:
                told = asyncio.run(scene.kill(left.pop(0)))
                if told["violations"]:
                    scene.keep(keep / f"{scene.store.dialect}-{told['run']}")
                yield told
                if told["violations"]:
                    break
        shutil.rmtree(folder)
        if server is not None:
            postgresql.drop_database(url)


@dataclass(slots=True)
class Scene:
    """A store, its server, its labelers with what they have in hand, and all that they have sent and been told."""

    url: str
    folder: Path
    store: Store = field(init=False)
    server: Server = field(init=False)
    project: str = field(init=False)
    scarce: str = field(init=False)
    clients: list[Client] = field(init=False)
    waiter: Client = field(init=False)
    log: list[dict[str, Any]] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    """Answers that no client should get, a sentence each."""
    sent: int = 0
    """Submits of this run."""

    def __post_init__(self) -> None:
        self.store = Store.open(self.url)
        self.project = create_project(self.store, "helpful", now=time.time())
        self.scarce = create_project(self.store, "scarce", now=time.time())
        add_questions(self.store, self.project, ITEMS, overlap=OVERLAP, answers=3)
        people = labelers(self.store, self.project, CLIENTS)
        (waiter,) = labelers(self.store, self.scarce, 1)
        self.server = Server(self.url, self.folder)
        self.server.start()
        self.clients = [Client(self, f"client {n}", labeler, self.project) for n, labeler in enumerate(people)]
        self.waiter = Client(self, "waiter", waiter, self.scarce)

    def close(self) -> None:
        self.server.kill()
        self.store.close()

    async def kill(self, plan: Plan) -> dict[str, Any]:
        """One run; the line that tells of it."""
        began, first = time.time(), len(self.log)
        killed = restarted = began
        self.sent, self.refusals = 0, []
        ghost, left_item, lease_until = self._leave_an_item(plan)
        stop = asyncio.Event()
        for client in (*self.clients, self.waiter, ghost):
            client.begin(random.Random(f"{plan.seed} {plan.run} {client.name}"))
        freed: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(LONGEST_SECONDS), asyncio.TaskGroup() as group:
                for client in self.clients:
                    group.create_task(client.work(stop))
                group.create_task(self._wait_for(left_item, lease_until, ghost, freed))
                if plan.back is not None:
                    group.create_task(ghost.come_back(lease_until + plan.back))
                while self.sent < plan.after:
                    await asyncio.sleep(0.0005)
                await asyncio.sleep(plan.delay)
                self.server.kill()
                killed = time.time()
                await asyncio.to_thread(self.server.start)
                restarted = time.time()
                await asyncio.sleep(SETTLE_SECONDS)
                stop.set()
        except* (RuntimeError, TimeoutError) as failed:  # no start, or no end
            self.refusals += [f"run {plan.run}: {type(one).__name__} {one}" for one in failed.exceptions]
        finally:
            for client in (*self.clients, self.waiter, ghost):
                client.end()
        lines = self.log[first:]
        freed_after = freed.result() if freed.done() else None
        about = asdict(plan) | {"seconds": round(time.time() - began, 2), "restart": round(restarted - killed, 2)}
        return about | self._told(lines, killed) | {"freed_after": freed_after}

    def _leave_an_item(self, plan: Plan) -> tuple[Client, str, float]:
        """A labeler who claims the only open item of the scarce project, in the store itself and as of a time so long
        ago that the lease ends in this run."""
        (item,) = add_questions(self.store, self.scarce, 1, overlap=1)
        (labeler,) = labelers(self.store, self.scarce, 1)
        ghost = Client(self, f"ghost {plan.run}", labeler, self.scarce)
        sent = time.time()
        given = claim(self.store, self.scarce, labeler.rater, now=sent + plan.lease - LEASE_SECONDS)
        assert given is not None
        assert given.item == item
        left = {"id": given.id, "item": item, "lease_seconds": given.lease_until - sent, "instructions": None}
        left["answers"] = [{"id": id_} for id_ in given.shown_order]
        about = {"client": ghost.name, "rater": labeler.rater, "kind": "claim", "project": self.scarce, "body": {}}
        times = {"sent": sent, "answered": time.time(), "status": 200}
        self.log.append(about | times | {"answer": {"assignment": left}})
        ghost.held = [left]
        return ghost, item, given.lease_until

    async def _wait_for(self, item: str, lease_until: float, ghost: Client, freed: asyncio.Future[float]) -> None:
        """Ask for the left item until it is handed out, and `freed` gets the seconds after the lease; or until its
        labeler came back in time, or it is plain that it is held for too long."""
        while True:
            sent = time.time()
            status, answer = await self.waiter.ask("claim", {"besides": []})
            given = answer["assignment"] if status == 200 else None
            if given is not None:
                if given["item"] == item:
                    freed.set_result(round(time.time() - lease_until, 3))
                self.waiter.held = [given]
                await self.waiter.finish()
                return
            if ghost.counted or (status == 200 and sent > lease_until + 2):
                return
            await asyncio.sleep(0.05)

    def _told(self, lines: Sequence[dict[str, Any]], killed: float) -> dict[str, Any]:
        history = _history()
        rows = history.read_rows(self.store)
        found = [*history.violations(self.log, rows), *self.refusals, *self._damage()]
        submits = [line for line in lines if line["kind"] == "submit"]
        granted = [line for line in submits if line["status"] == 200]
        # Sent before the kill and stored, with no answer on the way.
        waiting = {line["body"]["id"] for line in submits if line["sent"] <= killed and line["answer"] == NO_ANSWER}
        waiting -= {line["body"]["id"] for line in granted if line["sent"] <= killed}
        between = [row for row in rows.judgments if row["id"] in waiting and row["created_at"] <= killed]
        first = {line["body"]["id"]: line for line in reversed(granted) if not line["answer"]["again"]}
        return {
            "requests": len(lines),
            "acknowledged": len({line["body"]["id"] for line in granted}),
            "unanswered": sum(line["answer"] == NO_ANSWER for line in lines),
            "between": len(between),
            "again": sum(line["answer"]["again"] for line in granted),
            "revisions": sum(line["body"]["replaces"] is not None for line in first.values()),
            "late": sum(line["answer"]["late"] for line in first.values()),
            "surplus": sum(not line["answer"]["counted"] for line in first.values()),
            "statuses": dict(Counter(str(line["status"]) for line in lines)),
            "violations": found,
        }

    def _damage(self) -> list[str]:
        if self.store.dialect != "sqlite":
            return []
        with self.store.read() as connection:
            told = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check")]
            broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        return [f"the file is damaged: {line}" for line in told if line != "ok"] + [
            f"a row names one that is not there: {tuple(row)}" for row in broken
        ]

    def keep(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        rows = _history().read_rows(self.store)
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in self.log), encoding="utf-8")
        (folder / "rows.json").write_text(json.dumps(asdict(rows), default=dict), encoding="utf-8")
        shutil.copy(self.server.errors, folder)


class Client:
    """A labeler's page with an outbox: `held` are items to judge, `outbox` judgments without a receipt, `said` those
    that have one, the last word on each item."""

    def __init__(self, scene: Scene, name: str, labeler: Labeler, project: str) -> None:
        self.name = name
        self.held: list[dict[str, Any]] = []
        self.outbox: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self.said: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self.letters: list[tuple[dict[str, Any], dict[str, Any]]] = []
        """All that has a receipt, revised or not."""
        self.counted = False
        """Whether a judgment of theirs was told to count."""
        self._scene, self._labeler, self._project = scene, labeler, project
        self._chance = random.Random(name)
        self._connections: list[Connection] = []

    def begin(self, chance: random.Random) -> None:
        """A run begins, in an event loop of its own."""
        self._chance = chance
        self._connections = [Connection(self._scene.server.port, self._labeler) for _ in range(2)]

    def end(self) -> None:
        for connection in self._connections:
            connection.close()

    async def work(self, stop: asyncio.Event) -> None:
        """Claim, judge and send in any order until `stop`; then until everything has its receipt."""
        while self.outbox or not stop.is_set():
            await self._step(new=not stop.is_set())
            await asyncio.sleep(self._chance.uniform(0, 0.01))

    async def come_back(self, at: float) -> None:
        """Judge what is in hand at time `at`, which is late."""
        await asyncio.sleep(max(0.0, at - time.time()))
        await self.finish()

    async def finish(self) -> None:
        """Judge what is in hand, and send it until there is a receipt."""
        while self.held:
            self._judge(self.held.pop())
        while self.outbox:
            await self._send(self._chance.randrange(len(self.outbox)))

    async def _step(self, *, new: bool) -> None:
        luck = self._chance.random()
        in_hand = len(self.held) + len(self.outbox)
        if not new:
            await self._send(self._chance.randrange(len(self.outbox)))
        elif luck < 0.01:
            await asyncio.sleep(self._chance.uniform(0.1, 0.4))  # offline
        elif luck < 0.06 and self.held:
            given = self._chance.choice(self.held)
            await self._checked("extend", {}, given)
        elif luck < 0.14 and self.letters:
            given, body = self._chance.choice(self.letters)
            await self._checked("submit", body, given)
        elif luck < 0.2 and self.said and in_hand < AHEAD:
            given, body = self.said.pop(self._chance.randrange(len(self.said)))
            self._judge(given, replaces=body["id"])
        elif luck < 0.6 and in_hand < AHEAD:
            await self._claim()
        elif luck < 0.8 and self.outbox:
            await self._send(self._chance.randrange(len(self.outbox)))
        elif self.held:
            self._judge(self.held.pop(self._chance.randrange(len(self.held))))
            await self._send(len(self.outbox) - 1)
        elif self.outbox:
            await self._send(self._chance.randrange(len(self.outbox)))

    async def _claim(self) -> None:
        known = [given["id"] for given in self.held] + [given["id"] for given, _ in self.outbox]
        answer = await self._checked("claim", {"besides": known})
        if answer is not None and answer["assignment"] is not None and answer["assignment"]["id"] not in known:
            self.held.append(answer["assignment"])

    def _judge(self, given: dict[str, Any], *, replaces: str | None = None) -> None:
        id_ = str(uuid.UUID(int=self._chance.getrandbits(128), version=4))
        self.outbox.append((given, judge(given, self._chance, id_=id_, replaces=replaces)))

    async def _send(self, place: int) -> None:
        """One letter of the outbox, now and then twice at once. Without a receipt it stays there."""
        given, body = letter = self.outbox[place]
        copies = 2 if self._chance.random() < 0.25 else 1
        self._scene.sent += 1
        answers = await asyncio.gather(*(self._checked("submit", body, given, n) for n in range(copies)))
        receipts = [answer for answer in answers if answer is not None]
        if not receipts:
            return
        self.outbox = [other for other in self.outbox if other is not letter]
        self.said.append(letter)
        self.letters.append(letter)
        self.counted = self.counted or receipts[0]["counted"]

    async def _checked(
        self, kind: str, body: dict[str, Any], given: dict[str, Any] | None = None, connection: int = 0
    ) -> Any:
        """The answer; None without one, after a short wait. What nobody should be told is noted."""
        status, answer = await self.ask(kind, body, given, connection)
        if status in (503, None):
            await asyncio.sleep(self._chance.uniform(0.02, 0.1))
        elif status != 200:
            self._scene.refusals.append(f"{self.name} was told {status} to {kind} {body}: {answer}")
            self.outbox = [letter for letter in self.outbox if letter[1] is not body]
        return answer if status == 200 else None

    async def ask(
        self, kind: str, body: dict[str, Any], given: dict[str, Any] | None = None, connection: int = 0
    ) -> tuple[int | None, Any]:
        """Status and answer of one request, which is a line of the log."""
        path = f"/p/{self._project}/claim" if given is None else f"/a/{given['id']}/{kind}"
        about = {"project": self._project} if given is None else {"assignment": given["id"]}
        sent = time.time()
        status: int | None = None
        answer: Any = NO_ANSWER
        try:
            status, answer = await self._connections[connection].post(path, body)
        except NoAnswerError:
            pass
        finally:
            line = {"client": self.name, "rater": self._labeler.rater, "kind": kind, "sent": sent, "body": body}
            self._scene.log.append(line | about | {"answered": time.time(), "status": status, "answer": answer})
        return status, answer


def _lines(results: Path, database: str, seed: int) -> list[dict[str, Any]]:
    """The last line of each run."""
    lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    told = [line for line in map(json.loads, lines) if (line["database"], line["seed"]) == (database, seed)]
    return list({line["run"]: line for line in told}.values())


def _history() -> Any:
    """The checker, which lies with the tests of the store."""
    root = str(HERE.parent)
    if root not in sys.path:
        sys.path.append(root)
    from tests.feedback.store import history

    return history


if __name__ == "__main__":
    main()
