"""Ids and text of prompts and completions: a word-level tokenizer by hand, and a real model's on real conversations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tuneful.data.formats import read_comparisons
from tuneful.data.templates import completion_ids, completion_text, pair_ids, prompt_ids, render_prompt
from tuneful.data.transcripts import transcript
from tuneful.errors import ConfigError, ModelError
from tuneful.records import Message, Prompt

CHATML = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}<eos>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}> {{ m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %} {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
WORDS = ["<bos>", "<eos>", "<unk>", "<user>", "<assistant>", "hot", "?", "open", "a", "window", "."]
ASKED = Prompt.user("hot ?")


@pytest.fixture
def words() -> Any:
    """A word-level tokenizer; the id of a token is its place in WORDS."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in WORDS[:5]])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>")
    fast.chat_template = TEMPLATE
    return fast


@pytest.fixture
def real(base_model_dir: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base_model_dir)


def test_a_conversation_by_hand(words: Any) -> None:
    assert render_prompt(ASKED, words) == "<bos><user> hot ? <assistant>"
    assert prompt_ids(ASKED, words, max_tokens=None) == [0, 3, 5, 6, 4]
    assert completion_ids(ASKED, "open a window .", words) == [7, 8, 9, 10, 1]
    assert completion_text(ASKED, [7, 8, 9, 10, 1], words) == "open a window ."


def test_plain_text_by_hand(words: Any) -> None:
    assert prompt_ids(Prompt("hot ?"), words, max_tokens=None) == [0, 5, 6]
    assert completion_ids(Prompt("hot ?"), "open", words) == [7, 1]
    assert completion_text(Prompt("hot ?"), [7], words) == "open"


def test_begin_and_end_tokens_are_never_doubled(words: Any) -> None:
    assert prompt_ids(Prompt("<bos> hot ?"), words, max_tokens=None) == [0, 5, 6]
    for prompt in (ASKED, Prompt("hot ?")):
        assert completion_ids(prompt, "open<eos>", words) == [7, 1]


def test_a_begin_token_that_is_the_end_token_is_not_added(words: Any) -> None:
    words.bos_token = "<eos>"
    assert prompt_ids(Prompt("hot ?"), words, max_tokens=None) == [5, 6]


def test_a_long_prompt_loses_its_beginning_but_not_the_begin_token(words: Any) -> None:
    assert prompt_ids(ASKED, words, max_tokens=5) == [0, 3, 5, 6, 4]
    assert prompt_ids(ASKED, words, max_tokens=4) == [0, 5, 6, 4]
    assert prompt_ids(ASKED, words, max_tokens=2) == [0, 4]
    with pytest.raises(ConfigError, match="at least 2 tokens, got max_tokens = 1"):
        prompt_ids(ASKED, words, max_tokens=1)
    words.bos_token = None
    assert prompt_ids(Prompt("hot ?"), words, max_tokens=1) == [6]


def test_a_long_answer_loses_its_end_and_so_its_end_token(words: Any) -> None:
    assert completion_ids(ASKED, "open a window .", words, max_tokens=5) == [7, 8, 9, 10, 1]
    assert completion_ids(ASKED, "open a window .", words, max_tokens=4) == [7, 8, 9, 10]


@pytest.mark.parametrize(
    ("max_tokens", "prompt", "completion"),
    [
        (10, [0, 3, 5, 6, 4], [7, 8, 9, 10, 1]),
        (9, [0, 5, 6, 4], [7, 8, 9, 10, 1]),
        (8, [0, 5, 6, 4], [7, 8, 9, 10]),
        (6, [0, 6, 4], [7, 8, 9]),
        (4, [0, 4], [7, 8]),
        (3, [0, 4], [7]),
    ],
)
def test_a_pair_in_little_room(words: Any, max_tokens: int, prompt: list[int], completion: list[int]) -> None:
    """5 + 5 tokens: the prompt gives way down to half of so little room, then the answer loses its end."""
    assert pair_ids(ASKED, "open a window .", words, max_tokens=max_tokens) == (prompt, completion)


def test_no_room_for_a_pair(words: Any) -> None:
    with pytest.raises(ConfigError) as error:
        pair_ids(ASKED, "open", words, max_tokens=2)
    assert str(error.value) == "a prompt and its answer need room for at least 3 tokens, got max_tokens = 2"
    words.bos_token = None
    assert pair_ids(Prompt("hot ?"), "open a", words, max_tokens=2) == ([6], [7])
    with pytest.raises(ConfigError, match="at least 2 tokens, got max_tokens = 1"):
        pair_ids(Prompt("hot ?"), "open", words, max_tokens=1)


