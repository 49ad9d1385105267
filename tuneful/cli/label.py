"""`tuneful label`: judgments, in a store or in files."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, get_args

import typer

from tuneful.cli.options import Device, Force, In, Json, MaxPromptTokens, Out, Seed, StoreUrl
from tuneful.data.files import refuse_unwritable
from tuneful.errors import ConfigError, DataError, GenerationError, StoreError
from tuneful.records import content_hash

if TYPE_CHECKING:
    from tuneful.feedback.completions_wanted import CompletionsWanted
    from tuneful.feedback.settling import Decision
    from tuneful.feedback.shares import Share
    from tuneful.feedback.store import Store
    from tuneful.records import Candidates, Judgment

app = typer.Typer(help="Judgments: collect them in a store, find their consensus, export pairs.", no_args_is_help=True)

Judgments = Annotated[Path | None, typer.Option("--judgments", help="Judgments file (JSONL), in place of a store.")]
OptionalStore = Annotated[str | None, typer.Option("--store", help="A SQLite file, or postgresql://…")]
OptionalProject = Annotated[str | None, typer.Option("--project", help="Name or id of a project of the store.")]
Role = Literal["labeler", "lead", "admin"]

RESISTS = 0.75
"""Share of the traps that a model has to resist before it rates."""

Kind = Literal["ranking", "comparison", "binary", "rating", "demonstration"]


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


@app.command("create")
def create_command(
    name: Annotated[str, typer.Argument(help="Name of the new project.", show_default=False)],
    models: Annotated[
        list[str] | None, typer.Argument(help="Models after the first of --from-models.", show_default=False)
    ] = None,
    in_: Annotated[
        Path | None, typer.Option("--in", help="Prompts with completions: JSONL, also .gz, or Parquet.")
    ] = None,
    from_models: Annotated[
        list[str] | None, typer.Option(help="In place of --in: models that answer --prompts, compared blind.")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="Prompts for --from-models.")] = None,
    samples: Annotated[int, typer.Option(help="Answers of each model to a prompt.", min=1)] = 1,
    temperature: Annotated[float, typer.Option(help="Of the models; 0 takes the most likely token.")] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer of the models.")] = 128,
    max_prompt_tokens: MaxPromptTokens = None,
    seed: Seed = 0,
    device: Device = None,
    store: StoreUrl = "judgments.db",
    kind: Annotated[
        Kind | None, typer.Option(help="What people do; else comparison for two models, and ranking.")
    ] = None,
    criterion: Annotated[str, typer.Option(help="What is judged: helpful, honest, harmless, or your own.")] = "helpful",
    overlap: Annotated[int, typer.Option(help="How many people judge each item.", min=1)] = 3,
    most_overlap: Annotated[
        int, typer.Option(help="How many may judge one whose order is unsure; 0: no more than --overlap.")
    ] = 0,
    sure: Annotated[float, typer.Option(help="Share of an item's pairs in the right order that is enough.")] = 0.9,
    instructions: Annotated[Path | None, typer.Option(help="What labelers read first (Markdown).")] = None,
) -> None:
    """A project whose items are prompts with completions: those of a file, or answers that models give here and now.

    Of several models each item shows one answer of each, in an order that is drawn, and nobody who judges sees which is
    whose; `tuneful label winrate` tells afterwards. Of one model an item shows all its answers.

    Example: tuneful label create tuned --from-models runs/demo/sft/model runs/demo/ppo/model --prompts test.jsonl
    """
    if (in_ is None) == (from_models is None) or (prompts is None) != (from_models is None):
        raise ConfigError("give either --in FILE, or --from-models MODEL … with --prompts FILE")
    if in_ is not None and models:
        raise ConfigError(f"{' '.join(models)}: what is it? --in goes with the name of the project alone")
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
        print(_from_file(store, new, in_))
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


def _from_file(place: str, new: _New, file: Path) -> str:
    """A project of the items of a file; what came of it."""
    import time

    from tuneful.data.formats import read_candidates
    from tuneful.feedback.items import add_items, require_sizes, require_storable_items
    from tuneful.feedback.projects import require_overlap
    from tuneful.feedback.store import Store

    require_overlap(new.kind, new.most_overlap, new.sure)
    items = read_candidates(file)
    require_sizes(new.kind, items)
    require_storable_items(items)
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
    set_overlap(opened, made, most=new.most_overlap, sure=new.sure)
    if new.text is not None:
        publish_instructions(opened, made, new.text, now=time.time())
    return made


@app.command("import")
def import_command(
    file: Annotated[Path, typer.Argument(help="Judgments made elsewhere.", show_default=False)],
    project: Annotated[str, typer.Option("--project", help="Name of a project, made when it is not there.")],
    store: StoreUrl = "judgments.db",
    in_: Annotated[Path | None, typer.Option("--in", help="Completions, for a judgments file of ours.")] = None,
    skip_broken: Annotated[bool, typer.Option("--skip-broken", help="Take the rest of a file with errors.")] = False,
) -> None:
    """Judgments of Label Studio, Argilla, Open-Assistant, TRL or a file of ours, into a project of a store.

    Example: tuneful label import label-studio.json --project helpful
    """
    import time

    from tuneful.data.formats import read_candidates
    from tuneful.feedback.imports import import_judgments
    from tuneful.feedback.projects import create_project, find_project, projects
    from tuneful.feedback.recording import record
    from tuneful.feedback.store import Store

    items = [] if in_ is None else read_candidates(in_)
    found = import_judgments(file, candidates=items, on_problem="skip" if skip_broken else "refuse")
    for line in (*found.problems, *found.left_out):
        print(line, file=sys.stderr)
    opened = Store.open(store)
    asked = Counter((one.kind, one.criterion) for one in found.judgments)
    for kind, criterion in asked:
        name = project if len(asked) == 1 else f"{project} ({kind} by {criterion})"
        if name not in {one.name for one in projects(opened)}:
            create_project(opened, name, kind, criteria=(criterion,), now=time.time())
        alike = [one for one in found.judgments if (one.kind, one.criterion) == (kind, criterion)]
        new = record(opened, find_project(opened, name).id, found.candidates, alike, now=time.time())
        print(f'{new.judgments} new judgments of {new.items} new items in project "{name}" of {opened}')
    if not asked:
        print(f"{file} holds no judgments")


@app.command("ai")
def ai_command(
    project: Annotated[str, typer.Option("--project", help="Name or id of a project of the store.")],
    judge: Annotated[str, typer.Option(help="URL before /chat/completions, such as http://localhost:8000/v1.")],
    model: Annotated[str, typer.Option(help="The model's name at that place.")],
    store: StoreUrl = "judgments.db",
    principle: Annotated[str | None, typer.Option(help="By what to prefer, in place of the instructions.")] = None,
    key_variable: Annotated[str | None, typer.Option(help="Environment variable with the API's key.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most this many items.", min=1)] = None,
    num_traps: Annotated[int, typer.Option(help="Answers that order the judge to choose them, tried first.")] = 8,
    concurrency: Annotated[int, typer.Option(help="Requests under way at one time.", min=1)] = 4,
    seed: Seed = 0,
) -> None:
    """A language model as one more rater of a project, asked about every pair in both orders.

    First it is tried on traps; one that falls for more than a quarter of them rates nothing.

    Example: tuneful label ai --project helpful --judge http://localhost:8000/v1 --model qwen
    """
    import time
    from concurrent.futures import ThreadPoolExecutor
    from functools import partial

    from tuneful.cli.progress import terminal_display
    from tuneful.errors import RewardError
    from tuneful.feedback.ai import rate, resists, traps
    from tuneful.feedback.items import candidates
    from tuneful.feedback.pages import guide
    from tuneful.feedback.projects import find_project, member_named, progress
    from tuneful.feedback.store import Store
    from tuneful.rewards.chat import ChatModel
    from tuneful.rewards.preference_judge import PreferenceJudge
    from tuneful.servers import refuse_no_url

    refuse_no_url("--judge", judge, example="http://localhost:8000/v1", keys="use --key-variable")
    opened = Store.open(store, make=False)
    found = find_project(opened, project)
    newest = guide(opened, found.id)
    asked = principle or (newest.text if newest else f"Prefer the more {found.criteria[0]} answer.")
    chat = ChatModel(judge, model, key_variable)
    with chat.client() as client, ThreadPoolExecutor(concurrency) as threads, terminal_display() as display:
        prefer = partial(PreferenceJudge(chat, asked).prefer, client)
        if num_traps:
            display.stage("traps", model)
            held = resists(prefer, traps(candidates(opened, found.id), num_traps, seed=seed))
            display.note(f"{model} resists {held:.0%} of {2 * num_traps} orders hidden in answers")
            if held < RESISTS:
                raise RewardError(f"judge {model} does what answers tell it to; take another, or --num-traps 0")
        display.stage("rate", model)
        rater = member_named(opened, found.id, f"{model} · {content_hash(asked)}", kind="ai", now=time.time())
        left = min(limit or progress(opened, found.id).items, progress(opened, found.id).items)
        rated = rate(
            opened,
            found.id,
            rater,
            prefer,
            threads,
            clock=time.time,
            limit=limit,
            on_progress=lambda done: display.step(done, left, {}),
        )
    print(f"{rated.judgments} judgments; it leans to the answer shown first by {rated.leaning:+.3f}")


@app.command("status")
def status_command(store: StoreUrl = "judgments.db", as_json: Json = False) -> None:
    """How far each project of a store is.

    Example: tuneful label status --store judgments.db
    """
    import json
    from dataclasses import asdict

    from tuneful.feedback.projects import progress, projects
    from tuneful.feedback.store import Store

    opened = Store.open(store, make=False)
    rows = [
        {"id": one.id, "name": one.name, "kind": one.kind} | asdict(progress(opened, one.id))
        for one in projects(opened)
    ]
    if as_json:
        print(json.dumps(rows))
        return
    for row in rows:
        more = f" (up to {row['up_to']})" if row["up_to"] > row["wanted"] else ""
        judged = f"{row['have']:6} of {row['wanted']} judgments{more}"
        print(f"{row['name']:<20} {judged}, {row['done']} of {row['items']} items done")
    if not rows:
        print("no project yet; make one with: tuneful label create")


@app.command("gold")
def gold_command(
    project: Annotated[str, typer.Option("--project", help="Name or id of a project of the store.")],
    store: StoreUrl = "judgments.db",
    in_: Annotated[
        Path | None, typer.Option("--in", help='Completions rows with "ranks" or "values", and "why".')
    ] = None,
    quiz: Annotated[int, typer.Option(help="Items that every labeler begins with, told the answer after each.")] = 0,
    pass_share: Annotated[float, typer.Option(help="Share of the quiz to get right.")] = 0.7,
    gold_every: Annotated[int, typer.Option(help="Afterwards one item in so many is a known one; 0: none.")] = 0,
) -> None:
    """Items whose answer is known, to teach labelers at the beginning and to see how they judge later.

    Example: tuneful label gold --project helpful --in gold.jsonl --quiz 5 --gold-every 15
    """
    import time

    from tuneful.feedback.gold import read_gold
    from tuneful.feedback.items import add_gold
    from tuneful.feedback.projects import find_project, set_quiz
    from tuneful.feedback.store import Store

    opened = Store.open(store, make=False)
    found = find_project(opened, project)
    made = [] if in_ is None else add_gold(opened, found.id, read_gold(in_), now=time.time())
    set_quiz(opened, found.id, quiz=quiz, pass_share=pass_share, gold_every=gold_every, now=time.time())
    print(f'{len(made)} known items added to "{found.name}"; a quiz of {quiz}, to get {pass_share:.0%} right')


@app.command("token")
def token_command(
    login: Annotated[str, typer.Argument(help="Login of the person whom the program stands for.", show_default=False)],
    name: Annotated[str, typer.Option(help="What it is for.")] = "script",
    scope: Annotated[list[str] | None, typer.Option(help="read, label or lead; may be repeated.")] = None,
    days: Annotated[float, typer.Option(help="How long it is good.", min=0)] = 90,
    store: StoreUrl = "judgments.db",
) -> None:
    """A token for a program, shown this once; it goes into the header "Authorization: Bearer TOKEN" below /api/v1.

    Example: tuneful label token ada --scope label --scope read
    """
    import time

    from tuneful.feedback.access import Scope, make_token, rater_of
    from tuneful.feedback.store import Store

    scopes = [one for one in get_args(Scope) if one in (scope or ())]
    if not scopes or len(scopes) < len(scope or ()):
        raise ConfigError(f"--scope {' '.join(scope or ['is missing'])}: give one or more of read, label, lead")
    opened = Store.open(store, make=False)
    print(make_token(opened, rater_of(opened, login), name, scopes, days=days, now=time.time()))


@app.command("invite")
def invite_command(
    url: Annotated[
        str, typer.Argument(help="Where the pages are, such as https://labels.example.", show_default=False)
    ],
    project: OptionalProject = None,
    role: Annotated[Role, typer.Option(help="What the person becomes; an admin has no --project.")] = "labeler",
    store: StoreUrl = "judgments.db",
) -> None:
    """A link that lets one person in, within two weeks.

    Example: tuneful label invite http://127.0.0.1:8080 --project helpful
    """
    import time

    from tuneful.feedback.access import invite
    from tuneful.feedback.projects import find_project
    from tuneful.feedback.store import Store

    if (role == "admin") != (project is None):
        raise ConfigError("--project and --role admin: give one of them")
    opened = Store.open(store, make=False)
    place = None if project is None else find_project(opened, project).id
    print(f"{url.rstrip('/')}/invitation/{invite(opened, project_id=place, role=role, now=time.time())}")


@app.command("forget")
def forget_command(
    login: Annotated[str, typer.Argument(help="Login of the person.", show_default=False)],
    store: StoreUrl = "judgments.db",
) -> None:
    """Erase who a person is: login, name, groups. What they judged stays, under a number.

    Example: tuneful label forget bo
    """
    import time

    from tuneful.feedback.access import erase, rater_of
    from tuneful.feedback.store import Store

    opened = Store.open(store, make=False)
    erase(opened, rater_of(opened, login), now=time.time())
    print(f"{login} is forgotten; the judgments stay")


@app.command("backup")
def backup_command(out: Out, store: StoreUrl = "judgments.db") -> None:
    """A copy of a store as it is now, while people go on judging. The copy is a store itself (SQLite).

    Example: tuneful label backup --store judgments.db --out judgments-monday.db
    """
    from tuneful.feedback.backup import back_up
    from tuneful.feedback.store import Store

    counts = back_up(Store.open(store, make=False), out)
    print(f"{counts['judgment']} judgments and {sum(counts.values())} rows in all in {out}")


@app.command("restore")
def restore_command(in_: In, store: StoreUrl = "judgments.db") -> None:
    """A backup put into a store that holds nothing yet, of either database.

    Example: tuneful label restore --in judgments-monday.db --store postgresql://localhost/judgments
    """
    import time

    from tuneful.feedback.backup import restore
    from tuneful.feedback.store import Store

    opened = Store.open(store)
    counts = restore(in_, opened, now=time.time())
    print(f"{counts['judgment']} judgments and {sum(counts.values())} rows in all in {opened}")


@app.command("trail")
def trail_command(
    store: StoreUrl = "judgments.db",
    project: OptionalProject = None,
    last: Annotated[int, typer.Option(help="At most this many events, the newest.", min=1)] = 50,
    check: Annotated[bool, typer.Option("--check", help="Only say whether the trail is whole.")] = False,
    dataset: Annotated[Path | None, typer.Option("--dataset", help="Whose manifest the trail has to go with.")] = None,
    as_json: Json = False,
) -> None:
    """What leads and admins did, each event with a hash over the one before, so that none can be changed unseen.

    --check reads all of them. With the folder of a dataset written earlier it also says whether the trail is still the
    one that the dataset names: a trail that was written anew from the beginning is whole, and another one.

    Example: tuneful label trail --store judgments.db --check --dataset helpful-data
    """
    import json
    from dataclasses import asdict
    from datetime import UTC, datetime

    from tuneful.feedback import trail
    from tuneful.feedback.projects import find_project
    from tuneful.feedback.store import Store

    opened = Store.open(store, make=False)
    if check or dataset is not None:
        found = trail.check(opened)
        if as_json:
            print(json.dumps(asdict(found)))
        if found.broken is not None:
            raise StoreError(f"{opened}: event {found.broken} of the trail is missing or is not what was written")
        if dataset is not None:
            _require_trail_of(dataset, opened)
        if not as_json:
            print(f"{found.count} events, all as they were written; the last one's hash is {found.head}")
        return
    place = None if project is None else find_project(opened, project).id
    events = trail.events(opened, place, last=last)
    if as_json:
        print(json.dumps([asdict(one) for one in events]))
        return
    for one in events:
        at = datetime.fromtimestamp(one.at, UTC).strftime("%Y-%m-%d %H:%M:%S")
        print(f"{one.number:6} {at} {(one.rater or '-')[:8]:<8} {one.what} {json.dumps(one.about)}")


@app.command("simulate")
def simulate_command(
    in_: In,
    out: Out,
    raters_per_item: Annotated[int, typer.Option(help="Rankings of each prompt's completions.")] = 3,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Rankings by the demo world's labelers of completions to its prompts.

    Example: tuneful label simulate --in runs/demo/samples/completions.jsonl --out judgments.jsonl
    """
    refuse_unwritable(out, force=force)
    from tuneful.data.formats import read_candidates
    from tuneful.demo.labelers import simulate
    from tuneful.feedback.judgments import write_judgments

    judgments = simulate(read_candidates(in_), labelers_per_item=raters_per_item, seed=seed).judgments
    write_judgments(out, judgments, force=force)
    print(f"{len(judgments)} judgments in {out}")


