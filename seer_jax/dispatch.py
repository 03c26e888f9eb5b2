"""The two programs of the training loop, the one of evaluation and those of the freeze.

This is where everything is compiled, and where it is said what is donated and what is static. The
programs take the phase from the structure of their arguments: when the encoder has moved to
`state.frozen`, each is traced once more.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from seer_jax import freezing, quantise, settling
from seer_jax import replay as replay_lib
from seer_jax.config import Config
from seer_jax.replay import Priorities, Replay
from seer_jax.types import FIRST, Agent, AgentState, Array, EnvSpec, Key, Row, TimeStep


class Functions(NamedTuple):
    """Compiled programs. What comes back changed is donated."""

    empty_stack: Callable[[int], Array]  # (N) -> stack u8[N, k, H*W*C]
    act_and_store: jax.stages.Wrapped  # (state, replay, stack, timestep, key, iteration, random=)
    #                          -> action, replay, stack, metrics
    learn: jax.stages.Wrapped  # (state, priorities, replay without them, key, update, beta)
    #                          -> state, priorities, metrics
    act: jax.stages.Wrapped  # (state, stack, timestep, key, iteration) -> greedy action, stack
    encode_rows: jax.stages.Wrapped  # (encoder, replay, age i32[R], key) -> latents [R, N, K, ...]
    draw_probe: jax.stages.Wrapped  # (encoder, replay, key) -> probe
    look: jax.stages.Wrapped  # (encoder, probe) -> probe, similarity to the last look


def compile_functions(config: Config, agent: Agent, spec: EnvSpec) -> Functions:
    """Compiles the programs of a run."""
    read_frames = replay_lib.stacked_frames(spec.obs_shape, config.frame_stack, spec.stack_pad)

    def act_and_store(
        state: AgentState,
        replay: Replay,
        stack: Array,
        timestep: TimeStep,
        key: Key,
        iteration: Array,
        random: bool,
    ) -> tuple[Array, Replay, Array, dict[str, Array]]:
        act_key, view_key = jax.random.split(jax.random.fold_in(key, iteration))
        stack = push(stack, timestep, spec.stack_pad)
        obs = replay_lib.frames_to_obs(stack, spec.obs_shape)
        num_envs = spec.num_envs
        metrics: dict[str, Array] = {}
        if state.frozen is None:
            stored = stack[:, -1]
            latent = None if random else agent.encode(state.encoder, agent.view(obs))
        else:
            # One pass through the encoder for the view to act on and the K to store.
            views = agent.view(jnp.repeat(obs, config.num_copies, axis=0), view_key)
            views = jnp.concatenate([agent.view(obs), views])
            latents = agent.encode(state.encoder, views)
            latent = jax.tree.map(lambda x: x[:num_envs], latents)
            copies = jax.tree.map(
                lambda x: x[num_envs:].reshape(num_envs, config.num_copies, *x.shape[1:]), latents
            )
            stored = quantise.encode(copies, replay.scale, config.latent_dtype)
            metrics = quantise.quality(copies, replay.scale, config.latent_dtype)
        if random:
            action = random_action(act_key, spec)
        else:
            action = agent.act(state, latent, act_key, False)
        row = Row(stored, action, timestep.reward, timestep.discount, timestep.step_type)
        return action, replay_lib.add(replay, row), stack, metrics

    def learn(
        state: AgentState,
        priorities: Priorities | None,  # apart from replay, because only they are donated
        replay: Replay,
        key: Key,
        update: Array,
        beta: Array,
    ) -> tuple[AgentState, Priorities | None, dict[str, Array]]:
        sample_key, update_key = jax.random.split(jax.random.fold_in(key, update))
        batch, start = replay_lib.sample(
            sample_key,
            replay.replace(priorities=priorities),
            config.batch_size,
            n_step=config.agent.n_step,
            gamma=config.agent.gamma,
            read=read_frames if state.frozen is None else replay_lib.latents,
            beta=beta,
        )
        state, metrics, errors = agent.update(state, batch, update_key)
        if priorities is not None:
            priorities = replay_lib.update_priorities(
                priorities, start, errors, config.priority_exponent
            )
        return state, priorities, metrics

    def act(
        state: AgentState, stack: Array, timestep: TimeStep, key: Key, iteration: Array
    ) -> tuple[Array, Array]:
        stack = push(stack, timestep, spec.stack_pad)
        obs = replay_lib.frames_to_obs(stack, spec.obs_shape)
        latent = agent.encode(state.encoder, agent.view(obs))
        return agent.act(state, latent, jax.random.fold_in(key, iteration), True), stack

    encode_rows = functools.partial(
        freezing.encode_rows,
        agent,
        read=read_frames,
        copies=config.num_copies,
    )
    frames_shape = (config.frame_stack, math.prod(spec.obs_shape))
    return Functions(
        lambda num_envs: jnp.zeros((num_envs, *frames_shape), jnp.uint8),
        jax.jit(act_and_store, static_argnames="random", donate_argnames=("replay", "stack")),
        jax.jit(learn, donate_argnames=("state", "priorities")),
        jax.jit(act, donate_argnames="stack"),
        jax.jit(encode_rows),
        jax.jit(functools.partial(settling.draw, agent, read_frames)),
        jax.jit(functools.partial(settling.look, agent)),
    )


def push(stack: Array, timestep: TimeStep, pad: str) -> Array:
    """Appends the newest frame to each stack u8[N, k, H*W*C]; an episode's first one refills it."""
    frame = timestep.obs.reshape(stack.shape[0], 1, -1)
    moved = jnp.concatenate([stack[:, 1:], frame], axis=1)
    if pad == "repeat":
        fresh = jnp.broadcast_to(frame, stack.shape)
    else:
        fresh = jnp.concatenate([jnp.zeros_like(stack[:, 1:]), frame], axis=1)
    return jnp.where((timestep.step_type == FIRST)[:, None, None], fresh, moved)


def random_action(key: Key, spec: EnvSpec) -> Array:
    """A uniform action for each environment: f32[N, A] in [-1, 1], or i32[N]."""
    if spec.num_actions is not None:
        return jax.random.randint(key, (spec.num_envs,), 0, spec.num_actions)
    return jax.random.uniform(key, (spec.num_envs, *spec.action_shape), minval=-1, maxval=1)
