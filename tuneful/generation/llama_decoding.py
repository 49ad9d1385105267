"""Decoding of Llama-like models: keys and values lie in one block of memory, written in place."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import Tensor

from tuneful.data.batching import token_budget_batches
from tuneful.functional.attention import ragged_attention
from tuneful.models.adapters import FrozenLinears
from tuneful.models.forward import lm_logits
from tuneful.models.llama import attends_alone, attention, scaling, through_layers
from tuneful.models.ragged import Ids, Rows, pieces, refuse_empty

PREFILL_TOKENS = 2_048
"""Prompt tokens that run together: their activations stand beside the cache, and more are not faster."""


class LlamaDecoding:
    """Row r's keys and values of layer l stand in keys[l][r, k] and values[l][r, k] at places 0, 1, 2, ..., of each
    head k in a run of their own, which a step reads through faster.

    A prompt's tokens but the last run once, whatever the number of its samples; the last is the first step of each.
    """

    waves = None

    def __init__(self, model: Any, rows: int, longest: int) -> None:
        layers = model.base_model.layers
        one = layers[0].self_attn
        shape = (rows, one.k_proj.out_features // one.head_dim, longest, one.head_dim)
        self.model = model
        self.linears = FrozenLinears()
        # Zeros, for what a row does not see must be finite too.
        self.keys, self.values = (
            [torch.zeros(shape, dtype=model.dtype, device=model.device) for _ in layers] for _ in range(2)
        )
        self.lengths = torch.empty(0, dtype=torch.int64, device=model.device)

    def admit(self, prompts: Ids, num_samples: int) -> Tensor:
        refuse_empty(prompts)
        first = len(self.lengths)
        before = torch.tensor([len(prompt) - 1 for prompt in prompts], device=self.lengths.device)
        self.lengths = torch.cat([self.lengths, before.repeat_interleave(num_samples)])
        for part in token_budget_batches([len(prompt) for prompt in prompts], PREFILL_TOKENS):
            slots = torch.tensor(part)[:, None] * num_samples + torch.arange(first, first + num_samples)
            self._read_prefixes([prompts[i][:-1] for i in part], slots.flatten().to(before.device), num_samples)
        last = torch.tensor([prompt[-1] for prompt in prompts], device=before.device)
        return self._advance(last.repeat_interleave(num_samples), slice(first, len(self.lengths)))

    def _read_prefixes(self, prefixes: Ids, slots: Tensor, num_samples: int) -> None:
        """Write keys and values of prompts without their last token into `slots`, [P * num_samples]."""
        lengths = [len(prefix) for prefix in prefixes]
        rows, alone = Rows(lengths, slots.device), pieces(lengths)
        on_cpu, itemsize = slots.device.type == "cpu", self.model.dtype.itemsize
        attend_alone = attends_alone(len(rows), len(alone), on_cpu=on_cpu, itemsize=itemsize)

        def attend(number: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            padded_k, padded_v = rows.pad(k), rows.pad(v)
            for cache, new in ((self.keys, padded_k), (self.values, padded_v)):
                cache[number][slots, :, : new.shape[1]] = new.transpose(1, 2).repeat_interleave(num_samples, 0)
            if number + 1 == len(self.keys):
                return q
            if attend_alone:
                return ragged_attention(q, k, v, alone, scale=scaling(self.model))
            return rows.flatten(attention(self.model, rows.pad(q), padded_k, padded_v))

        if len(rows):
            ids = torch.tensor([*chain(*prefixes)], device=slots.device)
            through_layers(self.model, ids, rows.place, attend, go_on=lambda x: x[:0])

    def step(self, chosen: Tensor) -> Tensor:
        return self._advance(chosen, slice(0, len(chosen)))

    def keep(self, index: Tensor) -> None:
        moved = (index != torch.arange(len(index), device=index.device)).nonzero().squeeze(-1)
        if len(moved):
            width = int(self.lengths.max())
            for cache in chain(self.keys, self.values):
                cache[moved, :, :width] = cache[index[moved], :, :width]
        self.lengths = self.lengths[index]

    def logits(self, hidden: Tensor) -> Tensor:
        # Not through `linears`: oneDNN's longer sums would be the largest error that a log-probability has.
        return lm_logits(self.model, hidden)

    def _advance(self, ids: Tensor, slots: slice) -> Tensor:
        """A token further for the rows in these slots: the states [n, d] of the tokens `ids` [n]."""
        positions = self.lengths[slots]
        width = int(positions.max()) + 1
        rows = torch.arange(slots.start, slots.stop, device=ids.device)
        seen = torch.arange(width, device=ids.device) <= positions[:, None]

        def attend(number: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            self.keys[number][rows, :, positions] = k
            self.values[number][rows, :, positions] = v
            keys, values = (cache[number][slots, :, :width].transpose(1, 2) for cache in (self.keys, self.values))
            return attention(self.model, q[:, None], keys, values, seen=seen[:, None])[:, 0]

        hidden = through_layers(self.model, ids, positions, attend, linears=self.linears)
        self.lengths[slots] += 1
        return hidden
