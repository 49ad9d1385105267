"""Servers for tests: `tuneful serve` as a process of its own, and a relay before it that spoils what it says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Served:
    """A running `tuneful serve`; `kill` is SIGKILL."""

    def __init__(self, model: Path, port: int = 0) -> None:
        command = [sys.executable, "-m", "tuneful", "serve", str(model), "--port", str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        found = re.search(r"http://\S+:(\d+)", said)
        assert found is not None, said
        self.url, self.port = found[0], int(found[1])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def call(url: str, body: object = None) -> tuple[int, Any]:
    """Status and JSON of a GET, or of a POST of `body`, by the standard library."""
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@dataclass
class Crowd:
    """How many completions a relay has under way, and the most it had."""

    now: int = 0
    most: int = 0


Spoil = Callable[[str, int, Any], tuple[int, Any]]
"""(path, status, answer of the real server) -> what the client gets instead."""


@contextmanager
def relay(
    url: str,
    spoil: Spoil,
    *,
    refuse: list[int] | None = None,
    slow: list[float] | None = None,
    crowd: Crowd | None = None,
) -> Iterator[str]:
    """A server before the one at `url`; the URL of it.

    refuse: statuses of the next completions, which are not passed on. slow: seconds that the next ones wait, and crowd
    is told how many wait together.
    """
    refuse, slow, crowd, lock = refuse or [], slow or [], crowd or Crowd(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(*spoil(self.path, *call(url + self.path)))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/v1/completions":
                with lock:
                    wait = slow.pop(0) if slow else 0.0
                    status = refuse.pop(0) if refuse else 200
                    crowd.now += 1
                    crowd.most = max(crowd.most, crowd.now)
                time.sleep(wait)
                with lock:
                    crowd.now -= 1
                if status != 200:
                    return self.answer(status, {"error": {"message": "not now"}})
            return self.answer(*spoil(self.path, *call(url + self.path, body)))

        def answer(self, status: int, answer: Any) -> None:
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            try:
                self.wfile.write(content)
            except OSError:  # the client has gone
                self.close_connection = True

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def unspoiled(path: str, status: int, answer: Any) -> tuple[int, Any]:
    return status, answer
