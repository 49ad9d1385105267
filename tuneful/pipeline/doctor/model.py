"""Whether a language model, its tokenizer and its chat template fit together and can be trained as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from tuneful.data.templates import completion_ids, pair_ids, prompt_ids, render_prompt, turn_end
from tuneful.engines.memory import Pass, Shape
from tuneful.errors import ModelError
from tuneful.models.forward import policy_outputs
from tuneful.models.llama import is_llama_like
from tuneful.models.loading import context_length, load_language_model, load_tokenizer
from tuneful.models.roles import Role
from tuneful.pipeline.doctor.finding import Finding, found, from_error
from tuneful.records import Completion, Message, Prompt

INVARIANCE = 1e-4
"""Largest change of a logprob, in float32, that rounding explains."""

ANSWERS = (
    (Prompt.user("How do I stop a tap that drips?"), Completion("Close the water, then change the washer.")),
    (Prompt.user("Hello"), Completion("Yes?")),
    (Prompt.user("Why is the house so cold at night, and what can I do now?"), Completion("Close the windows.")),
    (Prompt.user("Where is the dog?"), Completion("It sleeps by the door, as it does when rain is on the way.")),
)
"""Answers of several lengths to try a model or reward on when no file gives any."""

CONVERSATION = Prompt(
    (
        Message("user", "The tap drips."),
        Message("assistant", "Close the water first."),
        Message("user", "Done. What now?"),
    )
)
"""A conversation of several turns to try a template on when no file gives any."""

NUM_CONVERSATIONS = 64

Progress = Callable[[int, int], None]


def look_at_model(
    path: str,
    prompts: Sequence[Prompt] = (),
    answers: Sequence[tuple[Prompt, Completion]] = (),
    *,
    max_prompt_tokens: int | None = None,
    progress: Progress = lambda done, total: None,
) -> Iterator[Finding]:
    """Tokens, template and context, and whether logprobs depend on what else is in the batch.

    prompts, answers: what the model will be given and taught, which should have the form it was trained on and fit its
    context; max_prompt_tokens: what longer prompts will be cut to. progress: told how many of them are read.
    """
    tokenizer = load_tokenizer(path)
    model = load_language_model(path)
    context = context_length(model)
    yield Finding("model", "architecture", type(model).__name__)
    yield Finding("model", "parameters", sum(p.numel() for p in model.parameters()))
    if is_llama_like(model):
        kept = Pass(shape=Shape.of(model.config)).per_token() / 2**10
        yield Finding("model", "KiB that a token takes while float32 weights are trained", kept)
    yield Finding("model", "context", "relative positions, no end" if context is None else context)
    yield from _ends(tokenizer, model)
    yield from _template(tokenizer, prompts)
    templated = bool(tokenizer.chat_template)
    asked = [p if templated else Prompt(p.text) for p, _ in ANSWERS]
    rows = [pair_ids(p, c.text, tokenizer, max_tokens=context) for p, (_, c) in zip(asked, ANSWERS, strict=True)]
    drift = _drift(Role("policy", model), rows)
    mend = "train with one completion per forward pass, or use an architecture whose attention is causal"
    yield found("model", "change of a logprob in a batch", drift, "" if drift < INVARIANCE else mend, fails=True)
    if prompts:
        yield from _lengths(tokenizer, context, prompts, answers, max_prompt_tokens, progress)


def _ends(tokenizer: Any, model: Any) -> Iterator[Finding]:
    """The token that ends an answer, the one that pads, and what other tools would stop at."""
    end = tokenizer.eos_token
    yield Finding("model", "end token", end)
    yield Finding("model", "pad token", tokenizer.pad_token)
    config = model.generation_config
    named = None if config is None else config.eos_token_id
    stops = [] if named is None else [named] if isinstance(named, int) else list(named)
    mend = ""
    if tokenizer.eos_token_id not in stops:
        mend = (
            f"training teaches {end} (id {tokenizer.eos_token_id}), and what reads generation_config.json would "
            f"{'stop elsewhere' if stops else 'never stop'}; set eos_token_id there"
        )
    shown = ", ".join(map(str, tokenizer.convert_ids_to_tokens(stops))) or "none"
    yield found("model", "end tokens in generation_config.json", shown, mend)


def _template(tokenizer: Any, prompts: Sequence[Prompt]) -> Iterator[Finding]:
    """Whether conversations come through the chat template whole, and answers end as it ends them."""
    templated = bool(tokenizer.chat_template)
    mend = "set chat_template in the tokenizer to take conversations; prompts of plain text need none"
    yield found("model", "chat template", templated, "" if templated else mend)
    if not templated:
        return
    plain = sum(isinstance(prompt.content, str) for prompt in prompts)
    if plain:
        mend = 'they do not go through the chat template; if they should, write [{"role": "user", "content": "…"}]'
        yield found("model", "prompts of plain text", plain, mend)
    try:
        ending = turn_end(tokenizer)
    except ModelError as error:
        yield from_error("model", "what the template makes of an answer", error)
        return
    mend = (
        f"answers are taught to end with {tokenizer.eos_token}, which the template does not write; "
        "set eos_token to the token by which it ends a turn"
    )
    yield found(
        "model", "the template ends an answer with", repr(ending), "" if tokenizer.eos_token in ending else mend
    )
    yield from _turns(tokenizer, prompts)


def _turns(tokenizer: Any, prompts: Sequence[Prompt]) -> Iterator[Finding]:
    """Whether the template writes every turn of a conversation, in order, but for white space at its ends."""
    long = [prompt for prompt in prompts if not isinstance(prompt.content, str) and len(prompt.content) > 1]
    tried = long[:NUM_CONVERSATIONS] or [CONVERSATION]
    changed, refused = [], []
    for prompt in tried:
        try:
            text, at = render_prompt(prompt, tokenizer), 0
        except ModelError as error:
            refused.append(str(error))
            continue
        assert not isinstance(prompt.content, str)
        for turn in prompt.content:
            at = text.find(turn.content.strip(), at)
            if at < 0:
                changed.append(turn)
                break
            at += len(turn.content.strip())
    mend = refused[0] if refused else ""
    yield found("model", f"conversations of {len(tried)} that the template refuses", len(refused), mend, fails=True)
    mend = "the model would not see what the data say; use a template that writes every turn as it is"
    yield found(
        "model",
        f"conversations of {len(tried)} with a turn that the template changes or leaves out",
        len(changed),
        f"{mend}; the first is “{changed[0].content[:60]}”, said by the {changed[0].role}" if changed else "",
    )


def _drift(role: Role, rows: Sequence[tuple[list[int], list[int]]]) -> float:
    """The largest change of a logprob when `rows` of prompt and completion ids are read together."""
    width = max(len(completion) for _, completion in rows)

    def logprobs(chosen: Sequence[tuple[list[int], list[int]]]) -> torch.Tensor:
        outputs = policy_outputs(role, [p for p, _ in chosen], [c for _, c in chosen], width=width)
        assert outputs.logprobs is not None
        return outputs.logprobs

    with torch.no_grad():
        return float((logprobs(rows) - torch.cat([logprobs([row]) for row in rows])).abs().max())


def _lengths(
    tokenizer: Any,
    context: int | None,
    prompts: Sequence[Prompt],
    answers: Sequence[tuple[Prompt, Completion]],
    max_prompt_tokens: int | None,
    progress: Progress,
) -> Iterator[Finding]:
    """How long prompts and answers are in tokens of this model, and which do not fit."""
    total = len(prompts) + len(answers)
    asked: dict[Prompt, int] = {}
    for done, prompt in enumerate(prompts, start=1):
        asked[prompt] = len(prompt_ids(prompt, tokenizer, max_tokens=None))
        progress(done, total)
    said = []
    for done, (prompt, answer) in enumerate(answers, start=len(prompts) + 1):
        said.append((asked.get(prompt, 0), len(completion_ids(prompt, answer.text, tokenizer))))
        progress(done, total)
    of_prompts = list(asked.values())
    yield Finding("model", "tokens of a prompt: median, 95 %, most", _percentiles(of_prompts))
    if max_prompt_tokens is not None:
        over = sum(length > max_prompt_tokens for length in of_prompts)
        mend = "they lose their beginning; raise --max-prompt-tokens, or leave them out"
        yield found("model", f"prompts of more than {max_prompt_tokens} tokens", over, mend if over else "")
    elif context is not None:
        over = sum(length >= context for length in of_prompts)
        mend = "they leave no room for an answer and are refused; add --max-prompt-tokens, or leave them out"
        yield found("model", f"prompts that fill the context of {context}", over, mend if over else "", fails=True)
    if said:
        yield Finding("model", "tokens of an answer: median, 95 %, most", _percentiles([answer for _, answer in said]))
    if said and context is not None:
        over = sum(prompt + answer > context for prompt, answer in said)
        mend = "training cuts prompts from their beginning, then answers at their end; leave them out if that matters"
        yield found("model", f"answers that go beyond the context of {context}", over, mend if over else "")


def _percentiles(lengths: Sequence[int]) -> str:
    return " / ".join(f"{length:.0f}" for length in np.percentile(lengths, [50, 95, 100]))
