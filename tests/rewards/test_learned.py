"""Trained reward models as rewards: what they read, how scores are scaled, and what saving keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from torch.testing import assert_close
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from tuneful.errors import ConfigError, ModelError, RewardError
from tuneful.models import forward
from tuneful.models.loading import load_scorer, load_tokenizer, save_model, write_reward_file
from tuneful.models.ragged import Ragged
from tuneful.models.roles import Role
from tuneful.records import Completion, Prompt
from tuneful.rewards.learned import LearnedReward, in_batches
from tuneful.rewards.load import load_reward

PROMPTS = [Prompt.user("hello"), Prompt.user("how do i cook bread"), Prompt("the dog is hot")]
COMPLETIONS = [Completion("yes please", finish="eos"), Completion("no"), Completion("good dog thank you", finish="eos")]


@pytest.fixture
def model(tiny_model_dir: Path) -> Any:
    """A decoder classifier whose scores spread."""
    scorer = load_scorer(tiny_model_dir)
    with torch.no_grad():
        for weight in scorer.parameters():
            if weight.dim() > 1:
                weight.normal_(std=0.25)
    return scorer


@pytest.fixture
def reward(model: Any, tiny_tokenizer: Any) -> LearnedReward:
    return LearnedReward(Role("reward", model, head=model.score), tiny_tokenizer)


class Fixed(LearnedReward):
    """Raw scores given from outside, for the arithmetic around them."""

    def raw(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
        return torch.tensor([-2.0, 6.0])


def test_what_a_decoder_reads(reward: LearnedReward, tiny_tokenizer: Any) -> None:
    """The chat form with its end token; a cut-off answer stands without one."""

    def words(finish: Any) -> list[str]:
        prompt, answer = reward.encode(PROMPTS[0], Completion("yes please", finish=finish))
        return [*tiny_tokenizer.convert_ids_to_tokens(prompt), "|", *tiny_tokenizer.convert_ids_to_tokens(answer)]

    whole = ["<bos>", "<user>", "hello", "<assistant>", "|", "yes", "please", "<eos>"]
    for finish in ("eos", "stop", None):
        assert words(finish) == whole
    for finish in ("length", "abort"):
        assert words(finish) == whole[:-1]


def test_a_text_has_one_score_however_it_was_sampled(model: Any) -> None:
    """ "ab" is one token in training; a policy may say it in two, which the model itself scores otherwise."""
    spelled = Tokenizer(models.BPE({"a": 3, "b": 4, "ab": 5, "<s>": 1, "</s>": 2}, [("a", "b")]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=spelled, bos_token="<s>", eos_token="</s>", pad_token="a")
    ours = LearnedReward(Role("reward", model, head=model.score), tokenizer)
    sampled = [Completion("ab", tokens, "eos") for tokens in ((5, 2), (3, 4, 2))]
    one, two = ours([Prompt("ba")] * 2, sampled).tolist()
    by_ids = [float(model(torch.tensor([[1, 4, 3, *c.tokens]])).logits) for c in sampled if c.tokens is not None]
    assert one == two == pytest.approx(by_ids[0], abs=1e-5)
    assert abs(by_ids[1] - by_ids[0]) > 0.01


def test_scores_are_the_classifiers_own(reward: LearnedReward, model: Any) -> None:
    """Each row alone through transformers' classifier."""
    for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True):
        ids = [token for part in reward.encode(prompt, completion) for token in part]
        expected = model(torch.tensor([ids])).logits[0]
        assert_close(reward([prompt], [completion]), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("changes", [{"padding": "left"}, {"tokens_per_batch": 1}, {"tokens_per_batch": 16}])
def test_padding_and_batches_change_nothing(reward: LearnedReward, changes: dict[str, Any]) -> None:
    scores = reward(PROMPTS, COMPLETIONS)
    assert scores.std() > 0.05
    assert_close(replace(reward, **changes)(PROMPTS, COMPLETIONS), scores, atol=1e-5, rtol=0)


def test_a_prompt_is_read_once_for_all_its_completions(
    reward: LearnedReward, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three prompts, four completions of 1 to 10 words each, room for four rows: by length alone each batch would have
    three prompts. The scores are those of transformers' classifier, each row alone."""
    asked = [Prompt.user(text) for text in ("how do i cook bread", "why is it hot now", "can you help me please")]
    said = [Completion("good " * words, finish="eos") for words in (1, 4, 7, 10)]
    prompts, completions = [p for _ in said for p in asked], [c for c in said for _ in asked]
    read: list[int] = []

    class Watched(Ragged):
        def __init__(self, *given: Any, **settings: Any) -> None:
            super().__init__(*given, **settings)
            read.append(len(self.prefixes.lengths))

    monkeypatch.setattr(forward, "Ragged", Watched)
    rows = [reward.encode(p, c) for p, c in zip(prompts, completions, strict=True)]
    scores = replace(reward, tokens_per_batch=4 * max(len(p) + len(c) for p, c in rows))(prompts, completions)
    assert read == [1, 1, 1]
    alone = [model(torch.tensor([[*p, *c]])).logits[0, 0] for p, c in rows]
    assert scores.std() > 0.05
    assert_close(scores, torch.stack(alone), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("shared", "batches"), [(True, [[0, 2], [1, 3]]), (False, [[0, 1], [2, 3]])])
def test_only_a_prompt_that_is_shared_keeps_its_rows_together(shared: bool, batches: list[list[int]]) -> None:
    """Rows 0 and 2 have one prompt, 1 and 3 another; 0 and 1 are as long as one another, and so are 2 and 3."""
    rows = [([7, 8], [0] * 6), ([7, 9], [1] * 6), ([7, 8], [2]), ([7, 9], [3])]
    seen = []

    def read(_: list[list[int]], completions: list[list[int]]) -> Tensor:
        seen.append([completion[0] for completion in completions])
        return torch.tensor(seen[-1]) / 2

    assert in_batches(read, rows, 16, shared=shared).tolist() == [0, 0.5, 1, 1.5]
    assert seen == batches


def test_prompts_lose_their_beginning(reward: LearnedReward, tiny_tokenizer: Any) -> None:
    prompt = Prompt("a b c d e f g h i j k l m n o p q r s t " * 2 + "how do i cook bread today")
    answer = Completion("yes please", finish="eos")
    ids, completion = replace(reward, max_tokens=20).encode(prompt, answer)
    assert len(ids) + len(completion) == 20
    assert tiny_tokenizer.convert_ids_to_tokens(ids)[0] == "<bos>"
    assert tiny_tokenizer.convert_ids_to_tokens(ids)[-6:] == "how do i cook bread today".split()
    assert tiny_tokenizer.convert_ids_to_tokens(completion) == ["yes", "please", "<eos>"]


def test_the_models_context_is_the_limit_without_one(reward: LearnedReward) -> None:
    ids, completion = reward.encode(Prompt("hello " * 300), Completion("yes", finish="eos"))
    assert len(ids) + len(completion) == 128
    assert reward([Prompt("hello " * 300)], [Completion("yes " * 300)]).isfinite().all()


def test_gain_and_bias_by_hand(model: Any, tiny_tokenizer: Any) -> None:
    """Raw -2 and 6 have mean 2 and standard deviation 4: gain 1/4, bias -1/2, scores -1 and 1."""
    reward = Fixed(Role("reward", model, head=model.score), tiny_tokenizer)
    scaled = reward.normalised_on(PROMPTS[:2], COMPLETIONS[:2])
    assert scaled.gain == pytest.approx(0.25)
    assert scaled.bias == pytest.approx(-0.5)
    assert_close(scaled(PROMPTS[:2], COMPLETIONS[:2]), torch.tensor([-1.0, 1.0]))


def test_normalised_scores_have_mean_0_and_deviation_1(reward: LearnedReward) -> None:
    scores = reward.normalised_on(PROMPTS, COMPLETIONS)(PROMPTS, COMPLETIONS)
    assert_close(scores.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    assert_close(scores.std(correction=0), torch.tensor(1.0), atol=1e-5, rtol=0)


def test_a_score_of_which_length_is_taken_says_nothing_of_it(model: Any, tiny_tokenizer: Any) -> None:
    """Raw -2, 6, 2 of answers of 1, 3 and 2 words lie on the line 4 words - 6; a fourth of 2 words is 4 above it."""
    answers = [Completion("no"), Completion("yes you can"), Completion("go on"), Completion("go on")]

    class Line(LearnedReward):
        def raw(self, prompts: Any, completions: Any) -> torch.Tensor:
            return torch.tensor([-2.0, 6.0, 2.0, 6.0])[: len(completions)]

    reward = Line(Role("reward", model, head=model.score), tiny_tokenizer)
    scaled = reward.normalised_on(PROMPTS[:1] * 4, answers, length_control=True)
    # Words 1, 3, 2, 2 are -1, 1, 0, 0 from their mean: slope (2 + 6) / 2 = 4. What is left: -6, -6, -6, -2.
    assert scaled.length_slope == pytest.approx(4.0)
    scores = scaled(PROMPTS[:1] * 4, answers)
    deviation = 3**0.5  # mean -5, deviations -1, -1, -1, 3: variance 12 / 4
    assert_close(scores, torch.tensor([-1.0, -1.0, -1.0, 3.0]) / deviation)


def test_answers_of_one_length_have_no_slope(model: Any, tiny_tokenizer: Any) -> None:
    reward = Fixed(Role("reward", model, head=model.score), tiny_tokenizer)
    answers = [replace(COMPLETIONS[0], text="no"), replace(COMPLETIONS[0], text="yes")]
    assert reward.normalised_on(PROMPTS[:2], answers, length_control=True).length_slope == 0.0


def test_a_constant_reward_is_refused(reward: LearnedReward) -> None:
    with pytest.raises(RewardError, match="it has learned nothing"):
        reward.normalised_on(PROMPTS[:1] * 3, COMPLETIONS[:1] * 3)


def test_the_length_it_was_trained_on_is_read_back(
    reward: LearnedReward, model: Any, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    save_model(model, tiny_tokenizer, tmp_path / "reward")
    write_reward_file(tmp_path / "reward", {"gain": 1.0, "bias": 0.0, "max_tokens": 24})
    long = Prompt.user("hot house " * 40)
    cut, whole = LearnedReward.load(tmp_path / "reward"), reward
    assert sum(map(len, cut.encode(long, COMPLETIONS[0]))) == 24
    assert sum(map(len, whole.encode(long, COMPLETIONS[0]))) > 24


def test_saved_and_loaded(reward: LearnedReward, model: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    scaled = replace(reward, gain=0.25, bias=-0.5)
    save_model(model, tiny_tokenizer, tmp_path / "reward")
    bare = LearnedReward.load(tmp_path / "reward")
    assert (bare.gain, bare.bias) == (1.0, 0.0)
    write_reward_file(tmp_path / "reward", {"gain": 0.25, "bias": -0.5, "length_slope": 0.5})
    controlled = LearnedReward.load(tmp_path / "reward")
    words = torch.tensor([float(len(c.text.split())) for c in COMPLETIONS])
    assert_close(controlled(PROMPTS, COMPLETIONS), 0.25 * (bare(PROMPTS, COMPLETIONS) - 0.5 * words) - 0.5)
    write_reward_file(tmp_path / "reward", {"gain": 0.25, "bias": -0.5})
    loaded = load_reward(str(tmp_path / "reward"))
    assert isinstance(loaded, LearnedReward)
    assert torch.equal(loaded(PROMPTS, COMPLETIONS), scaled(PROMPTS, COMPLETIONS))
    assert_close(loaded(PROMPTS, COMPLETIONS), 0.25 * bare(PROMPTS, COMPLETIONS) - 0.5)


class TestEncoder:
    @pytest.fixture
    def plain(self, bert_dir: Path) -> Any:
        model: Any = AutoModelForSequenceClassification.from_pretrained(bert_dir, dtype=torch.float32)
        return model.eval()

    PROMPTS = (Prompt("how do i cook bread"), Prompt("the dog is hotter"), Prompt.user("cold"))
    COMPLETIONS = (Completion("good"), Completion("please cook the hottest dog"), Completion("thank you"))

    @pytest.mark.parametrize("padding", ["right", "left"])
    def test_scores_are_its_own(self, bert_dir: Path, plain: Any, padding: Any) -> None:
        """Pairs encoded by the tokenizer itself, segments included, each row alone."""
        tokenizer = load_tokenizer(bert_dir, needs_end=False)
        scores = replace(LearnedReward.load(bert_dir), padding=padding)(self.PROMPTS, self.COMPLETIONS)
        assert scores.std() > 0.01
        for prompt, completion, score in zip(self.PROMPTS, self.COMPLETIONS, scores, strict=True):
            pair = tokenizer(prompt.text, completion.text, return_tensors="pt")
            assert pair["token_type_ids"].any()
            assert_close(score, plain(**pair).logits[0, 0], atol=1e-5, rtol=0)

    def test_ids_are_the_tokenizers_own(self, bert_dir: Path) -> None:
        reward = LearnedReward.load(bert_dir)
        first, second = reward.encode(self.PROMPTS[1], self.COMPLETIONS[1])
        pair = reward.tokenizer(self.PROMPTS[1].text, self.COMPLETIONS[1].text)
        assert first + second == pair["input_ids"]
        assert pair["token_type_ids"] == [0] * len(first) + [1] * len(second)

    def test_long_prompts_lose_their_beginning(self, bert_dir: Path) -> None:
        """48 positions: the first segment keeps its mark and its last words."""
        reward = LearnedReward.load(bert_dir)
        first, second = reward.encode(Prompt("the dog is " * 30 + "how do i"), Completion("cook bread"))
        names = reward.tokenizer.convert_ids_to_tokens(first)
        assert len(first) + len(second) == 48
        assert names[0] == "[CLS]"
        assert names[-4:] == ["how", "do", "i", "[SEP]"]

    def test_a_completion_longer_than_the_context_is_still_scored(self, bert_dir: Path) -> None:
        reward = LearnedReward.load(bert_dir)
        first, second = reward.encode(Prompt("how do i cook"), Completion("the dog is " * 30))
        assert len(first) + len(second) <= 48
        assert reward([Prompt("how do i cook")], [Completion("the dog is " * 30)]).isfinite().all()

    def test_no_room_for_a_pair(self, bert_dir: Path) -> None:
        """Mark, one token of the answer and two separators."""
        reward = replace(LearnedReward.load(bert_dir), max_tokens=4)
        assert reward.encode(Prompt("how do i"), Completion("cook bread")) == ([2, 3], [7, 3])
        with pytest.raises(ConfigError) as error:
            replace(reward, max_tokens=3).encode(Prompt("how do i"), Completion("cook bread"))
        assert str(error.value) == "an encoder reward needs room for at least 4 tokens, got max_tokens = 3"

    def test_a_tokenizer_that_cannot_mark_segments(self, bert_dir: Path) -> None:
        reward = LearnedReward.load(bert_dir)
        reward.tokenizer.sep_token = None
        with pytest.raises(ModelError, match="no cls_token or no sep_token, by which an encoder tells the prompt"):
            reward(self.PROMPTS, self.COMPLETIONS)


class TestRoberta:
    """Its positions count from the pad id + 1, so 34 places hold 32 tokens; its tokenizer knows that."""

    @pytest.fixture
    def roberta_dir(self, tmp_path: Path) -> Path:
        vocabulary = {token: i for i, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "how", "do", "i", "cook"])}
        words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
        tokenizer: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
            tokenizer_object=words,
            model_max_length=32,
            pad_token="<pad>",
            unk_token="<unk>",
            cls_token="<s>",
            sep_token="</s>",
            eos_token="</s>",
        )
        tokenizer.save_pretrained(tmp_path)
        config = RobertaConfig(
            vocab_size=len(vocabulary),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            max_position_embeddings=34,
            type_vocab_size=1,
            num_labels=1,
            pad_token_id=1,
        )
        RobertaForSequenceClassification(config).save_pretrained(tmp_path)
        return tmp_path

    @pytest.mark.parametrize("max_tokens", [None, 33, 1024])
    def test_long_texts_stay_within_its_positions(self, roberta_dir: Path, max_tokens: int | None) -> None:
        reward = replace(LearnedReward.load(roberta_dir), max_tokens=max_tokens)
        prompt, completion = Prompt("how do " * 30), Completion("i cook " * 5)
        first, second = reward.encode(prompt, completion)
        assert len(first) + len(second) == 32
        assert reward([prompt], [completion]).isfinite().all()

    def test_a_smaller_limit_holds(self, roberta_dir: Path) -> None:
        reward = replace(LearnedReward.load(roberta_dir), max_tokens=20)
        assert sum(map(len, reward.encode(Prompt("how do " * 30), Completion("i cook " * 5)))) == 20


def test_a_language_model_is_no_reward(tiny_model_dir: Path) -> None:
    with pytest.raises(RewardError, match="a language model, not a reward model; train one from it"):
        load_reward(str(tiny_model_dir))


def test_a_classifier_of_two_labels_gives_no_single_score(
    tiny_model_dir: Path, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    save_model(load_scorer(tiny_model_dir, num_labels=2), tiny_tokenizer, tmp_path / "two")
    with pytest.raises(RewardError, match="gives 2 labels; a reward model gives one score"):
        load_reward(str(tmp_path / "two"))
