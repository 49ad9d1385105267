"""What a training run will hold in memory at its peak, reckoned from shapes before it starts.

One of the phases of a step, sampling, scoring or updating, is the peak; each holds the weights, and what follows.

Updating holds the activations of one micro-batch, layer by layer: what the backward pass of the layer reads. Of a token
a layer of hidden size d, feed-forward size f, q query and k key numbers (heads x their width) keeps, in float32 with
adapters or all weights trained (models/llama.py, functional/layers.py, _Adapted in models/adapters.py),

    4 d + 3 q + 2 k + 3 f   numbers:   inputs and outputs of both norms; queries, and what they read, as attention has
                                       it and as the next product does; keys and values; the three of the MLP.

where attention is that of padded rows, whose padding counts; rows that attend alone (functional/attention.py) keep 2 q.
In half precision and 4 bits, where each adapter reads a float32 copy of its layer's input, it keeps

    24 d + 8 q + 4 k + 8 f  bytes, and 4 for each of the 7 ranks.

The last layer asks prompts for keys and values alone and lets go of them: of the others it keeps what queries are made
of beside what all keys and values are made of. For a reward it lets go of all but one token of a row.
`recompute_layers` keeps d numbers a layer, and one layer in full. The head adds logits in parts, never
[tokens, vocabulary], in float32 whatever the model is.

Llama-like models run in a pass of our own, and so the plan of theirs is close; for others it is rough, since what
transformers' modules keep differs from family to family.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from tuneful.data.batching import token_budget_batches
from tuneful.engines.sharding import own_part
from tuneful.functional.head import tokens_compared, tokens_together
from tuneful.functional.precision import WIDENED_AT_ONCE
from tuneful.generation.decoding import rows_together
from tuneful.generation.llama_decoding import PREFILL_TOKENS
from tuneful.models.llama import attends_alone, is_llama_like
from tuneful.models.loading import Dtype
from tuneful.models.roles import Role

FLOAT = 4
"""Bytes of a float32 number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of a model."""

    vocabulary: int
    hidden: int
    feed_forward: int
    layers: int
    heads: int
    queries: int
    """Numbers of a token's queries: heads x their width."""
    keys: int
    """Numbers of a token's keys: fewer where several heads share them."""
    tied: bool = True
    """Whether the head is the embedding."""

    @classmethod
    def of(cls, config: Any) -> Shape:
        """From transformers' config of any family."""
        text = config.get_text_config()
        heads, hidden = text.num_attention_heads, text.hidden_size
        width = getattr(text, "head_dim", None) or hidden // heads
        inner = next((n for name in ("intermediate_size", "d_ff", "n_inner") if (n := getattr(text, name, None))), None)
        both = text.num_hidden_layers + (getattr(text, "num_decoder_layers", None) or 0)
        return cls(
            vocabulary=text.vocab_size,
            hidden=hidden,
            feed_forward=inner or 4 * hidden,
            layers=both,
            heads=heads,
            queries=heads * width,
            keys=(getattr(text, "num_key_value_heads", None) or heads) * width,
            tied=bool(text.tie_word_embeddings),
        )

    @property
    def linears(self) -> int:
        """Weights of the linear layers of one layer of a Llama-like model."""
        return 2 * self.hidden * (self.queries + self.keys) + 3 * self.hidden * self.feed_forward

    def weights(self, dtype: Dtype = "float32") -> int:
        """Bytes of a Llama-like model's weights, without norms and biases.

        nf4 holds the linear layers in half a byte and, double quantized, a byte per 64 and a float per 64 x 256.
        """
        trunk, ends = self.layers * self.linears, (1 if self.tied else 2) * self.vocabulary * self.hidden
        if dtype == "nf4":
            return round(trunk * (1 / 2 + 1 / 64 + FLOAT / (64 * 256))) + 2 * ends
        return (trunk + ends) * (FLOAT if dtype == "float32" else 2)

    def adapter(self, rank: int) -> int:
        """Weights of an adapter on every linear layer of a Llama-like model."""
        ends = 2 * (self.hidden + self.queries) + 2 * (self.hidden + self.keys) + 3 * (self.hidden + self.feed_forward)
        return self.layers * rank * ends

    def cache(self, itemsize: int) -> int:
        """Bytes of a token's keys and values while it is sampled."""
        return 2 * self.layers * self.keys * itemsize


