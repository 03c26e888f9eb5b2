"""From a configuration to its parts: the environment it trains in and the agent that learns."""

from seer_jax.agents import curl_sac
from seer_jax.config import Config
from seer_jax.envs import dmc
from seer_jax.types import Agent, EnvSpec


def make_env(config: Config) -> dmc.DmcEnv:
    """The environment of a run; training and evaluation each make their own."""
    return dmc.make(
        config.task,
        seed=config.seed,
        action_repeat=config.action_repeat,
        image_size=config.image_size,
        render_quality=config.render_quality,
    )


def make_agent(config: Config, spec: EnvSpec) -> Agent:
    """The agent of a run."""
    return curl_sac.make(config.agent, spec, config.frame_stack)
