"""Atari games from EnvPool: the semantics that the agent relies on. Skipped where it is missing."""

import types

import numpy as np
import pytest

import seer_jax
from seer_jax import build, presets, run
from seer_jax import config as config_lib
from seer_jax.types import FIRST, LAST, MID, UnknownTask, UserError

pytest.importorskip("envpool")

from seer_jax.envs import atari


def play(env, count, seed=0):
    """Random play: the time steps, the first of a reset."""
    random = np.random.default_rng(seed)
    actions = random.integers(0, env.spec.num_actions, (count, env.spec.num_envs))
    return [env.reset(), *(env.step(a.astype(np.int32)) for a in actions)]


@pytest.fixture(scope="module")
def trained():
    env = atari.make("Breakout", seed=3, num_envs=2)
    steps = play(env, 400)
    yield env, steps
    env.close()


def test_what_a_step_holds(trained):
    env, steps = trained
    assert env.spec.obs_shape == (84, 84, 1) and env.spec.num_actions == 4
    assert env.spec.stack_pad == "zeros" and env.spec.reference_scores == (1.7, 30.5)
    for step in steps:
        assert step.obs.shape == (2, 84, 84, 1) and step.obs.dtype == np.uint8
        for name, dtype in (("step_type", "i4"), ("reward", "f4"), ("discount", "f4")):
            assert getattr(step, name).shape == (2,) and getattr(step, name).dtype == dtype
    assert env.render(30, 40).shape == (30, 40, 3)


def test_a_lost_life_ends_a_training_episode(trained):
    """Breakout has five lives: far more episodes than games, each terminal."""
    _, steps = trained
    step_type = np.array([step.step_type for step in steps])
    discount = np.array([step.discount for step in steps])
    assert np.all(discount[step_type == LAST] == 0) and np.all(discount[step_type != LAST] == 1)
    for env in range(2):
        lasts = np.flatnonzero(step_type[:-1, env] == LAST)
        assert len(lasts) >= 5
        assert np.all(step_type[lasts + 1, env] == FIRST)


def test_between_two_lives_there_is_one_step_without_action():
    """The pictures and lives are those of the whole game, played with the same actions."""
    random = np.random.default_rng(0)
    lives, game = (atari.make("Breakout", seed=3, training=training) for training in (True, False))
    steps = [(lives.reset(), game.reset())]
    for action in random.integers(0, 4, (300, 1)).astype(np.int32):
        between = steps[-1][0].step_type == LAST
        steps.append((lives.step(action), game.step(np.where(between, 0, action))))
    for of_life, of_game in steps:
        np.testing.assert_array_equal(of_life.obs, of_game.obs)
    ends = np.array([[step.step_type[0] == LAST for step in pair] for pair in steps])
    assert ends[:, 1].any() and ends[ends[:, 1], 0].all()
    assert ends[:, 0].sum() >= 5 * ends[:, 1].sum()
    lives.close()
    game.close()


def test_a_game_that_ends_between_two_lives(monkeypatch):
    """The life that begins there is over when the next game begins, whose own first life follows:
    of LAST comes FIRST, as replay relies on."""
    raw = [(FIRST, 3), (MID, 3), (MID, 2), (LAST, 2), (FIRST, 3), (MID, 3), (LAST, 2), (FIRST, 3)]
    env = atari.make("Alien", seed=0)
    env.close()
    monkeypatch.setattr(env, "_pool", ScriptedPool(raw))
    steps = [env.reset(), *(env.step(np.ones(1, np.int32)) for _ in raw[1:])]
    expected = [FIRST, MID, LAST, FIRST, LAST, FIRST, LAST, FIRST]
    assert [int(step.step_type[0]) for step in steps] == expected
    assert [float(step.discount[0]) for step in steps] == [float(x != LAST) for x in expected]
    assert [float(step.reward[0]) for step in steps] == [float(x != FIRST) for x in expected]
    assert env._pool.actions == [1, 1, 0, 1, 0, 1, 0]


class ScriptedPool:
    """EnvPool's side of a game whose step types and lives are given, with rewards of 1."""

    def __init__(self, script):
        self.script, self.actions = iter(script), []

    def reset(self):
        step_type, lives = next(self.script)
        observation = types.SimpleNamespace(
            obs=np.zeros((1, 1, 84, 84), np.uint8),
            lives=np.array([lives]),
            terminated=np.array([step_type == LAST]),
        )
        return types.SimpleNamespace(
            step_type=np.array([step_type]),
            observation=observation,
            reward=np.ones(1),
            discount=np.array([float(step_type != LAST)]),
        )

    def step(self, action):
        self.actions += action.tolist()
        return self.reset()


def test_training_rewards_are_clipped_and_scores_are_not():
    """An opponent in KungFuMaster is worth 100 points or more."""
    for training in (True, False):
        env = atari.make("KungFuMaster", seed=1, num_envs=4, training=training)
        rewards = np.array([step.reward for step in play(env, 300)])
        env.close()
        assert rewards.max() == 1 if training else rewards.max() >= 100


def test_an_evaluation_episode_is_a_whole_game():
    """The same play: the game of the one is the episodes of the other, a life each."""
    episodes = {}
    for training in (True, False):
        env = atari.make("Breakout", seed=3, num_envs=4, training=training)
        steps = play(env, 800)
        env.close()
        episodes[training] = np.count_nonzero([step.step_type == LAST for step in steps])
    assert episodes[True] > 3 * episodes[False] > 0


