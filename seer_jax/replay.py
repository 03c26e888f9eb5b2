"""Replay on the accelerator: a ring of rows, each what the agent saw and did at one time.

A frame or a latent is stored once. Stacks of frames, n-step returns and next observations are put
together when a batch is sampled. These are plain functions of a `Replay`; whoever compiles `add`
donates it, so that a row is written in place.
"""

import functools
import math
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp

from seer_jax.types import FIRST, LAST, Array, Key, PyTree, Row, Transition


class Replay(flax.struct.PyTreeNode):
    """A ring of the newest rows. Leaves of `rows` are [capacity, N, ...]."""

    rows: Row
    position: Array  # i32[], where the next row goes
    size: Array  # i32[], rows held


# Reads one observation a sample: (replay, age i32[B], env i32[B], key) -> leaves [B, ...]
Reader = Callable[[Replay, Array, Array, Key], PyTree]


def init(capacity: int, row: Row) -> Replay:
    """An empty replay for rows shaped like `row` (arrays or ShapeDtypeStructs with leading N)."""
    rows = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), row)
    return Replay(rows, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def add(replay: Replay, row: Row) -> Replay:
    """Writes one row (leaves [N, ...]) over the oldest."""
    capacity = get_capacity(replay)
    rows = jax.tree.map(
        lambda all_rows, x: jax.lax.dynamic_update_index_in_dim(
            all_rows, x.astype(all_rows.dtype), replay.position, 0
        ),
        replay.rows,
        row,
    )
    return Replay(rows, (replay.position + 1) % capacity, jnp.minimum(replay.size + 1, capacity))


@functools.partial(jax.jit, donate_argnums=0)
def write_rows(rows: Row, part: Row, start: Array | int) -> Row:
    """Writes consecutive rows (leaves [R, N, ...]) into `rows` from slot `start` on, in place."""
    return jax.tree.map(
        lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, y, start, 0), rows, part
    )


def get_capacity(replay: Replay) -> int:
    """Rows the ring has room for."""
    return replay.rows.reward.shape[0]


