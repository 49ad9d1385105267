"""Policies that speak by value: beside the model lie the heads that guide it, and how they do.

`guide.json`: {"scale": number or null for the best token alone, "top_k", "base": the model that proposes tokens or null
for the policy itself, "target", "temperature"}; `guide.safetensors`: the heads.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from tuneful.errors import ModelError
from tuneful.generation.guided import Guide
from tuneful.models.loading import GUIDE_FILE, Dtype, load_language_model
from tuneful.models.q_heads import QHeads
from tuneful.models.roles import Role

HEADS_FILE = "guide.safetensors"


def save_guide(folder: Path, guide: Guide, *, base: str | None) -> None:
    """Write how `guide` guides into the model directory `folder`; base: where the model that proposes lies."""
    from safetensors.torch import save_file

    how = {
        "scale": None if math.isinf(guide.scale) else guide.scale,
        "top_k": guide.top_k,
        "base": base,
        "target": guide.target,
        "temperature": guide.temperature,
    }
    save_file(
        {name: weight.detach().contiguous() for name, weight in guide.heads.state_dict().items()}, folder / HEADS_FILE
    )
    (folder / GUIDE_FILE).write_text(json.dumps(how, indent=2), encoding="utf-8")


def load_policy(path: str, *, dtype: Dtype = "float32") -> tuple[Role, Guide | None]:
    """The policy in a directory or on the hub, and what guides it, None for a language model alone.

    Raises ModelError for heads that do not fit the model.
    """
    policy = Role("policy", load_language_model(path, dtype=dtype, guided=True))
    place = Path(path) / GUIDE_FILE
    if not place.exists():
        return policy, None
    how: dict[str, Any] = {"temperature": 1.0} | json.loads(place.read_text(encoding="utf-8"))
    base = None if how["base"] is None else Role("base", load_language_model(how["base"], dtype=dtype))
    scale = math.inf if how["scale"] is None else how["scale"]
    heads = _load_heads(place.with_name(HEADS_FILE), policy)
    given = {name: how[name] for name in ("top_k", "target", "temperature")}
    return policy, Guide(heads=heads, scale=scale, base=base, **given)


def _load_heads(path: Path, policy: Role) -> QHeads:
    from safetensors.torch import load_file

    saved = load_file(path)
    width = policy.model.config.get_text_config().hidden_size
    vocabulary = len(saved["q.0.2.bias"])
    if saved["q.0.0.weight"].shape[1] != width:
        raise ModelError(
            f"{path}: heads on states of {saved['q.0.0.weight'].shape[1]} numbers, and the model's have {width}; keep "
            "the heads with the model that they were trained on"
        )
    heads = QHeads(width, vocabulary).requires_grad_(False)
    heads.load_state_dict(saved)
    return heads.to(policy.device)
