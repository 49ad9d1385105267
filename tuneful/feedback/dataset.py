"""Judgments as a dataset: a folder that `datasets.load_dataset` reads, with a card and a manifest.

    preferences-SPLIT     pairs in TRL's form, with p, weight, group and what is known of their labels
    ties-SPLIT            pairs whose p is about one half
    flagged-SPLIT         pairs with a side that is gibberish, unsafe and the like
    unpaired-SPLIT        single answers, good or bad, as for KTO
    demonstrations-SPLIT  what raters wrote
    transcripts-SPLIT     pairs as whole conversations, as in HH data
    trees-SPLIT.jsonl     rankings as Open-Assistant's trees
    judgments.jsonl       every judgment and revision, raters by pseudonym
    judgments.csv         the latest ones, for a spreadsheet
    decisions.jsonl       what the project's lead settled, where there is any
    completions.jsonl     the prompts and completions that these speak of
    manifest.json         what the folder was made of and with, SHA-256 and rows of every file
    README.md             the card; it is yours to complete, so the manifest leaves it out

Nothing in it tells when it was made, and rows are in the order of ids: the same input gives the same bytes.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from tuneful import __version__
from tuneful.data.completions import candidates_row
from tuneful.data.files import write_rows
from tuneful.data.jsonl import write_jsonl
from tuneful.data.parquet import need_pyarrow
from tuneful.data.splits import SHARES, split_of
from tuneful.data.writing import written_whole
from tuneful.errors import DataError, did_you_mean
from tuneful.feedback.audiences import FEWEST_PEOPLE
from tuneful.feedback.dataset_card import Config, License, card, license_in
from tuneful.feedback.dataset_folder import dataset_folder, require_place
from tuneful.feedback.dataset_manifest import CARD, MANIFEST, Manifest, WrittenFile, hash_of, rendered
from tuneful.feedback.dataset_rows import TABLES, Judged, Rows, columns, make_rows
from tuneful.feedback.judgments import judgment_row, write_judgments
from tuneful.feedback.settling import FILE, Decision, decision_row
from tuneful.records import Candidates, Judgment, Prompt
from tuneful.runs.manifest import file_hash

FORMATS = (*TABLES, "trees", "judgments", "csv", "completions")
"""Kinds of files that a dataset may hold."""

_NONE: Mapping[str, Any] = MappingProxyType({})
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")


def write_dataset(
    folder: Path,
    judged: Sequence[Judgment],
    candidates: Sequence[Candidates],
    *,
    name: str,
    decisions: Sequence[Decision] = (),
    instructions: Mapping[str, str] = _NONE,
    audience: str | None = None,
    groups: Mapping[str, Collection[str]] | None = None,
    shares: Mapping[str, float] = SHARES,
    formats: Collection[str] = FORMATS,
    container: Literal["jsonl", "parquet"] = "jsonl",
    flagged_as_rejected: bool = False,
    margins: bool = False,
    query: Mapping[str, Any] = _NONE,
    trail_of: Callable[[Manifest], Mapping[str, Any]] = lambda _: _NONE,
    force: bool = False,
) -> Manifest:
    """Write a dataset of judgments into `folder`, which appears whole or not at all.

    judged: all revisions. candidates: the prompts and completions that they speak of. decisions: a lead's, all of them;
    with an audience they are left out, for then it is the audience that speaks. instructions: text by version.
    groups: by rater, what they say of themselves; with it, `audience` keeps the judgments of the raters of one group,
    without it `audience` only says whose judgments these are.
    shares: of the splits, by first user turn. formats: which files, see FORMATS. container: of the tables.
    flagged_as_rejected: whether gibberish may be the rejected side of a pair, and a bad answer; nothing else that is
    flagged is trained on. margins: adds a column `margin`, the difference of the scores in the units of the loss. Only
    for a trainer that does not read p: TRL's reward loss, and ours, subtract a margin wherever there is one.
    trail_of: what the manifest says of the store's trail, given all the rest of it.

    An earlier dataset in the folder is replaced with `force` only, and nothing else is; what its card says of a license
    is in the new one too. Raises DataError for input that does not fit together, and when an audience has fewer than
    five people; RunError when the disk refuses.
    """
    require_place(folder, force=force)
    _check(folder, name, formats, container, shares)
    license_ = license_in(folder / CARD)
    judgments = _sorted(of_audience(judged, audience, groups))
    offered = _used(candidates, judgments)
    settled = [] if audience is not None else _settled(decisions, judgments)
    known = Judged.of(judgments, offered, settled)
    rows = make_rows(known, shares=shares, kinds=formats, flagged_as_rejected=flagged_as_rejected, margins=margins)
    with dataset_folder(folder) as part:
        written, configs = _write_tables(part, rows, container, margins=margins)
        written += _write_records(part, formats, judgments, known, offered, settled)
        manifest = Manifest(
            name=name,
            audience=audience,
            version=__version__,
            query=dict(query),
            settings=_settings(shares, formats, container, flagged_as_rejected, margins),
            inputs=_inputs(judgments, offered, settled, instructions),
            counts=_counts(judgments, known, offered, groups or {}, shares),
            agreement=_agreement(known),
            left_out=dict(sorted((+rows.left_out).items())),
            files=tuple(sorted(written, key=lambda file: file.name)),
        )
        manifest = replace(manifest, trail=dict(trail_of(manifest)))
        _write(part / MANIFEST, rendered(manifest.as_json()))
        _write(part / CARD, _card(manifest, configs, known, instructions, license_))
    return manifest


def _write_tables(part: Path, rows: Rows, container: str, *, margins: bool) -> tuple[list[WrittenFile], list[Config]]:
    """The files that are made of judgments, and what the card says of the tables among them."""
    written: list[WrittenFile] = []
    configs: dict[str, Config] = {}
    for title, kind, split, is_text, found in rows.files():
        is_table = kind in TABLES
        path = part / f"{title}-{split}.{container if is_table else 'jsonl'}"
        written.append(_written(path, write_rows(path, found)))
        if is_table:
            made = Config(title, columns(kind, is_text=is_text, margins=margins), {})
            configs.setdefault(title, made).files[split] = path.name
    return written, list(configs.values())


def _write_records(
    part: Path,
    formats: Collection[str],
    judgments: Sequence[Judgment],
    known: Judged,
    offered: Sequence[Candidates],
    settled: Sequence[Decision],
) -> list[WrittenFile]:
    """The files that hold what was judged as it is."""
    written = []
    if "judgments" in formats:
        path = part / "judgments.jsonl"
        written.append(_written(path, write_judgments(path, judgments)))
    if "csv" in formats:
        path = part / "judgments.csv"
        written.append(_written(path, _write_csv(path, known.latest)))
    if "judgments" in formats and settled:
        path = part / FILE
        written.append(_written(path, write_jsonl(path, map(decision_row, settled))))
    if "completions" in formats and offered:
        path = part / "completions.jsonl"
        written.append(_written(path, write_jsonl(path, map(_offered_row, offered))))
    return written


def _card(
    manifest: Manifest, configs: list[Config], known: Judged, instructions: Mapping[str, str], license_: License
) -> bytes:
    used = Counter(one.instructions for one in known.latest)
    told = {version: (text, used[version]) for version, text in instructions.items()}
    return card(manifest.as_json(), configs, told, fewest=FEWEST_PEOPLE, license_=license_).encode()


def _settings(
    shares: Mapping[str, float], formats: Collection[str], container: str, flagged_as_rejected: bool, margins: bool
) -> dict[str, Any]:
    return {
        "shares": dict(shares),
        "formats": [kind for kind in FORMATS if kind in formats],
        "container": container,
        "flagged_as_rejected": flagged_as_rejected,
        "margins": margins,
    }


def _inputs(
    judgments: Sequence[Judgment],
    offered: Sequence[Candidates],
    settled: Sequence[Decision],
    instructions: Mapping[str, str],
) -> dict[str, Any]:
    return {
        "judgments": hash_of(json.dumps(judgment_row(one), sort_keys=True) for one in judgments),
        "candidates": hash_of(json.dumps(candidates_row(one), sort_keys=True) for one in offered),
        "decisions": hash_of(json.dumps(decision_row(one), sort_keys=True) for one in settled),
        "instructions": {version: hash_of([text]) for version, text in instructions.items()},
    }


def _check(
    folder: Path,
    name: str,
    formats: Collection[str],
    container: str,
    shares: Mapping[str, float],
) -> None:
    if not name.strip():
        raise DataError("a dataset needs a name")
    for kind in formats:
        if kind not in FORMATS:
            raise DataError(f'a dataset has no files "{kind}"{did_you_mean(kind, FORMATS)}')
    split_of(Prompt("any"), shares)  # says when they do not add up
    for split in shares:
        if not re.fullmatch(r"[A-Za-z0-9_]+", split):
            raise DataError(f'split "{split}": the name may have letters, digits and _ only')
    if container == "parquet":
        need_pyarrow(folder)


def of_audience(
    judged: Sequence[Judgment], audience: str | None, groups: Mapping[str, Collection[str]] | None
) -> list[Judgment]:
    """The judgments of the raters of one group; all of them where none is asked for, or nothing is known of groups."""
    if audience is None or groups is None:
        return list(judged)
    members = {rater for rater, theirs in groups.items() if audience in theirs}
    kept = [one for one in judged if one.rater in members]
    people = {one.rater for one in kept if one.rater_kind == "human"}
    if not kept:
        sizes = Counter(group for theirs in groups.values() for group in theirs)
        known = [group for group, size in sizes.items() if size >= FEWEST_PEOPLE]  # a small one tells of single persons
        raise DataError(f'audience "{audience}": nobody of it judged anything{did_you_mean(audience, known)}')
    if 0 < len(people) < FEWEST_PEOPLE:
        raise DataError(
            f'audience "{audience}": has fewer than {FEWEST_PEOPLE} people, so one could tell who they are; '
            "ask more of them or leave it out"
        )
    return kept


def _sorted(judged: Iterable[Judgment]) -> list[Judgment]:
    """In the order of items and times, not of arrival."""
    judgments = sorted(judged, key=lambda one: (one.item, one.created_at, one.id))
    if not judgments:
        raise DataError("there are no judgments, so there is no dataset of them")
    for one_id, times in Counter(one.id for one in judgments).items():
        if times > 1:
            raise DataError(f'judgment "{one_id}" comes {times} times; ids must be unique')
    for one in judgments:
        if "@" in one.rater:
            raise DataError(f'rater "{one.rater}": looks like an address; give raters pseudonyms')
    return judgments


def _settled(decisions: Iterable[Decision], judgments: Iterable[Judgment]) -> list[Decision]:
    """Those about the items that these judgments speak of, in the order of items and times."""
    items = {one.item for one in judgments}
    return sorted((one for one in decisions if one.item in items), key=lambda one: (one.item, one.created_at, one.id))


def _used(candidates: Sequence[Candidates], judgments: Sequence[Judgment]) -> list[Candidates]:
    """The candidates that a judgment speaks of, each once, in the order of prompts."""
    completions = {one for judgment in judgments for one in judgment.completions}
    prompts = {one.prompt for one in judgments}
    used = {
        item: json.dumps([item.prompt.id, candidates_row(item)], sort_keys=True)
        for item in candidates
        if any(one.id in completions for one in item.completions) or item.prompt.id in prompts
    }
    return sorted(used, key=used.__getitem__)


def _counts(
    judgments: Sequence[Judgment],
    known: Judged,
    offered: Sequence[Candidates],
    groups: Mapping[str, Collection[str]],
    shares: Mapping[str, float],
) -> dict[str, Any]:
    kinds = {one.rater: one.rater_kind for one in known.latest}
    people = Counter(group for rater, kind in kinds.items() if kind == "human" for group in set(groups.get(rater, ())))
    return {
        "judgments": len(judgments),
        "latest": len(known.latest),
        "items": len({one.item for one in known.latest}),
        "decided": len(known.decided),
        "prompts": {
            split: sum(split_of(prompt, shares) == split for prompt in {item.prompt for item in offered})
            for split in shares
        },
        "raters": dict(sorted(Counter(kinds.values()).items())),
        "judgments_by_rater_kind": dict(sorted(Counter(one.rater_kind for one in known.latest).items())),
        "judgments_by_kind": dict(sorted(Counter(one.kind for one in known.latest).items())),
        "groups": {group: number for group, number in sorted(people.items()) if number >= FEWEST_PEOPLE},
    }


def _agreement(known: Judged) -> dict[str, dict[str, Any]]:
    from tuneful.feedback.agreement import ranking_alpha

    told = {}
    for criterion, items in sorted(known.ordered.items()):
        alpha = ranking_alpha(one for said in items.values() for one, _ in said)
        interval = None if alpha.interval is None else list(alpha.interval)
        told[criterion] = {"alpha": alpha.value, "interval": interval, "pairs": alpha.num_units, "reason": alpha.reason}
    return told


def _offered_row(offered: Candidates) -> dict[str, Any]:
    """Whoever judged an answer of empty text saw that a model had ended there, also where nobody noted it."""
    ended = (one if one.text.strip() or one.finish else replace(one, finish="eos") for one in offered.completions)
    return candidates_row(Candidates(offered.prompt, tuple(ended)))


def _written(path: Path, rows: int) -> WrittenFile:
    return WrittenFile(name=path.name, rows=rows, sha256=file_hash(path))


def _write_csv(path: Path, judgments: Sequence[Judgment]) -> int:
    """A cell holds text as it is, what else it may be as JSON."""
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(one.name for one in dataclasses.fields(Judgment))
    table.writerows(map(_cell, judgment_row(one).values()) for one in judgments)
    _write(path, text.getvalue().encode())
    return len(judgments)


def _cell(value: Any) -> str:
    """A spreadsheet runs what begins like a formula; an apostrophe in front makes text of it."""
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _write(path: Path, content: bytes) -> None:
    with written_whole(path, force=False) as file:
        file.write(content)
