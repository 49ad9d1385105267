"""A model out of its run: a directory by itself, with a card, for whatever reads Hugging Face or PEFT directories."""

from __future__ import annotations

import json
import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tuneful.errors import ConfigError, ModelError, RunError
from tuneful.models.loading import (
    Dtype,
    adapter_base,
    is_adapter,
    is_scorer,
    load_language_model,
    load_scorer,
    load_tokenizer,
    read_reward_file,
    save_model,
    stored_dtype,
    write_reward_file,
)
from tuneful.pipeline.card import Form, Subject, is_card, model_card
from tuneful.pipeline.inputs import MAKES
from tuneful.runs.directory import written_folder
from tuneful.runs.lineage import lineage, read_stage

_NOT_THE_MODEL = ("README.md", ".*", "checkpoint-*", "training_args.bin")
"""What lies in model directories beside the model: another card, hidden files, a trainer's checkpoints and settings."""

_NAMES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
"""What safetensors files call these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written."""

    source: Path
    """The model's folder, also where a run was named."""
    form: Form
    num_weights: int
    """0 where the weights are not in safetensors files."""
    dtypes: list[str]
    num_bytes: int
    """Of the weight files."""
    lost: list[str]
    """A sentence on each thing that the card could not say, since its record is gone."""


def export(
    source: str | Path, out: Path, *, merge: bool = False, dtype: Dtype | None = None, force: bool = False
) -> Exported:
    """Write the model at `source` to `out`, with a model card; `out` is there whole or not at all.

    source: a model or adapter directory, or the directory of a stage or run (see `model_directory`). merge: an adapter
    becomes a plain model, in the precision of its base unless `dtype` says another; the sum is made in float32, for
    which there must be memory. Without it an adapter stays one, on the base it names. force: replaces an earlier export
    and nothing else.

    Raises ModelError for what is no model and for an adapter that others would load wrongly, ConfigError for an `out`
    that may not be written, RunError when the disk refuses.
    """
    model = model_directory(Path(source).expanduser())
    target = Path(os.path.realpath(out.expanduser()))
    _refuse_occupied(target, force=force)
    bases = _bases(model)
    _refuse_within(target, [model, *map(Path, bases)])
    if bases and not merge:
        _refuse_unmerged(model, bases, dtype)
    form: Form = "model" if not bases else "merged" if merge else "adapter"
    is_reward = is_scorer(model)
    found = lineage(model)
    with written_folder(target, writer=f".{os.getpid()}") as part:
        if form == "merged" or dtype is not None:
            _write_plain(model, part, getattr(torch, dtype) if dtype else stored_dtype(bases[-1]), is_reward=is_reward)
        else:
            shutil.copytree(model, part, ignore=shutil.ignore_patterns(*_NOT_THE_MODEL), dirs_exist_ok=True)
        shapes, num_bytes = weights_in(part)
        num_weights, dtypes = sum(math.prod(s) for _, s in shapes.values()), sorted({d for d, _ in shapes.values()})
        subject = Subject(
            name=target.name,
            form=form,
            is_reward=is_reward,
            base=(bases[-1] if form == "merged" else bases[0]) if bases else None,
            num_weights=num_weights,
            dtypes=dtypes,
            reward=read_reward_file(model),
        )
        (part / "README.md").write_text(model_card(subject, found), encoding="utf-8")
    return Exported(
        source=model, form=form, num_weights=num_weights, dtypes=dtypes, num_bytes=num_bytes, lost=found.lost
    )


def push(folder: Path, name: str) -> str:
    """Upload an export to the hub as `name`, which is made private if it is new; its address there.

    Raises RunError when the hub refuses; the folder stays.
    """
    from huggingface_hub import HfApi

    try:
        HfApi().create_repo(name, private=True, exist_ok=True)
        return str(HfApi().upload_folder(repo_id=name, folder_path=folder).commit_url)
    except Exception as error:  # noqa: BLE001 -- which errors say so differs between releases of the hub's client
        reason = str(error).strip().split("\n")[0]
        raise RunError(
            f"{name}: not uploaded: {reason}; the export is whole in {folder}: log in with `hf auth login`, then "
            f"`hf upload {name} {folder}`"
        ) from None


