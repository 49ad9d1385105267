"""`tuneful`: the table of verbs. Nothing heavy is imported until a verb needs it."""

from __future__ import annotations

import logging
import sys
import warnings

import typer

from tuneful.cli import (
    adapt,
    compare,
    demo,
    doctor,
    evaluate,
    export,
    generate,
    label,
    quality,
    run,
    score,
    serve,
    trace,
    translate,
    web,
    worker,
)
from tuneful.errors import TunefulError

app = typer.Typer(
    name="tuneful",
    help="Tune a language model to what people prefer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("demo")(demo.command)
app.command("run")(run.run_command)
app.command("train")(run.train_command)
app.command("generate")(generate.command)
app.command("score")(score.command)
app.command("evaluate")(evaluate.command)
app.command("compare")(compare.command)
app.command("trace")(trace.command)
label.app.command("adapt")(adapt.command)
label.app.command("quality")(quality.command)
app.add_typer(label.app, name="label")
app.command("web")(web.command)
app.command("worker")(worker.command)
app.command("export")(export.command)
app.command("serve")(serve.command)
app.command("doctor")(doctor.command)
app.command("translate")(translate.command)


def main() -> None:
    """Run the command line. A mistake a user can mend is one line on stderr and exit status 2."""
    # peft asks transformers by this name; nobody who reads the progress of a run can mend it.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    # Its note on a CPU kernel we do not use, which comes with peft.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        app()
    except TunefulError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(2)
    except FileNotFoundError as error:
        # What Python's tempfile says of a full disk, where a library asks for its folder while it is imported.
        if not str(error.strerror).startswith("No usable temporary directory"):
            raise
        print(f"RunError: {error.strerror}; free space there, or set TMPDIR to a folder with some", file=sys.stderr)
        sys.exit(2)
