"""People as a judge of an evaluation: numbers worked by hand, and what is said where there are none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.recipes import WORDS, stage_toml
from tuneful.cli.main import main
from tuneful.data.completions import with_ids
from tuneful.data.jsonl import write_jsonl
from tuneful.errors import ConfigError, DataError
from tuneful.feedback.gold import Gold
from tuneful.feedback.items import add_gold, add_items
from tuneful.feedback.judgments import read_judgments
from tuneful.feedback.matchups import Matchup, matchups
from tuneful.feedback.projects import create_project
from tuneful.feedback.recording import record
from tuneful.feedback.store import Store
from tuneful.pipeline.recipe import load_recipe
from tuneful.pipeline.run import run_recipe
from tuneful.records import Candidates, Completion, Judgment, Prompt
from tuneful.runs.manifest import file_hash

PROMPTS = [Prompt.user(f"{a} {b}") for a in WORDS[:4] for b in WORDS[4:7]]
AFTER_IS_SHORTER = (True, True, True, True, True, True, False, False, True, False)
"""On the ten prompts that people judge. They prefer the model after on the first eight."""


@pytest.fixture
def models(tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Two directories of one model under two names, and the prompts beside them."""
    monkeypatch.chdir(tmp_path)
    for name in ("base", "tuned"):
        shutil.copytree(tiny_model_dir, tmp_path / name)
    write_jsonl(tmp_path / "prompts.jsonl", ({"prompt": prompt.as_json()} for prompt in PROMPTS))
    return "base", "tuned"


def answered(prompt: Prompt, before: str, after: str, *, shorter: bool = True) -> Candidates:
    long, short = ("yes please", "yes") if shorter else ("yes", "yes please")
    return Candidates(prompt, (Completion(short, model=after), Completion(long, model=before)))


def of(one: Candidates, ranks: Sequence[int], *, by: str, kind: str = "human") -> Judgment:
    ids = tuple(completion.id for completion in one.completions)
    return Judgment(
        id=f"{by} {one.prompt.id}",
        item=one.prompt.id,
        prompt=one.prompt.id,
        completions=ids,
        rater=by,
        rater_kind=kind,  # type: ignore[arg-type]
        ranks=tuple(ranks),
    )


def fill(
    before: str, after: str, *, prompts: Sequence[Prompt] = PROMPTS[:10], raters: int = 3, kind: str = "human"
) -> None:
    """The store judgments.db with the project "tuned": what so many raters said, all of one mind."""
    asked = with_ids(
        answered(p, before, after, shorter=shorter) for p, shorter in zip(prompts, AFTER_IS_SHORTER, strict=False)
    )
    said = [
        of(one, (1, 2) if n < 8 else (2, 1), by=f"{kind} {k}", kind=kind)
        for n, one in enumerate(asked)
        for k in range(raters)
    ]
    store = Store.open("judgments.db")
    project = create_project(store, "tuned", now=0.0)
    record(store, project, asked, said, now=1.0)
    add_gold(store, project, [Gold(with_ids([answered(PROMPTS[11], before, after)])[0], ranks=(2, 1))], now=0.0)
    store.close()


@pytest.fixture
def evaluate(models: tuple[str, str]) -> Iterator[Callable[..., dict[str, Any]]]:
    """Runs an evaluation with these settings, and gives its report."""

    def run(out: str = "run", **settings: Any) -> dict[str, Any]:
        given = {"before": models[0], "after": models[1], "prompts": "prompts.jsonl", "num_samples": 1, "limit": 3}
        given |= {"max_new_tokens": 4, "people": {"store": "judgments.db", "project": "tuned"}, **settings}
        Path("recipe.toml").write_text("splits = { test = 1.0 }\n" + stage_toml("evaluate", do="evaluate", **given))
        run_recipe(load_recipe(Path("recipe.toml")), Path(out))
        found: dict[str, Any] = json.loads((Path(out) / "evaluate" / "report.json").read_text())
        return found

    return run


def test_people_s_win_rate_and_who_agrees_with_them_by_hand(evaluate: Callable[..., dict[str, Any]]) -> None:
    """Three people prefer the model after on 8 of 10 prompts: 24 won, 6 lost; Wilson's interval is .490 to .943.

    The rule "shorter" prefers what they prefer on the six prompts where the better answer after is shorter, and on the
    last, where the better answer before is: 7 of 10. "longer" on the other three.
    """
    fill("base", "tuned")
    report = evaluate(reward="shorter", second_reward="longer")
    people = report["people"]
    assert people["win_rate"]["mean"] == pytest.approx(0.8)
    assert people["win_rate"]["interval"] == pytest.approx([0.49016, 0.94332], abs=1e-4)
    assert (people["win_rate"]["n"], people["wins"], people["ties"], people["losses"]) == (10, 24, 0, 6)
    assert (people["num_judgments"], people["num_labelers"], people["num_left_out"]) == (30, {"human": 3}, 0)
    assert people["agreement"]["reward"]["mean"] == pytest.approx(0.7)
    assert people["agreement"]["second_reward"]["mean"] == pytest.approx(0.3)
    assert 0.5 < people["win_rate_by_consensus"]["mean"] < 0.8
    assert report["win_rate"] != people["win_rate"]  # the reward's, on the answers sampled here


