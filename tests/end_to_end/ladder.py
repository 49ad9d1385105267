"""Two problems whose best policy is known in closed form, and the real learners let loose on them.

A string problem: say `length` of `symbols` and be rewarded for the whole string; the reference is uniform. Its optimum
is pi*(y) = e^(R(y) / beta) / sum e^(R / beta), with objective J* = beta log mean e^(R / beta) (J = E[R] - beta KL).
"""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import exp, log
from typing import Any

import torch
from torch import Tensor, nn

from tuneful.algorithms.a2c import A2C, A2CConfig
from tuneful.algorithms.dpo import DPO, DPOConfig
from tuneful.algorithms.grpo import GRPO, GRPOConfig
from tuneful.algorithms.kto import KTO, KTOConfig
from tuneful.algorithms.loop import Learner
from tuneful.algorithms.nlpo import NLPO, NLPOConfig
from tuneful.algorithms.orpo import ORPO, ORPOConfig
from tuneful.algorithms.ppo import PPO, PPOConfig
from tuneful.algorithms.raft import RAFT, RAFTConfig
from tuneful.algorithms.reinforce import Reinforce, ReinforceConfig, RLOOConfig
from tuneful.algorithms.simpo import SimPO, SimPOConfig
from tuneful.algorithms.trpo import TRPO, TRPOConfig
from tuneful.engines.local import LocalEngine
from tuneful.engines.optimization import Optimization
from tuneful.models.forward import policy_outputs
from tuneful.models.q_heads import QHeads
from tuneful.models.roles import Role, Roles, named_weights
from tuneful.records import Comparison, Completion, Prompt, UnpairedPreference

RULED_OUT = -1e4
PROMPT = Prompt("<bos>")


@dataclass(frozen=True)
class StringProblem:
    symbols: str
    length: int
    beta: float
    reward: Callable[[Sequence[str]], float]

    @property
    def strings(self) -> list[tuple[str, ...]]:
        return list(itertools.product(self.symbols, repeat=self.length))

    @property
    def reference_objective(self) -> float:
        return sum(map(self.reward, self.strings)) / len(self.strings)

    @property
    def best_objective(self) -> float:
        return self.beta * log(sum(exp(self.reward(s) / self.beta) for s in self.strings) / len(self.strings))

    def score(self, probabilities: Sequence[float]) -> float:
        """(J - J_ref) / (J* - J_ref) of a policy that says string k with probability `probabilities[k]`."""
        uniform = 1 / len(self.strings)
        objective = sum(
            p * (self.reward(s) - self.beta * log(p / uniform))
            for p, s in zip(probabilities, self.strings, strict=True)
            if p > 0
        )
        return (objective - self.reference_objective) / (self.best_objective - self.reference_objective)


BANDIT = StringProblem("ab", 1, beta=1.0, reward=lambda s: float(s[0] == "a"))
TARGET = "cadb"
TOKEN_MDP = StringProblem("abcde", 4, beta=0.1, reward=lambda s: sum(map(str.__eq__, s, TARGET)) / len(TARGET))


