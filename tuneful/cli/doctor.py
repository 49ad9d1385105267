"""`tuneful doctor`: findings about this machine, a data file, a model and a reward, each with the way to mend it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from tuneful.cli.options import Json
from tuneful.errors import DataError, TunefulError
from tuneful.records import Completion, Prompt

Status = Literal["ok", "note", "fail"]

INVARIANCE = 1e-4
"""Largest change of a logprob or a score, in float32, that rounding explains."""

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
    as_json: Json = False,
) -> None:
    """What this machine can do, and whether a data file, a model and a reward are fit to train with.

    Exit status 1 when something must be mended first.

    Example: tuneful doctor --model runs/demo/ppo/model --in prompts.jsonl
    """
    import json

    looked_at: list[tuple[str, Callable[[], Iterator[Finding]]]] = [("machine", look_at_machine)]
    if data is not None:
        looked_at.append(("data", lambda: look_at_data(data)))
    if model is not None:
        looked_at.append(("model", lambda: look_at_model(model)))
    if reward is not None:
        looked_at.append(("reward", lambda: look_at_reward(reward, _answers(data))))
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
    from tuneful.data import formats

    kind = formats.detect(path)
    yield Finding("data", "format", kind)
    readers: dict[str, Callable[[Path], object]] = {
        "completions": formats.read_candidates,
        "demonstrations": formats.read_demonstrations,
        "preferences": formats.read_comparisons,
    }
    if kind in readers:
        readers[kind](path)
    skipped: list[str] = []
    prompts = len(formats.read_prompts(path, on_skip=skipped.append))
    rows = sum(1 for _ in formats.read_rows(path))
    yield Finding("data", "rows", rows)
    yield Finding("data", "prompts", prompts)
    again = rows - len(skipped) - prompts
    mend = "no matter for answers to the same prompt, which stay in one split; else leave them out"
    yield Finding("data", "rows of a prompt seen before", again, "note" if again else "ok", mend if again else "")
    mend = f"the first: {skipped[0]}" if skipped else ""
    status: Status = "fail" if not prompts else "note" if skipped else "ok"
    yield Finding("data", "rows skipped", len(skipped), status, mend)


def look_at_model(path: str) -> Iterator[Finding]:
    """Tokens, template and context, and whether logprobs depend on what else is in the batch."""
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
    from dataclasses import replace

    import torch

    from tuneful.rewards.learned import LearnedReward
    from tuneful.rewards.load import load_reward
    from tuneful.rewards.reward import checked

    reward = load_reward(reference)
    prompts, completions = zip(*answers, strict=True)
    together = checked(reward, prompts, completions)
    spread = float(together.max() - together.min())
    mend = "" if spread else "a reward that is the same for every answer teaches nothing; look at its training report"
    yield Finding("reward", "spread of the scores", spread, "ok" if spread else "note", mend)
    alone = torch.cat([checked(reward, [p], [c]) for p, c in answers])
    mend = "score each completion by itself; look at the reading position and the attention mask"
    yield _below("reward", "change of a score in a batch", float((together - alone).abs().max()), mend)
    if isinstance(reward, LearnedReward):
        left = checked(replace(reward, padding="left"), prompts, completions)
        mend = "look at the pad token, the attention mask and the positions of the model"
        yield _below("reward", "change of a score with the padding", float((together - left).abs().max()), mend)


def _below(about: str, name: str, drift: float, mend: str) -> Finding:
    """A finding that fails when `drift` is more than rounding."""
    return Finding(about, name, drift) if drift < INVARIANCE else Finding(about, name, drift, "fail", mend)


def _findings(about: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What `look` finds; an error a user can mend ends it and is its last finding."""
    try:
        yield from look()
    except TunefulError as error:
        problem, _, mend = str(error).rpartition("; ")
        yield Finding(about, "error", problem or mend, "fail", mend)


def _answers(data: Path | None) -> Sequence[tuple[Prompt, Completion]]:
    """The first answers of the data file when it holds some."""
    from tuneful.data.formats import read_answers

    if data is None:
        return ANSWERS
    try:
        return read_answers(data)[:8]
    except DataError:
        return ANSWERS


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
