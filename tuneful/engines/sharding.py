"""Sharding: each rank holds a part of every layer's weights, and a layer is whole while it computes (FSDP2).

For models of which one device cannot hold all that training takes. Of a sharded model the weights of the layers,
trained or frozen, their gradients and their optimizer state are split along the first dimension; embedding, head, last
norm, adapters and scalar heads stay whole on every rank. A pass gathers layer by layer, forward and backward, so all
ranks make the same passes at the same time; what cannot, such as sampling, holds the layers whole for its time
(`whole`).

Losses are divided by the count of the whole step, so gradients are summed. FSDP2 would average them, and gloo, asked
for an average, gives the sum (pytorch issue 162338): it is told to sum and to divide by nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tuneful.engines import ranks
from tuneful.errors import CheckError, ConfigError, RunError
from tuneful.models.llama import is_llama_like
from tuneful.models.roles import Role, Roles

State = dict[str, dict[str, Any]]
""""weights": tensors by name; "optimizer": the tensors of each weight's state, by its name."""


def refuse_unsharded(roles: Roles) -> None:
    """ConfigError for roles that cannot be sharded."""
    for role in _each(roles):
        if not is_llama_like(role.model):
            raise ConfigError(
                f"shard: only for Llama, Mistral and Qwen, but the {role.name} {role.model.name_or_path} is a "
                f"{role.model.config.model_type}; leave shard out"
            )


def shard(roles: Roles) -> None:
    """Leaves each rank its part of the models of these roles, in place; a rank that is alone keeps all.

    Of a role's trained weights those of layers become DTensors. Models come from the CPU layer by layer to the device
    of the rank, and no device ever holds one whole. Raises ConfigError for models that cannot be sharded.
    """
    refuse_unsharded(roles)
    if ranks.world_size() == 1:
        return
    from torch.distributed.device_mesh import init_device_mesh

    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    mesh = init_device_mesh(device.type, (ranks.world_size(),))
    each = _each(roles)
    trained = [cast("dict[str, nn.Parameter]", role.weights) for role in each]
    for model in {id(role.model): role.model for role in each}.values():
        _shard_model(model, mesh, trained)
        for weight in model.parameters():
            if not is_part(weight):
                weight.data = weight.data.to(device)
    for role in each:
        if role.head is not None:
            role.head.to(device)


def _shard_model(model: Any, mesh: Any, trained: Iterable[dict[str, nn.Parameter]]) -> None:
    """trained: weights by name, whose layers' are replaced by this rank's parts."""
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    trunk = model.base_model
    for layer in trunk.layers:
        kept = {weight for name, weight in layer.named_parameters() if "lora_" in name}
        places = {
            id(weight): (module, name)
            for module in layer.modules()
            for name, weight in module.named_parameters(recurse=False)
            if weight not in kept
        }
        moved = [
            (weights, key, *places[id(weight)])
            for weights in trained
            for key, weight in weights.items()
            if id(weight) in places
        ]
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=kept)
        layer.set_force_sum_reduction_for_comms(True)
        layer.set_gradient_divide_factor(1.0)
        layer.set_custom_all_gather(_Message(dist.all_gather_into_tensor))
        layer.set_custom_reduce_scatter(_Message(dist.reduce_scatter_tensor))
        for weights, key, module, name in moved:
            weights[key] = getattr(module, name)
    fully_shard(trunk, mesh=mesh, ignored_params={w for w in trunk.parameters() if not is_part(w)})
    trunk.sharded = True
    for module in (*trunk.layers, trunk):  # what the pass in models/llama.py runs inside
        module.around = lambda work, *given: work(*given)
        register_fsdp_forward_method(module, "around")


def is_sharded(roles: Roles) -> bool:
    """True when this rank holds a part of the models of these roles."""
    return any(hasattr(role.model.base_model, "around") for role in _each(roles))


@contextmanager
def whole(*models: Any) -> Iterator[None]:
    """Inside, every rank holds all weights of these models, so passes without gradient may differ between ranks.

    All ranks enter and leave together. Models that are not sharded are left as they are.
    """
    modules = [m for model in models for m in (*_layers(model), model.base_model) if hasattr(m, "around")]
    arounds = [module.around for module in modules]
    for module in modules:
        module.unshard()
        del module.around
    try:
        yield
    finally:
        for module, around in zip(modules, arounds, strict=True):
            module.around = around
            module.reshard()


def is_part(weight: Tensor) -> bool:
    """True when `weight` is this rank's part of a sharded one."""
    from torch.distributed.tensor import DTensor

    return isinstance(weight, DTensor)


