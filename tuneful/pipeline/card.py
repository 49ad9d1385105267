"""The card of an exported model: `README.md`, with the front matter that the Hugging Face hub reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tuneful.evaluation.report import number, shown
from tuneful.pipeline import provenance
from tuneful.pipeline.markdown import code, place
from tuneful.runs.lineage import Lineage

_MARK = "<!-- Written by tuneful export. -->"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")

_FORMS = {
    "merged": "Its adapter is merged into its base: a plain model directory that needs no `peft`, as large and as fast "
    "as the base.",
    "adapter": "It is an adapter on {base} and needs `peft` and that base.",
    "model": "It is a plain model directory.",
}

Form = Literal["merged", "adapter", "model"]
"""An adapter merged into its base, an adapter by itself, or a model that never was one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The model that a card describes."""

    name: str
    form: Form
    is_reward: bool
    base: str | None
    """The path or hub id of what the adapter was trained on; None for a model that never was one."""
    num_weights: int
    dtypes: Sequence[str]
    reward: Mapping[str, Any]
    """Its `reward.json`, {} where there is none."""


def model_card(subject: Subject, found: Lineage) -> str:
    """What the model is and how it was made, from the records that led to it.

    Every number is read from a record; what no record holds is said to be not known. Names and texts come from
    strangers: in the page they stand in code spans, and the front matter is JSON, which is YAML.
    """
    sections = {
        "How it was made": provenance.stages(found),
        "Judgments": provenance.judgments(found),
        "Reward": [*provenance.rewards(found), *_scale(subject)],
        "Training": provenance.training(found),
        "Evaluation": provenance.evaluation(found),
        "Limits": provenance.limits(found),
        "Software and data": provenance.software(found),
    }
    page = [f"---\n{_front_matter(subject, found)}---", _MARK, f"# {code(subject.name)}", *_opening(subject, found)]
    for title, lines in sections.items():
        if lines:
            page += [f"## {title}", "\n".join(lines)]
    return "\n\n".join(page) + "\n"


def is_card(text: str) -> bool:
    """True for a card that `model_card` wrote, whatever was added to it by hand."""
    return _MARK in text


def _front_matter(subject: Subject, found: Lineage) -> str:
    root, maker = _root(subject, found), found.maker
    fields: dict[str, Any] = {
        "base_model": root if root is not None and _is_hub_id(root, found) else None,
        "library_name": "peft" if subject.form == "adapter" else "transformers",
        "pipeline_tag": "text-classification" if subject.is_reward else "text-generation",
        "tags": ["tuneful", *(["reward-model"] if subject.is_reward else []), *([maker.kind] if maker else [])],
        "datasets": provenance.datasets(found),
        "license": _license(root),
    }
    known = {name: value for name, value in fields.items() if value}
    return "".join(f"{name}: {shown(json.dumps(value, ensure_ascii=False))}\n" for name, value in known.items())


def _opening(subject: Subject, found: Lineage) -> list[str]:
    maker, root = found.maker, _root(subject, found)
    what = "A reward model" if subject.is_reward else "A language model"
    how = f", made by the stage {code(maker.name)} (algorithm {code(maker.kind)}) of a tuneful run" if maker else ""
    begun = f"What it began from is {place(root)}." if root is not None else "What it began from is not known."
    size = (
        f" {number(subject.num_weights, 4)} weights in {' and '.join(subject.dtypes)}." if subject.num_weights else ""
    )
    return [f"{what}{how}. {begun}", _FORMS[subject.form].format(base=place(subject.base or "?")) + size]


def _scale(subject: Subject) -> list[str]:
    """How raw scores become scores. The head, Linear(d, 1) without bias, cannot hold the second half of it."""
    if not {"gain", "bias"} <= subject.reward.keys():
        return []
    gain, bias = number(subject.reward["gain"], 4), number(subject.reward["bias"], 4)
    slope = subject.reward.get("length_slope", 0.0)
    raw = f"(raw - {number(slope, 4)} × words)" if slope else "raw"
    line = (
        "- This model's head gives raw scores. `reward.json` has what gives the run's reference completions mean 0 and "
        f"standard deviation 1: score = gain × {raw} + bias, gain {gain}, bias {bias}. The head has no bias term to "
        "hold it, so this is left to whoever reads the score."
    )
    return [line]


def _root(subject: Subject, found: Lineage) -> str | None:
    """What the model began from before any stage of its run, as the recipe or the adapter names it."""
    by_name = {stage.name: stage for stage in found.stages}
    stage, given = found.maker, subject.base
    while stage is not None:
        given = str(stage.inputs.get("model"))
        stage = by_name.pop(given[1:], None) if given.startswith("@") else None
    return given


def _is_hub_id(name: str, found: Lineage) -> bool:
    read_here = any(name in stage.models for stage in found.stages)
    return bool(_HUB_ID.fullmatch(name)) and not read_here and not Path(name).is_dir()


def _license(root: str | None) -> str | None:
    """What the base's own card gives, when that lies on this machine."""
    from huggingface_hub import metadata_load, try_to_load_from_cache

    if root is None:
        return None
    folder = Path(root).expanduser()
    card = folder / "README.md" if folder.is_dir() else None
    if card is None and _HUB_ID.fullmatch(root):
        kept = try_to_load_from_cache(root, "README.md")
        card = Path(kept) if isinstance(kept, str) else None
    try:
        named = (metadata_load(card) or {}).get("license") if card is not None and card.is_file() else None
    except Exception:  # noqa: BLE001 -- a stranger's card; a YAML fault in it is no fault of this model
        return None
    return named if isinstance(named, str) else None
