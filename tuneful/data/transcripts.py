r"""Whole conversations as one text, as Anthropic writes them: `\n\nHuman: ...\n\nAssistant: ...`.

HH data have two of them in a row, `chosen` and `rejected`; the HHH evaluation `text_correct` and `text_incorrect`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tuneful.data.fields import text_in
from tuneful.data.row import Row, Skip
from tuneful.errors import DataError
from tuneful.records import Comparison, Message, Prompt

HH = ("chosen", "rejected")
HHH = ("text_correct", "text_incorrect")

_SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_TURN = re.compile(r"\n\n(Human|Assistant): ?")


def are_transcripts(row: Row) -> bool:
    """Whether a side of a row of HH data is text that begins with a turn; the other may be empty or damaged."""
    sides = [row.fields.get(side) for side in HH]
    return any(isinstance(side, str) and _TURN.match(side) for side in sides)


def comparisons(sides: tuple[str, str], rows: Iterable[Row], on_skip: Skip) -> Iterator[Comparison]:
    """The pairs of rows whose `sides`, the better first, are transcripts.

    They are taken as they are: a pair whose contexts differ, with a side or answer that is empty or missing, or whose
    answers are equal is skipped, and `on_skip` told so.
    """
    for row in rows:
        blank = [side for side in sides if not text_in(row, side, empty=True).strip()]
        if blank:
            on_skip(row.skipped(f"{blank[0]} is empty"))
            continue
        chosen, rejected = (_conversation(row, side) for side in sides)
        reason = unusable(chosen, rejected, sides)
        if reason is not None:
            on_skip(row.skipped(reason))
        else:
            yield Comparison(Prompt(chosen[:-1]), chosen[-1].content, rejected[-1].content)


def unusable(chosen: tuple[Message, ...], rejected: tuple[Message, ...], sides: tuple[str, str] = HH) -> str | None:
    """Why two conversations are no comparison of two answers; None when they are one."""
    better, worse = sides
    if chosen[:-1] != rejected[:-1]:
        return f"the contexts of {better} and {worse} differ"
    if {chosen[-1].role, rejected[-1].role} != {"assistant"}:
        return "the last turn is not the assistant's"
    if len(chosen) < 2 or chosen[-2].role == "assistant":
        return "no user turn stands before the answer"
    if not chosen[-1].content.strip() or not rejected[-1].content.strip():
        return f"the {worse if chosen[-1].content.strip() else better} answer is empty"
    return f"{better} and {worse} are equal" if chosen[-1] == rejected[-1] else None


def parse_transcript(text: str) -> tuple[Message, ...]:
    r"""The turns of a transcript, `\n\nHuman: ...\n\nAssistant: ...`; contents are kept to the last space.

    Raises DataError when the text does not begin with a turn.
    """
    before, *turns = _TURN.split(text)
    if before or not turns:
        raise DataError(rf'not a transcript: {text[:40]!r}; it must begin with "\n\nHuman: "')
    return tuple(Message(_SPEAKERS[speaker], said) for speaker, said in zip(turns[::2], turns[1::2], strict=True))


def transcript(messages: Iterable[Message]) -> str:
    """The transcript of a conversation; the inverse of `parse_transcript`.

    Raises DataError for a role other than user and assistant.
    """
    names = {role: speaker for speaker, role in _SPEAKERS.items()}
    turns = []
    for message in messages:
        if message.role not in names:
            raise DataError(
                f'a transcript has no place for a "{message.role}" turn; leave it out or use a message list'
            )
        turns.append(f"\n\n{names[message.role]}: {message.content}")
    return "".join(turns)


def _conversation(row: Row, side: str) -> tuple[Message, ...]:
    text = text_in(row, side)
    try:
        return parse_transcript(text)
    except DataError as error:
        raise row.error("cannot be read", str(error), side) from None
