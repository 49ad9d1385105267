"""Pure functions on tensors: the mathematics of RLHF, with no model, file or configuration in sight.

Shapes: `N` completions (or `B` rows of a batch), `T` completion tokens, `V` vocabulary, `P` pairs. A `mask` is bool and
True means that this token counts. Losses are sums divided by a count that the caller gives, so that micro-batches add
up to the whole batch. Half-precision input is worked on in float32.
"""
