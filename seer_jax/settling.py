"""When to freeze, without being told: once the features of a probe batch have stopped moving, and
the agent does better than at first.

A probe batch is drawn from replay and kept. Its latents are compared with those of the check
before by linear CKA (Kornblith et al. 2019, arXiv 1905.00414), which is 1 for latents that differ
by a rotation and a scale only, as what a head can learn from them then is the same.

Features also rest while the agent has found nothing to learn from yet, and move once it does
(docs/freezing.md). So returns must have risen before stillness counts.
"""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from seer_jax.replay import Reader, Replay
from seer_jax.types import Agent, Array, Key, PyTree

PROBE_SIZE = 256  # observations
EPISODES = 5  # first and newest ones, whose returns are compared


class Probe(NamedTuple):
    """A probe batch and what the encoder last made of it."""

    view: Array  # u8[P, H, W, k*C], what the encoder sees of the observations
    latents: PyTree  # leaves f32[P, ...]


def draw(agent: Agent, read: Reader, encoder: PyTree, replay: Replay, key: Key) -> Probe:
    """A probe of observations drawn from all that replay holds; `read` reads them."""
    age_key, env_key, read_key = jax.random.split(key, 3)
    num_envs = replay.rows.reward.shape[1]
    age = jax.random.randint(age_key, (PROBE_SIZE,), 0, replay.size)
    env = jax.random.randint(env_key, (PROBE_SIZE,), 0, num_envs)
    view = agent.view(read(replay, age, env, read_key))
    return Probe(view, agent.encode(encoder, view))


def look(agent: Agent, encoder: PyTree, probe: Probe) -> tuple[Probe, Array]:
    """Encodes the probe anew.

    Returns:
        The probe with its new latents; their similarity to those of the last look, f32[] in
        [0, 1]: of several kinds of latents, that of the kind which has moved most.
    """
    latents = agent.encode(encoder, probe.view)
    similarities = jax.tree.leaves(jax.tree.map(linear_cka, probe.latents, latents))
    return probe._replace(latents=latents), jnp.min(jnp.stack(similarities))


def has_learned(first: Sequence[float], newest: Sequence[float]) -> bool:
    """Whether training episodes return more than at first: the median of the newest `EPISODES` is
    above the best of as many first ones. Of fewer than eight episodes in all it never is, as most
    of them are then in both."""
    return bool(newest) and statistics.median(newest) > max(first)


def linear_cka(x: Array, y: Array) -> Array:
    """Linear centred kernel alignment of features f32[P, ...] of the same P inputs: f32[].

    Features that do not vary over the inputs are like no others: 0.
    """
    x_gram, y_gram = _gram(x), _gram(y)
    norms = jnp.linalg.norm(x_gram) * jnp.linalg.norm(y_gram)
    return jnp.where(norms > 0, jnp.vdot(x_gram, y_gram) / jnp.where(norms > 0, norms, 1), 0)


def _gram(x: Array) -> Array:
    x = x.reshape(x.shape[0], -1)
    x = x - jnp.mean(x, axis=0)
    return x @ x.T
