"""Win rates worked by hand, and what must hold of them."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tuneful.errors import DataError
from tuneful.feedback.access import accept, invite
from tuneful.feedback.assignment import claim
from tuneful.feedback.consensus import Consensus, PairConsensus, consensus
from tuneful.feedback.gold import Gold
from tuneful.feedback.items import add_gold, add_items
from tuneful.feedback.pages import asked_of
from tuneful.feedback.projects import create_project
from tuneful.feedback.recording import record
from tuneful.feedback.store import Store
from tuneful.feedback.submission import Said, submit
from tuneful.feedback.win_rates import WinRate, models_judged, win_rates, win_rates_of
from tuneful.records import Candidates, Completion, Judgment, Prompt

MODELS = {f"{model}{n}": model for model in "ABC" for n in range(100)}


def said(
    item: int, ranks: Sequence[int | None], *, by: str = "bo", models: str = "AB", prompt: int | None = None
) -> Judgment:
    return Judgment(
        id=f"{by} {item} {models}",
        item=str(item),
        prompt=str(item if prompt is None else prompt),
        completions=tuple(f"{model}{item}" for model in models),
        rater=by,
        kind="ranking",
        ranks=tuple(ranks),
    )


def agreed(*pairs: tuple[int, str, str, float]) -> Consensus:
    """A consensus of pairs (prompt, first model, second model, p)."""
    made = tuple(
        PairConsensus(str(n), str(n), f"{one}{n}", f"{other}{n}", sd=1.0, p=p, confidence=0.9, weight=1.0)
        for n, one, other, p in pairs
    )
    return Consensus(pairs=made, raters=(), scores={}, alpha=None, alpha_reason="", slope=1.7, nu=0.5)


def test_two_models_by_hand() -> None:
    """Prompt 0: won, won, tied, so (1 + 1 + 1/2) / 3 = 5/6; prompt 1: lost, so 0; together 5/12 of two prompts.

    By the consensus A wins prompt 0 with .9, and B prompt 1 with .6, so A with .4: (.9 + .4) / 2 = .65.
    """
    judged = [said(0, (1, 2)), said(0, (1, 2), by="cy"), said(0, (1, 1), by="di"), said(1, (2, 1))]
    (found,) = win_rates(judged, agreed((0, "A", "B", 0.9), (1, "B", "A", 0.6)), MODELS)
    assert (found.first, found.second, found.prompts) == ("A", "B", 2)
    assert (found.wins, found.ties, found.losses) == (2, 1, 1)
    assert found.rate.value == pytest.approx(5 / 12)
    assert found.weighted is not None
    assert found.weighted.value == pytest.approx(0.65)


def test_the_interval_is_that_of_a_textbook() -> None:
    """8 of 10: Wilson's interval at 95 % is .490 to .943 (Brown, Cai and DasGupta 2001 give the formula).

    By hand with z = 1.96: centre (.8 + .19208) / 1.38416 = .71674; half 1.96 sqrt(.016 + .0096040) / 1.38416 = .22658.
    """
    judged = [said(n, (1, 2) if n < 8 else (2, 1)) for n in range(10)]
    (found,) = win_rates(judged, agreed(), MODELS)
    assert (found.rate.low, found.rate.high) == pytest.approx((0.49016, 0.94332), abs=1e-4)


def test_more_labelers_of_the_same_prompts_are_no_more_prompts() -> None:
    once = [said(n, (1, 2) if n % 3 else (2, 1)) for n in range(30)]
    often = [said(n, (1, 2) if n % 3 else (2, 1), by=f"rater {k}") for n in range(30) for k in range(9)]
    few, many = (win_rates(judged, agreed(), MODELS)[0] for judged in (once, often))
    assert (few.rate, few.prompts) == (many.rate, many.prompts)
    assert (many.wins, many.losses) == (9 * few.wins, 9 * few.losses)


def test_several_items_of_a_prompt_are_one_prompt() -> None:
    judged = [said(0, (1, 2), prompt=7), said(1, (2, 1), prompt=7), said(2, (1, 2), prompt=8)]
    (found,) = win_rates(judged, agreed(), MODELS)
    assert (found.prompts, found.wins, found.losses) == (2, 2, 1)
    assert found.rate.value == pytest.approx((0.5 + 1) / 2)


def test_a_ranking_of_three_models_compares_each_pair() -> None:
    """C before A and B, which tie."""
    found = win_rates([said(0, (2, 2, 1), models="ABC")], agreed(), MODELS)
    assert [(one.first, one.second, one.rate.value) for one in found] == [("A", "B", 0.5), ("A", "C", 0), ("B", "C", 0)]


def test_swapping_the_names_swaps_wins_and_losses() -> None:
    judged = [said(n, (1, 2) if n % 3 else (1, 1) if n % 2 else (2, 1)) for n in range(12)]
    (found,) = win_rates(judged, agreed(), MODELS)
    other = {id_: {"A": "B", "B": "A"}.get(model, model) for id_, model in MODELS.items()}
    (swapped,) = win_rates(judged, agreed(), other)
    assert (swapped.wins, swapped.ties, swapped.losses) == (found.losses, found.ties, found.wins)
    assert swapped.rate.value == pytest.approx(1 - found.rate.value)
    assert swapped.rate.low == pytest.approx(1 - found.rate.high)


def test_what_compares_no_two_models_says_nothing() -> None:
    same = {"A0": "A", "B0": "A"}
    assert win_rates([said(0, (1, 2))], agreed((0, "A", "B", 0.9)), same) == []
    assert win_rates([said(0, (1, 2))], agreed((0, "A", "B", 0.9)), {"A0": "A"}) == []
    assert win_rates([said(0, (1, None))], agreed(), MODELS) == []


def test_labelers_who_read_the_scale_upside_down_do_not_move_the_weighted_rate() -> None:
    """Five labelers mostly prefer A where A is better, on 75 of 100 prompts; the sixth says the opposite.

    The consensus turns that one round, so that its rate is nearer to 3 / 4 than the plain one.
    """
    chance = random.Random(0)
    judged = []
    for n in range(100):
        better = n < 75
        for k in range(6):
            sees = better if chance.random() < 0.9 else not better
            judged.append(said(n, (1, 2) if sees == (k < 5) else (2, 1), by=f"rater {k}"))
    (found,) = win_rates(judged, consensus(judged), MODELS)
    assert found.weighted is not None
    assert abs(found.weighted.value - 0.75) < abs(found.rate.value - 0.75)


def test_where_nobody_can_be_trusted_there_is_no_weighted_rate() -> None:
    nobody = replace(agreed((0, "A", "B", 0.5)), slope=0.0)
    (found,) = win_rates([said(0, (1, 2))], nobody, MODELS)
    assert (found.rate.value, found.weighted) == (1.0, None)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "judgments.db")
    yield store
    store.close()


def answered(n: int, *models: str | None) -> Candidates:
    completions = tuple(Completion(f"{model} {n}", model=model, id=f"{n} {k}") for k, model in enumerate(models))
    return Candidates(Prompt(f"question {n}"), completions)


def of(one: Candidates, ranks: Sequence[int], *, by: str = "bo", kind: str = "human") -> Judgment:
    return Judgment(
        id=f"{by} {one.prompt.id}",
        item=one.prompt.id,
        prompt=one.prompt.id,
        completions=tuple(c.id for c in one.completions),
        rater=by,
        rater_kind=kind,  # type: ignore[arg-type]
        ranks=tuple(ranks),
    )


def rates(store: Store, project: str, **more: str) -> list[WinRate]:
    return win_rates_of(store, project, **more)  # type: ignore[arg-type]


def test_of_a_project_people_and_models_are_counted_apart(opened: Store) -> None:
    project = create_project(opened, "tuned", now=0.0)
    asked = [answered(n, "tuned", "base") for n in range(4)]
    judged = [of(one, (1, 2)) for one in asked] + [of(one, (2, 1), by="judge", kind="ai") for one in asked]
    record(opened, project, asked, judged, now=1.0)
    (people,), (machines,) = rates(opened, project), rates(opened, project, by="models")
    assert (people.first, people.second) == ("base", "tuned")
    assert (people.losses, people.rate.value, machines.wins, machines.rate.value) == (4, 0.0, 4, 1.0)
    assert people.weighted is not None
    assert machines.weighted is not None
    assert people.weighted.value < 0.5 < machines.weighted.value


def test_an_audience_is_asked_by_itself_when_it_is_large_enough(opened: Store) -> None:
    """Five parents prefer the base, three others the tuned model, on the same two prompts."""
    project = create_project(opened, "tuned", now=0.0)
    people = [join(opened, project, n, ["parents"] if n < 5 else ["others"]) for n in range(8)]
    add_items(opened, project, [answered(n, "base", "tuned") for n in range(2)], overlap=8, now=0.0)
    made_by = models_judged(opened, project)
    for n, rater in enumerate(people):
        while (given := claim(opened, project, rater, now=1.0)) is not None:
            _, completions = asked_of(opened, given.id, rater)
            liked = "base" if n < 5 else "tuned"
            ranks = tuple(1 if made_by[one] == liked else 2 for one in completions)
            submit(opened, given.id, rater, Said(id=str(uuid.uuid4()), ranks=ranks, flags={}, values={}), now=2.0)
    (everybody,), (parents,) = rates(opened, project), rates(opened, project, audience="parents")
    assert (everybody.wins, everybody.losses, everybody.rate.value) == (10, 6, pytest.approx(10 / 16))
    assert (parents.wins, parents.losses, parents.rate.value) == (10, 0, 1.0)
    with pytest.raises(DataError, match="fewer than 5"):
        rates(opened, project, audience="others")


def join(store: Store, project: str, number: int, groups: list[str]) -> str:
    secret = invite(store, project_id=project, now=0.0)
    return accept(store, secret, login=f"p{number}", password="correct horse", groups=groups, now=0.0)


def test_gold_items_and_projects_of_one_model_have_no_part_in_it(opened: Store) -> None:
    project = create_project(opened, "tuned", now=0.0)
    add_items(opened, project, [answered(0, "tuned", "base")], overlap=1, now=0.0)
    add_gold(opened, project, [Gold(answered(1, "tuned", "gold"), ranks=(1, 2))], now=0.0)
    assert set(models_judged(opened, project).values()) == {"tuned", "base"}
    assert rates(opened, project) == []
    single = create_project(opened, "single", now=0.0)
    record(opened, single, [answered(2, "base", "base")], [of(answered(2, "base", "base"), (1, 2))], now=1.0)
    assert rates(opened, single) == []


def test_judgments_by_several_criteria_are_refused(opened: Store) -> None:
    project = create_project(opened, "tuned", criteria=("preference", "honest"), now=0.0)
    asked = [answered(n, "tuned", "base") for n in range(2)]
    mixed = [of(asked[0], (1, 2)), replace(of(asked[1], (1, 2)), criterion="honest")]
    record(opened, project, asked, mixed, now=1.0)
    with pytest.raises(DataError, match="several criteria"):
        rates(opened, project)
