"""`tuneful web`"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tuneful.cli.options import Device, StoreUrl
from tuneful.errors import ConfigError

if TYPE_CHECKING:
    from tuneful.web.provider import Provider

OIDC_SECRET: Final = "TUNEFUL_OIDC_SECRET"


def command(
    store: StoreUrl = "judgments.db",
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at; 0 takes a free one.", min=0, max=65_535)] = 8080,
    no_worker: Annotated[
        bool,
        typer.Option("--no-worker", help="Start no `tuneful worker` beside the pages; one elsewhere does its work."),
    ] = False,
    device: Device = None,
    oidc_issuer: Annotated[
        str | None,
        typer.Option(help="People also sign in by this provider of OpenID Connect, such as https://id.example.org."),
    ] = None,
    oidc_client_id: Annotated[
        str | None,
        typer.Option(help="What the provider calls this server; its secret stands in $TUNEFUL_OIDC_SECRET."),
    ] = None,
    oidc_name: Annotated[
        str | None, typer.Option(help="What pages call the provider; its host if this is left out.")
    ] = None,
    oidc_domain: Annotated[
        str | None,
        typer.Option(
            help="Whoever has a verified e-mail address of this domain is let in, and belongs to no project until "
            "invited. Left out, the provider lets nobody in who is not invited."
        ),
    ] = None,
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

    provider = provider_of(oidc_issuer, oidc_client_id, oidc_name, oidc_domain)
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
    if opened.is_new:
        print(f"{opened} is a new, empty store", flush=True)
    print(f"judgments of {opened} at {url}", flush=True)
    secret = invite_first_admin(opened, now=time.time())
    if secret is not None:
        print(f"nobody is admin yet: open {url}/invitation/{secret} (it works once)", flush=True)
    if provider is not None:
        back = "/login/oidc/callback below the address that people open"
        print(f"people can sign in with {provider.name}, which has to know its redirect URI: {back}", flush=True)
    app = create_app(opened, provider=provider)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5))
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


def provider_of(issuer: str | None, client_id: str | None, name: str | None, domain: str | None) -> Provider | None:
    """The provider that the flags name, with its secret from the environment; None for no flag."""
    if issuer is None or client_id is None:
        if (issuer, client_id, name, domain) != (None, None, None, None):
            raise ConfigError("--oidc-issuer and --oidc-client-id: give both, or no flag that begins with --oidc")
        return None
    from tuneful.web.provider import Provider

    secret = os.environ.get(OIDC_SECRET) or None
    return Provider(issuer, client_id, secret=secret, name=name or "", domain=domain or "")
