"""The engine of one process: micro-batches that add up, clipping, checkpoints that prove themselves, KL two ways."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from tuneful.algorithms import ppo, reward_model, sft
from tuneful.engines import local
from tuneful.engines.local import LocalEngine
from tuneful.engines.optimization import Optimization
from tuneful.engines.protocol import Batch, Metrics
from tuneful.errors import CheckError, ConfigError, ModelError, TrainingError
from tuneful.generation.rollout import Rollout
from tuneful.generation.sampling import Sampling
from tuneful.models.adapters import LoRA
from tuneful.models.forward import Outputs
from tuneful.models.llama import is_llama_like
from tuneful.models.loading import load_language_model, load_tokenizer, save_model
from tuneful.models.roles import Role, Roles, named_weights, policy_roles, reward_roles
from tuneful.records import Prompt

PROMPTS = [Prompt.user("hello"), Prompt("how do i cook bread today"), Prompt("why"), Prompt.user("stop the rain now")]
SAMPLING = Sampling(num_samples=2, max_new_tokens=12)
OPTIMIZATION = Optimization(learning_rate=1e-2, schedule="constant")


@pytest.fixture
def wide_dir(tiny_model: Any, tiny_tokenizer: Any, tmp_path: Path) -> Path:
    """The tiny Llama with its weights drawn wide."""
    torch.manual_seed(6)
    for weight in tiny_model.parameters():
        if weight.dim() > 1:
            weight.data.normal_(std=0.2)
    save_model(tiny_model, tiny_tokenizer, tmp_path / "wide")
    return tmp_path / "wide"


def engine(roles: Roles, path: Path, tokens: int = 8_192) -> LocalEngine:
    return LocalEngine(roles, load_tokenizer(path), optimization=OPTIMIZATION, tokens_per_microbatch=tokens)


def gradients(ours: LocalEngine) -> dict[str, Tensor]:
    return {n: w.grad.clone() for n, w in ours.roles.weights().items() if w.grad is not None}


def rows(count: int, seed: int = 0) -> tuple[list[list[int]], list[list[int]]]:
    draw = random.Random(seed)
    return tuple([[draw.randrange(3, 80) for _ in range(draw.randint(1, 9))] for _ in range(count)] for _ in range(2))  # type: ignore[return-value]


class TestRate:
    """Peak 1, two warm-up steps, six steps in all: four steps from the peak down."""

    @pytest.mark.parametrize(
        ("schedule", "expected"),
        [
            ("constant", [0.5, 1, 1, 1, 1, 1]),
            ("linear", [0.5, 1, 1, 0.75, 0.5, 0.25]),
            ("cosine", [0.5, 1, 1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]),
        ],
    )
    def test_by_hand(self, schedule: Any, expected: list[float]) -> None:
        optimization = Optimization(learning_rate=1.0, schedule=schedule, warmup_steps=2)
        assert [optimization.rate(step, 6) for step in range(6)] == pytest.approx(expected)

    def test_a_warm_up_that_would_outlast_the_run_is_a_tenth_of_it(self) -> None:
        """30 steps: three up, at 1/3, 2/3 and 1, then 27 from the peak down."""
        optimization = Optimization(learning_rate=1.0, warmup_steps=150).within(30)
        expected = [1 / 3, 2 / 3, 1, *(1 - k / 27 for k in range(27))]
        assert [optimization.rate(step, 30) for step in range(30)] == pytest.approx(expected)

    @pytest.mark.parametrize(("warmup", "steps"), [(0, 1), (4, 5), (149, 150)])
    def test_any_other_is_kept(self, warmup: int, steps: int) -> None:
        assert Optimization(warmup_steps=warmup).within(steps).warmup_steps == warmup

    @pytest.mark.parametrize("schedule", ["linear", "cosine"])
    def test_it_never_goes_below_zero(self, schedule: Any) -> None:
        optimization = Optimization(learning_rate=1.0, schedule=schedule)
        assert optimization.rate(9, 6) == 0
        assert optimization.rate(6, 6) == pytest.approx(0)

    @pytest.mark.parametrize("rate", [0.0, -1.0, math.nan])
    def test_a_rate_that_cannot_be(self, rate: float) -> None:
        with pytest.raises(ConfigError, match=r"^optimization.learning_rate must be above 0, got "):
            Optimization(learning_rate=rate)

    def test_the_engine_follows_it(self, wide_dir: Path) -> None:
        """Adam's first steps are of the size of the rate: with a warm-up of 4, the first is a quarter of the peak."""
        optimization = Optimization(learning_rate=1e-2, schedule="linear", warmup_steps=4, adam_eps=1e-12)
        ours = LocalEngine(
            policy_roles(wide_dir, with_reference=False),
            load_tokenizer(wide_dir),
            optimization=optimization,
            total_steps=10,
        )
        before = [w.detach().clone() for w in ours.parameters()]
        batch = Batch(role="policy", prompts=[[1, 5, 6]], completions=[[7, 8, 2]])
        ours.forward_backward(batch, nll)
        ours.step(1.0)
        moved = max(float((w.detach() - b).abs().max()) for w, b in zip(ours.parameters(), before, strict=True))
        assert moved == pytest.approx(0.25e-2, rel=1e-3)


