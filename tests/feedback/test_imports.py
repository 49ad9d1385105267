"""Judgments made elsewhere, from rows written by hand in the shapes that the tools export."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.feedback.hostile import HOSTILE
from tuneful.data.files import write_rows
from tuneful.data.transcripts import transcript
from tuneful.errors import ConfigError, DataError
from tuneful.feedback.consensus import consensus
from tuneful.feedback.foreign import Names
from tuneful.feedback.imports import Imported, import_judgments
from tuneful.feedback.judgments import write_judgments
from tuneful.records import Candidates, Completion, Judgment, Message, Prompt

HOT = "My house is too hot."
DEPENDS, BLINDS, DENIED = "It depends.", "Close the blinds.", "It is not hot."
RANK = {"from_name": "rank", "to_name": "results", "type": "ranker"}


def saved(folder: Path, content: Any, name: str = "export.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def lines(folder: Path, *rows: Any, name: str = "export.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def by_text(found: Imported, judgment: Judgment) -> dict[str, int | None]:
    """The rank of each answer by what it says."""
    texts = {one.id: one.text for item in found.candidates for one in item.completions}
    return {texts[one]: rank for one, rank in zip(judgment.completions, judgment.ranks, strict=True)}


def values_by_text(found: Imported, judgment: Judgment) -> dict[str, float]:
    texts = {one.id: one.text for item in found.candidates for one in item.completions}
    return {texts[one]: value for one, value in judgment.values.items()}


# Label Studio


def annotation(*results: Any, by: Any = 10, **known: Any) -> dict[str, Any]:
    return {
        "id": 1001,
        "completed_by": by,
        "result": list(results),
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": "2026-03-09T22:16:08.728353Z",
        "updated_at": "2026-03-09T22:16:08.728378Z",
        "lead_time": 4.288,
        "prediction": {},
        "result_count": 0,
        "task": 7,
    } | known


def task(data: dict[str, Any], *annotations: Any, **known: Any) -> dict[str, Any]:
    return {"id": 7, "data": data, "annotations": list(annotations), "predictions": [], "project": 83} | known


def ranked(*ids: str) -> dict[str, Any]:
    return RANK | {"id": "Dx_aB91ISN", "value": {"ranker": {"rank": list(ids)}}}


THREE = {
    "prompt": HOT,
    "items": [
        {"id": "llm_1", "title": "LLM 1", "body": DEPENDS},
        {"id": "llm_2", "title": "LLM 2", "body": BLINDS},
        {"id": "llm_3", "title": "LLM 3", "body": DENIED},
    ],
}
TWO = {"prompt": HOT, "answer1": DEPENDS, "answer2": BLINDS}
ONE = {"prompt": HOT, "response": BLINDS}


def pairwise(side: str, to_name: str = "pw") -> dict[str, Any]:
    return {"from_name": "pw", "to_name": to_name, "type": "pairwise", "value": {"selected": side}}


def choices(*labels: str, name: str = "label", to_name: str = "response") -> dict[str, Any]:
    return {"from_name": name, "to_name": to_name, "type": "choices", "value": {"choices": list(labels)}}


def rating(stars: Any, *, name: str = "quality", to_name: str = "response") -> dict[str, Any]:
    return {"from_name": name, "to_name": to_name, "type": "rating", "value": {"rating": stars}}


def test_a_ranker_gives_a_ranking(tmp_path: Path) -> None:
    found = import_judgments(saved(tmp_path, [task(THREE, annotation(ranked("llm_2", "llm_1", "llm_3")))]))
    assert not found.problems
    [item], [judgment] = found.candidates, found.judgments
    assert item.prompt == Prompt(HOT)
    assert [one.text for one in item.completions] == [BLINDS, DEPENDS, DENIED]  # in the order of texts
    blinds, depends, denied = (one.id for one in item.completions)
    assert judgment == Judgment(
        id=judgment.id,
        item=judgment.item,
        prompt=Prompt(HOT).id,
        completions=(blinds, depends, denied),
        rater="label-studio-10",
        ranks=(1, 2, 3),
        shown_order=(depends, blinds, denied),
        seconds=4.288,
        created_at="2026-03-09T22:16:08.728353Z",
    )


def test_the_older_ranker_is_a_list(tmp_path: Path) -> None:
    older = RANK | {"value": {"ranker": ["llm_2", "llm_3", "llm_1"]}}
    found = import_judgments(saved(tmp_path, [task(THREE, annotation(older))]))
    assert by_text(found, found.judgments[0]) == {BLINDS: 1, DENIED: 2, DEPENDS: 3}


def test_buckets_rank_when_their_order_is_told(tmp_path: Path) -> None:
    buckets = RANK | {"value": {"ranker": {"poor": ["llm_3"], "best": ["llm_2", "llm_1"], "_": []}}}
    path = saved(tmp_path, [task(THREE, annotation(buckets))])
    with pytest.raises(DataError) as error:
        import_judgments(path)
    where = f'{path}:1: task 7: field "annotations[0].result[0].value.ranker"'
    assert str(error.value) == (
        f'{path}: 1 broken part, so nothing was taken: {where}: bucket "poor" has no place in an order; '
        "name all buckets, the best first; mend them, or skip them to take the rest"
    )
    found = import_judgments(path, names=Names(tiers=("best", "poor")))
    assert by_text(found, found.judgments[0]) == {BLINDS: 1, DEPENDS: 1, DENIED: 2}


def test_what_was_left_in_the_list_is_not_ranked(tmp_path: Path) -> None:
    picked = RANK | {"value": {"ranker": {"_": ["llm_1"], "best": ["llm_2"], "poor": ["llm_3"]}}}
    path = saved(tmp_path, [task(THREE, annotation(picked))])
    found = import_judgments(path, names=Names(tiers=("best", "poor")))
    assert by_text(found, found.judgments[0]) == {BLINDS: 1, DENIED: 2, DEPENDS: None}


@pytest.mark.parametrize("to_name", ["pw", "answer1,answer2"])
@pytest.mark.parametrize(("side", "ranks"), [("left", {DEPENDS: 1, BLINDS: 2}), ("right", {DEPENDS: 2, BLINDS: 1})])
def test_pairwise_gives_a_comparison(tmp_path: Path, side: str, ranks: dict[str, int], to_name: str) -> None:
    who = {"id": 3, "email": "ann@example.org", "first_name": "Ann", "last_name": "Lee"}
    found = import_judgments(saved(tmp_path, [task(TWO, annotation(pairwise(side, to_name), by=who))]))
    [judgment] = found.judgments
    assert judgment.kind == "comparison"
    assert judgment.criterion == "preference"
    assert by_text(found, judgment) == ranks
    assert judgment.rater == "label-studio-3"
    assert "example" not in repr(judgment)
    assert "Lee" not in repr(judgment)


def test_right_is_what_to_name_has_second(tmp_path: Path) -> None:
    found = import_judgments(saved(tmp_path, [task(TWO, annotation(pairwise("right", "answer2,answer1")))]))
    assert by_text(found, found.judgments[0]) == {DEPENDS: 1, BLINDS: 2}


def test_ratings_are_by_the_name_of_their_tag(tmp_path: Path) -> None:
    said = annotation(rating(4, to_name="answer1"), rating(2, to_name="answer2"), rating(5, name="tone-answer2"))
    found = import_judgments(saved(tmp_path, [task(TWO, said)]))
    first, second = found.judgments
    assert (first.kind, first.criterion) == ("rating", "quality")
    assert values_by_text(found, first) == {DEPENDS: 4, BLINDS: 2}
    assert (second.criterion, values_by_text(found, second)) == ("tone", {BLINDS: 5})


@pytest.mark.parametrize(("label", "value"), [("Good", 1.0), ("thumbs-down", 0.0), ("👍", 1.0), ("Meh", 0.0)])
def test_choices_say_good_or_bad(tmp_path: Path, label: str, value: float) -> None:
    path = saved(tmp_path, [task(ONE, annotation(choices(label)))])
    [judgment] = import_judgments(path, names=Names(meanings={"Meh": "bad"})).judgments
    assert (judgment.kind, judgment.values, judgment.ranks) == ("binary", {"preference": value}, ())


@pytest.mark.parametrize(
    ("label", "ranks", "values"),
    [
        ("Left", {DEPENDS: 1, BLINDS: 2}, {}),
        ("answer2", {DEPENDS: 2, BLINDS: 1}, {}),
        ("Tie", {DEPENDS: 1, BLINDS: 1}, {}),
        ("Both bad", {DEPENDS: 1, BLINDS: 1}, {"both_bad": 1.0}),
    ],
)
def test_choices_say_which_of_two(tmp_path: Path, label: str, ranks: dict[str, int], values: dict[str, float]) -> None:
    found = import_judgments(saved(tmp_path, [task(TWO, annotation(choices(label)))]))
    [judgment] = found.judgments
    assert (judgment.kind, by_text(found, judgment), judgment.values) == ("comparison", ranks, values)


def test_choices_name_the_best_of_several(tmp_path: Path) -> None:
    found = import_judgments(saved(tmp_path, [task(THREE, annotation(choices("llm_2")))]))
    [judgment] = found.judgments
    assert (judgment.kind, by_text(found, judgment)) == ("ranking", {BLINDS: 1, DEPENDS: 2, DENIED: 2})


def test_flags_go_with_what_else_is_said(tmp_path: Path) -> None:
    said = annotation(choices("Unsafe", "Wrong language", name="flags"), choices("Bad"))
    [judgment] = import_judgments(saved(tmp_path, [task(ONE, said)])).judgments
    assert list(judgment.flags.values()) == [("unsafe", "wrong-language")]
    assert judgment.values == {"preference": 0.0}


def test_flags_alone_are_a_judgment(tmp_path: Path) -> None:
    [judgment] = import_judgments(saved(tmp_path, [task(ONE, annotation(choices("Unsafe")))])).judgments
    assert (judgment.kind, judgment.values, list(judgment.flags.values())) == ("binary", {}, [("unsafe",)])


def test_what_is_no_judgment_is_left_out_and_told(tmp_path: Path) -> None:
    area = {"from_name": "why", "to_name": "prompt", "type": "textarea", "value": {"text": ["clear"]}}
    said = [annotation(was_cancelled=True), annotation(), annotation(area, ranked("llm_2", "llm_1"))]
    path = saved(tmp_path, [task(THREE, *said)])
    found = import_judgments(path)
    assert found.left_out == [
        f"{path}:1: skipped: annotations[0] was cancelled by its rater",
        f"{path}:1: skipped: annotations[1] says nothing",
        f'{path}:1: skipped: annotations[2].result[0] is of type "textarea", which neither orders nor rates',
    ]
    assert not found.problems
    assert by_text(found, found.judgments[0]) == {BLINDS: 1, DEPENDS: 2, DENIED: None}


MEANS = "good, bad, tie, both-bad, first, second, gibberish, unsafe, refusal, wrong-language, truncated, error"
LABEL_STUDIO_FAULTS: list[tuple[dict[str, Any], str, str]] = [
    (
        task(THREE, annotation(ranked("llm_2", "llm_9"))),
        "annotations[0].result[0].value.ranker",
        '"llm_9" is no answer; rank "llm_1", "llm_2", "llm_3"',
    ),
    (
        task(THREE, annotation(ranked("llm_2", "llm_2"))),
        "annotations[0].result[0].value.ranker",
        '"llm_2" comes twice; rank each answer once',
    ),
    (
        task(THREE, annotation(ranked("llm_2"))),
        "annotations[0].result[0].value.ranker",
        "ranks 1 of the answers; a ranking orders two at least",
    ),
    (
        task(THREE, annotation(pairwise("left"))),
        "annotations[0].result[0]",
        "compares two of 3 answers; name the two, the left one first",
    ),
    (
        task(TWO, annotation(pairwise("middle"))),
        "annotations[0].result[0].value.selected",
        'got "middle"; "left" or "right"',
    ),
    (
        task(TWO, annotation(pairwise("left"), by=None)),
        "annotations[0].completed_by",
        "got null; export with the ids of users, or nobody knows whose word it is",
    ),
    (
        task(TWO, annotation(pairwise("left"), lead_time=-1)),
        "annotations[0].lead_time",
        "got -1; a number of seconds from 0 up, or null",
    ),
    (
        task(ONE, annotation(rating("five"))),
        "annotations[0].result[0].value.rating",
        '"five" is no rating; give a finite number',
    ),
    (
        task(ONE, annotation(choices("Meh"))),
        "annotations[0].result[0].value.choices",
        'label "Meh" has no meaning here; say which it means: ' + MEANS,
    ),
    (
        task(TWO, annotation(choices("Good"))),
        "annotations[0].result[0].value.choices",
        '"Good" is said of 2 answers; it can be said of one',
    ),
    (
        task(TWO, annotation(rating(3))),
        "annotations[0].result[0]",
        '"quality" rates one of 2 answers; name it in the question, one of "answer1", "answer2"',
    ),
    (
        task(TWO, annotation(pairwise("left"), choices("Tie"))),
        "annotations[0].result[1].value.choices",
        'orders the answers by "preference" a second time; keep one of the two',
    ),
    (
        task({"words": HOT, "answer1": "a"}, annotation(pairwise("left"))),
        "data",
        'none of "words", "answer1" is called a prompt; name the field that holds it',
    ),
    (
        task({"prompt": HOT, "context": "a"}, annotation(pairwise("left"))),
        "data",
        'which of "prompt", "context" are answers is not clear; name the fields that hold them',
    ),
    (
        task(THREE | {"items": [{"id": "a", "body": "x"}, {"id": "a", "body": "y"}]}, annotation(ranked("a"))),
        "data.items[1].id",
        '"a" comes twice; give each its own id',
    ),
    (
        task(TWO | {"answer2": " "}, annotation(pairwise("left"))),
        "data.answer2",
        "empty; write some text or remove the row",
    ),
    (
        task(TWO | {"prompt": 3}, annotation(pairwise("left"))),
        "data.prompt",
        "expected text, got a number; write a string",
    ),
    (task(TWO) | {"annotations": {}}, "annotations", "expected a list, got an object; export it anew"),
]


@pytest.mark.parametrize(("row", "field", "fault"), LABEL_STUDIO_FAULTS, ids=range(len(LABEL_STUDIO_FAULTS)))
def test_a_broken_task_is_named_and_the_rest_can_be_taken(
    tmp_path: Path, row: dict[str, Any], field: str, fault: str
) -> None:
    told = f'task 7: field "{field}": {fault}'
    good = task({"prompt": "Hi.", "answer1": "Hello.", "answer2": "Go away."}, annotation(pairwise("left")), id=8)
    path = tmp_path / "export.json"
    path.write_text(f"[{json.dumps(good)},\n{json.dumps(row)}]", encoding="utf-8")
    found = import_judgments(path, on_problem="skip")
    assert found.problems == [f"{path}:2: {told}"]
    assert [by_text(found, one) for one in found.judgments] == [{"Hello.": 1, "Go away.": 2}]
    with pytest.raises(DataError) as error:
        import_judgments(path)
    assert str(error.value) == (
        f"{path}: 1 broken part, so nothing was taken: {path}:2: {told}; mend them, or skip them to take the rest"
    )


def test_a_broken_annotation_takes_no_other_along(tmp_path: Path) -> None:
    said = [annotation(pairwise(side), by=n) for n, side in enumerate(["left", "up", "right"])]
    found = import_judgments(saved(tmp_path, [task(TWO, *said)]), on_problem="skip")
    assert [one.rater for one in found.judgments] == ["label-studio-0", "label-studio-2"]
    assert len(found.problems) == 1


def test_the_first_problems_and_their_number_are_told(tmp_path: Path) -> None:
    path = saved(tmp_path, [task(TWO, *(annotation(pairwise("up"), by=n) for n in range(5)))])
    with pytest.raises(DataError, match=r"5 broken parts, so nothing was taken: ") as error:
        import_judgments(path)
    assert str(error.value).count('got "up"') == 3
    assert " | and 2 more; " in str(error.value)
    assert "\n" not in str(error.value)


def test_fields_can_be_named(tmp_path: Path) -> None:
    data = {"words": HOT, "prompt": "not this", "b": BLINDS, "a": DEPENDS}
    path = saved(tmp_path, [task(data, annotation(pairwise("left")))])
    found = import_judgments(path, names=Names(prompt="words", answers=("b", "a")))
    assert found.candidates[0].prompt == Prompt(HOT)
    assert by_text(found, found.judgments[0]) == {BLINDS: 1, DEPENDS: 2}
    with pytest.raises(DataError, match=r'"question" is not among "words", "prompt", "b", "a"; name the field'):
        import_judgments(path, names=Names(prompt="question"))


def test_a_meaning_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match='label "Meh": there is no meaning "baad"; did you mean "bad"'):
        Names(meanings={"Meh": "baad"})


def test_an_address_is_no_pseudonym(tmp_path: Path) -> None:
    found = import_judgments(saved(tmp_path, [task(TWO, annotation(pairwise("left"), by="ann@example.org"))]))
    assert found.judgments[0].rater.startswith("label-studio-")
    assert "@" not in found.judgments[0].rater


def test_a_task_of_its_own_file(tmp_path: Path) -> None:
    """As they are kept in cloud storage, over several lines."""
    path = tmp_path / "7.json"
    path.write_text(json.dumps(task(TWO, annotation(pairwise("left"))), indent=2), encoding="utf-8")
    assert len(import_judgments(path).judgments) == 1


# Argilla

USER, OTHER = "3fa85f64-5717-4562-b3fc-2c963f66afa6", "9b2e1f0a-0000-4000-8000-000000000001"
FIELDS = {"prompt": HOT, "response-1": DEPENDS, "response-2": BLINDS}
SAID: dict[str, list[tuple[str, Any]]] = {
    "preference": [
        (USER, [{"rank": 1, "value": "response-2"}, {"rank": 2, "value": "response-1"}]),
        (OTHER, [{"rank": 1, "value": "response-1"}, {"rank": 1, "value": "response-2"}]),
    ],
    "response-1-quality": [(USER, 4)],
    "correction": [(OTHER, "Close the blinds at noon.")],
}


def argilla_2() -> dict[str, Any]:
    responses = {name: [{"value": v, "user_id": user} for user, v in said] for name, said in SAID.items()}
    about = {"id": "r1", "metadata": {}, "suggestions": {}, "vectors": {}, "_server_id": None}
    return about | {"fields": FIELDS, "responses": responses}


def argilla_2_flat() -> dict[str, Any]:
    row: dict[str, Any] = {"id": "r1", "_server_id": None} | FIELDS
    for name, said in SAID.items():
        row[f"{name}.responses"] = [value for _, value in said]
        row[f"{name}.responses.users"] = [user for user, _ in said]
        row[f"{name}.responses.status"] = ["submitted"] * len(said)
    return row | {"preference.suggestion": None, "preference.suggestion.score": None}


def argilla_1() -> dict[str, Any]:
    responses = [
        {
            "user_id": who,
            "status": "submitted",
            "values": {name: {"value": v} for name, said in SAID.items() for user, v in said if user == who},
        }
        for who in (USER, OTHER)
    ]
    return {"external_id": "r1", "fields": FIELDS, "metadata": {}, "responses": responses, "suggestions": []}


def argilla_1_flat() -> dict[str, Any]:
    """Rankings are columns here, since `datasets` keeps a sequence of objects so."""
    row: dict[str, Any] = {**FIELDS, "external_id": "r1", "metadata": "{}"}
    for name, said in SAID.items():
        kept = [
            {key: [entry[key] for entry in value] for key in ("rank", "value")} if isinstance(value, list) else value
            for _, value in said
        ]
        answers = zip(said, kept, strict=True)
        row[name] = [{"user_id": user, "value": value, "status": "submitted"} for (user, _), value in answers]
        row[f"{name}-suggestion"] = None
        row[f"{name}-suggestion-metadata"] = {"type": None, "score": None, "agent": None}
    return row


SHAPES = [argilla_2, argilla_2_flat, argilla_1, argilla_1_flat]


@pytest.mark.parametrize("made", SHAPES)
def test_the_four_shapes_of_argilla_say_the_same(tmp_path: Path, made: Callable[[], dict[str, Any]]) -> None:
    found = import_judgments(saved(tmp_path, [made()]))
    assert not found.problems
    assert not found.left_out
    said = {(one.rater, one.kind): one for one in found.judgments}
    assert len(found.judgments) == len(said) == 4
    mine, other = f"argilla-{USER}", f"argilla-{OTHER}"
    assert by_text(found, said[mine, "comparison"]) == {DEPENDS: 2, BLINDS: 1}
    assert by_text(found, said[other, "comparison"]) == {DEPENDS: 1, BLINDS: 1}
    assert said[mine, "rating"].criterion == "quality"
    assert values_by_text(found, said[mine, "rating"]) == {DEPENDS: 4}
    assert said[other, "demonstration"].text == "Close the blinds at noon."
    same = import_judgments(saved(tmp_path, [argilla_2()], "other.json"))
    assert sorted(one.id for one in found.judgments) == sorted(one.id for one in same.judgments)
    assert found.candidates == same.candidates


def test_argilla_from_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "records.parquet"
    write_rows(path, [argilla_1_flat() | {"response-1-quality": [], "correction": []}])
    found = import_judgments(path)
    assert [by_text(found, one) for one in found.judgments] == [{DEPENDS: 2, BLINDS: 1}, {DEPENDS: 1, BLINDS: 1}]


def test_prompts_of_argilla_may_be_conversations(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": HOT}, {"role": "assistant", "content": "Since when?"}]
    talk.append({"role": "user", "content": "Since noon."})
    row = argilla_2() | {"fields": {"chat": talk, "response": BLINDS}, "responses": {}}
    row["responses"] = {"helpful": [{"value": "yes", "user_id": USER}]}
    found = import_judgments(saved(tmp_path, [row]))
    assert found.candidates[0].prompt == Prompt(tuple(Message(**turn) for turn in talk))
    assert (found.judgments[0].criterion, found.judgments[0].values) == ("helpful", {"helpful": 1.0})


def test_drafts_and_what_was_discarded_are_left_out(tmp_path: Path) -> None:
    row = argilla_1()
    row["responses"][0]["status"] = "draft"
    row["responses"][1] |= {"status": "discarded", "values": None}
    row["responses"].append({"user_id": USER, "status": "submitted", "values": {}})
    path = saved(tmp_path, [row])
    found = import_judgments(path)
    assert (found.judgments, found.problems) == ([], [])
    assert found.left_out == [
        f"{path}:1: skipped: responses[0].values.preference is a draft",
        f"{path}:1: skipped: responses[0].values.response-1-quality is a draft",
    ]


@pytest.mark.parametrize("made", [argilla_2, argilla_1])
def test_suggestions_are_judgments_of_models_when_asked(tmp_path: Path, made: Callable[[], dict[str, Any]]) -> None:
    ranking = [{"rank": 1, "value": "response-1"}, {"rank": 2, "value": "response-2"}]
    known = {"value": ranking, "score": None, "agent": "some model"}
    row = made() | {"responses": type(made()["responses"])()}
    row["suggestions"] = {"preference": known} if made is argilla_2 else [{"question_name": "preference", **known}]
    path = saved(tmp_path, [row])
    assert import_judgments(path).judgments == []
    found = import_judgments(path, names=Names(suggestions=True))
    [judgment] = found.judgments
    assert (judgment.rater, judgment.rater_kind) == ("argilla-some-model", "ai")
    assert by_text(found, judgment) == {DEPENDS: 1, BLINDS: 2}


ARGILLA_FAULTS: list[tuple[str, Any, str]] = [
    ("preference", [{"rank": 1, "value": "response-3"}], '"response-3" is no answer; rank "response-1", "response-2"'),
    ("preference", [{"rank": 0, "value": "response-1"}], "0 is no rank; 1 is the best, then 2, 3 ..."),
    ("preference", {"rank": [1], "value": []}, "1 ranks for 0 answers; give one or null to each"),
    ("verdict", "somewhat", 'label "somewhat" has no meaning here; say which it means: good, bad, tie, both-bad, '),
    ("quality", 3, '"quality" rates one of 2 answers; name it in the question, one of "response-1", "response-2"'),
    ("verdict", True, "got true; a ranking, a rating, a label or text"),
]


@pytest.mark.parametrize(("question", "value", "told"), ARGILLA_FAULTS, ids=[told[:30] for *_, told in ARGILLA_FAULTS])
def test_a_broken_record_is_named_and_the_rest_can_be_taken(
    tmp_path: Path, question: str, value: Any, told: str
) -> None:
    row = argilla_2()
    row["responses"][question] = [{"value": value, "user_id": USER}]
    path = lines(tmp_path, row)
    found = import_judgments(path, on_problem="skip")
    [problem] = found.problems
    assert problem.startswith(f'{path}:1: record "r1": field "responses.{question}[0]": {told}')
    assert {one.rater for one in found.judgments} <= {f"argilla-{OTHER}"}
    with pytest.raises(DataError, match="1 broken part, so nothing was taken"):
        import_judgments(path)


# Open-Assistant, TRL


def node(text: str, role: str, *replies: Any, **known: Any) -> dict[str, Any]:
    return {"text": text, "role": role, "review_result": True, "deleted": False, "replies": list(replies), **known}


def tree(*replies: Any) -> dict[str, Any]:
    return {"message_tree_id": "t", "tree_state": "ready_for_export", "prompt": node(HOT, "prompter", *replies)}


def test_a_tree_is_a_ranking(tmp_path: Path) -> None:
    replies = [node(text, "assistant", rank=rank, message_id=f"m{n}") for n, (text, rank) in enumerate(
        [(DEPENDS, 1), (BLINDS, 0), (DENIED, None)]
    )]  # fmt: skip
    found = import_judgments(lines(tmp_path, tree(*replies), tree(node("Alone.", "assistant", rank=0))))
    [judgment] = found.judgments
    assert judgment.completions == ("m0", "m1", "m2")
    assert (judgment.ranks, judgment.rater) == ((2, 1, None), "open-assistant")
    assert found.candidates == [
        Candidates(Prompt.user(HOT), tuple(Completion(t, id=f"m{n}") for n, t in enumerate([DEPENDS, BLINDS, DENIED])))
    ]


def test_real_trees(data_dir: Path) -> None:
    """212 turns with two ranked replies or more, as tests/data counts them."""
    found = import_judgments(data_dir / "oasst" / "en_100_tree.jsonl.gz")
    assert len(found.judgments) == len(found.candidates) == 212
    assert not found.problems
    known = {one.id for item in found.candidates for one in item.completions}
    assert all(set(judgment.completions) <= known for judgment in found.judgments)


BEHIND = (
    "{}: not counted, since a judgment is one rater's word: {}; what each rater said stands in the "
    "judgments.jsonl of a dataset"
)


def test_preferences_are_the_word_of_one_rater(tmp_path: Path) -> None:
    rows = [{"prompt": HOT, "chosen": BLINDS, "rejected": DENIED, **known} for known in ({}, {"p": 0.2}, {"p": 0.5})]
    found = import_judgments(lines(tmp_path, *rows, rows[0]))
    assert len(found.candidates) == 1
    assert [by_text(found, one) for one in found.judgments] == [
        {BLINDS: 1, DENIED: 2},
        {BLINDS: 2, DENIED: 1},
        {BLINDS: 1, DENIED: 1},
    ]
    assert [one.values for one in found.judgments] == [{}, {"p": 0.2}, {"p": 0.5}]
    assert {one.rater for one in found.judgments} == {"preferences"}
    assert all(one.kind == "comparison" and one.shown_order == () for one in found.judgments)
    assert found.left_out == [
        f"{tmp_path}/export.jsonl:4: skipped: says again what was said before",
        BEHIND.format(f"{tmp_path}/export.jsonl", "p"),
    ]


def test_preferences_in_their_other_shapes(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": HOT}]
    chosen, rejected = ([*turns, {"role": "assistant", "content": text}] for text in (BLINDS, DENIED))
    apart = {"prompt": turns, "chosen": chosen[1:], "rejected": rejected[1:]}
    talks = {side: [Message(**turn) for turn in said] for side, said in (("chosen", chosen), ("rejected", rejected))}
    hh = {side: transcript(talk) for side, talk in talks.items()}
    shapes = (apart, {"chosen": chosen, "rejected": rejected}, hh)
    ids = {import_judgments(lines(tmp_path, row)).judgments[0].id for row in shapes}
    assert len(ids) == 1


def test_a_broken_preference_is_named_by_its_line(tmp_path: Path) -> None:
    good = {"prompt": HOT, "chosen": BLINDS, "rejected": DENIED}
    path = lines(tmp_path, good, good | {"rejected": BLINDS}, good | {"p": 2}, good | {"prompt": "Else?"})
    found = import_judgments(path, on_problem="skip")
    assert len(found.judgments) == 2
    assert found.problems == [
        f'{path}:2: field "rejected": chosen and rejected are equal; a comparison needs two answers; remove the row',
        f'{path}:3: field "p": got 2.0; a probability lies between 0 and 1',
    ]


def test_unpaired_preferences_are_yes_or_no_of_one_rater(tmp_path: Path) -> None:
    """TRL's rows for KTO; the second as a dataset of ours has them."""
    good = {"prompt": HOT, "completion": BLINDS, "label": True}
    bad = {
        "prompt": HOT,
        "completion": DENIED,
        "label": False,
        "p": 0.2,
        "weight": 0.5,
        "num_labels": 3,
        "margin": None,
    }
    path = lines(tmp_path, good, bad, good)
    found = import_judgments(path)
    texts = {one.id: one.text for item in found.candidates for one in item.completions}
    said = [(texts[one.completions[0]], one.kind, one.criterion, one.values, one.rater) for one in found.judgments]
    assert said == [
        (BLINDS, "binary", "preference", {"preference": 1.0}, "preferences"),
        (DENIED, "binary", "preference", {"preference": 0.0}, "preferences"),
    ]
    again, behind = found.left_out
    assert again == f"{path}:3: skipped: says again what was said before"
    assert behind == BEHIND.format(path, "p, weight, num_labels")


