from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tuneful.errors import DataError
from tuneful.feedback.votes import tabulate
from tuneful.records import Judgment


def ranking(id: str, ranks: tuple[int | None, ...], rater: str = "ann", item: str = "i") -> Judgment:  # noqa: A002
    completions = tuple(f"{item}-{k}" for k in range(len(ranks)))
    return Judgment(id=id, item=item, prompt=f"prompt {item}", completions=completions, rater=rater, ranks=ranks)


def test_a_ranking_as_pair_votes() -> None:
    votes = tabulate([ranking("1", (2, 1, 2))]).pair_votes()
    # pairs (0, 1), (0, 2), (1, 2): the second is better, a tie, the first is better
    assert votes.outcome.tolist() == [-1, 0, 1]
    assert votes.num_pairs == 3


def test_what_was_not_ranked_gives_no_vote() -> None:
    votes = tabulate([ranking("1", (2, None, 1)), ranking("2", (1, 2, 3), "ben")]).pair_votes()
    assert votes.outcome.tolist() == [-1, 1, 1, 1]
    assert votes.pair.tolist() == [1, 0, 1, 2]


def test_items_of_different_size_stand_in_blocks() -> None:
    votes = tabulate([ranking("1", (1, 2, 3), item="big"), ranking("2", (1, 2), item="small")])
    assert [block.items for block in votes.blocks] == [("small",), ("big",)]
    assert votes.pair_votes().pair.tolist() == [0, 1, 2, 3]


def test_a_completion_nobody_ranked_is_left_out() -> None:
    (block,) = tabulate([ranking("1", (2, None, 1))]).blocks
    assert block.completions == (("i-0", "i-2"),)


def test_only_the_last_revision_counts() -> None:
    first, last = ranking("1", (1, 2)), replace(ranking("2", (2, 1)), replaces="1")
    assert tabulate([last, first]).judgments == (last,)


def test_a_revision_may_take_back_a_ranking() -> None:
    rows = [ranking("1", (1, 2)), replace(ranking("2", (None, None)), replaces="1"), ranking("3", (1, 2), "ben")]
    assert [j.id for j in tabulate(rows).judgments] == ["3"]


def test_kinds_that_order_nothing_are_left_out() -> None:
    rating = replace(ranking("2", ()), kind="rating", completions=("i-0",), values={"score": 3})
    assert [j.id for j in tabulate([ranking("1", (1, 2)), rating]).judgments] == ["1"]


SURE = {"i-0>i-1": 0.9, "i-1>i-0": 0.7, "i-0>i-2": 0.8, "i-2>i-0": 0.2, "i-1>i-2": 0.5, "i-2>i-1": 0.53}


def soft(ranks: tuple[int | None, ...], values: dict[str, float] = SURE) -> Judgment:
    return replace(ranking("1", ranks), rater_kind="ai", values=values)


def test_a_model_s_vote_carries_the_mean_of_both_orders() -> None:
    """0 over 1: (.9 + 1 - .7) / 2 = .6; 0 over 2: (.8 + .8) / 2; 1 over 2: (.5 + .47) / 2, a tie by its ranks."""
    (block,) = tabulate([soft((1, 2, 2)), ranking("2", (1, 2, 3), "ben")]).blocks
    assert block.q[0].tolist() == pytest.approx([0.6, 0.8, 0.485])
    assert np.isnan(block.q[1]).all()


def test_pairs_of_a_completion_that_a_model_did_not_rank_carry_nothing() -> None:
    (block,) = tabulate([soft((1, None, 2)), ranking("2", (1, 2, 3), "ben")]).blocks
    assert np.isnan(block.q[0]).tolist() == [True, False, True]


@pytest.mark.parametrize(
    "judgment",
    [
        soft((1, 2, 3), {name: p for name, p in SURE.items() if name != "i-2>i-1"}),
        soft((1, 2, 3), SURE | {"i-0>i-1": 7.0}),
        soft((1, 2, 3), SURE | {"i-0>i-1": float("nan")}),
        replace(soft((1, 2, 3)), rater_kind="human"),
    ],
)
def test_a_vote_is_firm_without_all_probabilities_and_that_of_people_is(judgment: Judgment) -> None:
    (block,) = tabulate([judgment]).blocks
    assert np.isnan(block.q).all()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "there are none yet"),
        ([ranking("1", (1, None))], "none orders two completions"),
        ([ranking("1", (1, 2)), ranking("1", (2, 1))], '"1" comes twice'),
        ([ranking("1", (1, 2)), replace(ranking("2", (2, 1)), criterion="honest")], "several criteria"),
        ([ranking("1", (1, 2)), replace(ranking("2", (2, 1)), prompt="other")], 'has prompt "prompt i" and "other"'),
        ([ranking("1", (1, 2)), replace(ranking("2", (2, 1)), item="j", prompt="j")], 'stands in items "i" and "j"'),
        ([replace(ranking("1", (1, 2)), ranks=(1,))], "one rank or null"),
    ],
)
def test_what_cannot_be_counted_is_refused(rows: list[Judgment], message: str) -> None:
    with pytest.raises(DataError, match=message):
        tabulate(rows)
