"""The agents' formulas: tanh-Gaussian policies, the contrastive loss, categorical returns."""

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


def project_categorical(probs: Array, values: Array, support: Array) -> Array:
    """Moves a distribution over returns onto a fixed, even support (C51, arXiv 1707.06887).

    Args:
        probs: f32[B, M] of `values`.
        values: f32[B, M]; those beyond the support count for its nearest end.
        support: f32[M], rising in equal steps.

    Returns:
        f32[B, M] probabilities of `support`: each value shares its own between its two neighbours.
    """
    chex.assert_rank([probs, values, support], [2, 2, 1])
    step = support[1] - support[0]
    values = jnp.clip(values, support[0], support[-1])
    share = 1 - jnp.abs(values[:, :, None] - support) / step
    return jnp.einsum("bm,bmn->bn", probs, jnp.maximum(share, 0))