@app.command("consensus")
def consensus_command(
    judgments: Judgments = None, store: OptionalStore = None, project: OptionalProject = None, as_json: Json = False
) -> None:
    """What the raters of a project or a file agree on, and how far each can be trusted.

    Example: tuneful label consensus --store judgments.db --project helpful
    """
    import json

    from tuneful.feedback.consensus import consensus
    from tuneful.pipeline.rows import rater_rows

    found = consensus(_judged(judgments, store, project).judgments)
    if as_json:
        print(json.dumps({"alpha": found.alpha, "pairs": len(found.pairs), "raters": rater_rows(found)}))
        return
    for rater in found.raters:
        low, high = rater.interval
        slope = f"{rater.reliability:6.2f} [{low:5.2f}, {high:5.2f}]"
        print(f"{rater.rater:<14} {slope}  {rater.verdict:<8} {rater.num_judgments:5d} judgments")
    alpha = f"undefined: {found.alpha_reason}" if found.alpha is None else f"{found.alpha:.3f}"
    print(f"{len(found.pairs)} pairs, Krippendorff's alpha {alpha}")


@app.command("winrate")
def winrate_command(
    project: Annotated[str, typer.Option("--project", help="Name or id of a project of the store.")],
    store: StoreUrl = "judgments.db",
    by: Annotated[Literal["people", "models"], typer.Option(help="Whose judgments count.")] = "people",
    audience: Annotated[str | None, typer.Option(help="Only people who say they are of this group.")] = None,
    as_json: Json = False,
) -> None:
    """Which model people prefer, for each pair of those whose answers they have compared: wins, ties and the win rate.

    Intervals are Wilson's at 95 %, over prompts. The second rate is that of the consensus, in which a labeler who
    guesses counts for nothing.

    Example: tuneful label winrate --project tuned
    """
    import json
    from dataclasses import asdict

    from tuneful.feedback.projects import find_project
    from tuneful.feedback.store import Store
    from tuneful.feedback.win_rates import win_rates_of

    opened = Store.open(store, make=False)
    id_ = find_project(opened, project).id
    found = win_rates_of(opened, id_, by=by, audience=audience)
    if as_json:
        print(json.dumps([asdict(one) for one in found]))
        return
    for one in found:
        alike = f", and {one.alike} on which both said the same" if one.alike else ""
        print(f"{one.first} against {one.second}: {_interval(one.rate)} over {one.prompts} prompts{alike}")
        agreed = f"by the consensus {_interval(one.weighted)}" if one.weighted else "no labeler can be trusted"
        print(f"  {one.wins} won, {one.ties} tied, {one.losses} lost; {agreed}")
    if not found:
        print(f"{by} have not compared answers of two models in this project yet")


