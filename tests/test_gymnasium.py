"""Gymnasium environments behind the `Env` protocol: real ones, from pictures and from renders."""

import pathlib
import re
import sys

import gymnasium
import numpy as np
import pytest
from runs import of, read_evals, read_metrics, tiny_without

import seer_jax
from seer_jax import build, run
from seer_jax.envs import gl, pictures
from seer_jax.envs import gymnasium as adapter
from seer_jax.types import FIRST, LAST, MID, UnknownTask, UserError

RACING = "gymnasium:CarRacing-v3"
HILL = "gymnasium:MountainCarContinuous-v0"  # has numbers for observations: is rendered


def make(task, **changes):
    return adapter.make(task, **dict(seed=0, action_repeat=4, image_size=48) | changes)


@pytest.mark.parametrize(("task", "actions"), [(RACING, 3), (HILL, 1)])
def test_what_a_step_holds(task, actions):
    env = make(task)
    assert env.spec.obs_shape == (48, 48, 3) and env.spec.action_shape == (actions,)
    assert env.spec.num_actions is None and env.spec.episode_steps is None
    steps = [env.step(np.zeros((1, actions), np.float32)) for _ in range(3)]
    assert [int(step.step_type[0]) for step in steps] == [FIRST, MID, MID]
    for step in steps:
        assert step.obs.shape == (1, 48, 48, 3) and step.obs.dtype == np.uint8
        assert step.reward.dtype == step.discount.dtype == np.float32
    assert env.render(30, 40).shape == (30, 40, 3)
    env.close()


def test_rewards_of_the_repeats_are_summed_and_actions_reach_the_bounds():
    """The hill costs 0.1 x action^2 a step; pressing fully costs 0.1."""
    env = make(HILL)
    env.reset()
    for action, reward in ((1.0, -0.4), (-1.0, -0.4), (0.0, 0.0)):
        step = env.step(np.array([[action]], np.float32))
        np.testing.assert_allclose(step.reward, [reward], atol=1e-6)
    env.close()


def test_actions_stay_within_bounds_that_rounding_would_cross():
    env = make(HILL)
    bounds = env._env.action_space = gymnasium.spaces.Box(-2, 0.2, (1,), np.float32)
    for action in (-1.0, 1.0):
        assert bounds.contains(env._to_bounds(np.array([action], np.float32)))
    env.close()


def test_a_time_limit_ends_an_episode_with_discount_1():
    env = make(HILL, action_repeat=100)
    env.reset()
    steps = [env.step(np.zeros((1, 1), np.float32)) for _ in range(11)]
    types = [int(step.step_type[0]) for step in steps]
    assert types == [MID] * 9 + [LAST, FIRST]
    assert [float(step.discount[0]) for step in steps] == [1] * 11
    env.close()


def test_seeds_decide_and_a_restored_run_plays_something_else():
    first = lambda env: env.reset().obs
    (one, same), other = (make(RACING) for _ in range(2)), make(RACING, seed=1)
    np.testing.assert_array_equal(first(one), first(same))
    assert (first(one) != first(other)).any()  # also: a second episode is another one
    np.testing.assert_array_equal(one.reset(seed=5).obs, same.reset(seed=5).obs)
    state = one.get_state()
    assert not same.set_state(state)
    assert same.step(np.zeros((1, 3), np.float32)).step_type[0] == FIRST
    for env in (one, same, other):
        env.close()


def test_shrinking_takes_the_mean_of_what_a_pixel_covers():
    picture = np.arange(24, dtype=np.uint8).reshape(4, 6, 1)
    assert pictures.shrink(picture, 2)[..., 0].tolist() == [[4, 7], [16, 19]]
    uneven = np.array([[0, 3, 6], [0, 3, 6], [9, 9, 9]], np.uint8)[..., None]
    assert pictures.shrink(uneven, 2)[..., 0].tolist() == [[0, 5], [5, 7]]