def model_directory(source: Path) -> Path:
    """The model that a folder means: itself, the `model/` of a stage, or of a run what its last policy stage made.

    A run without policy means its last reward model. Raises ModelError when there is none, or none yet.
    """
    if not source.is_dir():
        raise ModelError(f"{source}: no such folder; give a model's, a stage's or a run's folder")
    if (source / "config.json").exists() or is_adapter(source):
        return source
    record = read_stage(source)
    if record is None:
        raise ModelError(f"{source}: no model (config.json or adapter_config.json) and no run (run.json) is there")
    folders = [source] if record.kind else [source / str(s.get("name")) for s in record.manifest["recipe"]["stages"]]
    stages = [stage for stage in map(read_stage, folders) if stage is not None]
    for made in ("a model", "a reward model"):
        makers = [stage for stage in stages if made in MAKES.get(stage.kind, ())]
        if makers and (makers[-1].folder / "model").is_dir():
            return makers[-1].folder / "model"
        if makers:
            raise ModelError(f"{makers[-1].folder}: has no model yet; run it to its end first")
    raise ModelError(f"{source}: no stage of this run makes a model; give the folder of one that does")


def weights_in(folder: Path) -> tuple[dict[str, tuple[str, tuple[int, ...]]], int]:
    """Type and shape of every tensor in the safetensors files of a folder, by name, and the bytes of these files.

    A file is eight bytes that give the length of a JSON header, the header, and the numbers.
    """
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {}
    files = sorted(folder.glob("*.safetensors"))
    for path in files:
        with path.open("rb") as file:
            header: dict[str, Any] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        shapes |= {
            n: (_NAMES.get(e["dtype"], e["dtype"]), tuple(e["shape"])) for n, e in header.items() if n != "__metadata__"
        }
    return shapes, sum(path.stat().st_size for path in files)


def _write_plain(model: Path, part: Path, dtype: torch.dtype, *, is_reward: bool) -> None:
    loaded = (load_scorer if is_reward else load_language_model)(model).to(dtype)
    save_model(loaded, load_tokenizer(_with_tokenizer(model)), part)
    reward = read_reward_file(model)
    if reward:
        write_reward_file(part, reward)


def _with_tokenizer(model: Path) -> str | Path:
    """The folder itself, or, of an adapter that was saved without one, the base that has its tokenizer."""
    return adapter_base(model) if is_adapter(model) and not (model / "tokenizer_config.json").exists() else model


def _bases(model: Path) -> list[str]:
    """What an adapter was trained on, and if that is an adapter too, what that was trained on; [] for a plain model."""
    if not is_adapter(model):
        return []
    base = adapter_base(model)
    return [base, *_bases(Path(base))]


def _refuse_unmerged(model: Path, bases: list[str], dtype: Dtype | None) -> None:
    if dtype is not None:
        raise ConfigError(f"{model}: an adapter is copied as it is; --dtype {dtype} needs --merge")
    if len(bases) > 1:
        raise ModelError(
            f"{model}: an adapter on {bases[0]}, which is an adapter itself; peft, transformers and vLLM would leave "
            "that one out without a word; use --merge"
        )


def _refuse_within(target: Path, sources: list[Path]) -> None:
    """ConfigError for a target that is, holds or lies in what is exported."""
    for place in (source.expanduser().resolve() for source in sources):
        if target == place or target in place.parents or place in target.parents:
            raise ConfigError(f"{target}: cannot be where {place} is, which is exported; choose another --out")


def _refuse_occupied(target: Path, *, force: bool) -> None:
    """ConfigError for a target that may not be replaced; asked first, since a look at an adapter takes seconds."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not target.is_dir():
        raise ConfigError(f"{target}: is a file; --out is a folder, choose another")
    card = target / "README.md"
    if not card.is_file() or not is_card(card.read_text(encoding="utf-8", errors="replace")):
        raise ConfigError(f"{target}: holds files that are no export of ours; choose another --out")
    if not force:
        raise ConfigError(f"{target}: holds an earlier export; choose another --out, or --force to replace it")
