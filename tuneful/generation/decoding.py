"""Decoding token by token: the cache of the rows under way, and the pass that takes each a token further.

A prompt runs once for all its samples. A decoder's prompts of different lengths are padded on the left with explicit
positions; an encoder-decoder's are read by its encoder, and all its rows start together. Either way the hidden states
equal those of a plain forward pass over the finished row.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from tuneful.models.forward import Ids, encoded
from tuneful.models.roles import Role

MAX_ROWS = 256
"""Rows decoded together; more gain nothing on two cores and cost memory."""

MAX_CACHE = 8 * 2**30
"""Bytes of keys and values held together, which bounds the rows of a large model; a single prompt's may exceed it."""


class Decoding(Protocol):
    """R rows under way."""

    hidden: Tensor
    """[R, d]: the state that the first token is drawn from."""

    def step(self, chosen: Tensor) -> Tensor:
        """Add a token to each row, int64 [R]; the states [R, d] that the next are drawn from."""

    def keep(self, index: Tensor) -> None:
        """Go on with these rows alone, in this order."""


def begin_decoding(policy: Role, prompts: Ids, num_samples: int) -> Decoding:
    """Rows of `num_samples` per prompt, prompt by prompt."""
    policy.activate()
    kind = EncoderDecoderDecoding if policy.model.config.is_encoder_decoder else DecoderDecoding
    return kind(policy.model, prompts, num_samples)


def rows_together(model: Any, longest: int) -> int:
    """How many rows of up to `longest` tokens, prompt included, are decoded together."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    layers = getattr(config, "num_decoder_layers", None) or config.num_hidden_layers
    row: int = 2 * layers * heads * width * longest * model.dtype.itemsize
    return min(MAX_ROWS, MAX_CACHE // row)


class DecoderDecoding:
    """Rows of a decoder: prompt and answer are one sequence."""

    def __init__(self, model: Any, prompts: Ids, num_samples: int) -> None:
        from transformers import DynamicCache

        self.model = model
        width = max(map(len, prompts))
        pads = torch.tensor([width - len(prompt) for prompt in prompts], device=model.device)
        ids = torch.tensor([[0] * (width - len(prompt)) + [*prompt] for prompt in prompts], device=model.device)
        self.attended = (torch.arange(width, device=model.device)[None, :] >= pads[:, None]).long()
        positions = (self.attended.cumsum(-1) - 1).clamp_min(0)
        self.cache = DynamicCache(config=model.config)
        self.position = positions[:, -1:]
        self.hidden = self._states(ids, positions)
        if num_samples > 1:
            self.cache.batch_repeat_interleave(num_samples)
            self.hidden = self.hidden.repeat_interleave(num_samples, 0)
            self.attended = self.attended.repeat_interleave(num_samples, 0)
            self.position = self.position.repeat_interleave(num_samples, 0)

    def step(self, chosen: Tensor) -> Tensor:
        self.attended = torch.cat([self.attended, self.attended.new_ones(len(chosen), 1)], dim=1)
        self.position = self.position + 1
        return self._states(chosen[:, None], self.position)

    def keep(self, index: Tensor) -> None:
        self.cache.batch_select_indices(index)
        self.attended, self.position = self.attended[index], self.position[index]

    def _states(self, ids: Tensor, positions: Tensor) -> Tensor:
        """States [R, d] of the last position; the cache grows in place."""
        output = self.model.base_model(
            input_ids=ids,
            attention_mask=self.attended,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
        )
        return output.last_hidden_state[:, -1]  # type: ignore[no-any-return]


class EncoderDecoderDecoding:
    """Rows of an encoder-decoder: the answer is a sequence of its own, begun by the start token."""

    def __init__(self, model: Any, prompts: Ids, num_samples: int) -> None:
        from transformers import DynamicCache, EncoderDecoderCache

        self.model = model
        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        states, attended = encoded(model, prompts)
        self.states = states.repeat_interleave(num_samples, 0)
        self.attended = attended.repeat_interleave(num_samples, 0)
        start = torch.tensor([model.config.decoder_start_token_id], device=model.device)
        self.hidden = self.step(start.expand(len(self.states)))

    def step(self, chosen: Tensor) -> Tensor:
        output = self.model.get_decoder()(
            input_ids=chosen[:, None],
            encoder_hidden_states=self.states,
            encoder_attention_mask=self.attended,
            past_key_values=self.cache,
            use_cache=True,
        )
        return output.last_hidden_state[:, -1]  # type: ignore[no-any-return]

    def keep(self, index: Tensor) -> None:
        self.cache.batch_select_indices(index)
        self.states, self.attended = self.states[index], self.attended[index]
