"""A trained policy, read back from a run folder.

policy = seer_jax.load_policy("runs/walker_walk-paper-s0")
returns = policy.evaluate(episodes=100)

env = policy.make_env()
timestep = env.step(policy(env.reset()))
"""

import dataclasses
import pathlib

import jax
import numpy as np

from seer_jax import build, checkpoint, dispatch, seeds, train
from seer_jax import config as config_lib
from seer_jax.types import Env, TimeStep, UserError


class Policy:
    """The greedy policy of a checkpoint. It keeps the stacked frames between calls.

    Attributes:
        config: of the run.
        step: agent steps it was trained for.
        state: the learner as it was then; `state.encoder` and `state.params` hold the weights.
    """

    def __init__(
        self, logdir: str | pathlib.Path, seed: int | None = None, step: int | None = None
    ) -> None:
        """Reads a policy.

        Args:
            logdir: run folder.
            seed: which of the runs in it, where there are several (`--num_seeds`); None: the first.
            step: which of its checkpoints (`--keep_checkpoints`); None: the newest.

        Raises:
            UserError: if the folder holds no run, or the run no readable checkpoint, or not that
                seed or step.
        """
        logdir = pathlib.Path(logdir).expanduser()
        config = config_lib.read(logdir)
        seed = config.seed if seed is None else seed
        if seed not in config.seeds:
            raise UserError(f"{logdir} holds no run of seed {seed}; it has {config.seeds}.")
        arrays, progress = checkpoint.restore_state(logdir, step)
        if config.num_seeds > 1:
            arrays = seeds.pick(arrays, config.seeds.index(seed))
        self.config = dataclasses.replace(config, seed=seed, num_seeds=1, data_parallel=False)
        self.step: int = progress["step"]
        env = self.make_env()
        agent = build.make_agent(self.config, env.spec)
        env.close()
        self._spec = env.spec
        self._functions = dispatch.compile_functions(self.config, agent, env.spec)
        state = jax.eval_shape(agent.init, jax.random.key(0))
        if progress["phase"] == "latents":
            state = jax.eval_shape(agent.freeze, state)
        self.state = jax.device_put(checkpoint.rebuild(state, arrays))
        self._stack = self._functions.empty_stack(env.spec.num_envs)
        self._key, self._calls = jax.random.key(self.config.seed), 0

    def __call__(self, timestep: TimeStep) -> np.ndarray:
        """The greedy action f32[1, A] in [-1, 1], or i32[1].

        Args:
            timestep: what the environment of `make_env` returns, or what another one shows in the
                same way: `obs` u8[1, H, W, C], the newest frame alone, and `step_type` i32[1].
                FIRST begins a new stack; of `reward` and `discount` nothing is used.

        Raises:
            UserError: if the frame is of another shape or type.
        """
        if not isinstance(timestep, TimeStep):
            raise UserError(f"A policy acts on a TimeStep, not on {type(timestep).__name__}.")
        obs, shape = timestep.obs, (1, *self._spec.obs_shape)
        if obs.shape != shape or obs.dtype != np.uint8:
            raise UserError(
                f"obs must be uint8{shape}, the newest frame; it is {obs.dtype}{obs.shape}."
            )
        action, self._stack = self._functions.act(
            self.state, self._stack, timestep, self._key, np.int32(self._calls)
        )
        self._calls += 1
        return jax.device_get(action)

    def make_env(self) -> Env:
        """One environment as the policy is evaluated in: on Atari, whole games and their scores."""
        return build.make_eval_env(dataclasses.replace(self.config, num_envs=1, eval_episodes=1))

    def evaluate(self, episodes: int = 10, seed: int = 0) -> np.ndarray:
        """Plays and returns the returns f64[episodes], on Atari the scores.

        Args:
            episodes: how many, at least 1. On Atari all are played at once, else one by one.
            seed: of the environments' random streams; the same ones give the same returns.
        """
        for name, value, least in (("episodes", episodes, 1), ("seed", seed, 0)):
            if value < least:
                raise UserError(f"{name}={value} is too small: the least is {least}.")
        if seed > (most := config_lib.LARGEST_SEED):
            raise UserError(f"seed={seed} is too large: the most is {most}.")
        config = dataclasses.replace(self.config, num_envs=1, eval_episodes=episodes)
        env = build.make_eval_env(config)
        try:
            played = train.run_episodes(self._functions, self.state, env, episodes, [seed])
        finally:
            env.close()
        assert played is not None  # nobody asks it to stop
        return np.array(played[0])
