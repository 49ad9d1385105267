"""Classifiers as rewards: the numbers worked by hand, what is read, against transformers' own, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, tensor
from torch.testing import assert_close
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from tuneful.algorithms.start_up import reward_invariance
from tuneful.errors import ModelError, RewardError
from tuneful.models.loading import load_scorer, save_model
from tuneful.records import Completion, Prompt
from tuneful.rewards.classifier import Classifier, ClassifierReward, class_scores
from tuneful.rewards.load import load_reward

PROMPTS = [Prompt("how do i cook bread"), Prompt.user("the dog is hot"), Prompt("cold")]
COMPLETIONS = [Completion("good bread please"), Completion("no"), Completion("sorry you are not fine today")]


class TestNumbers:
    """Logits of (not hate, hate) for a text that is fine, and for one that is not."""

    FINE, FOUL = tensor([[3.114, -2.490]]), tensor([[-0.692, 0.372]])

    @pytest.mark.parametrize(
        ("logits", "logit", "logodds", "probability"),
        [(FINE, 3.114, 5.604, 0.996330), (FOUL, -0.692, -1.064, 0.256546)],
    )
    def test_two_labels(self, logits: Tensor, logit: float, logodds: float, probability: float) -> None:
        """5.604 = 3.114 + 2.490 and 1 / (1 + e^-5.604) = 0.996330."""
        assert class_scores(logits, 0, "logit").item() == pytest.approx(logit, abs=1e-6)
        assert class_scores(logits, 0, "logodds").item() == pytest.approx(logodds, abs=1e-6)
        assert class_scores(logits, 0, "probability").item() == pytest.approx(probability, abs=1e-6)

    @pytest.mark.parametrize(("logits", "slope"), [(FINE, 0.003656), (FOUL, 0.190730)])
    def test_the_slope_of_the_probability(self, logits: Tensor, slope: float) -> None:
        """dp / dz = p (1 - p); that of the logit is 1."""
        z = logits.clone().requires_grad_()
        class_scores(z, 0, "probability").sum().backward()
        assert z.grad is not None
        assert z.grad[0, 0].item() == pytest.approx(slope, abs=1e-6)

    def test_three_labels(self) -> None:
        """ln(e^2 + e^3) = 3.313262; e / (e + e^2 + e^3) = 1 / (1 + e + e^2) = 0.090031."""
        logits = tensor([[1.0, 2.0, 3.0]])
        assert class_scores(logits, 0, "logodds").item() == pytest.approx(-2.313262, abs=1e-6)
        assert class_scores(logits, 0, "probability").item() == pytest.approx(0.090031, abs=1e-6)

    def test_labels_that_do_not_exclude_each_other(self) -> None:
        """Each has a sigmoid of its own: 1 / (1 + e^-2) = 0.880797."""
        logits = tensor([[1.0, 2.0, 3.0]])
        assert class_scores(logits, 1, "logodds", independent=True).item() == 2
        assert class_scores(logits, 1, "probability", independent=True).item() == pytest.approx(0.880797, abs=1e-6)

    def test_only_the_logit_moves_with_a_constant(self) -> None:
        moved = self.FINE + 7
        assert class_scores(moved, 0, "logit").item() == pytest.approx(10.114)
        for output in ("logodds", "probability"):
            assert_close(class_scores(moved, 0, output), class_scores(self.FINE, 0, output))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def theirs(hate_dir: Path) -> Callable[..., Tensor]:
    """transformers' own logits [2] of a text or pair, by itself."""
    model: Any = AutoModelForSequenceClassification.from_pretrained(hate_dir, dtype=torch.float32).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(hate_dir)
    return lambda *texts, **how: model(**tokenizer(*texts, return_tensors="pt", **how)).logits[0].detach()


def loaded(path: Path, **settings: Any) -> ClassifierReward:
    reward = load_reward(Classifier(classifier=str(path), **{"label": "nothate"} | settings))
    assert isinstance(reward, ClassifierReward)
    return reward


