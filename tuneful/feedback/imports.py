"""Judgments that were made elsewhere, as judgments of ours.

| file                              | a row is known by              | gives                                       |
|-----------------------------------|--------------------------------|---------------------------------------------|
| Label Studio's JSON               | `data`, `annotations`          | see feedback.label_studio                   |
| Argilla's records, 1 and 2        | `fields`, `responses`, or flat | see feedback.argilla                        |
| Open-Assistant's trees            | `message_tree_id`, `prompt`    | a ranking of every turn with ranked replies |
| TRL's preferences, HH transcripts | `chosen`, `rejected`           | comparisons of one rater                    |
| TRL's unpaired preferences        | `completion`, `label`          | 0/1 judgments of one rater                  |
| judgments                         | `item`, `completions`, `rater` | themselves                                  |

A file is a list of objects in JSON, or JSON lines, either packed as `.gz`; or Parquet. The first row that can be read
decides which of these it is. A row that is broken does not hide those after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuneful.data import preferences, transcripts, trees, unpaired
from tuneful.data.completions import with_ids
from tuneful.data.row import Row
from tuneful.errors import DataError
from tuneful.feedback.argilla import is_flat, read_record
from tuneful.feedback.foreign import Names, Taken, Word, listed, told
from tuneful.feedback.foreign_words import add_ranking
from tuneful.feedback.judgments import judgment_in
from tuneful.feedback.label_studio import read_task
from tuneful.feedback.whole_rows import OnProblem, whole_rows
from tuneful.records import Candidates, Comparison, Judgment, content_hash

USUAL = Names()


@dataclass(frozen=True, slots=True)
class Imported:
    """What was found in a file.

    candidates: one for each item, judged or not, in order of appearance. A judgment's item is that whose completions
    have the ids it names. problems: one line for each row, or part of one, that is broken. left_out: one line for each
    part that is whole and no judgment, such as what a rater skipped, and for each judgment that came before; and one
    that names the columns of preferences that no judgment can hold.
    """

    candidates: list[Candidates]
    judgments: list[Judgment]
    problems: list[str]
    left_out: list[str] = field(default_factory=list)


def import_judgments(
    path: Path,
    *,
    names: Names = USUAL,
    candidates: Sequence[Candidates] = (),
    on_problem: OnProblem = "refuse",
) -> Imported:
    """The judgments of a file made elsewhere, and the prompts and answers that they are about.

    candidates: of a judgments file of ours, which holds ids alone, the prompts and answers that these belong to; a
    judgment of others is then broken. Without them such a file gives no candidates.

    Raises DataError for a file that cannot be read, holds no rows or is nothing of the above; with on_problem "refuse"
    also for broken rows, naming the first of them and how many they are, and then nothing is taken.
    """
    taken = Taken(names, candidates)
    read: Callable[[Row, Taken, str], None] | None = None
    for row in whole_rows(path, taken.faults):
        read = read or _reader(row)
        name = _name_of(row)
        with taken.attempt(row, name):
            read(row, taken, name)
    if read is None and not taken.faults.lines:
        raise DataError(f"{path}: holds no rows; export it anew")
    if on_problem == "refuse":
        taken.faults.refuse(path, mend="mend them, or skip them to take the rest")
    if taken.left_behind:
        taken.left_out.append(
            f"{path}: not counted, since a judgment is one rater's word: {', '.join(taken.left_behind)}; "
            "what each rater said stands in the judgments.jsonl of a dataset"
        )
    return Imported(list(taken.items.values()), list(taken.judgments.values()), taken.faults.lines, taken.left_out)


def _reader(row: Row) -> Callable[[Row, Taken, str], None]:
    """What reads a file whose first whole row this is."""
    keys = row.fields.keys()
    if {"data", "annotations"} <= keys:
        return read_task
    if {"item", "completions", "rater"} <= keys:
        return _read_judgment
    if {"message_tree_id", "prompt"} <= keys:
        return _read_tree
    if {"chosen", "rejected"} <= keys:
        return _read_preference
    if {"fields", "responses"} <= keys or is_flat(row):
        return read_record
    if {"prompt", "completion", "label"} <= keys:
        return _read_unpaired
    raise row.error(
        f"no known export has the keys {listed(keys)}",
        "give Label Studio's JSON, Argilla's records, Open-Assistant's trees, TRL's preferences (paired or not), "
        "or judgments",
    )


def _name_of(row: Row) -> str:
    """What a row is called when it has an id of its own; an export is often one long line."""
    known = row.fields.get("external_id") or row.fields.get("id")
    if isinstance(known, str | int) and not {"item", "rater"} <= row.fields.keys():
        return f"{'task' if 'annotations' in row.fields else 'record'} {told(known)}"
    return ""


def _read_tree(row: Row, taken: Taken, _: str) -> None:
    """The ranks of a tree are what several people said together; they count as one rater."""
    for ranked in trees.rankings([row], taken.skip):
        wrong = [rank for rank in ranked.ranks if rank is not None and rank < 0]
        if wrong:
            raise row.error(f"got {wrong[0]}", "0 is the best, then 1, 2 ...", "rank")
        [offered] = with_ids([ranked.candidates])
        completions = tuple(one.id for one in offered.completions)
        said: dict[str, Any] = {
            "item": content_hash("item", offered.prompt.id, sorted(completions)),
            "prompt": offered.prompt.id,
            "completions": completions,
            "rater": "open-assistant",
            "ranks": tuple(None if rank is None else rank + 1 for rank in ranked.ranks),
        }
        taken.place(said["item"], offered)
        taken.keep(row, Judgment(id=content_hash("judgment", said), **said))


def _read_preference(row: Row, taken: Taken, _: str) -> None:
    """All pairs are the word of one rater. How sure a row is, p and margin, is kept among the values, and counts for
    nothing there."""
    taken.leave_behind(row, ("prompt", "chosen", "rejected", "empty"))
    if "prompt" in row.fields:
        found: Iterator[Comparison] = preferences.comparisons([row], taken.skip)
    elif transcripts.are_transcripts(row):
        found = transcripts.comparisons(transcripts.HH, [row], taken.skip)
    else:
        found = preferences.implicit_comparisons([row], taken.skip)
    for pair in found:
        word = Word(taken.offer(pair.prompt, {"chosen": pair.chosen, "rejected": pair.rejected}), "preferences")
        ranks = (1, 1) if pair.p == 0.5 else (1, 2) if pair.p > 0.5 else (2, 1)
        add_ranking(row, word, "preference", zip(("chosen", "rejected"), ranks, strict=True), "chosen")
        known = {"p": None if pair.p == 1 else pair.p, "margin": pair.margin}
        word.values["comparison", "preference"] = {key: value for key, value in known.items() if value is not None}
        taken.add(row, word)


def _read_unpaired(row: Row, taken: Taken, _: str) -> None:
    """All labels are the word of one rater."""
    taken.leave_behind(row, ("prompt", "completion", "label", "empty"))
    for answer in unpaired.unpaired([row], taken.skip):
        word = Word(taken.offer(answer.prompt, {"completion": answer.completion}), "preferences")
        word.values["binary", "preference"] = {"preference": float(answer.label)}
        taken.add(row, word)


def _read_judgment(row: Row, taken: Taken, _: str) -> None:
    judgment = judgment_in(row)
    if judgment.id in taken.judgments:
        problem = f"{told(judgment.id)} was given to an earlier row"
        raise row.error(problem, "every judgment has an id of its own; a revision names the earlier one", "id")
    if not judgment.completions and judgment.prompt in taken.bare:
        taken.place(judgment.item, taken.bare[judgment.prompt])
    for one in judgment.completions if taken.home else ():
        if one not in taken.home:
            raise row.error(f"{told(one)} has no text", "give the file that its completions came from", "completions")
        if taken.home[one].prompt.id != judgment.prompt:
            problem = f"{told(judgment.prompt)} is not what {told(one)} answers"
            raise row.error(problem, "give the file that its completions came from", "prompt")
        taken.place(judgment.item, taken.home[one])
    taken.keep(row, judgment)
