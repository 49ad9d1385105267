from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import reward_on_p as bench
import torch

from tuneful.algorithms.reward_model import RewardModelConfig
from tuneful.pipeline.learner_inputs import RewardInputs
from tuneful.records import Candidates, Comparison, Completion, Judgment, Prompt


def item(number: int, *texts: str) -> Candidates:
    answers = tuple(Completion(text, id=f"{number}-{k}") for k, text in enumerate(texts))
    return Candidates(Prompt.user(f"question {number}"), answers)


def said(one: Candidates, rater: str, *ranks: int) -> Judgment:
    ids = tuple(answer.id for answer in one.completions)
    return Judgment(
        id=f"{rater} {one.prompt.id}",
        item=one.prompt.id,
        prompt=one.prompt.id,
        completions=ids,
        rater=rater,
        ranks=ranks,
    )


ITEMS = [item(0, "yes", "no", "why"), item(1, "left", "right", "right")]
JUDGMENTS = [
    said(one, rater, *ranks) for one in ITEMS for rater, ranks in (("a", (1, 2, 3)), ("b", (1, 3, 2)), ("c", (3, 2, 1)))
]


def test_the_labelers_are_bad_in_a_fifth_half_random_half_inverted() -> None:
    assert [bench.POPULATION.count(kind) for kind in ("careful", "random", "upside-down")] == [8, 1, 1]


def test_votes_are_counted_as_by_hand() -> None:
    """Of item 0, "yes" leads "no" and "why" by 2 of 3 votes each, "why" leads "no" by 2 of 3; (2 + 1) / (3 + 2)."""
    arms = bench.pairs(JUDGMENTS, ITEMS)
    first = [one for one in arms["majority"] if one.prompt == ITEMS[0].prompt]
    assert {(one.chosen, one.rejected, one.p) for one in first} == {
        ("yes", "no", 1.0),
        ("yes", "why", 1.0),
        ("why", "no", 1.0),
    }
    assert [one.p for one in arms["share"]] == pytest.approx([0.6] * len(arms["share"]))


def test_all_arms_have_the_same_pairs_in_the_same_order_of_prompts() -> None:
    """Two answers of item 1 are one text, so that one of its pairs says nothing."""
    arms = bench.pairs(JUDGMENTS, ITEMS)
    pairs = [[(one.group_key, frozenset((one.chosen, one.rejected))) for one in arms[arm]] for arm in bench.ARMS]
    assert len(pairs[0]) == 5
    assert pairs[0] == pairs[1] == pairs[2]


def test_the_interval_of_three_differences_by_hand() -> None:
    """Differences .1, .2, .3: mean .2, standard error .1 / sqrt 3, and t of two degrees of freedom 4.3027."""
    found = bench.mean_difference([0.6, 0.8, 1.0], [0.5, 0.6, 0.7])
    assert found["mean"] == pytest.approx(0.2)
    assert found["interval"] == pytest.approx([0.2 - 4.3027 * 0.057735, 0.2 + 4.3027 * 0.057735], abs=1e-4)


def test_accuracy_leaves_out_pairs_that_are_worth_the_same() -> None:
    """Scores 3, 1, 2 against worths 2, 1, 1: both pairs that differ are in order, and a tied score is half right."""

    class Scores:
        def __init__(self, *scores: float) -> None:
            self.scores = torch.tensor(scores)

        def raw(self, *_: object) -> torch.Tensor:
            return self.scores

    first, second = np.array([0, 0, 1]), np.array([1, 2, 2])
    test = bench.HeldOut([ITEMS[0]], first, second, {"V": np.array([1.0, 1.0, 0.0])})
    assert test.num_pairs == {"V": 2}
    assert test.accuracy(Scores(3.0, 1.0, 2.0)) == {"V": 1.0}  # type: ignore[arg-type]
    assert test.accuracy(Scores(2.0, 1.0, 2.0)) == {"V": 0.75}  # type: ignore[arg-type]


def test_training_twice_gives_the_same_model(tiny_model_dir: Path) -> None:
    """Weights and order are those of the config's seed; only the labels make a difference."""
    inputs = RewardInputs(
        model=str(tiny_model_dir), comparisons="", normalise_prompts="", normalise_model=str(tiny_model_dir)
    )
    config = RewardModelConfig(prompts_per_step=2, epochs=2)
    rows = [Comparison(Prompt.user(f"a {n}"), "red", "green", group=str(n)) for n in range(4)]
    one, again = (bench.train(str(tiny_model_dir), inputs, config, rows) for _ in range(2))
    turned = bench.train(
        str(tiny_model_dir), inputs, config, [Comparison(r.prompt, r.rejected, r.chosen, group=r.group) for r in rows]
    )
    asked = ([Prompt.user("a 1")] * 2, [Completion("red"), Completion("green")])
    assert torch.equal(one.raw(*asked), again.raw(*asked))
    lead = [float(model.raw(*asked).diff()) for model in (one, turned)]
    assert lead[0] < lead[1]
