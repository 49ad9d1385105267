"""`tuneful doctor`: findings about this machine, a data file, a model and a reward, each with the way to mend it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from tuneful.cli.options import Json
from tuneful.errors import ConfigError, DataError, TunefulError
from tuneful.records import Comparison, Completion, Demonstration, Prompt

if TYPE_CHECKING:
    from tuneful.algorithms import start_up

T = TypeVar("T")
Status = Literal["ok", "note", "fail"]

INVARIANCE = 1e-4
"""Largest change of a logprob, in float32, that rounding explains."""

ANSWERS = (
    (Prompt.user("How do I stop a tap that drips?"), Completion("Close the water, then change the washer.")),
    (Prompt.user("Hello"), Completion("Yes?")),
    (Prompt.user("Why is the house so cold at night, and what can I do now?"), Completion("Close the windows.")),
    (Prompt.user("Where is the dog?"), Completion("It sleeps by the door, as it does when rain is on the way.")),
)
"""Answers of several lengths to try a model or reward on when no file gives any."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. A "note" is worth mending, a "fail" must be mended before training."""

    about: str
    name: str
    value: str | int | float | bool | None
    status: Status = "ok"
    mend: str = ""


def command(
    model: Annotated[str | None, typer.Option(help="A language model to look into.")] = None,
    data: Annotated[Path | None, typer.Option("--in", help="A data file of any format to look into.")] = None,
    reward: Annotated[str | None, typer.Option(help="A reward to look into.")] = None,
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

    from tuneful.data.formats import read_answers

    is_model = reward is not None and not reward.startswith(("{", "[")) and Path(reward).is_dir()
    reward_model = reward if is_model else None
    if deep and model is None and reward_model is None:
        raise ConfigError("doctor: --deep trains a model and there is none; add --model, or --reward DIRECTORY")
    looked_at: list[tuple[str, Callable[[], Iterator[Finding]]]] = [("machine", look_at_machine)]
    if data is not None:
        looked_at.append(("data", lambda: look_at_data(data)))
    if model is not None:
        looked_at.append(("model", lambda: look_at_model(model, _offered(_prompts, data))))
    if reward is not None:
        looked_at.append(("reward", lambda: look_at_reward(reward, _offered(read_answers, data)[:8] or ANSWERS)))
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


def look_at_machine() -> Iterator[Finding]:
    """Versions, threads, accelerator and bfloat16."""
    import torch

    from tuneful.runs.manifest import environment

    for name, version in environment().items():
        if name not in ("cpus", "threads"):
            yield Finding("machine", name, version)
    threads, cpus = torch.get_num_threads(), _cpus()
    few = "" if threads <= cpus else f"set OMP_NUM_THREADS={cpus}; more threads than CPUs wait for each other"
    yield Finding("machine", "threads", f"{threads} on {cpus} CPUs", "note" if few else "ok", few)
    if torch.cuda.is_available():
        yield Finding("machine", "device", torch.cuda.get_device_name())
        half = torch.cuda.is_bf16_supported(including_emulation=False)
        mend = "" if half else "train in float32; this device only emulates bfloat16"
        yield Finding("machine", "bfloat16", half, "ok" if half else "note", mend)
    else:
        yield Finding("machine", "device", f"cpu ({torch.backends.cpu.get_cpu_capability()})")
        yield Finding("machine", "bfloat16", "works, seldom faster than float32 on a CPU")


def look_at_data(path: Path) -> Iterator[Finding]:
    """Format and counts; every row is read as training would read it."""
    import json

    from tuneful.data import files, formats

    yield Finding("data", "format", formats.detect(path))
    rows = [json.dumps(dict(row.fields), sort_keys=True) for row in files.read_rows(path)]
    yield Finding("data", "rows", len(rows))
    repeated = len(rows) - len(set(rows))
    mend = "leave them out; what stands twice counts twice" if repeated else ""
    yield Finding("data", "rows that repeat another", repeated, "note" if repeated else "ok", mend)
    skipped: list[str] = []
    prompts = formats.read(path, "prompts", on_skip=skipped.append)
    yield Finding("data", "prompts", len(set(prompts)))
    again = len(prompts) - len(set(prompts))
    mend = "no matter for answers to the same prompt, which stay in one split; else leave them out"
    yield Finding("data", "rows of a prompt seen before", again, "note" if again else "ok", mend if again else "")
    for kind in formats.kinds(path):
        if kind not in ("prompts", "answers"):
            yield Finding("data", kind, len(formats.read(path, kind, on_skip=skipped.append)))
    skipped = list(dict.fromkeys(skipped))
    mend = f"the first: {skipped[0]}" if skipped else ""
    status: Status = "fail" if not prompts else "note" if skipped else "ok"
    yield Finding("data", "rows skipped", len(skipped), status, mend)


def look_at_model(path: str, prompts: Sequence[Prompt] = ()) -> Iterator[Finding]:
    """Tokens, template and context, and whether logprobs depend on what else is in the batch.

    prompts: what the model will be given, which should have the form it was trained on.
    """
    import torch

    from tuneful.data.templates import pair_ids
    from tuneful.models.forward import policy_outputs
    from tuneful.models.loading import load_causal, load_tokenizer
    from tuneful.models.roles import Role

    tokenizer = load_tokenizer(path)
    yield Finding("model", "end token", tokenizer.eos_token)
    yield Finding("model", "pad token", tokenizer.pad_token)
    model = load_causal(path)
    context = model.config.get_text_config().max_position_embeddings
    yield Finding("model", "architecture", type(model).__name__)
    yield Finding("model", "parameters", sum(p.numel() for p in model.parameters()))
    yield Finding("model", "context", context)
    template = bool(tokenizer.chat_template)
    mend = (
        "" if template else "set chat_template in the tokenizer to take conversations; prompts of plain text need none"
    )
    yield Finding("model", "chat template", template, "ok" if template else "note", mend)
    plain = sum(isinstance(prompt.content, str) for prompt in prompts)
    if template and plain:
        mend = 'they do not go through the chat template; if they should, write [{"role": "user", "content": "…"}]'
        yield Finding("model", "prompts of plain text", plain, "note", mend)

    asked = [p if template else Prompt(p.text) for p, _ in ANSWERS]
    rows = [pair_ids(p, c.text, tokenizer, max_tokens=context) for p, (_, c) in zip(asked, ANSWERS, strict=True)]
    role = Role("policy", model)

    width = max(len(completion) for _, completion in rows)

    def logprobs(chosen: Sequence[tuple[list[int], list[int]]]) -> torch.Tensor:
        outputs = policy_outputs(role, [p for p, _ in chosen], [c for _, c in chosen], width=width)
        assert outputs.logprobs is not None
        return outputs.logprobs

    with torch.no_grad():
        drift = (logprobs(rows) - torch.cat([logprobs([row]) for row in rows])).abs().max()
    mend = "train with one completion per forward pass, or use an architecture whose attention is causal"
    yield _below("model", "change of a logprob in a batch", float(drift), mend)


def look_at_reward(reference: str, answers: Sequence[tuple[Prompt, Completion]]) -> Iterator[Finding]:
    """Whether scores are finite, differ, and do not depend on the batch or, for reward models, on the padding."""
    from tuneful.algorithms.start_up import reward_invariance
    from tuneful.rewards.load import load_reward
    from tuneful.rewards.reward import checked
    from tuneful.rewards.tables import reward_text

    reward = load_reward(reward_text(reference, where="--reward"))
    prompts, completions = zip(*answers, strict=True)
    scores = checked(reward, prompts, completions)
    spread = float(scores.max() - scores.min())
    mend = "" if spread else "a reward that is the same for every answer teaches nothing; look at its training report"
    yield Finding("reward", "spread of the scores", spread, "ok" if spread else "note", mend)
    yield _judged("reward", reward_invariance(reward, prompts, completions))


def train_policy(about: str, path: str, data: Path | None) -> Iterator[Finding]:
    """Whether a copy of the language model learns demonstrations."""
    from tuneful.algorithms.deep_checks import check_policy_learning
    from tuneful.cli.progress import terminal_display

    with terminal_display() as display:
        display.stage("sft", "demonstrations by heart")
        found = check_policy_learning(path, _demonstrations(data), progress=display.step)
    yield from (_judged(about, finding) for finding in found)


def train_reward_model(about: str, path: str, data: Path | None) -> Iterator[Finding]:
    """Whether a copy of the model learns comparisons, as the reward model that it is or could become."""
    from tuneful.algorithms.deep_checks import check_reward_learning
    from tuneful.cli.progress import terminal_display

    with terminal_display() as display:
        display.stage("reward", "pairs by heart")
        found = check_reward_learning(path, _comparisons(data), progress=display.step)
    yield from (_judged(about, finding) for finding in found)


def _judged(about: str, found: start_up.Finding) -> Finding:
    """A measured finding as this command tells it."""
    if found.passed:
        return Finding(about, found.name, found.value)
    return Finding(about, found.name, found.value, "note" if found.warning else "fail", found.cause)


def _below(about: str, name: str, drift: float, mend: str) -> Finding:
    """A finding that fails when `drift` is more than rounding."""
    return Finding(about, name, drift) if drift < INVARIANCE else Finding(about, name, drift, "fail", mend)


def _findings(about: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What `look` finds; an error a user can mend ends it and is its last finding."""
    try:
        yield from look()
    except TunefulError as error:
        problem, _, mend = str(error).partition("; ")
        yield Finding(about, "error", problem, "fail", mend)


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


def _cpus() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
