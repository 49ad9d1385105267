"""Answers to imitate: `{"prompt", "completion"}`, or whole conversations, `{"messages"}`, that end with the answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tuneful.data.fields import answer_in, asked, messages_of, prompt_in, text_of
from tuneful.data.row import Row, Skip
from tuneful.records import Demonstration, Message, Prompt


def demonstrations(rows: Iterable[Row], _: Skip) -> Iterator[Demonstration]:
    """The answers of rows that have the prompt apart; the answer is text or, as in TRL, one assistant message."""
    for row in rows:
        if "label" in row.fields:
            raise row.error(
                "is of unpaired preferences: a bad answer is nothing to imitate",
                "give every row a label, or none",
                "label",
            )
        yield Demonstration(prompt_in(row), answer_in(row, "completion"))


def last_turns(rows: Iterable[Row], _: Skip) -> Iterator[Demonstration]:
    """The last turn of every conversation, which must be the assistant's; the turns before it are the prompt."""
    for row in rows:
        messages = _conversation(row)
        last = f"messages[{len(messages) - 1}]"
        if messages[-1].role != "assistant":
            problem = f"the last message is the {messages[-1].role}'s"
            raise row.error(problem, "end the conversation with the answer to imitate", f"{last}.role")
        if len(messages) == 1:
            raise row.error("no turn stands before the answer", "begin with what was asked", "messages")
        answer = text_of(row, messages[-1].content, f"{last}.content")
        yield Demonstration(asked(row, messages[:-1], "messages"), answer)


def questions(rows: Iterable[Row], _: Skip) -> Iterator[Prompt]:
    """Every conversation down to the last turn that is not the assistant's."""
    for row in rows:
        messages = _conversation(row)
        answered = len(messages) > 1 and messages[-1].role == "assistant"
        yield asked(row, messages[:-1] if answered else messages, "messages")


def _conversation(row: Row) -> tuple[Message, ...]:
    return messages_of(row, row.value("messages"), "messages")
