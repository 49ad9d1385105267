"""The rows of a dataset that is made of judgments: pairs, single answers, demonstrations, transcripts and trees.

Every row belongs to the split of its prompt (docs/decisions/0004), so the pairs of one prompt are never divided.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from tuneful.data.preferences import comparison_row
from tuneful.data.splits import split_of
from tuneful.data.transcripts import parse_transcript, transcript
from tuneful.data.trees import RankedReplies, tree_row
from tuneful.data.unpaired import unpaired_row
from tuneful.errors import DataError
from tuneful.feedback.export import to_comparisons
from tuneful.feedback.implied import orders
from tuneful.feedback.labels import Label, labels
from tuneful.feedback.settling import Decision, settle, standing
from tuneful.records import Candidates, Comparison, Completion, Judgment, Message, Prompt, UnpairedPreference

if TYPE_CHECKING:
    from tuneful.feedback.consensus import Consensus, PairConsensus

TIED = (0.45, 0.55)
"""A pair whose p lies in here, ends included, orders nothing."""

TABLES = ("preferences", "ties", "flagged", "unpaired", "demonstrations", "transcripts")
"""Kinds of rows that make a table; trees do not."""

Made = tuple[str, Prompt, dict[str, Any]]
"""A row, the kind of file that it belongs to, and the prompt that decides its split."""

_MADE_BY = (("criterion", "string"), ("instructions", ["string"]), ("rater_kinds", ["string"]))
_PAIR = (("p", "float64"), ("weight", "float64"), ("group", "string"))
_LABELED = (("num_labels", "int64"), ("agreement", "float64"), ("decided", "bool"))
_COLUMNS: Mapping[str, tuple[tuple[str, Any], ...]] = {
    "preferences": (("chosen", "answer"), ("rejected", "answer"), *_PAIR, *_LABELED, *_MADE_BY),
    "ties": (("chosen", "answer"), ("rejected", "answer"), *_PAIR, *_LABELED, *_MADE_BY),
    "flagged": (
        *(("chosen", "answer"), ("rejected", "answer"), *_PAIR, *_LABELED, *_MADE_BY),
        *(("chosen_flags", ["string"]), ("rejected_flags", ["string"])),
    ),
    "unpaired": (
        *(("completion", "answer"), ("label", "bool"), ("p", "float64"), ("num_labels", "int64")),
        *(("decided", "bool"), ("source", "string"), *_MADE_BY),
    ),
    "demonstrations": (("completion", "answer"), ("rater_kind", "string"), ("instructions", ["string"])),
}


@dataclass(frozen=True, slots=True)
class Judged:
    """What the rows are made of.

    latest: judgments that no other one replaces. prompts: by id. texts: prompt and completion by id. flags: of each
    completion, those that at least half of its raters gave it. found: the consensus by criterion, decided items as they
    were decided. ordered: by criterion and item, the judgments that order two of its completions or more, each with the
    rank of those it ranks; a rating is the ranking that it implies. labels: of answers that were judged by themselves,
    decided ones as they were decided. decided: by item, the decision that stands.
    """

    latest: tuple[Judgment, ...]
    prompts: Mapping[str, Prompt]
    texts: Mapping[str, tuple[Prompt, Completion]]
    flags: Mapping[str, tuple[str, ...]]
    found: Mapping[str, Consensus]
    ordered: Mapping[str, Mapping[str, Sequence[tuple[Judgment, Mapping[str, int]]]]]
    labels: Sequence[Label]
    decided: Mapping[str, Decision]

    @classmethod
    def of(
        cls, judgments: Sequence[Judgment], candidates: Sequence[Candidates], decisions: Sequence[Decision] = ()
    ) -> Judged:
        """Raises DataError for an id that has two texts, and as `consensus` does."""
        from tuneful.feedback.consensus import consensus

        replaced = {one.replaces for one in judgments}
        latest = tuple(one for one in judgments if one.id not in replaced)
        ordered: dict[str, dict[str, list[tuple[Judgment, Mapping[str, int]]]]] = {}
        for one in orders(latest):
            ranks = {c: rank for c, rank in zip(one.completions, one.ranks, strict=False) if rank is not None}
            if one.kind in ("ranking", "comparison") and len(ranks) >= 2:
                ordered.setdefault(one.criterion, {}).setdefault(one.item, []).append((one, ranks))
        decided = standing(decisions)
        return cls(
            latest=latest,
            prompts={item.prompt.id: item.prompt for item in candidates},
            texts=_texts(candidates),
            flags=_flags(latest),
            found={
                criterion: settle(
                    consensus(one for said in ordered[criterion].values() for one, _ in said),
                    (one for one in decided.values() if one.criterion == criterion),
                )
                for criterion in sorted(ordered)
            },
            ordered=ordered,
            labels=labels(latest, decided.values()),
            decided=decided,
        )

    def text(self, completion: str) -> tuple[Prompt, str]:
        if completion not in self.texts:
            raise DataError(f'completion "{completion}" has no text; pass where it came from')
        prompt, known = self.texts[completion]
        return prompt, known.text

    def said(self, criterion: str, item: str) -> Sequence[tuple[Judgment, Mapping[str, int]]]:
        """The judgments that order an item; none of one that was only flagged, and then decided."""
        return self.ordered[criterion].get(item, ())

    def settled(self, criterion: str, item: str) -> Decision | None:
        """The decision that stands, where there is one by this criterion."""
        made = self.decided.get(item)
        return made if made is not None and made.criterion == criterion else None


class Rows:
    """Rows by kind, by whether their prompts are messages, and by split; and what was left out, by reason."""

    def __init__(self, shares: Mapping[str, float]) -> None:
        self.by_kind: dict[str, dict[bool, dict[str, list[dict[str, Any]]]]] = {}
        self.left_out: Counter[str] = Counter()
        self._shares = shares

    def add(self, kind: str, prompt: Prompt, row: dict[str, Any]) -> None:
        shape = kind in TABLES[:-1] and isinstance(prompt.content, str)  # transcripts and trees have one shape
        splits = self.by_kind.setdefault(kind, {}).setdefault(shape, {})
        splits.setdefault(split_of(prompt, self._shares), []).append(row)

    def files(self) -> Iterator[tuple[str, str, str, bool, list[dict[str, Any]]]]:
        """(name, kind, split, whether prompts are text, rows) of every file, in order.

        A column has one type; so where a kind has prompts of both shapes, those of text get a file of their own.
        """
        for kind in (*TABLES, "trees"):
            shapes = self.by_kind.get(kind, {})
            for is_text in sorted(shapes):
                name = f"{kind}-text" if len(shapes) == 2 and is_text else kind
                for split in self._shares:
                    if split in shapes[is_text]:
                        yield name, kind, split, is_text, shapes[is_text][split]


def make_rows(
    judged: Judged,
    *,
    shares: Mapping[str, float],
    kinds: Iterable[str],
    flagged_as_rejected: bool,
    margins: bool,
) -> Rows:
    """All rows of these kinds. The order of rows follows from ids alone."""
    rows, wanted = Rows(shares), frozenset(kinds)
    made: list[Iterator[Made]] = []
    if not wanted.isdisjoint(("preferences", "ties", "flagged", "transcripts")):
        made.append(_pairs(judged, flagged_as_rejected, margins, rows.left_out))
    if "unpaired" in wanted:
        made.append(_unpaired(judged, flagged_as_rejected, rows.left_out))
    if "demonstrations" in wanted:
        made.append(_demonstrations(judged, rows.left_out))
    if "trees" in wanted:
        made.append(_trees(judged, rows.left_out))
    for kind, prompt, row in chain.from_iterable(made):
        if kind in wanted:
            rows.add(kind, prompt, row)
        if kind == "preferences" and "transcripts" in wanted:
            _add_transcript(rows, prompt, row)
    return rows


def columns(kind: str, *, is_text: bool, margins: bool) -> list[dict[str, Any]]:
    """The columns of a kind of rows as the card of a dataset names them: `datasets` then need not guess a type that a
    split without values does not show."""
    if kind == "transcripts":
        return [_column("chosen", "string"), _column("rejected", "string")]
    answer: Any = "string" if is_text else [{"role": "string", "content": "string"}]
    made = [_column(name, answer if of == "answer" else of) for name, of in (("prompt", "answer"), *_COLUMNS[kind])]
    made += [_column("empty", "bool")] if is_text and kind != "demonstrations" else []
    return made + ([_column("margin", "float64")] if margins and "weight" in dict(_COLUMNS[kind]) else [])


def _column(name: str, of: Any) -> dict[str, Any]:
    if not isinstance(of, list):
        return {"name": name, "dtype": of}
    inner = [_column(*field) for field in of[0].items()] if isinstance(of[0], dict) else of[0]
    return {"name": name, "list": inner}


def _texts(candidates: Iterable[Candidates]) -> dict[str, tuple[Prompt, Completion]]:
    texts: dict[str, tuple[Prompt, Completion]] = {}
    for item in candidates:
        for one in filter(lambda completion: completion.id, item.completions):
            prompt, known = texts.setdefault(one.id, (item.prompt, one))
            if (prompt, known.text) != (item.prompt, one.text):
                raise DataError(f'completion "{one.id}" has two texts or prompts; give each completion its own id')
    return texts


def _flags(latest: Iterable[Judgment]) -> dict[str, tuple[str, ...]]:
    raters: defaultdict[str, set[str]] = defaultdict(set)
    said: defaultdict[str, defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for one in latest:
        for completion in one.completions:
            raters[completion].add(one.rater)
        for completion, names in one.flags.items():
            for name in names:
                said[completion][name].add(one.rater)
    held = {
        completion: tuple(sorted(name for name, by in names.items() if 2 * len(by) >= len(raters[completion])))
        for completion, names in said.items()
    }
    return {completion: names for completion, names in held.items() if names}


def _pairs(judged: Judged, flagged_as_rejected: bool, margins: bool, left_out: Counter[str]) -> Iterator[Made]:
    """Every pair of every consensus, with the kind of file that it belongs to."""
    texts = {one: (prompt, known.text) for one, (prompt, known) in judged.texts.items()}
    for criterion, found in judged.found.items():
        for pair in found.pairs:
            compared = to_comparisons(replace(found, pairs=(pair,)), texts)
            left_out["pairs: both answers are equal"] += not compared
            for comparison in compared:
                said = judged.said(criterion, pair.item)
                margin = found.slope * (found.scores[pair.first][0] - found.scores[pair.second][0])
                whole = replace(
                    comparison, group=_group(pair.item, criterion), margin=margin if margins else comparison.margin
                )
                row = _pair_row(whole) | _votes(pair, said) | {"decided": pair.decided}
                row |= _made_by(criterion, (one for one, _ in said))
                flags = [judged.flags.get(side, ()) for side in (pair.first, pair.second)]
                if any(flags) and not (flagged_as_rejected and flags == [(), ("gibberish",)]):
                    row |= {"chosen_flags": list(flags[0]), "rejected_flags": list(flags[1])}
                    yield "flagged", whole.prompt, row
                else:
                    yield "ties" if TIED[0] <= pair.p <= TIED[1] else "preferences", whole.prompt, row


def _pair_row(comparison: Comparison) -> dict[str, Any]:
    row = comparison_row(comparison)
    return row | ({"empty": row.get("empty", False)} if isinstance(comparison.prompt.content, str) else {})


def _group(item: str, criterion: str) -> str:
    """Pairs of one item by one criterion share their weight; those by another one weigh for themselves."""
    return item if criterion == "preference" else f"{item}/{criterion}"


def _votes(pair: PairConsensus, said: Iterable[tuple[Judgment, Mapping[str, int]]]) -> dict[str, Any]:
    """How many labels order the pair, and the share of them that order it so; a tie counts half."""
    ranks = [(by[pair.first], by[pair.second]) for _, by in said if pair.first in by and pair.second in by]
    ahead = sum(1.0 if first < second else 0.5 if first == second else 0.0 for first, second in ranks)
    return {"num_labels": len(ranks), "agreement": ahead / len(ranks) if ranks else None}


def _made_by(criterion: str, judgments: Iterable[Judgment]) -> dict[str, Any]:
    made = list(judgments)
    return {
        "criterion": criterion,
        "instructions": sorted({one.instructions for one in made if one.instructions}),
        "rater_kinds": sorted({one.rater_kind for one in made}),
    }


def _answer(prompt: Prompt, text: str) -> dict[str, Any]:
    """An answer under the key `completion`, in the form that its prompt has."""
    if isinstance(prompt.content, str):
        return {"completion": text}
    return {"completion": [{"role": "assistant", "content": text}]}


def _unpaired(judged: Judged, flagged_as_rejected: bool, left_out: Counter[str]) -> Iterator[Made]:
    """Good and bad answers: by the labels of those that were judged by themselves, else by the pairs of their item."""
    told = {(label.criterion, label.completion) for label in judged.labels}
    others = [label for label in _by_pairs(judged) if (label.criterion, label.completion) not in told]
    left_out["unpaired: an answer that is neither 0 nor 1"] += _strange(judged.latest)
    for source, label in (*(("binary", one) for one in judged.labels), *(("pairs", one) for one in others)):
        prompt, text = judged.text(label.completion)
        flags = judged.flags.get(label.completion, ())
        if label.is_even or (source == "pairs" and TIED[0] <= label.p <= TIED[1]):
            left_out["unpaired: as good as bad"] += 1
        elif flags and not (flagged_as_rejected and not label.is_good and flags == ("gibberish",)):
            left_out["unpaired: flagged"] += 1
        else:
            row = unpaired_row(UnpairedPreference(prompt, text, label.is_good, p=label.p))
            row |= {"empty": row.get("empty", False)} if isinstance(prompt.content, str) else {}
            row |= {"num_labels": len(label.judgments), "decided": label.decided, "source": source}
            yield "unpaired", prompt, row | _made_by(label.criterion, label.judgments)


def _strange(latest: Iterable[Judgment]) -> int:
    """Judgments of yes and no whose answer is another number, as a file may have brought them."""
    asked = (one.values.get(one.criterion) for one in latest if one.kind == "binary")
    return sum(value not in (None, 0, 1) for value in asked)


def _by_pairs(judged: Judged) -> Iterator[Label]:
    """Of every completion, the mean probability that it is preferred to another one of its item."""
    for criterion, found in judged.found.items():
        chances: dict[tuple[str, str], list[float]] = {}
        for pair in found.pairs:
            chances.setdefault((pair.item, pair.first), []).append(pair.p)
            chances.setdefault((pair.item, pair.second), []).append(1 - pair.p)
        for (item, completion), won in sorted(chances.items()):
            judgments = [one for one, ranks in judged.said(criterion, item) if completion in ranks]
            decided = judged.settled(criterion, item) is not None
            yield Label(
                item=item,
                completion=completion,
                criterion=criterion,
                p=sum(won) / len(won),
                decided=decided,
                judgments=judgments,
            )


def _demonstrations(judged: Judged, left_out: Counter[str]) -> Iterator[Made]:
    """What raters wrote."""
    for one in judged.latest:
        if one.kind != "demonstration":
            continue
        prompt = judged.prompts.get(one.prompt)
        if prompt is None:
            left_out["demonstrations: the prompt is not known"] += 1
        elif not one.text.strip():
            left_out["demonstrations: empty"] += 1
        else:
            row = {"prompt": prompt.as_json(), **_answer(prompt, one.text), "rater_kind": one.rater_kind}
            yield "demonstrations", prompt, row | {"instructions": [one.instructions] if one.instructions else []}


def _add_transcript(rows: Rows, prompt: Prompt, row: Mapping[str, Any]) -> None:
    """A pair as two whole conversations; a plain prompt is one turn. Left out where it would not be read as written."""
    turns = (Message("user", prompt.content),) if isinstance(prompt.content, str) else prompt.content
    answers = (row[side] if isinstance(row[side], str) else row[side][0]["content"] for side in ("chosen", "rejected"))
    talks = [(*turns, Message("assistant", answer)) for answer in answers]
    try:
        written = [transcript(talk) for talk in talks]
        same = all(parse_transcript(text) == talk for text, talk in zip(written, talks, strict=True))
    except DataError:
        same = False
    if same and all(talk[-1].content.strip() for talk in talks):
        rows.add("transcripts", prompt, {"chosen": written[0], "rejected": written[1]})
    else:
        rows.left_out["transcripts: cannot be told from their turns"] += 1


def _trees(judged: Judged, left_out: Counter[str]) -> Iterator[Made]:
    """One tree for each item, its replies from the best to the worst score. Flagged ones did not pass review."""
    for criterion, found in judged.found.items():
        items: dict[str, set[str]] = {}
        for pair in found.pairs:
            items.setdefault(pair.item, set()).update((pair.first, pair.second))
        for item, members in sorted(items.items()):
            passed = [one for one in members if one not in judged.flags and one in judged.texts]
            best_first = sorted(passed, key=lambda one: (-found.scores[one][0], one))
            if len(best_first) < 2:
                left_out["trees: fewer than two replies without a flag"] += 1
                continue
            prompt = judged.texts[best_first[0]][0]
            replies = Candidates(prompt, tuple(judged.texts[one][1] for one in best_first))
            try:
                row = tree_row(_group(item, criterion), RankedReplies(replies, tuple(range(len(best_first)))))
            except DataError:
                left_out["trees: turns that a tree has no place for"] += 1
                continue
            yield "trees", prompt, row | {"criterion": criterion}
