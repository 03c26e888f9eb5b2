"""The two programs of the training loop, the one of evaluation and those of the freeze, compiled.

This file decides what is donated, what is static, and how several learners, or the batches of one,
are spread over devices. When the encoder has moved to `state.frozen`, each program is traced once
more.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from seer_jax import conv, memory, programs, seeds, settling
from seer_jax import replay as replay_lib
from seer_jax.config import Config
from seer_jax.replay import Priorities, Replay
from seer_jax.types import (
    Agent,
    AgentState,
    Array,
    EnvSpec,
    Key,
    Metrics,
    PyTree,
    TimeStep,
    UserError,
)


class Functions(NamedTuple):
    """Compiled programs. What comes back changed is donated.

    init(key) -> state
    place(state, replay, stack) -> the same, spread over devices or states `Apart`, as the programs
        return them: none is then compiled for two layouts
    empty_stack(N) -> stack u8[N, k, H*W*C]
    act_and_store(state, replay, stack, timestep, key, iteration, random=)
        -> action, replay, stack, metrics
    learn(state, priorities, replay without them, key, update, beta) -> state, priorities, metrics
    act(state, stack, timestep, key, iteration) -> greedy action, stack
    encode_rows(frozen state, replay, age i32[R], key, number to fold in) -> latents [R, N, K, ...]
    draw_probe(replay, key) -> probe u8[P, H, W, k*C]
    look(first, half, present encoder, probe) -> similarity, movement

    Timesteps and counters are given as they are, numpy arrays: a call moves them to the device in a
    tenth of the time of `jax.device_put`.
    """

    init: jax.stages.Wrapped
    place: Callable[..., tuple]
    empty_stack: Callable[[int], Array]
    act_and_store: jax.stages.Wrapped
    learn: Any
    act: jax.stages.Wrapped
    encode_rows: jax.stages.Wrapped
    draw_probe: jax.stages.Wrapped
    look: jax.stages.Wrapped


def compile_functions(config: Config, agent: Agent, spec: EnvSpec) -> Functions:
    """Compiles the programs of a run.

    Raises:
        UserError: if the devices cannot share its batches evenly.
    """
    read_frames = replay_lib.stacked_frames(spec.obs_shape, config.frame_stack, spec.stack_pad)
    options = _known(conv.compiler_options() | _without_waiting())  # of a CPU or a GPU
    compiled = functools.partial(jax.jit, compiler_options=options)
    share = lambda batch: batch
    devices = seeds.mesh(config.num_seeds)
    whose: Any = None  # how state, replay and stack are spread over devices
    if devices is not None:
        whose = seeds.shardings(devices, (seeds.STATE, seeds.REPLAY, seeds.LEARNERS))
    if config.data_parallel:
        whole, part = _shardings(config.batch_size)
        compiled = functools.partial(compiled, out_shardings=whole)
        share = lambda batch: jax.lax.with_sharding_constraint(batch, part)
        whose = whole, whole, whole
    of_run = of_one = programs.make(config, agent, spec, read_frames, share)
    if config.num_seeds > 1:
        of_run = seeds.lift(of_run)

    def act_and_store(
        state: AgentState,
        replay: Replay,
        stack: Array,
        timestep: TimeStep,
        key: Key,
        iteration: Array,
        random: bool,
    ) -> tuple[Array, Replay, Array, Metrics | None]:
        seen = (stack, timestep, key, iteration)
        row, stack, metrics = of_run.choose(state, replay.scale, *seen, random)
        return row.action, replay_lib.add(replay, row), stack, metrics

    def learn(
        state: AgentState,
        priorities: Priorities | None,  # apart from replay, because only they are donated
        replay: Replay,
        key: Key,
        update: Array,
        beta: Array,
    ) -> tuple[AgentState, Priorities | None, Metrics]:
        return of_run.learn(state, replay.replace(priorities=priorities), key, update, beta)

    def learn_one(
        state: AgentState, replay: Replay, keys: Key, number: Array, update: Array, beta: Array
    ) -> tuple[AgentState, Metrics]:
        state, _, metrics = of_one.learn(state, replay, keys[number], update, beta, number)
        return state, metrics

    def encode_rows(
        state: AgentState, replay: Replay, age: Array, key: Key, number: Array
    ) -> PyTree:
        columns = jnp.arange(replay.rows.reward.shape[1])
        return of_run.encode_rows(state, replay, age, columns, key, number)

    def place(
        state: AgentState, replay: Replay, stack: Array
    ) -> tuple[AgentState | seeds.Apart, Replay, Array]:
        if state.frozen is None and seeds.apart_until_freeze(config.num_seeds):
            return seeds.apart(state), replay, stack
        arrays = state, replay, stack
        return arrays if whose is None else jax.device_put(arrays, whose)

    # What of each argument and result belongs to single learners, where they share devices.
    own, shared = seeds.LEARNERS, seeds.SHARED
    spread = functools.partial(seeds.spread, devices)
    acting = (seeds.STATE, seeds.REPLAY, own, own, own, shared)
    act_and_store = spread(act_and_store, acting, (own, seeds.REPLAY, own, own))
    learning_of = (seeds.STATE, None, seeds.REPLAY, own, shared, shared)
    learn = spread(learn, learning_of, (seeds.STATE, None, own))
    act = spread(of_run.act, (seeds.STATE, own, own, own, shared), (own, own))
    encode_rows = spread(encode_rows, (seeds.STATE, seeds.REPLAY, shared, own, shared), seeds.ROWS)

    # Of the programs that run again and again only this one has large temporaries.
    options_to_learn = options
    if jax.default_backend() == "cpu":
        largest = _largest_array(config, agent, spec)
        options_to_learn = options | _known(memory.spare_temporaries(largest))
    learning = functools.partial(compiled, compiler_options=options_to_learn)
    compiled_learn: Any = learning(learn, donate_argnames=("state", "priorities"))
    if seeds.apart_until_freeze(config.num_seeds):
        of_each = learning(learn_one, donate_argnames="state")
        compiled_learn = _LearnApartUntilFreeze(of_each, compiled_learn)
    frames_shape = (config.frame_stack, math.prod(spec.obs_shape))
    return Functions(
        compiled(of_run.init),
        place,
        lambda n: jnp.zeros((n, *frames_shape), jnp.uint8, device=whose and whose[-1]),
        compiled(act_and_store, static_argnames="random", donate_argnames=("replay", "stack")),
        compiled_learn,
        compiled(act, donate_argnums=1),
        compiled(encode_rows),
        compiled(functools.partial(settling.draw, agent, read_frames)),
        compiled(functools.partial(settling.look, agent)),
    )


def _without_waiting() -> dict[str, Any]:
    """XLA's options, on a GPU: loops and branches are decided there, as parts of a CUDA graph.
    Otherwise the host waits for each condition, and so for the update before it, instead of
    simulating meanwhile."""
    if jax.default_backend() != "gpu":
        return {}
    kinds = "FUSION CUBLAS CUBLASLT CUDNN CUSTOM_CALL DYNAMIC_SLICE_FUSION CONDITIONAL WHILE"
    return {"xla_gpu_enable_command_buffer": ",".join(kinds.split())}


def _known(options: dict[str, Any]) -> dict[str, Any]:
    """Compiler options, or none if this version of XLA does not know one of them: they only save
    time, and may change with each version."""
    try:
        if options:
            jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return options


def _largest_array(config: Config, agent: Agent, spec: EnvSpec) -> int:
    """Bytes of the largest array, float32: a batch of pictures, or what the encoder makes of it."""
    height, width, channels = spec.obs_shape
    pictures = (config.batch_size, height, width, channels * config.frame_stack)
    view = jax.eval_shape(agent.view, jax.ShapeDtypeStruct(pictures, jnp.uint8))
    encoder = jax.eval_shape(agent.init, jax.random.key(0)).encoder
    made: Any = jax.make_jaxpr(agent.encode)(encoder, view)
    sizes = [math.prod(out.aval.shape) for each in made.eqns for out in each.outvars]
    return 4 * max(view.size, *sizes)


class _LearnApartUntilFreeze(NamedTuple):
    """`Functions.learn` of several learners whose states are `Apart` before the freeze."""

    of_one: jax.stages.Wrapped
    of_all: jax.stages.Wrapped

    def __call__(
        self, state: AgentState | seeds.Apart, priorities: None, replay: Replay, *rest: Array
    ) -> tuple[AgentState | seeds.Apart, None, Metrics]:
        if isinstance(state, AgentState):
            return self.of_all(state, priorities, replay, *rest)
        state, metrics = seeds.learn_apart(self.of_one, state, replay, *rest)
        return state, None, metrics


def _shardings(batch_size: int) -> tuple[NamedSharding, NamedSharding]:
    """How arrays lie on all local devices: whole on each, or a part of the batch on each."""
    devices = jax.local_devices()
    if batch_size % len(devices):
        raise UserError(
            f"data_parallel: {len(devices)} devices cannot share a batch of {batch_size} evenly; "
            "choose a multiple as --batch_size."
        )
    mesh = Mesh(np.array(devices), ("batch",))
    return NamedSharding(mesh, P()), NamedSharding(mesh, P("batch"))