def test_what_does_not_work_is_said_plainly():
    with pytest.raises(UnknownTask, match="Did you mean CarRacing-v3"):
        build.parse_task("gymnasium:CarRacin-v3")
    with pytest.raises(UserError, match="larger than the environment's pictures"):
        make(RACING, image_size=100)
    with pytest.raises(UserError, match=r"actions in Discrete\(2\): need a row"):
        make("gymnasium:CartPole-v1")


class Shows(gymnasium.Env):
    """Shows what it is told to."""

    metadata = {"render_modes": ["rgb_array"]}
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, render_mode=None, obs=None, space=None, rendered=None, reward=0.0):
        self.observation_space = space or gymnasium.spaces.Box(0, 1, (2,), np.float32)
        self.render_mode, self.obs, self.rendered, self.reward = render_mode, obs, rendered, reward

    def reset(self, seed=None, options=None):
        return self.obs, {}

    def step(self, action):
        return self.obs, self.reward, False, False, {}

    def render(self):
        return self.rendered


@pytest.fixture
def shows(monkeypatch):
    """Makes one as an `Env` of 4 x 4 pixels."""
    monkeypatch.setattr(adapter, "parse_task", lambda task: task)

    def make_one(**kwargs):
        name = "Shows-v0"
        checked = dict(disable_env_checker=True, order_enforce=False)
        gymnasium.register(name, lambda render_mode: Shows(render_mode, **kwargs), **checked)
        try:
            return make(f"gymnasium:{name}", image_size=4)
        finally:
            gymnasium.registry.pop(name)

    return make_one


def image_space(*shape):
    return gymnasium.spaces.Box(0, 255, shape, np.uint8)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (dict(rendered=np.ones((8, 8, 3))), r"shows float64\[8, 8, 3\], where an agent sees"),
        (dict(rendered=None), "shows nothing, where an agent sees pictures"),
        (
            dict(obs=np.zeros((3, 8, 8), np.uint8), space=image_space(3, 8, 8)),
            "channels must come last",
        ),
        (
            dict(obs=np.zeros((8, 8, 1), np.uint8), space=image_space(8, 8, 3)),
            "shows 1 channels, where its observation space says 3",
        ),
    ],
)
def test_pictures_that_nobody_can_see_are_refused(shows, what, message):
    with pytest.raises(UserError, match=message):
        shows(**what)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (8, 8, 3), (8, 8, 4)])
def test_renders_are_seen_in_three_channels(shows, shape):
    """Grey ones, and those with transparency as matplotlib's, too."""
    picture = np.full(shape, 7, np.uint8)
    if shape[2:] == (4,):
        picture[..., 3] = 255
    env = shows(rendered=picture)
    assert (env.reset().obs == 7).all() and env.spec.obs_shape == (4, 4, 3)
    assert (env.render(2, 2) == 7).all()


def test_a_reward_that_is_no_number_is_not_taken_for_a_diverged_run(shows):
    env = shows(rendered=np.zeros((8, 8, 3), np.uint8), reward=np.nan)
    env.reset()
    with pytest.raises(UserError, match="gave a reward of nan: rewards must be finite"):
        env.step(np.zeros((1, 1), np.float32))


def test_opengl_is_chosen_before_a_module_can_import_mujoco(tmp_path, monkeypatch):
    """MuJoCo binds to what MUJOCO_GL says when it is imported."""
    (tmp_path / "early.py").write_text("import os\nseen = os.environ.get('MUJOCO_GL')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "dm_control._render", raising=False)
    monkeypatch.setattr(gl, "probe", lambda backend: None)
    for name in ("MUJOCO_GL", "PYOPENGL_PLATFORM"):
        monkeypatch.setenv(name, "")
    assert build.parse_task(f"gymnasium:early:{HILL.partition(':')[2]}")
    assert sys.modules.pop("early").seen == "egl"


def test_without_opengl_what_needs_none_still_works(monkeypatch):
    def missing():
        raise UserError("nothing renders")

    monkeypatch.setattr(gl, "select", missing)
    env = make(HILL)
    assert env.reset().obs.any()
    env.close()


class Broken(gymnasium.Env):
    metadata = {"render_modes": ["rgb_array"]}
    observation_space = gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)

    def __init__(self, shape=(1,), render_mode=None):
        self.render_mode = render_mode
        self.action_space = gymnasium.spaces.Box(-1, 1, shape, np.float32)

    def reset(self, seed=None, options=None):
        raise RuntimeError("no OpenGL library")


