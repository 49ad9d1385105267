"""`tuneful web`"""

from __future__ import annotations

from typing import Annotated

import typer

from tuneful.cli.options import Device, StoreUrl


def command(
    store: StoreUrl = "judgments.db",
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at; 0 takes a free one.", min=0, max=65_535)] = 8080,
    no_worker: Annotated[
        bool,
        typer.Option("--no-worker", help="Start no `tuneful worker` beside the pages; one elsewhere does its work."),
    ] = False,
    device: Device = None,
) -> None:
    """The pages on which people judge answers and their lead looks after them, until Ctrl-C.

    A worker beside them does what pages ask for. The first start prints a link that makes its holder the admin, once.
    There is no default password.

    Example: tuneful web --store judgments.db --port 8080
    """
    import socket
    import time
    from contextlib import AbstractContextManager, nullcontext

    import uvicorn

    from tuneful.cli.companion import Companion
    from tuneful.errors import RunError
    from tuneful.feedback.access import invite_first_admin
    from tuneful.feedback.store import Store
    from tuneful.web.app import create_app

    opened = Store.open(store)
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()
    except OSError as error:
        raise RunError(f"cannot listen at {host}:{port}: {error.strerror}; give another --port or --host") from None
    name = f"[{host}]" if ":" in host else host
    url = f"http://{name}:{listening.getsockname()[1]}"
    print(f"judgments of {opened} at {url}", flush=True)
    secret = invite_first_admin(opened, now=time.time())
    if secret is not None:
        print(f"nobody is admin yet: open {url}/invitation/{secret} (it works once)", flush=True)
    server = uvicorn.Server(uvicorn.Config(create_app(opened), log_level="warning", timeout_graceful_shutdown=5))
    beside: AbstractContextManager[object] = nullcontext()
    if not no_worker:
        beside = Companion("worker", "--store", store, "--until-eof")
    try:
        with beside:
            server.run(sockets=[listening])
    except KeyboardInterrupt:
        pass  # uvicorn has ended all requests and raises what it was told to end by
    finally:
        opened.close()
