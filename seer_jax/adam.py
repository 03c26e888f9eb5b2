"""Adam as an optax transformation that touches memory as little as it can.

After the freeze an update is a few matmuls, and `optax.adam` is 8% of it on a CPU: it divides both
moments by their bias corrections, element by element. Here the corrections are folded into two
scalars; the numbers are the same up to rounding (docs/performance.md).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from seer_jax.types import Array, PyTree


class AdamState(NamedTuple):
    """Moments of the gradient, shaped like the parameters."""

    steps: Array  # i32[], taken so far
    mean: PyTree
    square: PyTree


def adam(
    learning_rate: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
    """Adam (arXiv 1412.6980) with torch's and optax's placing of `eps`, after the root."""

    def init(params: PyTree) -> AdamState:
        zeros = lambda: jax.tree.map(jnp.zeros_like, params)
        return AdamState(jnp.zeros((), jnp.int32), zeros(), zeros())

    def update(grad: PyTree, state: AdamState, params: PyTree = None) -> tuple[PyTree, AdamState]:
        del params
        steps = state.steps + 1
        mean = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mean, grad)
        square = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g**2, state.square, grad)
        step_size = -learning_rate / (1 - b1**steps)
        correction = 1 / jnp.sqrt(1 - b2**steps)
        updates = jax.tree.map(
            lambda m, v: step_size * m / (jnp.sqrt(v) * correction + eps), mean, square
        )
        return updates, AdamState(steps, mean, square)

    return optax.GradientTransformation(init, update)
