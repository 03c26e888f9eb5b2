"""When to freeze, without being told: once the encoder hardly moves any more, in an agent that
began to learn long ago.

At a look the encoder is compared with itself at half the step, and with the one that training began
with, on a probe batch drawn from all that replay holds. Features are compared by linear CKA
(Kornblith et al. 2019, arXiv 1905.00414), which is 1 for those that differ by a rotation and a
scale only, as what a head can learn from them then is the same.

How near to 1 that is depends on the task, because much of the variation in features comes from the
pictures, whatever the encoder. So the movement is the share of its way that the encoder has gone in
the newer half of its training:

    (1 - cka(half, now)) / (1 - cka(first, now))

It has no unit of time or of distance, and so one limit serves short runs and long ones.

Features also rest while the agent has found nothing to learn from yet, and move once it does
(docs/freezing.md). So rest counts where returns had risen before that newer half began.
"""

import math
import statistics
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from seer_jax.replay import Reader, Replay
from seer_jax.types import Agent, Array, Key, PyTree

PROBE_SIZE = 256  # observations
EPISODES = 5  # first and newest ones, whose returns are compared
LOOKS_BACK = 4  # in which the step has doubled


def next_look(step: int) -> int:
    """The step to look at after `step`."""
    return math.ceil(step * 2 ** (1 / LOOKS_BACK))


def draw(agent: Agent, read: Reader, replay: Replay, key: Key) -> Array:
    """A probe: observations drawn from all that replay holds, as the encoder takes them,
    u8[P, H, W, k*C]; `read` reads them."""
    age_key, env_key, read_key = jax.random.split(key, 3)
    num_envs = replay.rows.reward.shape[1]
    age = jax.random.randint(age_key, (PROBE_SIZE,), 0, replay.size)
    env = jax.random.randint(env_key, (PROBE_SIZE,), 0, num_envs)
    return agent.view(read(replay, age, env, read_key))


def look(
    agent: Agent, first: PyTree, half: PyTree, now: PyTree, probe: Array
) -> tuple[Array, Array]:
    """How an encoder has moved.

    Args:
        agent: whose `encode` takes them.
        first: the encoder that training began with.
        half: the encoder at half the step.
        now: the encoder.
        probe: u8[P, H, W, k*C].

    Returns:
        Similarity to the encoder at half the step, f32[] in [0, 1], and movement, f32[]. Of several
        kinds of latents that of the kind which has moved most. An encoder that has not moved at all
        has a movement of 1.
    """
    of_first, of_half, of_now = (agent.encode(encoder, probe) for encoder in (first, half, now))
    compare = lambda x, y: jnp.stack(jax.tree.leaves(jax.tree.map(linear_cka, x, y)))
    similarity = compare(of_half, of_now)
    return jnp.min(similarity), jnp.max(movement(similarity, compare(of_first, of_now)))


def movement(to_half: Array, to_first: Array) -> Array:
    """The share of its way that an encoder has gone in the newer half of its training, by its
    similarity f32[...] to the encoder at half the step and to the first; 1 if it has not moved."""
    way = 1 - to_first
    return jnp.where(way > 1e-6, (1 - to_half) / jnp.maximum(way, 1e-6), 1.0)


def has_learned(first: Sequence[float], newest: Sequence[float]) -> bool:
    """Whether training episodes return more than at first: the median of the newest `EPISODES` is
    above the best of as many first ones. Not with fewer than eight episodes in all: most of them
    are then in both."""
    return bool(newest) and statistics.median(newest) > max(first)


def linear_cka(x: Array, y: Array) -> Array:
    """Linear centred kernel alignment of features f32[P, ...] of the same P inputs: f32[].

    Features that do not vary over the inputs are like no others: 0.
    """
    return alignment(gram(x), gram(y))


def alignment(x_gram: Array, y_gram: Array) -> Array:
    """`linear_cka` of features whose `gram` these are."""
    norms = jnp.linalg.norm(x_gram) * jnp.linalg.norm(y_gram)
    return jnp.where(norms > 0, jnp.vdot(x_gram, y_gram) / jnp.where(norms > 0, norms, 1), 0)


def gram(x: Array) -> Array:
    """Scalar products f32[P, P] of centred features f32[P, ...]."""
    x = x.reshape(x.shape[0], -1)
    x = x - jnp.mean(x, axis=0)
    return x @ x.T
