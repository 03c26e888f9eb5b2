"""Views of an observation: random and centre crops of stacked frames, shifts of features."""

import functools

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
    batch, height, width, _ = obs.shape
    limits = jnp.array([height - size + 1, width - size + 1])
    offsets = jax.random.randint(key, (batch, 2), 0, limits)
    # Else XLA's CPU compiler works out anew for every pixel where its crop lies.
    return jax.lax.optimization_barrier(_windows(obs, offsets, size, size))


def center_crop(obs: Array, size: int) -> Array:
    """Crops the middle of each observation: u8[B, H, W, C] -> u8[B, size, size, C]."""
    top, left = ((side - size) // 2 for side in obs.shape[1:3])
    return obs[:, top : top + size, left : left + size]


def shift(key: Key, features: Array, room: tuple[int, int], stride: int) -> Array:
    """The subpixel random shift of ATC (arXiv 2009.08319): moves features of centre crops, each on
    its own, about as random crops would have moved them.

    Crops that lie pixels apart have features that lie parts of a cell apart: so interpolation is
    bilinear, and beyond the edge its values are repeated.

    Args:
        key: random key.
        features: f32[B, H, W, C].
        room: pixels that a crop can move by, from its first offset to its last, in each direction.
        stride: pixels from a cell to the next.

    Returns:
        f32[B, H, W, C].
    """
    _, height, width, _ = features.shape
    most, beyond = jnp.array(room), [n // stride + 1 for n in room]
    offsets = jax.random.randint(key, (len(features), 2), 0, most + 1)
    moves = (offsets - most // 2) / stride  # cells, f32[B, 2]
    whole = jnp.floor(moves)
    part = (moves - whole)[:, :, None, None, None]
    padded = jnp.pad(features, [(0, 0), *((n, n) for n in beyond), (0, 0)], mode="edge")
    starts = whole.astype(jnp.int32) + jnp.array(beyond)
    cells = _windows(padded, starts, height + 1, width + 1)
    rows = cells[:, :-1] + part[:, 0] * (cells[:, 1:] - cells[:, :-1])
    moved = rows[:, :, :-1] + part[:, 1] * (rows[:, :, 1:] - rows[:, :, :-1])
    # Else XLA's CPU compiler looks up the drawn rows anew for every number of what reads it.
    return jax.lax.optimization_barrier(moved)


def _windows(x: Array, starts: Array, height: int, width: int) -> Array:
    """A window of each of x[B, H, W, C], from its own start i32[B, 2] on: [B, height, width, C]."""
    return jax.lax.platform_dependent(
        x,
        starts,
        default=functools.partial(_slice_windows, height=height, width=width),
        tpu=functools.partial(_take_windows, height=height, width=width),
    )


def _slice_windows(x: Array, starts: Array, height: int, width: int) -> Array:
    size = height, width, x.shape[-1]
    one = lambda x, start: jax.lax.dynamic_slice(x, (start[0], start[1], 0), size)
    return jax.vmap(one)(x, starts)


def _take_windows(x: Array, starts: Array, height: int, width: int) -> Array:
    """By rows, then by columns: a TPU would make slices one after the other."""
    rows = starts[:, :1] + jnp.arange(height)
    columns = starts[:, 1:] + jnp.arange(width)
    x = jnp.take_along_axis(x, rows[:, :, None, None], axis=1)
    return jnp.take_along_axis(x, columns[:, None, :, None], axis=2)
