"""Win rates worked by hand, and what must hold of them."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tuneful.errors import DataError
from tuneful.feedback.access import accept, invite
from tuneful.feedback.assignment import claim
from tuneful.feedback.consensus import Consensus, PairConsensus, consensus
from tuneful.feedback.gold import Gold
from tuneful.feedback.items import add_gold, add_items, candidates
from tuneful.feedback.jobs import claim as take
from tuneful.feedback.jobs import deliver, enqueue, finish
from tuneful.feedback.matchups import Matchup, matchups
from tuneful.feedback.pages import asked_of
from tuneful.feedback.projects import add_rater, create_project
from tuneful.feedback.recording import record
from tuneful.feedback.store import Store
from tuneful.feedback.submission import Said, submit
from tuneful.feedback.win_rates import WinRate, win_rates_of
from tuneful.feedback.win_rates import win_rates as win_rates_of_matchups
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


def win_rates(
    judged: Sequence[Judgment], found: Consensus | None, models: Mapping[str, str], *more: Matchup
) -> list[WinRate]:
    """Those of the items that were judged, each one matchup, and of `more`."""
    items = {one.item: one for one in judged}
    first = [
        Matchup(
            prompt=one.prompt, item=name, completions=one.completions, models=tuple(map(models.get, one.completions))
        )
        for name, one in items.items()
    ]
    return win_rates_of_matchups(judged, found, [*first, *more])


def alike(prompt: int, *, models: str = "AB") -> Matchup:
    return Matchup(prompt=str(prompt), item=None, completions=(), models=tuple(models))


def once_more(item: int, models: str, *, prompt: int | None = None) -> Matchup:
    """Answers that read like A's and B's of an item, by these models."""
    place = str(item if prompt is None else prompt)
    return Matchup(prompt=place, item=str(item), completions=(f"A{item}", f"B{item}"), models=tuple(models))


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


def test_what_was_said_of_texts_counts_each_time_that_models_give_them() -> None:
    """On prompt 7 A and B gave the texts of item 0 three times, of which the last the other way round, and those of
    item 1 once. A's text of item 0 was preferred by both who were asked; item 1 was a tie. So the matchups give 1, 1, 0
    and 1/2, together 5/8, and the labelers' words count 2 + 2 wins, 2 losses and a tie."""
    judged = [said(0, (1, 2), prompt=7), said(0, (1, 2), by="cy", prompt=7), said(1, (1, 1), prompt=7)]
    more = (once_more(0, "AB", prompt=7), once_more(0, "BA", prompt=7))
    (found,) = win_rates(judged, agreed((0, "A", "B", 0.9), (1, "B", "A", 0.6)), MODELS, *more)
    assert (found.wins, found.ties, found.losses, found.prompts) == (4, 1, 2, 1)
    assert found.rate.value == pytest.approx(5 / 8)
    assert found.weighted is not None
    assert found.weighted.value == pytest.approx((0.9 + 0.9 + 0.1 + 0.4) / 4)


def test_the_same_words_count_for_two_pairs_of_models() -> None:
    """C and D gave what A and B had given on prompt 0; on prompt 1 only A and B were asked, and B won."""
    found = win_rates([said(0, (1, 2)), said(1, (2, 1))], agreed(), MODELS, once_more(0, "CD"))
    assert [(one.first, one.second, one.rate.value, one.prompts) for one in found] == [
        ("A", "B", 0.5, 2),
        ("C", "D", 1.0, 1),
    ]


def test_prompts_on_which_both_say_the_same_are_ties() -> None:
    """A won 3 of 4 prompts, and on 4 others both said the same: (3 + 4 / 2) / 8 = 5/8, of eight prompts."""
    judged = [said(n, (1, 2) if n else (2, 1)) for n in range(4)]
    (found,) = win_rates(judged, agreed(), MODELS, *(alike(10 + n) for n in range(4)))
    assert (found.prompts, found.alike, found.rate.of) == (4, 4, 8)
    assert (found.wins, found.ties, found.losses) == (3, 0, 1)
    assert found.rate.value == pytest.approx(5 / 8)


