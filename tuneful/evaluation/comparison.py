"""Two models side by side on the same prompts: texts in, measured quantities out. No model is called here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneful.errors import DataError, did_you_mean
from tuneful.evaluation.intervals import bootstrap_mean, paired_difference, win_rate
from tuneful.evaluation.text_measures import distinct_n, ngram_counts, overrepresented, repeated_ngram_share
from tuneful.records import Prompt

Measure = Callable[[Prompt, str], float]
"""A number for one completion of one prompt, for example its reward, its toxicity or its length."""

NUM_BINS = 24


def compare_models(
    prompts: Sequence[Prompt],
    before: Sequence[Sequence[str]],
    after: Sequence[Sequence[str]],
    measures: Mapping[str, Measure],
    *,
    judge: str | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The part of a report that compares a model before and after training.

    before, after: for each prompt the sampled texts, equally many on both sides. `judge` names the measure whose higher
    value wins; without it no win rate is given. Returns

    {"before": {measure: measured, "distinct_1": x, ...}, "after": the same, "difference": {measure: measured},
     "win_rate": measured, "phrases": [{"ngram", "z", "rate_ratio", "count_after", "count_before"}],
     "distributions": {measure: {"edges", "before", "after"}}, "num_prompts": n, "num_samples": n}

    A difference is after - before, paired by prompt and sample; all intervals are over prompts.
    """
    _check(prompts, before, after)
    if judge is not None and judge not in measures:
        raise DataError(f'judge = "{judge}" is no measure{did_you_mean(judge, measures)}')
    groups = np.repeat(np.arange(len(prompts)), [len(texts) for texts in before])
    values_before = {name: _values(name, measure, prompts, before) for name, measure in measures.items()}
    values_after = {name: _values(name, measure, prompts, after) for name, measure in measures.items()}
    texts_before, texts_after = _flat(before), _flat(after)
    report: dict[str, Any] = {
        "num_prompts": len(prompts),
        "num_samples": len(texts_before),
        "before": _side(values_before, texts_before, texts_after, groups, seed),
        "after": _side(values_after, texts_after, texts_before, groups, seed),
        "difference": {
            name: paired_difference(values_after[name], values_before[name], groups, seed=seed).as_json()
            for name in measures
        },
        "distributions": {name: histogram(values_before[name], values_after[name]) for name in measures},
        "phrases": [asdict(phrase) for phrase in overrepresented(texts_after, texts_before)],
    }
    if judge is not None:
        report["win_rate"] = win_rate(values_after[judge], values_before[judge], groups, seed=seed).as_json()
    return report


def histogram(before: NDArray[np.float64], after: NDArray[np.float64], num_bins: int = NUM_BINS) -> dict[str, Any]:
    """Counts of both sides over the same bins: {"edges": num_bins + 1, "before": num_bins, "after": num_bins}."""
    edges = np.histogram_bin_edges(np.concatenate([before, after]), num_bins)
    return {
        "edges": edges.tolist(),
        "before": np.histogram(before, edges)[0].tolist(),
        "after": np.histogram(after, edges)[0].tolist(),
    }


def _side(
    values: Mapping[str, NDArray[np.float64]], texts: list[str], others: list[str], groups: NDArray[Any], seed: int
) -> dict[str, Any]:
    """One side's part of the report; its variety is counted in as many n-grams as the side with fewer has."""
    side: dict[str, Any] = {name: bootstrap_mean(v, groups, seed=seed).as_json() for name, v in values.items()}
    for n in (1, 2, 3):
        side[f"distinct_{n}"] = distinct_n(texts, n, draws=ngram_counts(others, n).total())
    repeated = [repeated_ngram_share(text) for text in texts]
    side["repeated_4gram_share"] = bootstrap_mean(repeated, groups, seed=seed).as_json()
    return side


def _values(
    name: str, measure: Measure, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]
) -> NDArray[np.float64]:
    values = np.array([float(measure(p, t)) for p, row in zip(prompts, texts, strict=True) for t in row])
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise DataError(f'measure "{name}" gave {values[bad[0]]} for {_flat(texts)[bad[0]]!r:.80}; it must be finite')
    return values


def _flat(texts: Sequence[Sequence[str]]) -> list[str]:
    return [text for row in texts for text in row]


def _check(prompts: Sequence[Prompt], before: Sequence[Sequence[str]], after: Sequence[Sequence[str]]) -> None:
    if not len(prompts) == len(before) == len(after):
        raise DataError(
            f"{len(prompts)} prompts need as many rows on each side, got {len(before)} before and {len(after)} after"
        )
    for i, (old, new) in enumerate(zip(before, after, strict=True)):
        if not old or len(old) != len(new):
            raise DataError(
                f"prompt {i}: {len(old)} completions before and {len(new)} after; sample equally many, at least one"
            )