def test_a_broken_unpaired_preference_is_named_by_its_line(tmp_path: Path) -> None:
    good = {"prompt": HOT, "completion": BLINDS, "label": True}
    path = lines(tmp_path, good, good | {"label": 1}, good | {"p": 0.2}, good | {"completion": DENIED, "label": False})
    found = import_judgments(path, on_problem="skip")
    assert len(found.judgments) == 2
    assert [problem.split(": ")[:2] for problem in found.problems] == [
        [f"{path}:2", 'field "label"'],
        [f"{path}:3", 'field "p"'],
    ]


@pytest.mark.parametrize("side", ["prompt", "chosen"])
def test_a_nul_breaks_its_row_alone(tmp_path: Path, side: str) -> None:
    """PostgreSQL has no place for one."""
    good = {"prompt": HOT, "chosen": BLINDS, "rejected": DENIED}
    path = lines(tmp_path, good, good | {side: "c\0"}, good | {"rejected": DEPENDS})
    found = import_judgments(path, on_problem="skip")
    assert len(found.judgments) == len(found.candidates) == 2
    [problem] = found.problems
    assert problem.startswith(f"{path}:2: ")
    assert "NUL" in problem
    with pytest.raises(DataError, match="1 broken part, so nothing was taken"):
        import_judgments(path)


