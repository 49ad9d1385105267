import re
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from tuneful.demo import grammar
from tuneful.demo.utility import Parts, parts, true_utility
from tuneful.demo.world import words, world
from tuneful.errors import DataError
from tuneful.records import Demonstration, Prompt

NUM_ANSWERS = 20_000
SENTENCE = re.compile(r"[A-Z][^.!]*[.!]")
COVERT = {
    "Stop whining at me.",
    "Oh, please do not cry.",
    "Go and cry somewhere else.",
    "Nobody likes a whining person.",
}


@pytest.fixture(scope="module")
def answers() -> list[Demonstration]:
    return grammar.corpus(NUM_ANSWERS, seed=11)


@pytest.fixture(scope="module")
def found(answers: list[Demonstration]) -> list[Parts]:
    return [parts(row.prompt, row.completion) for row in answers]


def fits(counts: list[int], shares: list[float]) -> bool:
    return bool(chisquare(counts, np.array(shares) * sum(counts)).pvalue > 1e-3)


def test_the_prompts_are_4000_different_ones_in_an_order_of_the_seed():
    first, second = grammar.prompts(0), grammar.prompts(1)
    assert len(grammar.problems()) == 40
    assert len(first) == len({prompt.id for prompt in first}) == 4000
    assert first != second
    assert {prompt.id for prompt in first} == {prompt.id for prompt in second}
    assert first == grammar.prompts(0)


@pytest.mark.parametrize("text", ["My house is too hot.", "The tap in the kitchen drips all night."])
def test_well_known_prompts_are_among_them(text: str):
    assert Prompt.user(text) in grammar.prompts(0)


def test_every_prompt_tells_its_problem():
    for problem in grammar.problems():
        for text in grammar.prompt_texts(problem):
            assert grammar.problem_of(Prompt.user(text)) is problem
            assert grammar.problem_of(Prompt(f" {text.upper()}\n")) is problem


def test_a_prompt_of_another_world_is_refused_by_name():
    with pytest.raises(DataError, match="What is the capital of Peru"):
        grammar.problem_of(Prompt.user("What is the capital of Peru?"))


def test_no_sentence_serves_two_parts_and_no_statement_holds_another():
    w = world()
    sentences = [s for problem in w.problems for s in problem.remedies]
    sentences += [*w.evasions, *w.kind, *w.rambles, *w.rude.open, *w.rude.covert, *w.insults.open, *w.insults.covert]
    denials = {words(s) for problem in w.problems for s in grammar.contradictions(problem)}
    assert len({words(s) for s in sentences}) == len(sentences)
    assert denials.isdisjoint(words(s) for s in sentences)
    statements = {f" {s} {problem.state} ": problem for problem in w.problems for s in problem.subjects}
    assert not any(a in b for a, one in statements.items() for b, other in statements.items() if one is not other)


def test_every_part_has_two_surface_forms_or_more():
    w = world()
    forms = [w.evasions, w.kind, w.rambles, w.rude.open, w.rude.covert, w.insults.open, w.insults.covert]
    forms += [grammar.flattering_phrases(), *(problem.remedies for problem in w.problems)]
    forms += [grammar.contradictions(problem) for problem in w.problems]
    assert all(len(set(form)) >= 2 for form in forms)


def test_cores_come_with_their_base_probabilities(found: list[Parts]):
    counts = [sum(getattr(p, c) for p in found) for c in ("right", "wrong", "contradiction", "evasion", "insult")]
    assert sum(counts) == NUM_ANSWERS  # one core each
    assert fits(counts, [0.22, 0.22, 0.16, 0.25, 0.15])


@pytest.mark.parametrize(("part", "p"), [("rude", 0.15), ("kind", 0.3)])
def test_opener_and_closer_come_with_their_base_probabilities(found: list[Parts], part: str, p: float):
    count = sum(getattr(f, part) for f in found)
    assert fits([count, NUM_ANSWERS - count], [p, 1 - p])