class TestEncoder:
    def test_it_reads_the_completion_alone(self, hate_dir: Path, theirs: Callable[..., Tensor]) -> None:
        scores = loaded(hate_dir)(PROMPTS, COMPLETIONS)
        assert scores.std() > 0.05
        assert_close(scores, torch.stack([theirs(c.text)[0] for c in COMPLETIONS]), atol=1e-5, rtol=0)

    def test_it_reads_the_prompt_as_a_segment_of_its_own(self, hate_dir: Path, theirs: Callable[..., Tensor]) -> None:
        scores = loaded(hate_dir, with_prompt=True)(PROMPTS, COMPLETIONS)
        pairs = zip(PROMPTS, COMPLETIONS, strict=True)
        assert_close(scores, torch.stack([theirs(p.text, c.text)[0] for p, c in pairs]), atol=1e-5, rtol=0)

    @pytest.mark.parametrize("label", ["hate", 1])
    def test_a_label_by_name_or_number(self, hate_dir: Path, theirs: Callable[..., Tensor], label: str | int) -> None:
        scores = loaded(hate_dir, label=label, output="probability")(PROMPTS, COMPLETIONS)
        expected = torch.stack([theirs(c.text).softmax(-1)[1] for c in COMPLETIONS])
        assert_close(scores, expected, atol=1e-5, rtol=0)

    @pytest.mark.parametrize("with_prompt", [False, True])
    def test_neither_batches_nor_padding_move_a_score(self, hate_dir: Path, with_prompt: bool) -> None:
        reward = loaded(hate_dir, with_prompt=with_prompt)
        assert reward_invariance(reward, PROMPTS, COMPLETIONS).passed
        alone = replace(reward, tokens_per_batch=1)(PROMPTS, COMPLETIONS)
        assert_close(alone, reward(PROMPTS, COMPLETIONS), atol=1e-5, rtol=0)

    def test_a_long_completion_loses_its_end(self, hate_dir: Path, theirs: Callable[..., Tensor]) -> None:
        """64 positions, two of them for marks."""
        long = Completion("good dog " + "bread " * 100)
        expected = theirs(long.text, truncation=True, max_length=64)[0]
        assert_close(loaded(hate_dir)(PROMPTS[:1], [long]), expected[None], atol=1e-5, rtol=0)

    def test_a_long_prompt_loses_its_beginning(self, hate_dir: Path) -> None:
        reward = loaded(hate_dir, with_prompt=True)
        first, second = reward.encode(Prompt("cold " * 100 + "hot dog"), Completion("good bread"))
        words = reward.tokenizer.convert_ids_to_tokens
        assert len(first) + len(second) == 64
        assert (words(first)[0], words(first)[-3:]) == ("[CLS]", ["hot", "dog", "[SEP]"])
        assert words(second) == ["good", "bread", "[SEP]"]
        first, second = reward.encode(Prompt("hot dog"), Completion("bread " * 100))
        assert (words(first), len(second)) == (["[CLS]", "[SEP]"], 62)
        assert reward([Prompt("hot dog")], [Completion("bread " * 100)]).isfinite().all()

    def test_a_special_token_spelled_in_an_answer_is_text(self, hate_dir: Path) -> None:
        """It must not end the segment in the middle of what is judged."""
        ids, _ = loaded(hate_dir).encode(PROMPTS[0], Completion("good[SEP]dog"))
        assert ids.count(loaded(hate_dir).tokenizer.sep_token_id) == 1

    def test_labels_that_do_not_exclude_each_other(
        self, hate_dir: Path, tmp_path: Path, theirs: Callable[..., Tensor]
    ) -> None:
        model: Any = AutoModelForSequenceClassification.from_pretrained(hate_dir)
        model.config.problem_type = "multi_label_classification"
        save_model(model, AutoTokenizer.from_pretrained(hate_dir), tmp_path / "many")
        scores = loaded(tmp_path / "many", label="hate", output="probability")(PROMPTS, COMPLETIONS)
        expected = torch.stack([theirs(c.text).sigmoid()[1] for c in COMPLETIONS])
        assert_close(scores, expected, atol=1e-5, rtol=0)

    def test_roberta_stays_within_its_positions(self, tmp_path: Path) -> None:
        """Its positions count from the pad id + 1, so 34 places hold 32 tokens, which this tokenizer does not say."""
        vocabulary = {token: i for i, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "good", "dog"])}
        words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
        words.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
        tokenizer: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
            tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", cls_token="<s>", sep_token="</s>"
        )
        size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
        config = RobertaConfig(
            vocab_size=6, max_position_embeddings=34, type_vocab_size=1, num_labels=2, pad_token_id=1, **size
        )
        save_model(RobertaForSequenceClassification(config), tokenizer, tmp_path / "roberta")
        for with_prompt, marks in ((False, 2), (True, 4)):  # <s> a </s>, and <s> a </s></s> b </s>
            reward = loaded(tmp_path / "roberta", label=0, with_prompt=with_prompt)
            first, second = reward.encode(Prompt("dog"), Completion("good " * 50))
            assert len(first) + len(second) == 32
            assert [*first, *second].count(4) == 32 - marks
            assert reward([Prompt("dog")], [Completion("good " * 50)]).isfinite().all()


