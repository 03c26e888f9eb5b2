"""The two programs of the training loop, the one of evaluation and those of the freeze.

This is where everything is compiled, and where it is said what is donated and what is static. The
programs take the phase from the structure of their arguments: when the encoder has moved to
`state.frozen`, each is traced once more. With `num_seeds` above one they serve several learners, in
the layout that `seeds` describes.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from seer_jax import freezing, quantise, seeds, settling
from seer_jax import replay as replay_lib
from seer_jax.config import Config
from seer_jax.replay import Priorities, Replay
from seer_jax.types import FIRST, Agent, AgentState, Array, EnvSpec, Key, PyTree, Row, TimeStep


class Functions(NamedTuple):
    """Compiled programs. What comes back changed is donated."""

    init: jax.stages.Wrapped  # (key) -> state
    empty_stack: Callable[[int], Array]  # (N) -> stack u8[N, k, H*W*C]
    act_and_store: jax.stages.Wrapped  # (state, replay, stack, timestep, key, iteration, random=)
    #                          -> action, replay, stack, metrics
    learn: jax.stages.Wrapped  # (state, priorities, replay without them, key, update, beta)
    #                          -> state, priorities, metrics
    act: jax.stages.Wrapped  # (state, stack, timestep, key, iteration) -> greedy action, stack
    encode_rows: jax.stages.Wrapped  # (frozen state, replay, age i32[R], key, number to fold in)
    #                          -> latents [R, N, K, ...]
    draw_probe: jax.stages.Wrapped  # (encoder, replay, key) -> probe
    look: jax.stages.Wrapped  # (encoder, probe) -> probe, similarity to the last look


def compile_functions(config: Config, agent: Agent, spec: EnvSpec) -> Functions:
    """Compiles the programs of a run."""
    read_frames = replay_lib.stacked_frames(spec.obs_shape, config.frame_stack, spec.stack_pad)

    several = config.num_seeds > 1

    def choose(
        state: AgentState,
        scale: PyTree,
        stack: Array,
        timestep: TimeStep,
        key: Key,
        iteration: Array,
        random: bool,
    ) -> tuple[Row, Array, dict[str, Array]]:
        """The row to store, the action in it, and the new stack: one learner, N environments."""
        act_key, view_key = jax.random.split(jax.random.fold_in(key, iteration))
        stack = push(stack, timestep, spec.stack_pad)
        obs = replay_lib.frames_to_obs(stack, spec.obs_shape)
        num_envs = stack.shape[0]
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
            stored = quantise.encode(copies, scale, config.latent_dtype)
            metrics = quantise.quality(copies, scale, config.latent_dtype)
        if random:
            action = random_action(act_key, spec, num_envs)
        else:
            action = agent.act(state, latent, act_key, False)
        row = Row(stored, action, timestep.reward, timestep.discount, timestep.step_type)
        return row, stack, metrics

    def act_and_store(
        state: AgentState,
        replay: Replay,
        stack: Array,
        timestep: TimeStep,
        key: Key,
        iteration: Array,
        random: bool,
    ) -> tuple[Array, Replay, Array, dict[str, Array]]:
        if several:

            def one(state: AgentState, *own: PyTree) -> tuple:
                scale, stack, timestep, key = own
                stack, timestep = jax.tree.map(lambda x: x[None], (stack, timestep))
                row, stack, metrics = choose(state, scale, stack, timestep, key, iteration, random)
                return *jax.tree.map(lambda x: x[0], (row, stack)), metrics

            row, stack, metrics = seeds.each(
                one, state, replay.scale, stack, timestep, key, batched=False
            )
        else:
            row, stack, metrics = choose(
                state, replay.scale, stack, timestep, key, iteration, random
            )
        return row.action, replay_lib.add(replay, row), stack, metrics

    def learn_one(
        state: AgentState,
        replay: Replay,
        key: Key,
        update: Array,
        beta: Array,
        env: Array | None = None,
    ) -> tuple[AgentState, Priorities | None, dict[str, Array]]:
        """One update from all environments, or from one of them."""
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
        state, metrics, errors = agent.update(state, batch, update_key)
        priorities = replay.priorities
        if priorities is not None:
            priorities = replay_lib.update_priorities(
                priorities, start, errors, config.priority_exponent
            )
        return state, priorities, metrics

    def learn(
        state: AgentState,
        priorities: Priorities | None,  # apart from replay, because only they are donated
        replay: Replay,
        key: Key,
        update: Array,
        beta: Array,
    ) -> tuple[AgentState, Priorities | None, dict[str, Array]]:
        if not several:
            return learn_one(state, replay.replace(priorities=priorities), key, update, beta)

        def one(state: AgentState, *own: PyTree) -> tuple[AgentState, dict[str, Array]]:
            scale, key, env = own
            state, _, metrics = learn_one(
                state, replay.replace(scale=scale), key, update, beta, env
            )
            return state.replace(step=None), metrics

        learned, metrics = seeds.each(
            one,
            state,
            replay.scale,
            key,
            jnp.arange(config.num_seeds),
            batched=state.frozen is not None,
        )
        return learned.replace(step=state.step + 1), None, metrics

    def act_greedily(
        state: AgentState, stack: Array, timestep: TimeStep, key: Key, iteration: Array
    ) -> tuple[Array, Array]:
        stack = push(stack, timestep, spec.stack_pad)
        obs = replay_lib.frames_to_obs(stack, spec.obs_shape)
        latent = agent.encode(state.encoder, agent.view(obs))
        return agent.act(state, latent, jax.random.fold_in(key, iteration), True), stack

    def act(
        state: AgentState, stack: Array, timestep: TimeStep, key: Key, iteration: Array
    ) -> tuple[Array, Array]:
        if not several:
            return act_greedily(state, stack, timestep, key, iteration)

        def one(state: AgentState, *own: PyTree) -> tuple[Array, Array]:
            stack, timestep = jax.tree.map(lambda x: x[None], own[:2])
            action, stack = act_greedily(state, stack, timestep, own[2], iteration)
            return action[0], stack[0]

        return seeds.each(one, state, stack, timestep, key, batched=False)

    def encode_rows(
        state: AgentState, replay: Replay, age: Array, key: Key, number: Array | int
    ) -> PyTree:
        def one(state: AgentState, key: Key, envs: Array) -> PyTree:
            return freezing.encode_rows(
                agent,
                state.frozen,
                replay,
                age,
                envs,
                jax.random.fold_in(key, number),
                read=read_frames,
                copies=config.num_copies,
            )

        envs = jnp.arange(spec.num_envs)
        if not several:
            return one(state, key, envs)
        latents = seeds.each(one, state, key, envs[:, None], batched=False)
        return jax.tree.map(lambda x: jnp.moveaxis(x[:, :, 0], 0, 1), latents)

    frames_shape = (config.frame_stack, math.prod(spec.obs_shape))
    init = functools.partial(seeds.init, agent.init) if several else agent.init
    return Functions(
        jax.jit(init),
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


def random_action(key: Key, spec: EnvSpec, num_envs: int) -> Array:
    """A uniform action for each of N environments: f32[N, A] in [-1, 1], or i32[N]."""
    if spec.num_actions is not None:
        return jax.random.randint(key, (num_envs,), 0, spec.num_actions)
    return jax.random.uniform(key, (num_envs, *spec.action_shape), minval=-1, maxval=1)