# Files of our own


def own() -> tuple[list[Candidates], list[Judgment]]:
    offered = [Candidates(Prompt(HOT), (Completion(DEPENDS, id="a"), Completion(BLINDS, id="b")))]
    said = [
        Judgment(id=f"j{n}", item="i", prompt=Prompt(HOT).id, completions=("a", "b"), rater=rater, ranks=(2, 1))
        for n, rater in enumerate(["ann", "ben"])
    ]
    return offered, said


def test_own_judgments_are_themselves(tmp_path: Path) -> None:
    offered, said = own()
    path = tmp_path / "judgments.jsonl"
    write_judgments(path, said)
    assert import_judgments(path, candidates=offered) == Imported(offered, said, [], [])
    assert import_judgments(path) == Imported([], said, [], [])


def test_own_judgments_that_are_broken(tmp_path: Path) -> None:
    offered, said = own()
    row = {
        "id": "x",
        "item": "i",
        "prompt": said[0].prompt,
        "completions": ["a", "b"],
        "rater": "cleo",
        "ranks": [1, 2],
    }
    rows = [row, row, row | {"id": "y", "ranks": [1]}, row | {"id": "z", "completions": ["a", "c"]}]
    rows += [row | {"id": "w", "prompt": "other"}, row | {"id": "v"}]
    path = lines(tmp_path, *rows, name="judgments.jsonl")
    found = import_judgments(path, candidates=offered, on_problem="skip")
    assert [one.id for one in found.judgments] == ["x", "v"]
    assert [problem.split("; ")[0] for problem in found.problems] == [
        f'{path}:2: field "id": "x" was given to an earlier row',
        f'{path}:3: field "ranks": 1 for 2 completions',
        f'{path}:4: field "completions": "c" has no text',
        f'{path}:5: field "prompt": "other" is not what "a" answers',
    ]
    with pytest.raises(DataError, match="4 broken parts, so nothing was taken"):
        import_judgments(path, candidates=offered)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("criterion", "help\0ful", "NUL"),
        ("criterion", "help\nful", "control character"),
        ("criterion", 81 * "x", "81 characters"),
        ("rater", "an\0n", "NUL"),
        ("flags", {"a": ["un\0safe"]}, "NUL"),
        ("created_at", "yesterday", "'yesterday' is no time; write ISO 8601, such as 2026-11-20T10:00:00+00:00"),
        ("created_at", "0001-01-01T00:00:00+14:00", "is no time"),  # before the year 1 in UTC
        ("created_at", "20 Nov 2026", "is no time"),
    ],
)
def test_what_no_store_could_hold_breaks_its_row_alone(tmp_path: Path, field: str, value: Any, told: str) -> None:
    offered, said = own()
    row = {"item": "i", "prompt": said[0].prompt, "completions": ["a", "b"], "rater": "ann", "ranks": [1, 2]}
    path = lines(
        tmp_path, row | {"id": "x"}, row | {"id": "y", field: value}, row | {"id": "z"}, name="judgments.jsonl"
    )
    found = import_judgments(path, candidates=offered, on_problem="skip")
    assert [one.id for one in found.judgments] == ["x", "z"]
    [problem] = found.problems
    assert problem.startswith(f"{path}:2: ")
    assert told in problem