class Seen(gymnasium.Env):
    """Shows pictures as observations and in no other way."""

    metadata = {"render_modes": ["rgb_array"]}
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, shape, render_mode=None):
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(0, 255, shape, np.uint8)

    def reset(self, seed=None, options=None):
        return np.full(self.observation_space.shape, 7, np.uint8), {}

    def step(self, action):
        return np.full(self.observation_space.shape, 9, np.uint8), 1.0, False, False, {}


@pytest.mark.parametrize("shape", [(64, 64, 3), (64, 64, 1), (64, 64)], ids=str)
def test_observations_are_shown_where_nothing_else_renders(monkeypatch, shape):
    spec = gymnasium.envs.registration.EnvSpec("Seen-v0", entry_point=Seen, kwargs={"shape": shape})
    monkeypatch.setitem(gymnasium.registry, "Seen-v0", spec)
    env = make("gymnasium:Seen-v0")
    assert env.spec.obs_shape == (48, 48, (*shape, 1)[2])
    env.reset()
    timestep = env.step(np.zeros((1, 1), np.float32))
    assert timestep.obs.shape == (1, *env.spec.obs_shape) and (timestep.obs == 9).all()
    assert env.render(30, 40).shape == (30, 40, 3) and (env.render(30, 40) == 9).all()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1,), "Broken-v0 cannot be shown: no OpenGL library. On Debian or Ubuntu: apt-get"),
        ((), "need a row of bounded numbers"),
        ((2, 3), "need a row of bounded numbers"),
    ],
)
def test_an_environment_that_is_broken_or_unlike_is_a_plain_message(monkeypatch, shape, message):
    spec = gymnasium.envs.registration.EnvSpec(
        "Broken-v0", entry_point=Broken, kwargs={"shape": shape}
    )
    monkeypatch.setitem(gymnasium.registry, "Broken-v0", spec)
    with pytest.raises(UserError, match=message):
        make("gymnasium:Broken-v0")


@pytest.mark.usefixtures("compile_once")
def test_the_documented_task_of_ones_own_trains(tmp_path, monkeypatch):
    """docs/extending.md's, in a file of its name: a module that only the flag names."""
    text = (pathlib.Path(__file__).parents[1] / "docs" / "extending.md").read_text()
    (tmp_path / "dots.py").write_text(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1])
    monkeypatch.syspath_prepend(tmp_path)
    task = re.search(r"--task=(gymnasium:dots:\S+)", text)[1]
    flags = [f"--task={task}", *tiny_without("--task"), f"--logdir={tmp_path}/run"]
    assert run.main(flags) == 0
    assert [row["step"] for row in read_evals(tmp_path / "run")] == ["0", "20", "40", "60"]
    assert [step for step, _ in of(read_metrics(tmp_path / "run"), "freeze/step")] == [40]
    assert seer_jax.load_policy(tmp_path / "run").evaluate(episodes=1).shape == (1,)
    with pytest.raises(UserError, match="the module 'dotz' cannot be imported: No module named"):
        build.parse_task("gymnasium:dotz:Dot-v0")
    with pytest.raises(UnknownTask, match="Did you mean Dot-v0"):
        build.parse_task("gymnasium:dots:Dott-v0")


def test_a_run_trains_freezes_and_evaluates(tmp_path):
    flags = tiny_without("--task", "--action_repeat")
    assert (
        run.main([f"--task={HILL}", "--action_repeat=50", *flags, f"--logdir={tmp_path}/run"]) == 0
    )
    assert [step for step, _ in of(read_metrics(tmp_path / "run"), "freeze/step")] == [40]
    assert [row["step"] for row in read_evals(tmp_path / "run")] == ["0", "20", "40", "60"]
