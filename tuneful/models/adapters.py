"""Low-rank adapters (LoRA, arXiv 2106.09685) through PEFT: named ones on one base, switched per forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from tuneful.errors import ModelError
from tuneful.functional.precision import wide_linear
from tuneful.settings import require_at_least


@dataclass(frozen=True, kw_only=True, slots=True)
class LoRA:
    """Shape of an adapter."""

    rank: int = 8
    """Rank of the update of each linear layer."""
    alpha: int = 16
    """The update is scaled by alpha / rank."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "lora.", "rank", "alpha")


class AdapterSet:
    """The named adapters on one base model, and which of them are active now."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self._peft: Any = None
        self._layers: list[Any] = []
        self._active: tuple[str, ...] | None = None

    def add(self, name: str, lora: LoRA, *, seed: int = 0, with_head: str | None = None) -> None:
        """Add adapter `name` on every linear layer but the language model's head. Its update starts at zero.

        with_head: name of a head (a classifier's `score`) that is trained whole, in float32 whatever the base is, and
        saved beside the adapter.
        """
        from peft import LoraConfig, TaskType

        config = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=0.0,
            target_modules="all-linear",
            task_type=TaskType.SEQ_CLS if with_head else self._speaks_as(),
            modules_to_save=[with_head] if with_head else None,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._insert(name, config)
        if with_head:
            self.head(with_head).float()  # PEFT copies it in the base's dtype, which would round small updates away

    def load(self, name: str, path: str | Path) -> dict[str, Tensor]:
        """Add the adapter saved at `path` as `name`. Returns the weights of the heads that were saved beside it.

        Raises ModelError when it was trained on another base, or fits other layers than this model has.
        """
        from peft import PeftConfig, load_peft_weights, set_peft_model_state_dict

        config = PeftConfig.from_pretrained(str(path))
        if not same_place(config.base_model_name_or_path, self.model.name_or_path):
            raise ModelError(
                f"{path}: an adapter on {config.base_model_name_or_path}, which is not the base "
                f"{self.model.name_or_path}; train it on that base, or give each role a model of its own"
            )
        config.task_type, config.modules_to_save = self._speaks_as(), None  # heads are the caller's
        saved = load_peft_weights(str(path), device="cpu")
        adapter = {key: weight for key, weight in saved.items() if "lora_" in key}
        self._insert(name, config)
        try:
            set_peft_model_state_dict(self._peft, adapter, adapter_name=name)
            fits = len(adapter) == len(self.named_parameters(name))
        except RuntimeError:  # of other sizes
            fits = False
        if not fits:
            self.remove(name)
            raise ModelError(f"{path}: the adapter fits other layers than those of {self.model.name_or_path}")
        return {key.removeprefix("base_model.model."): w for key, w in saved.items() if key not in adapter}

    def copy(self, name: str, to: str) -> None:
        """Add adapter `to` with the shape and the weights of `name`."""
        self._insert(to, self._peft.peft_config[name])
        with torch.no_grad():
            for one, other in zip(
                self.named_parameters(to).values(), self.named_parameters(name).values(), strict=True
            ):
                one.copy_(other)

    def remove(self, name: str) -> None:
        """Take adapter `name`, which must not be active, off the base."""
        self._peft.delete_adapter(name)

    def _speaks_as(self) -> Any:
        """PEFT's name for the task of a language model such as the base."""
        from peft import TaskType

        return TaskType.SEQ_2_SEQ_LM if self.model.config.is_encoder_decoder else TaskType.CAUSAL_LM

    def _insert(self, name: str, config: Any) -> None:
        from peft import PeftModel
        from peft.tuners.tuners_utils import BaseTunerLayer

        if self._peft is None:
            self._peft = PeftModel(self.model, config, adapter_name=name)
        else:
            self._peft.add_adapter(name, config)
        self._layers = [m for m in self.model.modules() if isinstance(m, BaseTunerLayer)]
        self._active = None
        self.model.eval()

    def activate(self, names: tuple[str, ...]) -> None:
        """Run the base with exactly these adapters; () is the base alone. The pass has gradients for these only."""
        if names == self._active:
            return
        for layer in self._layers:
            layer.enable_adapters(bool(names))
            if names:
                layer.set_adapter(list(names))
            # PEFT freezes what is off, which would drop the gradient of a pass whose backward is still to come.
            for key, weight in layer.named_parameters():
                if "lora_" in key:
                    weight.requires_grad_(True)
        self._active = names

    def named_parameters(self, name: str) -> dict[str, nn.Parameter]:
        """The weights of adapter `name` by their place in the model."""
        return {n: p for n, p in self.model.named_parameters() if f".{name}." in f".{n}."}

    def head(self, name: str) -> nn.Linear:
        """The trained copy of a head that was added with an adapter."""
        wrapper = getattr(self.model, name)
        (copy,) = wrapper.modules_to_save.values()
        assert isinstance(copy, nn.Linear)
        return copy

    def save(self, name: str, path: Path) -> None:
        """Write adapter `name` as a PEFT directory."""
        self._peft.save_pretrained(path, selected_adapters=[name])
        nested = path / name  # PEFT gives every adapter a folder of its own name
        for file in nested.iterdir():
            file.rename(path / file.name)
        nested.rmdir()


def same_place(one: str | Path, other: str | Path) -> bool:
    """True for one directory written in two ways, and for equal hub ids."""
    return Path(one).expanduser().resolve() == Path(other).expanduser().resolve()


def adapted(layers: Sequence[Any], x: Tensor) -> list[Tensor]:
    """The outputs [T, o] of linear layers that read the same x [T, i], with their active adapters.

    A float32 adapter is added to its layer's weights W for the length of the product: x (W + s B A)^T costs what x W^T
    does, where x W^T + s (x A^T) B^T goes over every token's output twice more. Layers in half precision or 4 bits,
    whose weights would round a small update away, run as PEFT has them, and so do layers with none, several, or another
    kind of adapter.
    """
    outputs = []
    for layer in layers:
        found = _mergeable(layer)
        if found is None:
            outputs.append(layer(x))
        else:
            base, *factors = found
            outputs.append(_Adapted.apply(x, base.weight, base.bias, *factors))  # type: ignore[no-untyped-call]
    return outputs


def wide_output(layer: Any, x: Tensor) -> Tensor | None:
    """The output of a linear layer in half precision and of its active adapters, in float32 [..., n, o]; None
    for other layers, for other precisions and with another kind of adapter.

    x: [..., n, i] of the layer's dtype.
    """
    base = getattr(layer, "base_layer", layer)
    if type(base) is not nn.Linear or base.weight.dtype not in (torch.float16, torch.bfloat16):
        return None
    names = [] if base is layer else _active_on(layer)
    if any(name in layer.lora_variant for name in names):
        return None
    output = wide_linear(x, base.weight, base.bias)
    for name in names:
        output = output + layer.scaling[name] * layer.lora_B[name](layer.lora_A[name](x.float()))
    return output


class FrozenLinears:
    """`adapted` for many products of few rows with weights that do not change meanwhile, without gradient.

    A float32 layer's sum with its adapter is made once, layers that read the same input are one product, and on a CPU
    their weights are laid out once in the order in which oneDNN reads them.
    """

    def __init__(self) -> None:
        self._ready: dict[tuple[int, ...], Callable[[Tensor], Sequence[Tensor]]] = {}

    def __call__(self, layers: Sequence[Any], x: Tensor) -> Sequence[Tensor]:
        key = tuple(map(id, layers))
        if key not in self._ready:
            self._ready[key] = _joined(layers)
        return self._ready[key](x)


def _joined(layers: Sequence[Any]) -> Callable[[Tensor], Sequence[Tensor]]:
    parts = [_whole(layer) for layer in layers]
    weights = [part[0] for part in parts if part is not None]
    if len(weights) < len(layers):
        return lambda x: [layer(x) for layer in layers]
    sizes = [len(weight) for weight in weights]
    weight = torch.cat(weights) if len(weights) > 1 else weights[0]
    biases = [part[1] for part in parts if part is not None]
    bias = None
    if any(one is not None for one in biases):
        bias = torch.cat(
            [weight.new_zeros(size) if one is None else one for one, size in zip(biases, sizes, strict=True)]
        )
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return lambda x: torch.split(linear(x, weight, bias), sizes, dim=-1)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)

    def run(x: Tensor) -> Sequence[Tensor]:
        # oneDNN makes and keeps half a megabyte of code for every number of rows, so it sees powers of two alone.
        more = (1 << (len(x) - 1).bit_length()) - len(x)
        out = torch.ops.mkldnn._linear_pointwise(pad(x, (0, 0, 0, more)), packed, bias, "none", [], "")
        return torch.split(out[: len(x)], sizes, dim=-1)

    return run


