"""The DeepMind Control Suite from pixels: one task as an `Env` with N = 1.

`make` resolves a task's name, picks an OpenGL backend that really renders, and returns a `DmcEnv`.
A step sends one action to the simulator `action_repeat` times and renders the last state.
dm_control is imported inside functions, because it binds to an OpenGL backend on import.
"""

import importlib.util
import math
import sys
from typing import Any, Literal, get_args

import numpy as np

from seer_jax.envs import gl, names
from seer_jax.interface import FIRST, EnvSpec, TimeStep, UnknownTask, UserError

RenderQuality = Literal["full", "fast"]

# Control steps of an episode where the task sets no limit (lqr), as in the suite's other tasks.
_DEFAULT_STEP_LIMIT = 1000

_ALIASES = {"cup_catch": "ball_in_cup_catch"}

# Camera 0 sees the task everywhere but here, where it looks down from afar; the literature uses 2.
_CAMERAS = {"quadruped": 2}


def make(
    task: str,
    *,
    seed: int,
    action_repeat: int,
    image_size: int = 100,
    render_quality: RenderQuality = "full",
) -> "DmcEnv":
    """Builds one task of the suite.

    Args:
        task: any spelling that `parse_task` accepts.
        seed: of the task's random stream, 0 to 2**32 - 1.
        action_repeat: control steps per agent step; their rewards are summed.
        image_size: height and width of a frame in pixels.
        render_quality: "full" is MuJoCo's default; "fast" draws no shadows and no reflections,
            which is several times faster without a GPU but also loses the light that falls on
            floors. Edges stay smoothed: on small frames they are what shows a thin pole's angle.
            Results must name it.

    Raises:
        UserError: the task is unknown, an argument is out of range, or nothing here can render.
    """
    domain, name = parse_task(task)
    if action_repeat < 1:
        raise UserError(f"action_repeat is {action_repeat}; it counts control steps: 1 or more.")
    if image_size < 1:
        raise UserError(f"image_size is {image_size}; it counts pixels: 1 or more.")
    if not 0 <= seed < 2**32:
        raise UserError(f"seed is {seed}; dm_control takes 0 to 2**32 - 1.")
    if render_quality not in get_args(RenderQuality):
        raise UserError(f"render_quality is {render_quality!r}; choose 'full' or 'fast'.")
    return DmcEnv(domain, name, seed, action_repeat, image_size, render_quality)


def parse_task(task: str) -> tuple[str, str]:
    """The suite's (domain, task) for a name such as 'walker_walk', 'walker-walk' or 'cup_catch'.

    Upper and lower case are alike and a leading 'dmc:' is allowed.

    Raises:
        UnknownTask: there is none; the message names the nearest ones.
    """
    name = task.strip().lower().replace("-", "_").removeprefix("dmc:")
    name = _ALIASES.get(name, name)
    known = {"_".join(pair).lower(): pair for pair in _suite().ALL_TASKS}
    if name in known:
        return known[name]
    hint = names.did_you_mean(name, {plain: "_".join(pair) for plain, pair in known.items()})
    raise UnknownTask(
        f"Unknown dm_control task {task!r}. {hint}All {len(known)} tasks: "
        "python -c \"from seer_jax.envs import dmc; print(*dmc.task_names(), sep='\\n')\""
    )


def task_names() -> list[str]:
    """Every task of the suite as 'domain_task', sorted. All of them render."""
    return sorted("_".join(pair) for pair in _suite().ALL_TASKS)


def _suite() -> Any:
    """Imports `dm_control.suite`, after choosing the OpenGL backend that it will bind to."""
    if importlib.util.find_spec("dm_control") is None:
        no_labmaze = sys.version_info >= (3, 13)  # setup.cfg says why
        install = "--no-deps dm_control" if no_labmaze else "dm_control 'mujoco>=3.17,<4'"
        raise UserError(f"dm_control is not installed: pip install {install}")
    backend = gl.select()
    try:
        from dm_control import suite
    except Exception as error:  # a missing GL library shows up as almost any exception
        raise gl.error(
            f"dm_control cannot be imported with MUJOCO_GL={backend}: {error}"
        ) from error
    return suite


