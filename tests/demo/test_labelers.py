import json
import re
from collections import Counter
from dataclasses import asdict
from datetime import datetime
from itertools import combinations, permutations
from math import exp
from uuid import UUID

import numpy as np
import pytest
from scipy.stats import chisquare

from tuneful.demo.grammar import corpus, prompts, sample_answer
from tuneful.demo.labelers import (
    GUIDE,
    POPULATION,
    Labeler,
    Simulation,
    fresh_label,
    noise_scale,
    pair_agreement,
    simulate,
)
from tuneful.demo.utility import labelers_utility, true_utility
from tuneful.errors import ConfigError, DataError
from tuneful.records import Candidates, Completion, Prompt

HOUSE = Prompt.user("My house is too hot.")
EVASION, RIGHT, DENIAL = (
    "That is hard to say.",
    "Open the house at night and close the blinds.",
    "It is not hot at all.",
)


def make_candidates(num_items: int, seed: int) -> list[Candidates]:
    rng = np.random.default_rng(seed)
    return [
        Candidates(p, tuple(Completion(sample_answer(p, rng), id=f"c{i}-{k}") for k in range(4)))
        for i, p in enumerate(prompts(0)[:num_items])
    ]


@pytest.fixture(scope="module")
def candidates() -> list[Candidates]:
    return make_candidates(800, seed=1)


@pytest.fixture(scope="module")
def simulation(candidates: list[Candidates]) -> Simulation:
    return simulate(candidates, seed=0)


@pytest.fixture(scope="module")
def base_pairs() -> list[tuple[Prompt, str, str]]:
    """Pairs of base answers to one prompt that differ in V."""
    rng = np.random.default_rng(17)
    asked = prompts(2) * 8
    pairs = ((p, sample_answer(p, rng), sample_answer(p, rng)) for p in asked)
    return [(p, a, b) for p, a, b in pairs if labelers_utility(p, a) != labelers_utility(p, b)]


def agreement_with_v(candidates: list[Candidates], simulation: Simulation) -> dict[str, float]:
    """For each rater the share of pairs of different V that he put in V's order."""
    texts = {c.id: c.text for item in candidates for c in item.completions}
    prompt_of = {item.prompt.id: item.prompt for item in candidates}
    hits: dict[str, list[bool]] = {rater: [] for rater in simulation.kinds}
    for judgment in simulation.judgments:
        prompt = prompt_of[judgment.prompt]
        v = [labelers_utility(prompt, texts[c]) for c in judgment.completions]
        for i, j in combinations(range(4), 2):
            if v[i] != v[j]:
                hits[judgment.rater].append((v[i] > v[j]) == (judgment.ranks[i] < judgment.ranks[j]))
    return {rater: float(np.mean(right)) for rater, right in hits.items()}


def test_pair_agreement_by_hand():
    # One pair, difference ln 3, tau 1: p = 3/4, so 9/16 + 1/16 = 5/8.
    assert pair_agreement(np.array([0.0, np.log(3)]), np.array([1, 1]), 1.0) == pytest.approx(0.625)
    # Utilities 0, 0, ln 3, 2 ln 3: two pairs with p = 3/4, two with 9/10 (.81 + .01 = .82), one with 3/4 again.
    values, counts = np.array([0.0, np.log(3), 2 * np.log(3)]), np.array([2, 1, 1])
    assert pair_agreement(values, counts, 1.0) == pytest.approx((3 * 0.625 + 2 * 0.82) / 5)


def test_two_careful_labelers_agree_on_73_percent(base_pairs: list[tuple[Prompt, str, str]]):
    rng = np.random.default_rng(5)
    one, two = Labeler("one", "careful"), Labeler("two", "careful")
    same = [one.rank(p, [a, b], rng) == two.rank(p, [a, b], rng) for p, a, b in base_pairs]
    assert np.mean(same) == pytest.approx(0.73, abs=0.01)
    assert noise_scale() == pytest.approx(0.5, abs=0.05)


