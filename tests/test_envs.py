"""Environments and the doctor: names, time steps, action repeat, exact state, OpenGL's choice."""

import importlib.metadata
import os
import sys

import numpy as np
import pytest

from seer_jax import doctor
from seer_jax.envs import dmc, fake, gl
from seer_jax.types import FIRST, LAST, MID, UserError


def make(task, **kwargs):
    """A small, quickly rendered environment."""
    defaults = dict(seed=0, action_repeat=2, image_size=24, render_quality="fast")
    return dmc.make(task, **(defaults | kwargs))


def random_actions(env, count, seed=0):
    shape = (count, env.spec.num_envs, *env.spec.action_shape)
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def assert_same(actual, expected):
    """Every array of every time step is equal to the last bit."""
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        for name in a._fields:
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


# Names.


@pytest.mark.parametrize(
    ("spelling", "expected"),
    [
        ("walker_walk", ("walker", "walk")),
        ("walker-walk", ("walker", "walk")),
        ("Walker_Walk", ("walker", "walk")),
        ("dmc:walker_walk", ("walker", "walk")),
        ("cup_catch", ("ball_in_cup", "catch")),
        ("dmc:cup-catch", ("ball_in_cup", "catch")),
        ("ball_in_cup_catch", ("ball_in_cup", "catch")),
        ("point_mass_easy", ("point_mass", "easy")),
        ("humanoid_cmu_stand", ("humanoid_CMU", "stand")),
        ("lqr_lqr_2_1", ("lqr", "lqr_2_1")),
    ],
)
def test_parse_task_accepts_the_usual_spellings(spelling, expected):
    assert dmc.parse_task(spelling) == expected


def test_every_listed_name_parses_to_its_own_task():
    names = dmc.task_names()
    assert len(names) == len(set(names)) >= 49
    assert ["_".join(dmc.parse_task(name)) for name in names] == names


def test_unknown_task_names_the_nearest_and_how_to_list_all():
    with pytest.raises(UserError, match="walker_walk.*task_names"):
        dmc.parse_task("walker_wlak")
    with pytest.raises(UserError, match="Unknown dm_control task 'zzz'"):
        dmc.parse_task("zzz")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(action_repeat=0), "action_repeat is 0"),
        (dict(image_size=0), "image_size is 0"),
        (dict(seed=-1), "seed is -1"),
        (dict(render_quality="best"), "'full' or 'fast'"),
    ],
)
def test_make_says_which_argument_is_wrong(arguments, message):
    with pytest.raises(UserError, match=message):
        make("cartpole_swingup", **arguments)


# Time steps of a dm_control task.


def test_first_and_mid_steps_have_the_types_of_the_protocol():
    env = make("walker_walk", image_size=20)
    for time_step, kind in [(env.reset(), FIRST), (env.step(np.zeros((1, 6))), MID)]:
        assert time_step.step_type.dtype == np.int32 and time_step.step_type.tolist() == [kind]
        assert time_step.reward.dtype == np.float32 and time_step.reward.shape == (1,)
        assert time_step.discount.dtype == np.float32 and time_step.discount.tolist() == [1]
        assert time_step.obs.dtype == np.uint8 and time_step.obs.shape == (1, 20, 20, 3)
        assert time_step.obs.std() > 5  # a picture, not a blank
    assert env.reset().reward.tolist() == [0]
    assert env.spec.obs_shape == (20, 20, 3)
    assert env.spec.action_shape == (6,) and env.spec.num_actions is None
    with pytest.raises(ValueError, match=r"\(6,\), expected \(1, 6\)"):
        env.step(np.zeros(6))
    env.close()


def test_frames_are_not_overwritten_by_later_ones():
    env = make("cartpole_swingup", action_repeat=8)
    first = env.reset().obs
    kept = first.copy()
    later = env.step(np.ones((1, 1))).obs
    np.testing.assert_array_equal(first, kept)
    assert (later != first).any()
    env.close()


def test_action_repeat_sums_rewards():
    """One step with repeat 4 is four steps with repeat 1: same picture, rewards added up."""
    once, four = (
        make("cartpole_balance", action_repeat=1),
        make("cartpole_balance", action_repeat=4),
    )
    once.reset(), four.reset()
    action = np.full((1, 1), 0.3, np.float32)
    singles = [once.step(action) for _ in range(4)]
    repeated = four.step(action)
    np.testing.assert_array_equal(repeated.obs, singles[-1].obs)
    np.testing.assert_allclose(repeated.reward, sum(s.reward for s in singles), rtol=1e-6)
    assert repeated.reward > 2  # each control step of balancing gives about 1
    once.close(), four.close()


