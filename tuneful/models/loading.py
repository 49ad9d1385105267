"""Model and tokenizer directories in, ready modules out: Hugging Face models, PEFT adapters, reward models.

Models are moved to the current CUDA device when there is one and stay on the CPU otherwise; the other parts of a run
follow the model. `--device` of a command decides which devices there are (cli/options.py).
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tuneful.errors import ModelError
from tuneful.models.quantized import hold_in_nf4

Dtype = Literal["float32", "bfloat16", "nf4"]
"""Precision of a model's weights; with nf4 that of its linear layers, and the rest is bfloat16."""

ENCODER_DECODERS = ("t5", "bart")
"""Encoder-decoders that can be policies and reward models, by the model type in their config; FLAN-T5 is a T5."""

_PLAIN_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m['content'] }}"
    "{% if loop.last and not add_generation_prompt %}{{ eos_token }}{% else %}{{ '\\n\\n' }}{% endif %}{% endfor %}"
)
"""What an encoder-decoder without a chat template reads of a conversation: what was said, for it knows no roles."""

GUIDE_FILE = "guide.json"
"""Beside a model: how action values choose its tokens."""


def load_tokenizer(path: str | Path, *, needs_end: bool = True) -> Any:
    """The tokenizer of a model directory or hub id.

    needs_end: for models that speak or read their score at the end token; an encoder's tokenizer has no such token and
    is returned as it is. Otherwise it has an end token and, if possible, a pad token that differs from it. No pass of
    ours reads pads. Other readers of saved models do, and to them a pad that looks like the end hides it, so where the
    tokenizer has no other it is given one of its special tokens (`spare_token`). An encoder-decoder's without a chat
    template is given one that writes what was said, and no roles.

    Raises ModelError when there is no tokenizer and, where an end token is needed, when there is none, or nothing but
    the end token to pad with.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(_local_or_hub(path))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path}: no tokenizer could be loaded: {_first_line(error)}; save the tokenizer of the model beside it"
        ) from None
    # Rows are counted whole and cut afterwards, so its warning of too long ones would be wrong.
    tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
    if not needs_end:
        return tokenizer
    if tokenizer.eos_token_id is None:
        raise ModelError(f"{path}: the tokenizer has no end token; set eos_token in tokenizer_config.json")
    if tokenizer.chat_template is None and _has_encoder(path):
        tokenizer.chat_template = _PLAIN_TEMPLATE
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        tokenizer.pad_token = spare_token(tokenizer) or tokenizer.pad_token
    if tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise ModelError(
            f"{path}: pad_token and eos_token are both {tokenizer.eos_token!r}; give the tokenizer its own pad token, "
            'for example tokenizer.add_special_tokens({"pad_token": "<pad>"})'
        )
    return tokenizer


def spare_token(tokenizer: Any) -> str | None:
    """A special token that is never said and can serve as padding; None when there is none.

    One whose name says pad, as in Llama 3.1 and Qwen's base models; the unknown token, as is usual for Llama 2; or a
    reserved one, as in Llama 3.
    """
    used = {tokenizer.bos_token, tokenizer.eos_token}
    added = (tokenizer.added_tokens_decoder[number] for number in sorted(tokenizer.added_tokens_decoder))
    special = [token.content for token in added if token.special and token.content not in used]
    unknown = [tokenizer.unk_token] if tokenizer.unk_token not in {None, *used} else []
    fitting = [t for t in special if "pad" in t.lower()] + unknown + [t for t in special if "reserved" in t.lower()]
    return fitting[0] if fitting else None


def load_language_model(
    path: str | Path, *, dtype: Dtype = "float32", device: str | None = None, guided: bool = False
) -> Any:
    """A language model, decoder or encoder-decoder, with dropout off, on `device`; None: on CUDA when there is one.

    A PEFT adapter is merged into its base. Merging is what makes the supervised model, adapter included, the base of
    everything after it: "adapters off" then means the supervised model and never the bare base.

    A policy says what it draws. Tokens that transformers' `generate` would force on it, as BART's configs ask for its
    begin token in the first place and its end token in the last, have no probability that training could change; they
    are struck from the generation config, also of what is saved.

    guided: whether the caller knows what to do with a policy that action values guide (pipeline/guided.py).

    Raises ModelError when there is none, a classifier, a model whose head was not saved, one that reads images too, or
    an encoder-decoder of a family that is not among `ENCODER_DECODERS`.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    if is_scorer(path):
        raise ModelError(f"{path}: a reward model or classifier, no language model; give the model it is to judge")
    if not guided and (Path(path) / GUIDE_FILE).exists():
        raise ModelError(
            f"{path}: a policy that speaks by value, which {GUIDE_FILE} beside it tells how; the model alone would say "
            "something else. generate, evaluate and best_of_n know how to let it speak"
        )
    _refuse_others(path)
    if not is_adapter(path) and any("MaskedLM" in name for name in _config(path).architectures or []):
        raise ModelError(f"{path}: an encoder, which reads the words that it is to say; give a decoder")
    auto_class = AutoModelForCausalLM if encoder_decoder(path) is None else AutoModelForSeq2SeqLM
    model = _load(path, auto_class, dtype, device, complete=True)
    if model.generation_config is not None:
        model.generation_config.forced_bos_token_id = model.generation_config.forced_eos_token_id = None
    return model


