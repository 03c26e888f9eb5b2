"""Any Gymnasium environment with pictures, as an `Env` with N = 1.

The agent sees the environment's own image observations, or where it has none what it renders,
scaled down to a square. Gymnasium is imported inside functions: it is an optional dependency.
"""

import contextlib
import importlib
import importlib.util
import math
from typing import Any

import numpy as np

from seer_jax.envs import gl, names, pictures, restarts
from seer_jax.interface import FIRST, LAST, MID, EnvSpec, TimeStep, UnknownTask, UserError

PREFIX = "gymnasium:"
INSTALL = "This task needs Gymnasium: pip install 'seer_jax[gymnasium]'"


def make(task: str, *, seed: int, action_repeat: int, image_size: int) -> "GymnasiumEnv":
    """Builds an environment.

    Args:
        task: `gymnasium:` and an id, such as 'gymnasium:CarRacing-v3'; before the id, the module
            that registers it, if that is one's own.
        seed: of the environment's random stream.
        action_repeat: its steps per agent step; their rewards are summed.
        image_size: height and width of a frame in pixels, at most those of its pictures.

    Raises:
        UserError: the task is unknown, has no pictures, or an argument does not fit it.
    """
    return GymnasiumEnv(parse_task(task), seed, action_repeat, image_size)


def parse_task(task: str) -> str:
    """`gymnasium:` and the registered id of a task; `gymnasium:MODULE:ID` if a module registers it
    when it is imported.

    Raises:
        UnknownTask: there is none; the message names the nearest ones.
        UserError: Gymnasium is missing, or the module cannot be imported.
    """
    if importlib.util.find_spec("gymnasium") is None:
        raise UserError(INSTALL)
    import gymnasium

    with contextlib.suppress(UserError):  # not every environment renders by OpenGL
        gl.select()  # before anything that MuJoCo renders is imported
    module, colon, name = task.strip().partition(":")[2].rpartition(":")
    if colon:
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever a user's module raises
            raise UserError(f"{task}: the module {module!r} cannot be imported: {error}") from error
    known = {registered.lower(): registered for registered in gymnasium.registry}
    if name.lower() in known:
        return PREFIX + module + colon + known[name.lower()]
    hint = names.did_you_mean(name.lower(), known)
    raise UnknownTask(
        f"Unknown Gymnasium environment {name!r}. {hint}All of them: "
        'python -c "import gymnasium; gymnasium.pprint_registry()"'
    )