class DmcEnv:
    """One task of the suite behind the `Env` protocol, N = 1. Built by `make`.

    Actions f32[1, A] in [-1, 1] are mapped affinely to the task's bounds; where it has none (lqr)
    they are used as they are. Use it from the thread that made it: OpenGL asks for that.
    """

    def __init__(
        self,
        domain: str,
        task: str,
        seed: int,
        action_repeat: int,
        image_size: int,
        render_quality: RenderQuality,
    ):
        import mujoco

        self._domain, self._task = domain, task
        self._image_size = image_size
        self._fast = render_quality == "fast"
        self._camera_id = _CAMERAS.get(domain, 0)
        self._load(seed)

        bounds = self._env.action_spec()
        low, high = bounds.minimum, bounds.maximum
        # dm_control writes mjMAXVAL (1e10) for a bound that the model does not have.
        bounded = (low > -mujoco.mjMAXVAL) & (high < mujoco.mjMAXVAL)
        self._action_scale = np.where(bounded, (high - low) / 2, 1.0)
        self._action_shift = np.where(bounded, (high + low) / 2, 0.0)
        self.spec = EnvSpec(
            obs_shape=(image_size, image_size, 3),
            action_shape=bounds.shape,
            num_actions=None,
            num_envs=1,
            action_repeat=action_repeat,
            episode_steps=_episode_steps(self._env, action_repeat),
        )

    def _load(self, seed: int) -> None:
        from dm_control import mujoco, suite

        self._seed = seed
        self._env = suite.load(self._domain, self._task, task_kwargs={"random": seed})
        # control.Environment has no public name for its limit.
        if math.isinf(self._env._step_limit):
            self._env._step_limit = _DEFAULT_STEP_LIMIT
        self._random_before: tuple | None = None  # the random stream before this episode's reset
        self._actions: list[np.ndarray] = []  # what was done in this episode since
        self._ended = True  # the next step resets

        model = self._env.physics.model
        # The renderer reads these once, when its context is made: by the camera below, or by a
        # reset (quadruped_escape).
        view = model.vis.global_
        view.offwidth = max(view.offwidth, self._image_size)
        view.offheight = max(view.offheight, self._image_size)
        if self._fast:
            model.vis.quality.shadowsize = 0
        size = self._image_size
        try:
            # One camera for good: a new scene for every frame costs as much as a fast frame.
            self._camera = mujoco.Camera(self._env.physics, size, size, self._camera_id)
        except Exception as error:  # whatever the GL library raises
            raise gl.error(f"MuJoCo cannot render: {error}") from error
        if self._fast:
            from mujoco import mjtRndFlag

            self._camera.scene.flags[mjtRndFlag.mjRND_REFLECTION] = 0

    def reset(self, seed: int | None = None) -> TimeStep:
        """Starts a new episode; `seed` restarts the task's random stream.

        The stream does not cover what a task draws when it is built: lqr's springs come from the
        seed given to `make`.
        """
        if seed is not None:
            self._env.task.random.seed(seed)
        self._begin_episode()
        return self._time_step(FIRST, reward=0.0, discount=1.0)

    def _begin_episode(self) -> None:
        self._random_before = self._env.task.random.get_state()
        self._actions = []
        self._ended = False
        self._env.reset()

    def step(self, action: np.ndarray) -> TimeStep:
        """One agent step. action: f32[1, A] in [-1, 1]; ignored when the last step was LAST.

        Rewards of the control steps are summed; an episode that ends among them ends the step.
        """
        if self._ended:
            return self.reset()
        action = np.array(action, np.float32)
        if action.shape != (1, *self.spec.action_shape):
            raise ValueError(f"action {action.shape}, expected {(1, *self.spec.action_shape)}")
        return self._time_step(*self._advance(action[0]))

    def _advance(self, action: np.ndarray) -> tuple[int, float, float]:
        """Simulates one agent step and remembers it. Returns step_type, reward, discount."""
        self._actions.append(action)
        control = self._action_shift + self._action_scale * action
        reward = 0.0
        with self._env.physics.suppress_physics_errors():  # they are warnings then
            for _ in range(self.spec.action_repeat):
                time_step = self._env.step(control)
                reward += time_step.reward
                if time_step.last():
                    break
        # MuJoCo puts a state that diverged back to the model's first one, upright for most. So that
        # nobody learns to get there, the episode earns nothing from then on.
        if self._env.physics.data.warning.number.any():
            reward = 0.0
        self._ended = time_step.last()
        return int(time_step.step_type), reward, time_step.discount

    def _time_step(self, step_type: int, reward: float, discount: float) -> TimeStep:
        return TimeStep(
            step_type=np.array([step_type], np.int32),
            reward=np.array([reward], np.float32),
            discount=np.array([discount], np.float32),
            obs=self.frame()[None],
        )

    def frame(self) -> np.ndarray:
        """The current state as the agent sees it, u8[H, W, 3]."""
        return self._camera.render().copy()  # the camera draws into one buffer for ever

    def render(self, height: int, width: int) -> np.ndarray:
        """A u8[height, width, 3] picture of the current state; 480 x 640 at most."""
        flags = {"reflection": False} if self._fast else {}
        return self._env.physics.render(
            height, width, camera_id=self._camera_id, render_flag_overrides=flags
        ).copy()

    def get_state(self) -> dict[str, np.ndarray]:
        """What the current episode follows from: a few kilobytes of arrays, the same keys always.

        A simulator's state is more than positions and velocities (solver warm starts, models that a
        reset edits, counters in task objects), so this keeps causes and not effects: the random
        stream before the episode's reset, and the actions since.
        """
        random_before = self._random_before or self._env.task.random.get_state()
        _, keys, position, has_gauss, gauss = random_before
        # The first row only keeps the array from being empty, which some checkpointers refuse.
        placeholder = np.zeros(self.spec.action_shape, np.float32)
        return {
            "seed": np.array(self._seed, np.int64),
            "started": np.array(self._random_before is not None),
            "random_keys": np.array(keys, np.uint32),
            "random_position": np.array(position, np.int64),
            "random_has_gauss": np.array(has_gauss, np.int64),
            "random_gauss": np.array(gauss, np.float64),
            "actions": np.stack([placeholder, *self._actions]),
        }

    def set_state(self, state: dict[str, np.ndarray]) -> bool:
        """Replays the episode of `get_state` without rendering: what follows is bit-identical.

        The state must come from the same task, action repeat and MuJoCo version. Costs at most the
        simulation of one episode.
        """
        if int(state["seed"]) != self._seed:  # a task may draw its model when it is built (lqr)
            self.close()
            self._load(int(state["seed"]))
        self._random_before, self._actions, self._ended = None, [], True
        self._env.task.random.set_state(
            (
                "MT19937",
                np.asarray(state["random_keys"]),
                int(state["random_position"]),
                int(state["random_has_gauss"]),
                float(state["random_gauss"]),
            )
        )
        if state["started"]:
            self._begin_episode()
            for action in np.asarray(state["actions"])[1:]:
                self._advance(action)
        return True

    def close(self) -> None:
        """Releases the simulator and its OpenGL context. Nothing may be called afterwards."""
        self._camera.scene.free()
        self._env.physics.free()


def _episode_steps(env: Any, action_repeat: int) -> int | None:
    """Agent steps of an episode, or None where the task may end early."""
    from dm_control.rl import control

    if type(env.task).get_termination is not control.Task.get_termination:
        return None
    return math.ceil(math.ceil(env._step_limit) / action_repeat)
