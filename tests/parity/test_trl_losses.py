"""The preference losses against TRL's own trainers, on the same tiny Llama and the same texts: loss and gradients.

TRL tokenizes, pads and batches by itself. Our side spells the ids out word by word and sends each sequence through the
model alone, so an error in masks, shifts or the reading position on either side shows as well.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

from tuneful.functional.logprobs import token_logprobs
from tuneful.functional.preference_losses import (
    bradley_terry_loss,
    dpo_loss,
    ipo_loss,
    kto_loss,
    orpo_loss,
    robust_dpo_loss,
    simpo_loss,
)

VOCABULARY = {"<pad>": 0, "<eos>": 1, "<unk>": 2} | {f"w{i}": i for i in range(3, 40)}

# TRL and what it imports warn about themselves; that is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")


@dataclass(frozen=True)
class Pair:
    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    margin: float


@pytest.fixture(params=range(3))
def pairs(request: pytest.FixtureRequest) -> list[Pair]:
    """Five pairs of ragged lengths."""
    generator = torch.Generator().manual_seed(request.param)

    def words(most: int) -> list[int]:
        length = int(torch.randint(1, most, (), generator=generator))
        return torch.randint(3, len(VOCABULARY), (length,), generator=generator).tolist()

    return [Pair(words(6), words(9), words(9), margin=float(torch.rand((), generator=generator))) for _ in range(5)]


def completion_ids(words: list[int]) -> list[int]:
    return [*words, VOCABULARY["<eos>"]]


def as_dataset(pairs: list[Pair]) -> Any:
    from datasets import Dataset

    def text(words: list[int]) -> str:
        return " ".join(f"w{i}" for i in words)

    return Dataset.from_list(
        [
            {
                "prompt": text(pair.prompt) + " ",
                "chosen": text(pair.chosen),
                "rejected": text(pair.rejected),
                "margin": pair.margin,
            }
            for pair in pairs
        ]
    )


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(WordLevel(VOCABULARY, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def tiny_llama(kind: Callable[[LlamaConfig], Any], seed: int) -> Any:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.3,  # logits of order 1, so that no loss sits at log 2
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
        num_labels=1,
    )
    return kind(config)


def settings(folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": [],
        "disable_tqdm": True,
    }


def gradients(loss: Tensor, model: nn.Module) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(ours: Tensor, our_model: nn.Module, theirs: Tensor, their_model: nn.Module) -> None:
    assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert_same_gradients(ours, our_model, theirs, their_model)


def assert_same_gradients(ours: Tensor, our_model: nn.Module, theirs: Tensor, their_model: nn.Module) -> None:
    found, expected = gradients(ours, our_model), gradients(theirs, their_model)
    assert found.keys() == expected.keys()
    assert max(float(g.abs().max()) for g in expected.values()) > 1e-3  # not an agreement about nothing
    for name, gradient in expected.items():
        assert_close(found[name], gradient, atol=1e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("center_coef", [None, 0.01])
@pytest.mark.parametrize("with_margin", [False, True])
def test_reward_loss(
    trl: ModuleType, pairs: list[Pair], center_coef: float | None, with_margin: bool, tmp_path: Path
) -> None:
    model = tiny_llama(LlamaForSequenceClassification, seed=0)
    ours = copy.deepcopy(model)
    dataset = as_dataset(pairs)
    trainer = trl.RewardTrainer(
        model=model,
        args=trl.RewardConfig(**settings(tmp_path), center_rewards_coefficient=center_coef),
        train_dataset=dataset if with_margin else dataset.remove_columns("margin"),
        processing_class=tokenizer(),
    )
    batch = trainer.data_collator(list(trainer.train_dataset))
    assert ("margin" in batch) == with_margin
    theirs = trainer.compute_loss(trainer.model, batch)

    def reward(pair: Pair, completion: list[int]) -> Tensor:
        return ours(torch.tensor([pair.prompt + completion_ids(completion)])).logits.squeeze()

    loss = bradley_terry_loss(
        torch.stack([reward(pair, pair.chosen) for pair in pairs]),
        torch.stack([reward(pair, pair.rejected) for pair in pairs]),
        margin=torch.tensor([pair.margin for pair in pairs]) if with_margin else None,
        center_coef=center_coef or 0.0,
    )
    assert_same(loss, ours, theirs, trainer.model)


def summed_logprobs(model: nn.Module, prompt: list[int], completion: list[int]) -> Tensor:
    """Log-probability of a completion, its end token included: position t - 1 predicts token t."""
    ids = torch.tensor(prompt + completion_ids(completion))
    logits = model(ids[None]).logits[0]
    return token_logprobs(logits[:-1], ids[1:])[len(prompt) - 1 :].sum()


def both_sides(model: nn.Module, pairs: list[Pair], *, per_token: bool = False) -> tuple[Tensor, Tensor]:
    """Log-probabilities of all chosen and of all rejected completions, summed or means over their tokens."""

    def of(pair: Pair, words: list[int]) -> Tensor:
        return summed_logprobs(model, pair.prompt, words) / (len(words) + 1 if per_token else 1)

    chosen = torch.stack([of(pair, pair.chosen) for pair in pairs])
    return chosen, torch.stack([of(pair, pair.rejected) for pair in pairs])


def our_dpo(policy: nn.Module, reference: nn.Module, pairs: list[Pair], *, beta: float, p: float | None) -> Tensor:
    with torch.no_grad():
        reference_logprobs = both_sides(reference, pairs)
    labels = None if p is None else torch.full((len(pairs),), p)
    return dpo_loss(*both_sides(policy, pairs), *reference_logprobs, beta=beta, p=labels)


def dpo_trainer(trl: ModuleType, policy: Any, reference: Any, pairs: list[Pair], folder: Path, **choices: Any) -> Any:
    return trl.DPOTrainer(
        model=policy,
        ref_model=reference,
        args=trl.DPOConfig(**settings(folder), **choices),
        train_dataset=as_dataset(pairs).remove_columns("margin"),
        processing_class=tokenizer(),
    )


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_dpo_loss(trl: ModuleType, pairs: list[Pair], beta: float, tmp_path: Path) -> None:
    policy, reference = tiny_llama(LlamaForCausalLM, seed=1), tiny_llama(LlamaForCausalLM, seed=2)
    ours, our_reference = copy.deepcopy(policy), copy.deepcopy(reference)
    trainer = dpo_trainer(trl, policy, reference, pairs, tmp_path, beta=beta)
    theirs = trainer.compute_loss(trainer.model, trainer.data_collator(list(trainer.train_dataset)))
    loss = our_dpo(ours, our_reference, pairs, beta=beta, p=None).mean()
    assert_same(loss, ours, theirs, trainer.model)


def test_dpo_loss_with_noisy_labels(trl: ModuleType, pairs: list[Pair], tmp_path: Path) -> None:
    """TRL smooths labels in its `aot_unpaired` loss alone, which for one pair is conservative DPO."""
    policy, reference = tiny_llama(LlamaForCausalLM, seed=1), tiny_llama(LlamaForCausalLM, seed=2)
    ours, our_reference = copy.deepcopy(policy), copy.deepcopy(reference)
    trainer = dpo_trainer(
        trl, policy, reference, pairs, tmp_path, beta=0.1, loss_type=["aot_unpaired"], label_smoothing=0.1
    )
    for pair, row in zip(pairs, trainer.train_dataset, strict=True):
        theirs = trainer.compute_loss(trainer.model, trainer.data_collator([row]))
        loss = our_dpo(ours, our_reference, [pair], beta=0.1, p=0.9).sum()
        assert_same(loss, ours, theirs, trainer.model)


@pytest.mark.parametrize("label_noise", [0.1, 0.4])
def test_robust_dpo_loss(trl: ModuleType, pairs: list[Pair], label_noise: float, tmp_path: Path) -> None:
    policy, reference = tiny_llama(LlamaForCausalLM, seed=1), tiny_llama(LlamaForCausalLM, seed=2)
    ours, our_reference = copy.deepcopy(policy), copy.deepcopy(reference)
    choices = {"loss_type": ["robust"], "label_smoothing": label_noise}
    trainer = dpo_trainer(trl, policy, reference, pairs, tmp_path, beta=0.1, **choices)
    theirs = trainer.compute_loss(trainer.model, trainer.data_collator(list(trainer.train_dataset)))
    with torch.no_grad():
        reference_logprobs = both_sides(our_reference, pairs)
    loss = robust_dpo_loss(*both_sides(ours, pairs), *reference_logprobs, beta=0.1, label_noise=label_noise).mean()
    assert_same(loss, ours, theirs, trainer.model)


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_ipo_loss(trl: ModuleType, pairs: list[Pair], beta: float, tmp_path: Path) -> None:
    policy, reference = tiny_llama(LlamaForCausalLM, seed=1), tiny_llama(LlamaForCausalLM, seed=2)
    ours, our_reference = copy.deepcopy(policy), copy.deepcopy(reference)
    trainer = dpo_trainer(trl, policy, reference, pairs, tmp_path, beta=beta, loss_type=["ipo"])
    theirs = trainer.compute_loss(trainer.model, trainer.data_collator(list(trainer.train_dataset)))
    with torch.no_grad():
        reference_logprobs = both_sides(our_reference, pairs, per_token=True)
    loss = ipo_loss(*both_sides(ours, pairs, per_token=True), *reference_logprobs, beta=beta).mean()
    assert_same(loss, ours, theirs, trainer.model)


def test_orpo_loss(trl: ModuleType, pairs: list[Pair], tmp_path: Path) -> None:
    """TRL's likelihood is that of prompt and answer, and of all tokens of a batch: of one pair whose prompt is one word
    it is ours, for the first word of a row is not predicted."""
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    pairs = [Pair(pair.prompt[:1], pair.chosen, pair.rejected, pair.margin) for pair in pairs]
    model = tiny_llama(LlamaForCausalLM, seed=1)
    ours = copy.deepcopy(model)
    trainer = ORPOTrainer(
        model=model,
        args=ORPOConfig(**settings(tmp_path), beta=0.25),
        train_dataset=as_dataset(pairs).remove_columns("margin"),
        processing_class=tokenizer(),
    )
    for pair, row in zip(pairs, trainer.train_dataset, strict=True):
        theirs = trainer.compute_loss(trainer.model, trainer.data_collator([row]))
        loss = orpo_loss(*both_sides(ours, [pair], per_token=True), odds_ratio_coef=0.25).loss.sum()
        assert_same(loss, ours, theirs, trainer.model)


def test_simpo_loss(trl: ModuleType, pairs: list[Pair], tmp_path: Path) -> None:
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    model = tiny_llama(LlamaForCausalLM, seed=1)
    ours = copy.deepcopy(model)
    choices = {"loss_type": "simpo", "cpo_alpha": 0.0, "beta": 2.5, "simpo_gamma": 0.75}
    trainer = CPOTrainer(
        model=model,
        args=CPOConfig(**settings(tmp_path), **choices),
        train_dataset=as_dataset(pairs).remove_columns("margin"),
        processing_class=tokenizer(),
    )
    theirs = trainer.compute_loss(trainer.model, trainer.data_collator(list(trainer.train_dataset)))
    loss = simpo_loss(*both_sides(ours, pairs, per_token=True), beta=2.5, target_margin=0.75).mean()
    assert_same(loss, ours, theirs, trainer.model)


@pytest.mark.parametrize("seeds", [(1, 2), (2, 1)])
def test_kto_loss(trl: ModuleType, pairs: list[Pair], seeds: tuple[int, int], tmp_path: Path) -> None:
    """Of ten answers in one batch. Policy and reference exchanged, so that in one case the reference point is above 0.

    TRL pairs each prompt with the answer before it, the first with the last.
    """
    from datasets import Dataset

    policy, reference = (tiny_llama(LlamaForCausalLM, seed=seed) for seed in seeds)
    ours, our_reference = copy.deepcopy(policy), copy.deepcopy(reference)
    answers = [(pair.prompt, words, words is pair.chosen) for pair in pairs for words in (pair.chosen, pair.rejected)]

    def text(words: list[int]) -> str:
        return " ".join(f"w{i}" for i in words)

    weights = {"desirable_weight": 1.5, "undesirable_weight": 0.75}
    trainer = trl.KTOTrainer(
        model=policy,
        ref_model=reference,
        args=trl.KTOConfig(**settings(tmp_path), beta=0.2, per_device_train_batch_size=len(answers), **weights),
        train_dataset=Dataset.from_list(
            [{"prompt": text(p) + " ", "completion": text(c), "label": good} for p, c, good in answers]
        ),
        processing_class=tokenizer(),
    )
    theirs = trainer.compute_loss(trainer.model, trainer.data_collator(list(trainer.train_dataset)))

    def log_ratio(prompt: list[int], words: list[int]) -> Tensor:
        with torch.no_grad():
            of_reference = summed_logprobs(our_reference, prompt, words)
        return summed_logprobs(ours, prompt, words) - of_reference

    with torch.no_grad():
        mismatched = [log_ratio(answers[k][0], answers[k - 1][1]) for k in range(len(answers))]
    point = max(0.0, float(torch.stack(mismatched).mean()))
    assert trainer._metrics["train"]["kl"][-1] == pytest.approx(point, abs=1e-5)
    loss = kto_loss(
        torch.stack([log_ratio(prompt, words) for prompt, words, _ in answers]),
        torch.tensor([good for _, _, good in answers]),
        beta=0.2,
        reference_point=point,
        **weights,
    ).mean()
    assert_same(loss, ours, theirs, trainer.model)
