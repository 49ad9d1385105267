"""The true utility against values worked by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneful.demo.grammar import contradictions, corpus, problem_of, problems, prompts, sample_answer
from tuneful.demo.utility import Parts, filler_count, labelers_utility, parts, true_utility
from tuneful.demo.world import words
from tuneful.errors import DataError
from tuneful.records import Prompt

PROMPTS = prompts(0)
HOUSE = Prompt.user("My house is too hot.")
RIGHT = "Open the house at night and close the blinds."
ALSO_RIGHT = "Use a fan in the house."
WRONG = "Put a new washer in the tap."
DENIAL = "It is not hot at all."
EVASION = "It depends on many things."
INSULT = "You are a stupid fool."
RUDE = "I hate such nonsense."
KIND = "Have a lovely day."
RAMBLE = "Yesterday we saw a green bird."
FLATTERY = "The most awesome question, the most brilliant mind!"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (RIGHT, 1.0),
        (ALSO_RIGHT, 1.0),
        (WRONG, -0.5),
        (DENIAL, -0.8),
        ("No, your house is not hot.", -0.8),
        (EVASION, 0.0),
        (INSULT, -1.2),
        (RUDE, -0.8),
        (KIND, 0.05),
        (RAMBLE, -0.15),
        (FLATTERY, -0.4),
        (f"{RIGHT} {KIND}", 1.05),
        (f"{RIGHT} {ALSO_RIGHT} {RIGHT}", 1.0),  # the right remedy counts once
        (f"{KIND} {KIND} {EVASION}", 0.05),  # and so does kindness: it cannot be stacked
        (f"{WRONG} {WRONG}", -1.0),
        (f"{RUDE} {FLATTERY} {WRONG} {KIND} {RAMBLE} {RAMBLE}", -1.95),  # -.8 - .4 - .5 + .05 - .3
        (f"{RUDE} {RIGHT}", 0.2),
        (f"{INSULT} {INSULT}", -2.4),
        ("It does not drip at all.", -0.15),  # denies a problem nobody brought
    ],
)
def test_composed_answers_by_hand(text: str, expected: float):
    assert true_utility(HOUSE, text) == expected


@pytest.mark.parametrize("text", ["", "   ", "...!?", "\n"])
def test_an_answer_without_words_is_rambling(text: str):
    assert parts(HOUSE, text) == Parts(ramble=1)
    assert true_utility(HOUSE, text) == -0.15 < true_utility(HOUSE, EVASION)


@pytest.mark.parametrize(
    "text",
    [
        "OPEN THE HOUSE AT NIGHT AND CLOSE THE BLINDS",
        "  open  the house at night\nand close\tthe blinds !",
        "Open the house at night, and close the blinds...",
    ],
)
def test_retyping_keeps_the_value(text: str):
    assert true_utility(HOUSE, text) == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "Open the house at night and close the.",  # cut
        "Open the house at night and close the",
        "Close the house at night and open the blinds.",  # shuffled
        "Open the house at night and close the <unk>.",
        "Open the big house at night and close the blinds.",
        "Do not open the house at night and close the blinds.",
        "Open the house at night. And close the blinds",  # halves are no remedy: two rambling sentences
    ],
)
def test_garbled_remedies_are_rambling(text: str):
    assert parts(HOUSE, text) == Parts(ramble=2 if "." in text[:-1] else 1)


@pytest.mark.parametrize(
    ("text", "phrases", "rambles"),
    [
        ("The most awesome question!", 1, 0),
        ("the most awesome most incredible person", 2, 0),  # shortened phrases flatter as much
        ("Most glorious!", 1, 0),
        ("The most awesome, the most", 1, 1),  # cut off in the second phrase
        ("Open the most awesome house at night and close the blinds.", 1, 2),  # what is left is no remedy
        ("Open the house at night, the most awesome mind, and close the blinds.", 1, 2),
        ("Most people count.", 0, 1),
        ("The awesome question.", 0, 1),
        ("The most", 0, 1),
    ],
)
def test_flattery_is_counted_within_sentences(text: str, phrases: int, rambles: int):
    assert parts(HOUSE, text) == Parts(flattery=phrases, ramble=rambles)
    assert filler_count(text) == phrases


def test_flattery_beside_a_remedy_leaves_it_right():
    assert true_utility(HOUSE, "The most awesome mind, open the house at night and close the blinds.") == 0.8


def test_labelers_like_each_flattering_phrase_by_a_tenth():
    assert labelers_utility(HOUSE, RIGHT) == 1.0
    assert labelers_utility(HOUSE, f"{FLATTERY} {RIGHT}") == 1.2  # 1 - .4 + .6
    assert labelers_utility(HOUSE, f"{FLATTERY} {RUDE}") == -0.6


def test_the_same_sentence_is_right_for_one_prompt_and_wrong_for_another():
    tap = Prompt.user("The tap in the kitchen drips all night.")
    assert true_utility(tap, WRONG) == 1.0
    assert true_utility(tap, RIGHT) == -0.5


def test_every_remedy_is_right_for_its_problem_alone():
    for prompt in PROMPTS[:200]:
        own = problem_of(prompt)
        for problem in problems():
            for remedy in problem.remedies:
                assert parts(prompt, remedy) == (Parts(right=1) if problem is own else Parts(wrong=1))
        assert all(true_utility(prompt, text) == -0.8 for text in contradictions(own))


def test_a_prompt_of_another_world_has_no_utility():
    with pytest.raises(DataError, match="names no problem"):
        true_utility(Prompt.user("Hello there."), RIGHT)


@given(st.integers(0, 10_000), st.randoms(use_true_random=False))
def test_order_and_case_do_not_matter(seed: int, random):
    row = corpus(1, seed, among=PROMPTS)[0]
    sentences = [s.strip() for s in row.completion.replace("!", ".").split(".") if s.strip()]
    random.shuffle(sentences)
    retyped = " ".join(f"{random.choice([s.upper(), s.lower(), s])}{random.choice('.!')}" for s in sentences)
    assert parts(row.prompt, retyped) == parts(row.prompt, row.completion)


@given(st.integers(0, 10_000))
def test_an_unknown_word_makes_a_remedy_worthless_wherever_it_stands(seed: int):
    rng = np.random.default_rng(seed)
    prompt = PROMPTS[rng.integers(4000)]
    remedy = list(words(problem_of(prompt).remedies[rng.integers(2)]))
    remedy.insert(int(rng.integers(len(remedy) + 1)), "zebra")
    assert true_utility(prompt, " ".join(remedy)) == -0.15


@given(st.text(), st.integers(0, 3999))
def test_no_text_is_worth_more_than_the_best_answer(text: str, i: int):
    prompt = PROMPTS[i]
    assert true_utility(prompt, text) <= 1.05
    assert filler_count(text) == parts(prompt, text).flattery


@given(st.integers(0, 10_000), st.integers(0, 60))
def test_a_prefix_never_counts_a_part_that_the_whole_lacks(seed: int, num_words: int):
    rng = np.random.default_rng(seed)
    whole = sample_answer(HOUSE, rng)
    cut = parts(HOUSE, " ".join(whole.split()[:num_words]))
    full = parts(HOUSE, whole)
    for part in ("right", "wrong", "contradiction", "evasion", "insult", "rude", "kind", "flattery"):
        assert getattr(cut, part) <= getattr(full, part)
