"""What a field of a row may hold: text, a number, messages, a prompt, an answer. What it may not is a DataError."""

from __future__ import annotations

from typing import Any

from tuneful.data.row import Row, is_finite, json_kind
from tuneful.records import Message, Prompt


def text_in(row: Row, field: str, *, empty: bool = False) -> str:
    """The text of a field that must be there."""
    return text_of(row, row.value(field), field, empty=empty)


def text_of(row: Row, value: Any, field: str, *, empty: bool = False) -> str:
    """`value`, found at `field`, as text that can be written again; white space alone only where it may be empty."""
    if not isinstance(value, str):
        raise row.error(f"expected text, got {json_kind(value)}", "write a string", field)
    if not empty and not value.strip():
        raise row.error("empty", "write some text or remove the row", field)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise row.error(r"half of a surrogate pair (\ud800-\udfff)", "write whole characters", field) from None
    return value


def number_in(row: Row, field: str, *, default: float) -> float:
    """The finite number of a field, or what stands for one that is not there."""
    value = row.fields.get(field)
    if value is None:
        return default
    if not is_finite(value):
        raise row.error(f"expected a finite number, got {json_kind(value)}", "write a number or leave it out", field)
    return float(value)


def messages_of(row: Row, value: Any, field: str) -> tuple[Message, ...]:
    """`value`, found at `field`, as a conversation of at least one turn."""
    if not isinstance(value, list):
        raise row.error(f"expected a list of messages, got {json_kind(value)}", "write a list", field)
    if not value:
        raise row.error("an empty list", "write at least one message", field)
    messages = []
    for i, message in enumerate(value):
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise row.error("not a message", 'write {"role": ..., "content": ...}', f"{field}[{i}]")
        role = text_of(row, message["role"], f"{field}[{i}].role")
        # Other tools write empty system turns; only the turn that is answered must say something.
        content = text_of(row, message["content"], f"{field}[{i}].content", empty=True)
        messages.append(Message(role, content))
    return tuple(messages)


def prompt_in(row: Row) -> Prompt:
    """The prompt of a row, text or messages, under the key of that name."""
    value = row.value("prompt")
    if not isinstance(value, list):
        return Prompt(text_of(row, value, "prompt"))
    return asked(row, messages_of(row, value, "prompt"), "prompt")


def asked(row: Row, messages: tuple[Message, ...], field: str) -> Prompt:
    """The prompt that the conversation `messages`, found at `field`, is: its last turn is there to be answered."""
    last = f"{field}[{len(messages) - 1}]"
    if messages[-1].role == "assistant":
        raise row.error(
            "the last message is the assistant's", "end the prompt with the turn to be answered", f"{last}.role"
        )
    text_of(row, messages[-1].content, f"{last}.content")
    return Prompt(messages)


def answer_in(row: Row, field: str, *, empty: bool = False) -> str:
    """The answer in a field, as text or as one assistant message.

    empty: it may say nothing, as a message, or as text of a row that says `"empty": true`.
    """
    value = row.value(field)
    if not isinstance(value, list):
        return text_of(row, value, field, empty=empty and row.fields.get("empty") is True)
    messages = messages_of(row, value, field)
    if len(messages) != 1 or messages[0].role != "assistant":
        raise row.error("expected one assistant message", "the turns before it belong into the prompt", field)
    return text_of(row, messages[0].content, f"{field}[0].content", empty=empty)
