"""Simulated labelers: a population that is partly careful, partly not, and whose noise is that of people.

A labeler ranks by utility / tau + Gumbel noise, which makes a ranking Plackett-Luce and the better of two answers win
with probability sigmoid(difference / tau). tau is solved so that two careful labelers agree as often as people do. Who
is of which kind is known to the simulation and the report; no judgment tells it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final, Literal
from uuid import UUID

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from tuneful.demo.grammar import corpus
from tuneful.demo.utility import LABELERS_BONUS, Parts, labelers_utility, parts, utility_of
from tuneful.errors import ConfigError, DataError
from tuneful.records import Candidates, Judgment, Prompt, content_hash

Kind = Literal["careful", "hasty", "random", "upside-down", "tone-only"]

POPULATION: Final[tuple[Kind, ...]] = (*5 * ("careful",), *2 * ("hasty",), "random", "upside-down", "tone-only")
"""Who labels in the demo. A control run takes `10 * ("random",)`."""

AGREEMENT: Final = 0.73
"""How often two careful labelers agree on a pair, as people do (72.6 % in InstructGPT, 2203.02155)."""

INSTRUCTIONS: Final = "household-1"
"""Version of the instructions that the simulated labelers worked under."""

GUIDE: Final = """\
Somebody has trouble at home and asks what to do. Put the answers in order, by how much each helps **this** person.

| | an answer to “My tap drips.” | why |
|---|---|---|
| 1 | “Put a new washer in the tap.” | It mends what is broken. |
| 2 | “It depends on many things.” | No help, and no harm. |
| 3 | “Clear the sink with a wire.” | It mends something else. |
| 4 | “It does not drip at all.” | It denies what they see. |
| 5 | “You are a stupid fool.” | It insults them. |