def test_time_limit_ends_early_with_discount_1_and_the_next_step_resets():
    """1,000 control steps at 300 each: three whole agent steps, and one cut off after 100."""
    env = make("cartpole_balance", action_repeat=300)
    assert env.spec.episode_steps == 4
    zero = np.zeros((1, 1), np.float32)
    env.reset()
    steps = [env.step(zero) for _ in range(4)]
    assert [int(s.step_type[0]) for s in steps] == [MID, MID, MID, LAST]
    assert steps[-1].discount.tolist() == [1]
    assert 0 < steps[-1].reward[0] <= 100  # 300 more control steps would give more

    after = env.step(np.full((1, 1), np.nan, np.float32))  # the action is ignored
    assert after.step_type.tolist() == [FIRST] and after.reward.tolist() == [0]
    assert env.step(zero).step_type.tolist() == [MID]
    env.close()


def test_termination_has_discount_0():
    """lqr alone may terminate, when its state is zero, so its episodes have no fixed length."""
    env = make("lqr_lqr_2_1")
    assert env.spec.episode_steps is None
    env.reset()
    with env._env.physics.reset_context():
        env._env.physics.data.qpos[:] = 0
    last = env.step(np.zeros((1, 1)))
    assert last.step_type.tolist() == [LAST] and last.discount.tolist() == [0]
    env.close()


def test_where_the_simulation_diverges_the_episode_goes_on_and_earns_nothing():
    env = make("cartpole_balance")
    env.reset()
    still = np.zeros((1, 1), np.float32)
    assert env.step(still).reward > 0
    env._env.physics.data.qvel[:] = 1e11
    for _ in range(2):
        step = env.step(still)
        assert step.step_type == MID and step.reward == 0 and step.discount == 1
    env.reset()
    assert env.step(still).reward > 0
    env.close()


def test_without_a_time_limit_an_episode_is_cut_as_long_as_all_the_others():
    """lqr has none: an evaluation would wait for its end for ever."""
    env = make("lqr_lqr_2_1", action_repeat=100)
    env.reset()
    steps = [env.step(np.ones((1, 1))) for _ in range(10)]
    assert [step.step_type.tolist() for step in steps] == [[MID]] * 9 + [[LAST]]
    assert steps[-1].discount.tolist() == [1]
    env.close()


@pytest.mark.parametrize(
    ("task", "low", "middle", "high"),
    [
        ("walker_walk", [-1] * 6, [0] * 6, [1] * 6),
        ("quadruped_walk", [-1, -1, -0.8] * 4, [0, 0.05, 0] * 4, [1, 1.1, 0.8] * 4),
        ("lqr_lqr_6_2", [-1, -1], [0, 0], [1, 1]),  # unbounded, so passed on unchanged
    ],
)
def test_actions_are_mapped_to_the_bounds_of_the_task(task, low, middle, high):
    env = make(task, action_repeat=1)
    env.reset()
    for value, control in [(-1, low), (0, middle), (1, high)]:
        env.step(np.full((1, *env.spec.action_shape), value))
        np.testing.assert_allclose(env._env.physics.data.ctrl, control, atol=1e-12)
    env.close()


def test_seed_fixes_the_episodes():
    a, b = make("reacher_easy", seed=5), make("reacher_easy", seed=6)
    first = a.reset()
    assert (b.reset().obs != first.obs).any()
    assert (a.reset().obs != first.obs).any()  # the next episode has another target
    assert_same([a.reset(seed=5), b.reset(seed=5)], [first, first])
    a.close(), b.close()


@pytest.mark.parametrize(("task", "camera"), [("quadruped_walk", 2), ("cartpole_swingup", 0)])
def test_cameras(task, camera):
    env = make(task, image_size=20)
    obs, physics = env.reset().obs[0].astype(float), env._env.physics
    # Drawn through a buffer of another size, edges are smoothed a little differently.
    error = lambda i: np.mean(np.abs(physics.render(20, 20, camera_id=i) - obs))
    assert min(range(-1, physics.model.ncam), key=error) == camera and error(camera) < 1
    env.close()


