"""What raters say in the exports of other tools: rankings, labels and ratings, each put into the rater's word."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from tuneful.data.fields import text_of
from tuneful.data.row import Row, is_finite
from tuneful.feedback.foreign import FLAGS, MEANINGS, Names, Word, listed, plain, told

_GENERIC = set("rank ranker ranking pw pairwise preference comparison choice choices label rating best".split())
"""Names of questions that say how they are asked, not what about: their criterion is "preference"."""


def add_ranking(row: Row, word: Word, criterion: str, ranks: Iterable[tuple[Any, Any]], place: str) -> None:
    """A ranking by what the export calls each answer; a rank of None is none, and equal ranks tie."""
    found: dict[str, int] = {}
    for name, rank in ranks:
        one = word.offered.find(name)
        if one is None:
            raise row.error(f"{told(name)} is no answer", f"rank {listed(word.offered.named)}", place)
        if one in found:
            raise row.error(f"{told(name)} comes twice", "rank each answer once", place)
        if rank is not None and (type(rank) is not int or rank < 1):
            raise row.error(f"{told(rank)} is no rank", "1 is the best, then 2, 3 ...", place)
        if rank is not None:
            found[one] = rank
    if len(found) < 2:
        raise row.error(f"ranks {len(found)} of the answers", "a ranking orders two at least", place)
    if criterion in word.ranks:
        raise row.error(f"orders the answers by {told(criterion)} a second time", "keep one of the two", place)
    word.ranks[criterion] = found


def add_label(row: Row, word: Word, names: Names, criterion: str, label: Any, place: str) -> None:
    """A label: good or bad, of a single answer; which of two is better; the name of the best one; a flag."""
    label, named = text_of(row, label, place), word.offered.named
    best = None if label in names.meanings or len(named) == 1 else word.offered.find(label)
    if best is not None:
        add_ranking(row, word, criterion, [(name, 1 if one == best else 2) for name, one in named.items()], place)
        return
    meaning = _meaning(row, names, label, place)
    single = meaning in ("good", "bad", *FLAGS)
    if len(named) != (1 if single else 2):
        problem = f"{told(label)} is said of {len(named)} answers"
        raise row.error(problem, f"it can be said of {'one' if single else 'two'}", place)
    if meaning in FLAGS:
        word.flags.setdefault(word.offered.shown[0], []).append(meaning)
    elif single:
        if ("binary", criterion) in word.values:
            raise row.error(f"a second word on {told(criterion)}", "keep one of the two", place)
        word.values["binary", criterion] = {criterion: float(meaning == "good")}
    else:
        ranks = {"first": (1, 2), "second": (2, 1)}.get(meaning, (1, 1))
        add_ranking(row, word, criterion, zip(named, ranks, strict=True), place)
        if meaning == "both-bad":
            word.values["comparison", criterion] = {"both_bad": 1.0}


def _meaning(row: Row, names: Names, label: str, place: str) -> str:
    by_letters = {plain(known): meaning for known, meaning in names.meanings.items() if plain(known)}
    for known, key in (
        (names.meanings, label),
        (by_letters, plain(label)),
        (MEANINGS, label),
        (MEANINGS, plain(label)),
    ):
        if key in known:
            return known[key]
    mend = f"say which it means: {', '.join(dict.fromkeys(MEANINGS.values()))}"
    raise row.error(f"label {told(label)} has no meaning here", mend, place)


def add_rating(row: Row, word: Word, criterion: str, one: str, value: Any, place: str) -> None:
    if not is_finite(value):
        raise row.error(f"{told(value)} is no rating", "give a finite number", place)
    values = word.values.setdefault(("rating", criterion), {})
    if one in values:
        raise row.error(f"rates an answer by {told(criterion)} a second time", "keep one of the two", place)
    values[one] = float(value)


def rated_by(row: Row, word: Word, question: str, place: str) -> tuple[str, str]:
    """The answer that a question such as "response-1-quality" is about, and its criterion, "quality"."""
    named, parts = word.offered.named, _parts(question)
    inside = {name: at for name in named if (at := _within(_parts(name), parts)) is not None}
    if inside:
        name = max(inside, key=lambda known: len(_parts(known)))
        rest = parts[: inside[name]] + parts[inside[name] + len(_parts(name)) :]
        return named[name], criterion_of("-".join(rest))
    if len(named) == 1:
        return word.offered.shown[0], criterion_of(question)
    mend = f"name it in the question, one of {listed(named)}"
    raise row.error(f"{told(question)} rates one of {len(named)} answers", mend, place)


def criterion_of(question: str) -> str:
    return "preference" if plain(question) in ("", *_GENERIC) else question


def _parts(name: str) -> list[str]:
    """The words and numbers of a name: "response1_quality" has three."""
    return re.findall(r"[^\W\d_]+|\d+", name.casefold())


def _within(some: list[str], parts: list[str]) -> int | None:
    """Where in `parts` the others stand in a row; None when they do not."""
    places = range(len(parts) - len(some) + 1) if some else ()
    return next((at for at in places if parts[at : at + len(some)] == some), None)
