"""Latents as stored: floats of some width, or 8-bit codes with a scale for each dimension.

`uint8` is for latents that are never negative, such as those behind a ReLU: code = z / scale, from
0 to 255. `int8` is for signed ones: from -127 to 127. The scale is fixed at the freeze, so that the
largest value in a sample of replay is the largest code; what exceeds it, then or later, is clipped.
"""

import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp

from seer_jax.types import Array, PyTree

LARGEST_CODE = {"uint8": 255, "int8": 127}


def fit(latents: Iterable[PyTree], dtype: str, several: bool = False) -> PyTree:
    """A scale for latents, leaves f32[R, N, K, L] of some rows after the other.

    Returns:
        Leaves f32[L]; with `several`, where each of the N has its own, f32[N, L]; None if `dtype`
        needs none.
    """
    if dtype not in LARGEST_CODE:
        return None

    def largest(z: Array) -> Array:
        return jnp.max(jnp.abs(z), axis=tuple(range(z.ndim - 1)))

    largest_of_each = jax.vmap(largest, in_axes=1) if several else largest

    def scale(*parts: Array) -> Array:
        top = functools.reduce(jnp.maximum, parts)
        return jnp.where(top > 0, top, 1.0) / LARGEST_CODE[dtype]

    return jax.tree.map(scale, *(jax.tree.map(largest_of_each, part) for part in latents))


def scale_shape(stored: PyTree, several: bool = False) -> PyTree:
    """The shapes of `fit` for stored latents [N, K, L]; None if their dtype needs none."""
    if jax.tree.leaves(stored)[0].dtype.name not in LARGEST_CODE:
        return None
    learners = lambda x: x.shape[:1] if several else ()
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((*learners(x), x.shape[-1]), jnp.float32), stored
    )


def encode(latents: PyTree, scale: PyTree, dtype: str) -> PyTree:
    """Leaves f32[..., L] -> `dtype`[..., L]."""
    if scale is None:
        return jax.tree.map(lambda z: z.astype(dtype), latents)
    top = LARGEST_CODE[dtype]
    bottom = 0 if dtype == "uint8" else -top
    return jax.tree.map(
        lambda z, s: jnp.clip(jnp.round(z / s), bottom, top).astype(dtype), latents, scale
    )


def decode(stored: PyTree, scale: PyTree) -> PyTree:
    """What `encode` made of latents, as f32[..., L]."""
    if scale is None:
        return jax.tree.map(lambda x: x.astype(jnp.float32), stored)
    return jax.tree.map(lambda x, s: x.astype(jnp.float32) * s, stored, scale)


def quality(latents: PyTree, scale: PyTree, dtype: str) -> dict[str, Array]:
    """How well `scale` fits these latents; nothing where there is none.

    Returns:
        f32[] `latent/error`, the root mean square of what storing changes, as a share of that of
        the latents; `latent/clipped`, the share of values beyond the largest code.
    """
    if scale is None:
        return {}
    decoded = decode(encode(latents, scale, dtype), scale)
    top = LARGEST_CODE[dtype]
    error = power = clipped = jnp.float32(0)
    count = 0
    for z, back, s in zip(*map(jax.tree.leaves, (latents, decoded, scale)), strict=True):
        error += jnp.sum((z - back) ** 2)
        power += jnp.sum(z**2)
        clipped += jnp.sum(jnp.abs(z) > s * (top + 0.5))
        count += z.size
    return {
        "latent/error": jnp.sqrt(error / jnp.maximum(power, 1e-12)),
        "latent/clipped": clipped / count,
    }
