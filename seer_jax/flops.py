"""Counting FLOPs: by hand from layer sizes, and as XLA counts them.

The convention is the usual one: a multiply-accumulate is 2 FLOPs and a backward pass twice its
forward. Biases, activations, normalisation, noise on weights and the optimiser are left out. By
XLA's count they add 1% to 3% to CURL-SAC's updates; to Rainbow's, whose batch of 32 is small beside
its weights, 6% before the freeze and 16% after it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax


def dense(*sizes: int) -> float:
    """Forward FLOPs of dense layers for one example; sizes: input, hidden..., output."""
    return float(sum(2 * a * b for a, b in zip(sizes, sizes[1:], strict=False)))


def conv(in_channels: int, features: int, kernel: int, out_size: int) -> float:
    """Forward FLOPs of one convolution with a square output of side `out_size`, for one example."""
    return 2.0 * out_size**2 * kernel**2 * in_channels * features


def convs(
    in_channels: int, layers: Sequence[tuple[int, int, int]], sizes: Sequence[int]
) -> list[float]:
    """Forward FLOPs of each convolution of `networks.PlainConvs`, for one example; `sizes` are the
    sides of their outputs."""
    costs = []
    for (features, kernel, _), size in zip(layers, sizes, strict=True):
        costs.append(conv(in_channels, features, kernel, size))
        in_channels = features
    return costs


def xla_count(function: Callable[..., Any], *args: Any) -> float:
    """FLOPs that XLA's cost analysis finds in the unoptimised program of `function(*args)`.

    XLA counts the body of a loop once whatever its trip count, and both branches of a conditional
    as the dearer one, so compare on programs without loops.
    """
    analysis = jax.jit(function).lower(*args).cost_analysis()
    assert analysis is not None, "this backend has no cost analysis"
    return float(analysis["flops"])
