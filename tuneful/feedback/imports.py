"""Judgments that were made elsewhere, as judgments of ours.

| file                              | a row is known by              | gives                                       |
|-----------------------------------|--------------------------------|---------------------------------------------|
| Label Studio's JSON               | `data`, `annotations`          | see feedback.label_studio                   |
| Argilla's records, 1 and 2        | `fields`, `responses`, or flat | see feedback.argilla                        |
| Open-Assistant's trees            | `message_tree_id`, `prompt`    | a ranking of every turn with ranked replies |
| TRL's preferences, HH transcripts | `chosen`, `rejected`           | comparisons of one rater                    |
| judgments                         | `item`, `completions`, `rater` | themselves                                  |

A file is a list of objects in JSON, or JSON lines, either packed as `.gz`; or Parquet. The first row that can be read
decides which of these it is. A row that is broken does not hide those after it.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tuneful.data import preferences, transcripts, trees
from tuneful.data.completions import with_ids
from tuneful.data.parquet import read_parquet
from tuneful.data.row import Row, json_kind
from tuneful.errors import DataError
from tuneful.feedback.argilla import is_flat, read_record
from tuneful.feedback.foreign import Names, Taken, Word, add_ranking, listed, told
from tuneful.feedback.judgments import judgment_in
from tuneful.feedback.label_studio import read_task
from tuneful.records import Candidates, Comparison, Judgment, content_hash

OnProblem = Literal["refuse", "skip"]
"""What becomes of a file with broken rows: nothing of it is taken, or all that is whole."""

USUAL = Names()

_TOLD = 3  # problems in the message of a file that is refused
_WHITE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class Imported:
    """What was found in a file.

    candidates: one for each item, judged or not, in order of appearance. A judgment's item is that whose completions
    have the ids it names. problems: one line for each row, or part of one, that is broken. left_out: one line for each
    part that is whole and no judgment, such as what a rater skipped, and for each judgment that came before.
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
    taken = Taken(names, {one.id: item for item in candidates for one in item.completions})
    read: Callable[[Row, Taken, str], None] | None = None
    for row in _rows(path, taken):
        read = read or _reader(row)
        name = _name_of(row)
        with taken.attempt(row, name):
            read(row, taken, name)
    if read is None and not taken.problems:
        raise DataError(f"{path}: holds no rows; export it anew")
    if taken.problems and on_problem == "refuse":
        number = len(taken.problems)
        raise DataError(
            f"{path}: {number} broken {'part' if number == 1 else 'parts'}, so nothing was taken: "
            f"{' | '.join(taken.problems[:_TOLD])}{f' | and {number - _TOLD} more' if number > _TOLD else ''}; "
            "mend them, or skip them to take the rest"
        )
    return Imported(list(taken.items.values()), list(taken.judgments.values()), taken.problems, taken.left_out)


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
    raise row.error(
        f"no known export has the keys {listed(keys)}",
        "give Label Studio's JSON, Argilla's records, Open-Assistant's trees, TRL's preferences, or judgments",
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
        taken.items.setdefault(said["item"], offered)
        taken.keep(row, Judgment(id=content_hash("judgment", said), **said))


def _read_preference(row: Row, taken: Taken, _: str) -> None:
    """All pairs are the word of one rater. How sure a row is, p and margin, is kept among the values."""
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


def _read_judgment(row: Row, taken: Taken, _: str) -> None:
    judgment = judgment_in(row)
    if judgment.id in taken.judgments:
        problem = f"{told(judgment.id)} was given to an earlier row"
        raise row.error(problem, "every judgment has an id of its own; a revision names the earlier one", "id")
    for one in judgment.completions if taken.home else ():
        if one not in taken.home:
            raise row.error(f"{told(one)} has no text", "give the file that its completions came from", "completions")
        if taken.home[one].prompt.id != judgment.prompt:
            problem = f"{told(judgment.prompt)} is not what {told(one)} answers"
            raise row.error(problem, "give the file that its completions came from", "prompt")
        taken.items.setdefault(judgment.item, taken.home[one])
    taken.keep(row, judgment)


# The rows of a file, whole ones alone


def _rows(path: Path, taken: Taken) -> Iterator[Row]:
    """The rows of a file; what is broken among them becomes a problem."""
    if path.suffix == ".parquet":
        return read_parquet(path)
    content = _content(path)
    opening = content.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if opening == b"[":
        return _elements(path, content, taken)
    single = _single_object(path, content) if opening == b"{" else None
    return _lines(path, content, taken) if single is None else iter([single])


def _content(path: Path) -> bytes:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return file.read()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the name") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip file: {error}; fetch it again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}; give a file that can be opened") from None


