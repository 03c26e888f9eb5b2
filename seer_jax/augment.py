"""Views of an observation: random and centre crops of stacked frames."""

import jax
import jax.numpy as jnp

from seer_jax.types import Array, Key


def random_crop(key: Key, obs: Array, size: int) -> Array:
    """Crops each observation at its own uniform offset; all channels (frames) together.

    Every offset 0..H-size is reached; the official code never draws the last one.

    Args:
        key: random key.
        obs: u8[B, H, W, C].
        size: side of the crop, at most H and W.

    Returns:
        u8[B, size, size, C].
    """
    batch, height, width, channels = obs.shape
    limits = jnp.array([height - size + 1, width - size + 1])
    offsets = jax.random.randint(key, (batch, 2), 0, limits)
    crop = lambda image, offset: jax.lax.dynamic_slice(
        image, (offset[0], offset[1], 0), (size, size, channels)
    )
    # Else XLA's CPU compiler works out anew for every pixel where its crop lies.
    return jax.lax.optimization_barrier(jax.vmap(crop)(obs, offsets))


def center_crop(obs: Array, size: int) -> Array:
    """Crops the middle of each observation: u8[B, H, W, C] -> u8[B, size, size, C]."""
    top, left = ((side - size) // 2 for side in obs.shape[1:3])
    return obs[:, top : top + size, left : left + size]
