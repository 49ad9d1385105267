"""Measures of texts that need no model: variety, repetition, length, and phrases a policy has taken a liking to."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from scipy.special import gammaln

from tuneful.errors import DataError
from tuneful.records import Finish

PHRASE_SIZES = (1, 2, 3, 4)
PRIOR = 500.0
_FULLER = 0.6  # a phrase with this share of the z says more than the word at its heart
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")


def words(text: str) -> list[str]:
    """Lower-cased words of `text`; each punctuation mark is a word of its own, so "!!!!" counts as repetition."""
    return _WORD.findall(text.lower())


def ngrams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All runs of `n` neighbouring tokens, in order."""
    return list(zip(*(tokens[i:] for i in range(n)), strict=False))


def distinct_n(texts: Iterable[str], n: int, *, draws: int | None = None) -> float:
    """Unique n-grams over all n-grams of the whole set (Li et al. 2016); 0 when no text has n words.

    It falls with the size of the set. draws: what to expect of that many n-grams drawn without replacement
    (rarefaction, Hurlbert 1971, eq. 7), which makes sets of unlike size comparable.
    """
    counts = ngram_counts(texts, n)
    total = counts.total()
    draws = total if draws is None else min(draws, total)
    if draws == 0:
        return 0.0
    often = np.fromiter(counts.values(), dtype=np.float64)
    left = total - often  # n-grams that are not this one; it is missed when all draws come from them
    log_missed = gammaln(left + 1) - gammaln(np.maximum(left - draws, 0) + 1)
    log_missed += gammaln(total - draws + 1) - gammaln(total + 1)
    missed = np.where(left >= draws, np.exp(log_missed), 0.0)
    return float((1 - missed).sum() / draws)


def ngram_counts(texts: Iterable[str], n: int) -> Counter[tuple[str, ...]]:
    """How often each n-gram occurs in a set of texts."""
    return Counter(gram for text in texts for gram in ngrams(words(text), n))


def repeated_ngram_share(text: str, n: int = 4) -> float:
    """Share of a text's n-grams that have occurred in it before; 0 for a text of fewer than n words."""
    grams = ngrams(words(text), n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def num_words(text: str) -> int:
    """Length of a text as reports and the alarm count it: words between white space."""
    return len(text.split())


def eos_share(finishes: Sequence[Finish | None]) -> float:
    """Share of completions that ended by their own end token."""
    if not finishes:
        raise DataError("eos_share of no completions; pass at least one finish")
    return sum(f == "eos" for f in finishes) / len(finishes)


@dataclass(frozen=True, slots=True)
class Phrase:
    """An n-gram used more after than before.

    z: log-odds ratio over its standard deviation. rate_ratio: occurrences per text after, over those before, half an
    occurrence added to each so that a new phrase has a finite ratio.
    """

    ngram: str
    z: float
    rate_ratio: float
    count_after: int
    count_before: int


def overrepresented(
    after_texts: Sequence[str],
    before_texts: Sequence[str],
    *,
    n: Sequence[int] = PHRASE_SIZES,
    top: int = 10,
    prior: float = PRIOR,
) -> list[Phrase]:
    """The n-grams most over-represented in `after_texts`, by the log-odds ratio with an informative Dirichlet prior.

    Monroe, Colaresi and Quinn 2008, eq. 15-16 and 22-23: with y a count, N the total for that n and a = prior x the
    n-gram's share in both sets together, the log-odds of a set is log((y + a) / (N + prior - y - a)), its variance
    about 1 / (y + a). `prior` is the weight of that background in n-grams: it holds back what was seen a few times.
    The list names each habit once: an n-gram gives way to a longer one around it whose z is not far below, and is
    left out when it shares most of its words with one that is listed. Phrases do not cross punctuation.
    """
    if not after_texts or not before_texts:
        raise DataError("phrases are compared between two sets of texts; at least one of them is empty")
    phrases: list[Phrase] = []
    for size in n:
        phrases += _compared(after_texts, before_texts, size, prior)
    phrases.sort(key=lambda p: (-p.z, p.ngram))
    kept: list[Phrase] = []
    for phrase in phrases:
        if len(kept) == top:
            break
        fuller = [p for p in phrases if _within(phrase.ngram, p.ngram) and p.z >= _FULLER * phrase.z]
        longest = max(fuller, key=lambda p: (len(p.ngram.split()), p.z))
        if not any(_same_habit(phrase.ngram, k.ngram) or _same_habit(longest.ngram, k.ngram) for k in kept):
            kept.append(longest)
    return sorted(kept, key=lambda p: -p.z)


def hacking_signals(texts: Sequence[str], reference_texts: Sequence[str], *, min_z: float) -> dict[str, float]:
    """The measures of `texts` that the hacking alarm reads (keys: tuneful.algorithms.stopping).

    "length" is in words. "phrase_z" and "phrase_ratio" are those of one phrase: of the phrases with z above `min_z`
    the one with the largest rate ratio, or if none is, the one with the largest z. The reference against itself has
    z 0 and ratio 1.
    """
    if not texts:
        raise DataError("hacking signals of no texts; evaluate at least one completion")
    signals = {
        "length": sum(map(num_words, texts)) / len(texts),
        "distinct_2": distinct_n(texts, 2),
        "phrase_z": 0.0,
        "phrase_ratio": 1.0,
    }
    phrases = [p for size in PHRASE_SIZES for p in _compared(texts, reference_texts, size, PRIOR)]
    if phrases:
        clear = [p for p in phrases if p.z > min_z]
        worst = max(clear, key=lambda p: p.rate_ratio) if clear else max(phrases, key=lambda p: p.z)
        signals |= {"phrase_z": worst.z, "phrase_ratio": worst.rate_ratio}
    return signals


def _phrase_counts(texts: Iterable[str], n: int) -> Counter[tuple[str, ...]]:
    """n-grams of words alone or of punctuation alone: what crosses a full stop is no phrase, what repeats one is."""
    counts: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        for _, run in groupby(words(text), key=lambda word: word[0].isalnum() or word[0] == "_"):
            counts.update(ngrams(list(run), n))
    return counts


def _compared(after_texts: Sequence[str], before_texts: Sequence[str], n: int, prior: float) -> list[Phrase]:
    """Every n-gram with a positive log-odds ratio."""
    after, before = _phrase_counts(after_texts, n), _phrase_counts(before_texts, n)
    total_after, total_before = after.total(), before.total()
    found = []
    for gram, count in after.items():
        background = prior * (count + before[gram]) / (total_after + total_before)
        y, x = count + background, before[gram] + background
        rest_y, rest_x = total_after + prior - y, total_before + prior - x
        if min(x, rest_x, rest_y) <= 0:  # every n-gram of a set is this one: the odds are not defined
            continue
        z = (math.log(y / rest_y) - math.log(x / rest_x)) / math.sqrt(1 / y + 1 / x)
        if z > 0:
            rate = (count + 0.5) / len(after_texts)
            rate_before = (before[gram] + 0.5) / len(before_texts)
            found.append(Phrase(" ".join(gram), z, rate / rate_before, count, before[gram]))
    return found


def _same_habit(a: str, b: str) -> bool:
    first, second = set(a.split()), set(b.split())
    return 2 * len(first & second) > min(len(first), len(second))


def _within(inner: str, outer: str) -> bool:
    return f" {inner} " in f" {outer} "
