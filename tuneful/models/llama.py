"""The pass of Llama and its kin over ragged rows, on the weights of transformers' model.

The numbers of transformers' own pass, up to rounding, for less work: linear layers see no padding; an equal prompt runs
once; after the last layer's keys and values a prompt's tokens are let go; a float32 adapter is added to its layer's
weights for the length of a product, not to the output of each token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from tuneful.functional.attention import ragged_attention
from tuneful.functional.layers import rms_norm, rotate, swiglu
from tuneful.models.adapters import adapted
from tuneful.models.ragged import Ragged

ALONE_FROM = 32
"""Tokens of a row, on average, from which rows attend one after the other; a product of fewer is mostly overhead."""

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(number of the layer, queries [S, H, h], keys and values [T, K, h]) -> what the queries read [S, H, h]. S is T, but
in the last layer the number of tokens that go on."""


def is_llama_like(model: Any) -> bool:
    """True for the models whose pass is computed here: Llama, Mistral, Qwen2 and Qwen3 without a sliding window.

    One with forward hooks of somebody's own is not, for they would not be called.
    """
    config = model.config
    return (
        config.model_type in ("llama", "mistral", "qwen2", "qwen3")
        and not _is_hooked(model.base_model)
        and config.hidden_act == "silu"
        and (getattr(config, "sliding_window", None) is None or not getattr(config, "use_sliding_window", True))
        and config.rope_parameters["rope_type"] not in ("dynamic", "longrope")  # whose angles depend on the length
    )


def _is_hooked(trunk: Any) -> bool:
    if getattr(trunk, "sharded", False):  # engines/sharding.py, whose hooks `_around` calls
        return False
    return any(module._forward_hooks or module._forward_pre_hooks for module in trunk.modules())


def own_states(
    model: Any, rows: Ragged, *, last_only: bool = False, recompute: Callable[[], None] | None = None
) -> Tensor:
    """Hidden states after the last norm of the own tokens [M, d], row by row; of each row's last alone [R, d].

    recompute: see `through_layers`.
    """
    ends = rows.own.ends - 1 if last_only else None
    attend = _within_rows(model, rows)
    return through_layers(model, rows.ids, rows.positions, attend, go_on=rows.own_of, read=ends, recompute=recompute)


