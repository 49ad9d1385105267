"""What judgments come to: a consensus, win rates of models, comparisons and datasets to train on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tuneful.cli.options import Force, Json, OptionalProject, OptionalStore, StoreUrl
from tuneful.data.files import refuse_unwritable
from tuneful.errors import ConfigError

if TYPE_CHECKING:
    from tuneful.feedback.collected import Collected
    from tuneful.feedback.labels import Summary
    from tuneful.feedback.shares import Share

STORE = "judgments.db"
"""Where judgments are looked for without --store and --judgments, as by the commands beside these."""

OfCriterion = Annotated[
    str | None, typer.Option("--criterion", help="Of judgments by several, these; else the project's own.")
]
Judgments = Annotated[Path | None, typer.Option("--judgments", help="Judgments file (JSONL), in place of a store.")]


def consensus_command(
    judgments: Judgments = None,
    store: OptionalStore = None,
    project: OptionalProject = None,
    criterion: OfCriterion = None,
    as_json: Json = False,
) -> None:
    """What the raters of a project or a file agree on, and how far each can be trusted.

    Of 0/1 judgments: how many answers are good, and how often each rater says yes where yes is true and no where no is;
    with --json every label and its p.

    Example: tuneful label consensus --project helpful
    """
    import json

    from tuneful.feedback.consensus import consensus
    from tuneful.feedback.implied import orders
    from tuneful.pipeline.rows import rater_rows

    said = _judged(judgments, store, project, criterion)
    if said.is_yes_or_no:
        _tell_labels(said, as_json=as_json)
        return
    found = consensus(orders(said.judgments))
    if as_json:
        print(json.dumps({"alpha": found.alpha, "pairs": len(found.pairs), "raters": rater_rows(found)}))
        return
    for rater in found.raters:
        low, high = rater.interval
        slope = f"{rater.reliability:6.2f} [{low:5.2f}, {high:5.2f}]"
        print(f"{rater.rater:<14} {slope}  {rater.verdict:<8} {rater.num_judgments:5d} judgments")
    alpha = f"undefined: {found.alpha_reason}" if found.alpha is None else f"{found.alpha:.3f}"
    print(f"{len(found.pairs)} pairs, Krippendorff's alpha {alpha}")


def _tell_labels(said: Collected, *, as_json: bool) -> None:
    import json

    from tuneful.feedback.labels import summaries

    found = summaries(said.judgments, said.decisions)
    if as_json:
        print(json.dumps([_labels_row(one) for one in found]))
        return
    for one in found:
        for rater in one.raters:
            how = f"yes when yes {rater.yes_when_yes:.2f}, no when no {rater.no_when_no:.2f}"
            print(f"{rater.rater:<14} {how}  {rater.verdict:<8} {rater.judgments:5d} judgments")
        even, good = sum(label.is_even for label in one.labels), sum(label.is_good for label in one.labels)
        bad = len(one.labels) - good - even
        print(f"by {one.criterion}: {good} good, {bad} bad, {even} as likely one as the other")
        print(f"  yes is true of {one.prevalence:.1%}; a majority of votes would turn {one.otherwise} of the labels")
    if not found:
        print("nobody has said yes or no yet")


def _labels_row(one: Summary) -> dict[str, Any]:
    labels = [
        {"item": label.item, "completion": label.completion, "p": label.p, "decided": label.decided}
        | {"label": None if label.is_even else label.is_good}
        for label in one.labels
    ]
    raters = [
        {"id": rater.rater, "yes_when_yes": rater.yes_when_yes, "no_when_no": rater.no_when_no}
        | {"verdict": rater.verdict, "num_judgments": rater.judgments, "agreement": rater.agreement}
        for rater in one.raters
    ]
    told = {"criterion": one.criterion, "prevalence": one.prevalence, "turned_by_majority": one.otherwise}
    return told | {"raters": raters, "labels": labels}


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


def export_command(
    out: Annotated[
        Path | None, typer.Option("--out", help="Comparisons, or good and bad answers, for a trainer.")
    ] = None,
    dataset: Annotated[Path | None, typer.Option("--dataset", help="A folder with everything, and a card.")] = None,
    judgments: Judgments = None,
    in_: Annotated[Path | None, typer.Option("--in", help="Completions that --judgments speaks of.")] = None,
    store: OptionalStore = None,
    project: OptionalProject = None,
    criterion: OfCriterion = None,
    audience: Annotated[str | None, typer.Option(help="Only people who say they are of this group.")] = None,
    parquet: Annotated[bool, typer.Option("--parquet", help="Tables of the dataset as Parquet, not JSONL.")] = False,
    margins: Annotated[
        bool, typer.Option("--margins", help="Pairs have the difference of the scores, for trainers that read no p.")
    ] = False,
    flagged_as_rejected: Annotated[
        bool,
        typer.Option("--flagged-as-rejected", help="Gibberish may be the rejected side of a pair."),
    ] = False,
    force: Force = False,
) -> None:
    """Comparisons (prompt, chosen, rejected, p, weight) for this or any other trainer, or a whole dataset.

    Of 0/1 judgments --out gets good and bad answers (prompt, completion, label, p), those that are as likely one as the
    other left out.

    Example: tuneful label export --project helpful --out comparisons.jsonl
    """
    if (out is None) == (dataset is None):
        raise ConfigError("give either --out FILE, for comparisons, or --dataset DIR")
    if dataset is not None:
        if project is None or judgments is not None or in_ is not None:
            raise ConfigError("--dataset is of a project of a store: name --project, and no --judgments or --in")
        if criterion is not None:
            raise ConfigError("--criterion goes with --out; the rows of a dataset tell theirs")
        _export_dataset(
            *(dataset, store or STORE, project, audience),
            parquet=parquet,
            margins=margins,
            flagged_as_rejected=flagged_as_rejected,
            force=force,
        )
        return
    assert out is not None
    refuse_unwritable(out, force=force)
    from tuneful.data.files import write_rows
    from tuneful.data.formats import read_candidates
    from tuneful.data.preferences import comparison_row
    from tuneful.data.unpaired import unpaired_row
    from tuneful.feedback.collected import answers_in, comparisons_in

    for flag, given in (
        ("--audience", audience is not None),
        ("--parquet", parquet),
        ("--margins", margins),
        ("--flagged-as-rejected", flagged_as_rejected),
    ):
        if given:
            raise ConfigError(f"{flag} goes with --dataset")
    if judgments is not None and in_ is None:
        raise ConfigError("--judgments needs the completions they speak of: add --in FILE")
    said = _judged(judgments, store, project, criterion)
    said = said if in_ is None else replace(said, candidates=read_candidates(in_))
    if said.is_yes_or_no:
        answers, even = answers_in(said)
        write_rows(out, map(unpaired_row, answers), force=force)
        print(f"{len(answers)} good and bad answers in {out}; {even} left out, as likely good as bad")
        return
    comparisons = comparisons_in(said)
    write_rows(out, map(comparison_row, comparisons), force=force)
    print(f"{len(comparisons)} comparisons in {out}")


def _export_dataset(
    folder: Path,
    place: str,
    project: str,
    audience: str | None,
    *,
    parquet: bool,
    margins: bool,
    flagged_as_rejected: bool,
    force: bool,
) -> None:
    import time

    from tuneful.feedback.projects import find_project
    from tuneful.feedback.store import Store
    from tuneful.feedback.versions import export_dataset

    opened = Store.open(place, make=False)
    found = find_project(opened, project)
    version, manifest = export_dataset(
        opened,
        found.id,
        folder,
        audience=audience,
        container="parquet" if parquet else "jsonl",
        margins=margins,
        flagged_as_rejected=flagged_as_rejected,
        force=force,
        now=time.time(),
    )
    rows = sum(file.rows for file in manifest.files)
    print(f"{rows} rows in {len(manifest.files)} files of {folder}, version {version} of the dataset")


def _judged(file: Path | None, store: str | None, project: str | None, criterion: str | None) -> Collected:
    """What was judged and decided by one criterion: of a file and the decisions.jsonl beside it, or of a project of a
    store, with its items. What is left out is told."""
    import sys

    found = _collected(file, store, project, criterion)
    if found.left_out:
        print(f"{found.left_out}; --criterion takes others", file=sys.stderr)
    return found


def _collected(file: Path | None, store: str | None, project: str | None, criterion: str | None) -> Collected:
    from tuneful.feedback.collected import Collected, collected

    if file is not None and store is None and project is None:
        from tuneful.feedback.criteria import of_one
        from tuneful.feedback.judgments import read_judgments
        from tuneful.feedback.settling import decisions_beside

        said, left_out = of_one(read_judgments(file), asked=criterion)
        settled = [one for one in decisions_beside(file) if criterion in (None, one.criterion)]
        return Collected(said, [], settled, left_out)
    if file is not None or project is None:
        raise ConfigError("name either --judgments FILE, or the --project of a store")
    from tuneful.feedback.projects import find_project
    from tuneful.feedback.store import Store

    opened = Store.open(store or STORE, make=False)
    return collected(opened, find_project(opened, project).id, criterion=criterion)