@pytest.mark.parametrize(
    "said", ["2026-11-20T10:00:00+00:00", "2026-11-20T10:00:00.5Z", "2026-11-20 10:00", "2026-11-20", ""]
)
def test_times_that_are_taken(tmp_path: Path, said: str) -> None:
    offered, [judgment, _] = own()
    path = tmp_path / "judgments.jsonl"
    write_judgments(path, [replace(judgment, created_at=said)])
    assert import_judgments(path, candidates=offered).judgments[0].created_at == said


# Files


def test_the_same_judgment_has_the_same_id_from_any_file(tmp_path: Path) -> None:
    rows = [
        task(THREE, annotation(ranked("llm_2", "llm_1", "llm_3"))),
        task(TWO, annotation(pairwise("left")), id=8),
        task(TWO, annotation(pairwise("left"), by=11), id=9),  # the same two answers once more: the same item
    ]
    first = import_judgments(saved(tmp_path, rows))
    packed = tmp_path / "again.jsonl.gz"
    packed.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in reversed(rows)).encode()))
    again = import_judgments(packed)
    assert {one.id: one for one in first.judgments} == {one.id: one for one in again.judgments}
    assert set(first.candidates) == set(again.candidates)
    assert len(first.candidates) == 2
    assert len(first.judgments) == 3


