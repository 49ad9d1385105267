"""`tuneful serve`"""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from tuneful.cli.options import Device


def command(
    model: Annotated[str, typer.Argument(help="Model directory or hub id.", show_default=False)],
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at; 0 takes a free one.", min=0, max=65_535)] = 8000,
    dtype: Annotated[Literal["float32", "bfloat16", "nf4"], typer.Option(help="Precision of the model.")] = "float32",
    device: Device = None,
) -> None:
    """Completions of a model over HTTP, in the words of OpenAI's API and vLLM's additions, until Ctrl-C.

    Example: tuneful serve runs/demo/sft/model --port 8000
    """
    from tuneful.errors import RunError
    from tuneful.models.loading import load_language_model, load_tokenizer
    from tuneful.serving.server import CompletionServer
    from tuneful.serving.worker import Worker

    tokenizer = load_tokenizer(model)
    loaded = load_language_model(model, dtype=dtype)
    worker = Worker(loaded, tokenizer, name=model)
    try:
        server = CompletionServer(worker, host=host, port=port, root=loaded.name_or_path)
    except OSError as error:
        raise RunError(f"cannot listen at {host}:{port}: {error.strerror}; give another --port or --host") from None
    print(f"serving {model} at {server.url}", flush=True)
    with server:
        server.serve_forever()