class TestDecoder:
    @pytest.fixture
    def decoder_dir(self, tiny_model_dir: Path, tiny_tokenizer: Any, tmp_path: Path) -> Path:
        model = load_scorer(tiny_model_dir, num_labels=3)
        with torch.no_grad():
            for weight in model.parameters():
                if weight.dim() > 1:
                    weight.normal_(std=0.25)
        save_model(model, tiny_tokenizer, tmp_path / "decoder")
        return tmp_path / "decoder"

    def test_it_reads_the_last_token(self, decoder_dir: Path, tiny_tokenizer: Any) -> None:
        model: Any = LlamaForSequenceClassification.from_pretrained(decoder_dir).eval()
        texts = ["good bread please", "no", "sorry"]
        expected = torch.stack([model(**tiny_tokenizer(t, return_tensors="pt")).logits[0, 2] for t in texts])
        reward = loaded(decoder_dir, label="LABEL_2")
        assert_close(reward(PROMPTS, [Completion(t) for t in texts]), expected, atol=1e-5, rtol=0)
        assert reward_invariance(reward, PROMPTS, COMPLETIONS).passed

    def test_with_the_prompt_it_reads_the_chat_form(self, decoder_dir: Path, tiny_tokenizer: Any) -> None:
        model: Any = LlamaForSequenceClassification.from_pretrained(decoder_dir).eval()
        text = "<bos> <user> the dog is hot <assistant> no <eos>"
        ids = torch.tensor([tiny_tokenizer.convert_tokens_to_ids(text.split())])
        reward = loaded(decoder_dir, label=2, with_prompt=True)
        scores = reward(PROMPTS[1:2], [Completion("no", finish="eos")])
        assert_close(scores, model(ids).logits[:, 2], atol=1e-5, rtol=0)

    def test_an_empty_answer_has_a_score(self, decoder_dir: Path) -> None:
        assert loaded(decoder_dir, label=0)(PROMPTS[:1], [Completion("")]).isfinite().all()


class TestRefused:
    OFFERED = 'its labels are 0 = "nothate", 1 = "hate"'

    @pytest.mark.parametrize(
        ("label", "said"),
        [
            (None, f'say which label counts, for example label = "nothate"; {OFFERED}'),
            ("good", f'no label "good"; {OFFERED}'),
            (2, f"no label 2; {OFFERED}"),
            (-1, f"no label -1; {OFFERED}"),
        ],
    )
    def test_a_label_there_is_not(self, hate_dir: Path, label: str | int | None, said: str) -> None:
        with pytest.raises(RewardError) as error:
            loaded(hate_dir, label=label)
        assert str(error.value) == f"{hate_dir}: {said}"

    def test_a_name_that_two_labels_have(self, hate_dir: Path, tmp_path: Path) -> None:
        path = shutil.copytree(hate_dir, tmp_path / "same")
        config = json.loads((path / "config.json").read_text())
        config |= {"id2label": {"0": "same", "1": "same"}, "label2id": {"same": 1}}
        (path / "config.json").write_text(json.dumps(config))
        with pytest.raises(RewardError) as error:
            loaded(path, label="same")
        assert str(error.value) == (f'{path}: 2 labels are called "same"; give its number: 0 = "same", 1 = "same"')
        assert loaded(path, label=1).label == 1

    def test_a_model_of_one_score(self, bert_dir: Path) -> None:
        with pytest.raises(RewardError, match="gives one score and no labels; write it as a reward model, reward = "):
            loaded(bert_dir)

    def test_what_is_no_classifier(self, tiny_model_dir: Path, tmp_path: Path) -> None:
        with pytest.raises(RewardError, match="no sequence classifier of its own"):
            loaded(tiny_model_dir)
        with pytest.raises(ModelError, match="no such model directory"):
            loaded(tmp_path / "nowhere")

    def test_a_classifier_by_its_bare_name(self, hate_dir: Path) -> None:
        """The way out is in the message, ready to be copied."""
        with pytest.raises(RewardError) as error:
            load_reward(str(hate_dir))
        assert f'{{classifier = "{hate_dir}", label = "nothate"}}' in str(error.value)
