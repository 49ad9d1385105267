"""Decoding token by token: the cache of the rows under way, and the pass that takes each a token further.

A prompt runs once for all its samples. Llama-like decoders have a cache of their own (llama_decoding.py). In that of
other decoders rows of different length are padded on the left with explicit positions; an encoder-decoder's prompts are
read by its encoder. However they are kept, the hidden states equal those of a plain forward pass over the finished row.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from tuneful.errors import ModelError
from tuneful.generation.llama_decoding import LlamaDecoding
from tuneful.models.forward import encoded, lm_logits
from tuneful.models.llama import is_llama_like
from tuneful.models.ragged import Ids
from tuneful.models.roles import Role

MAX_ROWS = 256
"""Rows decoded together, but for the samples of one prompt; more gain nothing on two cores and cost memory. A
GPU, for which it holds too, may gain from more: not measured."""

MAX_CACHE = 8 * 2**30
"""Bytes of keys and values held together, which bounds the rows of a large model; a single prompt's may exceed it."""


class Decoding(Protocol):
    """R rows under way."""

    @property
    def waves(self) -> str | None:
        """Why no row may begin while others are under way; None where it may."""

    def admit(self, prompts: Ids, num_samples: int) -> Tensor:
        """Begin `num_samples` rows of each prompt, after those under way; the states [n, d] that they draw from."""

    def step(self, chosen: Tensor) -> Tensor:
        """Add a token to each row, int64 [R]; the states [R, d] that the next are drawn from."""

    def keep(self, index: Tensor) -> None:
        """Go on with these rows alone, in this order."""

    def logits(self, hidden: Tensor) -> Tensor:
        """[R, V] before the temperature."""


def begin_decoding(policy: Role, *, rows: int, longest: int) -> Decoding:
    """An empty cache for up to so many rows of up to `longest` tokens, prompt included."""
    policy.activate()
    if policy.model.config.is_encoder_decoder:
        return EncoderDecoderDecoding(policy.model)
    return LlamaDecoding(policy.model, rows, longest) if is_llama_like(policy.model) else DecoderDecoding(policy.model)


@torch.no_grad()
def why_waves(policy: Role) -> str | None:
    """Why rows of this policy leave the batch as they finish but none enters until all have; None where they enter.

    A decoder that does not go through llama.py is asked: a row that begins beside one under way must have the states
    that it has alone, as it does where the model takes a position for each row.
    """
    refuse_other_cache(policy)
    together = begin_decoding(policy, rows=2, longest=8)
    if together.waves is not None or is_llama_like(policy.model):
        return together.waves
    early, late, said = [0, 1, 2, 3], [3, 1], torch.tensor([2, 1], device=policy.device)
    together.admit([early], 1)
    together.step(said[:1])
    states = [together.admit([late], 1)[0], together.step(said)[1]]
    alone = begin_decoding(policy, rows=1, longest=8)
    expected = torch.stack([alone.admit([late], 1)[0], alone.step(said[1:])[0]]).float()
    error = (torch.stack(states).float() - expected).norm() / expected.norm()
    if error < policy.rounding:
        return None
    return f"a {policy.model.config.model_type} that begins beside others computes something else"


@torch.no_grad()
def refuse_other_cache(policy: Role) -> None:
    """ModelError for a decoder that keeps what it has read in a way of its own, or reads a row otherwise when it stands
    beside a longer one: one token is read, and what is kept of it looked at; then two rows, together and each alone."""
    from transformers import DynamicCache

    model = policy.model
    if model.config.is_encoder_decoder or is_llama_like(model):
        return
    policy.activate()
    token = torch.zeros(1, 1, dtype=torch.int64, device=model.device)
    kept = getattr(model.base_model(input_ids=token, use_cache=True), "past_key_values", None)
    if type(kept) is not DynamicCache:  # MiniMax takes its own kind of DynamicCache alone
        raise ModelError(
            f'{model.name_or_path}: a "{model.config.model_type}" does not keep what it has read in a DynamicCache of '
            "transformers, so it cannot be sampled from; give another decoder"
        )
    rows, said = [[0, 1, 2, 3], [3, 1]], [2, 1]
    together = DecoderDecoding(model)
    together.admit(rows, 2)
    together.keep(torch.tensor([3, 0], device=model.device))
    states = together.step(torch.tensor(said, device=model.device)).float()
    alone = [torch.tensor([[*row, token]], device=model.device) for row, token in zip(rows[::-1], said, strict=True)]
    expected = torch.cat([model.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, -1] for ids in alone])
    if not (states - expected.float()).norm() < policy.rounding * expected.float().norm():
        raise ModelError(
            f'{model.name_or_path}: a "{model.config.model_type}" computes something else for a prompt beside a longer '
            "one, so it cannot be sampled from; give another decoder"
        )