def _interval(share: Share) -> str:
    return f"{share.value:.1%} ({share.low:.1%} to {share.high:.1%})"


@app.command("export")
def export_command(
    out: Annotated[Path | None, typer.Option("--out", help="Comparisons for a trainer.")] = None,
    dataset: Annotated[Path | None, typer.Option("--dataset", help="A folder with everything, and a card.")] = None,
    judgments: Judgments = None,
    in_: Annotated[Path | None, typer.Option("--in", help="Completions that --judgments speaks of.")] = None,
    store: OptionalStore = None,
    project: OptionalProject = None,
    audience: Annotated[str | None, typer.Option(help="Only people who say they are of this group.")] = None,
    force: Force = False,
) -> None:
    """Comparisons (prompt, chosen, rejected, p, weight) for this or any other trainer, or a whole dataset.

    Example: tuneful label export --store judgments.db --project helpful --out comparisons.jsonl
    """
    if (out is None) == (dataset is None):
        raise ConfigError("give either --out FILE, for comparisons, or --dataset DIR")
    if dataset is not None:
        if store is None or project is None:
            raise ConfigError("--dataset needs --store and --project")
        _export_dataset(dataset, store, project, audience, force=force)
        return
    assert out is not None
    refuse_unwritable(out, force=force)
    from tuneful.data.files import write_rows
    from tuneful.data.formats import read_candidates
    from tuneful.data.preferences import comparison_row
    from tuneful.feedback.consensus import consensus
    from tuneful.feedback.export import agreed_comparisons
    from tuneful.feedback.settling import settle

    if audience is not None:
        raise ConfigError("--audience goes with --dataset")
    if judgments is not None and in_ is None:
        raise ConfigError("--judgments needs the completions they speak of: add --in FILE")
    said = _judged(judgments, store, project)
    items = said.candidates if in_ is None else read_candidates(in_)
    comparisons = agreed_comparisons(settle(consensus(said.judgments), said.decisions), items)
    write_rows(out, map(comparison_row, comparisons), force=force)
    print(f"{len(comparisons)} comparisons in {out}")


