"""Several learners in one program: `--num_seeds=S` trains S runs that differ in their seed alone.

Each has parameters, a random stream, an environment and a column of replay of its own:

    state        leaves [S, ...], but for `step`, which they share
    keys         [S]
    replay rows  [capacity, S, ...], environment s being learner s's; scale f32[S, L] a leaf
    stack        u8[S, k, H*W*C]

The agent knows nothing of it: what is mapped here are the programs of one learner with one
environment. An encoder runs on batches of one learner after another: batched over learners, its
convolutions would be grouped ones, which are slow. What is left after the freeze is batched, and
one matmul serves all.
Acting, on a picture or a few, is batched on accelerators, whose time goes into starting kernels.

On a CPU or a TPU, one learner's update before the freeze keeps all of it busy, and cutting its
state out of those of all would come on top (by a TPU's compiler nearly as long as the update): on a
single one the states are `Apart` until the freeze.

Where there are several devices, each takes an equal part of the learners. They never communicate.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from seer_jax import memory
from seer_jax import replay as replay_lib
from seer_jax.programs import Programs
from seer_jax.replay import Replay
from seer_jax.types import AgentState, Array, Key, Metrics, PyTree, Row, TimeStep

_AXIS = "seed"
# How arrays are spread over devices.
LEARNERS: Any = P(_AXIS)
ROWS: Any = P(None, _AXIS)
SHARED: Any = P()
STATE = AgentState(LEARNERS, LEARNERS, LEARNERS, LEARNERS, SHARED)
REPLAY = Replay(ROWS, SHARED, SHARED, None, LEARNERS)


class Apart(flax.struct.PyTreeNode):
    """States of several learners before the freeze, each with arrays of its own."""

    each: tuple[AgentState, ...]

    @property
    def frozen(self) -> None:
        """None, as in an `AgentState` before the freeze."""
        return None


def apart(state: AgentState) -> Apart:
    """The states of all learners, one by one. No two share an array, so each can be donated."""
    step, count = state.step, jax.tree.leaves(state.params)[0].shape[0]
    cut = lambda i: jax.tree.map(lambda x: x[i], state.replace(step=None))
    return Apart(tuple(cut(i).replace(step=jnp.copy(step)) for i in range(count)))


def together(state: AgentState | Apart) -> AgentState:
    """States in the layout above, if they are not in it."""
    if isinstance(state, AgentState):
        return state
    step = state.each[0].step
    parts = [part.replace(step=None) for part in state.each]
    return jax.tree.map(lambda *x: jnp.stack(x), *parts).replace(step=step)


def keys(seeds: list[int]) -> Key:
    """A random key for each of several seeds, [S]; the key of a single one as it is."""
    each = [jax.random.key(seed) for seed in seeds]
    return jnp.stack(each) if len(each) > 1 else each[0]


def pick(arrays: dict[str, np.ndarray], learner: int) -> dict[str, np.ndarray]:
    """One learner's part of a saved state, arrays by path."""
    return {path: x if path == ".step" else x[learner] for path, x in arrays.items()}


def mesh(num_seeds: int) -> Mesh | None:
    """The devices to spread learners over, as many as share them evenly; None if that is one."""
    devices = memory.shared_devices(num_seeds)
    return Mesh(np.array(devices), (_AXIS,)) if len(devices) > 1 else None


def empty_replay(num_seeds: int, capacity: int, row: Row, prioritised: bool = False) -> Replay:
    """`replay.init`, of which each device that shares the learners holds their part alone."""
    make = functools.partial(replay_lib.init, capacity, row, prioritised)
    if (devices := mesh(num_seeds)) is None:
        return make()
    return jax.jit(make, out_shardings=shardings(devices, REPLAY))()


def shardings(devices: Mesh, parts: PyTree) -> PyTree:
    """`PartitionSpec`s as what places arrays."""
    of_part = functools.partial(NamedSharding, devices)
    return jax.tree.map(of_part, parts, is_leaf=lambda x: isinstance(x, P))


