"""A frozen model whose linear layers are held in 4 bits: NF4 with double quantization (QLoRA, arXiv 2305.14314)."""

from __future__ import annotations

import importlib
from typing import Any

from torch import nn

from tuneful.errors import ModelError


def hold_in_nf4(model: Any) -> None:
    """Turn the linear layers of `model`'s trunk, in place, into layers that become NF4 when they are moved to a device.

    Embeddings, norms and heads keep their precision, which the layers also compute in, and so do layers that their
    family never holds in less, as the second ones of T5's feed-forward parts.
    Raises ModelError when bitsandbytes is missing or the trunk has no linear layer.
    """
    try:
        bitsandbytes = importlib.import_module("bitsandbytes.nn")
    except ImportError:
        raise ModelError('"nf4" needs the package bitsandbytes; pip install bitsandbytes') from None

    trunk = model.base_model
    head = model.get_output_embeddings()  # T5's stands inside what it calls its trunk
    wide = set(model._keep_in_fp32_modules or [])
    layers = {
        name: module
        for name, module in trunk.named_modules()
        if type(module) is nn.Linear and module is not head and name.rpartition(".")[2] not in wide
    }
    if not layers:
        raise ModelError(
            f'{model.name_or_path}: {type(model).__name__} has no linear layers to hold in NF4; use "bfloat16"'
        )
    for name, layer in layers.items():
        held = bitsandbytes.Linear4bit(
            layer.in_features,
            layer.out_features,
            bias=False,
            compute_dtype=layer.weight.dtype,
            quant_type="nf4",
            device="meta",
        )
        held.weight = bitsandbytes.Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4", module=held)
        held.bias = layer.bias
        # On CPUs with AVX512-BF16 it would repack the weights at the first pass without gradients, sampling, and from
        # then on lose the gradient through the layer and write the packed form to disk.
        held.support_avx512bf16_for_cpu = False
        parent, _, child = name.rpartition(".")
        setattr(trunk.get_submodule(parent), child, held)
    model.is_loaded_in_4bit = True  # PEFT asks this before it adapts such a layer