def encoder_decoder(path: str | Path) -> str | None:
    """The type of the encoder-decoder at `path`, or that the adapter there was trained on; None for other models."""
    if is_adapter(path):
        return encoder_decoder(adapter_base(path))
    config = _config(path)
    return str(config.model_type) if config.is_encoder_decoder else None


def _refuse_others(path: str | Path) -> None:
    """ModelError for encoder-decoders that are not among `ENCODER_DECODERS`, and for a model with a part for images.

    Gemma 3 has such a part from 4B on; text would never train it.
    """
    family = encoder_decoder(path)
    if family is not None and family not in ENCODER_DECODERS:
        known = ", ".join(ENCODER_DECODERS)
        raise ModelError(f'{path}: encoder-decoders of the type "{family}" are not supported; these are: {known}')
    while is_adapter(path):
        path = adapter_base(path)
    config = _config(path)
    if hasattr(config, "vision_config"):
        raise ModelError(
            f'{path}: a "{config.model_type}" reads images too, which is not supported; give a model of text alone'
        )


def _has_encoder(path: str | Path) -> bool:
    """True for an encoder-decoder; False also where there is a tokenizer and no model."""
    try:
        return encoder_decoder(path) is not None
    except ModelError:
        return False


def context_length(model: Any) -> int | None:
    """The most tokens a model's positions reach; None where they are relative and know no end, as T5's."""
    length = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return None if length is None else int(length)


def load_scorer(
    path: str | Path, *, num_labels: int = 1, seed: int = 0, dtype: Dtype = "float32", device: str | None = None
) -> Any:
    """A sequence classifier: a saved reward model as it is, or a language model's trunk under a fresh scalar head.

    A fresh decoder head is Linear(d, 1) with weights N(0, 1 / (d + 1)) and no bias (InstructGPT, arXiv 2203.02155); an
    encoder's is what transformers draws. Both follow `seed`. Dropout is off; device: None means CUDA when there is one.

    Raises ModelError for a model that reads images too, and for an encoder-decoder of a family that is not among
    `ENCODER_DECODERS`.
    """
    from transformers import AutoModelForSequenceClassification

    _refuse_others(path)
    if is_scorer(path):
        # An adapter's base may be a language model, whose config knows of no labels.
        adapter = is_adapter(_local_or_hub(path))
        labels = {"num_labels": num_labels} if adapter else {}
        return _load(path, AutoModelForSequenceClassification, dtype, device, complete=not adapter, **labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _load(path, AutoModelForSequenceClassification, dtype, device, num_labels=num_labels)
    ends = model.config.eos_token_id
    if model.config.pad_token_id in (None, *(ends if isinstance(ends, list) else [ends])):
        model.config.pad_token_id = load_tokenizer(path, needs_end=is_decoder(model)).pad_token_id
    if is_decoder(model):
        head = scalar_head(model)
        width = head.in_features
        draw = torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(seed))
        head.weight.data.copy_(draw / (width + 1) ** 0.5)
    return model