def test_one_careful_labeler_is_right_on_81_percent(base_pairs: list[tuple[Prompt, str, str]]):
    rng = np.random.default_rng(6)
    right = [fresh_label(p, a, b, rng) == (labelers_utility(p, a) > labelers_utility(p, b)) for p, a, b in base_pairs]
    assert np.mean(right) == pytest.approx(0.81, abs=0.01)


def test_a_careful_ranking_is_plackett_luce():
    texts = [EVASION, RIGHT, DENIAL]
    weight = [exp(v / noise_scale()) for v in (0.0, 1.0, -0.8)]
    rng = np.random.default_rng(0)
    seen = Counter(Labeler("x", "careful").rank(HOUSE, texts, rng) for _ in range(6000))
    expected, found = [], []
    for order in permutations(range(3)):  # best first: w_a / sum, then w_b / (w_b + w_c)
        a, b, c = (weight[i] for i in order)
        expected.append(6000 * a / (a + b + c) * b / (b + c))
        found.append(seen[tuple(order.index(i) + 1 for i in range(3))])
    assert chisquare(found, expected).pvalue > 1e-3


def test_a_hot_house_is_ranked_two_one_three_most_often():
    rng = np.random.default_rng(0)
    seen = Counter(Labeler("x", "careful").rank(HOUSE, [EVASION, RIGHT, DENIAL], rng) for _ in range(500))
    assert seen.most_common(1)[0][0] == (2, 1, 3)


@pytest.mark.parametrize(
    ("kind", "difference"),
    [("careful", 1.8), ("hasty", 0.9), ("random", 0.0), ("upside-down", -1.8), ("tone-only", 0.0)],
)
def test_each_kind_prefers_as_it_should(kind, difference: float):
    # V is 1 for the remedy and -.8 for the denial; neither has a tone.
    rng = np.random.default_rng(2)
    wins = sum(Labeler("x", kind).rank(HOUSE, [RIGHT, DENIAL], rng) == (1, 2) for _ in range(4000))
    p = 1 / (1 + exp(-difference / noise_scale()))
    assert chisquare([wins, 4000 - wins], [4000 * p, 4000 * (1 - p)]).pvalue > 1e-3


def test_tone_only_hears_the_tone_and_nothing_else():
    rng = np.random.default_rng(2)
    rude = f"I hate such nonsense. {RIGHT}"
    wins = sum(Labeler("x", "tone-only").rank(HOUSE, [rude, DENIAL], rng) == (1, 2) for _ in range(4000))
    p = 1 / (1 + exp(0.8 / noise_scale()))
    assert chisquare([wins, 4000 - wins], [4000 * p, 4000 * (1 - p)]).pvalue > 1e-3


@pytest.mark.parametrize("kind", sorted(set(POPULATION)))
def test_the_same_text_ties_with_itself_and_ranks_leave_no_gap(kind):
    rng = np.random.default_rng(4)
    for _ in range(50):
        ranks = Labeler("x", kind).rank(HOUSE, [RIGHT, DENIAL, RIGHT, EVASION], rng)
        assert ranks[0] == ranks[2]
        assert sorted(set(ranks)) == [1, 2, 3]


def test_the_stored_order_is_no_input():
    texts = [EVASION, RIGHT, DENIAL]
    for seed in range(20):
        forth = Labeler("x", "hasty").rank(HOUSE, texts, np.random.default_rng(seed))
        back = Labeler("x", "hasty").rank(HOUSE, texts[::-1], np.random.default_rng(seed))
        assert forth == back[::-1]


def test_the_load_is_equal_and_no_item_meets_a_rater_twice(simulation: Simulation):
    assert len(simulation.judgments) == 2400
    assert set(Counter(j.rater for j in simulation.judgments).values()) == {240}
    assert set(Counter(j.item for j in simulation.judgments).values()) == {3}
    assert len({(j.item, j.rater) for j in simulation.judgments}) == 2400


def test_every_pair_of_raters_meets(simulation: Simulation):
    raters: dict[str, list[str]] = {}
    for judgment in simulation.judgments:
        raters.setdefault(judgment.item, []).append(judgment.rater)
    meetings = Counter(pair for group in raters.values() for pair in combinations(sorted(group), 2))
    assert len(meetings) == 45
    assert min(meetings.values()) > 25  # 53 on average


