"""From a consensus to the comparisons that reward models and preference losses are trained on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from tuneful.errors import DataError
from tuneful.records import Candidates, Comparison, Prompt

if TYPE_CHECKING:
    from tuneful.feedback.consensus import Consensus


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
