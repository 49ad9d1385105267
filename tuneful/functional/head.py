"""Log-probabilities, entropies and KL straight from hidden states: [tokens, vocabulary] never stands in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tuneful.functional.kl import exact_kl

LOGITS_AT_ONCE = 2**22
"""Numbers of logits that are made together, 16 MiB of float32, or those of `TOKENS_AT_ONCE`."""

TOKENS_AT_ONCE = 128
"""At a vocabulary of 150,000 products of 27 tokens, each with a gradient of the head, take three times as long."""


RULED_OUT = -1e30
"""The logit of a token that is not among those allowed: its probability is 0, and 0 times it is a number."""


def tokens_together(vocabulary: int) -> int:
    """Of how many tokens the logits are made together."""
    return max(TOKENS_AT_ONCE, LOGITS_AT_ONCE // vocabulary)


def tokens_compared(vocabulary: int) -> int:
    """Of how many tokens two models' logits are compared together: `exact_kl` holds seven numbers for each."""
    return max(TOKENS_AT_ONCE // 4, LOGITS_AT_ONCE // 4 // vocabulary)


def head_logprobs(
    head: Callable[[Tensor], Tensor],
    states: Tensor,
    ids: Tensor,
    *,
    temperature: float = 1.0,
    entropy_grad: bool = False,
    weights: Sequence[Tensor] = (),
    allowed: Sequence[Sequence[int]] | None = None,
) -> tuple[Tensor, Tensor]:
    """log pi(id) and the entropy in nats of softmax(head(states) / temperature), float32 [M] each.

    states: [M, d]; ids: int64 [M]; weights: those of the head that are trained; head: [m, d] -> finite logits [m, V].
    The logits must be a new tensor that the head's backward pass does not need (a linear layer's does not), for they
    are written over. Gradient flows to states and weights, from the entropy only if `entropy_grad`. Logits are made in
    parts, and again for the backward pass, which turns each part into its gradient at once: d log p(id) = 1[v = id] -
    p(v), d entropy = -p(v) (log p(v) + entropy).
    allowed: [M] of token ids; the softmax of each token is over these alone, and over all where there are none.
    """
    logprobs, entropy = _HeadLogprobs.apply(head, temperature, entropy_grad, allowed, ids, states, *weights)  # type: ignore[no-untyped-call]
    return logprobs, entropy


@torch.no_grad()
def head_kl(
    head: Callable[[Tensor], Tensor],
    states: Tensor,
    reference_head: Callable[[Tensor], Tensor],
    reference_states: Tensor,
    *,
    temperature: float = 1.0,
) -> Tensor:
    """KL(policy || reference) in nats of softmax(head(states) / temperature) from the reference's, float32 [M].

    states: [M, d], reference_states: [M, e]; each head: [m, its d] -> logits [m, V]. Without gradient, in parts.
    """
    size = tokens_compared(head(states[:0]).shape[1])
    parts = zip(torch.split(states, size), torch.split(reference_states, size), strict=True)
    return torch.cat([exact_kl(head(one), reference_head(other), temperature=temperature) for one, other in parts])


class _HeadLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        head: Callable[[Tensor], Tensor],
        temperature: float,
        entropy_grad: bool,
        allowed: Sequence[Sequence[int]] | None,
        ids: Tensor,
        states: Tensor,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor]:
        logprobs, norm, entropy = (states.new_empty(len(ids), dtype=torch.float32) for _ in range(3))
        size = tokens_together(head(states[:0]).shape[1])
        for start in range(0, len(ids), size):
            part = slice(start, start + size)
            logits = head(states[part]).float()
            if temperature != 1.0:
                logits = logits / temperature
            if allowed is not None:
                _rule_out(logits, allowed[part])
            largest = logits.amax(-1, keepdim=True)
            numerators = (logits - largest).exp_()
            total = numerators.sum(-1)
            norm[part] = largest.squeeze(-1) + total.log()
            logprobs[part] = logits.gather(-1, ids[part, None]).squeeze(-1) - norm[part]
            entropy[part] = norm[part] - torch.linalg.vecdot(numerators, logits) / total
            del logits, numerators  # before the next part is made
        ctx.head, ctx.temperature, ctx.size, ctx.entropy_grad = head, temperature, size, entropy_grad
        ctx.allowed = allowed
        ctx.save_for_backward(ids, states, norm, entropy, *weights)
        if not entropy_grad:
            ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, of_logprobs: Tensor, of_entropy: Tensor) -> tuple[Tensor | None, ...]:
        ids, states, norm, entropy, *weights = ctx.saved_tensors
        of_states = torch.empty_like(states)
        of_weights = [torch.zeros_like(weight) for weight in weights]
        for start in range(0, len(ids), ctx.size):
            part = slice(start, start + ctx.size)
            with torch.enable_grad():
                inputs = [states[part].detach().requires_grad_(), *weights]
                logits = ctx.head(inputs[0])
            logprobs = logits.detach().float()  # written over from here on
            if ctx.temperature != 1.0:
                logprobs /= ctx.temperature
            if ctx.allowed is not None:
                _rule_out(logprobs, ctx.allowed[part])
            logprobs -= norm[part, None]
            if ctx.entropy_grad:
                probs = logprobs.exp()
                grad = logprobs.add_(entropy[part, None]).mul_(-of_entropy[part, None]).sub_(of_logprobs[part, None])
                grad *= probs
                del probs
            else:
                grad = logprobs.exp_().mul_(-of_logprobs[part, None])
            grad.scatter_add_(1, ids[part, None], of_logprobs[part, None])
            if ctx.temperature != 1.0:
                grad /= ctx.temperature
            of_states[part], *more = torch.autograd.grad(logits, inputs, grad.to(logits.dtype))
            del logits, logprobs, grad
            for total, one in zip(of_weights, more, strict=True):
                total.add_(one)
        return None, None, None, None, None, of_states, *of_weights


def _rule_out(logits: Tensor, allowed: Sequence[Sequence[int]]) -> None:
    """Write over the logits [m, V] of tokens that are not among the ids of their row, where it has any."""
    kept = torch.tensor([not ids for ids in allowed], device=logits.device)[:, None].repeat(1, logits.shape[1])
    counts = torch.tensor([len(ids) for ids in allowed], device=logits.device)
    row = torch.arange(len(allowed), device=logits.device).repeat_interleave(counts)
    kept[row, torch.tensor([v for ids in allowed for v in ids], dtype=torch.int64, device=logits.device)] = True
    logits.masked_fill_(~kept, RULED_OUT)