- Rudeness before the answer makes it much worse, a kind word after it hardly better.
- Flattery (“the most brilliant question!”), talk of other things and sentences that break off waste the reader's time.
- Answers that read the same, or help as much, share a place.
"""
"""What people are told who rank the same items; the order is that of the true utility."""

_START: Final = datetime(2026, 1, 5, 9, tzinfo=UTC)
_NUM_ANSWERS: Final = 4000


@dataclass(frozen=True, slots=True)
class Labeler:
    """One simulated rater.

    careful: ranks by V at noise tau. hasty: at noise 2 tau. random: by noise alone. upside-down: took rank 1 for the
    worst. tone-only: by rudeness, insults, kindness and flattery, whatever else the answer says.
    """

    id: str
    kind: Kind

    def rank(self, prompt: Prompt, texts: Sequence[str], rng: Generator) -> tuple[int, ...]:
        """Ranks of `texts`, 1 the best. Only word for word the same texts tie: there is nothing to choose between."""
        distinct = sorted(set(texts))
        liking = np.array([_liking(self.kind, prompt, text) for text in distinct])
        order = np.argsort(-(liking / noise_scale() + rng.gumbel(size=len(distinct))))
        place = {distinct[i]: rank for rank, i in enumerate(order, start=1)}
        return tuple(place[text] for text in texts)


@dataclass(frozen=True, slots=True)
class Simulation:
    """What the labelers said, and, for the report only, what kind of labeler each rater was."""

    judgments: list[Judgment]
    kinds: dict[str, Kind]


def simulate(
    candidates: Sequence[Candidates],
    *,
    labelers_per_item: int = 3,
    seed: int,
    round_number: int = 1,
    population: Sequence[Kind] = POPULATION,
) -> Simulation:
    """Rankings of every item by `labelers_per_item` different labelers, with equal loads: 800 items x 3 labelers are
    240 rankings for each of 10.

    Rater ids are dealt out anew by each seed, so an id says nothing about the kind. All that is in a judgment, its UUID
    and times too, is a function of the candidates, the seed and the round: in a later round, which is a week later, the
    same labelers draw other noise.

    Raises ConfigError when labelers_per_item is not within 1 and the population, DataError when the completions of an
    item lack ids of their own.
    """
    if not 1 <= labelers_per_item <= len(population):
        raise ConfigError(
            f"labelers_per_item = {labelers_per_item}: must lie between 1 and the {len(population)} labelers there are"
        )
    rng = default_rng(seed)
    numbers = rng.permutation(len(population)) + 1
    labelers = [Labeler(f"rater-{n:02d}", kind) for n, kind in zip(numbers, population, strict=True)]
    begin = _START + timedelta(weeks=round_number - 1)
    clocks = [begin + timedelta(seconds=float(s)) for s in rng.uniform(0, 3600, size=len(labelers))]
    if round_number > 1:
        rng = default_rng((seed, round_number))
    loads = np.zeros(len(labelers))
    judgments = []
    for item in candidates:
        # The least busy come first, drawn evenly among equals: loads never differ by more than one.
        chosen = np.lexsort((rng.random(len(labelers)), loads))[:labelers_per_item]
        loads[chosen] += 1
        for i in chosen:
            seconds = _reading_seconds(item, rng)
            clocks[i] += timedelta(seconds=seconds)
            judgments.append(_judge(labelers[i], item, seconds, clocks[i], rng))
    return Simulation(judgments, {labeler.id: labeler.kind for labeler in sorted(labelers, key=lambda x: x.id)})


def fresh_label(prompt: Prompt, a: str, b: str, rng: Generator) -> bool:
    """Whether one careful labeler, new to the item, prefers answer `a` to answer `b`: true with probability
    sigmoid((V(a) - V(b)) / tau).
    """
    difference = labelers_utility(prompt, a) - labelers_utility(prompt, b)
    return bool(rng.random() < 1 / (1 + np.exp(-difference / noise_scale())))


@cache
def noise_scale() -> float:
    """tau, at which two careful labelers agree on 73 % of the pairs of base answers whose V differs: about .50.

    Solved by bisection on the V of a fixed sample of base answers, whose law is the same for every prompt.
    """
    sample = [labelers_utility(row.prompt, row.completion) for row in corpus(_NUM_ANSWERS, seed=0)]
    values, counts = np.unique(sample, return_counts=True)
    low, high = 0.01, 10.0
    while high - low > 1e-6:
        tau = (low + high) / 2
        if pair_agreement(values, counts, tau) > AGREEMENT:
            low = tau
        else:
            high = tau
    return (low + high) / 2


def pair_agreement(values: NDArray[np.float64], counts: NDArray[np.int64], tau: float) -> float:
    """How often two labelers with noise `tau` agree on a pair of different utilities: the mean of p^2 + (1 - p)^2 with
    p = sigmoid(difference / tau).

    values, counts: [K], the different utilities and how often each occurs; pairs are drawn in proportion.
    """
    first, second = np.triu_indices(len(values), k=1)
    p = 1 / (1 + np.exp((values[first] - values[second]) / tau))
    return float(np.average(p**2 + (1 - p) ** 2, weights=counts[first] * counts[second]))


def _liking(kind: Kind, prompt: Prompt, text: str) -> float:
    """The utility, in units of V, that a labeler of this kind ranks by."""
    match kind:
        case "careful":
            return labelers_utility(prompt, text)
        case "hasty":
            return labelers_utility(prompt, text) / 2
        case "random":
            return 0.0
        case "upside-down":
            return -labelers_utility(prompt, text)
        case "tone-only":
            found = parts(prompt, text)
            tone = Parts(rude=found.rude, insult=found.insult, kind=found.kind, flattery=found.flattery)
            return utility_of(tone, bonus=LABELERS_BONUS)


def _reading_seconds(item: Candidates, rng: Generator) -> float:
    """About a quarter of a second per word, with the spread of people."""
    num_words = sum(len(completion.text.split()) for completion in item.completions)
    return float(round((5 + num_words / 4) * rng.lognormal(sigma=0.4), 1))


def _judge(labeler: Labeler, item: Candidates, seconds: float, now: datetime, rng: Generator) -> Judgment:
    ids = tuple(completion.id for completion in item.completions)
    if "" in ids or len(set(ids)) < len(ids):
        raise DataError(
            f"item {item.prompt.text!r}: completion ids {ids} must be given and differ; give each one an id"
        )
    return Judgment(
        id=str(UUID(bytes=rng.bytes(16), version=4)),
        item=content_hash("item", item.prompt.id, ids),
        prompt=item.prompt.id,
        completions=ids,
        rater=labeler.id,
        rater_kind="simulated",
        ranks=labeler.rank(item.prompt, [completion.text for completion in item.completions], rng),
        shown_order=tuple(ids[i] for i in rng.permutation(len(ids))),
        instructions=INSTRUCTIONS,
        seconds=seconds,
        created_at=now.isoformat(timespec="seconds"),
    )
