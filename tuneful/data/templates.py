"""From prompts and completions to token ids and back, through the model's own tokenizer and chat template.

A prompt and its completion are tokenized apart, as they are when a model samples: the prompt ids are what the model is
given, the completion ids what it is to say, its end token included. Nothing is ever cut out of a longer sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import jinja2

from tuneful.errors import ConfigError, ModelError
from tuneful.records import Message, Prompt

MIN_PROMPT_TOKENS = 16
"""What a long answer leaves of its prompt at least, where there is room for more than these."""

_PROBE = "probe of the template"

_DATE = "26 Jul 2024"
"""What templates that name today's date are told (Llama 3.2's; this is 3.1's own): a prompt is the same tomorrow."""


class Tokenizer(Protocol):
    """What is needed of a transformers tokenizer."""

    @property
    def bos_token(self) -> Any: ...
    @property
    def bos_token_id(self) -> Any: ...
    @property
    def eos_token(self) -> Any: ...
    @property
    def eos_token_id(self) -> Any: ...
    @property
    def chat_template(self) -> Any: ...

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool, date_string: str
    ) -> Any: ...

    def encode(self, text: str, *, add_special_tokens: bool, split_special_tokens: bool) -> list[int]: ...

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> Any: ...


def render_prompt(prompt: Prompt, tokenizer: Tokenizer) -> str:
    """The text the model is given, special tokens written out.

    A conversation goes through the chat template, up to where the answer begins. Plain text stays as it is, behind the
    begin token when the tokenizer has one of its own (GPT-2's is its end token and is left out).
    """
    if not isinstance(prompt.content, str):
        return _render(prompt.content, tokenizer, add_generation_prompt=True)
    bos = tokenizer.bos_token
    if not bos or bos == tokenizer.eos_token or prompt.content.startswith(bos):
        return prompt.content
    return str(bos) + prompt.content


def prompt_ids(prompt: Prompt, tokenizer: Tokenizer, *, max_tokens: int | None) -> list[int]:
    """The token ids of a prompt; one longer than `max_tokens` loses its beginning, but keeps the begin token.

    Special tokens written in the prompt are read as such, since plain prompts may be templated by hand.
    """
    ids = tokenizer.encode(render_prompt(prompt, tokenizer), add_special_tokens=False, split_special_tokens=False)
    if max_tokens is None or len(ids) <= max_tokens:
        return ids
    begin = ids[: ids[0] == tokenizer.bos_token_id]
    if max_tokens <= len(begin):
        raise ConfigError(f"a prompt needs room for at least {len(begin) + 1} tokens, got max_tokens = {max_tokens}")
    return begin + ids[len(begin) - max_tokens :]


def completion_ids(
    prompt: Prompt, completion_text: str, tokenizer: Tokenizer, *, max_tokens: int | None = None
) -> list[int]:
    """The token ids of an answer to `prompt`, with the end token, once, at the end.

    For a conversation these are the tokens by which the template with the assistant's turn goes beyond the template
    without it, up to the end token (and that token where the template has none). An end token spelled inside the text
    is text, or nothing where the tokenizer cannot spell it (T5's). More than `max_tokens` are cut off at the right; an
    answer so cut has no end token, for it does not end.

    Raises ModelError when the tokenizer has no end token, or the template with an answer does not go on from the
    template without.
    """
    if tokenizer.eos_token_id is None:
        raise ModelError('the tokenizer has no end token; set "eos_token" in its tokenizer_config.json')
    before, after = _around_answer(prompt, tokenizer)
    spoken = before + completion_text.removesuffix(tokenizer.eos_token) + after
    return [*text_ids(spoken, tokenizer, tokenizer.eos_token_id), tokenizer.eos_token_id][:max_tokens]


def text_ids(text: str, tokenizer: Tokenizer, end: int) -> list[int]:
    """The token ids of a text as nothing but text: a special token spelled in it is spelled in other tokens.

    The token `end` is left out where the tokenizer cannot spell it (T5's).
    """
    ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    return [token for token in ids if token != end]


