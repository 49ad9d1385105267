"""A model as a rater: both orders, ranks by hand, traps, and judgments in the same tables as people's."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select, update

from tests.feedback.store.people import judge, project_of, within_overlap
from tuneful.errors import DataError, StoreError
from tuneful.feedback.ai import ORDER, ranking, rate, resists, traps
from tuneful.feedback.assignment import claim, skip, take
from tuneful.feedback.collected import collected, comparisons_in
from tuneful.feedback.consensus import consensus
from tuneful.feedback.gold import Gold
from tuneful.feedback.items import add_gold, add_items, candidates
from tuneful.feedback.overview import Agreed, agreement, overview
from tuneful.feedback.projects import add_rater, create_project, judgments, member_named, progress, set_quiz
from tuneful.feedback.quality import measure
from tuneful.feedback.quiz import trying
from tuneful.feedback.store import Store
from tuneful.feedback.submission import Said, submit
from tuneful.feedback.tables import judgment
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


def test_a_project_that_asks_for_no_order_is_refused_by_name(store: Store) -> None:
    project = create_project(store, "toxic", "binary", now=0.0)
    with ThreadPoolExecutor(1) as threads, pytest.raises(StoreError, match='project "toxic": asks for a 0/1 judgment'):
        rate(store, project, add_rater(store, project, kind="ai", now=0.0), leaning, threads, clock=lambda: 1.0)


def test_it_judges_by_the_project_s_own_criterion(store: Store) -> None:
    project, _ = project_of(store, 3)
    judge(store, project, ranks=(1, 2, 3), criterion=None)
    with ThreadPoolExecutor(2) as threads:
        rate(store, project, add_rater(store, project, kind="ai", now=0.0), leaning, threads, clock=lambda: 1.0)
    said = judgments(store, project)
    assert {one.criterion for one in said} == {"helpful"}
    assert len(consensus(said).raters) == 2


def test_judgments_by_another_criterion_are_left_out_and_told_or_asked_for(store: Store) -> None:
    """As older versions stored a model's, whatever the project asked."""
    project, _ = project_of(store, 3)
    judge(store, project, ranks=(1, 2, 3), criterion=None)
    model = add_rater(store, project, kind="ai", now=0.0)
    with ThreadPoolExecutor(2) as threads:
        rate(store, project, model, leaning, threads, clock=lambda: 1.0, limit=2)
    store.write(lambda c: c.execute(update(judgment).where(judgment.c.rater == model).values(criterion="preference")))
    told = '3 judgments are by "helpful"; left out: 2 by "preference"'
    own, others = collected(store, project), collected(store, project, criterion="preference")
    assert own.left_out == told
    assert {one.rater_kind for one in own.judgments} == {"human"}
    assert len(comparisons_in(own)) == 9
    assert {one.rater for one in others.judgments} == {model}
    seen = agreement(store, project)
    assert (seen.problem, seen.left_out, seen.judgments) == ("", told, 3)
    with pytest.raises(DataError, match='"helpfull": nobody judged by it; did you mean "helpful"'):
        collected(store, project, criterion="helpfull")


def test_a_judgment_by_a_criterion_that_is_not_asked_for_is_refused(store: Store) -> None:
    project, _ = project_of(store, 1)
    with pytest.raises(StoreError, match='by "preference", and its project asks by "helpful"'):
        judge(store, project, ranks=(1, 2, 3), criterion="preference")
    assert judgments(store, project) == []


def test_a_finished_project_is_judged_with_its_gold_items_and_is_as_finished_as_before(store: Store) -> None:
    project, made = project_of(store, 3, overlap=1)
    judge(store, project, ranks=(1, 2, 3))
    known = Candidates(Prompt("known"), tuple(Completion(text) for text in ("long", "longer")))
    (gold,) = add_gold(store, project, [Gold(known, ranks=(2, 1))], now=0.0)
    set_quiz(store, project, quiz=1, now=0.0)  # a model has none to pass
    before, steps = progress(store, project), list[tuple[int, int]]()
    model = add_rater(store, project, kind="ai", now=0.0)
    with ThreadPoolExecutor(2) as threads:
        done = rate(
            store,
            project,
            model,
            leaning,
            threads,
            clock=lambda: 1.0,
            on_progress=lambda *step: steps.append(step),
        )
    assert {one.item for one in judgments(store, project) if one.rater == model} == {*made, gold}
    assert done.judgments == 4
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert progress(store, project) == before
    assert model not in trying(store, project)
    assert len(within_overlap(store, project)) == 3
    (card,) = (one for one in measure(store, project, now=2.0).cards if one.rater == model)
    assert card.gold is not None
    assert card.gold.value == 1


def test_people_s_places_are_left_to_people(store: Store) -> None:
    project, made = project_of(store, 3, overlap=1)
    model = add_rater(store, project, kind="ai", now=0.0)
    assert take(store, made[0], model, now=1.0) is not None  # in the model's hands, and free all the same
    first = claim(store, project, add_rater(store, project, now=1.0), now=1.0)
    assert first is not None
    assert first.item == made[0]
    skip(store, first.id, first.rater)
    with ThreadPoolExecutor(2) as threads:
        assert rate(store, project, model, leaning, threads, clock=lambda: 2.0).judgments == 3
    assert progress(store, project).have == 0
    person = judge(store, project, ranks=(1, 2, 3))
    assert {rater for _, rater in within_overlap(store, project)} == {person}
    assert progress(store, project).done == 3


def test_what_a_judge_left_by_an_error_is_its_first_item_the_next_time(store: Store) -> None:
    project, made = project_of(store, 2)
    model = add_rater(store, project, kind="ai", now=0.0)

    def broken(prompt: Prompt, first: str, second: str) -> float:
        raise OSError("no answer")

    with ThreadPoolExecutor(1) as threads:
        with pytest.raises(OSError, match="no answer"):
            rate(store, project, model, broken, threads, clock=lambda: 1.0)
        assert rate(store, project, model, leaning, threads, clock=lambda: 9e9, limit=1).judgments == 1
    assert [one.item for one in judgments(store, project)] == made[:1]
    with store.read() as connection:
        assert [*connection.execute(select(judgment.c.late, judgment.c.counted))] == [(False, False)]


def test_a_model_claims_nothing_and_a_person_takes_nothing(store: Store) -> None:
    project, made = project_of(store, 1)
    with pytest.raises(StoreError, match="takes no place"):
        claim(store, project, add_rater(store, project, kind="ai", now=0.0), now=1.0)
    with pytest.raises(StoreError, match="is no model"):
        take(store, made[0], add_rater(store, project, now=0.0), now=1.0)


def test_the_time_left_is_told_by_people_s_pace(store: Store) -> None:
    project, _ = project_of(store, 4, overlap=1)
    person = add_rater(store, project, now=0.0)
    for at in (100.0, 160.0):  # a minute between them, and two items are left
        given = claim(store, project, person, now=at)
        assert given is not None
        submit(store, given.id, person, Said(id=f"{at}", ranks=(1, 2, 3), flags={}, values={}), now=at)
    model = add_rater(store, project, kind="ai", now=0.0)
    with ThreadPoolExecutor(1) as threads:
        rate(store, project, model, leaning, threads, clock=lambda: 161.0)
    assert overview(store, project, Agreed()).seconds_left == 120