class GymnasiumEnv:
    """One environment behind the `Env` protocol; built by `make`.

    Continuous actions f32[1, A] in [-1, 1] are mapped affinely to the environment's bounds.
    """

    def __init__(self, task: str, seed: int, action_repeat: int, image_size: int) -> None:
        import gymnasium

        try:
            self._env: Any = gymnasium.make(task.removeprefix(PREFIX), render_mode="rgb_array")
        except Exception as error:  # whatever the package behind an id lacks or refuses
            raise UserError(
                f"{task} cannot be built: {error}. What it lacks may come with a part of "
                "Gymnasium, such as pip install 'gymnasium[mujoco]'."
            ) from error
        self._task = task
        self._seed, self._steps = seed, 0  # steps since the seed was last set
        self._seeded = False
        self._ended = True  # the next step resets
        self._image_size = image_size
        seen: Any
        actions: Any
        seen, actions = self._env.observation_space, self._env.action_space
        self._sees_images = seen.dtype == np.uint8 and len(seen.shape or ()) in (2, 3)
        channels = (*seen.shape, 1)[2] if self._sees_images else 3
        if self._sees_images and len(seen.shape) == 3 and seen.shape[0] <= 4 < channels:
            raise UserError(f"{task} has pictures {seen.shape}: channels must come last.")
        row = isinstance(actions, gymnasium.spaces.Box) and len(actions.shape) == 1
        if not (row and actions.is_bounded()):
            raise UserError(f"{task} has actions in {actions}: need a row of bounded numbers.")
        self.spec = EnvSpec(
            obs_shape=(image_size, image_size, channels),
            action_shape=actions.shape,
            num_actions=None,
            num_envs=1,
            action_repeat=action_repeat,
            episode_steps=None,
        )
        try:
            self.reset()  # shows whether the pictures are what they should be
        except UserError:
            raise
        except Exception as error:  # a missing GL library shows up as almost any exception
            raise gl.error(f"{task} cannot be shown: {error}") from error
        self._renders = not self._sees_images or self._can_render()
        self._seeded, self._ended = False, True

    def reset(self, seed: int | None = None) -> TimeStep:
        """Starts a new episode; `seed` restarts the random stream."""
        if seed is not None:
            self._seed, self._steps, self._seeded = seed, 0, False
        obs, _ = self._env.reset(seed=None if self._seeded else self._seed)
        self._seeded, self._ended = True, False
        return self._time_step(FIRST, 0.0, 1.0, obs)

    def step(self, action: np.ndarray) -> TimeStep:
        """One agent step. action: f32[1, A] in [-1, 1]; ignored after a LAST step.

        Rewards of the repeats are summed; an episode that ends among them ends the step.
        """
        if self._ended:
            return self.reset()
        if action.shape != (1, *self.spec.action_shape):
            raise ValueError(f"action {action.shape}, expected {(1, *self.spec.action_shape)}")
        control = self._to_bounds(action[0])
        self._steps += 1
        total = 0.0
        for _ in range(self.spec.action_repeat):
            obs, reward, terminated, truncated, _ = self._env.step(control)
            total += float(reward)
            self._ended = terminated or truncated
            if self._ended:
                break
        if not math.isfinite(total):
            raise UserError(f"{self._task} gave a reward of {total}: rewards must be finite.")
        return self._time_step(LAST if self._ended else MID, total, float(not terminated), obs)

    def _can_render(self) -> bool:
        """Whether there is more to show than the observations."""
        try:
            self._rendered()
            return True
        except Exception:  # nothing defines how an environment refuses
            return False

    def _to_bounds(self, action: np.ndarray) -> np.ndarray:
        low, high = self._env.action_space.low, self._env.action_space.high
        inside = np.clip(low + (high - low) * (action + 1) / 2, low, high)  # despite rounding
        return inside.astype(self._env.action_space.dtype)

    def _time_step(self, step_type: int, reward: float, discount: float, obs: Any) -> TimeStep:
        self._picture = self._checked(obs) if self._sees_images else self._rendered()
        frame = pictures.shrink(self._picture, self._image_size)
        if frame.shape != self.spec.obs_shape:
            raise UserError(
                f"{self._task} shows {frame.shape[-1]} channels, where its observation space says "
                f"{self.spec.obs_shape[-1]}."
            )
        return TimeStep(
            step_type=np.array([step_type], np.int32),
            reward=np.array([reward], np.float32),
            discount=np.array([discount], np.float32),
            obs=frame[None],
        )

    def _rendered(self) -> np.ndarray:
        """What the environment renders, as u8[H, W, 3], without transparency."""
        return pictures.rgb(self._checked(self._env.render())[..., :3])

    def _checked(self, picture: Any) -> np.ndarray:
        """A picture as u8[H, W, C], with a channel where grey has none."""
        array = np.asarray(picture)
        if array.ndim == 2:
            array = array[..., None]
        if array.ndim != 3 or not np.issubdtype(array.dtype, np.integer):
            what = "nothing" if picture is None else f"{array.dtype}{list(array.shape)}"
            raise UserError(
                f"{self._task} shows {what}, where an agent sees pictures uint8[height, width, "
                "channels], 0 to 255: as observations, or rendered with render_mode='rgb_array'."
            )
        return array.astype(np.uint8, copy=False)

    def render(self, height: int, width: int) -> np.ndarray:
        """A u8[height, width, 3] picture of the current state: the observation, in grey unless it
        has three channels, of an environment that renders nothing else."""
        picture = self._rendered() if self._renders else pictures.rgb(self._picture)
        return pictures.resample(picture, height, width)

    def get_state(self) -> dict[str, np.ndarray]:
        """Gymnasium cannot save an episode: identifies this moment by its seed and steps."""
        return restarts.moment(self._seed, self._steps)

    def set_state(self, state: dict[str, np.ndarray]) -> bool:
        """Begins a new episode, with a seed of its own; this one is lost. Returns False."""
        self._seed, self._steps = restarts.seed_after(state), 0
        self._seeded, self._ended = False, True
        return False

    def close(self) -> None:
        """Releases the environment."""
        self._env.close()
