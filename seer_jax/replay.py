"""Replay on the accelerator: a ring of rows, each what the agent saw and did at one time.

A frame or a latent is stored once. Stacks of frames, n-step returns and next observations are put
together when a batch is sampled. These are plain functions of a `Replay`; whoever compiles `add`
donates it, so that a row is written in place. What writes many rows at once is compiled here.

Sampling is uniform, or proportional to priorities if the replay has them (arXiv 1511.05952).
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from seer_jax import quantise
from seer_jax.types import FIRST, LAST, Array, InPieces, Key, PyTree, Row, StackPad, Transition

_TILE = 128  # numbers in a row of a TPU's tile
_PART = 32  # priorities summed together, and such sums: see `_draw_by_priority`


class Priorities(NamedTuple):
    """How often each row is drawn as the start of a transition, up to a factor."""

    values: Array  # f32[capacity, N], errors to the power of the exponent; 0 for LAST rows
    highest: Array  # f32[], which new rows get: each is to be seen soon


class Replay(flax.struct.PyTreeNode):
    """A ring of the newest rows. Leaves of `rows` are [capacity, N, ...]."""

    rows: Row
    position: Array  # i32[], where the next row goes
    size: Array  # i32[], rows held
    priorities: Priorities | None = None  # None: drawn uniformly
    scale: PyTree = None  # of 8-bit latents, f32[L] a leaf; of several learners f32[S, L]


class Start(NamedTuple):
    """Where the transitions of a batch begin, i32[B] each."""

    slot: Array
    env: Array


# Reads one observation a sample: (replay, age i32[B], env i32[B], key) -> leaves [B, ...]
Reader = Callable[[Replay, Array, Array, Key], PyTree]


def init(capacity: int, row: Row, prioritised: bool = False) -> Replay:
    """An empty replay for rows shaped like `row` (arrays or ShapeDtypeStructs with leading N)."""
    row = _in_ring(row)
    rows = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), row)
    priorities = None
    if prioritised:
        priorities = Priorities(jnp.zeros_like(rows.reward), jnp.ones((), jnp.float32))
    return Replay(rows, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), priorities)


def add(replay: Replay, row: Row) -> Replay:
    """Writes one row (leaves [N, ...]) over the oldest."""
    capacity = get_capacity(replay)

    def write(all_rows: Array, x: Array) -> Array:
        x = x.astype(all_rows.dtype)  # frames may be narrower than the ring, see `_in_ring`
        return jax.lax.dynamic_update_index_in_dim(all_rows, x, replay.position, 0)

    priorities = replay.priorities
    if priorities is not None:
        new = jnp.where(row.step_type == LAST, 0.0, priorities.highest)
        priorities = priorities._replace(values=write(priorities.values, new))
    return replay.replace(
        rows=jax.tree.map(write, replay.rows, row),
        position=(replay.position + 1) % capacity,
        size=jnp.minimum(replay.size + 1, capacity),
        priorities=priorities,
    )


@functools.partial(jax.jit, donate_argnums=0)
def write_rows(rows: PyTree, part: PyTree, start: Array | int) -> PyTree:
    """Writes consecutive rows (leaves [R, N, ...]) into `rows` from slot `start` on, in place."""
    return jax.tree.map(
        lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, y, start, 0), rows, part
    )


@functools.partial(jax.jit, donate_argnums=0)
def _write_at(ring: Array, part: Array, at: Array) -> Array:
    """Writes rows to slots `at`, in place; those beyond the ring are dropped."""
    return ring.at[at, ..., : part.shape[-1]].set(part, mode="drop")


def trimmed(replay: Replay, row: Row) -> Replay:
    """The same as numpy arrays, of the rows held alone, each as large as `row` (arrays or
    ShapeDtypeStructs with leading N): a ring that is not full lies at the start of its arrays."""
    held = int(replay.size)
    cut = lambda x, like: np.asarray(x)[:held, ..., : like.shape[-1]]
    rows = jax.tree.map(cut, replay.rows, row)
    priorities: Any = replay.priorities
    if priorities is not None:
        priorities = priorities._replace(values=np.asarray(priorities.values)[:held])
    return jax.device_get(replay.replace(rows=rows, priorities=priorities))


def trimmed_shape(held: int, row: Row, prioritised: bool, scale: PyTree) -> Replay:
    """The shapes and dtypes of `trimmed` for a replay of such rows that holds so many."""
    replay = jax.eval_shape(lambda: init(held, row, prioritised))
    rows = jax.tree.map(lambda x: jax.ShapeDtypeStruct((held, *x.shape), x.dtype), row)
    return replay.replace(rows=rows, scale=scale)


def untrimmed(replay: Replay, capacity: int, init: Callable[..., Replay] = init) -> Replay:
    """Takes `trimmed`, whose large arrays may be `InPieces`, back into a ring with room for
    `capacity` rows, made by `init`. With another room than before, as when a run becomes longer,
    the ring begins at its oldest row, or with less at the oldest that it has room for."""
    row = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), replay.rows)
    values = lambda replay: replay.priorities and replay.priorities.values
    whole = init(capacity, row, replay.priorities is not None)
    held_rows, position = replay.rows.reward.shape[0], int(replay.position)
    size, oldest = min(held_rows, capacity), 0
    if held_rows != capacity:
        oldest, position = (position + held_rows - size) % held_rows, size

    def fill(ring: Array, held: np.ndarray | InPieces) -> Array:
        for start, part in held.read() if isinstance(held, InPieces) else [(0, held)]:
            ring = _write_at(ring, part, (np.arange(start, start + len(part)) - oldest) % held_rows)
        return ring

    held, target = (replay.rows, values(replay)), (whole.rows, values(whole))
    rows, written = jax.tree.map(fill, target, held)
    return Replay(
        rows,
        jnp.asarray(position % capacity, jnp.int32),
        jnp.asarray(size, jnp.int32),
        replay.priorities and Priorities(written, jnp.asarray(replay.priorities.highest)),
        jax.tree.map(jnp.asarray, replay.scale),
    )


def get_capacity(replay: Replay) -> int:
    """Rows the ring has room for."""
    return replay.rows.reward.shape[0]


def row_bytes(row: Row) -> int:
    """Bytes that the ring takes for one row (arrays or ShapeDtypeStructs with leading N)."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(_in_ring(row)))