def test_ties_that_are_known_from_the_start_do_not_pull_before_the_rest_is_judged() -> None:
    """Of 4 prompts that were asked, one half is judged, so that 2 of 4 ties count: (2 + 2 / 2) / 4 = 3/4. All judged
    alike, it is (4 + 4 / 2) / 8, the same."""
    ties = [alike(10 + n) for n in range(4)]
    half = [said(n, (1, 2)) for n in range(2)]
    waiting = [once_more(n, "AB") for n in (2, 3)]
    (found,) = win_rates(half, agreed(), MODELS, *waiting, *ties)
    assert (found.rate.value, found.rate.of, found.prompts, found.alike) == (0.75, 4, 2, 4)
    (whole,) = win_rates([said(n, (1, 2)) for n in range(4)], agreed(), MODELS, *ties)
    assert (whole.rate.value, whole.rate.of) == (0.75, 8)
    assert win_rates([], None, MODELS, *waiting, *ties) == []
    (nothing_to_ask,) = win_rates([], None, MODELS, *ties)
    assert (nothing_to_ask.rate.value, nothing_to_ask.rate.of, nothing_to_ask.prompts) == (0.5, 4, 0)


def test_of_one_prompt_a_tie_weighs_as_often_as_it_came() -> None:
    """Of 4 answers of each, one pair read the same; of the others one is judged and stands for the two that wait:
    (1/2 + 3 * 1) / 4 = 7/8."""
    more = [alike(0), once_more(1, "AB", prompt=0), once_more(2, "AB", prompt=0)]
    (found,) = win_rates([said(0, (1, 2))], agreed(), MODELS, *more)
    assert (found.rate.value, found.prompts, found.alike) == (7 / 8, 1, 0)


def test_an_item_that_many_judged_weighs_no_more_in_its_prompt() -> None:
    """Unsure items are asked of more people; three who say "tie" of one, and one who prefers A of the other: 3/4."""
    unsure = [said(0, (1, 1), by=f"rater {k}", prompt=7) for k in range(3)]
    (found,) = win_rates([*unsure, said(1, (1, 2), prompt=7)], agreed(), MODELS)
    assert found.rate.value == 0.75


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


