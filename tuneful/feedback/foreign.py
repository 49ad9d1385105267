"""What the exports of other tools have in common: a prompt, answers to it, and what raters say of these.

Neither Label Studio nor Argilla says in an export which field is the prompt, which are the answers, and what a label
means. The usual names are known; for others there is `Names`. What is not understood is refused, never guessed.

Ids come from the content, so that a judgment has the same id whenever and from whatever file it is read. The answers of
an item are stored in the order of their texts; the order they were shown in is kept beside.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from tuneful.data.fields import asked, messages_of, text_of
from tuneful.data.row import Row, Skipped, json_kind
from tuneful.errors import ConfigError, did_you_mean
from tuneful.feedback.items import require_storable_items
from tuneful.feedback.judgments import seconds_of
from tuneful.feedback.projects import LONGEST_CRITERION
from tuneful.feedback.store import require_name, require_storable
from tuneful.feedback.whole_rows import Faults, one_line
from tuneful.records import Candidates, Completion, Judgment, JudgmentKind, Prompt, RaterKind, content_hash

FLAGS = ("gibberish", "unsafe", "refusal", "wrong-language", "truncated", "error")

MEANINGS: Mapping[str, str] = {
    **dict.fromkeys("good yes accept accepted positive thumbsup up like correct helpful 👍".split(), "good"),
    **dict.fromkeys("bad no reject rejected negative thumbsdown down dislike incorrect unhelpful 👎".split(), "bad"),
    **dict.fromkeys("tie equal same both draw bothgood equallygood".split(), "tie"),
    **dict.fromkeys("neither bothbad equallybad".split(), "both-bad"),
    **dict.fromkeys("first left a 1".split(), "first"),
    **dict.fromkeys("second right b 2".split(), "second"),
    **{flag.replace("-", ""): flag for flag in FLAGS},
}
"""What a label says of an answer, or of two of them: by the label, or its letters and digits in lower case."""

_PROMPTS = "prompt instruction question input query user messages conversation chat".split()
_ANSWER = re.compile(
    r"(answer|response|completion|output|reply|generation|candidate|summary|text|model)(\d{1,9}|[a-h]|left|right)?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What an export calls things, where these are not the usual names."""

    prompt: str = ""
    """The field that holds what was asked."""
    answers: tuple[str, ...] = ()
    """The fields that hold the answers; of two, the left one first."""
    tiers: tuple[str, ...] = ()
    """The buckets of a Label Studio `Ranker`, the best first; what lies in one bucket is tied."""
    demonstrations: tuple[str, ...] = ()
    """Questions whose text is an answer to imitate."""
    meanings: Mapping[str, str] = field(default_factory=dict)
    """What labels mean: "good", "bad", "first", "second", "tie", "both-bad", or the name of a flag."""
    suggestions: bool = False
    """Whether what a model suggested in Argilla is taken as the judgment of an AI rater."""

    def __post_init__(self) -> None:
        for label, meaning in self.meanings.items():
            if meaning not in MEANINGS.values():
                raise ConfigError(
                    f"label {told(label)}: there is no meaning {told(meaning)}"
                    f"{did_you_mean(meaning, set(MEANINGS.values()))}"
                )


@dataclass(frozen=True, slots=True)
class Offered:
    """One item: the ids of its answers by what the export calls them, in the order that the export has them in."""

    item: str
    prompt: Prompt
    named: Mapping[str, str]

    @property
    def shown(self) -> tuple[str, ...]:
        return tuple(self.named.values())

    def find(self, name: Any) -> str | None:
        """The answer of this name; where none is called just so, letters and digits alone decide, in either case."""
        if isinstance(name, bool) or not isinstance(name, str | int):
            return None
        if str(name) in self.named:
            return self.named[str(name)]
        alike = [one for known, one in self.named.items() if plain(known) == plain(str(name)) != ""]
        return alike[0] if len(alike) == 1 else None