def test_judgments_are_complete_and_say_nothing_of_kinds(candidates: list[Candidates], simulation: Simulation):
    told = json.dumps([asdict(j) for j in simulation.judgments])
    assert not any(kind in told for kind in ("careful", "hasty", "random", "upside", "tone"))
    ids = {item.prompt.id: tuple(c.id for c in item.completions) for item in candidates}
    assert len({j.id for j in simulation.judgments}) == 2400
    for judgment in simulation.judgments:
        assert UUID(judgment.id).version == 4
        assert re.fullmatch(r"rater-(0[1-9]|10)", judgment.rater)
        assert judgment.rater_kind == "simulated"
        assert judgment.kind == "ranking"
        assert judgment.completions == ids[judgment.prompt]
        assert len(judgment.ranks) == 4
        assert set(judgment.shown_order) == set(judgment.completions)
        assert judgment.seconds is not None
        assert 1 < judgment.seconds < 300
        assert datetime.fromisoformat(judgment.created_at).tzinfo is not None
    assert len({j.shown_order != j.completions for j in simulation.judgments}) == 2


def test_ids_are_dealt_out_anew_by_each_seed_and_a_seed_repeats(candidates: list[Candidates]):
    few = candidates[:20]
    dealt = [simulate(few, seed=seed).kinds for seed in range(8)]
    assert all(Counter(kinds.values()) == Counter(POPULATION) for kinds in dealt)
    assert len({next(rater for rater, kind in kinds.items() if kind == "random") for kinds in dealt}) > 3
    assert simulate(few, seed=3) == simulate(few, seed=3)
    assert simulate(few, seed=3).judgments != simulate(few, seed=4).judgments


def test_kinds_differ_in_how_often_they_are_right(candidates: list[Candidates], simulation: Simulation):
    right = agreement_with_v(candidates, simulation)
    for rater, kind in simulation.kinds.items():  # about 1,380 pairs a rater: four standard errors are .05
        low, high = {
            "careful": (0.76, 0.86),
            "hasty": (0.65, 0.76),
            "random": (0.44, 0.56),
            "upside-down": (0.14, 0.24),
            "tone-only": (0.60, 0.74),
        }[kind]
        assert low < right[rater] < high, (rater, kind)


def test_a_population_of_random_labelers_knows_nothing(candidates: list[Candidates]):
    control = simulate(candidates, seed=0, population=10 * ("random",))
    right = agreement_with_v(candidates, control)
    assert set(control.kinds.values()) == {"random"}
    assert np.mean(list(right.values())) == pytest.approx(0.5, abs=0.02)


def test_a_fresh_labeler_has_no_favourite_of_two_equal_answers():
    rng = np.random.default_rng(0)
    assert np.mean([fresh_label(HOUSE, RIGHT, RIGHT, rng) for _ in range(2000)]) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("number", [0, 11])
def test_more_labelers_per_item_than_there_are_is_refused(candidates: list[Candidates], number: int):
    with pytest.raises(ConfigError, match=rf"labelers_per_item = {number}"):
        simulate(candidates[:1], labelers_per_item=number, seed=0)


def test_completions_without_ids_are_refused():
    item = Candidates(HOUSE, (Completion(RIGHT), Completion(DENIAL)))
    with pytest.raises(DataError, match="My house is too hot"):
        simulate([item], seed=0)


def test_noise_is_solved_on_other_answers_than_those_labeled():
    values, counts = np.unique(
        [labelers_utility(r.prompt, r.completion) for r in corpus(8000, 123)], return_counts=True
    )
    assert pair_agreement(values, counts, noise_scale()) == pytest.approx(0.73, abs=0.01)


def test_what_people_are_told_puts_answers_in_the_order_of_the_true_utility() -> None:
    (question,) = re.findall(r"an answer to “(.+?)”", GUIDE)
    examples = re.findall(r"^\| \d \| “(.+?)” \|", GUIDE, re.MULTILINE)
    values = [true_utility(Prompt.user(question), answer) for answer in examples]
    assert values == [1.0, 0.0, -0.5, -0.8, -1.2]