def _single_object(path: Path, content: bytes) -> Row | None:
    """The object that a whole file is, over several lines: a task as Label Studio keeps it in cloud storage."""
    row = Row(path, 1, {})
    try:
        text = _decoded(row, content)
        value, end = _value(row, text, _past_white(text, 0))
        return None if _past_white(text, end) < len(text) else _object(row, value)
    except DataError:
        return None  # and then its first line says what is wrong


def _lines(path: Path, content: bytes, taken: Taken) -> Iterator[Row]:
    for number, line in enumerate(content.split(b"\n"), start=1):
        row = Row(path, number, {})
        with taken.attempt(row):
            text = _decoded(row, line)
            start = _past_white(text, 0)
            if start < len(text):
                value, end = _value(row, text, start)
                if _past_white(text, end) < len(text):
                    raise row.error("something stands behind the object", "write one JSON object per line")
                row = _object(row, value)
        if row.fields:
            yield row


def _elements(path: Path, content: bytes, taken: Taken) -> Iterator[Row]:
    """The objects of a list in JSON, each with the line that it begins on."""
    text = _decoded(Row(path, 1, {}), content)
    at, line, counted = text.index("[") + 1, 1, 0
    while text[(at := _past_white(text, at)) : at + 1] != "]":
        line, counted = line + text.count("\n", counted, at), at
        row, end = Row(path, line, {}), -1
        with taken.attempt(row):
            value, end = _value(row, text, at)
            following = _past_white(text, end)
            if text[following : following + 1] not in (",", "]"):
                raise row.error("the list is cut off behind this row", "export it anew")
            at = following + (text[following] == ",")
            row = _object(row, value)
        if row.fields:
            yield row
        if at <= end or end < 0:
            return  # nothing behind what is no JSON can be found


def _decoded(row: Row, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig" if row.line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise row.error(f"not UTF-8: byte {error.start + 1}", "save the file as UTF-8") from None


@dataclass(frozen=True, slots=True)
class _Twice:
    """Stands for an object in which a key stands twice; of the two values, json would keep the last in silence."""

    key: str


def _value(row: Row, text: str, at: int) -> tuple[Any, int]:
    """The value that begins at a place of a text, and where it ends."""
    twice: list[_Twice] = []

    def fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
            twice.append(_Twice(key))
        return found

    try:
        value, end = json.JSONDecoder(object_pairs_hook=fields).raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise row.error(f"not valid JSON: {error.msg}", "export it anew") from None
    except ValueError:  # after JSONDecodeError, which is one: Python's own limit on the digits of an integer
        raise row.error("an integer of too many digits", "write it as text") from None
    except RecursionError:
        raise row.error("not valid JSON: nested too deeply", "export it anew") from None
    return twice[0] if twice else value, end


def _object(row: Row, value: Any) -> Row:
    if isinstance(value, _Twice):
        raise row.error("stands twice in one object", "keep one of the two", value.key)
    if not isinstance(value, dict) or not value:
        found = "an empty object" if isinstance(value, dict) else json_kind(value)
        raise row.error(f"expected an object, got {found}", "write one object per row")
    return Row(row.path, row.line, value)


def _past_white(text: str, at: int) -> int:
    found = _WHITE.match(text, at)
    return at if found is None else found.end()
