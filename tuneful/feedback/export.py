"""From judgments to what reward models and preference losses are trained on: the comparisons of a consensus, and whole
rankings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tuneful.errors import DataError
from tuneful.feedback.consensus import Consensus, consensus
from tuneful.feedback.slopes import PRIOR_SLOPE
from tuneful.feedback.votes import tabulate
from tuneful.records import Candidates, Comparison, Judgment, Prompt, Ranking


def agreed_comparisons(found: Consensus, judged: Iterable[Candidates]) -> list[Comparison]:
    """The pairs of a consensus with their texts, which are those of the completions `judged`."""
    return to_comparisons(found, {c.id: (item.prompt, c.text) for item in judged for c in item.completions})


def to_comparisons(consensus: Consensus, texts: Mapping[str, tuple[Prompt, str]]) -> list[Comparison]:
    """One comparison per pair: the likelier side is `chosen`, p and weight as found, group = the item's id.

    `texts` gives prompt and text of each completion id. Pairs of equal text, a model's same answer twice, are left out:
    there is nothing to prefer. Raises DataError for an id without text, and for two
    completions of one item whose prompts differ.
    """
    rows = []
    for pair in consensus.pairs:
        for completion in (pair.first, pair.second):
            if completion not in texts:
                raise DataError(
                    f'item "{pair.item}": completion "{completion}" has no text; pass the file it came from'
                )
        (prompt, chosen), (other, rejected) = texts[pair.first], texts[pair.second]
        if prompt != other:
            raise DataError(f'item "{pair.item}": "{pair.first}" and "{pair.second}" answer different prompts')
        if chosen != rejected:
            rows.append(Comparison(prompt, chosen, rejected, p=pair.p, weight=pair.weight, group=pair.item))
    return rows


def rankings_of(judgments: Sequence[Judgment], judged: Iterable[Candidates]) -> list[Ranking]:
    """Every rater's rankings and comparisons as they were given, with the texts of the completions `judged`.

    A ranking's slope is its rater's reliability in the consensus of all of them, over that which a careful rater is
    expected to have: who guesses counts for nothing, and who reads the scale upside down is read the right way up.
    Raises DataError for an id without text.
    """
    counted = tabulate(judgments).judgments
    slope = {rater.rater: rater.reliability / PRIOR_SLOPE for rater in consensus(judgments).raters}
    texts = {c.id: (item.prompt, c.text) for item in judged for c in item.completions}
    found = []
    for one in counted:
        lost = [c for c in one.completions if c not in texts]
        if lost:
            raise DataError(f'item "{one.item}": completion "{lost[0]}" has no text; pass the file it came from')
        prompt, _ = texts[one.completions[0]]
        found.append(Ranking(prompt, tuple(texts[c][1] for c in one.completions), one.ranks, slope[one.rater]))
    return found