def row_bytes(row: Row) -> int:
    """Bytes of one row (arrays or ShapeDtypeStructs with leading N)."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(row))


def replay_bytes(replay: Replay) -> int:
    """Bytes of all rows, counted from the arrays."""
    return sum(x.nbytes for x in jax.tree.leaves(replay.rows))


def slot(replay: Replay, age: Array) -> Array:
    """Where the row of this age lies; age 0 is the oldest row held, size - 1 the newest."""
    return (replay.position - replay.size + age) % get_capacity(replay)


def min_rows(n_step: int) -> int:
    """Rows after which `sample` always finds a start: no two LAST rows are neighbours."""
    return n_step + 2


def sample(
    key: Key, replay: Replay, batch_size: int, *, n_step: int, gamma: float, read: Reader
) -> Transition:
    """Draws transitions uniformly from all that are complete.

    A start is any row but LAST ones whose n-step window lies inside the rows held; the window ends
    early at a LAST row and bootstraps from it with that row's discount. A window is dropped when a
    FIRST row cuts it without a LAST one before, as after an interrupted episode.

    Args:
        key: random key.
        replay: at least `min_rows(n_step)` rows.
        batch_size: B.
        n_step: length of the return.
        gamma: discount per step.
        read: `stacked_frames(...)` or `latents`.

    Returns:
        `reward` f32[B] the discounted sum, `discount` f32[B] = gamma^m times the environment's
        discounts, m <= n steps to `next_obs`.
    """
    draw_key, obs_key, next_key = jax.random.split(key, 3)
    age, env, steps = _draw_starts(draw_key, replay, batch_size, n_step)
    window = slot(replay, jnp.minimum(age[:, None] + jnp.arange(1, n_step + 1), replay.size - 1))
    reward = replay.rows.reward[window, env[:, None]]
    discount = replay.rows.discount[window, env[:, None]]
    inside = jnp.arange(1, n_step + 1) <= steps[:, None]
    # factor[i] = gamma^i times the discounts that came before reward i.
    after = jnp.cumprod(jnp.where(inside, gamma * discount, 1.0), axis=1)
    before = jnp.concatenate([jnp.ones_like(after[:, :1]), after[:, :-1]], axis=1)
    return Transition(
        obs=read(replay, age, env, obs_key),
        action=replay.rows.action[slot(replay, age), env],
        reward=jnp.sum(jnp.where(inside, before * reward, 0.0), axis=1),
        discount=after[:, -1],
        next_obs=read(replay, age + steps, env, next_key),
    )


def _draw_starts(
    key: Key, replay: Replay, batch_size: int, n_step: int
) -> tuple[Array, Array, Array]:
    """Ages, environments and lengths i32[B] of valid windows; invalid draws are drawn again."""
    num_envs = replay.rows.reward.shape[1]

    def draw(key: Key) -> tuple[Array, Array, Array, Array]:
        age_key, env_key = jax.random.split(key)
        age = jax.random.randint(age_key, (batch_size,), 0, jnp.maximum(replay.size - 1, 1))
        env = jax.random.randint(env_key, (batch_size,), 0, num_envs)
        steps, valid = _window_length(replay, age, env, n_step)
        return age, env, steps, valid

    def redraw(carry: tuple) -> tuple:
        key, age, env, steps, valid = carry
        key, draw_key = jax.random.split(key)
        new = draw(draw_key)
        keep = lambda old, new: jnp.where(valid, old, new)
        return key, *(keep(o, n) for o, n in zip((age, env, steps, valid), new, strict=True))

    key, first_key = jax.random.split(key)
    carry = jax.lax.while_loop(lambda c: ~jnp.all(c[-1]), redraw, (key, *draw(first_key)))
    return carry[1], carry[2], carry[3]


def _window_length(replay: Replay, age: Array, env: Array, n_step: int) -> tuple[Array, Array]:
    """Steps from each start to its next_obs, and whether that window is a valid one."""
    ages = age[:, None] + jnp.arange(n_step + 1)
    held = ages < replay.size
    step_type = replay.rows.step_type[
        slot(replay, jnp.minimum(ages, replay.size - 1)), env[:, None]
    ]
    ends = (step_type == LAST) & held
    early = jnp.any(ends[:, 1:], axis=1)
    steps = jnp.where(early, jnp.argmax(ends[:, 1:], axis=1) + 1, n_step)
    offset = jnp.arange(n_step + 1)
    cut = jnp.any((step_type == FIRST) & (offset > 0) & (offset <= steps[:, None]), axis=1)
    return steps, ~ends[:, 0] & (early | held[:, -1]) & ~cut


def stacked_frames(obs_shape: tuple[int, int, int], stack: int, pad: str) -> Reader:
    """Reads observations from rows that hold single frames.

    Frames from before the episode's first row are that row's frame again (`pad="repeat"`) or black
    (`pad="zeros"`). Where the ring has overwritten an episode's beginning, the oldest stacks repeat
    the oldest frame that is left.

    Args:
        obs_shape: (H, W, C) of a frame.
        stack: k.
        pad: "repeat" or "zeros".

    Returns:
        A `Reader` of u8[B, H, W, k*C], oldest frame first.
    """

    def read(replay: Replay, age: Array, env: Array, key: Key) -> Array:
        del key
        back = jnp.minimum(age[:, None], jnp.arange(stack))  # never before the oldest row held
        step_type = replay.rows.step_type[slot(replay, age[:, None] - back), env[:, None]]
        # Frames to go back until the episode's first: k where it is further away than the stack.
        first = jnp.argmax(step_type == FIRST, axis=1)
        limit = jnp.where(jnp.any(step_type == FIRST, axis=1), first, stack)[:, None]
        frames = replay.rows.obs[
            slot(replay, age[:, None] - jnp.minimum(back, limit)), env[:, None]
        ]
        if pad == "zeros":
            frames = jnp.where((jnp.arange(stack) <= limit)[..., None], frames, 0)
        return frames_to_obs(frames[:, ::-1], obs_shape)

    return read


def latents(replay: Replay, age: Array, env: Array, key: Key) -> PyTree:
    """A `Reader` of rows that hold latents [K, ...]: one of the K copies, drawn for each sample.

    All leaves of a sample come from the same copy. Returns leaves f32[B, ...].
    """
    copies = jax.tree.leaves(replay.rows.obs)[0].shape[2]
    copy = jax.random.randint(key, age.shape, 0, copies)
    pick = lambda x: x[slot(replay, age), env, copy].astype(jnp.float32)
    return jax.tree.map(pick, replay.rows.obs)


def frames_to_obs(frames: Array, obs_shape: tuple[int, int, int]) -> Array:
    """Flat frames u8[B, k, H*W*C], oldest first -> u8[B, H, W, k*C]."""
    batch, stack = frames.shape[:2]
    height, width, channels = obs_shape
    images = frames.reshape(batch, stack, height, width, channels)
    return images.transpose(0, 2, 3, 1, 4).reshape(batch, height, width, stack * channels)