def cache_of_token(model: Any) -> int:
    """Bytes of a token's keys and values."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    layers = getattr(config, "num_decoder_layers", None) or config.num_hidden_layers
    size: int = 2 * layers * heads * width * model.dtype.itemsize
    return size


def rows_together(cache: int, longest: int, num_samples: int) -> int:
    """How many rows of up to `longest` tokens, prompt included, are decoded together; one prompt's samples always are.

    cache: bytes of a token's keys and values.
    """
    return max(min(MAX_ROWS, MAX_CACHE // (cache * longest)), num_samples)


class DecoderDecoding:
    """Rows of a decoder in transformers' cache, their last tokens side by side: a row that is shorter, or began later,
    is padded on the left. Layers with a sliding window let old keys go, so with them no row enters late."""

    def __init__(self, model: Any) -> None:
        self.model = model
        config = model.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ())
        if not kinds and getattr(config, "sliding_window", None) is not None:
            kinds = {"sliding_attention"}
        partial = sorted(kinds - {"full_attention"})
        self.waves = f"layers of {' and '.join(partial)} do not keep the keys of all tokens" if partial else None
        self.cache: Any = None  # none when no row is under way
        self.attended = self.position = torch.empty(0)

    def admit(self, prompts: Ids, num_samples: int) -> Tensor:
        from transformers import DynamicCache

        device = self.model.device
        width = max(map(len, prompts))
        pads = torch.tensor([width - len(prompt) for prompt in prompts], device=device)
        ids = torch.tensor([[0] * (width - len(prompt)) + [*prompt] for prompt in prompts], device=device)
        attended = (torch.arange(width, device=device) >= pads[:, None]).long()
        positions = (attended.cumsum(-1) - 1).clamp_min(0)
        cache: Any = DynamicCache(config=self.model.config)
        hidden = self._states(ids, attended, positions, cache)
        position = positions[:, -1:]
        if num_samples > 1:
            # Not batch_repeat_interleave, which recurrent layers lack, or leave their states out of.
            cache.reorder_cache(torch.arange(len(prompts), device=device).repeat_interleave(num_samples))
            hidden, attended, position = (x.repeat_interleave(num_samples, 0) for x in (hidden, attended, position))
        if self.cache is None:
            self.cache, self.attended, self.position = cache, attended, position
        else:
            layers: Any = zip(self.cache.layers, cache.layers, strict=True)
            for layer, new in layers:
                layer.keys, layer.values = _below(layer.keys, new.keys, -2), _below(layer.values, new.values, -2)
            self.attended, self.position = _below(self.attended, attended, -1), torch.cat([self.position, position])
        return hidden

    def step(self, chosen: Tensor) -> Tensor:
        self.attended = torch.cat([self.attended, self.attended.new_ones(len(chosen), 1)], dim=1)
        self.position = self.position + 1
        return self._states(chosen[:, None], self.attended, self.position, self.cache)

    def keep(self, index: Tensor) -> None:
        if len(index) == 0:
            self.cache = None
            return
        self.cache.reorder_cache(index)
        self.attended, self.position = self.attended[index], self.position[index]
        if self.waves is None:
            unused = self.attended.shape[1] - 1 - int(self.position.max())
            self.attended = self.attended[:, unused:]
            for layer in self.cache.layers:
                layer.keys, layer.values = layer.keys[..., unused:, :], layer.values[..., unused:, :]

    def logits(self, hidden: Tensor) -> Tensor:
        return lm_logits(self.model, hidden)

    def _states(self, ids: Tensor, attended: Tensor, positions: Tensor, cache: Any) -> Tensor:
        """States [R, d] of the last position; the cache grows in place."""
        output = self.model.base_model(
            input_ids=ids, attention_mask=attended, position_ids=positions, past_key_values=cache, use_cache=True
        )
        return output.last_hidden_state[:, -1]  # type: ignore[no-any-return]


class EncoderDecoderDecoding:
    """Rows of an encoder-decoder: the answer is a sequence of its own, begun by the start token. Its positions count
    from the beginning of the cache, so all rows start together: none enters before the last has left."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.waves = f"the positions of a {model.config.model_type} count from the beginning of the cache"

    def admit(self, prompts: Ids, num_samples: int) -> Tensor:
        from transformers import DynamicCache, EncoderDecoderCache

        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        states, attended = encoded(self.model, prompts)
        self.states = states.repeat_interleave(num_samples, 0)
        self.attended = attended.repeat_interleave(num_samples, 0)
        start = torch.tensor([self.model.config.decoder_start_token_id], device=self.model.device)
        return self.step(start.expand(len(self.states)))

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

    def logits(self, hidden: Tensor) -> Tensor:
        return lm_logits(self.model, hidden)


def _below(one: Tensor, other: Tensor, dim: int) -> Tensor:
    """Rows of `other` after those of `one`, the narrower padded with zeros at the beginning of dimension `dim`."""
    width = max(one.shape[dim], other.shape[dim])

    def widened(x: Tensor) -> Tensor:
        shape = [*x.shape]
        shape[dim] = width - x.shape[dim]
        return torch.cat([x.new_zeros(shape), x], dim=dim)

    return torch.cat([widened(one), widened(other)])
