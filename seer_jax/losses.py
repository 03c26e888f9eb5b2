"""The formulas the agents share: tanh-Gaussian policies and the contrastive (InfoNCE) loss."""

import chex
import jax
import jax.numpy as jnp

from seer_jax.types import Array


def tanh_gaussian(mean: Array, log_std: Array, noise: Array) -> tuple[Array, Array]:
    """Samples a squashed Gaussian by reparameterisation (SAC, arXiv 1812.05905, appendix C).

    Args:
        mean: f32[B, A] before squashing.
        log_std: f32[B, A].
        noise: f32[B, A] standard normal.

    Returns:
        action f32[B, A] in (-1, 1) and its log probability f32[B].
    """
    chex.assert_rank([mean, log_std, noise], 2)
    chex.assert_equal_shape([mean, log_std, noise])
    action = jnp.tanh(mean + noise * jnp.exp(log_std))
    gaussian = -0.5 * noise**2 - log_std - 0.5 * jnp.log(2 * jnp.pi)
    # The official code guards the logarithm the same way.
    squash = jnp.log(jax.nn.relu(1 - action**2) + 1e-6)
    return action, jnp.sum(gaussian - squash, axis=-1)


def info_nce(anchor: Array, positive: Array, similarity: Array) -> Array:
    """Contrastive cross-entropy with a bilinear similarity (CURL, arXiv 2004.04136).

    Row i of `positive` is the match of row i of `anchor`; the other rows are its negatives.

    Args:
        anchor: f32[B, L].
        positive: f32[B, L].
        similarity: f32[L, L], the learned matrix W of anchor^T W positive.

    Returns:
        f32[] mean loss.
    """
    chex.assert_rank([anchor, positive, similarity], 2)
    chex.assert_equal_shape([anchor, positive])
    logits = anchor @ (similarity @ positive.T)
    return -jnp.mean(jnp.diagonal(jax.nn.log_softmax(logits, axis=1)))