def test_fast_rendering_shows_the_same_scene_without_shadows():
    pictures = {}
    for quality in ("full", "fast"):
        env = make("walker_walk", image_size=64, render_quality=quality)
        pictures[quality] = env.reset().obs[0].astype(float)
        # A picture for people, at the size of a frame, is drawn in the same way.
        np.testing.assert_array_equal(env.render(64, 64), pictures[quality])
        assert env.render(120, 160).shape == (120, 160, 3)
        env.close()
    difference = np.abs(pictures["full"] - pictures["fast"])
    assert 0 < difference.mean() < 15  # of 255
    assert difference[:32].mean() < 2  # the upper half has no floor, hence no shadow


# State.

# Tasks whose model changes at reset (reacher, finger, manipulator, point_mass, escape) or when it
# is built (lqr), besides plain ones.
TASKS = [
    "walker_walk",
    "reacher_hard",
    "finger_turn_hard",
    "manipulator_bring_ball",
    "point_mass_hard",
    "quadruped_walk",
    "lqr_lqr_2_1",
]


def check_state(task, **kwargs):
    """Restores a state, taken in the third episode, into a stranger and into its own past self."""
    env = make(task, seed=3, **kwargs)
    actions = random_actions(env, 8)

    def continue_from_here(env):
        """Four steps, then another episode, which asks whether the random stream is right too."""
        steps = [env.step(action) for action in actions[:4]]
        return [*steps, env.reset(), *(env.step(action) for action in actions[4:])]

    for _ in range(3):
        env.reset()
        for action in actions:
            env.step(action)
    state = env.get_state()
    expected = continue_from_here(env)

    stranger = make(task, seed=99, **kwargs)
    stranger.reset()
    stranger.step(actions[0])
    stranger.set_state(state)
    assert_same(continue_from_here(stranger), expected)
    stranger.close()

    env.set_state(state)
    assert_same(continue_from_here(env), expected)
    env.close()


@pytest.mark.parametrize("task", TASKS)
def test_state_restores_exactly(task):
    check_state(task)


def test_state_restores_exactly_with_full_rendering():
    check_state("walker_walk", render_quality="full")


def test_state_of_an_ended_episode_and_of_one_not_begun():
    env = make("cartpole_swingup", action_repeat=500)
    action = np.full((1, 1), 0.1, np.float32)
    unbegun = env.get_state()
    first = env.step(action)
    assert first.step_type.tolist() == [FIRST]
    begun = env.get_state()
    env.step(action)
    assert env.step(action).step_type.tolist() == [LAST]
    ended = env.get_state()
    second = env.step(action)

    other = make("cartpole_swingup", action_repeat=500, seed=1)
    other.set_state(unbegun)
    assert_same([other.step(action)], [first])
    other.set_state(ended)
    assert_same([other.step(action)], [second])
    other.set_state(begun)
    assert other.step(action).step_type.tolist() == [MID]
    env.close(), other.close()


def test_state_is_a_small_dict_of_arrays():
    """Always the same keys and no empty array, as checkpointers like it."""
    env = make("walker_walk")
    before, _ = env.get_state(), env.reset()
    at_first, _ = env.get_state(), env.step(np.zeros((1, 6)))
    for state in (before, at_first, env.get_state()):
        assert state.keys() == before.keys()
        assert all(isinstance(x, np.ndarray) and x.size for x in state.values())
        assert all(x.dtype == before[name].dtype for name, x in state.items())
        assert sum(x.nbytes for x in state.values()) < 5_000
    env.close()


# OpenGL. Nothing is imported or rendered here: the probe is replaced.