@dataclass(slots=True)
class Word:
    """All that one rater says of one item, gathered before any of it is taken: one broken part takes the rest along."""

    offered: Offered
    rater: str
    rater_kind: RaterKind = "human"
    shown: tuple[str, ...] = ()
    seconds: float | None = None
    created_at: str = ""
    ranks: dict[str, dict[str, int]] = field(default_factory=dict)
    """By criterion, the rank of each answer that has one."""
    values: dict[tuple[JudgmentKind, str], dict[str, float]] = field(default_factory=dict)
    """By kind of judgment and criterion."""
    flags: dict[str, list[str]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    """By criterion, what the rater wrote."""


class Taken:
    """What has been read of a file so far: items, judgments of them, what was broken and what was left out."""

    def __init__(self, names: Names, known: Sequence[Candidates]) -> None:
        self.names = names
        self.home = {one.id: item for item in known for one in item.completions}
        """For files that hold ids alone: the candidates that each completion id belongs to."""
        self.bare = {item.prompt.id: item for item in known if not item.completions}
        """Prompts without completions, by their ids."""
        self.items: dict[str, Candidates] = {}
        self.judgments: dict[str, Judgment] = {}
        self.faults = Faults()
        self.left_out: list[str] = []
        self.left_behind: dict[str, None] = {}
        """Columns that no judgment can hold, in order of appearance."""

    def attempt(self, row: Row, name: str = "") -> AbstractContextManager[None]:
        """A DataError of the block becomes a fault, told with the `name` of what is broken; the file goes on."""
        return self.faults.attempt(row, name)

    def skip(self, skipped: Skipped) -> None:
        self.left_out.append(one_line(skipped))

    def leave_behind(self, row: Row, read: Sequence[str]) -> None:
        """Note the columns that say something, and nothing that a judgment has a place for."""
        self.left_behind |= dict.fromkeys(
            one_line(name) for name, value in row.fields.items() if value is not None and name not in read
        )

    def offer(self, prompt: Prompt, texts: Mapping[str, str]) -> Offered:
        """The item of a prompt with these answers by name. A model may say the same twice. Raises as `place` does."""
        item = content_hash("item", prompt.id, sorted(texts.values()))
        seen: Counter[str] = Counter()
        named = {}
        for name, text in texts.items():
            seen[text] += 1
            named[name] = content_hash("completion", item, text, seen[text])
        stored = sorted((text, named[name]) for name, text in texts.items())
        self.place(item, Candidates(prompt, tuple(Completion(text, id=one) for text, one in stored)))
        return Offered(item, prompt, named)

    def place(self, item: str, offered: Candidates) -> None:
        """Take an item, unless it was there before. Raises StoreError for a text that cannot be stored."""
        if item not in self.items:
            require_storable_items([offered])
            self.items[item] = offered

    def add(self, row: Row, word: Word) -> None:
        """Take all judgments that a word is made of. Raises as `keep` does."""
        made = list[Judgment]()
        for criterion, ranks in word.ranks.items():
            kind: JudgmentKind = "comparison" if len(word.offered.named) == len(ranks) == 2 else "ranking"
            beside = word.values.get(("comparison", criterion), {})
            made.append(self._judgment(word, kind, criterion, ranks=ranks, values=beside))
        for (kind, criterion), values in word.values.items():
            if kind != "comparison":
                made.append(self._judgment(word, kind, criterion, values=values))
        made += [self._judgment(word, "demonstration", name, text=text) for name, text in word.texts.items()]
        if word.flags and not made:
            made.append(self._judgment(word, "binary", "preference"))
        self.keep(row, *made)

    def keep(self, row: Row, *judgments: Judgment) -> None:
        """Take these judgments, or none of them. Raises DataError or StoreError where one cannot be stored."""
        for one in judgments:
            _require_storable(row, one)
        for one in judgments:
            if one.id in self.judgments:
                self.skip(row.skipped("says again what was said before"))
            self.judgments.setdefault(one.id, one)

    def _judgment(
        self,
        word: Word,
        kind: JudgmentKind,
        criterion: str,
        *,
        ranks: Mapping[str, int] | None = None,
        values: Mapping[str, float] | None = None,
        text: str = "",
    ) -> Judgment:
        completions = tuple(one.id for one in self.items[word.offered.item].completions)
        said: dict[str, Any] = {
            "item": word.offered.item,
            "prompt": word.offered.prompt.id,
            "completions": completions,
            "rater": word.rater,
            "rater_kind": word.rater_kind,
            "kind": kind,
            "ranks": () if ranks is None else tuple(ranks.get(one) for one in completions),
            "flags": {one: tuple(sorted(set(flags))) for one, flags in sorted(word.flags.items())},
            "values": dict(sorted((values or {}).items())),
            "text": text,
            "criterion": criterion,
            "shown_order": word.shown,
            "seconds": word.seconds,
            "created_at": word.created_at,
        }
        return Judgment(id=content_hash("judgment", said), **said)


def _require_storable(row: Row, said: Judgment) -> None:
    """DataError for a time that is none, StoreError for a text or a criterion that no store takes."""
    require_name(said.criterion, 'field "criterion"', longest=LONGEST_CRITERION)
    names = (said.id, said.item, said.prompt, *said.completions, said.rater, said.instructions, said.replaces or "")
    for text in (*names, said.text, *said.values, *said.flags, *chain(*said.flags.values())):
        require_storable(text, f"the judgment of {told(said.rater)}")
    if said.created_at:
        try:
            seconds_of(said.created_at)
        except ValueError as error:
            raise row.error(str(error), "or leave it out", "created_at") from None


# Where the prompt and the answers stand


def offered_in(row: Row, taken: Taken, fields: Mapping[str, Any], place: str) -> Offered:
    """The item whose prompt and answers stand in these fields, found at `place` of the row."""
    asked_in = _prompt_field(row, fields, taken.names, place)
    where = f"{place}.{asked_in}"
    if isinstance(fields[asked_in], list):
        prompt = asked(row, messages_of(row, fields[asked_in], where), where)
    else:
        prompt = Prompt(text_of(row, fields[asked_in], where))
    return taken.offer(prompt, _answers(row, fields, taken.names, asked_in, place))


def _prompt_field(row: Row, fields: Mapping[str, Any], names: Names, place: str) -> str:
    if names.prompt:
        if names.prompt not in fields:
            problem = f"{told(names.prompt)} is not among {listed(fields)}"
            raise row.error(problem, "name the field that holds the prompt", place)
        return names.prompt
    by_name = {plain(key): key for key in reversed(list(fields))}
    found = next((by_name[usual] for usual in _PROMPTS if usual in by_name), None)
    if found is None:
        raise row.error(f"none of {listed(fields)} is called a prompt", "name the field that holds it", place)
    return found


def _answers(row: Row, fields: Mapping[str, Any], names: Names, asked_in: str, place: str) -> dict[str, str]:
    """The answers by name: those that were named, else those of a list, else fields such as response-1, response-2."""
    missing = [name for name in names.answers if name not in fields]
    if missing:
        problem = f"{told(missing[0])} is not among {listed(fields)}"
        raise row.error(problem, "name the fields that hold the answers", place)
    if len(names.answers) != 1 or not isinstance(fields[names.answers[0]], list):
        chosen = names.answers or _usual_answers(fields, asked_in)
        if chosen:
            return {key: text_of(row, fields[key], f"{place}.{key}") for key in chosen}
    lists = names.answers or [k for k, value in fields.items() if k != asked_in and _is_list_of_answers(value)]
    if len(lists) != 1:
        problem = f"which of {listed(fields)} are answers is not clear"
        raise row.error(problem, "name the fields that hold them", place)
    return _listed_answers(row, fields[lists[0]], f"{place}.{lists[0]}")


def _usual_answers(fields: Mapping[str, Any], asked_in: str) -> list[str]:
    """The fields of one stem, such as response-1 and response-2, in the order of their marks; of several stems none."""
    marks: dict[str, dict[str, str]] = {}
    for key, value in fields.items():
        usual = _ANSWER.fullmatch(plain(key))
        if usual and key != asked_in and isinstance(value, str):
            marks.setdefault(usual[1], {})[key] = usual[2] or ""
    if len(marks) != 1:
        return []
    [marked] = marks.values()
    return sorted(marked, key=lambda key: (int(marked[key]) if marked[key].isdecimal() else -1, marked[key], key))


def _is_list_of_answers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_listed, value))


