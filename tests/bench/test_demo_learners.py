from __future__ import annotations

from pathlib import Path

from demo_learners import SHARED, changes, given_by, keep, lines, stages


def test_a_learner_is_tried_at_a_third_and_three_times_its_rate_by_its_own_leash() -> None:
    optimization = {"learning_rate": 3e-4, "schedule": "linear"}
    of_ppo = changes({"name": "ppo", "kl_coef": 0.1, "optimization": optimization})
    assert of_ppo == [{"learning_rate": rate, "kl_coef": leash} for rate in (1e-4, 3e-4, 9e-4) for leash in (0.1, 0.3)]
    assert changes({"name": "simpo", "optimization": optimization})[0] == {"learning_rate": 1e-4, "beta": 2.0}


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