class TestAdamW:
    """The update of arXiv 1711.05101, algorithm 2, written out in float64 on the gradients that the engine found."""

    @pytest.mark.parametrize("tokens", [8_192, 16], ids=["one pass", "several"])
    @pytest.mark.parametrize("lora", [None, LoRA(rank=4)], ids=["full", "lora"])
    def test_by_hand(self, wide_dir: Path, lora: LoRA | None, tokens: int) -> None:
        rate, decay, eps, beta1, beta2 = 1e-2, 0.1, 1e-5, 0.9, 0.999
        ours = LocalEngine(
            policy_roles(wide_dir, lora=lora, with_reference=False),
            load_tokenizer(wide_dir),
            optimization=Optimization(learning_rate=rate, schedule="constant", weight_decay=decay, adam_eps=eps),
            tokens_per_microbatch=tokens,
        )
        prompts, completions = rows(7)
        batch = Batch(role="policy", prompts=prompts, completions=completions)
        expected = [w.detach().double() for w in ours.parameters()]
        m, v = ([torch.zeros_like(w) for w in expected] for _ in range(2))
        for t in range(1, 6):
            ours.forward_backward(batch, nll)
            for k, weight in enumerate(ours.parameters()):
                assert weight.grad is not None
                # torch's fused AdamW on a CPU pairs the two by their place in memory, whatever their strides
                assert weight.grad.stride() == weight.stride()
                g = weight.grad.double()
                m[k] = beta1 * m[k] + (1 - beta1) * g
                v[k] = beta2 * v[k] + (1 - beta2) * g * g
                step = (m[k] / (1 - beta1**t)) / ((v[k] / (1 - beta2**t)).sqrt() + eps)
                expected[k] = expected[k] - rate * (step + decay * expected[k])
            ours.step(math.inf)
        for weight, by_hand in zip(ours.parameters(), expected, strict=True):
            assert_close(weight.detach().double(), by_hand, rtol=1e-6, atol=1e-6)


def nll(outputs: Outputs, part: list[int]) -> tuple[Tensor, Metrics]:
    assert outputs.logprobs is not None
    return -outputs.logprobs.sum(), {"rows": float(len(part))}


def sft_case(path: Path) -> tuple[Callable[[int], LocalEngine], Batch, Any]:
    prompts, completions = rows(7)
    num_tokens = sum(map(len, completions))
    batch = Batch(role="policy", prompts=prompts, completions=completions)
    loss = partial(sft.nll_loss, num_tokens=num_tokens)
    return lambda tokens: engine(policy_roles(path, with_reference=False), path, tokens), batch, loss


def pair_case(path: Path) -> tuple[Callable[[int], LocalEngine], Batch, Any]:
    """Three prompts of 3, 2 and 4 completions; the pairs of one prompt are one unit."""
    groups = []
    for k, size in enumerate((3, 2, 4)):
        prompts, completions = rows(size, seed=k)
        pairs = [(a, b) for a in range(size) for b in range(a + 1, size)]
        groups.append(
            reward_model.PromptPairs(
                prompts=[prompts[0]] * size,
                completions=completions,
                chosen=[a for a, _ in pairs],
                rejected=[b for _, b in pairs],
                p=[0.6 + 0.05 * n for n in range(len(pairs))],
                weight=[1 / len(pairs)] * len(pairs),
                margin=[0.1 * n for n in range(len(pairs))],
            )
        )
    units = [u for u, group in enumerate(groups) for _ in group.completions]
    batch = Batch(
        role="reward",
        prompts=[p for g in groups for p in g.prompts],
        completions=[c for g in groups for c in g.completions],
        units=units,
    )
    places = reward_model.Places(units, {u: units.index(u) for u in range(3)})
    loss = partial(reward_model.pair_loss, groups=groups, places=places, center_coef=0.01)
    return lambda tokens: engine(reward_roles(path), path, tokens), batch, loss