def pair_ids(
    prompt: Prompt, completion_text: str, tokenizer: Tokenizer, *, max_tokens: int | None, ended: bool = True
) -> tuple[list[int], list[int]]:
    """Ids of a prompt and its answer that together fit `max_tokens`, where that is given.

    The prompt gives way first, from its beginning, but not below `MIN_PROMPT_TOKENS`, nor below half of a `max_tokens`
    that does not exceed these; an answer that does not fit even beside those is cut at its end. ended: the answer came
    to its end, so its end token is part of it.

    Raises ConfigError when `max_tokens` cannot hold a token of each beside the begin token.
    """
    answer = completion_ids(prompt, completion_text, tokenizer)
    if not ended:
        answer = answer[:-1]
    asked = prompt_ids(prompt, tokenizer, max_tokens=None)
    if max_tokens is None:
        return asked, answer
    least = 2 if asked[:1] == [tokenizer.bos_token_id] else 1
    if max_tokens <= least:
        raise ConfigError(
            f"a prompt and its answer need room for at least {least + 1} tokens, got max_tokens = {max_tokens}"
        )
    floor = MIN_PROMPT_TOKENS if max_tokens > MIN_PROMPT_TOKENS else max(max_tokens // 2, least)
    kept = min(len(asked), max(max_tokens - len(answer), floor))
    return prompt_ids(prompt, tokenizer, max_tokens=kept), answer[: max_tokens - kept]


def completion_text(prompt: Prompt, ids: Sequence[int], tokenizer: Tokenizer) -> str:
    """The text of an answer's token ids: special tokens and what the template puts around the answer removed."""
    text: str = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    before, after = _around_answer(prompt, tokenizer)
    return text.removeprefix(before).removesuffix(after)


def turn_end(tokenizer: Tokenizer) -> str:
    """What the chat template writes after an answer, such as `<|im_end|>` and a new line.

    Raises ModelError when there is no template, or it does not write an answer after its prompt.
    """
    _, after = _around_probe(Prompt.user("Hello"), tokenizer)
    return after


def _around_answer(prompt: Prompt, tokenizer: Tokenizer) -> tuple[str, str]:
    """What the template puts before an answer, after the prompt, and between the answer and its end token."""
    if isinstance(prompt.content, str):
        return "", ""
    before, after = _around_probe(prompt, tokenizer)
    after, ended, _ = after.partition(tokenizer.eos_token)
    return before, after if ended else ""


def _around_probe(prompt: Prompt, tokenizer: Tokenizer) -> tuple[str, str]:
    """What the template puts before an answer, after the prompt, and all that it puts behind it."""
    assert not isinstance(prompt.content, str)
    # A fixed text shows both ends exactly, even where the answer itself holds text of the template.
    answered = (*prompt.content, Message("assistant", _PROBE))
    asked = render_prompt(prompt, tokenizer)
    full = _render(answered, tokenizer, add_generation_prompt=False)
    if not full.startswith(asked):
        raise ModelError(
            "the chat template with an answer does not go on from the template without; "
            f"use a template whose generation prompt begins the assistant's turn (prompt ends {asked[-30:]!r})"
        )
    before, found, after = full.removeprefix(asked).partition(_PROBE)
    if not found:
        raise ModelError("the chat template leaves out the assistant's text; use one that writes it as it is")
    return before, after


def _render(messages: tuple[Message, ...], tokenizer: Tokenizer, *, add_generation_prompt: bool) -> str:
    if not tokenizer.chat_template:
        raise ModelError("the tokenizer has no chat template; add a chat_template.jinja or write prompts as plain text")
    turns = [{"role": m.role, "content": m.content} for m in messages]
    try:
        return str(
            tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=add_generation_prompt, date_string=_DATE
            )
        )
    except jinja2.TemplateError as error:
        roles = ", ".join(m.role for m in messages)
        raise ModelError(f"the chat template refuses a conversation of {roles}: {error}; change its turns") from None