@pytest.mark.parametrize("max_tokens", range(3, 40))
def test_long_pairs_fill_the_room_and_keep_both_sides(words: Any, max_tokens: int) -> None:
    """80 + 81 tokens; a prompt keeps 16 where the room is larger than that."""
    prompt, completion = pair_ids(Prompt("hot ? " * 40), "open a " * 40, words, max_tokens=max_tokens)
    assert len(prompt) + len(completion) == max_tokens
    assert len(prompt) == (16 if max_tokens > 16 else max(max_tokens // 2, 2))
    assert prompt == [0, *([5, 6] * 40)[1 - len(prompt) :]]
    assert completion == ([7, 8] * 40)[: len(completion)]


def test_a_template_that_trims_and_ends_in_a_newline(words: Any) -> None:
    words.chat_template = CHATML
    assert completion_ids(ASKED, "open a", words) == [7, 8, 1]


def test_a_template_without_end_token_gets_one(words: Any) -> None:
    words.chat_template = TEMPLATE.replace("{{ eos_token }}", "")
    assert completion_ids(ASKED, "open a", words) == [7, 8, 1]


def test_templates_that_cannot_serve(words: Any) -> None:
    words.chat_template = (
        "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    with pytest.raises(ModelError, match="does not go on from the template without"):
        completion_ids(ASKED, "open", words)
    words.chat_template = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    with pytest.raises(ModelError, match="leaves out the assistant's text"):
        completion_ids(ASKED, "open", words)
    words.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ModelError, match="refuses a conversation of user: roles must alternate"):
        render_prompt(ASKED, words)
    words.chat_template = None
    with pytest.raises(ModelError, match="no chat template"):
        render_prompt(ASKED, words)
    words.eos_token = None
    with pytest.raises(ModelError, match="no end token"):
        completion_ids(Prompt("hot ?"), "open", words)


def test_the_shared_tiny_tokenizer(tiny_tokenizer: Any) -> None:
    prompt = Prompt.user("hello you")
    ids = completion_ids(prompt, "yes please", tiny_tokenizer)
    assert ids[-1] == 2
    assert tiny_tokenizer.convert_ids_to_tokens(ids[:-1]) == ["yes", "please"]
    assert completion_text(prompt, ids, tiny_tokenizer) == "yes please"


@pytest.mark.parametrize(
    "text",
    [
        "Hello.",
        " two spaces",
        "tail \n",
        "",
        "\n\nHuman: no",
        "a <eos> b",
        "<bos>",
        "Assistant:",
        "naïve 🙂",
        "do n't .",
    ],
)
@pytest.mark.parametrize("prompt", [ASKED, Prompt("hot ?")], ids=["conversation", "plain"])
def test_text_to_ids_to_text(real: Any, prompt: Prompt, text: str) -> None:
    ids = completion_ids(prompt, text, real)
    assert ids.count(2) == 1
    assert ids[-1] == 2
    assert completion_text(prompt, ids, real) == text


@pytest.mark.parametrize(("name", "num_pairs", "num_long"), [("train", 1493, 1084), ("test", 398, 278)])
def test_real_conversations_are_tokenized_as_the_transcript(
    real: Any, data_dir: Path, name: str, num_pairs: int, num_long: int
) -> None:
    """The template's text is the HH transcript between begin and end token, and two parts give the ids of the whole."""
    pairs = read_comparisons(data_dir / "hh-harmless" / f"{name}.jsonl.gz", on_skip=lambda _: None)
    assert len(pairs) == num_pairs
    assert sum(len(pair.prompt.content) > 1 for pair in pairs) == num_long
    for pair in pairs:
        assert isinstance(pair.prompt.content, tuple)
        whole = "<bos>" + transcript((*pair.prompt.content, Message("assistant", pair.chosen))) + "<eos>"
        assert whole.startswith(render_prompt(pair.prompt, real))
        answer = completion_ids(pair.prompt, pair.chosen, real)
        assert prompt_ids(pair.prompt, real, max_tokens=None) + answer == real.encode(whole, add_special_tokens=False)
        assert completion_text(pair.prompt, answer, real) == pair.chosen