def replay_bytes(replay: Replay) -> int:
    """Bytes of all rows, counted from the arrays."""
    return sum(x.nbytes for x in jax.tree.leaves(replay.rows))


def _in_ring(row: Row) -> Row:
    """Shapes and dtypes of a row in the ring. On a TPU frames u8[N, H*W*C] are followed by zeros
    there, up to whole rows of its tiles: else its compiler may lay the ring out so that each draw
    first copies all of it."""
    # Latents have an axis of copies besides.
    frames = getattr(row.obs, "ndim", None) == 2 and row.obs.dtype == jnp.uint8
    if jax.default_backend() != "tpu" or not frames:
        return row
    num_envs, pixels = row.obs.shape
    width = -(-pixels // _TILE) * _TILE
    return row._replace(obs=jax.ShapeDtypeStruct((num_envs, width), row.obs.dtype))


def slot(replay: Replay, age: Array) -> Array:
    """Where the row of this age lies; age 0 is the oldest row held, size - 1 the newest."""
    return (replay.position - replay.size + age) % get_capacity(replay)


def min_rows(n_step: int) -> int:
    """Rows after which `sample` always finds a start: at most two LAST rows are neighbours, the
    second of an episode that a resumed run could not go on with."""
    return n_step + 3


def sample(
    key: Key,
    replay: Replay,
    batch_size: int,
    *,
    n_step: int,
    gamma: float,
    read: Reader,
    beta: Array | float = 0.0,
    env: Array | None = None,
) -> tuple[Transition, Start]:
    """Draws transitions from all that are complete, uniformly or by priority.

    A start is any row but LAST ones whose n-step window lies inside the rows held; the window ends
    early at a LAST row and bootstraps from it with that row's discount. A window is dropped when a
    FIRST row cuts it without a LAST one before, as an environment of one's own might begin anew.

    Args:
        key: random key.
        replay: at least `min_rows(n_step)` rows.
        batch_size: B.
        n_step: length of the return.
        gamma: discount per step.
        read: `stacked_frames(...)` or `latents`.
        beta: how far the weights make up for priorities, from 0 (not) to 1 (fully).
        env: i32[], the only environment to draw from, uniformly. None: from all.

    Returns:
        The batch, and where its transitions begin. `reward` f32[B] is the discounted sum,
        `discount` f32[B] = gamma^m times the environment's discounts, m <= n steps to `next_obs`;
        `weight` f32[B] = priority^-beta over the largest of the batch.
    """
    draw_key, obs_key, next_key = jax.random.split(key, 3)
    age, envs, steps = _draw_starts(draw_key, replay, batch_size, n_step, env)
    start = Start(slot(replay, age), envs)
    weight = jnp.ones(batch_size, jnp.float32)
    if replay.priorities is not None:
        weight = replay.priorities.values[start] ** -beta
        weight = weight / jnp.max(weight)
    window = slot(replay, jnp.minimum(age[:, None] + jnp.arange(1, n_step + 1), replay.size - 1))
    reward = replay.rows.reward[window, envs[:, None]]
    discount = replay.rows.discount[window, envs[:, None]]
    inside = jnp.arange(1, n_step + 1) <= steps[:, None]
    # factor[i] = gamma^i times the discounts that came before reward i.
    after = jnp.cumprod(jnp.where(inside, gamma * discount, 1.0), axis=1)
    before = jnp.concatenate([jnp.ones_like(after[:, :1]), after[:, :-1]], axis=1)
    batch = Transition(
        obs=read(replay, age, envs, obs_key),
        action=_read(replay.rows.action, *start),
        reward=jnp.sum(jnp.where(inside, before * reward, 0.0), axis=1),
        discount=after[:, -1],
        next_obs=read(replay, age + steps, envs, next_key),
        weight=weight,
    )
    return batch, start


def update_priorities(
    priorities: Priorities, start: Start, errors: Array, exponent: float
) -> Priorities:
    """Sets the priorities of a batch by its errors f32[B] (their sign does not count). Where one is
    not finite, as the run has diverged, `sample` must still find starts until the loop says so."""
    new = (jnp.abs(errors) + 1e-6) ** exponent  # above 0: no transition is lost for good
    # Below what a sum over a ring of them could make infinite.
    new = jnp.where(jnp.isfinite(new), jnp.minimum(new, 1e30), priorities.highest)
    return Priorities(
        priorities.values.at[start].set(new), jnp.maximum(priorities.highest, jnp.max(new))
    )


def _draw_starts(
    key: Key, replay: Replay, batch_size: int, n_step: int, only: Array | None
) -> tuple[Array, Array, Array]:
    """Ages, environments and lengths i32[B] of valid windows; invalid draws are drawn again."""
    num_envs = replay.rows.reward.shape[1]
    by_priority = None
    if replay.priorities is not None:
        by_priority = _draw_by_priority(_drawable(replay, n_step).reshape(-1), batch_size)

    def draw(key: Key) -> tuple[Array, Array, Array, Array]:
        age_key, env_key = jax.random.split(key)
        if by_priority is not None:
            index, env = jnp.divmod(by_priority(key), num_envs)
            age = (index - replay.position + replay.size) % get_capacity(replay)
        else:
            age = jax.random.randint(age_key, (batch_size,), 0, replay.size - 1)
            env = jax.random.randint(env_key, (batch_size,), 0, num_envs)
        if only is not None:
            env = jnp.full_like(env, only)
        return age, env, *_window_length(replay, age, env, n_step)

    def redraw(carry: tuple) -> tuple:
        key, drawn = carry
        key, draw_key = jax.random.split(key)
        keep = lambda old, new: jnp.where(drawn[-1], old, new)
        return key, jax.tree.map(keep, drawn, draw(draw_key))

    key, first_key = jax.random.split(key)
    any_invalid = lambda carry: ~jnp.all(carry[1][-1])
    _, drawn = jax.lax.while_loop(any_invalid, redraw, (key, draw(first_key)))
    return drawn[:3]


def _drawable(replay: Replay, n_step: int) -> Array:
    """Priorities f32[capacity, N], 0 where a window has not ended yet. Those newest rows have the
    highest priority there is: if one error exploded, they would take all of the probability, and
    every draw would be invalid."""
    assert replay.priorities is not None
    shape = n_step, replay.rows.reward.shape[1]
    age = jnp.broadcast_to(replay.size - 1 - jnp.arange(n_step)[:, None], shape)
    env = jnp.broadcast_to(jnp.arange(shape[1]), shape)
    _, valid = _window_length(replay, age.reshape(-1), env.reshape(-1), n_step)
    return replay.priorities.values.at[slot(replay, age), env].multiply(valid.reshape(shape))


def _draw_by_priority(values: Array, batch_size: int) -> Callable[[Key], Array]:
    """Draws indices i32[batch_size] of f32[M] in proportion to its values.

    In steps, a block, a part of it and a value in that, with a random number for each: one float32
    cannot tell a million values apart, nor can its running sum.
    """
    blocks = jnp.pad(values, (0, -values.size % _PART**2)).reshape(-1, _PART, _PART)
    parts = jnp.sum(blocks, axis=2)
    block_ends = jnp.cumsum(jnp.sum(parts, axis=1))

    def draw(key: Key) -> Array:
        block_key, part_key, value_key = jax.random.split(key, 3)
        aim = jax.random.uniform(block_key, (batch_size,)) * block_ends[-1]
        block = jnp.searchsorted(block_ends, aim, side="right")
        part = _pick(part_key, parts[block])
        value = _pick(value_key, blocks[block, part])
        return (block * _PART + part) * _PART + value

    return draw


def _pick(key: Key, values: Array) -> Array:
    """An index i32[B] into each row of f32[B, M], in proportion to its values."""
    ends = jnp.cumsum(values, axis=1)
    aim = jax.random.uniform(key, (len(values),)) * ends[:, -1]
    return jnp.sum(ends <= aim[:, None], axis=1)


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


def stacked_frames(obs_shape: tuple[int, int, int], stack: int, pad: StackPad) -> Reader:
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
        ][..., : math.prod(obs_shape)]
        if pad == "zeros":
            frames = jnp.where((jnp.arange(stack) <= limit)[..., None], frames, 0)
        # Apart: fused with what reads them, XLA's CPU compiler looks up each pixel's row anew.
        return jax.lax.optimization_barrier(frames_to_obs(frames[:, ::-1], obs_shape))

    return read