def train_on_policy(name: str, problem: StringProblem, seed: int) -> list[float]:
    """The probability of each string after a learner of `ON_POLICY`, its learning rate annealed to 0."""
    learner_of, config_of, settings = ON_POLICY[name]
    config = config_of(
        **{
            "prompts_per_step": 1,
            "samples_per_prompt": 128,
            "max_new_tokens": problem.length + 1,
            "kl_coef": problem.beta,
            "optimization": Optimization(learning_rate=1e-2),
            "seed": seed,
        }
        | settings(problem)
    )
    engine = engine_for(problem, seed, config.optimization, config.updates)

    def reward(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
        return torch.tensor([problem.reward(c.text.split()) for c in completions])

    learner = learner_of(engine, [PROMPT], reward, config)
    for _ in range(config.num_steps):
        learner.step()
    return string_probabilities(engine, problem)


def of_ppo(problem: StringProblem) -> dict[str, Any]:
    return {"num_steps": 60 if problem.length == 1 else 80, "epochs": 2, "minibatches": 2, "lam": 1.0}


def in_groups(size: int, problem: StringProblem) -> dict[str, Any]:
    """128 completions a step, in groups of `size`."""
    return {
        "num_steps": 240 if problem.length == 1 else 320,
        "prompts_per_step": 128 // size,
        "samples_per_prompt": size,
    }


def of_dr_grpo(problem: StringProblem) -> dict[str, Any]:
    """Its advantages are (G - 1) / G of RLOO's, so the KL weighs as much less."""
    how = {"spread": "none", "averaging": "constant", "kl_coef": problem.beta * 7 / 8}
    return in_groups(8, problem) | how


def of_grpo(size: int, estimator: str, problem: StringProblem) -> dict[str, Any]:
    return in_groups(size, problem) | {"spread": "population", "kl_estimator": estimator, "num_steps": 480}


def of_trpo(problem: StringProblem) -> dict[str, Any]:
    """Steps of .01 nats are too short to arrive among many strings."""
    steps = {"num_steps": 60} if problem.length == 1 else {"num_steps": 150, "max_kl": 0.03}
    return steps | {"lam": 1.0, "value_epochs": 4}


def of_raft(_: StringProblem) -> dict[str, Any]:
    """The best of 8, without a leash: RAFT has no optimum on one."""
    return {"num_steps": 60, "prompts_per_step": 16, "samples_per_prompt": 8, "kl_coef": 0.0}


ON_POLICY: dict[str, tuple[Any, Any, Callable[[StringProblem], dict[str, Any]]]] = {
    "reinforce": (Reinforce, ReinforceConfig, partial(in_groups, 128)),
    "rloo": (Reinforce, RLOOConfig, partial(in_groups, 4)),
    "dr. grpo": (GRPO, GRPOConfig, of_dr_grpo),
    "grpo of 2, k2": (GRPO, GRPOConfig, partial(of_grpo, 2, "k2")),
    "grpo of 8, k2": (GRPO, GRPOConfig, partial(of_grpo, 8, "k2")),
    "grpo of 2, k3": (GRPO, GRPOConfig, partial(of_grpo, 2, "k3")),
    "grpo of 8, k3": (GRPO, GRPOConfig, partial(of_grpo, 8, "k3")),
    "a2c": (A2C, A2CConfig, partial(in_groups, 128)),
    "ppo": (PPO, PPOConfig, of_ppo),
    "nlpo": (NLPO, NLPOConfig, lambda problem: of_ppo(problem) | {"top_p": 1.0}),
    "trpo": (TRPO, TRPOConfig, of_trpo),
    "raft": (RAFT, RAFTConfig, of_raft),
    "raft, by lot": (RAFT, RAFTConfig, lambda problem: of_raft(problem) | {"choice": "random"}),
}
"""Learner, settings and what is set of them for a problem."""


def train_dpo(problem: StringProblem, seed: int, **settings: Any) -> list[float]:
    """The probability of each string after DPO on pairs of reference samples, its learning rate annealed to 0."""
    comparisons = bradley_terry_votes(problem, num_pairs=100 if problem.length == 1 else 2000, num_votes=500, seed=seed)
    epochs = 8 if problem.length > 1 else 50
    config = DPOConfig(beta=problem.beta, pairs_per_step=64, epochs=epochs, **settings, **annealed(seed))
    return trained(problem, seed, config, comparisons, DPO)


def train_orpo(problem: StringProblem, seed: int) -> list[float]:
    comparisons = bradley_terry_votes(problem, num_pairs=100, num_votes=500, seed=seed)
    config = ORPOConfig(pairs_per_step=64, epochs=50, **annealed(seed))
    return trained(problem, seed, config, comparisons, ORPO)


def train_simpo(problem: StringProblem, seed: int) -> list[float]:
    comparisons = bradley_terry_votes(problem, num_pairs=100, num_votes=500, seed=seed)
    config = SimPOConfig(pairs_per_step=64, epochs=50, **annealed(seed))
    return trained(problem, seed, config, comparisons, SimPO)


def train_kto(problem: StringProblem, seed: int) -> list[float]:
    """On uniform strings that are called good with probability sigma(their reward less the reference's mean)."""
    draw = random.Random(seed)
    answers = []
    for _ in range(200):
        said = draw.choice(problem.strings)
        good = 1 / (1 + exp(problem.reference_objective - problem.reward(said)))
        answers.append(UnpairedPreference(PROMPT, " ".join(said), label=draw.random() < good))
    config = KTOConfig(beta=problem.beta, answers_per_step=64, epochs=25, **annealed(seed))
    return trained(problem, seed, config, answers, KTO)


def annealed(seed: int) -> dict[str, Any]:
    """Settings that these learners share."""
    return {"max_grad_norm": 10.0, "optimization": Optimization(learning_rate=1e-2), "seed": seed}


def trained(
    problem: StringProblem, seed: int, config: Any, rows: Sequence[Any], learn: Callable[..., Learner]
) -> list[float]:
    """The probability of each string after a learner's whole run over its rows."""
    num_steps = config.num_steps(len(rows))
    engine = engine_for(problem, seed, config.optimization, num_steps)
    learner = learn(engine, rows, config, engine.tokenizer)
    for _ in range(num_steps):
        learner.step()
    return string_probabilities(engine, problem)


def bradley_terry_votes(problem: StringProblem, *, num_pairs: int, num_votes: int, seed: int) -> list[Comparison]:
    """Pairs of uniform strings, each judged by `num_votes` voters; p is the share of votes for `chosen`."""
    draw = random.Random(seed)
    strings = problem.strings
    comparisons = []
    for _ in range(num_pairs):
        first, second = draw.sample(strings, 2)
        wins = 1 / (1 + exp(problem.reward(second) - problem.reward(first)))
        votes = sum(draw.random() < wins for _ in range(num_votes))
        if 2 * votes < num_votes:
            first, second, votes = second, first, num_votes - votes
        comparisons.append(Comparison(PROMPT, " ".join(first), " ".join(second), p=votes / num_votes))
    return comparisons


def string_probabilities(engine: LocalEngine, problem: StringProblem) -> list[float]:
    """Exact: every string is run through the policy once."""
    assert engine.roles.policy is not None
    ids = engine.tokenizer.convert_tokens_to_ids
    completions = [ids([*string, "<eos>"]) for string in problem.strings]
    with torch.no_grad():
        outputs = policy_outputs(engine.roles.policy, [ids(["<bos>"])] * len(completions), completions)
    assert outputs.logprobs is not None
    probabilities = outputs.logprobs.double().sum(-1).exp()
    torch.testing.assert_close(float(probabilities.sum()), 1.0, atol=1e-5, rtol=0)
    return probabilities.tolist()


def engine_for(
    problem: StringProblem,
    seed: int,
    optimization: Optimization,
    total_steps: int,
    heads: QHeads | None = None,
) -> LocalEngine:
    """A Llama of one layer whose output layer is zero, so that it starts uniform; a frozen copy is the reference."""
    torch.manual_seed(seed)
    model = llama(problem)
    reference = copy.deepcopy(model).requires_grad_(False)
    value_head = nn.Linear(WIDTH + 1, 1)
    nn.init.zeros_(value_head.weight)
    nn.init.zeros_(value_head.bias)
    roles = Roles(
        policy=Role("policy", model, weights=named_weights("policy", model)),
        reference=Role("reference", reference),
        value=Role("value", model, head=value_head, weights=named_weights("value.head", value_head)),
        heads=heads,
    )
    return LocalEngine(roles, tokenizer(problem), optimization=optimization, total_steps=total_steps)


WIDTH = 32


def llama(problem: StringProblem) -> Any:
    """A language model that says exactly `length` symbols and then its end token, which the problem gives for free."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(problem.symbols) + 3,
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=16,
        tie_word_embeddings=False,
    )
    model: Any = LlamaForCausalLM(config).eval()
    model.model.register_forward_hook(_add_position, with_kwargs=True)
    model.lm_head = _EndsOnTime(problem)
    return model


def _add_position(trunk: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
    """Hidden states carry their position as one more channel, for the output layer to read."""
    position_ids = kwargs.get("position_ids")
    states = output.last_hidden_state
    if position_ids is None:
        position_ids = torch.arange(states.shape[1]).expand(states.shape[:2])
    output.last_hidden_state = torch.cat([states, position_ids[..., None].to(states.dtype)], dim=-1)
    return output


class _EndsOnTime(nn.Module):
    """Logits of the symbols, all 0 at the start, and the end token alone once `length` symbols are said."""

    def __init__(self, problem: StringProblem) -> None:
        super().__init__()
        self.length = problem.length
        self.symbols = nn.Linear(WIDTH, len(problem.symbols), bias=False)
        nn.init.zeros_(self.symbols.weight)

    def forward(self, states: Tensor) -> Tensor:
        logits = nn.functional.pad(self.symbols(states[..., :-1]), (0, 3), value=RULED_OUT)
        end = torch.full_like(logits, RULED_OUT)
        end[..., -3] = 0.0
        return torch.where(states[..., -1:] < self.length, logits, end)


def tokenizer(problem: StringProblem) -> Any:
    """One id per symbol, then <eos>, <pad> and <bos>."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate([*problem.symbols, "<eos>", "<pad>", "<bos>"])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=words, eos_token="<eos>", pad_token="<pad>", bos_token="<bos>"
    )
