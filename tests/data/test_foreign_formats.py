"""Other people's shapes of data: by hand-made rows, by every fault, and by the real files where they are."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from tuneful.data.annotations import read_annotations
from tuneful.data.formats import (
    FORMATS,
    detect,
    kinds,
    read,
    read_answers,
    read_candidates,
    read_comparisons,
    read_demonstrations,
    read_prompts,
    read_unpaired,
)
from tuneful.data.transcripts import transcript
from tuneful.data.unpaired import unpaired_row
from tuneful.errors import DataError
from tuneful.records import Comparison, Completion, Demonstration, Message, Prompt, UnpairedPreference

HOT, TAP = "My house is too hot.", "The tap drips."
ASKED = [{"role": "user", "content": HOT}]
ANSWERED = [*ASKED, {"role": "assistant", "content": "Close the blinds."}]
DENIED = [*ASKED, {"role": "assistant", "content": "It is not hot."}]
SAID = "\n\nHuman: My house is too hot.\n\nAssistant: "


def written(folder: Path, *rows: Any) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def node(text: str, role: str, *replies: Any, **known: Any) -> dict[str, Any]:
    return {"text": text, "role": role, "review_result": True, "deleted": False, "replies": list(replies), **known}


def tree(root: Any) -> dict[str, Any]:
    return {"message_tree_id": "t", "tree_state": "ready_for_export", "prompt": root}


ANNOTATION = {
    "instruction": HOT,
    "generator_1": "a",
    "generator_2": "b",
    "output_1": "It is not hot.",
    "output_2": "Close the blinds.",
    "preference": 1.8,
    "annotator": "judge",
}
TREE = tree(
    node(
        HOT,
        "prompter",
        node("Close the blinds.", "assistant", node("And then?", "prompter"), rank=1, message_id="m1"),
        node("Open a window.", "assistant", rank=0, message_id="m0"),
    )
)
TLDR = {
    "info": {"post": "It is hot.", "title": "Hot", "subreddit": "home"},
    "summaries": [{"text": " Hot."}, {"text": " Cold."}],
    "choice": 0,
}
ONE_OF_EACH: dict[str, dict[str, Any]] = {
    "judgments": {"id": "j", "item": "i", "prompt": "p", "completions": ["a", "b"], "rater": "r", "ranks": [1, 2]},
    "annotations": ANNOTATION,
    "trees": TREE,
    "hhh": {"prompt": "x", "text_correct": SAID + "Close the blinds.", "text_incorrect": SAID + "It is not hot."},
    "tldr": TLDR,
    "preferences": {"prompt": HOT, "chosen": "Close the blinds.", "rejected": "It is not hot.", "messages": ANSWERED},
    "transcripts": {"chosen": SAID + "Close the blinds.", "rejected": SAID + "It is not hot."},
    "implicit": {"chosen": ANSWERED, "rejected": DENIED},
    "completions": {"prompt": HOT, "completions": ["Close the blinds."]},
    "unpaired": {"prompt": HOT, "completion": "Close the blinds.", "label": True},
    "demonstrations": {"prompt": HOT, "completion": "Close the blinds."},
    "conversations": {"prompt": HOT, "messages": ANSWERED},
    "prompts": {"prompt": HOT, "source": "x"},
    "dialogues": {"fname": "x", "dialogue": "#Person1#: Hot?", "summary1": "It is hot.", "summary2": "Hot."},
    "questions": {"question_id": 81, "turns": [HOT, "Why?"]},
}


@pytest.mark.parametrize("name", [known.name for known in FORMATS])
def test_every_format_is_known_by_its_keys(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, ONE_OF_EACH[name])
    assert detect(path) == name
    for kind in kinds(path):
        assert len(read(path, kind)) >= (0 if (name, kind) == ("unpaired", "comparisons") else 1)


def test_unknown_keys_list_the_known_formats(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        detect(written(tmp_path, {"question": HOT, "answer": "b"}))
    said = str(error.value)
    assert said.startswith(f'{tmp_path}/rows.jsonl:1: no known format has the keys "question", "answer"; known formats')
    assert "\n" not in said
    for name in ONE_OF_EACH:
        assert (f"{name}: " in said) is (name != "judgments")


def test_judgments_are_not_taken_for_completions(tmp_path: Path) -> None:
    path = written(tmp_path, ONE_OF_EACH["judgments"])
    with pytest.raises(DataError, match=r"holds judgments; expected trees or completions$"):
        read_candidates(path)


FAULTS: list[tuple[str, str, dict[str, Any], str]] = [
    ("annotations", "comparisons", {"preference": 3}, 'field "preference": got 3; '),
    ("annotations", "comparisons", {"preference": "b"}, 'field "preference": expected a number, got text; '),
    ("annotations", "comparisons", {"output_1": None}, 'field "output_1": expected text, got null; '),
    ("annotations", "prompts", {"instruction": " "}, 'field "instruction": empty; '),
    ("trees", "prompts", {"prompt": HOT}, 'field "prompt": expected a message, got text; '),
    ("trees", "prompts", tree(node(HOT, "assistant")), 'field "prompt.role": got \'assistant\'; "prompter" speaks'),
    ("trees", "prompts", tree(node("", "prompter")), 'field "prompt.text": empty; '),
    (
        "trees",
        "prompts",
        tree(node(HOT, "prompter", node("a", "prompter"))),
        'field "prompt.replies[0].role": got \'prompter\'; "assistant" speaks here',
    ),
    (
        "trees",
        "comparisons",
        tree(node(HOT, "prompter", node("a", "assistant", rank="first"))),
        'field "prompt.replies[0].rank": expected a whole number, got text; ',
    ),
    (
        "trees",
        "candidates",
        tree(node(HOT, "prompter", node("a", "assistant", message_id=3))),
        'field "prompt.replies[0].message_id": expected text, got a number; ',
    ),
    ("trees", "prompts", tree({**node(HOT, "prompter"), "replies": "a"}), 'field "prompt.replies": expected a list'),
    ("hhh", "comparisons", {"text_correct": "Hello"}, 'field "text_correct": cannot be read; not a transcript: \'He'),
    ("hhh", "comparisons", {"text_incorrect": ["a"]}, 'field "text_incorrect": expected text, got a list; '),
    ("tldr", "comparisons", {"choice": 2}, 'field "choice": got 2; 0 or 1'),
    ("tldr", "comparisons", {"choice": True}, 'field "choice": got True; 0 or 1'),
    ("tldr", "comparisons", {"summaries": [{"text": "a"}]}, 'field "summaries": expected two summaries; '),
    ("tldr", "comparisons", {"summaries": [{"text": "a"}, {}]}, 'field "summaries[1].text": expected text, got null; '),
    ("tldr", "comparisons", {"info": {"post": "a"}}, 'field "info.subreddit": expected text, got null; '),
    ("transcripts", "comparisons", {"chosen": ANSWERED}, 'field "chosen": expected text, got a list; '),
    ("transcripts", "comparisons", {"chosen": "Human: a"}, 'field "chosen": cannot be read; not a transcript: '),
    ("implicit", "comparisons", {"chosen": 3}, 'field "chosen": expected text, got a number; '),
    ("implicit", "comparisons", {"rejected": "a"}, 'field "rejected": expected a list of messages, got text; '),
    ("implicit", "comparisons", {"rejected": [{"role": "user"}]}, 'field "rejected[0]": not a message; '),
    ("implicit", "comparisons", {"weight": -1}, 'field "weight": got -1.0; '),
    ("unpaired", "unpaired", {"label": 1}, 'field "label": expected true or false, got a number; '),
    ("unpaired", "unpaired", {"label": None}, 'field "label": expected true or false, got null; '),
    ("unpaired", "unpaired", {"completion": ""}, 'field "completion": empty; '),
    ("unpaired", "unpaired", {"p": 1.5}, 'field "p": got 1.5; a probability lies between 0 and 1'),
    ("unpaired", "unpaired", {"p": 0.2}, 'field "p": got 0.2 beside the label true; p is the probability that'),
    ("unpaired", "unpaired", {"weight": 0}, 'field "weight": got 0.0; a weight is above 0; '),
    ("unpaired", "comparisons", {"prompt": []}, 'field "prompt": an empty list; '),
    (
        "demonstrations",
        "demonstrations",
        {"completion": ANSWERED},
        'field "completion": expected one assistant message',
    ),
    ("demonstrations", "demonstrations", {"completion": ""}, 'field "completion": empty; '),
    (
        "demonstrations",
        "demonstrations",
        {"completion": [{"role": "assistant", "content": " "}]},
        'field "completion[0].content": empty; ',
    ),
    (
        "conversations",
        "demonstrations",
        {"messages": ASKED},
        'field "messages[0].role": the last message is the user\'s',
    ),
    (
        "conversations",
        "demonstrations",
        {"messages": ANSWERED[1:]},
        'field "messages": no turn stands before the answer',
    ),
    ("conversations", "prompts", {"messages": ANSWERED[1:]}, 'field "messages[0].role": the last message is the assis'),
    (
        "conversations",
        "demonstrations",
        {"messages": "Hi"},
        'field "messages": expected a list of messages, got text; ',
    ),
    ("conversations", "demonstrations", {"messages": [*ASKED, {"role": "assistant", "content": None}]}, "got null; "),
    ("dialogues", "demonstrations", {"dialogue": ["a"]}, 'field "dialogue": expected text, got a list; '),
    ("dialogues", "demonstrations", {"summary1": None, "summary2": None}, 'field "summary": missing; '),
    ("dialogues", "demonstrations", {"summary2": ""}, 'field "summary2": empty; '),
    ("questions", "prompts", {"turns": HOT}, 'field "turns": expected a list of at least one turn; '),
    ("questions", "prompts", {"turns": [""]}, 'field "turns[0]": empty; '),
]


@pytest.mark.parametrize(("name", "kind", "bad", "message"), FAULTS, ids=[f"{n}: {m}" for n, _, _, m in FAULTS])
def test_a_bad_row_is_one_line_with_its_place(
    tmp_path: Path, name: str, kind: Any, bad: dict[str, Any], message: str
) -> None:
    good = ONE_OF_EACH[name]
    with pytest.raises(DataError) as error:
        read(written(tmp_path, good, good | bad), kind, on_skip=lambda _: None)
    assert str(error.value).startswith(f"{tmp_path}/rows.jsonl:2: field ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [name for name in ONE_OF_EACH if name not in ("prompts", "judgments")])
def test_a_row_without_the_keys_of_its_format_is_named(tmp_path: Path, name: str) -> None:
    good = ONE_OF_EACH[name]
    [keys] = [known.keys for known in FORMATS if known.name == name]
    for key in keys - {"preference", "message_tree_id"}:  # no preference is a tie; the id of a tree says nothing
        path = written(tmp_path, good, {k: v for k, v in good.items() if k != key})
        faults = []
        for kind in kinds(path):
            try:
                read(path, kind, on_skip=lambda _: None)
            except DataError as error:
                faults.append(str(error))
        assert faults
        assert all(fault.startswith(f'{path}:2: field "{key}": missing; ') for fault in faults)


def test_implicit_prompts_are_what_both_sides_begin_with(tmp_path: Path) -> None:
    talk = Prompt.user(HOT)
    path = written(tmp_path, {"chosen": ANSWERED, "rejected": DENIED, "p": 0.9})
    assert read_comparisons(path) == [Comparison(talk, "Close the blinds.", "It is not hot.", p=0.9)]
    assert read_prompts(path) == [talk]
    text = {"chosen": "The sky is blue.", "rejected": "The sky is green."}
    assert read_comparisons(written(tmp_path, text)) == [Comparison(Prompt("The sky is"), " blue.", " green.")]


def test_a_prompt_that_both_sides_repeat_is_not_asked_twice(tmp_path: Path) -> None:
    """As UltraFeedback is published: the prompt as text, and again as the first turn of both sides."""
    path = written(tmp_path, {"prompt": HOT, "chosen": ANSWERED, "rejected": DENIED})
    assert detect(path) == "preferences"
    assert read_comparisons(path) == [Comparison(Prompt.user(HOT), "Close the blinds.", "It is not hot.")]
    assert read_prompts(path) == [Prompt.user(HOT)]


def test_pairs_that_are_none_are_skipped_and_told(tmp_path: Path) -> None:
    other = [{"role": "user", "content": "Hi."}, ANSWERED[1]]
    talks = [(ANSWERED, DENIED), (ANSWERED, other), (ANSWERED, ANSWERED), (ASKED, [other[0]])]
    path = written(tmp_path, *({"chosen": chosen, "rejected": rejected} for chosen, rejected in talks))
    told: list[str] = []
    assert len(read_comparisons(path, on_skip=told.append)) == 1
    assert told == [
        f"{path}:2: skipped: the contexts of chosen and rejected differ",
        f"{path}:3: skipped: chosen and rejected are equal",
        f"{path}:4: skipped: the last turn is not the assistant's",
    ]
    texts = [("a b", "a c"), ("yes", "no"), ("a b", "a b"), ("a b", "a b c")]
    path = written(tmp_path, *({"chosen": chosen, "rejected": rejected} for chosen, rejected in texts))
    told.clear()
    assert read_comparisons(path, on_skip=told.append) == [Comparison(Prompt("a"), " b", " c")]
    assert told == [
        f"{path}:2: skipped: chosen and rejected do not begin alike, so there is no prompt",
        f"{path}:3: skipped: chosen and rejected are equal",
        f"{path}:4: skipped: chosen says nothing after what both begin with",
    ]


def test_unpaired_answers(tmp_path: Path) -> None:
    rows = [(HOT, "a", True), (TAP, "x", True), (HOT, "b", False), (HOT, "c", True), (HOT, "d", False)]
    path = written(tmp_path, *({"prompt": p, "completion": c, "label": good} for p, c, good in rows))
    assert read_unpaired(path) == [UnpairedPreference(Prompt(p), c, good) for p, c, good in rows]
    told: list[str] = []
    # Two good ones against two bad ones are four pairs, which share weight 1.
    assert read_comparisons(path, on_skip=told.append) == [
        Comparison(Prompt(HOT), good, bad, weight=0.25) for good in "ac" for bad in "bd"
    ]
    assert told == [f"{path}:2: skipped: the answers to its prompt are all good or all bad"]
    assert read_demonstrations(path) == [Demonstration(Prompt(p), c) for p, c, good in rows if good]
    assert read_answers(path) == [(Prompt(p), Completion(c)) for p, c, _ in rows]


def test_unpaired_answers_with_what_is_known_of_them(tmp_path: Path) -> None:
    """p is the probability of a good answer, whichever label it has; at one half either label stands."""
    row = {"prompt": HOT, "completion": "a"}
    path = written(
        tmp_path,
        row | {"label": True, "p": 0.8, "weight": 2},
        row | {"label": False, "p": 0.2},
        row | {"label": False, "p": 0.5},
        row | {"label": True, "p": None},
    )
    found = read_unpaired(path)
    assert [(one.label, one.p, one.weight) for one in found] == [
        (True, 0.8, 2.0),
        (False, 0.2, 1.0),
        (False, 0.5, 1.0),
        (True, None, 1.0),
    ]
    assert [one.goodness for one in found] == [0.8, 0.2, 0.5, 1.0]


def test_unpaired_answers_are_read_as_they_are_written(tmp_path: Path) -> None:
    answers = [
        UnpairedPreference(Prompt(HOT), "Close the blinds.", label=True, p=0.8),
        UnpairedPreference(Prompt(HOT), " ", label=False, weight=2.0),
        UnpairedPreference(Prompt.user(HOT), "No.", label=False, p=0.0),
    ]
    assert read_unpaired(written(tmp_path, *map(unpaired_row, answers))) == answers


def test_unpaired_answers_of_conversations(tmp_path: Path) -> None:
    path = written(tmp_path, {"prompt": ASKED, "completion": ANSWERED[1:], "label": False})
    assert read_unpaired(path) == [UnpairedPreference(Prompt.user(HOT), "Close the blinds.", label=False)]


def test_an_answer_called_good_and_bad_is_not_compared_with_itself(tmp_path: Path) -> None:
    rows = [("a", True), ("a", False), ("b", False)]
    path = written(tmp_path, *({"prompt": HOT, "completion": c, "label": good} for c, good in rows))
    told: list[str] = []
    assert read_comparisons(path, on_skip=told.append) == [Comparison(Prompt(HOT), "a", "b", weight=1.0)]
    assert told == [f"{path}:2: skipped: the same answer is called good and bad"]


def test_what_gives_no_pair_is_counted(tmp_path: Path) -> None:
    rows = [
        ("p", "a", True),
        ("q", "b", False),
        ("r", "a", True),
        ("r", "a", False),
        ("s", "c", False),
        ("s", "c", True),
    ]
    path = written(tmp_path, *({"prompt": p, "completion": c, "label": good} for p, c, good in rows))
    told: list[str] = []
    assert read_comparisons(path, on_skip=told.append) == []
    assert told == [
        f"{path}:1: skipped: the answers to its prompt are all good or all bad (and 1 more)",
        f"{path}:4: skipped: the same answer is called good and bad (and 1 more)",
    ]


def test_conversational_demonstrations(tmp_path: Path) -> None:
    expected = Demonstration(Prompt.user(HOT), "Close the blinds.")
    assert read_demonstrations(written(tmp_path, {"prompt": ASKED, "completion": ANSWERED[1:]})) == [expected]
    path = written(tmp_path, {"messages": ANSWERED})
    assert read_demonstrations(path) == [expected]
    assert read_answers(path) == [(expected.prompt, Completion("Close the blinds."))]
    assert read_prompts(path) == [expected.prompt]


def test_of_a_long_conversation_the_last_turn_is_the_answer(tmp_path: Path) -> None:
    talk = [{"role": "system", "content": "Be brief."}, *ANSWERED, {"role": "user", "content": "Why?"}]
    path = written(tmp_path, {"messages": [*talk, {"role": "assistant", "content": "Sun."}]})
    prompt = Prompt(tuple(Message(turn["role"], turn["content"]) for turn in talk))
    assert read_demonstrations(path) == [Demonstration(prompt, "Sun.")]
    assert read_prompts(written(tmp_path, {"messages": talk})) == [prompt]


def test_trees_by_hand(tmp_path: Path) -> None:
    talk = Prompt((Message("user", HOT), Message("assistant", "Close the blinds."), Message("user", "And then?")))
    path = written(tmp_path, TREE)
    assert read_prompts(path) == [Prompt.user(HOT), talk]
    assert read_comparisons(path) == [Comparison(Prompt.user(HOT), "Open a window.", "Close the blinds.")]
    assert read_demonstrations(path) == [Demonstration(Prompt.user(HOT), "Open a window.")]
    [offered] = read_candidates(path)
    assert offered.prompt == Prompt.user(HOT)
    assert [(c.id, c.text) for c in offered.completions] == [("m1", "Close the blinds."), ("m0", "Open a window.")]


def test_ties_of_a_tree_are_dropped_and_the_rest_weighs_one(tmp_path: Path) -> None:
    replies = [node(text, "assistant", rank=rank) for text, rank in [("a", 0), ("b", 1), ("c", 1), ("d", None)]]
    path = written(tmp_path, tree(node(HOT, "prompter", *replies)))
    talk = Prompt.user(HOT)
    assert read_comparisons(path) == [Comparison(talk, "a", "b", weight=0.5), Comparison(talk, "a", "c", weight=0.5)]


def test_what_was_deleted_or_not_reviewed_takes_what_follows_along(tmp_path: Path) -> None:
    follow = node("And then?", "prompter")
    replies = [
        node("a", "assistant", follow, rank=0),
        node("b", "assistant", follow, rank=1, deleted=True),
        node("c", "assistant", follow, rank=2, review_result=False),
        node("d", "assistant", follow, rank=3, review_result=None),
    ]
    path = written(tmp_path, tree(node(HOT, "prompter", *replies)), tree(node(TAP, "prompter", deleted=True)))
    told: list[str] = []
    assert read_comparisons(path, on_skip=told.append) == []
    assert told == [
        f"{path}:1: skipped: prompt.replies[1] was deleted",
        f"{path}:1: skipped: prompt.replies[2] did not pass review",
        f"{path}:1: skipped: prompt.replies[3] did not pass review",
        f"{path}:2: skipped: prompt was deleted",
    ]
    assert [prompt.text for prompt in read_prompts(path, on_skip=lambda _: None)] == [
        HOT,
        f"user: {HOT}\n\nassistant: a\n\nuser: And then?",
    ]


def test_annotations_that_do_not_say_who_answered(tmp_path: Path) -> None:
    """They compare answers all the same; only standings of models need the names."""
    row = {key: ANNOTATION[key] for key in ("instruction", "output_1", "output_2", "preference")}
    path = written(tmp_path, row)
    assert detect(path) == "annotations"
    assert [c.chosen for c in read_comparisons(path)] == ["Close the blinds."]
    with pytest.raises(DataError) as error:
        read_annotations(path)
    assert str(error.value) == f'{path}:1: field "generator_1": missing; name the model that answered'


def test_an_annotator_of_null_is_none(tmp_path: Path) -> None:
    [found] = read_annotations(written(tmp_path, {**ANNOTATION, "annotator": None}))
    assert found.annotator == ""


def test_annotations_compare_by_their_preference(tmp_path: Path) -> None:
    prefer = [1.8, 1, 2, 1.25, 0, 1.5, None]
    same = {**ANNOTATION, "output_1": "a", "output_2": "a"}
    path = written(tmp_path, *({**ANNOTATION, "preference": value} for value in prefer), same)
    told: list[str] = []
    first, second = "It is not hot.", "Close the blinds."
    found = [(c.chosen, c.rejected, c.p) for c in read_comparisons(path, on_skip=told.append)]
    assert found == [
        (second, first, pytest.approx(0.8)),
        (first, second, 1.0),
        (second, first, 1.0),
        (first, second, 0.75),
    ]
    assert told == [
        *(f"{path}:{line}: skipped: a tie" for line in (5, 6, 7)),
        f"{path}:8: skipped: both answers are equal",
    ]


def test_summaries(tmp_path: Path) -> None:
    request = Prompt.user("Summarize the following conversation.\n\n#Person1#: Hot?\n\nSummary:")
    assert read_demonstrations(written(tmp_path, ONE_OF_EACH["dialogues"])) == [
        Demonstration(request, "It is hot."),
        Demonstration(request, "Hot."),
    ]
    post = Prompt("SUBREDDIT: r/home\n\nTITLE: Hot\n\nPOST: It is hot.\n\nTL;DR:")
    news = {**TLDR, "info": {"article": "It is hot."}}
    told: list[str] = []
    path = written(tmp_path, TLDR, {**TLDR, "choice": 1}, news)
    assert read_comparisons(path, on_skip=told.append) == [
        Comparison(post, " Hot.", " Cold."),
        Comparison(post, " Cold.", " Hot."),
    ]
    assert told == [f"{path}:3: skipped: it summarizes no post"]


# The real files. What is expected of them was counted with json, not with the readers.


def rows_of(path: Path) -> list[Any]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_real_trees(data_dir: Path) -> None:
    path = data_dir / "oasst" / "en_100_tree.jsonl.gz"
    asked, ranked = [], []
    ahead = [row["prompt"] for row in rows_of(path)]
    while ahead:
        message = ahead.pop()
        ahead += message["replies"]
        if message["role"] == "prompter":
            asked.append(message["text"])
            ranks = [reply["rank"] for reply in message["replies"] if "rank" in reply]
            if len(ranks) > 1:
                ranked.append(len(ranks))
    told: list[str] = []
    comparisons = read_comparisons(path, on_skip=told.append)
    assert not told
    assert len(ranked) == 212
    assert len(comparisons) == sum(comb(size, 2) for size in ranked)
    weights: Counter[Prompt] = Counter()
    for pair in comparisons:
        weights[pair.prompt] += pair.weight  # type: ignore[assignment]
    assert len(weights) == 212
    assert all(weight == pytest.approx(1) for weight in weights.values())
    prompts = read_prompts(path)
    assert sorted(prompt.content[-1].content for prompt in prompts) == sorted(asked)  # type: ignore[union-attr]
    for prompt in prompts:
        assert [m.role for m in prompt.content] == ["user", "assistant"] * (len(prompt.content) // 2) + ["user"]  # type: ignore[union-attr]
    ids = [completion.id for item in read_candidates(path) for completion in item.completions]
    assert len(set(ids)) == len(ids) == 687


def test_real_trees_prefer_the_better_rank(data_dir: Path) -> None:
    path = data_dir / "oasst" / "en_100_tree.jsonl.gz"
    chosen = {(pair.prompt.first_turn, pair.chosen, pair.rejected) for pair in read_comparisons(path)}
    for row in rows_of(path):
        root = row["prompt"]
        ranked = sorted((r for r in root["replies"] if "rank" in r), key=lambda reply: reply["rank"])
        for better, worse in combinations(ranked, 2):
            assert (root["text"], better["text"], worse["text"]) in chosen


def test_all_of_the_hhh_evaluation_can_be_read(data_dir: Path) -> None:
    path = data_dir / "hhh-eval" / "dev.jsonl.gz"
    told: list[str] = []
    assert detect(path) == "hhh"
    pairs = read_comparisons(path, on_skip=told.append)
    assert not told
    rows = rows_of(path)
    assert len(rows) == len(pairs) == 138
    for row, pair in zip(rows, pairs, strict=True):
        assert isinstance(pair.prompt.content, tuple)
        before = transcript(pair.prompt.content)
        for side, answer in (("text_correct", pair.chosen), ("text_incorrect", pair.rejected)):
            begun, written_answer = row[side][: -len(answer)], row[side][-len(answer) :]
            assert written_answer == answer
            # Anthropic puts one or two blanks after a speaker; the second belongs to what is said.
            assert begun.rstrip(" ") == f"{before}\n\nAssistant:"


@pytest.mark.parametrize(
    ("name", "num_rows", "num_ties"), [("alpaca_eval_gpt4", 11253, 88), ("weighted_alpaca_eval_gpt4_turbo", 4829, 14)]
)
def test_real_annotations(data_dir: Path, name: str, num_rows: int, num_ties: int) -> None:
    path = data_dir / "alpaca-eval" / f"{name}.jsonl.gz"
    assert detect(path) == "annotations"
    told: list[str] = []
    comparisons = read_comparisons(path, on_skip=told.append)
    assert len(read_prompts(path)) == 805
    assert sum("a tie" in line for line in told) == num_ties
    assert len(comparisons) + len(told) == num_rows
    assert all(0.5 < pair.p <= 1 for pair in comparisons)


def test_real_dialogues_and_questions(data_dir: Path) -> None:
    assert len(read_demonstrations(data_dir / "dialogsum" / "dev.jsonl.gz")) == 500
    three_each = read_demonstrations(data_dir / "dialogsum" / "test.jsonl.gz")
    rows = rows_of(data_dir / "dialogsum" / "test.jsonl.gz")
    assert [shown.completion for shown in three_each] == [row[f"summary{i}"] for row in rows for i in (1, 2, 3)]
    assert all(row["dialogue"] in shown.prompt.first_turn for row, shown in zip(rows, three_each[::3], strict=True))
    questions = data_dir / "mt-bench" / "question.jsonl.gz"
    assert [prompt.first_turn for prompt in read_prompts(questions)] == [row["turns"][0] for row in rows_of(questions)]


FILES = Path(__file__).resolve().parents[2] / "docs" / "reference" / "files.md"


def test_the_examples_of_the_reference_can_be_read(tmp_path: Path) -> None:
    """Every row that the page shows; between them they show every format."""
    fences = [token.content for token in MarkdownIt("commonmark").parse(FILES.read_text()) if token.info == "json"]
    shown = set()
    for line in "".join(fences).splitlines():
        path = written(tmp_path, json.loads(line))
        shown.add(detect(path))
        for kind in kinds(path):
            read(path, kind)
    assert shown == {known.name for known in FORMATS} - {"judgments"}
