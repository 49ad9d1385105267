"""The sampler against a plain forward pass, transformers' generate, and a decoding loop without a cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import GPT2Config, GPT2LMHeadModel, Qwen3Config, Qwen3ForCausalLM

from tuneful.errors import GenerationError
from tuneful.generation import decoding
from tuneful.generation.llama_decoding import LlamaDecoding
from tuneful.generation.nucleus import nucleus
from tuneful.generation.rollout import Rollout
from tuneful.generation.sampler import Sampler
from tuneful.generation.sampling import Sampling, uniforms
from tuneful.models import llama as llama_pass
from tuneful.models.adapters import AdapterSet, LoRA
from tuneful.models.forward import value_outputs
from tuneful.models.roles import Role
from tuneful.records import Prompt

EOS = 2
PROMPTS = [
    Prompt("hello"),
    Prompt.user("how do i cook bread today"),
    Prompt("the dog is on the door and the sun is hot now so please shut the door"),
    Prompt.user("stop the rain"),
    Prompt("why"),
]
SAMPLING = Sampling(num_samples=3, max_new_tokens=24)


def widened(model: Any) -> Any:
    """Weights drawn wide, so that a wrong position or mask shows; the end token likely, so that rows leave early."""
    torch.manual_seed(4)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(std=0.25)
    return model.eval()


@pytest.fixture(params=["llama", "gpt2", "qwen3"])
def model(request: pytest.FixtureRequest, tiny_model: Any) -> Any:
    ids = {"vocab_size": tiny_model.config.vocab_size, "bos_token_id": 1, "eos_token_id": EOS}
    if request.param == "gpt2":
        return widened(GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=128, **ids)))
    if request.param == "qwen3":
        size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        config = Qwen3Config(num_key_value_heads=2, head_dim=8, max_position_embeddings=128, **size, **ids)
        return widened(Qwen3ForCausalLM(config))
    return widened(tiny_model)


@pytest.fixture
def llama(tiny_model: Any) -> Any:
    return widened(tiny_model)


def sampler(model: Any, tokenizer: Any, **kwargs: Any) -> Sampler:
    return Sampler(Role("policy", model), tokenizer, **kwargs)


@torch.no_grad()
def plain_logits(model: Any, prompt: list[int], completion: list[int], temperature: float = 1.0) -> Tensor:
    """Logits [T, V] before each completion token, by transformers alone, one row, no cache."""
    logits: Tensor = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
    return logits / temperature


def taken(logprobs: Tensor, completion: list[int]) -> Tensor:
    return logprobs.gather(-1, torch.tensor(completion)[:, None]).squeeze(-1)


def assert_recorded_equals_forward(model: Any, rollout: Rollout) -> None:
    for k, completion in enumerate(rollout.completions):
        logits = plain_logits(model, rollout.prompts[k], completion, rollout.temperature)
        expected = taken(logits.log_softmax(-1), completion)
        assert_close(rollout.logprobs[k, : len(completion)], expected, atol=1e-5, rtol=0)
        assert not rollout.logprobs[k, len(completion) :].any()


@pytest.mark.parametrize("max_rows", [1, 4, 256])
@pytest.mark.parametrize("alone_from", [0, 1_000], ids=["prompts attend alone", "together"])
def test_recorded_logprobs_equal_the_forward(
    model: Any, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch, max_rows: int, alone_from: int
) -> None:
    """Ragged prompts, three samples each, rows that finish at different times, at every size of batch."""
    monkeypatch.setattr(decoding, "MAX_ROWS", max_rows)
    monkeypatch.setattr(llama_pass, "ALONE_FROM", alone_from)
    rollout = sampler(model, tiny_tokenizer).sample(PROMPTS, SAMPLING, seed=1)
    assert len(set(map(len, rollout.completions))) > 3
    assert {"eos", "length"} >= set(rollout.finish)
    assert_recorded_equals_forward(model, rollout)


def test_recorded_logprobs_are_of_the_tempered_distribution(llama: Any, tiny_tokenizer: Any) -> None:
    sampling = Sampling(num_samples=2, max_new_tokens=8, temperature=0.6)
    rollout = sampler(llama, tiny_tokenizer).sample(PROMPTS, sampling, seed=1)
    assert rollout.temperature == 0.6
    assert_recorded_equals_forward(llama, rollout)


def test_the_form_of_a_rollout(llama: Any, tiny_tokenizer: Any) -> None:
    rollout = sampler(llama, tiny_tokenizer, version=7).sample(PROMPTS, SAMPLING, seed=1)
    assert len(rollout) == 15
    assert rollout.group.tolist() == [i for i in range(5) for _ in range(3)]
    assert rollout.version.tolist() == [7] * 15
    assert rollout.mask.sum(-1).tolist() == [len(c) for c in rollout.completions]
    assert rollout.prompts[3] == tiny_tokenizer.encode("<bos><user> how do i cook bread today <assistant>")
    assert rollout.values is None
    assert rollout.allowed is None
    assert torch.equal(rollout.logprobs, rollout.sampled_logprobs)
    for ids, text, finish in zip(rollout.completions, rollout.texts, rollout.finish, strict=True):
        assert (ids[-1] == EOS) == (finish == "eos")
        assert EOS not in ids[:-1]
        assert len(ids) <= 24
        assert finish == "eos" or len(ids) == 24
        assert text == tiny_tokenizer.decode(ids, skip_special_tokens=True)


def test_greedy_equals_generate(model: Any, tiny_tokenizer: Any) -> None:
    rollout = sampler(model, tiny_tokenizer).sample(PROMPTS, Sampling(max_new_tokens=16, temperature=0), seed=0)
    for prompt, completion in zip(rollout.prompts, rollout.completions, strict=True):
        ids = torch.tensor([prompt])
        theirs = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=16,
            eos_token_id=EOS,
            pad_token_id=0,
        )
        assert completion == theirs[0, len(prompt) :].tolist()


def test_a_greedy_rollout_can_be_scored_again(llama: Any, tiny_tokenizer: Any) -> None:
    """Its logprobs are the policy's own, at temperature 1: dividing by 0 would give none."""
    rollout = sampler(llama, tiny_tokenizer).sample(PROMPTS[:2], Sampling(max_new_tokens=6, temperature=0), seed=0)
    assert rollout.temperature == 1.0
    assert_recorded_equals_forward(llama, rollout)