def test_what_is_said_while_a_rate_is_read_is_not_in_it(opened: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    project = create_project(opened, "tuned", now=0.0)
    asked = [answered(0, "tuned", "base")]
    record(opened, project, asked, [of(asked[0], (1, 2))], now=1.0)

    def meanwhile(store: Store, project_id: str) -> list[Matchup]:
        found = matchups(store, project_id)
        record(opened, project, asked, [of(asked[0], (2, 1), by="cy")], now=2.0)
        return found

    monkeypatch.setattr("tuneful.feedback.win_rates.matchups", meanwhile)
    (found,) = rates(opened, project)
    assert (found.first, found.wins, found.losses) == ("base", 0, 1)
    (later,) = rates(opened, project)
    assert (later.wins, later.losses) == (1, 1)


def test_an_audience_is_asked_by_itself_when_it_is_large_enough(opened: Store) -> None:
    """Five parents prefer the base, three others the tuned model, on the same two prompts."""
    project = create_project(opened, "tuned", now=0.0)
    people = [join(opened, project, n, ["parents"] if n < 5 else ["others"]) for n in range(8)]
    add_items(opened, project, [answered(n, "base", "tuned") for n in range(2)], overlap=8, now=0.0)
    made_by = {c.id: c.model for one in candidates(opened, project) for c in one.completions}
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
    assert {model for one in matchups(opened, project) for model in one.models} == {"tuned", "base"}
    assert rates(opened, project) == []
    single = create_project(opened, "single", now=0.0)
    record(opened, single, [answered(2, "base", "base")], [of(answered(2, "base", "base"), (1, 2))], now=1.0)
    assert rates(opened, single) == []


def test_of_several_criteria_the_project_s_own_is_counted(opened: Store) -> None:
    project = create_project(opened, "tuned", criteria=("preference", "honest"), now=0.0)
    asked = [answered(n, "tuned", "base") for n in range(2)]
    mixed = [of(asked[0], (1, 2)), replace(of(asked[1], (1, 2)), criterion="honest")]
    record(opened, project, asked, mixed, now=1.0)
    (rate,) = rates(opened, project)
    assert (rate.first, rate.wins, rate.ties, rate.losses) == ("base", 0, 0, 1)


def drawn(prompt: str, *answers: tuple[str, str]) -> Candidates:
    """Answers as (model, text)."""
    return Candidates(Prompt(prompt), tuple(Completion(text, model=model) for model, text in answers))


def answer_all(store: Store, project: str, best: str) -> int:
    """One labeler, who prefers this text wherever it stands; how many items they were asked."""
    rater, asked = add_rater(store, project, now=1.0), 0
    texts = {c.id: c.text for one in candidates(store, project) for c in one.completions}
    while (given := claim(store, project, rater, now=1.0)) is not None:
        _, completions = asked_of(store, given.id, rater)
        ranks = tuple(1 if texts[one] == best else 2 for one in completions)
        submit(store, given.id, rater, Said(id=str(uuid.uuid4()), ranks=ranks, flags={}, values={}), now=2.0)
        asked += 1
    return asked


def test_models_that_meet_again_in_the_same_texts_are_counted_and_nobody_is_asked_again(opened: Store) -> None:
    """Three jobs of one project, whose labeler prefers "good".

    First: tuned says "good" and base "bad" on p, and both say "so" on q. Second: tuned "bad" and base "good" on p.
    Third: tuned "good", other "bad" on p. One item is asked, once. Tuned against base: p (1 + 0) / 2, q a tie: 1/2 of
    two prompts. Other against tuned: 0 of one.
    """
    project = create_project(opened, "tuned", "comparison", now=0.0)
    drawn_by_jobs = [
        [drawn("p", ("tuned", "good"), ("base", "bad")), drawn("q", ("base", "so"), ("tuned", "so"))],
        [drawn("p", ("base", "good"), ("tuned", "bad"))],
        [drawn("p", ("other", "bad"), ("tuned", "good"))],
    ]
    for made in drawn_by_jobs:
        enqueue(opened, project, "completions", {}, by=None, now=0.0)
        held = take(opened, now=0.0)
        assert held is not None
        deliver(opened, held, made, 1, 1, overlap=1, settings={}, now=0.0)
        finish(opened, held, now=0.0)
    assert answer_all(opened, project, "good") == 1
    first, second = rates(opened, project)
    assert (first.first, first.second, first.wins, first.losses) == ("base", "tuned", 1, 1)
    assert (first.prompts, first.alike, first.rate.value, first.rate.of) == (1, 1, 0.5, 2)
    assert (second.first, second.second, second.rate.value, second.losses) == ("other", "tuned", 0.0, 1)


def test_a_file_read_again_brings_no_new_matchup(opened: Store) -> None:
    """It has the same answers of the same models twice, and once more the other way round; another file has those of
    two other models."""
    project = create_project(opened, "tuned", "comparison", now=0.0)
    one = drawn("p", ("tuned", "good"), ("base", "bad"))
    file = [one, one, drawn("p", ("base", "good"), ("tuned", "bad"))]
    for _ in range(2):
        (item,) = set(add_items(opened, project, file, overlap=1, now=0.0))
        add_items(opened, project, [drawn("p", ("c", "bad"), ("d", "good"))], overlap=1, now=0.0)
    met = matchups(opened, project)
    assert {one.item for one in met} == {item}
    texts = {c.id: c.text for one in candidates(opened, project) for c in one.completions}
    said_by = [{texts[c]: m for c, m in zip(one.completions, one.models, strict=True)} for one in met]
    tuned, base = {"good": "tuned", "bad": "base"}, {"good": "base", "bad": "tuned"}
    assert sorted(map(repr, said_by)) == sorted(map(repr, ({"bad": "c", "good": "d"}, tuned, tuned, base)))
    assert answer_all(opened, project, "good") == 1
    assert [(one.first, one.second, one.rate.value) for one in rates(opened, project)] == [
        ("base", "tuned", pytest.approx(1 / 3)),
        ("c", "d", 0.0),
    ]


def test_answers_that_a_gold_item_has_are_asked_beside_it(opened: Store) -> None:
    """Its labelers learn the answer in the quiz, so what is said of it tells nothing of models."""
    project = create_project(opened, "tuned", "comparison", now=0.0)
    given = drawn("p", ("tuned", "good"), ("base", "bad"))
    (gold,) = add_gold(opened, project, [Gold(given, ranks=(1, 2))], now=0.0)
    for _ in range(2):
        enqueue(opened, project, "completions", {}, by=None, now=0.0)
        held = take(opened, now=0.0)
        assert held is not None
        deliver(opened, held, [given], 1, 1, overlap=1, settings={}, now=0.0)
        finish(opened, held, now=0.0)
    (one, again) = matchups(opened, project)
    assert one.item == again.item != gold
