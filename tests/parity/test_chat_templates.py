"""Chat templates as the models' makers published them, in the copies TRL carries: our ids spell what they render."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tuneful.data.templates import completion_ids, completion_text, prompt_ids, render_prompt
from tuneful.records import Message, Prompt

trl = pytest.importorskip("trl", reason="TRL carries the templates")

LLAMA_3 = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

REAL = {
    "llama3": (LLAMA_3, "<|begin_of_text|>", "<|eot_id|>"),
    "llama3_1": (LLAMA_3, "<|begin_of_text|>", "<|eot_id|>"),
    "llama3_2": (LLAMA_3, "<|begin_of_text|>", "<|eot_id|>"),
    "qwen2_5": (QWEN, None, "<|im_end|>"),
    "qwen3": (QWEN, None, "<|im_end|>"),
    "qwen3_instruct_2507": (QWEN, None, "<|im_end|>"),
}
"""The special tokens of each family, its begin token, and the end token of its chat models."""

TURNS = (
    Message("user", "My house is too hot."),
    Message("assistant", "Is the sun on it?"),
    Message("user", "Yes, all day\n\nlong."),
)
ANSWER = "Close the blinds.\nOpen them at night."


def tokenizer_of(family: str, end: str | None = None) -> Any:
    """Its template on bytes for tokens."""
    special, begin, ends_turn = REAL[family]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    spelled = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    spelled.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    spelled.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    spelled.add_special_tokens([AddedToken(token, special=True) for token in special])
    tokenizer: Any = PreTrainedTokenizerFast(
        tokenizer_object=spelled, bos_token=begin, eos_token=end or ends_turn, pad_token=special[0]
    )
    folder = Path(trl.__file__).parent / "chat_templates"
    tokenizer.chat_template = (folder / f"{family}.jinja").read_text(encoding="utf-8")
    return tokenizer


@pytest.mark.parametrize("family", REAL)
@pytest.mark.parametrize("turns", [TURNS[:1], TURNS], ids=["one turn", "three turns"])
def test_prompt_and_answer_spell_what_the_template_renders(family: str, turns: tuple[Message, ...]) -> None:
    tokenizer = tokenizer_of(family)
    prompt = Prompt(turns)
    asked, answered = prompt_ids(prompt, tokenizer, max_tokens=None), completion_ids(prompt, ANSWER, tokenizer)
    said = [{"role": m.role, "content": m.content} for m in (*turns, Message("assistant", ANSWER))]
    whole = tokenizer.apply_chat_template(said, tokenize=False, date_string="26 Jul 2024")
    assert tokenizer.decode([*asked, *answered]) == whole.removesuffix("\n")  # ChatML ends a turn's line too
    assert answered[-1] == tokenizer.eos_token_id
    assert answered.count(tokenizer.eos_token_id) == 1
    assert completion_text(prompt, answered, tokenizer) == ANSWER


@pytest.mark.parametrize("family", REAL)
def test_a_prompt_is_the_same_tomorrow(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Llama 3.2's template writes today's date."""
    from transformers.utils import chat_template_utils

    class Tomorrow(chat_template_utils.datetime):  # type: ignore[misc, name-defined]
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls(2031, 1, 2)

    today = render_prompt(Prompt(TURNS), tokenizer_of(family))
    monkeypatch.setattr(chat_template_utils, "datetime", Tomorrow)
    if hasattr(chat_template_utils._compile_jinja_template, "cache_clear"):
        chat_template_utils._compile_jinja_template.cache_clear()
    assert render_prompt(Prompt(TURNS), tokenizer_of(family)) == today
    assert "2031" not in today


def test_the_end_token_of_a_base_model_ends_a_turn_of_chat() -> None:
    """Qwen's base models end texts with <|endoftext|>, and their template ends turns with <|im_end|>: the former is
    what the model is taught to say, once, and it samples until then."""
    tokenizer = tokenizer_of("qwen2_5", end="<|endoftext|>")
    answered = completion_ids(Prompt(TURNS), ANSWER, tokenizer)
    assert tokenizer.decode(answered) == ANSWER + "<|endoftext|>"
