from __future__ import annotations

from pathlib import Path

from demo_learners import SHARED, changes, given_by, keep, lines, stages


def test_a_learner_is_tried_at_three_rates_by_two_of_its_own_leash() -> None:
    of_ppo = changes({"name": "ppo", "optimization": {"learning_rate": 5.0}})
    assert of_ppo == [{"learning_rate": rate, "kl_coef": leash} for rate in (1e-4, 3e-4, 9e-4) for leash in (0.1, 0.3)]
    assert changes({"name": "simpo"})[0] == {"learning_rate": 1e-4, "beta": 2.0}
    learners = [name for name, stage in stages().items() if "algorithm" in stage and name not in SHARED]
    assert all(len(changes(stages()[name])) == 6 for name in learners)


def test_what_all_share_is_taken_from_where_it_was_left() -> None:
    out = Path("runs")
    assert given_by(out, "@reward") == str(out / "shared" / "reward" / "model")
    assert given_by(out, "@samples") == str(out / "shared" / "samples" / "completions.jsonl")
    assert [given_by(out, value) for value in ("@ppo", "demo:base", 64, {"beta": 0.1})] == [
        "@ppo",
        "demo:base",
        64,
        {"beta": 0.1},
    ]


def test_the_stages_that_all_share_come_first_in_the_recipe() -> None:
    assert tuple(stages())[: len(SHARED)] == SHARED
    assert all(name == stage["name"] for name, stage in stages().items())


def test_lines_are_added_to_those_that_are_there(tmp_path: Path) -> None:
    results = tmp_path / "search.jsonl"
    assert lines(results) == []
    keep(results, {"learner": "ppo", "kl": None})
    keep(results, {"learner": "dpo", "kl": 1.5})
    assert lines(results) == [{"learner": "ppo", "kl": None}, {"learner": "dpo", "kl": 1.5}]