def test_the_page_says_what_people_said(evaluate: Callable[..., dict[str, Any]]) -> None:
    fill("base", "tuned")
    evaluate(reward="shorter")
    page = " ".join(Path("run/evaluate/report.html").read_text().split())
    assert "Win rate by people" in page
    assert "30 judgments by 3 people, who did not know" in page
    assert "won 24, tied 0, lost 6" in page
    assert "Reward prefers what they prefer" in page


def test_people_are_the_judge_where_there_is_no_reward_or_where_they_are_named(
    evaluate: Callable[..., dict[str, Any]],
) -> None:
    fill("base", "tuned")
    alone = evaluate("alone")
    named = evaluate("named", reward="shorter", judge="people")
    assert alone["win_rate"] == named["win_rate"] == named["people"]["win_rate"]
    assert alone["people"]["agreement"] == {}
    given = {"before": "base", "after": "tuned", "prompts": "prompts.jsonl", "judge": "people"}
    Path("nobody.toml").write_text(stage_toml("evaluate", do="evaluate", **given))
    with pytest.raises(ConfigError, match='measures nothing called "people"'):
        load_recipe(Path("nobody.toml"))


def test_what_was_read_is_kept_with_its_hash(evaluate: Callable[..., dict[str, Any]]) -> None:
    fill("base", "tuned")
    evaluate()
    stage = Path("run/evaluate")
    source = json.loads((stage / "run.json").read_text())["people"]
    assert source["sha256"] == file_hash(stage / "judgments.jsonl")
    assert (source["num_judgments"], len(read_judgments(stage / "judgments.jsonl"))) == (30, 30)


def test_what_is_said_while_it_is_read_is_left_for_the_next_time(
    evaluate: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill("base", "tuned")

    def meanwhile(store: Store, project: str) -> list[Matchup]:
        found = matchups(store, project)
        asked = with_ids([answered(PROMPTS[0], "base", "tuned")])
        other = Store.open("judgments.db")
        record(other, project, asked, [of(asked[0], (2, 1), by="late")], now=2.0)
        other.close()
        return found

    monkeypatch.setattr("tuneful.pipeline.preferred.matchups", meanwhile)
    assert evaluate()["people"]["num_judgments"] == 30


def test_judgments_on_other_prompts_than_test_prompts_do_not_count(evaluate: Callable[..., dict[str, Any]]) -> None:
    """Of the ten prompts the last two, which the model before won, are in no file that is evaluated on."""
    fill("base", "tuned", prompts=[*PROMPTS[:8], Prompt.user("elsewhere"), Prompt.user("further")])
    people = evaluate()["people"]
    assert (people["win_rate"]["mean"], people["win_rate"]["n"], people["num_left_out"]) == (1.0, 8, 6)


def test_a_project_may_know_the_models_by_other_names(evaluate: Callable[..., dict[str, Any]]) -> None:
    fill("./base", "v7")
    with pytest.raises(
        DataError, match=r'of "./base" and "v7", and none is after = "tuned".*people = { …, after = "…" }'
    ):
        evaluate("guess")
    people = {"store": "judgments.db", "project": "tuned", "after": "v7"}
    assert evaluate(people=people)["people"]["wins"] == 24


def test_what_is_missing_is_said_before_anything_is_sampled(
    evaluate: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    store = Store.open("judgments.db")
    project = create_project(store, "tuned", now=0.0)
    add_items(store, project, [answered(PROMPTS[0], "base", "tuned")], overlap=1, now=0.0)
    store.close()
    with pytest.raises(DataError, match='project "tuned": people have not compared the two models in it yet; go on'):
        evaluate("nobody")
    Path("judgments.db").unlink()
    fill("base", "tuned", kind="ai")
    with pytest.raises(DataError, match="people have not compared the two models"):
        evaluate("machines")
    Path("judgments.db").unlink()
    fill("base", "tuned", prompts=[Prompt.user("elsewhere")])
    with pytest.raises(DataError, match=r'none of its 3 judgments .* is on a test prompt of "prompts.jsonl"'):
        evaluate("elsewhere")
    Path("judgments.db").unlink()
    fill("base", "tuned")
    with pytest.raises(DataError, match=r"has 30 judgments .* and fewest = 31; go on labeling"):
        evaluate("few", people={"store": "judgments.db", "project": "tuned", "fewest": 31})
    with pytest.raises(DataError, match='audience "parents": nobody of it judged anything'):
        evaluate("group", people={"store": "judgments.db", "project": "tuned", "audience": "parents"})
    assert not list(tmp_path.glob("*/evaluate/answers.jsonl"))


@pytest.mark.parametrize(("kind", "raters"), [("human", "people"), ("simulated", "simulated raters")])
def test_the_command_asks_people_too(
    kind: str,
    raters: str,
    models: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fill(*models, kind=kind)
    given = ["--before", models[0], "--after", models[1], "--in", "prompts.jsonl", "--max-new-tokens", "4"]
    more = ["--reward", "shorter", "--project", "tuned", "--out", "out"]
    monkeypatch.setattr("sys.argv", ["tuneful", "evaluate", *given, *more])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    said = capsys.readouterr().out
    assert f"30 judgments of 3 {raters}: 80.0% (49.0% to 94.3%, 10 prompts) prefer the model after" in said
    assert "reward prefers what they prefer: 70.0%" in said
