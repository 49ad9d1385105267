"""Good and bad answers, from what raters said of each alone: Dawid and Skene's consensus, and before it a lead's word.

An answer is good where the probability of yes is above 1/2. A majority of votes is for reports alone: it takes a rater
who reads the question upside down at his word, and knows nothing where as many say yes as no.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Final

from tuneful.errors import DataError
from tuneful.feedback.settling import Decision, standing
from tuneful.records import Candidates, Judgment, UnpairedPreference

if TYPE_CHECKING:
    from tuneful.feedback.standings import Standing

EVEN: Final = 1e-6
"""So near to one half p says nothing: rounding alone could turn it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What is known of one answer. p: probability that yes is true of it. decided: p is a lead's word, 0 or 1.
    judgments: those that say yes or no, in their last revisions."""

    item: str
    completion: str
    criterion: str
    p: float
    decided: bool
    judgments: Sequence[Judgment]

    @property
    def is_good(self) -> bool:
        return self.p > 0.5

    @property
    def is_even(self) -> bool:
        return abs(self.p - 0.5) < EVEN


def labels(judgments: Iterable[Judgment], decisions: Iterable[Decision] = ()) -> list[Label]:
    """By criterion and item, what is known of every answer that was judged by itself, or decided by a criterion by
    which others were judged.

    Judgments of other kinds, those that another one `replaces`, those that do not answer their own criterion, and
    answers other than 0 and 1 are left out.
    """
    from tuneful.feedback.dawid_skene import binary_consensus  # brings scipy, which those who label do not wait for

    said: dict[str, dict[str, list[Judgment]]] = {}
    for one in yes_or_no(judgments):
        said.setdefault(one.criterion, {}).setdefault(one.item, []).append(one)
    decided: dict[str, dict[str, Decision]] = {}
    for made in standing(decisions).values():
        if len(made.completions) == 1 and made.values.get(made.criterion) in (0, 1):
            decided.setdefault(made.criterion, {})[made.item] = made
    found = []
    for criterion, words in sorted(said.items()):
        settled = decided.get(criterion, {})
        likely = binary_consensus(chain(*words.values()), criterion).items
        for item in sorted({*words, *settled}):
            about = settled.get(item) or words[item][0]
            found.append(
                Label(
                    item=item,
                    completion=about.completions[0],
                    criterion=criterion,
                    p=settled[item].values[criterion] if item in settled else likely[item],
                    decided=item in settled,
                    judgments=words.get(item, ()),
                )
            )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Labels of one criterion, and who gave them. prevalence: how often yes is true. otherwise: labels that a majority
    of votes would turn, for a report; where votes are even it says nothing."""

    criterion: str
    prevalence: float
    labels: tuple[Label, ...]
    raters: tuple[Standing, ...]
    otherwise: int


def summaries(judgments: Iterable[Judgment], decisions: Iterable[Decision] = ()) -> list[Summary]:
    """What `labels` finds, by criterion, with a verdict on each rater, which is that of the page of quality."""
    from tuneful.feedback.dawid_skene import binary_consensus
    from tuneful.feedback.points import answer_points
    from tuneful.feedback.standings import standings_of_answers

    said = yes_or_no(judgments)
    found = labels(said, decisions)
    made = []
    for criterion in sorted({one.criterion for one in said}):
        words = [one for one in said if one.criterion == criterion]
        agreed, mine = binary_consensus(words, criterion), [one for one in found if one.criterion == criterion]
        made.append(
            Summary(
                criterion=criterion,
                prevalence=agreed.prevalence,
                labels=tuple(mine),
                raters=tuple(standings_of_answers(answer_points(words, criterion), agreed, criterion)),
                otherwise=sum(_turned(one) for one in mine),
            )
        )
    return made


def _turned(label: Label) -> bool:
    votes = sum(2 * one.values[label.criterion] - 1 for one in label.judgments)
    return not label.is_even and votes * (label.p - 0.5) < 0


def yes_or_no(judgments: Iterable[Judgment]) -> list[Judgment]:
    """Those that say 0 or 1 of one answer, by their own criterion, in their last revisions."""
    known = list(judgments)
    replaced = {one.replaces for one in known}
    return [
        one
        for one in known
        if one.kind == "binary"
        and len(one.completions) == 1
        and one.values.get(one.criterion) in (0, 1)
        and one.id not in replaced
    ]


def good_and_bad(found: Iterable[Label], judged: Iterable[Candidates]) -> list[UnpairedPreference]:
    """Labels with their texts, which are those of the completions `judged`; those that are even are left out.

    Raises DataError for a completion without text.
    """
    texts = {one.id: (item.prompt, one.text) for item in judged for one in item.completions}
    answers = []
    for label in found:
        if label.completion not in texts:
            raise DataError(
                f'item "{label.item}": completion "{label.completion}" has no text; pass the file it came from'
            )
        if not label.is_even:
            prompt, text = texts[label.completion]
            answers.append(UnpairedPreference(prompt, text, label.is_good, p=label.p))
    return answers