@dataclass(frozen=True, slots=True)
class Row:
    """Tokens of a prompt and its completion; rows of an equal `group` have an equal prompt."""

    prompt: int
    completion: int
    group: Hashable


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What a pass over some rows (models/ragged.py) sees: real tokens, and the padded places of attention."""

    rows: int
    prefix: int
    own: int
    prefix_places: int
    own_places: int
    key_places: int
    seen: int
    """Cells of the mask: the keys of each own place."""

    @classmethod
    def of(cls, rows: Sequence[Row], *, predicting: bool) -> Tokens:
        """predicting: each completion's last token is left out."""
        prefixes = list({row.group: row.prompt - 1 for row in rows}.values())
        own = [row.completion + (0 if predicting else 1) for row in rows]
        keys = len(rows) * (max(prefixes) + max(own))
        return cls(
            rows=len(rows),
            prefix=sum(prefixes),
            own=sum(own),
            prefix_places=len(prefixes) * max(prefixes),
            own_places=len(rows) * max(own),
            key_places=keys,
            seen=keys * max(own),
        )

    @property
    def all(self) -> int:
        """Real tokens."""
        return self.prefix + self.own


@dataclass(frozen=True, slots=True)
class Frame:
    """A part of a pass: what it keeps for its backward pass, what stands beside that meanwhile, its new gradient."""

    kept: int
    beside: int
    gradient: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """A model's pass over a micro-batch in one role."""

    shape: Shape
    itemsize: int = FLOAT
    rank: int = 0
    """Of its adapter; 0: none."""
    trains_all: bool = False
    recompute: bool = False
    ends_only: bool = False
    """Only each row's last token is read, as of a reward."""
    speaks: bool = True
    """Whether the states go into the language model's head."""
    entropy_grad: bool = False
    ours: bool = True
    on_cpu: bool = False

    @classmethod
    def of(cls, role: Role, **settings: Any) -> Pass:
        """Of a role in memory."""
        model = role.model
        ranks = [weight.shape[0] for name, weight in role.weights.items() if "lora_A" in name]
        return cls(
            shape=Shape.of(model.config),
            itemsize=model.dtype.itemsize,
            rank=ranks[0] if ranks else 0,
            trains_all=any(weight is model.get_input_embeddings().weight for weight in role.weights.values()),
            recompute=role.recompute,
            ours=is_llama_like(model),
            on_cpu=model.device.type == "cpu",
            **settings,
        )

    def tokens(self, rows: Sequence[Row], *, predicting: bool) -> Tokens:
        """What it sees of some rows; the pass of another family reads a prompt once for each."""
        alone = [replace(row, group=k) for k, row in enumerate(rows)]
        return Tokens.of(rows if self.ours else alone, predicting=predicting)

    def frames(self, tokens: Tokens) -> list[Frame]:
        """Its parts in the order in which they run, with gradient."""
        whole = [self._layer(tokens, last=number + 1 == self.shape.layers) for number in range(self.shape.layers)]
        if self.recompute:
            kept = tokens.all * self.shape.hidden * self.itemsize
            whole = [Frame(kept, frame.kept - kept + frame.beside, frame.gradient) for frame in whole]
        embedding = FLOAT * self.shape.vocabulary * self.shape.hidden * self.trains_all
        shared = self.speaks and self.shape.tied  # its gradient is there already, from the head
        return [Frame(0, embedding, 0 if shared else embedding), *whole, self._head(tokens)]

    def per_token(self, length: int = 1_024) -> int:
        """Bytes that the layers keep of each token of a row of `length` tokens."""
        return (
            self._layer(Tokens.of([Row(1, length, 0)], predicting=True), last=False).kept * self.shape.layers // length
        )

    def no_grad(self, tokens: Tokens) -> int:
        """The most that it holds without gradient."""
        s = self.shape
        every = tokens.all
        if self.itemsize == FLOAT:
            layer = every * FLOAT * (4 * s.hidden + 2 * (s.queries + s.keys) + 3 * s.feed_forward)
            layer += FLOAT * s.hidden * s.feed_forward * (self.rank > 0)
        else:
            outer = self.itemsize * (4 * s.hidden + 2 * (s.queries + s.keys))
            layer = every * (outer + FLOAT * s.hidden + 4 * FLOAT * s.feed_forward)
        return max(layer, tokens.own * s.hidden * self.itemsize + self._logits(tokens, 3))

    def _layer(self, tokens: Tokens, *, last: bool) -> Frame:
        s, b = self.shape, self.itemsize
        every = tokens.all
        after = (tokens.rows if self.ends_only else tokens.own) if last and self.ours else every
        apart = tokens.own if last and self.ours else 0  # whose queries are made from a copy of their input
        asking = apart or every
        if self._alone(tokens):
            kept = b * (asking * s.queries + 2 * every * s.keys)
        else:
            prefixes = 0 if last and self.ours else tokens.prefix_places
            places = tokens.own_places + prefixes
            kept = b * 2 * (places * s.queries + (tokens.key_places + prefixes) * s.keys) + b * tokens.seen
            kept += FLOAT * places * s.heads
        if self.rank and b < FLOAT:
            kept += every * b * s.hidden + (2 * every + asking) * FLOAT * (s.hidden + self.rank)
            kept += after * (b * (s.hidden + 2 * s.feed_forward))
            kept += after * FLOAT * (s.queries + 2 * s.hidden + s.feed_forward + 4 * self.rank)
            beside = after * (2 * b * s.hidden + 3 * FLOAT * s.feed_forward)
        else:
            kept += (2 * every + apart) * b * s.hidden + after * b * (s.queries + 2 * s.hidden + 3 * s.feed_forward)
            beside = after * b * (2 * s.hidden + 3 * s.feed_forward)
        return Frame(kept, beside, FLOAT * s.linears * self.trains_all)

    def _alone(self, tokens: Tokens) -> bool:
        return self.ours and attends_alone(tokens.all, tokens.rows, on_cpu=self.on_cpu, itemsize=self.itemsize)

    def _head(self, tokens: Tokens) -> Frame:
        """Last norm and head."""
        s = self.shape
        read = tokens.rows if self.ends_only else tokens.own
        kept = read * s.hidden * 2 * self.itemsize
        if not self.speaks:
            return Frame(kept, 2 * read * s.hidden * self.itemsize)
        logits = self._logits(tokens, 5 if self.entropy_grad else 3)
        gradient = FLOAT * s.vocabulary * s.hidden * self.trains_all
        return Frame(kept, read * s.hidden * self.itemsize + logits + 2 * gradient, gradient)

    def _logits(self, tokens: Tokens, copies: int) -> int:
        """Logits of one part, and what stands beside them."""
        if not self.speaks:
            return 0
        part = min(tokens_together(self.shape.vocabulary), tokens.own)
        return self.logits(part, copies)

    def logits(self, rows: int, copies: float, *, made: int = 1) -> int:
        """So many `copies` of the logits of some tokens, or those `made` first and what stands beside their making:
        on a CPU a head in half precision reads float32 copies of the states, and of its weights in parts."""
        wide = self.on_cpu and self.itemsize < FLOAT
        beside = (rows * self.shape.hidden + WIDENED_AT_ONCE) * wide
        one = rows * self.shape.vocabulary
        return FLOAT * max(round(copies * one), made * one + beside)


