"""From a configuration to its parts: the environment it trains in and the agent that learns."""

import functools
import math
from collections.abc import Callable

import jax

from seer_jax.agents import curl_sac, rainbow
from seer_jax.config import Config, episodes_vary, is_atari, is_gymnasium
from seer_jax.envs import atari, dmc, gymnasium, parallel
from seer_jax.types import Agent, Env, EnvSpec, UnknownTask, UserError


def parse_task(text: str) -> str:
    """A task as runs keep it: `walker_walk`, an Atari game such as `RoadRunner`, or
    `gymnasium:CarRacing-v3`.

    `dmc:`, `atari:` and `gymnasium:` in front say which is meant. Without them a name of the
    DeepMind Control suite is one of its tasks, and every other an Atari game if it is the name of
    one.

    Raises:
        UnknownTask: if it is neither; the message names the nearest ones.
        UserError: if what it asks for is not installed, or if nothing here renders.
    """
    suite, colon, _ = text.strip().lower().partition(":")
    if colon and suite == "atari":
        return atari.parse_task(text)
    if colon and suite == "gymnasium":
        return gymnasium.parse_task(text)
    if colon and suite != "dmc":
        raise UnknownTask(f"{text}: before the colon write dmc, atari or gymnasium.")
    try:
        return "_".join(dmc.parse_task(text))
    except UserError as not_dmc:  # also that there is no GL library, which games do not need
        if colon:
            raise
        try:
            return atari.parse_task(text)
        except UserError as not_atari:  # also that EnvPool is missing, which may not be the point
            if not isinstance(not_dmc, UnknownTask):
                raise not_dmc from None
            gymnasium_too = "An environment of Gymnasium: --task=gymnasium:ID"
            raise UnknownTask(f"{not_dmc}\n{not_atari}\n{gymnasium_too}") from None


def make_env(config: Config) -> Env:
    """The environment that a run trains in."""
    if is_atari(config.task):
        return _make_atari(config, config.num_envs, training=True)
    return _make_some(config, config.num_envs)


def make_eval_env(config: Config) -> Env:
    """The environment that a run is evaluated in: on Atari, whole games, all at once; elsewhere as
    many at once as it trains in, if they can share the episodes evenly."""
    if is_atari(config.task):
        return _make_atari(config, config.eval_episodes, training=False)
    return _make_some(config, math.gcd(config.num_envs, config.eval_episodes))


def _make_some(config: Config, num_envs: int) -> Env:
    if config.num_seeds > 1:
        return _make_parallel(config, config.seeds)
    if num_envs == 1:
        return _maker(config, config.seed)()
    return _make_parallel(config, parallel.own_seeds(config.seed, num_envs))


def _make_parallel(config: Config, seeds: list[int]) -> Env:
    return parallel.ParallelEnv([_maker(config, seed) for seed in seeds])


def _maker(config: Config, seed: int) -> Callable[[], Env]:
    """Makes one environment. Where it is unpickled it loads no JAX."""
    if is_gymnasium(config.task):
        make: Callable[..., Env] = gymnasium.make
    else:
        make = functools.partial(dmc.make, render_quality=config.render_quality)
    return functools.partial(
        make,
        config.task,
        seed=seed,
        action_repeat=config.action_repeat,
        image_size=config.image_size,
    )


def _make_atari(config: Config, num_envs: int, training: bool) -> Env:
    return atari.make(
        config.task,
        seed=config.seed,
        num_envs=num_envs,
        action_repeat=config.action_repeat,
        image_size=config.image_size,
        training=training,
    )


def _check_jax() -> None:
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter for want of CUDA's libraries
        why = str(error) or "libraries of the platform are missing"
        raise UserError(
            f"JAX finds no device with JAX_PLATFORMS={jax.config.jax_platforms} ({why}): unset it, "
            "or install JAX for that platform, as for GPUs by pip install 'seer_jax[cuda]'. If "
            "another process uses the device, end that, or set JAX_PLATFORMS=cpu for this one."
        ) from error
    if jax.config.jax_enable_x64:
        raise UserError("seer_jax computes in 32 bits: unset JAX_ENABLE_X64.")


def make_agent(config: Config, spec: EnvSpec) -> Agent:
    """The agent of a run.

    Raises:
        UserError: if agent, environment and storage of latents do not go together, or JAX cannot
            do what they need.
    """
    _check_jax()
    if config.num_seeds > 1 and spec.episode_steps is None:
        raise episodes_vary(config.task)
    if isinstance(config.agent, rainbow.Config):
        agent = rainbow.make(config.agent, spec, config.frame_stack, config.learning_starts)
    else:
        agent = curl_sac.make(config.agent, spec, config.frame_stack)
    if config.latent_dtype == "uint8" and agent.signed_latents:
        raise UserError(
            f"latent_dtype=uint8 is for latents that are never negative; those of "
            f"{config.algorithm} are signed: choose int8."
        )
    if config.num_copies > 1 and not agent.random_views:
        raise UserError(
            f"num_copies={config.num_copies}: {config.algorithm} augments nothing here, so that "
            "all copies would be the same: choose 1."
        )
    return agent