def ppo_case(path: Path, lora: LoRA | None = None, value: Any = "head") -> tuple[Any, Batch, Any]:
    prompts, completions = rows(7)
    prompts[1] = prompts[4] = prompts[0]  # samples of one prompt
    mask = torch.tensor([[t < len(c) for t in range(9)] for c in completions])
    torch.manual_seed(3)
    experience = ppo.Experience(*(torch.randn(5, 7, 9) * mask), mask)
    config = ppo.PPOConfig(entropy_coef=0.01)
    loss = partial(ppo.ppo_loss, experience=experience, rows=list(range(7)), config=config, num_tokens=int(mask.sum()))
    batch = Batch(role="policy", prompts=prompts, completions=completions, width=9, with_values=True, entropy_grad=True)

    def build(tokens: int) -> LocalEngine:
        roles = policy_roles(path, lora=lora, value=value)
        assert roles.value is not None
        assert roles.value.head is not None
        nn.init.constant_(roles.value.head.weight, 0.05)
        return engine(roles, path, tokens)

    return build, batch, loss


CASES: dict[str, Callable[[Path], Any]] = {
    "sft": sft_case,
    "pairs": pair_case,
    "ppo": ppo_case,
    "ppo, adapters": partial(ppo_case, lora=LoRA(rank=4)),
    "ppo, value adapter": partial(ppo_case, lora=LoRA(rank=4), value="adapter"),
}


@pytest.mark.parametrize("case", CASES)
def test_microbatches_and_padding_do_not_move_the_gradient(wide_dir: Path, case: str) -> None:
    """All rows in one pass, a few, one by one; without padding, or padded in transformers' own pass."""
    build, batch, loss = CASES[case](wide_dir)
    engines = [build(tokens) for tokens in (100_000, 40, 1, 100_000, 40)]
    for padded in engines[3:]:
        role = padded.roles.policy or padded.roles.reward
        role.model.base_model.register_forward_hook(lambda *_: None)  # a model with hooks runs as it is
        assert not is_llama_like(role.model)
    metrics = [ours.forward_backward(batch, loss) for ours in engines]
    expected = gradients(engines[0])
    assert 1e-3 < max(float(gradient.abs().max()) for gradient in expected.values()) < 0.5
    for ours, found in zip(engines[1:], metrics[1:], strict=True):
        theirs = gradients(ours)
        assert theirs.keys() == expected.keys()
        for name, gradient in expected.items():
            assert_close(theirs[name], gradient, atol=2e-5 * float(gradient.abs().max()), rtol=1e-5)  # below 1e-5
        assert found == pytest.approx(metrics[0], abs=1e-5, rel=1e-5)


def test_a_value_adapter_leaves_the_policys_gradient_whole(wide_dir: Path) -> None:
    """Both adapters and the head learn from the one backward pass of a PPO step."""
    build, batch, loss = ppo_case(wide_dir, LoRA(rank=4), "adapter")
    ours = build(40)
    ours.forward_backward(batch, loss)
    silent = [n for n, w in ours.roles.weights().items() if "lora_A" not in n and (w.grad is None or not w.grad.any())]
    assert silent == []


@pytest.mark.parametrize("tokens", [1, 30, 60, 100_000])
def test_units_are_never_split(wide_dir: Path, tokens: int) -> None:
    prompts, completions = rows(12)
    units = [0, 1, 2, 0, 1, 2, 3, 3, 3, 4, 5, 4]
    seen: list[list[int]] = []

    def look(outputs: Outputs, part: list[int]) -> tuple[Tensor, Metrics]:
        seen.append(part)
        return nll(outputs, part)

    ours = engine(policy_roles(wide_dir, with_reference=False), wide_dir, tokens)
    batch = Batch(role="policy", prompts=prompts, completions=completions, units=units)
    assert ours.forward_backward(batch, look)["rows"] == 12
    assert sorted(row for part in seen for row in part) == list(range(12))
    for unit in set(units):
        assert sum(any(units[row] == unit for row in part) for part in seen) == 1
    assert len(seen) == (6 if tokens == 1 else 1 if tokens == 100_000 else len(seen))