def gathered(weight: Tensor) -> Tensor:
    """All of a weight; every rank calls this."""
    with ranks.together():
        found: Tensor = cast("Any", weight.detach()).full_tensor() if is_part(weight) else weight.detach()
    return found


def own_part(weight: Tensor) -> Tensor:
    """What this rank holds of a weight, in the same memory."""
    found: Tensor = cast("Any", weight).to_local() if is_part(weight) else weight
    return found


def part_like(weight: Tensor, full: Tensor) -> Tensor:
    """`full` split as `weight` is; what is split already stays as it is."""
    if is_part(weight) is is_part(full):
        return full.to(weight.device)
    from torch.distributed.tensor import distribute_tensor

    like: Any = weight
    return distribute_tensor(full.to(weight.device), like.device_mesh, like.placements, src_data_rank=None)


def clip_gradients(weights: Iterable[nn.Parameter], max_norm: float) -> float:
    """`nn.utils.clip_grad_norm_` where some weights are parts: the norm is that of all parts on all ranks."""
    weights = [weight for weight in weights if weight.grad is not None]
    if not any(map(is_part, weights)):
        return float(nn.utils.clip_grad_norm_(weights, max_norm))
    parts, rest = (
        [own_part(cast("Tensor", w.grad)) for w in weights if is_part(w) is split] for split in (True, False)
    )
    norms = [nn.utils.get_total_norm(gradients) for gradients in (parts, rest)]
    norm = (ranks.add_up(norms[0].square()) + norms[1].square()).sqrt()
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)  # as clip_grad_norm_ does
    for gradient in (*parts, *rest):
        gradient.mul_(factor)
    return float(norm)


def full_weights(model: Any) -> Mapping[str, Tensor] | None:
    """The state dict of a sharded model, whole and on the CPU, on rank 0; every rank calls this.

    None for the other ranks, and for a model that is not sharded.
    """
    if not any(map(is_part, model.parameters())):
        return None
    found: dict[int, Tensor] = {}
    held = model.state_dict(keep_vars=True)
    for weight in {id(weight): weight for weight in held.values()}.values():  # once where two names share it
        full = gathered(weight)
        if ranks.rank() == 0:
            found[id(weight)] = full.cpu()
    return {name: found[id(weight)] for name, weight in held.items()} if ranks.rank() == 0 else None


def save_parts(path: Path, state: State) -> None:
    """Write `state` to the folder `path`, each rank its parts; any number of ranks can read it. All call this at once.

    Raises RunError when a rank could not write.
    """
    from torch.distributed.checkpoint.state_dict_saver import save

    _checkpointing(path, lambda: save(state, checkpoint_id=path))


def load_parts(path: Path, weights: Mapping[str, nn.Parameter]) -> State:
    """What `save_parts` wrote to `path`, split as `weights` are. Raises CheckError when it holds other weights."""
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import load

    held = set(FileSystemReader(path).read_metadata().state_dict_metadata)
    if {name for name in held if name.startswith("weights.")} != {f"weights.{name}" for name in weights}:
        raise CheckError(f"{path}: the checkpoint holds other weights than this run trains; use the same recipe")
    state: State = {"weights": {}, "optimizer": {}}
    for name, weight in weights.items():
        state["weights"][name] = torch.empty_like(weight.detach())
        if f"optimizer.{name}.step" in held:
            moments = {moment: torch.empty_like(weight.detach()) for moment in ("exp_avg", "exp_avg_sq")}
            state["optimizer"][name] = {"step": torch.tensor(0.0), **moments}
    _checkpointing(path, lambda: load(state, checkpoint_id=path))
    return state


def _checkpointing(path: Path, work: Callable[[], Any]) -> None:
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        with warnings.catch_warnings(), ranks.together():
            warnings.filterwarnings("ignore", "torch.distributed is")  # one process on purpose
            work()
    except CheckpointException as error:  # no Exception, so nothing else would report it
        reason = next(iter(error.failures.values()))[0]
        raise RunError(f"{path}: not written or read: {reason}; all ranks need the folder that rank 0 has") from error


class _Message:
    """What FSDP2 sends by itself, with a word from this rank when another has gone."""

    def __init__(self, send: Callable[..., Any]) -> None:
        self._send = send

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(self, output_tensor: Tensor, input_tensor: Tensor, *rest: Any, **more: Any) -> Any:
        with ranks.together():
            return self._send(output_tensor, input_tensor, *rest, **more)


def _each(roles: Roles) -> list[Role]:
    return [r for r in (roles.policy, roles.reference, roles.value, roles.reward) if r is not None]


def _layers(model: Any) -> list[Any]:
    return list(getattr(model.base_model, "layers", ()))