def test_imported_judgments_have_a_consensus(tmp_path: Path) -> None:
    said = [annotation(ranked("llm_2", "llm_1", "llm_3"), by=n) for n in range(4)]
    found = import_judgments(saved(tmp_path, [task(THREE, *said)]))
    pairs = consensus(found.judgments).pairs
    texts = {one.id: one.text for item in found.candidates for one in item.completions}
    assert {(texts[pair.first], texts[pair.second]) for pair in pairs} == {
        (BLINDS, DEPENDS),
        (BLINDS, DENIED),
        (DEPENDS, DENIED),
    }


def test_a_line_that_is_no_json_hides_no_other(tmp_path: Path) -> None:
    good = json.dumps({"prompt": HOT, "chosen": BLINDS, "rejected": DENIED}).encode()
    path = tmp_path / "pairs.jsonl"
    twice = b'{"prompt": "a", "prompt": "b"}'
    path.write_bytes(b"\n".join([b'{"prompt": ', b"", b"\xff", b"3", twice, good + b" {}", b"[" * 100_000, good, b""]))
    found = import_judgments(path, on_problem="skip")
    assert len(found.judgments) == 1
    assert [problem.removeprefix(f"{path}:") for problem in found.problems] == [
        "1: not valid JSON: Expecting value; export it anew",
        "3: not UTF-8: byte 1; save the file as UTF-8",
        "4: expected an object, got a number; write one object per row",
        '5: field "prompt": stands twice in one object; keep one of the two',
        "6: something stands behind the object; write one JSON object per line",
        "7: not valid JSON: nested too deeply; export it anew",
    ]


