"""`tuneful doctor`: findings about this machine, a data file, a model and a reward, each with the way to mend it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from tuneful.cli.options import Json, MaxPromptTokens
from tuneful.errors import ConfigError, DataError, TunefulError
from tuneful.records import Comparison, Completion, Demonstration, Prompt

if TYPE_CHECKING:
    from tuneful.pipeline.doctor.finding import Finding

T = TypeVar("T")


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

    from tuneful.pipeline.doctor.data import answers_of, look_at_data, look_at_leakage
    from tuneful.pipeline.doctor.machine import look_at_machine
    from tuneful.pipeline.doctor.reward import look_at_reward

    is_model = reward is not None and not reward.startswith(("{", "[")) and Path(reward).is_dir()
    reward_model = reward if is_model else None
    if deep and model is None and reward_model is None:
        raise ConfigError("doctor: --deep trains a model and there is none; add --model, or --reward DIRECTORY")
    if test is not None and data is None:
        raise ConfigError("doctor: --test compares two files and there is one; add --in FILE, which is to train on")
    answers = [] if data is None else answers_of(data)
    looked_at: list[tuple[str, Callable[[], Iterator[Finding]]]] = [("machine", look_at_machine)]
    if data is not None:
        looked_at.append(("data", lambda: look_at_data(data)))
        if test is not None:
            looked_at.append(("leakage", lambda: look_at_leakage(data, test)))
    if model is not None:
        looked_at.append(("model", lambda: _model(model, _offered(_prompts, data), answers, max_prompt_tokens)))
    if reward is not None:
        looked_at.append(("reward", lambda: look_at_reward(reward, answers)))
    if deep:
        trained = (
            ("model trained as policy", train_policy, model),
            ("model trained as reward model", train_reward_model, model),
            ("reward trained further", train_reward_model, reward_model),
        )
        looked_at += [(about, partial(train, about, path, data)) for about, train, path in trained if path is not None]
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
            progress=lambda done, total: display.step(done, total, {}),
        )


def train_policy(about: str, path: str, data: Path | None) -> Iterator[Finding]:
    """Whether a copy of the language model learns demonstrations."""
    from tuneful.algorithms.deep_checks import check_policy_learning
    from tuneful.cli.progress import terminal_display
    from tuneful.pipeline.doctor.finding import judged

    with terminal_display() as display:
        display.stage("sft", "demonstrations by heart")
        found = check_policy_learning(path, _demonstrations(data), progress=display.step)
    yield from (judged(about, finding) for finding in found)


def train_reward_model(about: str, path: str, data: Path | None) -> Iterator[Finding]:
    """Whether a copy of the model learns comparisons, as the reward model that it is or could become."""
    from tuneful.algorithms.deep_checks import check_reward_learning
    from tuneful.cli.progress import terminal_display
    from tuneful.pipeline.doctor.finding import judged

    with terminal_display() as display:
        display.stage("reward", "pairs by heart")
        found = check_reward_learning(path, _comparisons(data), progress=display.step)
    yield from (judged(about, finding) for finding in found)


def _findings(about: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What `look` finds; an error a user can mend ends it and is its last finding."""
    try:
        yield from look()
    except TunefulError as error:
        from tuneful.pipeline.doctor.finding import from_error

        yield from_error(about, "error", error)


def _demonstrations(data: Path | None) -> list[Demonstration]:
    """The answers in the data file; where it compares, the preferred ones."""
    from tuneful.data.formats import read_answers, read_demonstrations

    shown = _offered(lambda path: read_demonstrations(path, on_skip=lambda _: None), data)
    return shown or [Demonstration(p, c.text) for p, c in _offered(read_answers, data)]


def _prompts(data: Path) -> list[Prompt]:
    from tuneful.data.formats import read_prompts

    return read_prompts(data, on_skip=lambda _: None)


def _comparisons(data: Path | None) -> list[Comparison]:
    from tuneful.data.formats import read_comparisons

    return _offered(lambda path: read_comparisons(path, on_skip=lambda _: None), data)


def _offered(read: Callable[[Path], list[T]], data: Path | None) -> list[T]:
    """What `read` finds in the data file; nothing in one of another format, or broken, which its own findings say."""
    if data is None:
        return []
    try:
        return read(data)
    except DataError:
        return []


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