@pytest.fixture
def fresh_gl(monkeypatch):
    """As in a new process: no backend is named, and dm_control is not imported."""
    monkeypatch.delitem(sys.modules, "dm_control._render", raising=False)
    # Set before deleting, so that what select writes is undone after the test.
    for name in ("MUJOCO_GL", "PYOPENGL_PLATFORM", "LP_NUM_THREADS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "platform", "linux")
    return monkeypatch


@pytest.mark.parametrize("working", ["egl", "osmesa"])
def test_select_takes_the_first_backend_that_renders(fresh_gl, working):
    fresh_gl.setattr(gl, "probe", lambda name: None if name == working else "no library")
    assert gl.select() == working
    assert os.environ["MUJOCO_GL"] == os.environ["PYOPENGL_PLATFORM"] == working


def test_select_honours_the_environment(fresh_gl):
    fresh_gl.setenv("MUJOCO_GL", "osmesa")
    fresh_gl.setattr(gl, "probe", lambda name: pytest.fail("probed"))
    assert gl.select() == "osmesa"


@pytest.mark.parametrize(
    ("cores", "given", "threads"), [(2, None, "0"), (3, None, None), (2, "2", "2")]
)
def test_mesa_draws_in_one_thread_where_cores_are_few(fresh_gl, cores, given, threads):
    fresh_gl.setattr(gl.cores, "available", lambda: cores)
    fresh_gl.setenv("MUJOCO_GL", "egl")
    if given:
        fresh_gl.setenv("LP_NUM_THREADS", given)
    gl.select()
    assert os.environ.get("LP_NUM_THREADS") == threads


def test_select_leaves_other_systems_alone(fresh_gl):
    fresh_gl.setattr(sys, "platform", "darwin")
    fresh_gl.setattr(gl, "probe", lambda name: pytest.fail("probed"))
    assert gl.select() == "glfw"
    assert "MUJOCO_GL" not in os.environ


def test_without_opengl_one_error_names_the_packages(fresh_gl):
    fresh_gl.setattr(gl, "probe", lambda name: f"lib{name} is missing")
    with pytest.raises(UserError) as error:
        gl.select()
    for part in ("libegl is missing", "libosmesa is missing", "apt-get install", "MUJOCO_GL"):
        assert part in str(error.value)


def test_probe_tells_a_backend_that_renders_from_one_that_does_not():
    assert gl.probe(gl.select()) is None
    assert "no_such_backend" in gl.probe("no_such_backend")


# The fake environment.


def test_fake_episodes_frames_and_rewards():
    """Two environments out of step: lengths 2, 3 and 3, 2; the episodes of length 3 terminate."""
    env = fake.FakeEnv(num_envs=2, lengths=[2, 3], terminals=[False, True], num_actions=4)
    time_steps = [env.reset(), *(env.step(np.array([0, 3])) for _ in range(6))]
    seen = [[fake.FakeEnv.decode(frame) for frame in ts.obs] for ts in time_steps]
    assert [row[0] for row in seen] == [
        (0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 0), (0, 1, 1), (0, 1, 2), (0, 1, 3),
    ]  # fmt: skip
    assert [row[1] for row in seen] == [
        (1, 0, 0), (1, 0, 1), (1, 0, 2), (1, 0, 3), (1, 1, 0), (1, 1, 1), (1, 1, 2),
    ]  # fmt: skip
    kinds = np.stack([ts.step_type for ts in time_steps], axis=1)
    assert kinds[0].tolist() == [FIRST, MID, LAST, FIRST, MID, MID, LAST]
    assert kinds[1].tolist() == [FIRST, MID, MID, LAST, FIRST, MID, LAST]
    discounts = np.stack([ts.discount for ts in time_steps], axis=1)
    assert discounts[0].tolist() == [1, 1, 1, 1, 1, 1, 0]
    assert discounts[1].tolist() == [1, 1, 1, 0, 1, 1, 1]
    assert [float(ts.reward[0]) for ts in time_steps] == [0, 1, 2, 0, 101, 102, 103]


def test_fake_has_the_types_of_the_protocol():
    env = fake.FakeEnv(num_envs=3, obs_shape=(6, 5, 1), lengths=[4, 4])
    assert env.spec.episode_steps == 4 and env.spec.action_shape == (2,)
    for time_step in (env.reset(), env.step(np.zeros((3, 2)))):
        assert time_step.obs.shape == (3, 6, 5, 1) and time_step.obs.dtype == np.uint8
        assert time_step.step_type.dtype == np.int32 and time_step.step_type.shape == (3,)
        assert time_step.reward.dtype == time_step.discount.dtype == np.float32
    assert [fake.FakeEnv.decode(frame) for frame in time_step.obs] == [(n, 0, 1) for n in range(3)]
    assert env.render(10, 12).shape == (10, 12, 3)
    assert fake.FakeEnv(lengths=[1, 2]).spec.episode_steps is None


def test_fake_refuses_actions_of_the_wrong_kind():
    continuous, discrete = fake.FakeEnv(), fake.FakeEnv(num_actions=2)
    for env, action in [
        (continuous, np.zeros(2)),
        (continuous, np.array([[0, 1.5]])),
        (discrete, np.array([2])),
        (discrete, np.zeros((1, 2))),
    ]:
        env.reset()
        with pytest.raises(AssertionError):
            env.step(action)


def test_fake_state_restores_exactly():
    env = fake.FakeEnv(num_envs=2, lengths=[2, 3])
    env.reset()
    actions = random_actions(env, 9)
    for action in actions[:4]:
        env.step(action)
    state = env.get_state()
    expected = [env.step(action) for action in actions[4:]]
    other = fake.FakeEnv(num_envs=2, lengths=[2, 3])
    other.set_state(state)
    assert_same([other.step(action) for action in actions[4:]], expected)
    assert fake.FakeEnv.decode(other.reset(seed=1).obs[0]) == (0, 0, 0)


# The doctor.


@pytest.fixture
def quick_doctor(monkeypatch):
    """Rendering takes a moment and not seconds."""
    monkeypatch.setattr(doctor, "_SECONDS", 0.05)
    return monkeypatch


def test_doctor_reports_a_working_machine(quick_doctor, capsys):
    assert doctor.main([]) == 0
    report = capsys.readouterr().out
    for line in ("python ", "jax ", "mujoco ", "GFLOP/s", "full ", "fast ", "frames/s", "GB free"):
        assert line in report
    assert "Training will work here" in report


def test_doctor_says_how_to_fix_versions(quick_doctor, capsys):
    versions = {"flax": None, "mujoco": "4.0.1", "dm_control": None, "envpool": None}

    def version(name, real=importlib.metadata.version):
        if name not in versions:
            return real(name)
        if versions[name] is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    quick_doctor.setattr(importlib.metadata, "version", version)
    quick_doctor.setattr(doctor, "check_jax", lambda: iter(()))
    quick_doctor.setattr(doctor, "check_rendering", lambda: iter(()))
    assert doctor.main([]) == 2
    report = capsys.readouterr().out
    assert "fix: pip install 'flax>=0.12'" in report
    assert "fix: pip install 'mujoco<4,>=3.17'" in report
    alone = "--no-deps " if sys.version_info >= (3, 13) else ""  # labmaze is not to be had
    assert f"fix: pip install {alone}'dm_control>=1.0.30'" in report
    assert "optional" in report and report.count("fix:") == 3


def test_doctor_says_how_to_get_opengl(quick_doctor, fresh_gl, capsys):
    fresh_gl.setattr(gl, "probe", lambda name: f"lib{name} is missing")
    quick_doctor.setattr(doctor, "check_jax", lambda: iter(()))
    version = doctor._version
    for envpool, games in (("1.2.3", ", except for Atari games,"), (None, "")):
        quick_doctor.setattr(
            doctor, "_version", lambda name, v=envpool: v if name == "envpool" else version(name)
        )
        assert doctor.main([]) == 2
        report = capsys.readouterr().out
        assert "libegl is missing" in report and "fix: On Debian or Ubuntu: apt-get" in report
        assert f"Training will NOT work here{games} until" in report

    fresh_gl.setenv("MUJOCO_GL", "osmesa")  # named by the user, so untried until the doctor comes
    assert doctor.main([]) == 2
    assert "MUJOCO_GL=osmesa does not render: libosmesa is missing" in capsys.readouterr().out


def test_doctor_survives_whatever_breaks(quick_doctor, capsys):
    """JAX and imageio_ffmpeg cannot be imported: both are reported, and so is the rest."""
    quick_doctor.setitem(sys.modules, "jax", None)
    quick_doctor.setitem(sys.modules, "imageio_ffmpeg", None)
    quick_doctor.setattr(doctor, "check_rendering", lambda: iter(()))
    assert doctor.main([]) == 2
    report = capsys.readouterr().out
    assert "import of jax halted" in report and "no videos" in report and "GB free" in report


# Everything else that the suite has. Named here, for collecting tests should not import dm_control.

DOMAINS = [
    "acrobot", "ball_in_cup", "cartpole", "cheetah", "dog", "finger", "fish", "hopper", "humanoid",
    "humanoid_CMU", "lqr", "manipulator", "pendulum", "point_mass", "quadruped", "reacher",
    "stacker", "swimmer", "walker",
]  # fmt: skip


def test_no_domain_is_left_out_below():
    assert {dmc.parse_task(name)[0] for name in dmc.task_names()} == set(DOMAINS)


@pytest.mark.slow
@pytest.mark.parametrize("domain", DOMAINS)
def test_every_domain_renders_steps_and_restores(domain):
    task = next(name for name in dmc.task_names() if dmc.parse_task(name)[0] == domain)
    env = make(task)
    assert env.reset().obs.std() > 5
    time_step = env.step(random_actions(env, 1)[0])
    assert np.isfinite(time_step.reward).all() and time_step.obs.std() > 5
    assert domain == "lqr" or env.spec.episode_steps == 500
    env.close()
    check_state(task)