@pytest.mark.parametrize(
    ("rest", "told"),
    [
        ("", "3: not valid JSON: Expecting value; export it anew"),
        (', {"id": ', "2: not valid JSON: Expecting value; export it anew"),
        (" 4]", "2: the list is cut off behind this row; export it anew"),
    ],
)
def test_of_a_list_that_is_cut_off_the_beginning_is_whole(tmp_path: Path, rest: str, told: str) -> None:
    row = json.dumps({"prompt": HOT, "chosen": BLINDS, "rejected": DENIED})
    path = tmp_path / "cut.json"
    path.write_text(f"[{row},\n{row.replace(HOT, 'Why?')}{rest or ','}\n", encoding="utf-8")
    found = import_judgments(path, on_problem="skip")
    assert found.problems == [f"{path}:{told}"]
    assert found.judgments


def test_an_element_that_is_no_row_hides_no_other(tmp_path: Path) -> None:
    row = {"prompt": HOT, "chosen": BLINDS, "rejected": DENIED}
    path = saved(tmp_path, [3, row, {}])
    found = import_judgments(path, on_problem="skip")
    assert len(found.judgments) == 1
    assert found.problems == [
        f"{path}:1: expected an object, got a number; write one object per row",
        f"{path}:1: expected an object, got an empty object; write one object per row",
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "holds no rows; export it anew"),
        (b"[]", "holds no rows; export it anew"),
        (b'[{"a": 1}]', 'no known export has the keys "a"; give Label Studio'),
    ],
)
def test_a_file_that_is_nothing_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "export.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=told):
        import_judgments(path, on_problem="skip")


