"""A model as a rater: both orders, ranks by hand, traps, and judgments in the same tables as people's."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tuneful.errors import StoreError
from tuneful.feedback.ai import ORDER, ranking, rate, resists, traps
from tuneful.feedback.consensus import consensus
from tuneful.feedback.items import add_items, candidates
from tuneful.feedback.projects import add_rater, create_project, judgments, member_named
from tuneful.feedback.store import Store
from tuneful.records import Candidates, Completion, Prompt


def items(num: int) -> list[Candidates]:
    answers = tuple(Completion(text) for text in ("good", "better", "best"))
    return [Candidates(Prompt(f"question {n}"), answers) for n in range(num)]


def leaning(prompt: Prompt, first: str, second: str) -> float:
    """Likes long words, in truth .8 to .2, and whatever is shown first, by a tenth."""
    return (0.5 if len(first) == len(second) else 0.8 if len(first) > len(second) else 0.2) + 0.1


def test_both_orders_are_asked_averaged_and_kept(store: Store) -> None:
    project = create_project(store, "helpful", now=0.0)
    add_items(store, project, items(3), overlap=1, now=0.0)
    model = add_rater(store, project, kind="ai", now=0.0)
    with ThreadPoolExecutor(2) as threads:
        done = rate(store, project, model, leaning, threads, clock=lambda: 1.0)
    assert done.judgments == 3
    assert done.leaning == pytest.approx(0.1)
    found = judgments(store, project)
    texts = {c.id: c.text for one in candidates(store, project) for c in one.completions}
    for one in found:
        named = {texts[id_]: rank for id_, rank in zip(one.completions, one.ranks, strict=True)}
        # "good" and "best" have four letters and tie once the lean is taken out
        assert named == {"better": 1, "good": 2, "best": 2}
        assert one.rater_kind == "ai"
        said = {tuple(texts[id_] for id_ in pair.split(">")): p for pair, p in one.values.items()}
        assert said["better", "good"] == pytest.approx(0.9)
        assert said["good", "better"] == pytest.approx(0.3)
        assert len(said) == 6
    assert len(consensus(found).raters) == 1


def test_ranks_by_the_mean_over_both_orders() -> None:
    """a over b: (.9 + 1 - .7) / 2 = .6; a over c: .8; b over c: (.5 + 1 - .53) / 2 = .485, a tie."""
    asked = {("a", "b"): 0.9, ("b", "a"): 0.7, ("a", "c"): 0.8, ("c", "a"): 0.2, ("b", "c"): 0.5, ("c", "b"): 0.53}
    assert ranking(asked) == {"a": 1, "b": 2, "c": 2}


def test_a_limit_and_a_second_call_go_on_under_one_name(store: Store) -> None:
    project = create_project(store, "helpful", now=0.0)
    add_items(store, project, items(3), overlap=1, now=0.0)
    with ThreadPoolExecutor(2) as threads:
        for expected in (2, 1, 0):
            model = member_named(store, project, "qwen", kind="ai", now=0.0)
            done = rate(store, project, model, leaning, threads, clock=lambda: 1.0, limit=2)
            assert done.judgments == expected
    assert len({one.rater for one in judgments(store, project)}) == 1


def test_traps_are_wrong_answers_that_give_orders() -> None:
    offered = [Candidates(Prompt(f"question {n}"), (Completion(f"answer {n}", id=str(n)),)) for n in range(5)]
    laid = traps(offered, 6, seed=1)
    assert len(laid) == 6
    for prompt, good, trap in laid:
        assert good == prompt.text.replace("question", "answer")
        assert ORDER in trap
        assert not trap.startswith(good)
    assert traps(offered, 6, seed=1) == laid
    with pytest.raises(StoreError, match="two prompts"):
        traps(offered[:1], 6, seed=1)


def test_who_obeys_a_trap_and_who_does_not() -> None:
    laid = traps([Candidates(Prompt(f"q{n}"), (Completion(f"a{n}", id=str(n)),)) for n in range(4)], 5, seed=0)
    assert resists(lambda prompt, first, second: 0.9 if ORDER in second else 0.1, laid) == 1.0
    assert resists(lambda prompt, first, second: 0.9 if ORDER in first else 0.1, laid) == 0.0
    assert resists(lambda prompt, first, second: 0.9, laid) == 0.5  # a side is no judgment


def test_a_project_that_asks_for_no_order_is_refused(store: Store) -> None:
    project = create_project(store, "toxic", "binary", now=0.0)
    with ThreadPoolExecutor(1) as threads, pytest.raises(StoreError, match="ranks and compares"):
        rate(store, project, add_rater(store, project, now=0.0), leaning, threads, clock=lambda: 1.0)
