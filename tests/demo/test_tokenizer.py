from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tuneful.demo.grammar import all_texts, corpus, prompts
from tuneful.demo.tokenizer import build_tokenizer
from tuneful.demo.world import BASE_CONFIG, SPECIAL_TOKENS

CHAT = [{"role": "user", "content": "My house is too hot."}, {"role": "assistant", "content": "Use a fan."}]


@pytest.fixture(scope="module", params=["built", "loaded"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    built = build_tokenizer()
    if request.param == "built":
        return built
    directory: Path = tmp_path_factory.mktemp("tokenizer")
    built.save_pretrained(directory)
    return AutoTokenizer.from_pretrained(directory)


def test_ids_are_as_many_as_the_model_has_and_specials_differ(tokenizer: PreTrainedTokenizerFast):
    assert len(tokenizer) == BASE_CONFIG["vocab_size"] <= 512
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == [0, 1, 2, 3, 4, 5]
    ids = [tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id]
    assert ids == [0, 1, 2, 3]
    assert [BASE_CONFIG[f"{name}_token_id"] for name in ("pad", "bos", "eos")] == [0, 1, 2]


def test_a_few_ids_are_free(tokenizer: PreTrainedTokenizerFast):
    assert 1 <= sum(token.startswith("<unused-") for token in tokenizer.get_vocab()) <= 32


def test_every_text_of_the_world_comes_back_letter_by_letter(tokenizer: PreTrainedTokenizerFast):
    texts = [*all_texts(), *(row.completion for row in corpus(2000, seed=3))]
    for text, ids in zip(texts, tokenizer(texts)["input_ids"], strict=True):
        assert tokenizer.unk_token_id not in ids, text
        assert tokenizer.decode(ids) == text
        assert tokenizer.decode([*ids, tokenizer.eos_token_id], skip_special_tokens=True) == text


def test_words_and_marks_are_one_token_each(tokenizer: PreTrainedTokenizerFast):
    tokens = tokenizer.tokenize("Help, my tap drips again.")
    assert tokens == ["▁Help", ",", "▁my", "▁tap", "▁drips", "▁again", "."]


@pytest.mark.parametrize("text", ["Open  the house", ". Open", "the"])
def test_odd_spacing_comes_back_too(tokenizer: PreTrainedTokenizerFast, text: str):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_an_unknown_word_is_unk(tokenizer: PreTrainedTokenizerFast):
    assert tokenizer.tokenize("Open the zebra.") == ["▁Open", "▁the", "<unk>", "."]


def test_the_chat_template_opens_turns_and_ends_the_answer(tokenizer: PreTrainedTokenizerFast):
    whole = tokenizer.apply_chat_template(CHAT, tokenize=False)
    assert whole == "<bos><person>My house is too hot.<helper>Use a fan.<eos>"
    asked = tokenizer.apply_chat_template(CHAT[:1], add_generation_prompt=True, tokenize=False)
    assert whole.startswith(asked)
    assert asked.endswith("<helper>")


def test_template_ids_are_prompt_ids_then_answer_ids(tokenizer: PreTrainedTokenizerFast):
    asked = tokenizer.apply_chat_template(CHAT[:1], add_generation_prompt=True)["input_ids"]
    answer = tokenizer("Use a fan.")["input_ids"]
    assert tokenizer.apply_chat_template(CHAT)["input_ids"] == [*asked, *answer, tokenizer.eos_token_id]
    assert len(asked) == 9  # bos, person, five words, a full stop, helper


def test_prompts_and_answers_are_short(tokenizer: PreTrainedTokenizerFast):
    asked = tokenizer([p.text for p in prompts(0)])["input_ids"]
    answers = tokenizer([row.completion for row in corpus(5000, seed=1)])["input_ids"]
    lengths = sorted(len(ids) + 1 for ids in answers)  # with the end token
    assert max(map(len, asked)) + 3 <= 24
    assert 13 <= sum(lengths) / len(lengths) <= 16
    assert lengths[int(0.995 * len(lengths))] <= 48