Parts = Mapping[str, int]
"""Bytes by what they are for."""


def total(parts: Parts) -> int:
    """Bytes of all parts."""
    return sum(parts.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run holds: `always`, and in each phase what comes to it; the largest of these sums is its peak."""

    always: Parts
    phases: Mapping[str, Parts]
    rough: bool = False
    """For a family whose pass is not our own."""

    @property
    def phase(self) -> str:
        """The one that needs most."""
        return max(self.phases, key=lambda name: total(self.phases[name]))

    @property
    def parts(self) -> Parts:
        """Of the peak."""
        return {**self.always, **self.phases[self.phase]}

    @property
    def peak(self) -> int:
        """Bytes."""
        return total(self.parts)


def held(roles: Iterable[Role | None], *, trained: Sequence[int], beside: Iterable[Tensor] = ()) -> Parts:
    """The weights of the distinct models behind `roles`, each storage once, and AdamW's two moments of those trained.

    trained: how many numbers each trained tensor has. beside: weights that are in none of these models.
    """
    modules = [module for role in roles if role is not None for module in (role.model, role.head) if module is not None]
    tensors = [*(tensor for module in modules for tensor in _tensors(module)), *beside]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return {"weights": sum(storages.values()), "optimizer": 2 * FLOAT * sum(trained)}


def updating(
    passes: Sequence[Pass],
    rows: Sequence[Row],
    *,
    trained: Sequence[int],
    tokens_per_microbatch: int,
    units: Sequence[int] | None = None,
    sent: int = 0,
) -> Parts:
    """The most that an optimizer step over `rows` takes, cut into micro-batches as the engine cuts them.

    passes: those of one micro-batch, in their order; all keep their activations until the first runs backwards.
    trained: how many numbers each trained tensor has. sent: those whose gradients then go into a message to other
    ranks.
    """
    batches = _batches(rows, tokens_per_microbatch, units)
    gradients = FLOAT * sum(trained)
    before = gradients if len(batches) > 1 else 0
    peak: Parts = {"gradients": gradients + FLOAT * sent, "activations": 0}
    for batch in batches:
        frames = [
            frame
            for one in passes
            for frame in one.frames(one.tokens([rows[i] for i in batch], predicting=one.speaks or not one.ends_only))
        ]
        peak = max(peak, _backward(frames, before), key=total)
    return peak


def _backward(frames: Sequence[Frame], before: int) -> Parts:
    """The most while `frames` run backwards, the last first. before: all gradients, of earlier micro-batches."""
    kept = sum(frame.kept for frame in frames)
    gradients, peak = before, {"gradients": 0, "activations": 0}
    for frame in reversed(frames):
        now = {"gradients": gradients, "activations": kept + frame.beside}
        peak = max(peak, now, key=total)
        kept -= frame.kept
        gradients += 0 if before else frame.gradient
    return peak


def _batches(rows: Sequence[Row], tokens_per_microbatch: int, units: Sequence[int] | None = None) -> list[list[int]]:
    lengths = [row.prompt + row.completion for row in rows]
    return token_budget_batches(lengths, tokens_per_microbatch, units, [row.group for row in rows])


def scoring(one: Pass, rows: Sequence[Row], *, tokens_per_microbatch: int) -> Parts:
    """The most that a pass over `rows` without gradient takes."""
    batches = _batches(rows, tokens_per_microbatch)
    seen = [one.tokens([rows[i] for i in batch], predicting=one.speaks) for batch in batches]
    return {"activations": max(map(one.no_grad, seen))}


def exact_kl(policy: Pass, rows: Sequence[Row], *, tokens_per_microbatch: int) -> Parts:
    """The most that the KL over the whole vocabulary takes: the states of both models, and of some tokens at a time
    both logits and log-probabilities, the probabilities, and the difference on its way into a mask."""
    silent, width = replace(policy, speaks=False), policy.shape.hidden * policy.itemsize
    peak = 0
    for batch in _batches(rows, tokens_per_microbatch):
        tokens = policy.tokens([rows[i] for i in batch], predicting=True)
        part = min(tokens_compared(policy.shape.vocabulary), tokens.own)
        compared = policy.logits(part, 7.25, made=2)
        peak = max(peak, tokens.own * width + max(silent.no_grad(tokens), tokens.own * width + compared))
    return {"activations": peak}


def sampling(policy: Pass, rows: Sequence[Row], *, on_cpu: bool) -> Parts:
    """The most that sampling completions of these lengths takes, as many together as the sampler lets (decoding.py).

    Rows of one group are the samples of one prompt of the call.
    In float32 the layers are joined, and on a CPU packed, into copies of the weights (adapters.FrozenLinears).
    """
    s, b = policy.shape, policy.itemsize
    longest = max(row.prompt + row.completion for row in rows)
    samples = max(Counter(row.group for row in rows).values())
    together = min(len(rows), rows_together(s.cache(b), longest, samples))
    copies = joining = 0
    if b == FLOAT and policy.ours:
        merged = policy.rank > 0
        joined = s.hidden * (s.queries + 2 * s.keys) + 2 * s.hidden * s.feed_forward
        copies = FLOAT * s.layers * (s.linears if on_cpu or merged else joined)
        joining = FLOAT * 2 * s.hidden * s.feed_forward * (on_cpu + merged)
    prompts = list({row.group: Row(row.prompt, 0, row.group) for row in rows}.values())
    prefill = 0
    for batch in token_budget_batches([row.prompt for row in prompts], PREFILL_TOKENS):
        seen = Tokens.of([prompts[i] for i in batch], predicting=True)
        prefill = max(prefill, Pass(shape=s, itemsize=b, rank=policy.rank, speaks=False).no_grad(seen))
    logits = policy.logits(together, 4)  # theirs, their softmax, and its sum in float64
    step = FLOAT * 2 * together * (2 * (s.hidden + s.queries + s.keys) + 3 * s.feed_forward)
    working = max(joining, logits, step, prefill - (copies if together == len(rows) else 0))
    cache = together * longest * s.cache(b)
    return {"keys and values": cache, "copies of weights": copies, "logits": working}


def _tensors(module: nn.Module) -> Iterable[Tensor]:
    for tensor in (*module.parameters(), *module.buffers()):
        yield own_part(tensor)
        state = getattr(tensor, "quant_state", None)  # of bitsandbytes: the scales of NF4
        if state is not None:
            yield from (part for part in (state.absmax, state.code) if part is not None)
            if state.state2 is not None:
                yield from (state.state2.absmax, state.state2.code)
