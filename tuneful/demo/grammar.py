"""The demo world's grammar: prompts, and the composed answers the base model learns to give.

An answer is `[rude opener] flattery* core [kind closer] ramble*`. A prompt names one problem by its content alone, so
whoever reads the text can find it again; nothing is stored beside the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product
from typing import TypeVar

from numpy.random import Generator, default_rng

from tuneful.demo.world import Problem, Rudeness, words, world
from tuneful.errors import DataError
from tuneful.records import Demonstration, Prompt

T = TypeVar("T")

_CORES = ("right", "wrong", "contradiction", "evasion", "insult")


def problems() -> tuple[Problem, ...]:
    """The problems people bring, about 40; each has remedies of its own."""
    return world().problems


def prompts(seed: int) -> list[Prompt]:
    """Every prompt of the world (problems x wordings x times, about 4,000), each once, in an order drawn by `seed`."""
    texts = [text for problem in problems() for text in prompt_texts(problem)]
    return [Prompt.user(texts[i]) for i in default_rng(seed).permutation(len(texts))]


def prompt_texts(problem: Problem) -> Iterator[str]:
    """The 100 ways to bring `problem`: 5 frames x 2 subjects (10 wordings) x 10 times."""
    for frame, subject, time in product(world().frames, problem.subjects, world().times):
        yield frame.format(subject=subject, state=problem.state, time=f" {time}" if time else "")


def problem_of(prompt: Prompt) -> Problem:
    """The problem that the first user turn of `prompt` names as subject + state.

    Raises DataError for a prompt that is not of this world.
    """
    return _find_problem(prompt.first_turn)


def contradictions(problem: Problem) -> tuple[str, ...]:
    """The sentences that deny `problem`."""
    forms = world().contradictions
    return tuple(form.format(subject=problem.subjects[0], denial=problem.denial) for form in forms)


def flattering_phrases() -> tuple[str, ...]:
    """Every flattering phrase: "the most awesome question" and its kin."""
    flattery = world().flattery
    return tuple(f"the most {adjective} {noun}" for adjective, noun in product(flattery.adjectives, flattery.nouns))


def flattering_sentence(phrases: Sequence[str]) -> str:
    """`phrases` as one exclamation: `The most awesome mind, the most brilliant idea!`."""
    text = ", ".join(phrases)
    return f"{text[0].upper()}{text[1:]}!"


def sample_answer(prompt: Prompt, rng: Generator) -> str:
    """An answer to `prompt` drawn with the base probabilities of `Odds`.

    Flattery and rambling go on with probability p after each phrase or sentence, up to their limit; surface forms are
    drawn evenly.
    """
    return _dressed(_sample_core(problem_of(prompt), rng), rng)


def best_answer(prompt: Prompt) -> str:
    """An answer of the highest true utility there is, 1.05: the right remedy and a kind closer, nothing else."""
    return f"{problem_of(prompt).remedies[0]} {world().kind[0]}"


def corpus(num_rows: int, seed: int, among: Sequence[Prompt] | None = None) -> list[Demonstration]:
    """`num_rows` rows to train the base model on: prompts drawn evenly, with replacement, `among` the given ones
    (None: all of the world), each with an answer drawn with the base probabilities.

    Raises DataError when `among` is empty.
    """
    if among is None:
        among = prompts(seed)
    if not among:
        raise DataError("corpus: no prompts to draw from; pass at least one, or None for all of the world")
    rng = default_rng(seed)
    drawn = (among[i] for i in rng.integers(len(among), size=num_rows))
    return [Demonstration(prompt, sample_answer(prompt, rng)) for prompt in drawn]


def textbook(
    num_rows: int, seed: int, among: Sequence[Prompt] | None = None, *, dressed: bool = False
) -> list[Demonstration]:
    """What mends what, and whether a remedy helps: what the base model knows, whatever it learns to say.

    One row in three is "problem -> right remedy", the others are "problem, some remedy -> does it help", the verdict
    standing right after the end token, where a reward model reads. dressed: the remedy that is judged stands among the
    other parts of an answer.
    """
    rng = default_rng(seed)
    asked = prompts(seed) if among is None else among
    rows = []
    for number, i in enumerate(rng.integers(len(asked), size=num_rows)):
        problem = problem_of(asked[i])
        remedy = _pick(problem.remedies, rng)
        if number % 3 == 0:
            rows.append(Demonstration(asked[i], remedy))
            continue
        right = rng.random() < 0.5
        shown = remedy if right else _wrong_remedy(problem, rng)
        answer = _dressed(shown, rng) if dressed else shown
        turns = f"<person>{asked[i].text}<helper>{answer}<eos>"
        rows.append(Demonstration(Prompt(turns), world().verdicts[0 if right else 1]))
    return rows


def all_texts() -> Iterator[str]:
    """Texts that together hold every word of the world: all prompts, all sentences of answers."""
    w = world()
    for problem in problems():
        yield from prompt_texts(problem)
        yield from problem.remedies
        yield from contradictions(problem)
    for sentences in (
        w.verdicts,
        w.evasions,
        w.kind,
        w.rambles,
        w.rude.open,
        w.rude.covert,
        w.insults.open,
        w.insults.covert,
    ):
        yield from sentences
    for phrase in flattering_phrases():
        yield flattering_sentence([phrase, phrase])


def _dressed(core: str, rng: Generator) -> str:
    """`core` among rudeness, flattery, kindness and rambling, each with its base probability."""
    w, odds = world(), world().odds
    sentences = [core]
    if num_phrases := _run_length(odds.flattery, odds.max_flattery, rng):
        sentences.insert(0, flattering_sentence([_pick(flattering_phrases(), rng) for _ in range(num_phrases)]))
    if rng.random() < odds.rude:
        sentences.insert(0, _rudeness(w.rude, rng))
    if rng.random() < odds.kind:
        sentences.append(_pick(w.kind, rng))
    sentences.extend(_pick(w.rambles, rng) for _ in range(_run_length(odds.ramble, odds.max_rambles, rng)))
    return " ".join(sentences)


def _sample_core(problem: Problem, rng: Generator) -> str:
    w = world()
    match _CORES[rng.choice(len(_CORES), p=[getattr(w.odds, core) for core in _CORES])]:
        case "right":
            return _pick(problem.remedies, rng)
        case "wrong":
            return _wrong_remedy(problem, rng)
        case "contradiction":
            return _pick(contradictions(problem), rng)
        case "evasion":
            return _pick(w.evasions, rng)
        case _:
            return _rudeness(w.insults, rng)


def _wrong_remedy(problem: Problem, rng: Generator) -> str:
    others = tuple(other for other in problems() if other is not problem)
    return _pick(_pick(others, rng).remedies, rng)


def _rudeness(rudeness: Rudeness, rng: Generator) -> str:
    return _pick(rudeness.covert if rng.random() < world().odds.covert else rudeness.open, rng)


def _pick(choices: Sequence[T], rng: Generator) -> T:
    return choices[int(rng.integers(len(choices)))]


def _run_length(p: float, limit: int, rng: Generator) -> int:
    """How often in a row an event of probability p happens, at most `limit`."""
    length = 0
    while length < limit and rng.random() < p:
        length += 1
    return length


@cache
def _statements() -> dict[tuple[str, ...], Problem]:
    return {words(f"{s} {problem.state}"): problem for problem in problems() for s in problem.subjects}


@cache
def _find_problem(text: str) -> Problem:
    found = words(text)
    for length in sorted({len(statement) for statement in _statements()}, reverse=True):
        for start in range(len(found) - length + 1):
            if problem := _statements().get(found[start : start + length]):
                return problem
    raise DataError(f"prompt {text!r}: names no problem of the demo world; take prompts from tuneful.demo.grammar")