def test_outputs_belong_to_the_rows_named(wide_dir: Path) -> None:
    prompts, completions = rows(9)
    batch = Batch(role="policy", prompts=prompts, completions=completions, width=9)

    def collected(tokens: int) -> Tensor:
        found = torch.zeros(9, 9)

        def look(outputs: Outputs, part: list[int]) -> tuple[Tensor, Metrics]:
            assert outputs.logprobs is not None
            assert [int(m.sum()) for m in outputs.mask] == [len(completions[row]) for row in part]
            found[part] = outputs.logprobs.detach()
            return nll(outputs, part)

        engine(policy_roles(wide_dir, with_reference=False), wide_dir, tokens).forward_backward(batch, look)
        return found

    assert_close(collected(25), collected(100_000), atol=1e-5, rtol=0)


def test_the_gradient_is_clipped_to_the_norm(wide_dir: Path) -> None:
    """The norm returned is that before clipping; SGD in Adam's place shows the size of what was applied."""
    ours = engine(policy_roles(wide_dir, with_reference=False), wide_dir)
    ours._adamw = torch.optim.SGD(ours.parameters(), lr=1.0)  # type: ignore[assignment]
    ours.optimization = Optimization(learning_rate=1.0, schedule="constant")
    for max_norm in (0.5, 1e6):
        before = [w.detach().clone() for w in ours.parameters()]
        ours.forward_backward(Batch(role="policy", prompts=[[1, 5, 6]], completions=[[7, 8, 2]]), nll)
        norm = math.sqrt(sum(float(w.grad.square().sum()) for w in ours.parameters() if w.grad is not None))
        assert ours.step(max_norm) == pytest.approx(norm, rel=1e-5)
        moved = math.sqrt(
            sum(float((w - b).detach().square().sum()) for w, b in zip(ours.parameters(), before, strict=True))
        )
        assert moved == pytest.approx(min(norm, max_norm), rel=1e-3)
    assert ours.updates == 2


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_refused(wide_dir: Path, value: float) -> None:
    """One such number in one gradient: weights and optimizer stay, and the next update is that of an untouched run."""
    batch = Batch(role="policy", prompts=[[1, 5, 6]], completions=[[7, 8, 2]])
    ours, untouched = (engine(policy_roles(wide_dir, with_reference=False), wide_dir) for _ in range(2))
    for one in (ours, untouched):
        one.forward_backward(batch, nll)
        one.step(1.0)
    ours.forward_backward(batch, nll)
    gradient = ours.parameters()[-1].grad
    assert gradient is not None
    gradient.view(-1)[0] = value
    with pytest.raises(TrainingError) as error:
        ours.step(1.0)
    assert str(error.value) == (
        f"update 2: the gradient's norm is {value} at learning rate 0.01, so no weight was changed; run with a lower "
        "optimization.learning_rate and a new --out (the old one goes on from its last checkpoint, with the same "
        "recipe only)"
    )
    assert ours.updates == 1
    assert all(weight.grad is None for weight in ours.parameters())
    assert ours.weight_hash() == untouched.weight_hash()
    for one in (ours, untouched):
        one.forward_backward(batch, nll)
        one.step(1.0)
    assert ours.weight_hash() == untouched.weight_hash()