def test_tokens_do_not_depend_on_the_batch(llama: Any, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sampler(llama, tiny_tokenizer).sample(PROMPTS, SAMPLING, seed=3)
    for max_rows in (1, 2, 7, 9):
        monkeypatch.setattr(decoding, "MAX_ROWS", max_rows)
        parts = sampler(llama, tiny_tokenizer).sample(PROMPTS, SAMPLING, seed=3)
        assert parts.completions == whole.completions
        assert_close(parts.logprobs, whole.logprobs, atol=1e-5, rtol=0)


class Watched:
    """How many rows are under way at each call of a decoding's `admit` (before it) and `step`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
        self.admitted, self.stepped = [], []
        rows = lambda one: len(one.lengths if kind is LlamaDecoding else one.position)  # noqa: E731
        admit, step = kind.admit, kind.step
        monkeypatch.setattr(kind, "admit", lambda one, *given: self.admitted.append(rows(one)) or admit(one, *given))
        monkeypatch.setattr(kind, "step", lambda one, ids: self.stepped.append(len(ids)) or step(one, ids))


def test_keys_and_values_of_rows_together_are_bounded(
    llama: Any, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One token of the tiny Llama: 2 x 2 layers x 32 numbers x 4 bytes = 512 bytes; room for six rows, two prompts."""
    ours = sampler(llama, tiny_tokenizer)
    watched = Watched(monkeypatch, LlamaDecoding)
    whole = ours.sample(PROMPTS, SAMPLING, seed=3)
    assert watched.admitted == [0]
    longest = max(map(len, whole.prompts)) + SAMPLING.max_new_tokens
    monkeypatch.setattr(decoding, "MAX_CACHE", 6 * longest * 512)
    watched.stepped.clear()
    assert ours.sample(PROMPTS, SAMPLING, seed=3).completions == whole.completions
    assert max(watched.stepped) <= 6
    monkeypatch.setattr(decoding, "MAX_CACHE", 1)  # one prompt's samples are never parted
    assert ours.sample(PROMPTS[:1], SAMPLING, seed=3).completions == whole.completions[:3]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_waiting_prompts_take_the_place_of_rows_that_ended(
    family: str, request: pytest.FixtureRequest, tiny_model: Any, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty prompts, room for six rows: new ones begin beside rows that are under way, and say what they say alone."""
    ids = {"vocab_size": tiny_model.config.vocab_size, "bos_token_id": 1, "eos_token_id": EOS}
    gpt2 = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=128, **ids))
    model = widened(tiny_model if family == "llama" else gpt2)
    watched = Watched(monkeypatch, LlamaDecoding if family == "llama" else decoding.DecoderDecoding)
    sampling = Sampling(max_new_tokens=24)
    whole = sampler(model, tiny_tokenizer).sample(PROMPTS * 4, sampling, seed=3)
    steps_together = len(watched.stepped)
    monkeypatch.setattr(decoding, "MAX_ROWS", 6)
    watched.admitted.clear()
    watched.stepped.clear()
    parts = sampler(model, tiny_tokenizer).sample(PROMPTS * 4, sampling, seed=3)
    assert parts.completions == whole.completions
    assert_close(parts.logprobs, whole.logprobs, atol=1e-5, rtol=0)
    assert any(watched.admitted)
    assert max(watched.stepped) <= 6
    assert len(watched.stepped) < 4 * steps_together  # in waves of six each would wait for its longest


def test_tokens_do_not_depend_on_prompts_that_come_after(llama: Any, tiny_tokenizer: Any) -> None:
    whole = sampler(llama, tiny_tokenizer).sample(PROMPTS, SAMPLING, seed=3)
    fewer = sampler(llama, tiny_tokenizer).sample(PROMPTS[:2], SAMPLING, seed=3)
    assert fewer.completions == whole.completions[:6]


def test_a_sample_does_not_depend_on_how_many_are_drawn(llama: Any, tiny_tokenizer: Any) -> None:
    three = sampler(llama, tiny_tokenizer).sample(PROMPTS, SAMPLING, seed=3)
    one = sampler(llama, tiny_tokenizer).sample(PROMPTS, Sampling(max_new_tokens=24), seed=3)
    assert one.completions == three.completions[::3]


def test_seeds_and_samples_differ(llama: Any, tiny_tokenizer: Any) -> None:
    ours = sampler(llama, tiny_tokenizer)
    first, again = (ours.sample(PROMPTS, SAMPLING, seed=3).completions for _ in range(2))
    other = ours.sample(PROMPTS, SAMPLING, seed=4).completions
    assert first == again
    assert first != other
    assert first[0] != first[1]


def test_tokens_follow_a_plain_loop(llama: Any, tiny_tokenizer: Any) -> None:
    """Inverse CDF of plain forwards, row by row, without cache, by the uniforms of (seed, prompt, sample, t)."""
    sampling = Sampling(num_samples=2, max_new_tokens=10, temperature=0.8)
    rollout = sampler(llama, tiny_tokenizer).sample(PROMPTS[:3], sampling, seed=11)
    for k, completion in enumerate(rollout.completions):
        logits = plain_logits(llama, rollout.prompts[k], completion, 0.8)
        for t, token in enumerate(completion):
            uniform = float(uniforms(11, np.array([k // 2]), np.array([k % 2]), t)[0])
            cumulative = np.cumsum(logits[t].double().softmax(-1).numpy())
            assert token == int(np.sum(cumulative <= uniform))


class TestStop:
    def test_a_completion_ends_at_its_first_stop_string(self, llama: Any, tiny_tokenizer: Any) -> None:
        """A row goes on until its text holds one, then stops: the text is cut before it, the tokens keep it."""
        free = sampler(llama, tiny_tokenizer).sample(PROMPTS, SAMPLING, seed=3)
        words = [text.split() for text in free.texts]
        row = next(k for k, ws in enumerate(words) if len(ws) >= 6)
        stops = (words[row][4], words[row][2])
        first = next(t for t, word in enumerate(words[row]) if any(stop in word for stop in stops))
        stopped = sampler(llama, tiny_tokenizer).sample(
            PROMPTS, Sampling(num_samples=3, max_new_tokens=24, stop=stops), seed=3
        )
        assert stopped.finish[row] == "stop"
        assert len(stopped.completions[row]) < len(free.completions[row])
        assert stopped.completions[row] == free.completions[row][: len(stopped.completions[row])]
        assert stopped.texts[row].split() == words[row][: first + 1][: len(stopped.texts[row].split())]
        for text, finish, ids in zip(stopped.texts, stopped.finish, stopped.completions, strict=True):
            assert not any(stop in text for stop in stops)
            spoken = tiny_tokenizer.decode(ids, skip_special_tokens=True)
            assert (finish == "stop") == (any(stop in spoken for stop in stops) and ids[-1] != EOS)
        assert_recorded_equals_forward(llama, stopped)

    def test_a_stop_string_may_span_tokens(self, llama: Any, tiny_tokenizer: Any) -> None:
        free = sampler(llama, tiny_tokenizer).sample(PROMPTS, SAMPLING, seed=3)
        row = next(k for k, text in enumerate(free.texts) if len(text.split()) >= 6)
        words = free.texts[row].split()
        stop = f"{words[2]} {words[3]}"
        assert stop not in " ".join(words[:3])
        stopped = sampler(llama, tiny_tokenizer).sample(
            PROMPTS, Sampling(num_samples=3, max_new_tokens=24, stop=(stop,)), seed=3
        )
        assert stopped.texts[row].split() == words[:2]

    def test_a_stop_string_in_what_the_template_adds(self, llama: Any, tiny_tokenizer: Any) -> None:
        """The template ends answers with " stop", which is no part of the text, yet ends the row as asked."""
        tiny_tokenizer.chat_template = tiny_tokenizer.chat_template.replace(
            "{{ eos_token if m['role'] == 'assistant' else ' ' }}",
            "{{ ' stop' + eos_token if m['role'] == 'assistant' else ' ' }}",
        )
        always_stop = tiny_tokenizer.convert_tokens_to_ids("stop")
        yes = tiny_tokenizer.convert_tokens_to_ids("yes")
        turns = iter([yes, always_stop])

        def script(logits: Tensor, hidden: Tensor, rows: Tensor) -> Tensor:
            return logits.new_full(logits.shape, -torch.inf).index_fill(1, torch.tensor([next(turns)]), 0.0)

        rollout = sampler(llama, tiny_tokenizer).sample(
            [Prompt.user("hello")], Sampling(max_new_tokens=8, stop=("stop",)), seed=0, choose=script
        )
        assert rollout.completions == [[yes, always_stop]]
        assert rollout.finish == ["stop"]
        assert rollout.texts == ["yes"]


class TestChoose:
    def test_the_policys_own_nucleus(self, llama: Any, tiny_tokenizer: Any) -> None:
        """Against a plain loop: allowed ids, the policy's logprob, and the logprob under the renormalised nucleus."""
        rollout = sampler(llama, tiny_tokenizer).sample(PROMPTS, SAMPLING, seed=5, choose=nucleus(0.7))
        assert rollout.allowed is not None
        assert_recorded_equals_forward(llama, rollout)
        for k, completion in enumerate(rollout.completions):
            logprobs = plain_logits(llama, rollout.prompts[k], completion).log_softmax(-1)
            assert len(rollout.allowed[k]) == len(completion)
            for t, token in enumerate(completion):
                inside: list[int] = []
                while sum(float(logprobs[t, i].exp()) for i in inside) < 0.7:
                    inside.append(int(logprobs[t].argsort(descending=True)[len(inside)]))
                assert rollout.allowed[k][t] == sorted(inside)
                assert token in inside
                renormalised = logprobs[t, token] - logprobs[t, inside].logsumexp(-1)
                assert_close(rollout.sampled_logprobs[k, t], renormalised, atol=2e-5, rtol=0)

    def test_a_nucleus_by_hand(self) -> None:
        """Of 1/2, 3/10, 3/20 and 1/20, in any order, two hold .7 and three hold .9; the likeliest alone holds .4."""
        logits = torch.tensor([[0.15, 0.5, 0.05, 0.3], [0.5, 0.3, 0.15, 0.05]]).log()
        for top_p, left in ((0.4, [[1], [0]]), (0.7, [[1, 3], [0, 1]]), (0.9, [[0, 1, 3], [0, 1, 2]])):
            limited = nucleus(top_p)(logits.clone(), logits, torch.arange(2))
            assert [row.isfinite().nonzero().flatten().tolist() for row in limited] == left
            assert torch.equal(limited[limited.isfinite()], logits[limited.isfinite()])

    def test_a_nucleus_of_all_the_probability_leaves_every_token(self) -> None:
        """Of a hundred tokens the first has e^20 times the probability of each other: 1 - 2e-7, 1 when summed up."""
        logits = torch.zeros(1, 100).index_fill(1, torch.tensor([0]), 20.0)
        assert logits.softmax(-1).cumsum(-1)[0, 50] == 1
        assert torch.equal(nucleus(1)(logits.clone(), logits, torch.arange(1)), logits)

    def test_what_it_leaves_is_kept_where_it_is_wanted(self, llama: Any, tiny_tokenizer: Any) -> None:
        ours = sampler(llama, tiny_tokenizer)
        kept = ours.sample(PROMPTS, SAMPLING, seed=5, choose=nucleus(0.7))
        bare = ours.sample(PROMPTS, SAMPLING, seed=5, choose=nucleus(0.7), keep_allowed=False)
        assert kept.allowed is not None
        assert bare.allowed is None
        assert bare.completions == kept.completions
        assert torch.equal(bare.sampled_logprobs, kept.sampled_logprobs)

    def test_a_constant_changes_nothing(self, llama: Any, tiny_tokenizer: Any) -> None:
        free = sampler(llama, tiny_tokenizer).sample(PROMPTS, SAMPLING, seed=5)
        raised = sampler(llama, tiny_tokenizer).sample(
            PROMPTS, SAMPLING, seed=5, choose=lambda logits, hidden, rows: logits + 3.5
        )
        assert raised.completions == free.completions
        assert raised.allowed is None
        assert_close(raised.logprobs, free.logprobs)
        assert_close(raised.sampled_logprobs, free.logprobs, atol=2e-5, rtol=0)

    def test_where_it_forbids_nothing_no_ids_are_kept(self, llama: Any, tiny_tokenizer: Any) -> None:
        """One that holds row 0 to words and leaves row 1 free."""

        def half(logits: Tensor, hidden: Tensor, rows: Tensor) -> Tensor:
            limited = logits.clone()
            limited[rows == 0, :7] = -torch.inf
            return limited

        rollout = sampler(llama, tiny_tokenizer).sample(PROMPTS[:2], Sampling(max_new_tokens=3), seed=5, choose=half)
        assert rollout.allowed == [[[*range(7, len(tiny_tokenizer))]] * 3, [[]] * len(rollout.completions[1])]

    def test_a_hook_that_writes_into_its_logits(self, llama: Any, tiny_tokenizer: Any) -> None:
        """The policy's own logprobs stay its own, and the rollout is that of a hook that returns new logits."""

        def in_place(logits: Tensor, hidden: Tensor, rows: Tensor) -> Tensor:
            logits[:, 7:20] = -torch.inf
            return logits

        forbidden = (torch.arange(len(tiny_tokenizer)) >= 7) & (torch.arange(len(tiny_tokenizer)) < 20)
        ours = sampler(llama, tiny_tokenizer)
        written = ours.sample(PROMPTS, SAMPLING, seed=5, choose=in_place)
        returned = ours.sample(
            PROMPTS, SAMPLING, seed=5, choose=lambda logits, hidden, rows: logits.masked_fill(forbidden, -torch.inf)
        )
        assert_recorded_equals_forward(llama, written)
        assert (written.sampled_logprobs - written.logprobs)[written.mask].min() > 1e-4
        assert written.completions == returned.completions
        assert torch.equal(written.logprobs, returned.logprobs)
        assert torch.equal(written.sampled_logprobs, returned.sampled_logprobs)

    @pytest.mark.parametrize(
        ("makes", "told"),
        [
            (lambda logits: logits[:, :-1], "the choose hook returned logits [5, 39] for [5, 40]; return one for each"),
            (lambda logits: logits[0], "the choose hook returned logits [40] for [5, 40]; return one for each"),
            (
                lambda logits: logits.index_fill(0, torch.tensor([3]), -torch.inf),
                "the choose hook forbids every token of row 3; leave one, such as the end token",
            ),
            (
                lambda logits: logits.index_fill(0, torch.tensor([3]), torch.nan),
                "the choose hook returned nan for row 3; return finite logits",
            ),
            (
                lambda logits: logits.index_fill(0, torch.tensor([3]), torch.inf),
                "the choose hook returned inf for row 3; return finite logits",
            ),
        ],
        ids=["too narrow", "one row", "nothing left", "not a number", "infinite"],
    )
    @pytest.mark.parametrize("temperature", [0.0, 1.0])
    def test_logits_that_cannot_be_drawn_from(
        self, llama: Any, tiny_tokenizer: Any, makes: Callable[[Tensor], Tensor], told: str, temperature: float
    ) -> None:
        def choose(logits: Tensor, hidden: Tensor, rows: Tensor) -> Tensor:
            made = makes(logits[rows.argsort()])  # row 3 of the rollout, wherever it is in the batch
            return made[rows] if made.dim() == 2 else made

        sampling = Sampling(max_new_tokens=2, temperature=temperature)
        with pytest.raises(GenerationError) as caught:
            sampler(llama, tiny_tokenizer).sample(PROMPTS, sampling, seed=5, choose=choose)
        vocabulary = len(tiny_tokenizer)
        assert str(caught.value).startswith(told.replace("40", str(vocabulary)).replace("39", str(vocabulary - 1)))

    def test_row_numbers_name_the_rows_of_the_rollout(
        self, llama: Any, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A hook that makes row r say word r and then end: each row of the rollout says its own, in any batch."""
        monkeypatch.setattr(decoding, "MAX_ROWS", 4)
        steps: dict[int, int] = {}

        def say(logits: Tensor, hidden: Tensor, rows: Tensor) -> Tensor:
            limited = torch.full_like(logits, -torch.inf)
            for k, row in enumerate(rows.tolist()):
                limited[k, EOS if steps.get(row) else 10 + row] = 0.0
                steps[row] = 1
            return limited

        rollout = sampler(llama, tiny_tokenizer).sample(PROMPTS, SAMPLING, seed=5, choose=say)
        assert rollout.completions == [[10 + row, EOS] for row in range(15)]
        assert not rollout.sampled_logprobs.any()  # nothing else was possible

    def test_a_hook_is_told_which_rows_begin_and_end(
        self, llama: Any, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One that counts the tokens of each row in a cache of its own: rows it knows, and no others, come to it."""
        monkeypatch.setattr(decoding, "MAX_ROWS", 6)

        class Counting:
            def __init__(self) -> None:
                self.tokens: dict[int, int] = {}
                self.ended: dict[int, int] = {}

            def admit(self, rows: Tensor) -> None:
                assert not any(row in self.tokens or row in self.ended for row in rows.tolist())
                self.tokens |= dict.fromkeys(rows.tolist(), 0)

            def drop(self, rows: Tensor) -> None:
                self.ended |= {row: self.tokens.pop(row) for row in rows.tolist()}

            def __call__(self, logits: Tensor, hidden: Tensor, rows: Tensor) -> Tensor:
                assert sorted(rows.tolist()) == sorted(self.tokens)
                for row in rows.tolist():
                    self.tokens[row] += 1
                return logits

        hook = Counting()
        rollout = sampler(llama, tiny_tokenizer).sample(PROMPTS, SAMPLING, seed=5, choose=hook)
        assert not hook.tokens
        assert [hook.ended[row] for row in range(15)] == [len(c) for c in rollout.completions]

    def test_a_hook_may_run_another_role_on_the_same_base(
        self, model: Any, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One that switches the policy's adapter off at every call, while prompts enter late, changes nothing."""
        adapters = AdapterSet(model.requires_grad_(False))
        adapters.add("policy", LoRA(rank=2), seed=1)
        for weight in adapters.named_parameters("policy").values():
            weight.data.normal_(std=0.2, generator=torch.Generator().manual_seed(len(weight)))
        policy, reference = Role("policy", model, adapters, ("policy",)), Role("reference", model, adapters)
        free = Sampler(policy, tiny_tokenizer).sample(PROMPTS, SAMPLING, seed=5)
        assert free.completions != Sampler(reference, tiny_tokenizer).sample(PROMPTS, SAMPLING, seed=5).completions
        monkeypatch.setattr(decoding, "MAX_ROWS", 6)

        class Reading:
            def admit(self, rows: Tensor) -> None:
                reference.activate()

            def __call__(self, logits: Tensor, hidden: Tensor, rows: Tensor) -> Tensor:
                reference.activate()
                return logits

        read = Sampler(policy, tiny_tokenizer).sample(PROMPTS, SAMPLING, seed=5, choose=Reading())
        assert read.completions == free.completions
        assert_close(read.logprobs, free.logprobs, atol=2e-5, rtol=1e-5)

    def test_the_hidden_states_are_those_of_the_policy(self, llama: Any, tiny_tokenizer: Any) -> None:
        seen: list[Tensor] = []

        def look(logits: Tensor, hidden: Tensor, rows: Tensor) -> Tensor:
            seen.append(hidden)
            assert_close(llama.lm_head(hidden), logits, atol=2e-5, rtol=1e-5)
            return logits

        sampler(llama, tiny_tokenizer).sample(PROMPTS, Sampling(max_new_tokens=4), seed=0, choose=look)
        assert seen[0].shape == (5, 32)


def value_head(std: float = 0.3) -> nn.Linear:
    head = nn.Linear(32, 1)
    nn.init.normal_(head.weight, std=std)
    return head


def test_values_from_the_decode_pass(llama: Any, tiny_tokenizer: Any) -> None:
    value = Role("value", llama, head=value_head())
    rollout = sampler(llama, tiny_tokenizer, value=value).sample(PROMPTS, SAMPLING, seed=1, values=True)
    with torch.no_grad():
        expected = value_outputs(value, rollout.prompts, rollout.completions).values
    assert rollout.values is not None
    assert expected is not None
    assert expected.abs().max() > 0.1
    assert_close(rollout.values, expected, atol=2e-5, rtol=0)


def test_values_come_only_when_asked_and_only_from_the_same_trunk(llama: Any, tiny_tokenizer: Any) -> None:
    own = Role("value", llama, head=value_head())
    elsewhere = Role("value", nn.Linear(1, 1), head=value_head())
    sampling = Sampling(max_new_tokens=3)
    assert sampler(llama, tiny_tokenizer, value=own).sample(PROMPTS, sampling, seed=0).values is None
    assert sampler(llama, tiny_tokenizer, value=elsewhere).sample(PROMPTS, sampling, seed=0, values=True).values is None


def test_bfloat16_with_a_float32_value_head(llama: Any, tiny_tokenizer: Any) -> None:
    half = llama.to(torch.bfloat16)
    rollout = sampler(half, tiny_tokenizer, value=Role("value", half, head=value_head())).sample(
        PROMPTS, Sampling(max_new_tokens=6), seed=1, values=True
    )
    assert rollout.logprobs.dtype == torch.float32
    assert rollout.values is not None
    assert rollout.values.dtype == torch.float32
    assert rollout.values.isfinite().all()


def test_a_prompt_longer_than_the_context(llama: Any, tiny_tokenizer: Any) -> None:
    """Three words and the begin token are 4 tokens; 4 + 125 goes beyond 128 positions by one."""
    ours = sampler(llama, tiny_tokenizer)
    with pytest.raises(GenerationError) as error:
        ours.sample([Prompt("hello"), Prompt("stop the rain")], Sampling(max_new_tokens=125), seed=0)
    assert str(error.value).startswith('prompt "stop the rain…" has 4 tokens and max_new_tokens is 125, but the model')
    assert "128" in str(error.value)
    assert "\n" not in str(error.value)


def test_long_prompts_lose_their_beginning_when_told(llama: Any, tiny_tokenizer: Any) -> None:
    sampling = Sampling(max_new_tokens=2, max_prompt_tokens=3)
    rollout = sampler(llama, tiny_tokenizer).sample([Prompt("stop the rain please")], sampling, seed=0)
    assert tiny_tokenizer.convert_ids_to_tokens(rollout.prompts[0]) == ["<bos>", "rain", "please"]


def test_progress_is_told(llama: Any, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_ROWS", 6)
    told: list[Sequence[int]] = []
    ours = sampler(llama, tiny_tokenizer)
    ours.sample(PROMPTS, SAMPLING, seed=0, on_progress=lambda *numbers: told.append(numbers))
    assert {total for _, total in told} == {15}
    done = [count for count, _ in told]
    assert done == sorted(set(done))
    assert done[-1] == 15
    assert len(done) > 3
