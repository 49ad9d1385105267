"""What only training can show: that micro-batches add up to the whole step, and that 64 examples are learned by heart.

Both cost training steps, so no run does them at its start. A model that fails here is not worth a long run: a learner
that cannot remember 64 examples will not generalise from many thousands.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from tuneful.algorithms.loop import Learner, Progress
from tuneful.algorithms.reward_model import RewardModel, RewardModelConfig, group_pairs
from tuneful.algorithms.sft import SFT, SFTConfig
from tuneful.algorithms.start_up import Finding
from tuneful.data.templates import pair_ids
from tuneful.engines.local import LocalEngine
from tuneful.engines.optimization import Optimization
from tuneful.engines.protocol import Metrics
from tuneful.errors import ModelError
from tuneful.models.loading import load_tokenizer
from tuneful.models.roles import Role, Roles, policy_roles, reward_roles
from tuneful.records import Comparison, Demonstration, Prompt
from tuneful.rewards.learned import encode_pair

NUM_EXAMPLES = 64
NUM_STEPS = 150
"""Steps, each over all examples, after which what is not learned counts as never learned."""
MAX_TOKENS = 32
"""Prompt and completion together; what is longer is cut, for speed."""

LOSS = 0.1
"""Nats per token. Whoever does not read the prompt cannot know which of 64 completions is asked for, and pays at least
log 64 / 31 = 0.13 nats for each of at most 31 tokens; whoever reads it can come down to 0."""
WRONG = 0.05
"""Share of pairs. Guessing gets 61 of 64 right once in 10^14 tries."""
DRIFT = 1e-4
"""Change of a gradient, relative to its norm, that the rounding of float32 explains."""

RATE_TIMES_WIDTH = 0.1
"""Adam's learning rate falls with the width of the model (arXiv 2203.03466): 4e-4 at 256, 2.4e-5 at 4096."""

T = TypeVar("T")


def check_policy_learning(
    path: str | Path, offered: Sequence[Demonstration] = (), *, progress: Progress | None = None
) -> list[Finding]:
    """Fine-tune a copy of the language model at `path` on 64 demonstrations; the copy is thrown away.

    offered: demonstrations to take them from; made-up ones fill the gap. Takes the memory of training in float32, 16
    bytes per weight. Raises ModelError when the model cannot be loaded.
    """
    tokenizer = load_tokenizer(path)
    roles = policy_roles(path, with_reference=False)
    assert roles.policy is not None
    demonstrations = distinct_demonstrations(offered, tokenizer)
    config = SFTConfig(demonstrations_per_step=NUM_EXAMPLES, max_tokens=MAX_TOKENS)

    def learn(engine: LocalEngine) -> Learner:
        return SFT(engine, demonstrations, config, tokenizer)

    return [
        check_microbatches(learn, roles, tokenizer),
        check_demonstrations_learned(learn(_engine(roles, roles.policy, tokenizer)), progress=progress),
    ]


def check_reward_learning(
    path: str | Path, offered: Sequence[Comparison] = (), *, progress: Progress | None = None
) -> list[Finding]:
    """Train a copy of the reward model at `path`, or one that starts from the language model there, on 64 pairs.

    See check_policy_learning.
    """
    roles = reward_roles(path)
    assert roles.reward is not None
    tokenizer = load_tokenizer(path, needs_end=roles.reward.head is not None)
    comparisons = distinct_comparisons(offered, roles.reward, tokenizer)
    groups = group_pairs(comparisons, roles.reward, tokenizer, MAX_TOKENS)
    config = RewardModelConfig(prompts_per_step=NUM_EXAMPLES, max_tokens=MAX_TOKENS)

    def learn(engine: LocalEngine) -> Learner:
        return RewardModel(engine, groups, config)

    return [
        check_microbatches(learn, roles, tokenizer),
        check_comparisons_learned(learn(_engine(roles, roles.reward, tokenizer)), progress=progress),
    ]


def check_microbatches(learn: Callable[[LocalEngine], Learner], roles: Roles, tokenizer: Any) -> Finding:
    """The gradient of a learner's first step from one pass over the whole batch and from a pass for each unit of it.

    learn: makes the learner on an engine; its step must update once. The weights of `roles` stay as they are.
    """
    whole, cut = (
        _first_gradient(learn, _StandingEngine(roles, tokenizer, tokens_per_microbatch=tokens))
        for tokens in (2 * NUM_EXAMPLES * MAX_TOKENS, 1)
    )
    return Finding(
        "change of a step's gradient with its micro-batches, relative to its norm",
        _norm([a - b for a, b in zip(whole, cut, strict=True)]) / max(_norm(whole), 1e-12),
        DRIFT,
        "a loss must be divided by the count of the whole step, not of one micro-batch, "
        "and no row may depend on what else is in its pass",
    )