@pytest.mark.parametrize("lora", [None, LoRA(rank=4)])
class TestCheckpoint:
    BATCH = Batch(role="policy", prompts=[[1, 5, 6], [1, 9]], completions=[[7, 8, 2], [11]])

    def build(self, path: Path, lora: LoRA | None, seed: int = 0) -> LocalEngine:
        return engine(policy_roles(path, lora=lora, value="head", seed=seed), path)

    def advance(self, ours: LocalEngine, steps: int) -> list[float]:
        found = []
        for _ in range(steps):
            ours.forward_backward(self.BATCH, nll)
            found.append(ours.step(1.0))
            ours.publish_weights()
        return found

    @pytest.fixture
    def saved(self, wide_dir: Path, tmp_path: Path, lora: LoRA | None) -> tuple[LocalEngine, Path]:
        ours = self.build(wide_dir, lora)
        self.advance(ours, 3)
        folder = tmp_path / "checkpoint"
        folder.mkdir()
        ours.save(folder)
        return ours, folder

    def test_a_loaded_engine_goes_on_bitwise(
        self, saved: tuple[LocalEngine, Path], wide_dir: Path, lora: LoRA | None
    ) -> None:
        ours, folder = saved
        again = self.build(wide_dir, lora, seed=5)
        again.load(folder)
        assert (again.updates, again.version) == (3, 3)
        assert again.weight_hash() == ours.weight_hash()
        assert self.advance(again, 3) == self.advance(ours, 3)
        for name, weight in ours.roles.weights().items():
            assert torch.equal(again.roles.weights()[name], weight), name
        for one, other in zip(ours._optimizer.state.values(), again._optimizer.state.values(), strict=True):
            assert all(torch.equal(one[key], other[key]) for key in ("step", "exp_avg", "exp_avg_sq"))

    def test_a_tampered_weight(self, saved: tuple[LocalEngine, Path], wide_dir: Path, lora: LoRA | None) -> None:
        _, folder = saved
        state = torch.load(folder / "engine.pt", weights_only=True)
        with torch.no_grad():
            next(iter(state["weights"].values())).view(-1)[0] += 1e-3
        torch.save(state, folder / "engine.pt")
        with pytest.raises(CheckError) as error:
            self.build(wide_dir, lora).load(folder)
        assert str(error.value) == (
            f"{folder}: the loaded weights are not those that were saved; remove this checkpoint"
        )

    def test_other_rows_than_were_stored(
        self, saved: tuple[LocalEngine, Path], wide_dir: Path, lora: LoRA | None
    ) -> None:
        _, folder = saved
        probe = torch.load(folder / "probe.pt", weights_only=True)
        probe["numbers"][0, 0] += 1e-2
        torch.save(probe, folder / "probe.pt")
        with pytest.raises(CheckError, match=r"stored rows now score 1\.0e-02 away from what they did"):
            self.build(wide_dir, lora).load(folder)

    def test_weights_of_another_recipe(
        self, saved: tuple[LocalEngine, Path], wide_dir: Path, lora: LoRA | None
    ) -> None:
        _, folder = saved
        other = engine(policy_roles(wide_dir, lora=None if lora else LoRA(), value="head"), wide_dir)
        with pytest.raises(CheckError) as error:
            other.load(folder)
        assert str(error.value) == (
            f"{folder}: the checkpoint holds other weights than this run trains; use the same recipe"
        )

    def test_before_any_update(self, wide_dir: Path, tmp_path: Path, lora: LoRA | None) -> None:
        self.build(wide_dir, lora).save(tmp_path)
        assert json.loads((tmp_path / "engine.json").read_text())["updates"] == 0
        self.build(wide_dir, lora, seed=5).load(tmp_path)