@pytest.mark.parametrize("when", ["built", "reset"])
def test_neighbouring_seeds_share_no_game(when):
    """EnvPool gives game i of a pool the seed + i, so that they would."""
    pools = [atari.make("Alien", seed=seed * (when == "built"), num_envs=2) for seed in (0, 1)]
    for seed, pool in enumerate(pools):
        pool.reset(seed if when == "reset" else None)
    frames = [np.stack([pool.step(np.zeros(2, int)).obs for _ in range(40)], 1) for pool in pools]
    assert all((one != other).any() for one in frames[0] for other in frames[1])
    for pool in pools:
        pool.close()


def test_the_seed_decides():
    def frames(seed):
        env = atari.make("Alien", seed=seed)
        steps = play(env, 60)
        env.close()
        return np.stack([step.obs for step in steps])

    np.testing.assert_array_equal(frames(5), frames(5))
    assert not np.array_equal(frames(5), frames(6))


@pytest.mark.parametrize("training", [True, False])
def test_a_time_limit_is_not_a_terminal_step(monkeypatch, training):
    """Twenty steps of Pong, in which nobody can lose; the life lost in Breakout is terminal."""
    monkeypatch.setattr(atari, "_MAX_FRAMES", 80)
    env = atari.make("Pong", seed=0, training=training)
    last = play(env, 20)[-1]
    assert last.step_type.tolist() == [LAST] and last.discount.tolist() == [1]
    env.close()
    monkeypatch.undo()
    env = atari.make("Breakout", seed=0, training=training)
    steps = play(env, 400)
    ends = [step.discount[0] for step in steps if step.step_type[0] == LAST]
    assert ends and not any(ends)
    env.close()


def test_a_restored_environment_begins_new_games():
    env = atari.make("Alien", seed=0, num_envs=2)
    play(env, 10)
    assert env.set_state(env.get_state()) is False
    step = env.step(np.zeros(2, np.int32))
    assert step.step_type.tolist() == [FIRST, FIRST]
    assert env.step(np.zeros(2, np.int32)).step_type.tolist() == [MID, MID]
    env.close()


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("Alien", "Alien"),
        ("alien", "Alien"),
        ("atari:road-runner", "RoadRunner"),
        ("crazy_climber", "CrazyClimber"),
        ("walker-walk", "walker_walk"),
        ("dmc:cup_catch", "ball_in_cup_catch"),
    ],
)
def test_names(text, task):
    assert build.parse_task(text) == task
    assert config_lib.is_atari(task) == (task in atari.game_names())


def test_bad_names_get_the_nearest_ones():
    with pytest.raises(UnknownTask, match=r"Did you mean Alien\b"):
        build.parse_task("atari:Allien")
    with pytest.raises(UnknownTask, match=r"(?s)Did you mean walker_walk.*Unknown Atari game"):
        build.parse_task("walker_wolk")
    with pytest.raises(UnknownTask, match="Did you mean RoadRunner"):
        build.parse_task("RoadRuner")


def test_without_envpool_a_misspelt_suite_task_still_gets_its_nearest_ones(monkeypatch):
    monkeypatch.setattr(atari.importlib.util, "find_spec", find_all_but("envpool"))
    with pytest.raises(UnknownTask, match=r"(?s)Did you mean walker_walk.*Atari needs EnvPool"):
        build.parse_task("walker_wolk")
    with pytest.raises(UserError, match="Atari needs EnvPool"):
        build.parse_task("atari:Alien")


def test_without_opengl_games_are_found_and_the_suite_is_a_plain_message(monkeypatch):
    def missing(_):
        raise UserError("nothing renders")

    monkeypatch.setattr(build.dmc, "parse_task", missing)
    assert build.parse_task("Alien") == "Alien"
    with pytest.raises(UserError, match="nothing renders"):
        build.parse_task("walker_walk")


def find_all_but(missing):
    find_spec = atari.importlib.util.find_spec
    return lambda name: None if name == missing else find_spec(name)


def test_the_26_games_of_atari_100k_exist():
    assert len(atari.REFERENCE_SCORES) == 26
    assert set(atari.REFERENCE_SCORES) <= set(atari.game_names())
    assert all(random < human for random, human in atari.REFERENCE_SCORES.values())


def test_bad_values():
    with pytest.raises(UserError, match="EnvPool takes 0 to"):
        atari.make("Alien", seed=2**31)
    with pytest.raises(UserError, match="preset=atari100k is not for walker_walk"):
        presets.for_task("walker_walk", "atari100k")


@pytest.mark.usefixtures("compile_once")
def test_a_trained_policy_plays_whole_games_for_their_score(tmp_path):
    """Not as in training, where rewards are clipped and a lost life ends an episode."""
    flags = ["--task=Alien", "--preset=quick", "--num_steps=20", "--freeze_step=10", "--no_video"]
    small = ["--learning_starts=5", "--hidden_size=8", "--eval_episodes=1"]
    assert run.main([*flags, *small, f"--logdir={tmp_path}"]) == 0
    policy = seer_jax.load_policy(tmp_path)
    scores = policy.evaluate(episodes=2)
    assert scores.shape == (2,) and scores.min() > 0 and not (scores % 10).any()
    np.testing.assert_array_equal(policy.evaluate(episodes=2), scores)
