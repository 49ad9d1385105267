"""`tuneful label create`: a project whose items are prompts with completions, of a file or of models."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tuneful.cli.label.broken import refuse_unless_skipped
from tuneful.cli.options import Device, MaxPromptTokens, Seed, StoreUrl
from tuneful.errors import ConfigError, DataError, GenerationError

if TYPE_CHECKING:
    from tuneful.feedback.completions_wanted import CompletionsWanted
    from tuneful.feedback.store import Store

Kind = Literal["ranking", "comparison", "binary", "rating", "demonstration"]

Items = Annotated[
    Path | None,
    typer.Option("--in", help="Prompts with completions, or, for demonstrations, alone: JSONL, also .gz, or Parquet."),
]
FromModels = Annotated[
    list[str] | None, typer.Option(help="In place of --in: models that answer --prompts, compared blind.")
]
MoreModels = Annotated[
    list[str] | None, typer.Argument(help="Models after the first of --from-models.", show_default=False)
]
OptionalKind = Annotated[Kind | None, typer.Option(help="What people do; else comparison for two models, and ranking.")]
MostOverlap = Annotated[
    int, typer.Option(help="How many may judge one whose order is unsure; 0: no more than --overlap.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class _New:
    """A project to be made; text: of its instructions. See `create_command`."""

    name: str
    kind: Kind
    criterion: str
    text: str | None
    overlap: int
    most_overlap: int
    sure: float


def create_command(
    name: Annotated[str, typer.Argument(help="Name of the new project.", show_default=False)],
    models: MoreModels = None,
    in_: Items = None,
    from_models: FromModels = None,
    prompts: Annotated[Path | None, typer.Option(help="Prompts for --from-models.")] = None,
    samples: Annotated[int, typer.Option(help="Answers of each model to a prompt.", min=1)] = 1,
    temperature: Annotated[float, typer.Option(help="Of the models; 0 takes the most likely token.")] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer of the models.")] = 128,
    max_prompt_tokens: MaxPromptTokens = None,
    seed: Seed = 0,
    device: Device = None,
    store: StoreUrl = "judgments.db",
    kind: OptionalKind = None,
    criterion: Annotated[str, typer.Option(help="What is judged: helpful, honest, harmless, or your own.")] = "helpful",
    overlap: Annotated[int, typer.Option(help="How many people judge each item.", min=1)] = 3,
    most_overlap: MostOverlap = 0,
    sure: Annotated[float, typer.Option(help="Share of an item's pairs in the right order that is enough.")] = 0.9,
    instructions: Annotated[Path | None, typer.Option(help="What labelers read first (Markdown).")] = None,
    skip_broken: Annotated[bool, typer.Option("--skip-broken", help="Take the rest of a file with errors.")] = False,
) -> None:
    """A project whose items are prompts with completions: those of a file, or answers that models give here and now.

    Of several models each item shows one answer of each, in an order that is drawn, and nobody who judges sees which is
    whose; `tuneful label winrate` tells afterwards. Of one model an item shows all its answers.

    Example: tuneful label create tuned --from-models runs/demo/sft/model runs/demo/ppo/model --prompts test.jsonl
    """
    _require_source(in_, from_models, models, prompts)
    if 0 < most_overlap <= overlap:
        raise ConfigError(f"--most-overlap {most_overlap}: give more than --overlap {overlap}, or leave it out")
    named = (*(from_models or ()), *(models or ()))
    new = _New(
        name=name,
        kind=kind or ("comparison" if len(named) == 2 else "ranking"),
        criterion=criterion,
        text=None if instructions is None else _read(instructions),
        overlap=overlap,
        most_overlap=most_overlap,
        sure=sure,
    )
    if in_ is not None:
        print(_from_file(store, new, in_, skip_broken=skip_broken))
        return
    from tuneful.data.formats import read_prompts
    from tuneful.feedback.completions_wanted import CompletionsWanted

    assert prompts is not None
    wanted = CompletionsWanted(
        prompts=tuple(read_prompts(prompts)),
        models=named,
        samples=samples,
        max_new_tokens=max_new_tokens,
        max_prompt_tokens=max_prompt_tokens,
        temperature=temperature,
        overlap=overlap,
        seed=seed,
    )
    print(_from_models(store, new, wanted))


def _require_source(
    items: Path | None, from_models: list[str] | None, models: list[str] | None, prompts: Path | None
) -> None:
    """ConfigError unless the items are of a file or of models, and not of both."""
    if items is None and from_models is None and prompts is not None:
        raise ConfigError(f"--prompts {prompts}: goes with --from-models; prompts that people answer are given by --in")
    if (items is None) == (from_models is None) or (prompts is None) != (from_models is None):
        raise ConfigError("give either --in FILE, or --from-models MODEL … with --prompts FILE")
    if items is not None and models:
        raise ConfigError(f"{' '.join(models)}: what is it? --in goes with the name of the project alone")


def _from_file(place: str, new: _New, file: Path, *, skip_broken: bool) -> str:
    """A project of the items of a file; what came of it. Faults that are not to be skipped are refused."""
    import time

    from tuneful.feedback.item_files import read_items
    from tuneful.feedback.items import add_items
    from tuneful.feedback.projects import require_overlap
    from tuneful.feedback.store import Store
    from tuneful.feedback.whole_rows import Faults

    require_overlap(new.kind, new.most_overlap, new.sure)
    items = read_items(file, new.kind, faults := Faults())
    refuse_unless_skipped(file, faults.lines, skip_broken=skip_broken)
    if not items:
        raise DataError(f"{file}: holds no item that is whole{'' if faults.lines else ': no completions'}")
    opened = Store.open(place)
    add_items(opened, _project(opened, new), items, overlap=new.overlap, now=time.time())
    return f'{len(items)} items in project "{new.name}" of {opened}; open the pages with: tuneful web --store {opened}'


def _from_models(place: str, new: _New, wanted: CompletionsWanted) -> str:
    """A project that models fill; what came of it. The models are loaded first, so that a wrong name makes no project.

    The work is a job of the store: where this command is ended, a worker goes on with it.
    """
    import time

    from tuneful.cli.progress import INTERRUPTED, terminal_display
    from tuneful.feedback.completions_wanted import ask_for
    from tuneful.feedback.jobs import claim, job_of
    from tuneful.feedback.matchups import matchups
    from tuneful.feedback.projects import progress, require_overlap
    from tuneful.feedback.store import Store
    from tuneful.pipeline.asked import answer_job, engines_of
    from tuneful.pipeline.work import Held, run_held

    require_overlap(new.kind, new.most_overlap, new.sure)
    wanted.require_fits(new.kind)
    with terminal_display() as display:
        display.stage("answers", ", ".join(wanted.models))
        engines = engines_of(wanted, note=display.note)

        def answer(held: Held) -> str:
            return answer_job(held, engines, on_progress=lambda done, total: display.step(done, total, {}, "prompts"))

        opened = Store.open(place)
        project = _project(opened, new)
        asked = ask_for(opened, project, wanted, by=None, now=time.time())
        job = claim(opened, only=asked, now=time.time())
        try:
            if job is not None:  # else a worker of this store was quicker, and does it
                run_held(opened, job, answer, note=display.note)
        except KeyboardInterrupt:
            print(f"stopped; the rest is made by: tuneful worker --store {opened}", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
    ended = job_of(opened, asked)
    if ended.state == "failed":
        raise GenerationError(f'project "{new.name}" is not whole: {ended.message}')
    made = f'{progress(opened, project).items} items in project "{new.name}" of {opened}'
    alike = sum(one.item is None for one in matchups(opened, project))
    if alike:
        made += f" (none for {alike} times that the answers were the same)"
    if ended.state != "done":
        made += f", so far: the rest is made by tuneful worker --store {opened}"
    return f"{made}; open the pages with: tuneful web --store {opened}"


def _project(opened: Store, new: _New) -> str:
    import time

    from tuneful.feedback.projects import create_project, publish_instructions, set_overlap

    made = create_project(opened, new.name, new.kind, criteria=(new.criterion,), now=time.time())
    set_overlap(opened, made, most=new.most_overlap, sure=new.sure, now=time.time())
    if new.text is not None:
        publish_instructions(opened, made, new.text, now=time.time())
    return made


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text: {error}") from None