def _is_listed(entry: Any) -> bool:
    """Whether it is an entry of a Label Studio `List`; a turn of a conversation has a role."""
    return isinstance(entry, dict) and isinstance(entry.get("id"), str | int) and "role" not in entry


def _listed_answers(row: Row, entries: list[Any], place: str) -> dict[str, str]:
    """The answers of a Label Studio `List` by id: their body, else their text, HTML or title."""
    answers: dict[str, str] = {}
    for n, entry in enumerate(entries):
        if not _is_listed(entry):
            raise row.error(f"got {told(entry)}", 'write {"id": ..., "body": ...}', f"{place}[{n}]")
        name = str(entry["id"])
        if name in answers:
            raise row.error(f"{told(name)} comes twice", "give each its own id", f"{place}[{n}].id")
        said = next((key for key in ("body", "text", "html", "title") if entry.get(key)), "body")
        answers[name] = text_of(row, entry.get(said), f"{place}[{n}].{said}")
    return answers


# Values


def table(row: Row, value: Any, field: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise row.error(f"expected an object, got {json_kind(value)}", "export it anew", field)
    return value


def entries(row: Row, value: Any, field: str) -> list[Any]:
    if not isinstance(value, list):
        raise row.error(f"expected a list, got {json_kind(value)}", "export it anew", field)
    return value


def user_of(row: Row, tool: str, known: Any, field: str) -> str:
    """A pseudonym: the tool's own number of a user. What may be a name or an address is hashed."""
    if isinstance(known, bool) or not isinstance(known, str | int) or str(known).strip() in ("", "None"):
        raise row.error(f"got {told(known)}", "export with the ids of users, or nobody knows whose word it is", field)
    number = str(known).strip()
    return f"{tool}-{number if re.fullmatch('[0-9a-fA-F-]+', number) else content_hash('user', tool, number)}"


def plain(name: str) -> str:
    """The letters and digits of a name, in lower case."""
    return re.sub(r"[\W_]+", "", name).casefold()


def listed(names: Iterable[str]) -> str:
    return ", ".join(map(told, names)) or "no fields"


def told(value: Any) -> str:
    """A value as one line can show it: what would change the line or its direction is spelled out, a long one cut."""
    shown = json.dumps(value, default=str).replace("\x7f", r"\u007f")
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