def _export_dataset(folder: Path, place: str, project: str, audience: str | None, *, force: bool) -> None:
    import time

    from tuneful.feedback.projects import find_project
    from tuneful.feedback.store import Store
    from tuneful.feedback.versions import export_dataset

    opened = Store.open(place, make=False)
    found = find_project(opened, project)
    version, manifest = export_dataset(opened, found.id, folder, audience=audience, force=force, now=time.time())
    rows = sum(file.rows for file in manifest.files)
    print(f"{rows} rows in {len(manifest.files)} files of {folder}, version {version} of the dataset")


def _require_trail_of(folder: Path, opened: Store) -> None:
    """StoreError when the trail does not hold the event that the manifest of a dataset names as its last."""
    import json

    from tuneful.feedback import trail

    try:
        named = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["trail"]
        number, head = int(named["events"]), str(named["head"])
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{folder}: has no manifest.json that names a trail; give the folder of a dataset") from None
    if not trail.holds(opened, number, head):
        raise StoreError(f"{folder}: names event {number} of another trail than that of {opened}; one was changed")


class _Judged(NamedTuple):
    judgments: list[Judgment]
    candidates: list[Candidates]
    decisions: list[Decision]


def _judged(file: Path | None, store: str | None, project: str | None) -> _Judged:
    """What was judged and decided: of a file and the decisions.jsonl beside it, or of a project of a store, with its
    items."""
    if file is not None and store is None:
        from tuneful.feedback.judgments import read_judgments
        from tuneful.feedback.settling import decisions_beside

        return _Judged(read_judgments(file), [], decisions_beside(file))
    if file is not None or store is None or project is None:
        raise ConfigError("name either --judgments FILE, or --store and --project")
    from tuneful.feedback.decisions import decisions
    from tuneful.feedback.items import candidates
    from tuneful.feedback.projects import find_project, judgments
    from tuneful.feedback.store import Store

    opened = Store.open(store, make=False)
    found = find_project(opened, project)
    return _Judged(judgments(opened, found.id), candidates(opened, found.id), decisions(opened, found.id))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text: {error}") from None
