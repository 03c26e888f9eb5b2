"""Several learners in one program: `--num_seeds=S` trains S runs that differ in their seed alone.

Each has parameters, a random stream, an environment and a column of replay of its own:

    state        leaves [S, ...], but for `step`, which they share
    keys         [S]
    replay rows  [capacity, S, ...], environment s being learner s's; scale f32[S, L] a leaf
    stack        u8[S, k, H*W*C]

The agent knows nothing of it: what is mapped here are the programs of one learner with one
environment. Where an encoder runs on batches they go one after another, as convolutions of as many
kernels as examples are slow; what is left after the freeze is batched, and one matmul serves all.
Acting, on a picture or a few, is batched on accelerators, whose time goes into starting kernels.

Where there are several devices, each takes an equal part of the learners. They never communicate.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from seer_jax.programs import Programs
from seer_jax.replay import Replay
from seer_jax.types import AgentState, Array, Key, PyTree, TimeStep

_AXIS = "seed"
_UNROLLED = 4  # learners that follow one another in a program for an accelerator
# How arrays are spread over devices.
LEARNERS: Any = P(_AXIS)
ROWS: Any = P(None, _AXIS)
SHARED: Any = P()
STATE = AgentState(LEARNERS, LEARNERS, LEARNERS, LEARNERS, SHARED)
REPLAY = Replay(ROWS, SHARED, SHARED, None, LEARNERS)


def keys(seeds: list[int]) -> Key:
    """A random key for each of several seeds, [S]; the key of a single one as it is."""
    each = [jax.random.key(seed) for seed in seeds]
    return jnp.stack(each) if len(each) > 1 else each[0]


def pick(arrays: dict[str, np.ndarray], learner: int) -> dict[str, np.ndarray]:
    """One learner's part of a saved state, arrays by path."""
    return {path: x if path == ".step" else x[learner] for path, x in arrays.items()}


def mesh(num_seeds: int) -> Mesh | None:
    """The devices to spread learners over, as many as share them evenly; None if that is one."""
    devices = jax.local_devices()
    count = max(n for n in range(1, len(devices) + 1) if num_seeds % n == 0)
    return Mesh(np.array(devices[:count]), (_AXIS,)) if count > 1 else None


def spread(devices: Mesh | None, program: Callable, arguments: PyTree, results: PyTree) -> Callable:
    """A program of which each device does its part; `arguments` and `results` say what is whose."""
    if devices is None:
        return program
    return jax.shard_map(
        program, mesh=devices, in_specs=arguments, out_specs=results, check_vma=False
    )


def lift(one: Programs) -> Programs:
    """The programs of several learners from those of one with one environment."""

    def init(key: Key) -> AgentState:
        state = jax.lax.map(one.init, key)
        return state.replace(step=state.step[0])

    def choose(
        state: AgentState, scale: PyTree, stack: Array, timestep: TimeStep, key: Key, *shared: Any
    ) -> tuple:
        def program(state: AgentState, scale: PyTree, seen: PyTree, key: Key) -> tuple:
            row, stack, metrics = one.choose(state, scale, *_batch(seen), key, *shared)
            return *_unbatch((row, stack)), metrics

        return _each(program, state, scale, (stack, timestep), key, batched=_on_accelerator())

    def learn(state: AgentState, replay: Replay, key: Key, *shared: Array) -> tuple:
        def program(state: AgentState, scale: PyTree, key: Key, env: Array) -> tuple:
            own = replay.replace(scale=scale)
            state, _, metrics = one.learn(state, own, key, *shared, env)
            return state.replace(step=None), metrics

        envs = jnp.arange(key.shape[0])
        learned, metrics = _each(
            program, state, replay.scale, key, envs, batched=state.frozen is not None
        )
        return learned.replace(step=state.step + 1), None, metrics

    def act(state: AgentState, stack: Array, timestep: TimeStep, key: Key, *shared: Array) -> tuple:
        def program(state: AgentState, seen: PyTree, key: Key) -> tuple:
            return _unbatch(one.act(state, *_batch(seen), key, *shared))

        return _each(program, state, (stack, timestep), key, batched=_on_accelerator())

    def encode_rows(
        state: AgentState, replay: Replay, age: Array, envs: Array, key: Key, number: Array
    ) -> PyTree:
        def program(state: AgentState, key: Key, env: Array) -> PyTree:
            return one.encode_rows(state, replay, age, env[None], key, number)

        latents = _each(program, state, key, envs, batched=False)
        return jax.tree.map(lambda x: jnp.moveaxis(x[:, :, 0], 0, 1), latents)

    return Programs(init, choose, learn, act, encode_rows)


def _each(program: Callable, state: AgentState, *arguments: PyTree, batched: bool) -> Any:
    """Runs a program of one learner for every learner.

    Args:
        program: takes a learner's state and its part of each argument.
        state: of all.
        arguments: leaves [S, ...].
        batched: all at once instead of one after another.

    Returns:
        What the program returns, leaves [S, ...].
    """

    def of_one(part: PyTree) -> Any:
        learner, *own = part
        # Shared, because the program branches on it: batched, it would take both branches.
        return program(learner.replace(step=state.step), *own)

    parts = (state.replace(step=None), *arguments)
    if batched:
        return jax.vmap(of_one)(parts)
    # In a loop XLA's CPU programs take three times as long (four learners of `quick`, two cores),
    # a GPU's a sixth longer (three of `paper`, H100), but there compiling takes its time.
    unroll = _UNROLLED if _on_accelerator() else True
    return jax.lax.scan(lambda _, part: (None, of_one(part)), None, parts, unroll=unroll)[1]


def _on_accelerator() -> bool:
    return jax.default_backend() != "cpu"


def _batch(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x[None], tree)


def _unbatch(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x[0], tree)