def _whole(layer: Any) -> tuple[Tensor, Tensor | None] | None:
    """A float32 layer's weights, its active adapter added, and its bias; else None."""
    found = _mergeable(layer)
    if found is not None:
        base, down, up, scale = found
        return torch.addmm(base.weight, up, down, alpha=scale), base.bias
    base = layer.base_layer if hasattr(layer, "base_layer") and not _active_on(layer) else layer
    if type(base) is not nn.Linear or base.weight.dtype != torch.float32:
        return None
    return base.weight.detach(), base.bias


def _mergeable(layer: Any) -> tuple[nn.Linear, Tensor, Tensor, float] | None:
    """A float32 layer and its one active adapter: factors A [r, i] and B [o, r], scale s; else None.

    Adapters that are more than W + s B A, as DoRA's and those with biases, are PEFT's to compute.
    """
    base = getattr(layer, "base_layer", None)
    if type(base) is not nn.Linear or base.weight.dtype != torch.float32 or base.weight.requires_grad:
        return None
    names = _active_on(layer)
    if len(names) != 1 or names[0] in layer.lora_variant or layer.lora_B[names[0]].bias is not None:
        return None
    (name,) = names
    return base, layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name]


def _active_on(layer: Any) -> list[str]:
    """The active adapters that have a part on this layer."""
    return [] if layer.disable_adapters else [name for name in layer.active_adapters if name in layer.lora_A]


class _Adapted(torch.autograd.Function):
    """x (W + s B A)^T + bias with gradients of x, A and B; the sum is made again in the backward pass, never kept."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, down, up)
        ctx.scale = scale
        return linear(x, torch.addmm(weight, up, down, alpha=scale), bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, down, up = ctx.saved_tensors
        of_x = grad @ torch.addmm(weight, up, down, alpha=ctx.scale) if ctx.needs_input_grad[0] else None
        of_down = (grad @ up).mul_(ctx.scale).T @ x
        of_up = grad.T @ linear(x, down).mul_(ctx.scale)
        return of_x, None, None, of_down, of_up, None
