"""Every format by hand-made files, every refusal by the fault itself, and the real HH data."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneful.data.completions import candidates_row, with_ids
from tuneful.data.formats import detect, read_candidates, read_comparisons, read_demonstrations, read_prompts
from tuneful.data.jsonl import write_jsonl
from tuneful.data.preferences import comparison_row
from tuneful.data.transcripts import parse_transcript, transcript
from tuneful.errors import DataError
from tuneful.records import Candidates, Comparison, Completion, Demonstration, Message, Prompt

HOT = Prompt("My house is too hot.")
TALK = Prompt((Message("user", "Hi."), Message("assistant", "Hello!"), Message("user", "Is it hot?")))
TALK_JSON = [
    {"role": "user", "content": "Hi."},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "Is it hot?"},
]


def written(folder: Path, *lines: Any, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_prompts_are_text_or_messages(tmp_path: Path) -> None:
    path = written(tmp_path, {"prompt": "My house is too hot.", "source": "x"}, "", {"prompt": TALK_JSON})
    assert detect(path) == "prompts"
    assert read_prompts(path) == [HOT, TALK]


def test_prompts_of_richer_formats_come_once(tmp_path: Path) -> None:
    row = {"prompt": "My house is too hot.", "chosen": "Open a window.", "rejected": "No."}
    assert read_prompts(written(tmp_path, row, row | {"rejected": "Wait."})) == [HOT]
    two_talks = {"chosen": "\n\nHuman: Hi.\n\nAssistant: Hello!", "rejected": "\n\nHuman: Hi.\n\nAssistant: No."}
    assert read_prompts(written(tmp_path, two_talks, two_talks)) == [Prompt.user("Hi.")]


def test_completions_keep_what_is_known(tmp_path: Path) -> None:
    sampled = {"text": "Yes.", "id": "c7", "model": "m", "finish": "eos", "tokens": [4, 2]}
    path = written(tmp_path, {"prompt": TALK_JSON, "completions": ["No.", sampled]})
    assert detect(path) == "completions"
    [candidates] = read_candidates(path)
    assert candidates.prompt == TALK
    assert candidates.completions[0].text == "No."
    assert candidates.completions[1] == Completion("Yes.", tokens=(4, 2), finish="eos", model="m", id="c7")


def test_missing_ids_are_hashes_and_unique(tmp_path: Path) -> None:
    row = {"prompt": "Hi.", "completions": ["Yes.", "Yes.", {"text": "Yes.", "model": "m"}]}
    path = written(tmp_path, row, row)
    ids = [c.id for candidates in read_candidates(path) for c in candidates.completions]
    assert len(set(ids)) == 6
    assert all(len(id_) == 16 for id_ in ids)
    assert ids == [c.id for candidates in read_candidates(path) for c in candidates.completions]


def test_an_empty_answer_counts_only_when_a_model_ended_there(tmp_path: Path) -> None:
    ended = {"prompt": "Hi.", "completions": [{"text": "", "finish": "eos"}, "Hello."]}
    assert read_candidates(written(tmp_path, ended))[0].completions[0].text == ""
    gap = {"prompt": "Hi.", "completions": ["Hello.", {"text": " "}]}
    with pytest.raises(DataError, match=r'rows.jsonl:1: field "completions\[1\].text": empty; '):
        read_candidates(written(tmp_path, gap))


def test_demonstrations(tmp_path: Path) -> None:
    path = written(tmp_path, {"prompt": "My house is too hot.", "completion": "Open a window."})
    assert detect(path) == "demonstrations"
    assert read_demonstrations(path) == [Demonstration(HOT, "Open a window.")]


def test_preferences_as_text_and_as_messages(tmp_path: Path) -> None:
    said = [{"role": "assistant", "content": "Yes."}], [{"role": "assistant", "content": "No."}]
    path = written(
        tmp_path,
        {"prompt": "My house is too hot.", "chosen": "Open a window.", "rejected": "No.", "p": 0.75, "weight": 0.5},
        {"prompt": TALK_JSON, "chosen": said[0], "rejected": said[1], "group": "g", "margin": 2, "p": None},
    )
    assert detect(path) == "preferences"
    assert read_comparisons(path) == [
        Comparison(HOT, "Open a window.", "No.", p=0.75, weight=0.5),
        Comparison(TALK, "Yes.", "No.", group="g", margin=2.0),
    ]


def test_transcripts_become_conversations(tmp_path: Path) -> None:
    context = "\n\nHuman: Hi.\n\nAssistant: Hello!\n\nHuman: Is it hot?\n\nAssistant: "
    path = written(tmp_path, {"chosen": context + "Yes.\n\nVery.", "rejected": context + "No."})
    assert detect(path) == "transcripts"
    assert read_comparisons(path) == [Comparison(TALK, "Yes.\n\nVery.", "No.")]


def test_unusable_transcripts_are_skipped_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}
    path = written(
        tmp_path,
        good,
        good | {"rejected": "\n\nHuman: other\n\nAssistant: c"},
        good | {"chosen": "\n\nHuman: a\n\nAssistant: "},
        good | {"chosen": good["rejected"]},
        {"chosen": "\n\nHuman: a", "rejected": "\n\nHuman: b"},
        {"chosen": "\n\nAssistant: a", "rejected": "\n\nAssistant: b"},
    )
    reports: list[str] = []
    assert len(read_comparisons(path, on_skip=reports.append)) == 1
    assert reports == [
        f"{path}:2: skipped: the contexts of chosen and rejected differ",
        f"{path}:3: skipped: the chosen answer is empty",
        f"{path}:4: skipped: chosen and rejected are equal",
        f"{path}:5: skipped: the last turn is not the assistant's",
        f"{path}:6: skipped: no user turn stands before the answer",
    ]
    read_comparisons(path)
    assert [record.message for record in caplog.records] == reports


OK = {"prompt": "a", "chosen": "b", "rejected": "c"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (r'{"prompt": "\ud83d", "chosen": "b", "rejected": "c"}', 'rows.jsonl:2: field "prompt": half of a surrogate'),
        ({"prompt": "a", "chosen": "b"}, 'rows.jsonl:2: field "rejected": missing; '),
        (OK | {"prompt": 3}, 'rows.jsonl:2: field "prompt": expected text, got a number; '),
        (OK | {"prompt": " \n"}, 'rows.jsonl:2: field "prompt": empty; '),
        (OK | {"prompt": []}, 'rows.jsonl:2: field "prompt": an empty list; '),
        (OK | {"prompt": ["a"]}, r'rows.jsonl:2: field "prompt\[0\]": not a message; '),
        (
            OK | {"prompt": [{"role": "user", "content": [1]}]},
            r'field "prompt\[0\].content": expected text, got a list',
        ),
        (OK | {"prompt": [{"role": "user", "content": ""}]}, r'field "prompt\[0\].content": empty; '),
        (OK | {"prompt": TALK_JSON[:2]}, r'field "prompt\[1\].role": the last message is the assistant\'s; '),
        (OK | {"chosen": None}, 'rows.jsonl:2: field "chosen": expected text, got null; '),
        (OK | {"chosen": ""}, 'rows.jsonl:2: field "chosen": empty; '),
        (OK | {"chosen": TALK_JSON}, 'rows.jsonl:2: field "chosen": expected one assistant message; '),
        (OK | {"chosen": "c"}, 'rows.jsonl:2: field "rejected": chosen and rejected are equal; '),
        (OK | {"p": 1.5}, 'rows.jsonl:2: field "p": got 1.5; a probability lies between 0 and 1'),
        (OK | {"p": float("nan")}, 'rows.jsonl:2: field "p": expected a finite number, got nan; '),
        (OK | {"p": True}, 'rows.jsonl:2: field "p": expected a finite number, got true or false; '),
        (OK | {"weight": 10**400}, 'field "weight": expected a finite number, got a number too large for a float; '),
        (OK | {"weight": 0}, 'rows.jsonl:2: field "weight": got 0.0; '),
        (OK | {"margin": "2"}, 'rows.jsonl:2: field "margin": expected a finite number, got text; '),
    ],
)
def test_bad_preferences_name_line_and_field(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        read_comparisons(written(tmp_path, OK, row))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("completions", "message"),
    [
        ("b", 'field "completions": expected a list of at least one completion; '),
        ([], 'field "completions": expected a list of at least one completion; '),
        ([{"model": "m"}], r'field "completions\[0\].text": missing; '),
        ([{"text": "b", "finish": "done"}], r'field "completions\[0\].finish": got \'done\'; one of eos, stop'),
        ([{"text": "b", "tokens": [1.5]}], r'field "completions\[0\].tokens": expected a list of token ids; '),
        ([{"text": "b", "id": "x"}, {"text": "c", "id": "x"}], r'completions\[1\].id": "x" stands on line 2 already; '),
        (["b", {"text": "c", "id": "first"}], r'completions\[1\].id": "first" stands on line 1 already; '),
    ],
)
def test_bad_completions_name_line_and_field(tmp_path: Path, completions: Any, message: str) -> None:
    good = {"prompt": "a", "completions": [{"text": "b", "id": "first"}]}
    with pytest.raises(DataError, match=message):
        read_candidates(written(tmp_path, good, {"prompt": "a", "completions": completions}))


def test_a_bad_answer_is_nothing_to_imitate(tmp_path: Path) -> None:
    bad = {"prompt": "a", "completion": "an insult", "label": False}
    assert read_demonstrations(written(tmp_path, bad, bad | {"completion": "b", "label": True})) == [
        Demonstration(Prompt("a"), "b")
    ]
    with pytest.raises(DataError, match=r'rows.jsonl:2: field "label": is of unpaired preferences: a bad answer'):
        read_demonstrations(written(tmp_path, {"prompt": "a", "completion": "b"}, bad))


def test_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"rows.jsonl: holds prompts; expected annotations, .*, transcripts, implicit or unpaired$"
    ):
        read_comparisons(written(tmp_path, {"prompt": "a"}))


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    candidates = with_ids(
        [Candidates(TALK, (Completion("Yés.\u2028", (1, 2), "eos", "m"), Completion("", (2,), "eos")))]
    )
    comparisons = [
        Comparison(HOT, "a", "b", p=0.6, weight=0.5, group="g", margin=1.5),
        Comparison(TALK, "a", "b"),
        *(Comparison(prompt, "a", "") for prompt in (HOT, TALK)),
    ]
    write_jsonl(path, map(candidates_row, candidates))
    assert read_candidates(path) == candidates
    write_jsonl(path, map(comparison_row, comparisons), force=True)
    assert read_comparisons(path) == comparisons


def test_a_conversational_comparison_is_what_trl_reads() -> None:
    row = comparison_row(Comparison(Prompt.user("Hi."), "Hello.", "No."))
    assert row["prompt"] == [{"role": "user", "content": "Hi."}]
    assert row["chosen"] == [{"role": "assistant", "content": "Hello."}]


def test_an_empty_answer_to_a_prompt_of_text_is_text() -> None:
    """TRL and Parquet want a column of one type."""
    row = comparison_row(Comparison(HOT, "Close the blinds.", ""))
    assert (row["chosen"], row["rejected"], row["empty"]) == ("Close the blinds.", "", True)
    assert "empty" not in comparison_row(Comparison(HOT, "Close the blinds.", "No."))


def test_older_rows_with_an_empty_message_can_be_read(tmp_path: Path) -> None:
    row = {"prompt": "Hi.", "chosen": "Hello.", "rejected": [{"role": "assistant", "content": ""}]}
    assert read_comparisons(written(tmp_path, row)) == [Comparison(Prompt("Hi."), "Hello.", "")]


turns = st.lists(
    st.builds(
        Message,
        st.sampled_from(["user", "assistant"]),
        st.text(st.sampled_from("ab \n:")) | st.just("Human: Assistant"),
    ),
    min_size=1,
)


@given(turns)
def test_transcripts_are_parsed_to_the_last_space(messages: list[Message]) -> None:
    assert parse_transcript(transcript(messages)) == tuple(messages)


def test_what_is_no_transcript() -> None:
    with pytest.raises(DataError, match="not a transcript: 'Hello'"):
        parse_transcript("Hello")
    with pytest.raises(DataError, match='no place for a "system" turn'):
        transcript([Message("system", "Be brief.")])


def test_transcripts_are_known_where_a_side_of_the_first_row_is_empty(tmp_path: Path) -> None:
    good = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}
    path = written(tmp_path, good | {"rejected": ""}, good | {"chosen": " "}, good)
    assert detect(path) == "transcripts"
    told: list[str] = []
    assert read_comparisons(path, on_skip=told.append) == [Comparison(Prompt.user("a"), "b", "c")]
    assert told == [f"{path}:1: skipped: rejected is empty", f"{path}:2: skipped: chosen is empty"]


def test_a_damaged_side_of_the_first_row_does_not_make_the_others_plain_text(tmp_path: Path) -> None:
    good = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}
    with pytest.raises(DataError, match=r'rows.jsonl:1: field "rejected": cannot be read; not a transcript: \'No.\''):
        read_comparisons(written(tmp_path, good | {"rejected": "No."}, good))


@pytest.mark.parametrize(
    ("name", "num_rows", "contexts_differ", "empty"),
    [("train", 1500, [448, 912, 923, 1166], [225, 373, 382]), ("test", 400, [148], [354])],
)
def test_real_transcripts(
    data_dir: Path, name: str, num_rows: int, contexts_differ: list[int], empty: list[int]
) -> None:
    # The line numbers were found with a regular expression over the files, not with the reader.
    path = data_dir / "hh-harmless" / f"{name}.jsonl.gz"
    reports: list[str] = []
    comparisons = read_comparisons(path, on_skip=reports.append)
    assert [r for r in reports if "contexts" in r] == [
        f"{path}:{line}: skipped: the contexts of chosen and rejected differ" for line in contexts_differ
    ]
    assert [r for r in reports if "empty" in r] == [
        f"{path}:{line}: skipped: the chosen answer is empty" for line in empty
    ]
    assert len(comparisons) == num_rows - len(contexts_differ) - len(empty)

    skipped = {*contexts_differ, *empty}
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for number, line in enumerate(file, start=1) if number not in skipped]
    for row, pair in zip(rows, comparisons, strict=True):
        assert isinstance(pair.prompt.content, tuple)
        assert transcript((*pair.prompt.content, Message("assistant", pair.chosen))) == row["chosen"]
        assert transcript((*pair.prompt.content, Message("assistant", pair.rejected))) == row["rejected"]
