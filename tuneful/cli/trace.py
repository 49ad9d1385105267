"""`tuneful trace`: one answer of a policy in training, token by token."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuneful.cli.options import Device, Json

if TYPE_CHECKING:
    from tuneful.pipeline.trace import Trace


def command(
    run: Annotated[Path, typer.Argument(help="A run, or the folder of one of its stages.")],
    sample: Annotated[int, typer.Option(min=0, help="Which of the answers of the step.")] = 0,
    stage: Annotated[str | None, typer.Option(help="Which stage, where several learn from their own answers.")] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """One rollout, token by token: probability, KL, entropy, reward, value, advantage, and what the update made of it.

    The newest checkpoint before the run's last step takes the next one, in memory alone.

    Example: tuneful trace runs/hh --sample 3
    """
    from tuneful.cli.progress import terminal_display
    from tuneful.demo.run import shipped_worlds
    from tuneful.pipeline.trace import trace

    with terminal_display() as display:
        found = trace(run, stage=stage, sample=sample, worlds=shipped_worlds(), display=display)
    if as_json:
        print(json.dumps(found.as_json()))
        return
    print("\n".join(_lines(found)))


def _lines(found: Trace) -> Iterator[str]:
    yield (
        f"{found.stage} ({found.algorithm}), step {found.step}, answer {found.sample} of {found.num_samples}, "
        f"ended by {found.finish}"
    )
    yield f"prompt: {found.prompt!r}"
    yield f"answer: {found.completion!r}"
    yield f"score {found.score:+.3f}, KL coefficient {found.kl_coef:.3g}"
    yield ""
    shown = [repr(one.token)[1:-1] for one in found.tokens]
    widest = max(5, *map(len, shown))
    yield (
        f"{'token':<{widest}}  {'p':>6} {'p ref':>6} {'KL':>7} {'entropy':>7} {'reward':>7} {'value':>7} "
        f"{'advantage':>9} {'ratio':>6}  clip"
    )
    for token, one in zip(shown, found.tokens, strict=True):
        value = f"{'-':>7}" if one.value is None else f"{one.value:+7.3f}"
        yield (
            f"{token:<{widest}}  {one.probability:6.3f} {one.reference:6.3f} {one.kl:7.4f} {one.entropy:7.3f} "
            f"{one.reward:+7.3f} {value} {one.advantage:+9.3f} {one.ratio:6.3f}  "
            f"{'-' if one.clipped is None else 'clipped' if one.clipped else ''}"
        ).rstrip()