def latents(replay: Replay, age: Array, env: Array, key: Key) -> PyTree:
    """A `Reader` of rows that hold latents [K, ...]: one of the K copies, drawn for each sample.

    All leaves of a sample come from the same copy. Returns leaves f32[B, ...].
    """
    copies = jax.tree.leaves(replay.rows.obs)[0].shape[2]
    copy = jax.random.randint(key, age.shape, 0, copies)
    at = slot(replay, age), env, copy
    picked = jax.tree.map(lambda x: _read(x, *at), replay.rows.obs)
    return quantise.decode(picked, replay.scale)


def _read(rows: Array, *at: Array) -> Array:
    """`rows[at]`, numbers or vectors, at indices i32[B] each."""
    if rows.ndim == len(at):
        return rows[at]
    return jax.lax.platform_dependent(
        rows, *at, default=lambda rows, *at: rows[at], tpu=_read_by_number
    )


def _read_by_number(rows: Array, *at: Array) -> Array:
    """Vectors `rows[at]`, each number by an index of its own: to read whole vectors a TPU would
    first bring all of `rows` into another layout."""
    return rows[*(index[:, None] for index in at), jnp.arange(rows.shape[-1])]


def frames_to_obs(frames: Array, obs_shape: tuple[int, int, int]) -> Array:
    """Flat frames u8[B, k, H*W*C], oldest first -> u8[B, H, W, k*C]."""
    batch, stack = frames.shape[:2]
    height, width, channels = obs_shape
    images = frames.reshape(batch, stack, height, width, channels)
    return images.transpose(0, 2, 3, 1, 4).reshape(batch, height, width, stack * channels)