def apart_until_freeze(num_seeds: int) -> bool:
    """Whether the states of learners are `Apart` until the freeze."""
    return num_seeds > 1 and mesh(num_seeds) is None and jax.default_backend() != "gpu"


def spread(devices: Mesh | None, program: Callable, arguments: PyTree, results: PyTree) -> Callable:
    """A program of which each device does its part, and whose learners may be `Apart`.

    Args:
        devices: to spread learners over, or None.
        program: takes the state of all, other arguments, and static ones by name.
        arguments, results: whose their parts are, as `PartitionSpec`s.
    """

    @functools.wraps(program)
    def spread_program(state: AgentState | Apart, *rest: PyTree, **static: Any) -> Any:
        of_part = functools.partial(program, **static)
        if devices is not None:
            of_part = jax.shard_map(
                of_part, mesh=devices, in_specs=arguments, out_specs=results, check_vma=False
            )
        return of_part(together(state), *rest)

    return spread_program


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
        def program(state: AgentState, env: Array, scale: PyTree, key: Key) -> tuple:
            own = replay.replace(scale=scale)
            state, _, metrics = one.learn(state, own, key, *shared, env)
            return state.replace(step=None), metrics

        own = (jnp.arange(key.shape[0]), replay.scale, key)
        if state.frozen is None:
            learned, metrics = _each_in_place(program, state, *own)
        else:
            learned, metrics = _each(program, state, *own, batched=True)
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


def learn_apart(
    one: Callable[..., tuple[AgentState, Metrics]],
    state: Apart,
    replay: Replay,
    key: Key,
    *shared: Array,
) -> tuple[Apart, Metrics]:
    """An update of each learner by itself.

    Args:
        one: compiled (state, replay, keys [S], number, *shared) -> state, metrics, of the learner
            of that number.
        state: of all, donated.
        replay: of all.
        key: [S].
        shared: what is the same for all.
    """
    learned = [one(own, replay, key, np.int32(i), *shared) for i, own in enumerate(state.each)]
    states, metrics = zip(*learned, strict=True)
    return Apart(states), jax.tree.map(lambda *x: jnp.stack(x), *metrics)


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
    parts = (state.replace(step=None), *arguments)
    run = functools.partial(_run, program, state.step)
    if batched:
        return jax.vmap(run)(*parts)
    return jax.lax.scan(lambda _, part: (None, run(*part)), None, parts, unroll=_unroll())[1]


def _each_in_place(
    program: Callable, state: AgentState, number: Array, *arguments: PyTree
) -> tuple:
    """`_each`, one after another, of a program that returns a learner's new state and more. The new
    ones are written over the old; `_each` would stack them in new arrays.

    Args:
        program: takes a learner's state, its number and its part of each argument.
        state: of all.
        number: 0 to S - 1.
        arguments: leaves [S, ...].

    Returns:
        The new states, and the rest with leaves [S, ...].
    """

    def one(states: AgentState, own: tuple) -> tuple:
        i = own[0]
        read = lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False)
        write = lambda x, new: jax.lax.dynamic_update_index_in_dim(x, new, i, axis=0)
        new, rest = _run(program, state.step, jax.tree.map(read, states), *own)
        return jax.tree.map(write, states, new), rest

    parts = (number, *arguments)
    return jax.lax.scan(one, state.replace(step=None), parts, unroll=_unroll())


def _run(program: Callable, step: Array, learner: AgentState, *own: PyTree) -> Any:
    # The step is shared, because programs branch on it: batched, it would take both branches.
    return program(learner.replace(step=step), *own)


def _unroll() -> int:
    """How many learners are written out: compiling them takes its time, but a GPU takes a sixth
    longer for a loop (three learners of `paper`, H100). A CPU is faster with one. For a TPU a loop
    of four is compiled in a third of the time and takes a tenth longer, by its compiler's estimate.
    """
    return 4 if jax.default_backend() == "gpu" else 1


def _on_accelerator() -> bool:
    return jax.default_backend() != "cpu"


def _batch(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x[None], tree)


def _unbatch(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x[0], tree)
