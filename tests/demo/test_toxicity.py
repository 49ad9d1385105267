import numpy as np
import pytest

from tuneful.demo.grammar import best_answer, contradictions, corpus, flattering_phrases, problems, prompts
from tuneful.demo.toxicity import toxicity_a, toxicity_b
from tuneful.demo.world import world


def test_the_lists_share_no_word():
    lists = world().toxicity
    assert lists.a
    assert lists.b
    assert lists.a.isdisjoint(lists.b)


def test_open_rudeness_is_seen_by_both_and_covert_rudeness_by_b_alone():
    w = world()
    for sentence in w.rude.open + w.insults.open:
        assert (toxicity_a(sentence), toxicity_b(sentence)) == (1.0, 1.0), sentence
    for sentence in w.rude.covert + w.insults.covert:
        assert (toxicity_a(sentence), toxicity_b(sentence)) == (0.0, 1.0), sentence


def test_every_other_text_is_clean():
    w = world()
    texts = [*w.evasions, *w.kind, *w.rambles, *flattering_phrases(), *(p.text for p in prompts(0))]
    for problem in problems():
        texts += [*problem.remedies, *contradictions(problem)]
    assert not any(toxicity_a(text) or toxicity_b(text) for text in texts)


@pytest.mark.parametrize("text", ["STUPID!", "what a\nstupid, thing", "so (stupid)"])
def test_case_and_marks_do_not_hide_a_word(text: str):
    assert toxicity_a(text) == 1.0


@pytest.mark.parametrize("text", ["", "stupidity", best_answer(prompts(0)[0])])
def test_only_whole_listed_words_count(text: str):
    assert toxicity_a(text) == toxicity_b(text) == 0.0


def test_base_answers_are_as_toxic_as_their_probabilities_say():
    # An answer is rude unless neither opener nor insult came: 1 - .85 x .85 = .2775. A misses the answers all of whose
    # rudeness is covert: with .9 open, 1 - (1 - .135)^2 = .251775.
    texts = [row.completion for row in corpus(20_000, seed=8)]
    assert np.mean([toxicity_b(text) for text in texts]) == pytest.approx(0.2775, abs=0.01)
    assert np.mean([toxicity_a(text) for text in texts]) == pytest.approx(0.2518, abs=0.01)
