"""The demo world's word-level tokenizer, a plain fast tokenizer of transformers.

A word carries the space before it (`▁tap`), a punctuation mark stands alone, so decoding gives the text back letter by
letter, and no word is more than one token.
"""

from __future__ import annotations

from typing import Final

from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from tuneful.demo.grammar import all_texts
from tuneful.demo.world import BASE_CONFIG, SPECIAL_TOKENS

CHAT_TEMPLATE: Final = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<helper>{{ message['content'] }}{{ eos_token }}"
    "{% else %}<person>{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<helper>{% endif %}"
)
"""`<bos><person>My house is too hot.<helper>Open the windows.<eos>`."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with an id for every word of the world and `BASE_CONFIG["vocab_size"]` ids in all.

    The last few ids are free (`<unused-0>`, ...). It pads on the left, as generation wants.
    """
    splitter = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="always"), pre_tokenizers.Punctuation("isolated")]
    )
    pieces = sorted({piece for text in all_texts() for piece, _ in splitter.pre_tokenize_str(text)})
    # The lone space lets a text with a double space, or one that opens with a mark, come back whole.
    tokens = [*SPECIAL_TOKENS, "▁", *pieces]
    tokens += [f"<unused-{i}>" for i in range(BASE_CONFIG["vocab_size"] - len(tokens))]
    backend = Tokenizer(WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<unk>"))
    backend.pre_tokenizer = splitter
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=["<person>", "<helper>"],
        chat_template=CHAT_TEMPLATE,
        model_max_length=BASE_CONFIG["max_position_embeddings"],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
