"""The freeze: the encoder stops training and replay's frames become latents.

`to_latents` encodes every row held, oldest first, and lets go of the frames before it makes room
for the latents. So at no time is more held than the latents of the rows present and one ring: that
of the frames, or that of the latents.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seer_jax import memory, quantise
from seer_jax import replay as replay_lib
from seer_jax.config import Config, parse_bytes
from seer_jax.replay import Reader, Replay
from seer_jax.types import Agent, Array, EnvSpec, Key, PyTree, Row, UserError

_SCALE_ROWS = 2_048  # of a learner, from which the scale of 8-bit latents is taken
_SHORT_EPISODE = 10  # steps


def encode_copies(agent: Agent, encoder: PyTree, obs: Array, key: Key, copies: int) -> PyTree:
    """Latents of K random views of each observation: u8[B, H, W, k*C] -> leaves f32[B, K, ...]."""
    batch = obs.shape[0]
    views = agent.view(jnp.repeat(obs, copies, axis=0), key)
    latents = agent.encode(encoder, views)
    return jax.tree.map(lambda x: x.reshape(batch, copies, *x.shape[1:]), latents)


def num_views(agent: Agent, copies: int) -> int:
    """Views of an observation that acting and storing encode once the encoder is frozen."""
    return 1 + copies if agent.random_views else 1


def encode_with_copies(
    agent: Agent, encoder: PyTree, obs: Array, key: Key, copies: int
) -> tuple[PyTree, PyTree]:
    """Latents f32[B, ...] of the views to act on and f32[B, K, ...] of the K to store, in one
    pass; without augmentation K is 1 and they are the same."""
    plain = agent.view(obs)
    if not agent.random_views:
        latents = agent.encode(encoder, plain)
        return latents, jax.tree.map(lambda x: x[:, None], latents)
    batch = obs.shape[0]
    views = agent.view(jnp.repeat(obs, copies, axis=0), key)
    latents = agent.encode(encoder, jnp.concatenate([plain, views]))
    return (
        jax.tree.map(lambda x: x[:batch], latents),
        jax.tree.map(lambda x: x[batch:].reshape(batch, copies, *x.shape[1:]), latents),
    )


class Phase(NamedTuple):
    """Replay before the freeze, or after it."""

    row: Row  # ShapeDtypeStructs, leading N
    needed: int  # rows that the run can fill
    capacity: int  # rows that there is room for, of these


class Plan(NamedTuple):
    """Replay in both phases."""

    pixels: Phase
    latents: Phase

    def at(self, frozen: bool) -> Phase:
        """The one of an encoder that is frozen, or not."""
        return self.latents if frozen else self.pixels


def plan(config: Config, agent: Agent, spec: EnvSpec) -> Plan:
    """Sizes replay for both phases from `replay_capacity` or `replay_memory`.

    `replay_capacity` counts the rows of all environments together. Both are for one learner: with
    `num_seeds` above one, each has as much.

    Latents get as many rows as fit in the bytes of the frames, so the budget holds before and after
    the freeze; neither phase gets rows that the run cannot fill (`rows_of`).

    Raises:
        UserError: if the budget does not hold one episode, or the machine not the budget.
    """
    num_envs = spec.num_envs
    scalar = jax.ShapeDtypeStruct((num_envs,), jnp.float32)
    integer = jax.ShapeDtypeStruct((num_envs,), jnp.int32)
    action = jax.ShapeDtypeStruct((num_envs, *spec.action_shape), jnp.float32)
    frame = jax.ShapeDtypeStruct((num_envs, math.prod(spec.obs_shape)), jnp.uint8)
    frame_row = Row(
        frame, integer if spec.num_actions is not None else action, scalar, scalar, integer
    )
    height, width, channels = spec.obs_shape
    obs = jax.ShapeDtypeStruct((num_envs, height, width, channels * config.frame_stack), jnp.uint8)

    def latents(key: Key, obs: Array) -> PyTree:
        frozen = agent.freeze(agent.init(key)).frozen
        copies = encode_copies(agent, frozen, obs, key, config.num_copies)
        return jax.tree.map(lambda x: x.astype(config.latent_dtype), copies)

    latent_row = frame_row._replace(obs=jax.eval_shape(latents, jax.random.key(0), obs))

    envs = num_envs // config.num_seeds  # of one learner
    budget = config.replay_capacity * replay_lib.row_bytes(frame_row) // envs
    if config.replay_memory is not None:
        budget = parse_bytes(config.replay_memory) * config.num_seeds
    phases = []
    for row, steps in ((frame_row, config.pixel_steps), (latent_row, config.num_steps)):
        needed = rows_of(steps, spec.episode_steps, envs)
        phases.append(Phase(row, needed, min(budget // replay_lib.row_bytes(row), needed)))
    _check_budget(config, spec, budget, phases[:1] if config.never_freezes else phases)
    return Plan(*phases)


def rows_of(steps: int, episode_steps: int | None, num_envs: int) -> int:
    """Rows that so many agent steps write: each episode has one row more than steps.

    Where episodes vary in length, their mean is taken to be at least `_SHORT_EPISODE` steps; with
    shorter ones the oldest rows are overwritten.
    """
    steps = -(-steps // num_envs)
    return steps + steps // (episode_steps or _SHORT_EPISODE) + 2


def _check_budget(config: Config, spec: EnvSpec, budget: int, phases: list[Phase]) -> None:
    # An episode has one row more than steps; below min_rows `sample` may find nothing.
    episode = max((spec.episode_steps or 0) + 1, replay_lib.min_rows(config.agent.n_step))
    sizes = [replay_lib.row_bytes(phase.row) for phase in phases]
    for (_, needed, capacity), size in zip(phases, sizes, strict=True):
        least = min(episode, needed)
        if capacity < least:
            envs = spec.num_envs // config.num_seeds
            raise UserError(
                f"Replay of {budget / 2**20:.1f} MiB holds {capacity} rows of {size:,} bytes, and "
                f"the run needs {least}: raise --replay_memory to "
                f"{math.ceil(least * size / config.num_seeds / 2**20)}MiB or "
                f"--replay_capacity to {math.ceil(least * size * envs / sizes[0])}."
            )
    largest = max(phase.capacity * size for phase, size in zip(phases, sizes, strict=True))
    if len(phases) > 1:  # the freeze holds the latents of the rows present beside either ring
        largest += min(phase.capacity for phase in phases) * sizes[1]
    available = memory.available_bytes(memory.shared_devices(config.num_seeds))
    if available is not None and largest > available:
        raise UserError(
            f"Replay needs {largest / 2**30:.1f} GiB and {available / 2**30:.1f} GiB are free: "
            "lower --replay_memory or --replay_capacity."
        )


def encode_rows(
    agent: Agent,
    encoder: PyTree,
    replay: Replay,
    age: Array,
    envs: Array,
    key: Key,
    *,
    read: Reader,
    copies: int,
) -> PyTree:
    """Latents of rows: age i32[R], envs i32[M] of them -> leaves f32[R, M, K, ...]."""
    shape = (age.shape[0], envs.shape[0])
    obs = read(replay, jnp.repeat(age, shape[1]), jnp.tile(envs, shape[0]), key)
    latents = encode_copies(agent, encoder, obs, key, copies)
    return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), latents)


def to_latents(
    replay: Replay,
    encode: Callable[[Replay, Array | np.ndarray, int], PyTree],
    *,
    row: Row,
    capacity: int,
    chunk: int,
    several: bool = False,
    init: Callable[..., Replay] = replay_lib.init,
) -> tuple[Replay, dict[str, np.ndarray], int]:
    """Turns a replay of frames into one of latents.

    Args:
        replay: of frames; consumed: its arrays are deleted.
        encode: (replay, age i32[chunk], number) -> latents f32[chunk, N, K, ...] of those rows,
            compiled; the number is another each time, to draw the crops by.
        row: of the new replay; its dtype says how latents are stored.
        capacity: of the new replay. If it is below the rows held, the oldest are dropped.
        chunk: rows encoded at a time.
        several: each environment is a learner's own, with a scale of its own.
        init: makes the empty replay, of (capacity, row, prioritised).

    Returns:
        A replay of the newest rows, in the same order; what storing them cost,
        `quantise.quality`, means over the chunks, f32[] or with `several` f32[N]; how many rows
        were encoded for it.
    """
    size = int(replay.size)
    held = min(size, capacity)
    first, dtype = size - held, jax.tree.leaves(row.obs)[0].dtype.name
    encoded = held
    scale = None
    if dtype in quantise.LARGEST_CODE:
        sampled = min(_SCALE_ROWS if several else _SCALE_ROWS // replay.rows.reward.shape[1], held)
        ages = np.linspace(first, size - 1, -(-sampled // chunk) * chunk).astype(int)
        # Numbers from size on: the chunks below have those before it.
        latents = (encode(replay, age, size + i) for i, age in enumerate(ages.reshape(-1, chunk)))
        scale = quantise.fit(latents, dtype, several)
        encoded += ages.size
    priorities = replay.priorities
    kept = replay.rows._replace(obs=None), priorities and priorities.values
    parts, qualities = [], []
    for start in range(first, size, chunk):
        # The last chunk is filled up with the newest row; what is too much is cut off.
        age = jnp.minimum(jnp.arange(start, start + chunk), size - 1)
        latents = encode(replay, age, start)
        rows, values = _take(kept, replay_lib.slot(replay, age))
        stored, quality = store(latents, scale, dtype, several)
        parts.append(_take((rows._replace(obs=stored), values), slice(size - start)))
        qualities.append(quality)
    jax.block_until_ready(parts)
    for x in jax.tree.leaves(replay.rows):
        x.delete()
    converted = init(capacity, row, priorities is not None)
    target: PyTree = (converted.rows, converted.priorities and converted.priorities.values)
    start = 0
    for part in parts:
        target = replay_lib.write_rows(target, part, start)
        start += len(part[0].reward)
    rows, values = target
    converted = converted.replace(
        rows=rows,
        position=jnp.int32(held % capacity),
        size=jnp.int32(held),
        priorities=priorities and replay_lib.Priorities(values, priorities.highest),
        scale=scale,
    )
    names = qualities[0] if qualities else ()
    quality = {name: np.mean([q[name] for q in qualities], axis=0) for name in names}
    return converted, quality, encoded


@functools.partial(jax.jit, static_argnames=("dtype", "several"))
def store(
    latents: PyTree, scale: PyTree, dtype: str, several: bool
) -> tuple[PyTree, dict[str, Array]]:
    """Latents [R, N, K, ...] as replay keeps them, and `quantise.quality`, for several learners
    f32[N]."""

    def of_one(latents: PyTree, scale: PyTree) -> tuple[PyTree, dict[str, Array]]:
        return quantise.encode(latents, scale, dtype), quantise.quality(latents, scale, dtype)

    if several:
        of_one = jax.vmap(of_one, in_axes=(1, 0), out_axes=(1, 0))
    return of_one(latents, scale)


def _take(tree: PyTree, index: Array | slice) -> PyTree:
    return jax.tree.map(lambda x: x[index], tree)
