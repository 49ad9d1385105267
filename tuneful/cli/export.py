"""`tuneful export`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from tuneful.cli.options import Device, Force, Json, Out


def command(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A model, an adapter, or the folder of a stage or run.")
    ],
    out: Out,
    merge: Annotated[bool, typer.Option("--merge", help="Merge an adapter into its base: a plain model.")] = False,
    dtype: Annotated[
        Literal["float32", "bfloat16"] | None, typer.Option(help="Precision of the weights; without it as they are.")
    ] = None,
    push: Annotated[str | None, typer.Option(help="Upload it to the hub as OWNER/NAME, private if new.")] = None,
    device: Device = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """A trained model as a folder that transformers, peft and others load, with a card that says how it was made.

    Example: tuneful export runs/demo/ppo --merge --out household
    """
    import json
    import sys
    from dataclasses import asdict

    from tuneful.cli.progress import terminal_display
    from tuneful.pipeline import export

    with terminal_display() as display:
        display.stage("export", str(model))
        done = export.export(model, out, merge=merge, dtype=dtype, force=force)
        address = None
        if push:
            display.stage("upload", push)
            address = export.push(out, push)
    if as_json:
        print(json.dumps({"out": str(out), **asdict(done), "source": str(done.source), "pushed": address}))
        return
    what = {"merged": "a plain model, merged", "adapter": "an adapter", "model": "a plain model"}[done.form]
    print(f"{what} from {done.source} in {out}: {done.num_weights:,} weights, {done.num_bytes / 1e6:.1f} MB")
    for sentence in done.lost:
        print(f"not in the card: {sentence}", file=sys.stderr)
    if address:
        print(f"uploaded: {address}")
