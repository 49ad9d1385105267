"""Raters that are no people: language models, and the labelers of the demo world."""

from __future__ import annotations

from typing import Annotated

import typer

from tuneful.cli.options import Force, In, Out, Seed, StoreUrl
from tuneful.data.files import refuse_unwritable
from tuneful.records import content_hash

RESISTS = 0.75
"""Share of the traps that a model has to resist before it rates."""


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
    """A language model as one more rater of a project, asked about every pair of every item in both orders.

    It takes nobody's place, and also judges what people have finished. First it is tried on traps; one that falls for
    more than a quarter of them rates nothing.

    Example: tuneful label ai --project helpful --judge http://localhost:8000/v1 --model qwen
    """
    import time
    from concurrent.futures import ThreadPoolExecutor
    from functools import partial

    from tuneful.cli.progress import terminal_display
    from tuneful.errors import RewardError
    from tuneful.feedback.ai import rate, require_orders, resists, traps
    from tuneful.feedback.assignment import unasked
    from tuneful.feedback.items import candidates
    from tuneful.feedback.pages import guide
    from tuneful.feedback.projects import find_project, known_member, member_named
    from tuneful.feedback.store import Store
    from tuneful.rewards.chat import ChatModel
    from tuneful.rewards.preference_judge import PreferenceJudge
    from tuneful.servers import refuse_no_url

    refuse_no_url("--judge", judge, example="http://localhost:8000/v1", keys="use --key-variable")
    opened = Store.open(store, make=False)
    found = find_project(opened, project)
    require_orders(found)
    newest = guide(opened, found.id)
    asked = principle or (newest.text if newest else f"Prefer the more {found.criteria[0]} answer.")
    name = f"{model} · {content_hash(asked)}"
    if not unasked(opened, found.id, known_member(opened, found.id, name, kind="ai") or ""):
        print(f'nothing is left to judge: in "{found.name}" there is no item that {model} has not judged')
        return
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
        rater = member_named(opened, found.id, name, kind="ai", now=time.time())
        rated = rate(
            opened,
            found.id,
            rater,
            prefer,
            threads,
            clock=time.time,
            limit=limit,
            on_progress=lambda done, total: display.step(done, total, {}),
        )
    print(f"{rated.judgments} judgments; it leans to the answer shown first by {rated.leaning:+.3f}")


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