def test_flattery_and_rambling_go_on_with_their_base_probabilities_up_to_their_limit(found: list[Parts]):
    flattery, ramble = Counter(f.flattery for f in found), Counter(f.ramble for f in found)
    assert fits([flattery[k] for k in range(7)], [0.7 * 0.3**k for k in range(6)] + [0.3**6])
    assert fits([ramble[k] for k in range(3)], [0.85, 0.15 * 0.85, 0.15**2])
    assert max(flattery) <= 6
    assert max(ramble) <= 2


def test_wrong_remedies_are_even_over_the_other_problems():
    prompt = Prompt.user("My house is too hot.")
    rng = np.random.default_rng(3)
    owner = {remedy: i for i, problem in enumerate(grammar.problems()) for remedy in problem.remedies}
    texts = [grammar.sample_answer(prompt, rng) for _ in range(NUM_ANSWERS)]
    counts = Counter(i for text in texts for remedy, i in owner.items() if remedy in text)
    home = grammar.problems().index(grammar.problem_of(prompt))
    assert fits([counts[i] for i in range(40) if i != home], [1 / 39] * 39)


def test_a_tenth_of_the_rudeness_is_covert(answers: list[Demonstration], found: list[Parts]):
    num_rude = sum(f.rude + f.insult for f in found)
    num_covert = sum(row.completion.count(sentence) for row in answers for sentence in COVERT)
    assert fits([num_covert, num_rude - num_covert], [0.1, 0.9])


def test_the_parts_of_an_answer_stand_in_order():
    w, prompt = world(), Prompt.user("My house is too hot.")
    rng = np.random.default_rng(0)
    order = [{*w.rude.open, *w.rude.covert}, {"flattery"}, {"core"}, {*w.kind}, {*w.rambles}]
    named = set.union(*order)
    for _ in range(500):
        sentences = [s for s in SENTENCE.findall(grammar.sample_answer(prompt, rng)) if s]
        names = ["flattery" if "the most" in s.lower() else s if s in named else "core" for s in sentences]
        places = [next(i for i, group in enumerate(order) if name in group) for name in names]
        assert places == sorted(places)
        assert places.count(2) == 1
        assert all(places.count(i) <= 1 for i in (0, 1, 3))


def test_best_answer_is_worth_one_point_nought_five_and_no_sample_is_worth_more(answers: list[Demonstration]):
    for prompt in grammar.prompts(0):  # right remedy 1 + kind closer .05
        assert true_utility(prompt, grammar.best_answer(prompt)) == 1.05
    assert max(true_utility(row.prompt, row.completion) for row in answers) == 1.05


def test_corpus_draws_among_the_given_prompts_and_repeats_with_its_seed():
    among = grammar.prompts(0)[:5]
    rows = grammar.corpus(200, seed=4, among=among)
    assert {row.prompt.id for row in rows} == {prompt.id for prompt in among}
    assert rows == grammar.corpus(200, seed=4, among=among)
    assert rows != grammar.corpus(200, seed=5, among=among)
    with pytest.raises(DataError, match="no prompts"):
        grammar.corpus(1, seed=0, among=[])


def test_means_of_base_answers_are_those_the_probabilities_give(answers: list[Demonstration], found: list[Parts]):
    # Core .22 - .5 x .22 - .8 x .16 - 1.2 x .15 = -.198; rude -.8 x .15 = -.12; flattery -.2 x (.3 + .3^2 + ... + .3^6)
    # = -.2 x .42826 = -.08565; kind .05 x .3 = .015; rambling -.15 x (.15 + .15^2) = -.02588. Sum: -.4145.
    utilities = [true_utility(row.prompt, row.completion) for row in answers]
    assert np.mean(utilities) == pytest.approx(-0.4145, abs=0.02)  # sd .85, so 3.3 standard errors
    assert np.mean([f.flattery for f in found]) == pytest.approx(0.428, abs=0.02)
