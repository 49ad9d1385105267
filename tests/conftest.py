"""What every test can ask for: real data where it lies, a tiny model, the same numbers in every run.

The environment is set before anything loads torch: one thread, so sums have one order on every machine and two runs of
the suite do not fight for cores; no network; no GPU, whose sums have another order, but for the tests of the GPU.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

for name, value in {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "MPLBACKEND": "Agg",
}.items():
    os.environ.setdefault(name, value)
if os.environ.get("TUNEFUL_TEST_GPU") != "1":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

settings.register_profile("tuneful", deadline=None, derandomize=True)
settings.load_profile("tuneful")

ROOT = Path(__file__).resolve().parents[1]

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<unk>", "<user>", "<assistant>")
WORDS = (
    "a and are be bread can cold cook day do dog door fine fix for get good green hello help hot house how i in is it "
    "know light like me more my near no not now of on open please quiet rain red shut sleep sorry so stop sun tap tea "
    "thank that the then to today too turn up very wait warm water well what when where who why window with yes you"
).split()
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }}"
    "{{ eos_token if m['role'] == 'assistant' else ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets; the test is skipped where there is none."""
    return _outside("TUNEFUL_DATA", "data")


@pytest.fixture(scope="session")
def base_model_dir() -> Path:
    """A small Llama trained on real text (vocabulary 4096, chat template); the test is skipped where there is none."""
    return _outside("TUNEFUL_MODELS", "models", "base-5m")


def _outside(variable: str, folder: str, part: str = "") -> Path:
    path = Path(os.environ.get(variable) or ROOT.parent / "shared" / folder) / part
    if not path.is_dir():
        pytest.skip(f"{part or folder} not found; set {variable} to the folder that holds it")
    return path


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Each test starts from the same global torch generator, whatever ran before it."""
    if "torch" in sys.modules:
        import torch

        torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of random weights (hidden 32, 2 layers, 4 heads, tied, 128 positions) with a word-level tokenizer.

    Pad, bos and eos are ids 0, 1 and 2. The template makes `<bos><user> hello <assistant> yes<eos>`.
    """
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    directory = tmp_path_factory.mktemp("tiny-llama")
    vocabulary = {token: i for i, token in enumerate((*SPECIAL_TOKENS, *WORDS))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=words,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=["<user>", "<assistant>"],
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(directory)

    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = LlamaForCausalLM(config)
    model.save_pretrained(directory)
    return directory


@pytest.fixture
def tiny_tokenizer(tiny_model_dir: Path) -> Any:
    """The tokenizer of `tiny_model_dir`, loaded anew."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model_dir)


@pytest.fixture
def tiny_model(tiny_model_dir: Path) -> Any:
    """The model of `tiny_model_dir` in float32, dropout off, loaded anew, so that a test may change it."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)


def save_bert(directory: Path, kind: Any, pieces: Iterable[str], *, seed: int, **settings: Any) -> Path:
    """A BERT of the class `kind`, of random weights (hidden 32, 2 layers), with a word-piece tokenizer.

    The tokenizer knows `pieces`, [PAD], [UNK], [CLS] and [SEP], pairs of segments, and no end token.
    """
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *pieces))}
    words = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    tokenizer: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=words,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    tokenizer.save_pretrained(directory)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        pad_token_id=0,
        **settings,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        kind(config).save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def tiny_bert_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT without a head, as encoders are published, that knows WORDS (64 positions)."""
    from transformers import BertModel

    return save_bert(tmp_path_factory.mktemp("tiny-bert"), BertModel, WORDS, seed=0, max_position_embeddings=64)


@pytest.fixture(scope="session")
def hate_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT classifier of two named labels that knows WORDS (64 positions), whose logits spread."""
    from transformers import BertForSequenceClassification

    settings = {"id2label": {0: "nothate", 1: "hate"}, "initializer_range": 0.3, "max_position_embeddings": 64}
    return save_bert(tmp_path_factory.mktemp("hate"), BertForSequenceClassification, WORDS, seed=0, **settings)