def is_decoder(model: Any) -> bool:
    """True when a classifier reads its score at the last token (`score` head), False for encoders that pool."""
    return isinstance(getattr(model, "score", None), nn.Linear)


def head_of(model: Any) -> nn.Linear | None:
    """The `score` head of a decoder classifier, None for an encoder; ModelError for a head that is not linear."""
    return scalar_head(model) if hasattr(model, "score") else None


def scalar_head(model: Any) -> nn.Linear:
    """The `score` head of a decoder classifier; ModelError for any other model."""
    head = getattr(model, "score", None)
    if not isinstance(head, nn.Linear):
        raise ModelError(
            f"{model.name_or_path}: {type(model).__name__} has no linear score head; give a decoder's reward model"
        )
    return head


def save_model(model: Any, tokenizer: Any, path: Path, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write a plain Hugging Face model directory: weights, config, tokenizer with its chat template.

    weights: its state dict, where the model itself holds only a part of it.
    """
    with _quiet():
        model.save_pretrained(path, state_dict=weights)
    tokenizer.save_pretrained(path)


def read_reward_file(path: Path) -> dict[str, Any]:
    """`reward.json` beside a reward model: gain, bias, reading position, base. Empty when there is none."""
    file = path.expanduser() / "reward.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


def write_reward_file(path: Path, facts: dict[str, Any]) -> None:
    """Write `reward.json` into a reward model directory."""
    (path / "reward.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _quiet() -> Iterator[None]:
    """Transformers' bars and its note on a fresh head, which is meant to be fresh, would break our own display.

    So would bitsandbytes' note on a CPU kernel we do not use, which comes with PEFT whatever the dtype is.
    """
    from transformers.utils import logging as of_transformers

    level = of_transformers.get_verbosity()
    of_transformers.set_verbosity_error()  # type: ignore[no-untyped-call]
    of_transformers.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        yield
    finally:
        of_transformers.set_verbosity(level)
        of_transformers.enable_progress_bar()  # type: ignore[no-untyped-call]


def _load(
    path: str | Path, auto_class: Any, dtype: Dtype, device: str | None, *, complete: bool = False, **kwargs: Any
) -> Any:
    """complete: every weight must have been saved; without it a head may be fresh."""
    from safetensors import SafetensorError

    directory = _local_or_hub(path)
    # An adapter is merged before its base goes into 4 bits, where most of a small update would round away.
    read: Dtype = "bfloat16" if dtype == "nf4" else dtype
    try:
        with _quiet():
            if is_adapter(directory):
                base = _load(adapter_base(directory), auto_class, read, device, complete=complete, **kwargs)
                model = _merged(base, directory)
                model.name_or_path = directory  # what an adapter trained on top will name as its base
            else:
                model, found = auto_class.from_pretrained(
                    directory, dtype=getattr(torch, read), output_loading_info=True, **kwargs
                )
                if complete and found["missing_keys"]:
                    missing = ", ".join(sorted(found["missing_keys"])[:3])
                    raise ModelError(f"{path}: no whole model for {auto_class.__name__}; its files have no {missing}")
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"{path}: no {auto_class.__name__} could be loaded: {_first_line(error)}") from None
    model.requires_grad_(True)  # merging an adapter leaves its base frozen
    if dtype == "nf4":
        hold_in_nf4(model)
    model.eval()
    return model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def _merged(base: Any, directory: str) -> Any:
    """The base with the adapter in `directory` added to its weights; ModelError when it fits another base.

    An embedding that is also the head is copied first when the adapter changes either: an update is added in place.
    """
    from peft import PeftConfig, PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer

    config = PeftConfig.from_pretrained(directory)
    config.task_type = None  # merged into a classifier, a language model's adapter is as good as another
    # T5's language model is a trunk with a head, its classifier holds a trunk, by whose name the weights go there.
    held = base.config.is_encoder_decoder and base.base_model is not base
    names = {r"^(?=(en|de)coder\.)": f"{base.base_model_prefix}."} if held else None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*tie_word_embeddings")  # PEFT advises the copy that is made here
        try:
            model: Any = PeftModel.from_pretrained(base, directory, config=config, key_mapping=names)
        except RuntimeError as error:
            raise ModelError(
                f"{directory}: the adapter does not fit its base {base.name_or_path}: {_first_line(error)}"
            ) from None
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
        if head is not None and any(isinstance(end, BaseTunerLayer) for end in (embedding, head)):
            layer: Any = head.get_base_layer() if isinstance(head, BaseTunerLayer) else head
            layer.weight = nn.Parameter(layer.weight.detach().clone())
        return model.merge_and_unload()


def _local_or_hub(path: str | Path) -> str:
    """A directory that exists, absolute, or a hub id; what looks like a path and does not exist is an error.

    An adapter stores its base as it is named here, and must find it from any folder.
    """
    text = str(path)
    looks_local = isinstance(path, Path) or text.startswith((".", "/", "~")) or text.count("/") > 1
    if looks_local and not Path(text).expanduser().is_dir():
        raise ModelError(f"{text}: no such model directory")
    if Path(text).expanduser().is_dir():
        return str(Path(text).expanduser().resolve())
    _ask_hub(text)
    return text


def _ask_hub(name: str) -> None:
    """ModelError, after one quick question, for a name the hub cannot give; its own client would try for a minute.

    A model that lies in the hub's cache, or that needs a licence, is left to that client.
    """
    from huggingface_hub import get_hf_file_metadata, get_token, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError

    try:
        if any(isinstance(try_to_load_from_cache(name, file), str) for file in ("config.json", "adapter_config.json")):
            return
        get_hf_file_metadata(hf_hub_url(name, "config.json"), token=get_token(), timeout=10)
    except (EntryNotFoundError, GatedRepoError):
        return
    except Exception as error:  # noqa: BLE001 -- which errors say so differs between releases of the hub's client
        raise ModelError(
            f"{name}: no folder of this name here, and the hub has no such model or could not be asked "
            f"({_first_line(error)}); check the name"
        ) from None


def is_scorer(path: str | Path) -> bool:
    """True when the directory was saved as a classifier, or as an adapter that carries a classifier's head."""
    directory = _local_or_hub(path)
    if not is_adapter(directory):
        return any("SequenceClassification" in name for name in _config(directory).architectures or [])
    with _quiet():
        from peft import PeftConfig, TaskType

    try:
        return bool(PeftConfig.from_pretrained(directory).task_type == TaskType.SEQ_CLS)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: no model could be loaded: {_first_line(error)}") from None


def adapter_base(path: str | Path) -> str:
    """The directory or hub id of the model that an adapter was trained on, as the adapter names it."""
    from peft import PeftConfig

    try:
        named = PeftConfig.from_pretrained(_local_or_hub(path)).base_model_name_or_path
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{path}: adapter_config.json cannot be read: {_first_line(error)}") from None
    if not isinstance(named, str) or not named:
        raise ModelError(f'{path}: the adapter names no base; set "base_model_name_or_path" in adapter_config.json')
    return named


def stored_dtype(path: str | Path) -> torch.dtype:
    """The precision that a model's weights are stored in; float32 where its config does not say."""
    stored = _config(path).dtype
    return stored if isinstance(stored, torch.dtype) else torch.float32


def is_adapter(path: str | Path) -> bool:
    """True for a directory that holds an adapter and names its base."""
    return (Path(path).expanduser() / "adapter_config.json").exists()


def _config(path: str | Path) -> Any:
    """The config of a model directory or hub id; ModelError when there is none."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(_local_or_hub(path))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: no model could be loaded: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(" :")
