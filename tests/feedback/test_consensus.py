from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from math import comb
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from tuneful.feedback.baselines import vote_shares
from tuneful.feedback.consensus import Consensus, consensus
from tuneful.records import Judgment

TAU = 1 / 1.7
DEMO = ["careful"] * 5 + ["hasty"] * 2 + ["random", "inverted", "tone"]
BAD_30 = ["careful"] * 21 + ["random"] * 5 + ["inverted"] * 4

Simulate = Callable[..., Any]


def by_pair(found: Consensus) -> dict[tuple[str, str], tuple[float, float]]:
    """p and confidence by pair, seen from the completion whose id comes first."""
    return {
        (min(q.first, q.second), max(q.first, q.second)): (q.p, q.confidence)
        if q.first < q.second
        else (1 - q.p, 1 - q.confidence)
        for q in found.pairs
    }


def accuracy(world: Any) -> tuple[float, float]:
    """Share of pairs put in their true order by the consensus and by majority vote, an even vote counting half."""
    ours = [world.difference(pair.first, pair.second) > 0 for pair in consensus(world.judgments).pairs]
    votes = []
    for share in vote_shares(world.judgments):
        lead = 2 * share.votes_first - share.votes
        votes.append(0.5 + 0.5 * np.sign(lead) * np.sign(world.difference(share.first, share.second)))
    return float(np.mean(ours)), float(np.mean(votes))