def test_a_missing_or_damaged_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file; check the name"):
        import_judgments(tmp_path / "none.json")
    path = tmp_path / "cut.json.gz"
    path.write_bytes(gzip.compress(b"[" * 1000)[:20])
    with pytest.raises(DataError, match="damaged gzip file"):
        import_judgments(path)


@pytest.mark.parametrize("text", [text.replace("\0", "") for text in HOSTILE], ids=range(len(HOSTILE)))
def test_hostile_text_is_taken_unchanged(tmp_path: Path, text: str) -> None:
    path = saved(
        tmp_path, [task({"prompt": text, "answer1": text, "answer2": f"{text}!"}, annotation(pairwise("left")))]
    )
    found = import_judgments(path)
    assert found.candidates[0].prompt == Prompt(text)
    assert by_text(found, found.judgments[0]) == {text: 1, f"{text}!": 2}


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_in_a_problem_stays_on_its_line(tmp_path: Path, text: str) -> None:
    path = saved(tmp_path, [task(TWO, annotation(choices(text))), task(TWO, annotation(pairwise(text)))])
    for problem in import_judgments(path, on_problem="skip").problems:
        shown = problem.removeprefix(str(path))
        assert shown.isascii()
        assert shown.isprintable()
        assert len(shown) < 500


@pytest.mark.parametrize("name", ["a\nb", "\u202eb", "\x1b[31m", "\ud800"])
def test_a_hostile_name_stays_on_its_line(tmp_path: Path, name: str) -> None:
    row = argilla_2() | {"responses": {name: [{"value": "maybe", "user_id": USER}]}}
    fields = argilla_2() | {"fields": {"prompt": HOT, f"response{name}": " "}}
    drafts = argilla_1() | {"responses": [{"user_id": USER, "status": "draft", "values": {name: {"value": 1}}}]}
    found = import_judgments(lines(tmp_path, row, fields, drafts), on_problem="skip")
    assert len(found.problems) == 2
    assert len(found.left_out) == 1
    assert all(line.isprintable() for line in found.problems + found.left_out)


ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    10**400,
    "",
    " ",
    "x",
    "\x00",
    [],
    {},
    [[]],
    [{}],
    [None],
    {"id": 1},
    {"": []},
]


