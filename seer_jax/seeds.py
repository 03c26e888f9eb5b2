"""Several learners in one program: `--num_seeds=S` trains S runs that differ in their seed alone.

Each has parameters, a random stream, an environment and a column of replay of its own:

    state        leaves [S, ...], but for `step`, which they share
    keys         [S]
    replay rows  [capacity, S, ...], environment s being learner s's; scale f32[S, 1, L] a leaf
    stack        u8[S, k, H*W*C]

The agent knows nothing of it: what is mapped here are the programs of one learner with one
environment. While an encoder runs they go one after another, as convolutions of as many kernels as
examples are slow; what is left after the freeze is batched, and one matmul serves all.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seer_jax.types import AgentState, Key, PyTree

# (state, *arguments) of one learner -> anything; a state in it must go without its step
Program = Callable[..., Any]


def keys(seeds: list[int]) -> Key:
    """A random key for each seed, [S]."""
    return jnp.stack([jax.random.key(seed) for seed in seeds])


def init(init_one: Callable[[Key], AgentState], keys: Key) -> AgentState:
    """Learners from keys [S]."""
    state = jax.lax.map(init_one, keys)
    return state.replace(step=state.step[0])


def each(program: Program, state: AgentState, *arguments: PyTree, batched: bool) -> Any:
    """Runs a program of one learner for every learner.

    Args:
        program: takes a learner's state and its part of each argument.
        state: of all.
        arguments: leaves [S, ...].
        batched: all at once instead of one after another.

    Returns:
        What the program returns, leaves [S, ...].
    """

    def one(part: PyTree) -> Any:
        learner, *rest = part
        # Shared, because the program branches on it: batched, a branch would be taken by selection.
        return program(learner.replace(step=state.step), *rest)

    parts = (state.replace(step=None), *arguments)
    return jax.vmap(one)(parts) if batched else jax.lax.map(one, parts)


def pick(arrays: dict[str, np.ndarray], learner: int) -> dict[str, np.ndarray]:
    """One learner's part of a saved state, arrays by path."""
    return {path: x if path == ".step" else x[learner] for path, x in arrays.items()}