def accuracies(simulate: Simulate, kinds: list[str], seeds: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
    results = np.array([accuracy(simulate(kinds, seed=seed, num_items=400)) for seed in seeds])
    return results[:, 0], results[:, 1]


@pytest.mark.parametrize("seed", range(6))
def test_verdicts(simulate: Simulate, seed: int) -> None:
    world = simulate(DEMO, seed=seed)
    for report in consensus(world.judgments).raters:
        kind = world.kinds[report.rater]
        assert report.num_judgments == 240
        if kind in ("random", "inverted"):
            assert report.verdict == kind
        elif kind == "careful":
            assert report.verdict == "reliable"
        else:
            assert report.verdict in ("reliable", "noisy")


def test_a_far_noisier_rater_is_called_noisy(simulate: Simulate) -> None:
    world = simulate(["careful"] * 6 + ["tone"], seed=1, num_items=3000)
    verdicts = {world.kinds[report.rater]: report.verdict for report in consensus(world.judgments).raters}
    assert verdicts == {"careful": "reliable", "tone": "noisy"}


def test_when_all_guess_nobody_is_reliable_and_nothing_is_known(simulate: Simulate) -> None:
    found = consensus(simulate(["random"] * 6, seed=0).judgments)
    assert {report.verdict for report in found.raters} == {"random"}
    assert {pair.p for pair in found.pairs} == {0.5}


@pytest.mark.parametrize("seed", range(4))
def test_some_who_guess_make_no_guessers_of_the_rest_while_labels_are_few(simulate: Simulate, seed: int) -> None:
    """Two of 30 rank each item, 20 items each: nobody is shown to be reliable yet, and some are shown to guess."""
    found = consensus(simulate(BAD_30, seed=seed, num_items=300, raters_per_item=2).judgments)
    assert "random" in {report.verdict for report in found.raters}
    assert max(pair.p for pair in found.pairs) > 0.8


def test_nobody_is_accused_on_a_handful_of_judgments(simulate: Simulate) -> None:
    world = simulate(DEMO, seed=0)
    newcomer = [replace(j, id=f"new {j.id}", rater="new", ranks=j.ranks[::-1]) for j in world.judgments[:2]]
    (report,) = [r for r in consensus([*world.judgments, *newcomer]).raters if r.rater == "new"]
    low, high = report.interval
    assert low < 0 < high
    assert report.verdict == "unknown"


def test_of_a_single_rater_nothing_is_known_and_he_is_believed() -> None:
    """Nobody confirms or contradicts him: his slope stays the prior's, and his first is everyone's best guess."""
    found = consensus([ranking("ann", (1, 2, 3))])
    (ann,) = found.raters
    assert (ann.verdict, ann.num_judgments) == ("unknown", 1)
    assert found.slope == pytest.approx(1.7, abs=0.01)
    assert {pair.first for pair in found.pairs} == {"i-0", "i-1"}
    assert all(pair.p > 0.5 for pair in found.pairs)


def test_consensus_at_30_percent_bad_raters(simulate: Simulate) -> None:
    ours, majority = accuracies(simulate, BAD_30, range(6))
    assert ours.mean() >= 0.83
    assert (ours - majority).mean() >= 0.08


def test_consensus_costs_nothing_among_careful_raters(simulate: Simulate) -> None:
    ours, majority = accuracies(simulate, ["careful"] * 30, range(6))
    assert (ours - majority).mean() >= -0.002


@pytest.mark.soak
@pytest.mark.parametrize("share", [0, 30])
def test_consensus_against_majority_over_many_data_sets(simulate: Simulate, share: int) -> None:
    ours, majority = accuracies(simulate, BAD_30 if share else ["careful"] * 30, range(40))
    error = (ours - majority).std(ddof=1) / np.sqrt(40)
    if share:
        assert ours.mean() >= 0.83
        assert (ours - majority).mean() - 2 * error >= 0.08
    else:
        assert (ours - majority).mean() - 2 * error >= -0.002


def test_p_is_what_a_new_careful_rater_says(simulate: Simulate) -> None:
    errors = []
    for seed in range(6):
        world = simulate(DEMO, seed=seed)
        pairs = consensus(world.judgments).pairs
        p = np.array([pair.p for pair in pairs])
        truth = expit([world.difference(pair.first, pair.second) / TAU for pair in pairs])
        labels = np.random.default_rng(1000 + seed).random((3, len(p))) < truth
        assert labels.size >= 12_000
        bins = np.array_split(np.argsort(p), 10)
        errors.append(np.mean([abs(p[rows].mean() - labels[:, rows].mean()) for rows in bins]))
    assert np.mean(errors) <= 0.02


def test_confidence_is_how_often_the_order_is_right(simulate: Simulate) -> None:
    excess = []
    for seed in range(6):
        world = simulate(DEMO, seed=seed)
        pairs = consensus(world.judgments).pairs
        right = np.array([world.difference(pair.first, pair.second) > 0 for pair in pairs])
        confidence = np.array([pair.confidence for pair in pairs])
        bins = np.array_split(np.argsort(confidence), 5)
        excess.append([confidence[rows].mean() - right[rows].mean() for rows in bins])
    assert np.abs(np.mean(excess, axis=0)).max() < 0.03


def test_p_stays_soft_and_confidence_hardens_with_more_labels(simulate: Simulate) -> None:
    few, many = (
        consensus(simulate(["careful"] * 24, seed=0, num_items=60, raters_per_item=n).judgments) for n in (3, 24)
    )
    gained = [np.mean([pair.confidence for pair in found.pairs]) for found in (few, many)]
    assert gained[1] > gained[0] + 0.05
    # E[sigma(1.7 |d|)] over d ~ N(0, 2) is .805: what a careful rater gives when the scores are known for certain
    assert np.mean([pair.p for pair in many.pairs]) == pytest.approx(0.805, abs=0.03)


def test_a_random_rater_lowers_his_slope_and_not_the_consensus(simulate: Simulate) -> None:
    world = simulate(["careful"] * 5, seed=3)
    rng = np.random.default_rng(0)
    guesses = [
        replace(j, id=f"guess {j.id}", rater="guesser", ranks=tuple(int(r) + 1 for r in rng.permutation(4)))
        for j in world.judgments[::3]
    ]
    before, after = consensus(world.judgments), consensus([*world.judgments, *guesses])
    (guesser,) = [report for report in after.raters if report.rater == "guesser"]
    assert abs(guesser.reliability) < 0.2
    assert guesser.verdict == "random"
    moved = [abs(before.scores[c][0] - after.scores[c][0]) for c in before.scores]
    assert np.mean(moved) < 0.05
    right = [np.mean([world.difference(q.first, q.second) > 0 for q in found.pairs]) for found in (before, after)]
    assert right[1] == pytest.approx(right[0], abs=0.01)


def test_order_of_judgments_means_nothing(simulate: Simulate) -> None:
    judgments = simulate(DEMO, seed=0, num_items=100).judgments
    shuffled = [judgments[n] for n in np.random.default_rng(0).permutation(len(judgments))]
    assert consensus(shuffled) == consensus(judgments)


def test_rater_ids_mean_nothing(simulate: Simulate) -> None:
    judgments = simulate(DEMO, seed=0, num_items=100).judgments
    raters = sorted({j.rater for j in judgments})
    renamed = dict(zip(raters, reversed(raters), strict=True))
    one, other = consensus(judgments), consensus([replace(j, rater=renamed[j.rater]) for j in judgments])
    reports = {report.rater: report for report in other.raters}
    for report in one.raters:
        twin = reports[renamed[report.rater]]
        assert twin.verdict == report.verdict
        assert twin.reliability == pytest.approx(report.reliability, abs=1e-3)
        assert twin.agreement == pytest.approx(report.agreement)
    assert [pair.p for pair in other.pairs] == pytest.approx([pair.p for pair in one.pairs], abs=1e-3)


def test_completion_ids_and_stored_order_mean_nothing(simulate: Simulate) -> None:
    judgments = simulate(DEMO, seed=0, num_items=100).judgments
    turned = [
        replace(j, completions=tuple(f"x{c[::-1]}" for c in j.completions[::-1]), ranks=j.ranks[::-1])
        for j in judgments
    ]
    one, other = consensus(judgments), consensus(turned)
    for completion, (mean, sd) in one.scores.items():
        assert other.scores[f"x{completion[::-1]}"] == pytest.approx((mean, sd), abs=1e-3)
    assert other.alpha == pytest.approx(one.alpha)


def ranking(rater: str, ranks: tuple[int | None, ...], item: str = "i", seconds: float | None = None) -> Judgment:
    completions = tuple(f"{item}-{k}" for k in range(len(ranks)))
    return Judgment(
        id=f"{rater}-{item}", item=item, prompt="p", completions=completions, rater=rater, ranks=ranks, seconds=seconds
    )


@pytest.mark.parametrize("size", [2, 4, 7])
def test_several_raters_every_pair_is_kept(size: int) -> None:
    ranks = tuple(range(1, size + 1))
    found = consensus([ranking("ann", ranks), ranking("ben", ranks[::-1])])
    assert len(found.pairs) == comb(size, 2)
    assert {pair.weight for pair in found.pairs} == {1 / comb(size, 2)}
    assert all(0.5 <= pair.p <= 1 for pair in found.pairs)


def test_one_rater_ties_are_dropped_and_the_rest_share_weight_one() -> None:
    found = consensus([ranking("ann", (1, 1, 2)), ranking("ann", (1, 2), item="k"), ranking("ann", (1, 1), item="m")])
    kept = {(pair.first, pair.second): pair.weight for pair in found.pairs}
    assert kept == {("i-0", "i-2"): 0.5, ("i-1", "i-2"): 0.5, ("k-0", "k-1"): 1.0}
    assert found.alpha is None
    assert "no two judgments" in found.alpha_reason


def test_first_is_the_one_ranked_higher() -> None:
    found = consensus([ranking("ann", (3, 1, 2)), ranking("ben", (3, 1, 2))])
    assert {(pair.first, pair.second) for pair in found.pairs} == {("i-1", "i-2"), ("i-1", "i-0"), ("i-2", "i-0")}
    assert found.scores["i-1"][0] > found.scores["i-2"][0] > found.scores["i-0"][0]


def test_what_nobody_ranked_has_no_score_and_what_some_ranked_has() -> None:
    found = consensus([ranking("ann", (1, 2, None, None)), ranking("ben", (None, 1, 2, None))])
    assert set(found.scores) == {"i-0", "i-1", "i-2"}
    assert by_pair(found)["i-0", "i-2"][0] > 0.5  # 0 before 1 and 1 before 2, though nobody saw 0 and 2 together


def test_a_full_tie_leaves_a_pair_even() -> None:
    found = consensus([ranking(name, (1, 1)) for name in ("ann", "ben", "cid")])
    (pair,) = found.pairs
    assert (pair.p, pair.confidence) == pytest.approx((0.5, 0.5))


def test_the_report_on_a_rater_by_hand() -> None:
    found = consensus(
        [
            ranking("ann", (1, 2, 3), seconds=10),
            ranking("ann", (1, 2), item="k", seconds=30),
            ranking("ben", (2, 1, 3)),
            ranking("cid", (1, 2), item="z"),
        ]
    )
    ann, ben, cid = found.raters
    # on item i they differ on one pair of three; nobody else ranked k or z
    assert ann.agreement == ben.agreement == pytest.approx(2 / 3)
    assert (ann.num_judgments, ann.median_seconds) == (2, 20)
    assert (ben.num_judgments, ben.median_seconds) == (1, None)
    assert cid.agreement is None


def test_revisions_replace() -> None:
    first = ranking("ann", (1, 2))
    revised = replace(first, id="later", ranks=(2, 1), replaces=first.id)
    other = ranking("ben", (2, 1))
    assert consensus([first, revised, other]) == consensus([revised, other])


def judged(q: float, item: str = "i") -> Judgment:
    """A model that gives q to "a", whichever is shown first, and always prefers it."""
    values = {f"{item}a>{item}b": q, f"{item}b>{item}a": 1 - q}
    about = {"item": item, "prompt": item, "completions": (f"{item}a", f"{item}b")}
    return Judgment(id=f"{item} {q}", rater="judge", rater_kind="ai", ranks=(1, 2), values=values, **about)  # type: ignore[arg-type]


def test_a_judge_that_is_hardly_sure_moves_p_less_than_one_that_is(simulate: Simulate) -> None:
    """Alone, at the slope that nobody can confirm; and where three people who agree with it give it a slope."""
    alone = [consensus([judged(q)]).pairs[0].p for q in (0.53, 0.75, 0.999)]
    assert alone == sorted(alone)
    assert 0.5 < alone[0] < 0.52
    firm = consensus([replace(judged(0.999), values={})]).pairs[0].p
    assert alone[2] == pytest.approx(firm, abs=1e-3)
    assert alone[2] < firm
    people = [
        replace(judged(1.0, item), id=f"{who} {item}", rater=who, rater_kind="human", values={})
        for item in map(str, range(40))
        for who in ("ann", "ben", "cid")
    ]
    unsure, sure = (
        consensus([*people, *(judged(q, one.item) for one in people[1::3]), judged(q)]) for q in (0.53, 0.999)
    )
    assert unsure.raters == sure.raters  # reliability is learned from who agrees with whom
    (less,), (more,) = ([pair.p for pair in found.pairs if pair.item == "i"] for found in (unsure, sure))
    assert 0.5 < less < 0.55 < more


def test_values_of_people_that_are_named_like_a_model_s_change_nothing(simulate: Simulate) -> None:
    said = simulate(DEMO, seed=0, num_items=60).judgments
    named = [replace(j, values={f"{a}>{b}": 0.5 for a in j.completions for b in j.completions}) for j in said]
    assert consensus(named) == consensus(said)