def mutated(value: Any, draw: random.Random) -> Any:
    """The same value with one part of it, however deep, replaced by something odd, taken away or doubled."""
    if not isinstance(value, dict | list) or not value or draw.random() < 0.15:
        return draw.choice(ODD)
    key = draw.choice(list(value)) if isinstance(value, dict) else draw.randrange(len(value))
    changed = value.copy()
    if draw.random() < 0.1:
        del changed[key]
    elif draw.random() < 0.1 and isinstance(changed, list):
        changed.append(changed[key])
    else:
        changed[key] = mutated(value[key], draw)
    return changed


@pytest.mark.parametrize(
    "row",
    [
        task(THREE, annotation(ranked("llm_2", "llm_1")), annotation(choices("llm_2"), rating(3, to_name="llm_1"))),
        task(TWO, annotation(pairwise("left")), annotation(choices("Tie"), by={"id": 3})),
        *(made() for made in SHAPES),
        tree(node(BLINDS, "assistant", rank=0), node(DENIED, "assistant", rank=1)),
        {"prompt": HOT, "chosen": BLINDS, "rejected": DENIED, "p": 0.8, "margin": 1.0},
        {"id": "j", "item": "i", "prompt": "p", "completions": ["a", "b"], "rater": "r", "ranks": [1, 2]},
    ],
    ids=range(9),
)
def test_whatever_stands_in_a_row_is_taken_or_told(tmp_path: Path, row: Any) -> None:
    """Behind a whole row come 300 broken ones: none of them stops the file, and no problem runs over its line."""
    draw = random.Random(7)
    broken = [mutated(row, draw) for _ in range(300)]
    path = lines(tmp_path, row, *broken)
    found = import_judgments(path, names=Names(suggestions=True), on_problem="skip")
    assert found.judgments
    assert found.problems
    assert all(problem.startswith(f"{path}:") and problem.isprintable() for problem in found.problems)
    for judgment in found.judgments:
        assert not judgment.ranks or len(judgment.ranks) == len(judgment.completions)
        assert set(judgment.flags) <= set(judgment.completions)
