"""What the benches of the labeling server share: the server as a process of its own, a project with labelers who are
signed in, and a connection to it that costs its process little.

The connection is HTTP/1.1 over asyncio's streams, since a general client would take the core that the server needs.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, NamedTuple

from tuneful.feedback.access import csrf_of, sign_in
from tuneful.feedback.items import add_items
from tuneful.feedback.projects import add_rater
from tuneful.feedback.store import Store
from tuneful.records import Candidates, Completion, Prompt

PORTS = range(20_000, 32_000)
"""Below those that Linux gives to outgoing connections: one that is refused while the server is down could else be
given the server's port as its own, and reach itself."""

ANSWER_SECONDS = 30.0
"""How long a client waits for an answer."""

START_SECONDS = 60.0


class Labeler(NamedTuple):
    """A rater, and the secret of their session."""

    rater: str
    secret: str


class NoAnswerError(Exception):
    """A request without an answer. stale: an idle connection that the server had closed before it saw the request."""

    def __init__(self, why: str, *, stale: bool = False) -> None:
        super().__init__(why)
        self.stale = stale


def labelers(store: Store, project: str, count: int) -> list[Labeler]:
    """New members of the project, signed in."""
    now = time.time()
    raters = [add_rater(store, project, now=now) for _ in range(count)]
    return [Labeler(rater, sign_in(store, rater, now=now)) for rater in raters]


def add_questions(
    store: Store, project: str, count: int, *, overlap: int, answers: int = 2, words: int = 3, seed: int = 0
) -> list[str]:
    """`count` new items, each a question with `answers` answers of `words` words."""
    chance = random.Random(f"{seed} {project}")
    with store.read() as connection:
        asked = connection.exec_driver_sql("SELECT count(*) FROM item").scalar_one()
    texts = [" ".join(f"word{chance.randrange(1000)}" for _ in range(words)) for _ in range(min(count, 500) * answers)]
    made: list[str] = []
    for begin in range(0, count, 1000):
        rows = [
            Candidates(
                Prompt.user(f"Question {asked + k}: what do you make of it?"),
                tuple(Completion(f"{n}. {texts[(k * answers + n) % len(texts)]}", id=str(n)) for n in range(answers)),
            )
            for k in range(begin, min(begin + 1000, count))
        ]
        made += add_items(store, project, rows, overlap=overlap, now=time.time())
    return made


def judge(
    assignment: dict[str, Any], chance: random.Random, *, id_: str, replaces: str | None = None
) -> dict[str, Any]:
    """The body of a submit: the answers in some order, with a tie, a flag and a note now and then."""
    answers = [answer["id"] for answer in assignment["answers"]]
    ranks = [chance.randrange(1, len(answers) + 1) for _ in answers]
    return {
        "id": id_,
        "ranks": dict(zip(answers, ranks, strict=True)),
        "flags": {chance.choice(answers): ["unsafe"]} if chance.random() < 0.1 else {},
        "values": {},
        "text": "",
        "note": f"seen at {chance.random():.3f}" if chance.random() < 0.1 else "",
        "seconds": round(chance.uniform(5, 60), 1),
        "replaces": replaces,
        "instructions": assignment["instructions"],
    }


@dataclass(frozen=True, slots=True)
class Usage:
    """What processes have used of the machine: CPU seconds, MiB resident now and at most."""

    cpu: float
    mib: float
    peak_mib: float


class Server:
    """`tuneful web` over a store, in a process group of its own, at one port however often it is started."""

    def __init__(self, url: str, folder: Path, *, program: tuple[str, ...] = ("-m", "tuneful")) -> None:
        self.port = free_port()
        self.errors = folder / "web.log"
        self.program = program
        self._options = ["web", "--store", url, "--port", str(self.port), "--no-worker"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers. Raises RuntimeError with what it said when it does not."""
        with self.errors.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *self.program, *self._options],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                with closing(HTTPConnection("127.0.0.1", self.port, timeout=START_SECONDS)) as asked:
                    asked.request("GET", "/login")
                    asked.getresponse().read()
            except (OSError, HTTPException):
                if self._process.poll() is not None or time.monotonic() > until:
                    self.kill()
                    raise RuntimeError(f"tuneful web did not start: {self.errors.read_text()[-2000:]}") from None
                time.sleep(0.01)
            else:
                return

    def kill(self) -> None:
        """SIGKILL to the whole group; nothing of it is left when this returns."""
        if self._process is not None:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def usage(self) -> Usage:
        return usage(self.pid)


def usage(process: int) -> Usage:
    """Of a process, its children and its group; of children that have ended the CPU seconds too."""
    cpu = mib = peak = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            if process not in (int(stat.parent.name), int(fields[1]), int(fields[2])):
                continue
            told = dict(line.split(":", 1) for line in (stat.parent / "status").read_text().splitlines())
        except OSError:  # it ended meanwhile
            continue
        if "VmRSS" not in told:  # it is ending
            continue
        cpu += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
        mib += int(told["VmRSS"].split()[0]) / 1024
        peak += int(told["VmHWM"].split()[0]) / 1024
    return Usage(cpu, mib, peak)


def free_port() -> int:
    while True:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Connection:
    """A labeler's connection, kept open from one request to the next; one request at a time."""

    def __init__(self, port: int, labeler: Labeler) -> None:
        host = f"127.0.0.1:{port}"
        self._port = port
        self._headers = (
            f" HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nCookie: tuneful_session={labeler.secret}\r\n"
            f"X-CSRF-Token: {csrf_of(labeler.secret)}\r\nContent-Type: application/json\r\nContent-Length: "
        )
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: object) -> tuple[int, Any]:
        """Status and JSON of the answer. Raises NoAnswerError where there is none."""
        content = json.dumps(body).encode()
        used = self._streams is not None and not self._streams[0].at_eof()
        begun = False
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                reader, writer = await self._open()
                writer.write(f"POST {path}{self._headers}{len(content)}\r\n\r\n".encode() + content)
                head = await reader.readuntil(b"\r\n\r\n")
                begun = True
                length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
                answer = await reader.readexactly(int(length))
        except TimeoutError:
            self.close()
            raise NoAnswerError(f"none within {ANSWER_SECONDS:.0f} s") from None
        except ConnectionRefusedError:
            self.close()
            raise NoAnswerError("connection refused") from None
        except (OSError, EOFError) as error:  # EOFError: the connection ended in the middle
            self.close()
            begun = begun or bool(getattr(error, "partial", None))
            raise NoAnswerError("connection lost", stale=used and not begun) from None
        except asyncio.CancelledError:
            self.close()
            raise
        if b"connection: close" in head.lower():
            self.close()
        return int(head[9:12]), json.loads(answer)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None or self._streams[0].at_eof():
            self.close()
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        return self._streams


def commit() -> str:
    """The checkout's commit, with a + when files differ from it."""
    here = ["git", "-C", str(Path(__file__).parent)]
    head = subprocess.run([*here, "rev-parse", "--short", "HEAD"], stdout=subprocess.PIPE, check=False, text=True)
    changed = subprocess.run([*here, "status", "--porcelain", "-uno"], stdout=subprocess.PIPE, check=False, text=True)
    return head.stdout.strip() + "+" * bool(changed.stdout.strip())