def check_demonstrations_learned(learner: Learner, *, progress: Progress | None = None) -> Finding:
    """How far the loss of a learner over demonstrations falls when every step is over all of them."""
    return Finding(
        f"loss per token after learning {NUM_EXAMPLES} demonstrations by heart, in nats",
        _left_to_learn(learner, lambda metrics: metrics["loss"], LOSS, progress),
        LOSS,
        "the model does not learn what it is shown; look for frozen weights, a chat template that hides the prompt, "
        "or an architecture that reads ahead",
    )


def check_comparisons_learned(learner: Learner, *, progress: Progress | None = None) -> Finding:
    """How many pairs a learner over comparisons still gets wrong when every step is over all of them."""
    return Finding(
        f"share of pairs ranked wrongly after learning {NUM_EXAMPLES} by heart",
        _left_to_learn(learner, lambda metrics: 1 - metrics["accuracy"], WRONG, progress),
        WRONG,
        "the reward model does not learn what it is shown; look for frozen weights, a reading position before the "
        "answer's end, or pairs that contradict each other",
    )


def distinct_demonstrations(offered: Iterable[Demonstration], tokenizer: Any) -> list[Demonstration]:
    """64 demonstrations whose prompts differ even where they are cut: the first of `offered`, then made-up ones."""
    made = (Demonstration(prompt, answer) for prompt, answer, _ in _made(tokenizer))
    keyed = ((pair_ids(d.prompt, d.completion, tokenizer, max_tokens=MAX_TOKENS)[0], d) for d in chain(offered, made))
    return _distinct(keyed)


def distinct_comparisons(offered: Iterable[Comparison], role: Role, tokenizer: Any) -> list[Comparison]:
    """64 comparisons, one of a prompt, so that none contradict: the first of `offered`, then made-up ones.

    Each counts as certain, whatever its `p`: a tie cannot be ranked rightly.
    """

    def keyed(comparisons: Iterable[Comparison]) -> Iterator[tuple[list[int], Comparison]]:
        for c in comparisons:
            prompt, chosen = encode_pair(c.prompt, c.chosen, tokenizer, role, MAX_TOKENS)
            _, rejected = encode_pair(c.prompt, c.rejected, tokenizer, role, MAX_TOKENS)
            if chosen != rejected:
                yield prompt, Comparison(c.prompt, c.chosen, c.rejected)

    return _distinct(keyed(chain(offered, (Comparison(*texts) for texts in _made(tokenizer)))))


class _StandingEngine(LocalEngine):
    """Keeps the gradient of each step instead of following it."""

    gradient: list[Tensor]

    def step(self, max_norm: float) -> float:
        self.gradient = [torch.zeros_like(w) if w.grad is None else w.grad for w in self.parameters()]
        for weight in self.parameters():
            weight.grad = None
        return _norm(self.gradient)


def _first_gradient(learn: Callable[[LocalEngine], Learner], engine: _StandingEngine) -> list[Tensor]:
    learn(engine).step()
    return engine.gradient


def _norm(tensors: Iterable[Tensor]) -> float:
    return float(torch.stack([t.norm() for t in tensors]).norm())


def _engine(roles: Roles, trained: Role, tokenizer: Any) -> LocalEngine:
    rate = RATE_TIMES_WIDTH / trained.model.config.get_text_config().hidden_size
    settings = Optimization(learning_rate=rate, schedule="constant", warmup_steps=10)
    return LocalEngine(roles, tokenizer, optimization=settings)


def _left_to_learn(learner: Learner, left: Callable[[Metrics], float], bar: float, progress: Progress | None) -> float:
    """What `left` reads from the metrics of the first step that is below `bar`, or else of the last."""
    found = float("inf")
    for step in range(1, NUM_STEPS + 1):
        metrics = learner.step()
        found = left(metrics)
        if progress is not None:
            progress(step, NUM_STEPS, metrics)
        if found < bar:
            break
    return found


def _distinct(keyed: Iterable[tuple[Sequence[int], T]]) -> list[T]:
    """The first 64 values whose keys differ."""
    found: dict[tuple[int, ...], T] = {}
    for key, value in keyed:
        found.setdefault(tuple(key), value)
        if len(found) == NUM_EXAMPLES:
            return list(found.values())
    raise ModelError("prompts of different words have the same tokens; use a chat template that writes out the prompt")


def _made(tokenizer: Any) -> Iterator[tuple[Prompt, str, str]]:
    """Prompts with two answers of one to six words, drawn by lot from the words that are tokens of their own.

    Raises ModelError when there are too few of these.
    """
    texts = (str(tokenizer.decode([token])).strip() for token in range(len(tokenizer)))
    words = list(dict.fromkeys(islice((text for text in texts if text.isalpha()), 4 * NUM_EXAMPLES)))
    if len(words) < 8:
        raise ModelError(f"the tokenizer has {len(words)} words; give 64 examples to learn, as it can make up none")
    ask = Prompt.user if tokenizer.chat_template else Prompt
    draw = random.Random(0)

    def say(least: int, most: int) -> str:
        return " ".join(draw.choices(words, k=draw.randint(least, most)))

    for _ in range(16 * NUM_EXAMPLES):
        yield ask(say(4, 4)), say(1, 6), say(1, 6)