def through_layers(
    model: Any,
    ids: Tensor,
    positions: Tensor,
    attend: Attend,
    *,
    linears: Callable[[Sequence[Any], Tensor], Sequence[Tensor]] = adapted,
    go_on: Callable[[Tensor], Tensor] | None = None,
    read: Tensor | None = None,
    recompute: Callable[[], None] | None = None,
) -> Tensor:
    """Hidden states after the last norm [S, d] of the tokens that go on, or of those of them in `read`.

    ids, positions: int64 [T]. linears: (layers that read the same input, it) -> their outputs. go_on: numbers of all
    tokens [T, ...] -> of those [S, ...] that leave more in the last layer than keys and values; None: all. recompute:
    keep only each layer's input and compute the layer again for its backward pass, after this call, which switches the
    same adapters on (gradient checkpointing, Chen et al. 2016, arXiv 1604.06174).
    """
    trunk = model.base_model
    embedded = trunk.embed_tokens(ids)
    cos, sin = (part[0, :, None] for part in trunk.rotary_emb(embedded, positions[None]))
    first, second = sin.chunk(2, dim=-1)
    angles = cos, torch.cat([-first, second], dim=-1)

    def through(x: Tensor, number: int) -> Tensor:
        layer = trunk.layers[number]
        attention, mlp, is_last = layer.self_attn, layer.mlp, number + 1 == len(trunk.layers)
        normed, query_angles = _norm(x, layer.input_layernorm), angles
        if is_last and go_on is not None:
            x, query_angles = go_on(x), (go_on(angles[0]), go_on(angles[1]))
            found = [
                *linears([attention.q_proj], go_on(normed)),
                *linears([attention.k_proj, attention.v_proj], normed),
            ]
        else:
            found = [*linears([attention.q_proj, attention.k_proj, attention.v_proj], normed)]
        q, k, v = (part.view(len(part), part.shape[-1] // attention.head_dim, attention.head_dim) for part in found)
        if hasattr(attention, "q_norm"):
            q, k = _norm(q, attention.q_norm), _norm(k, attention.k_norm)
        mixed = attend(number, rotate(q, *query_angles), rotate(k, *angles), v).flatten(1)
        if is_last and read is not None:
            x, mixed = x[read], mixed[read]
        x = x + linears([attention.o_proj], mixed)[0]
        gate, up = linears([mlp.gate_proj, mlp.up_proj], _norm(x, layer.post_attention_layernorm))
        return x + linears([mlp.down_proj], swiglu(gate, up))[0]

    def again(x: Tensor, number: int) -> Tensor:
        assert recompute is not None
        recompute()
        return through(x, number)

    def through_all(x: Tensor) -> Tensor:
        for number, layer in enumerate(trunk.layers):
            if recompute is not None and torch.is_grad_enabled():
                x = checkpoint(_around, layer, again, x, number, use_reentrant=False)
            else:
                x = _around(layer, through, x, number)
        return x

    return _norm(_around(trunk, through_all, embedded), trunk.norm)


def _around(module: Any, work: Callable[..., Tensor], *given: Any) -> Tensor:
    """`work` on the weights of `module`, which are gathered for it where they are sharded (engines/sharding.py)."""
    around = getattr(module, "around", None)
    return work(*given) if around is None else around(work, *given)


def _within_rows(model: Any, rows: Ragged) -> Attend:
    """Prefixes read themselves, own tokens their prefix and themselves; in the last layer own tokens alone ask."""
    last = model.config.num_hidden_layers - 1
    on_cpu, itemsize = model.device.type == "cpu", model.dtype.itemsize
    if attends_alone(len(rows.ids), len(rows.own_pieces), on_cpu=on_cpu, itemsize=itemsize):

        def attend_alone(number: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            pieces = rows.own_pieces if number == last else rows.pieces
            return ragged_attention(q, k, v, pieces, scale=scaling(model))

        return attend_alone

    seen = rows.seen()

    def attend(number: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        (prefix_k, own_k), (prefix_v, own_v) = rows.parts(k), rows.parts(v)
        prefix_q, own_q = (None, q) if number == last else rows.parts(q)
        prefix_k, prefix_v = rows.prefixes.pad(prefix_k), rows.prefixes.pad(prefix_v)
        keys = torch.cat([rows.of_prefix(prefix_k), rows.own.pad(own_k)], dim=1)
        values = torch.cat([rows.of_prefix(prefix_v), rows.own.pad(own_v)], dim=1)
        own = rows.own.flatten(attention(model, rows.own.pad(own_q), keys, values, seen=seen))
        if prefix_q is None:
            return own
        of_prefixes = prefix_q
        if len(rows.prefixes):
            of_prefixes = rows.prefixes.flatten(attention(model, rows.prefixes.pad(prefix_q), prefix_k, prefix_v))
        return rows.joined(of_prefixes, own)

    return attend


def attends_alone(num_tokens: int, num_rows: int, *, on_cpu: bool, itemsize: int) -> bool:
    """True where `ragged_attention` takes less memory, and on one thread less time: float32 on a CPU, no tiny rows.

    itemsize: bytes of a number of the model.
    """
    return on_cpu and itemsize == torch.float32.itemsize and num_tokens >= ALONE_FROM * num_rows


def scaling(model: Any) -> float:
    """What queries times keys are multiplied by."""
    return float(model.base_model.layers[0].self_attn.scaling)


def attention(model: Any, q: Tensor, k: Tensor, v: Tensor, *, seen: Tensor | None = None) -> Tensor:
    """What each of O queries [N, O, H, h] reads of L keys and values [N, L, K, h]: [N, O, H, h].

    seen: bool, to be broadcast to [N, O, L]; None: the keys up to the query itself.
    """
    out = scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=None if seen is None else seen[:, None],
        is_causal=seen is None,
        scale=scaling(model),
        enable_gqa=q.shape[2] != k.shape[2],
    )
    return out.transpose(1, 2)


def _norm(x: Tensor, norm: Any) -> Tensor:
    return rms_norm(x, norm.weight, norm.variance_epsilon)
