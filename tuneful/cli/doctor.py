"""`tuneful doctor`: findings about this machine, a data file, a model and a reward, each with the way to mend it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tuneful.cli.options import Device, Json, MaxPromptTokens
from tuneful.errors import ConfigError, TunefulError
from tuneful.records import Completion, Prompt

if TYPE_CHECKING:
    from tuneful.pipeline.doctor.finding import Finding


def command(
    model: Annotated[str | None, typer.Option(help="A language model to look into.")] = None,
    data: Annotated[Path | None, typer.Option("--in", help="A data file of any format to look into.")] = None,
    test: Annotated[
        Path | None, typer.Option(help="A file to evaluate on that must not share prompts with it.")
    ] = None,
    reward: Annotated[str | None, typer.Option(help="A reward to look into.")] = None,
    max_prompt_tokens: MaxPromptTokens = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also train copies of the models: minutes for small ones.")
    ] = False,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """What this machine can do, and whether a data file, a model and a reward are fit to train with.

    Exit status 1 when something must be mended first. With --deep, copies are trained and thrown away: of the model as
    policy and as reward model, of a reward model as it is. They must learn 64 examples by heart, taken from the data
    file as far as it has some, and a step's gradient must not depend on how its batch is cut into micro-batches.

    Example: tuneful doctor --model runs/demo/ppo/model --in prompts.jsonl
    """
    import json
    from dataclasses import asdict

    from tuneful.pipeline.doctor.data import look_at_data, look_at_leakage
    from tuneful.pipeline.doctor.machine import look_at_machine
    from tuneful.pipeline.doctor.offered import answers_of, prompts_of
    from tuneful.pipeline.doctor.reward import look_at_reward

    is_model = reward is not None and not reward.startswith(("{", "[")) and Path(reward).is_dir()
    reward_model = reward if is_model else None
    if deep and model is None and reward_model is None:
        raise ConfigError("doctor: --deep trains a model and there is none; add --model, or --reward DIRECTORY")
    if test is not None and data is None:
        raise ConfigError("doctor: --test compares two files and there is one; add --in FILE, which is to train on")
    answers = answers_of(data)
    looked_at: list[tuple[str, Callable[[], Iterator[Finding]]]] = [("machine", look_at_machine)]
    if data is not None:
        looked_at.append(("data", lambda: look_at_data(data)))
        if test is not None:
            looked_at.append(("leakage", lambda: look_at_leakage(data, test)))
    if model is not None:
        looked_at.append(("model", lambda: _model(model, prompts_of(data), answers, max_prompt_tokens)))
    if reward is not None:
        looked_at.append(("reward", lambda: look_at_reward(reward, answers)))
    if deep:
        trained: tuple[tuple[str, str | None, Literal["policy", "reward"]], ...] = (
            ("model trained as policy", model, "policy"),
            ("model trained as reward model", model, "reward"),
            ("reward trained further", reward_model, "reward"),
        )
        looked_at += [
            (about, partial(_learning, about, path, role, data)) for about, path, role in trained if path is not None
        ]
    findings = [finding for about, look in looked_at for finding in _findings(about, look)]
    passed = all(finding.status != "fail" for finding in findings)
    if as_json:
        print(json.dumps({"passed": passed, "findings": [asdict(finding) for finding in findings]}))
    else:
        _print(findings)
    if not passed:
        raise typer.Exit(1)


def _model(
    path: str, prompts: Sequence[Prompt], answers: Sequence[tuple[Prompt, Completion]], max_prompt_tokens: int | None
) -> Iterator[Finding]:
    """What there is to say of a model and of the data in its tokens, which take a while to count."""
    from tuneful.cli.progress import terminal_display
    from tuneful.pipeline.doctor.model import look_at_model

    if not prompts:
        yield from look_at_model(path)
        return
    with terminal_display() as display:
        display.stage("tokens", "of prompts and answers")
        yield from look_at_model(
            path,
            prompts,
            answers,
            max_prompt_tokens=max_prompt_tokens,
            progress=lambda done, total: display.step(done, total, {}, unit="texts"),
        )


def _learning(about: str, path: str, role: Literal["policy", "reward"], data: Path | None) -> Iterator[Finding]:
    """Whether a copy of the model learns in this role."""
    from tuneful.cli.progress import terminal_display
    from tuneful.pipeline.doctor.learning import look_at_learning

    algorithm, examples = ("sft", "demonstrations") if role == "policy" else ("reward", "pairs")
    with terminal_display() as display:
        display.stage(algorithm, f"{examples} by heart")
        yield from look_at_learning(about, path, role, data, progress=display.step)


def _findings(about: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What `look` finds; an error a user can mend ends it and is its last finding."""
    try:
        yield from look()
    except TunefulError as error:
        from tuneful.pipeline.doctor.finding import from_error

        yield from_error(about, "error", error)


def _print(findings: Sequence[Finding]) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, soft_wrap=True)
    marks = {"ok": "[green]✓[/]", "note": "[yellow]·[/]", "fail": "[red]✗[/]"}
    for about in dict.fromkeys(finding.about for finding in findings):
        console.print(f"[bold]{about}[/]")
        for finding in (f for f in findings if f.about == about):
            value = f"{finding.value:.3g}" if isinstance(finding.value, float) else str(finding.value)
            console.print(f"  {marks[finding.status]} {finding.name}: {escape(value)}")
            if finding.mend:
                console.print(f"    {escape(finding.mend)}")