def test_what_the_optimizer_keeps_is_loaded_beside_its_weight(
    wide_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its count of steps too, as `Optimizer.load_state_dict` has it for a fused AdamW; `meta` stands for a card."""
    ours = engine(policy_roles(wide_dir, with_reference=False), wide_dir)
    ours.forward_backward(TestCheckpoint.BATCH, nll)
    ours.step(1.0)
    ours._probe = None
    ours.save(tmp_path)
    model = load_language_model(wide_dir).to("meta")
    model.tie_weights()
    elsewhere = engine(Roles(policy=Role("policy", model, weights=named_weights("policy", model))), wide_dir)
    elsewhere._adamw = torch.optim.AdamW(elsewhere.parameters())
    monkeypatch.setattr(elsewhere, "weight_hash", ours.weight_hash)
    elsewhere.load(tmp_path)
    kept = [number for moments in elsewhere._optimizer.state.values() for number in moments.values()]
    assert len(kept) == 3 * len(elsewhere.parameters())
    assert {number.device.type for number in kept} == {"meta"}


def test_another_base_under_the_same_adapter_is_seen(wide_dir: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    """The adapter's hash is right; what it computes on another base is not."""
    batch = Batch(role="policy", prompts=[[1, 5, 6]], completions=[[7, 8, 2]])
    ours = engine(policy_roles(wide_dir, lora=LoRA(rank=4)), wide_dir)
    ours.forward_backward(batch, nll)
    ours.step(1.0)
    ours.save(tmp_path)
    other = engine(policy_roles(tiny_model_dir, lora=LoRA(rank=4)), tiny_model_dir)
    with pytest.raises(CheckError, match=r"stored rows now score .* away from what they did; other base model"):
        other.load(tmp_path)


def test_in_half_precision_the_mean_of_stored_rows_is_judged(wide_dir: Path, tmp_path: Path) -> None:
    """One token of seven is .124 off, as much as was measured where nothing was wrong; then all are .06 off."""

    def build() -> LocalEngine:
        return engine(policy_roles(wide_dir, lora=LoRA(rank=4), with_reference=False, dtype="bfloat16"), wide_dir)

    ours = build()
    completions = [[7, 8, 9, 10, 2], [11, 2]]
    ours.forward_backward(Batch(role="policy", prompts=[[1, 5, 6], [1, 9]], completions=completions), nll)
    ours.step(1.0)
    ours.save(tmp_path)
    probe = torch.load(tmp_path / "probe.pt", weights_only=True)
    stored = probe["numbers"].clone()
    probe["numbers"][0, 0] += 0.124
    torch.save(probe, tmp_path / "probe.pt")
    build().load(tmp_path)
    for row, completion in enumerate(completions):
        probe["numbers"][row, : len(completion)] = stored[row, : len(completion)] + 0.06
    torch.save(probe, tmp_path / "probe.pt")
    with pytest.raises(CheckError, match=r"stored rows now score 6\.0e-02 away from what they did"):
        build().load(tmp_path)


def test_a_reward_checkpoint(wide_dir: Path, tmp_path: Path) -> None:
    build, batch, loss = pair_case(wide_dir)
    ours = build(100_000)
    ours.forward_backward(batch, loss)
    ours.step(1.0)
    ours.save(tmp_path)
    again = build(100_000)
    again.load(tmp_path)
    assert again.weight_hash() == ours.weight_hash()


def drifted(path: Path) -> tuple[LocalEngine, Rollout]:
    """A policy that left its reference, and what it says at temperature .8."""
    ours = engine(policy_roles(path, lora=LoRA(rank=4), value="head"), path)
    torch.manual_seed(2)
    for name, weight in ours.roles.weights().items():
        if "lora_B" in name:
            weight.data.normal_(std=0.1)
    return ours, ours.sample(PROMPTS, Sampling(num_samples=2, max_new_tokens=12, temperature=0.8), seed=1)


@torch.no_grad()
def plain(ours: LocalEngine, name: str, prompt: list[int], completion: list[int]) -> Tensor:
    """Logprobs [T, V] at temperature .8 by the model's own forward."""
    role = getattr(ours.roles, name)
    role.activate()
    logits: Tensor = role.model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
    return (logits / 0.8).log_softmax(-1)


class TestScoresAndKL:
    def test_scores_of_each_role(self, wide_dir: Path) -> None:
        ours, rollout = drifted(wide_dir)
        assert_close(ours.score("policy", rollout), rollout.logprobs, atol=2e-5, rtol=0)
        reference = ours.score("reference", rollout)
        assert reference.shape == rollout.mask.shape
        assert not reference.requires_grad
        for k, completion in enumerate(rollout.completions):
            logprobs = plain(ours, "reference", rollout.prompts[k], completion)
            expected = logprobs.gather(-1, torch.tensor(completion)[:, None]).squeeze(-1)
            assert_close(reference[k, : len(completion)], expected, atol=2e-5, rtol=0)
        assert not ours.score("value", rollout).any()

    def test_scores_do_not_depend_on_microbatches(self, wide_dir: Path) -> None:
        ours, rollout = drifted(wide_dir)
        whole = ours.score("reference", rollout)
        ours.tokens_per_microbatch = 20
        assert_close(ours.score("reference", rollout), whole, atol=1e-5, rtol=0)

    def test_exact_kl_is_the_sum_over_the_vocabulary(self, wide_dir: Path) -> None:
        ours, rollout = drifted(wide_dir)
        kl, estimator = ours.kl(rollout)
        assert estimator == "exact"
        for k, completion in enumerate(rollout.completions):
            p, q = (plain(ours, name, rollout.prompts[k], completion) for name in ("policy", "reference"))
            expected = (p.exp() * (p - q)).sum()
            assert expected > 0.01
            assert_close(kl[k], expected, atol=1e-4, rtol=1e-4)

    def test_beyond_the_vocabulary_it_is_k1(self, wide_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        ours, rollout = drifted(wide_dir)
        monkeypatch.setattr(local, "EXACT_KL_VOCABULARY", 80)
        kl, estimator = ours.kl(rollout)
        assert estimator == "k1"
        assert_close(kl, (rollout.logprobs - ours.score("reference", rollout)).sum(-1), atol=1e-4, rtol=0)
        monkeypatch.setattr(local, "EXACT_KL_VOCABULARY", 81)
        assert ours.kl(rollout)[1] == "exact"

    def test_it_is_zero_at_the_start_and_for_a_greedy_rollout_too(self, wide_dir: Path) -> None:
        ours = engine(policy_roles(wide_dir, lora=LoRA(rank=4)), wide_dir)
        for temperature in (1.0, 0.0):
            rollout = ours.sample(PROMPTS, Sampling(max_new_tokens=6, temperature=temperature), seed=0)
            assert not ours.kl(rollout)[0].any()
            assert ours.score("policy", rollout).isfinite().all()

    def test_the_reference_samples_like_the_untrained_policy(self, wide_dir: Path) -> None:
        ours, _ = drifted(wide_dir)
        fresh = engine(policy_roles(wide_dir, with_reference=False), wide_dir)
        reference = ours.as_reference().sample(PROMPTS, SAMPLING, seed=4)
        assert reference.completions == fresh.sample(PROMPTS, SAMPLING, seed=4).completions
        assert reference.completions != ours.sample(PROMPTS, SAMPLING, seed=4).completions


def test_versions(wide_dir: Path) -> None:
    ours = engine(policy_roles(wide_dir, with_reference=False), wide_dir)
    assert ours.sample(PROMPTS[:1], SAMPLING, seed=0).version.tolist() == [0, 0]
    assert ours.publish_weights() == 1
    assert ours.sample(PROMPTS[:1], SAMPLING, seed=0).version.tolist() == [1, 1]


def test_a_role_that_is_not_there(wide_dir: Path) -> None:
    ours = engine(policy_roles(wide_dir, with_reference=False), wide_dir)
    rollout = ours.sample(PROMPTS[:1], Sampling(max_new_tokens=2), seed=0)
    with pytest.raises(ConfigError) as error:
        ours.score("reference", rollout)
    assert str(error.value) == "this engine was built without a reference"


def test_an_engine_that_trains_nothing(wide_dir: Path, tmp_path: Path) -> None:
    ours = engine(policy_roles(wide_dir, lora=LoRA()), wide_dir).as_reference()
    with pytest.raises(ConfigError) as error:
        ours.save(tmp_path)
    assert str(error.value) == "this engine trains no role"


def test_bfloat16_samples_scores_and_learns(wide_dir: Path) -> None:
    ours = engine(policy_roles(wide_dir, lora=LoRA(rank=4), dtype="bfloat16", value="head"), wide_dir)
    rollout = ours.sample(PROMPTS, SAMPLING, seed=1, values=True)
    assert (ours.score("policy", rollout) - rollout.logprobs).abs().max() < 0.2
    batch = Batch(role="policy", prompts=rollout.prompts, completions=rollout.completions, with_values=True)
    before = ours.weight_hash()
    ours.forward_backward(batch, nll)
    assert math.isfinite(ours.step(1.0))
    assert ours.weight_hash() != before


def test_frozen_weights_are_not_trained_in_silence(wide_dir: Path) -> None:
    ours = engine(policy_roles(wide_dir, value="head"), wide_dir)
    rollout = ours.sample(PROMPTS, SAMPLING, seed=1, values=True)
    batch = Batch(role="policy", prompts=rollout.prompts, completions=rollout.completions, with_values=True)
    ours.roles.policy.weights["policy.model.norm.weight"].requires_grad_(False)
    ours.forward_backward(batch, nll)
    with pytest.raises(TrainingError, match="1 weights that are to be trained are frozen, the first is policy"):
        ours.step(1.0)


def test_a_tokenizer_of_more_tokens_than_the_model_embeds(wide_dir: Path) -> None:
    tokenizer = load_tokenizer(wide_dir)
    tokenizer.add_tokens([f"<new{k}>" for k in range(100)])
    with pytest.raises(ModelError, match=r"tokens and the policy .* embeds \d+; use the tokenizer it was trained with"):
        LocalEngine(policy_roles(wide_dir), tokenizer)
