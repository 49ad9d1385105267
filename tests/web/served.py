"""An application on a free port of loopback, in a thread of its own."""

from __future__ import annotations

import socket
import time
from threading import Thread

import uvicorn
from fastapi import FastAPI


class Served:
    def __init__(self, app: FastAPI) -> None:
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        self.port = int(listening.getsockname()[1])
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        self._thread = Thread(target=self._server.run, kwargs={"sockets": [listening]}, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join()
