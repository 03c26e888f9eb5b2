"""What a learner does in a step of the loop, as pure functions; `dispatch` compiles them.

They take the phase from the structure of their arguments: the encoder has moved to `state.frozen`
or not.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from seer_jax import freezing, quantise
from seer_jax import replay as replay_lib
from seer_jax.config import Config
from seer_jax.replay import Priorities, Replay
from seer_jax.types import (
    FIRST,
    Agent,
    AgentState,
    Array,
    EnvSpec,
    Key,
    Metrics,
    PyTree,
    Row,
    StackPad,
    TimeStep,
)


class Programs(NamedTuple):
    """The programs of one learner, or of several in the layout of `seeds`.

    init(key) -> state
    choose(state, scale, stack u8[N, k, H*W*C], timestep, key, iteration, random) -> the row to
        store, with the action in it; the new stack; metrics
    learn(state, replay, key, update, beta) -> state, priorities, metrics
    act(state, stack, timestep, key, iteration) -> greedy action, the new stack
    encode_rows(frozen state, replay, age i32[R], envs i32[M], key, number) -> latents
        [R, M, K, ...]
    """

    init: Callable[[Key], AgentState]
    choose: Callable[..., tuple[Row, Array, Metrics | None]]
    learn: Callable[..., tuple[AgentState, Priorities | None, Metrics]]
    act: Callable[..., tuple[Array, Array]]
    encode_rows: Callable[..., PyTree]


def make(
    config: Config,
    agent: Agent,
    spec: EnvSpec,
    read_frames: replay_lib.Reader,
    share: Callable[[PyTree], PyTree],
) -> Programs:
    """The programs of one learner.

    Args:
        config: the run.
        agent: the learner.
        spec: its environment's.
        read_frames: reads its observations from frames.
        share: spreads the batch of an update over devices, or leaves it as it is.
    """
    return Programs(
        agent.init,
        functools.partial(_choose, config, agent, spec),
        functools.partial(_learn, config, agent, read_frames, share),
        functools.partial(_act, agent, spec),
        functools.partial(_encode_rows, config, agent, read_frames),
    )


def _choose(
    config: Config,
    agent: Agent,
    spec: EnvSpec,
    state: AgentState,
    scale: PyTree,
    stack: Array,
    timestep: TimeStep,
    key: Key,
    iteration: Array,
    random: bool,
) -> tuple[Row, Array, Metrics | None]:
    """The row to store, with the action in it, and the new stack."""
    act_key, view_key = jax.random.split(jax.random.fold_in(key, iteration))
    stack = push(stack, timestep, spec.stack_pad)
    obs = replay_lib.frames_to_obs(stack, spec.obs_shape)
    num_envs = stack.shape[0]
    metrics: dict[str, Array] = {}
    if state.frozen is None:
        stored = stack[:, -1]
        latent = None if random else agent.encode(state.encoder, agent.view(obs))
    else:
        latent, copies = freezing.encode_with_copies(
            agent, state.encoder, obs, view_key, config.num_copies
        )
        stored = quantise.encode(copies, scale, config.latent_dtype)
        metrics = quantise.quality(copies, scale, config.latent_dtype)
    if random:
        action = random_action(act_key, spec, num_envs)
    else:
        action = agent.act(state, latent, act_key, False)
    row = Row(stored, action, timestep.reward, timestep.discount, timestep.step_type)
    return row, stack, Metrics.pack(metrics) if metrics else None


def _learn(
    config: Config,
    agent: Agent,
    read_frames: replay_lib.Reader,
    share: Callable[[PyTree], PyTree],
    state: AgentState,
    replay: Replay,
    key: Key,
    update: Array,
    beta: Array,
    env: Array | None = None,
) -> tuple[AgentState, Priorities | None, Metrics]:
    """One update, from all environments or from one of them alone."""
    sample_key, update_key = jax.random.split(jax.random.fold_in(key, update))
    batch, start = replay_lib.sample(
        sample_key,
        replay,
        config.batch_size,
        n_step=config.agent.n_step,
        gamma=config.agent.gamma,
        read=read_frames if state.frozen is None else replay_lib.latents,
        beta=beta,
        env=env,
    )
    state, metrics, errors = agent.update(state, share(batch), update_key)
    priorities = replay.priorities
    if priorities is not None:
        priorities = replay_lib.update_priorities(
            priorities, start, errors, config.priority_exponent
        )
    return state, priorities, Metrics.pack(metrics)


def _act(
    agent: Agent,
    spec: EnvSpec,
    state: AgentState,
    stack: Array,
    timestep: TimeStep,
    key: Key,
    iteration: Array,
) -> tuple[Array, Array]:
    """The greedy action and the new stack."""
    stack = push(stack, timestep, spec.stack_pad)
    obs = replay_lib.frames_to_obs(stack, spec.obs_shape)
    latent = agent.encode(state.encoder, agent.view(obs))
    return agent.act(state, latent, jax.random.fold_in(key, iteration), True), stack


def _encode_rows(
    config: Config,
    agent: Agent,
    read_frames: replay_lib.Reader,
    state: AgentState,
    replay: Replay,
    age: Array,
    envs: Array,
    key: Key,
    number: Array,
) -> PyTree:
    """Latents [R, M, K, ...] of rows: age i32[R], envs i32[M] of them; by the frozen encoder."""
    key = jax.random.fold_in(key, number)
    return freezing.encode_rows(
        agent, state.frozen, replay, age, envs, key, read=read_frames, copies=config.num_copies
    )


def push(stack: Array, timestep: TimeStep, pad: StackPad) -> Array:
    """Appends the newest frame to each stack u8[N, k, H*W*C]; an episode's first one refills it."""
    frame = timestep.obs.reshape(stack.shape[0], 1, -1)
    moved = jnp.concatenate([stack[:, 1:], frame], axis=1)
    if pad == "zeros":
        fresh = jnp.concatenate([jnp.zeros_like(stack[:, 1:]), frame], axis=1)
    else:
        fresh = jnp.broadcast_to(frame, stack.shape)
    return jnp.where((timestep.step_type == FIRST)[:, None, None], fresh, moved)


def random_action(key: Key, spec: EnvSpec, num_envs: int) -> Array:
    """A uniform action for each of N environments: f32[N, A] in [-1, 1], or i32[N]."""
    if spec.num_actions is not None:
        return jax.random.randint(key, (num_envs,), 0, spec.num_actions)
    return jax.random.uniform(key, (num_envs, *spec.action_shape), minval=-1, maxval=1)
