"""The loop as Atari needs it: discrete actions, several environments, none that can be restored.

Two environments' episodes last 5, 3, 5, ... and 3, 5, 3, ... steps, which is small enough to count
along by hand; the agent is Rainbow.
"""

import dataclasses
import types

import numpy as np
import pytest
from runs import assert_same_run, of, read_checkpoint, read_metrics

from seer_jax import train
from seer_jax.agents import rainbow
from seer_jax.config import Config
from seer_jax.envs.fake import FakeEnv
from seer_jax.types import FIRST, LAST

CONFIG = Config(
    task="Fake",
    num_steps=60,
    freeze_step=32,
    num_copies=1,
    num_envs=2,
    replay_capacity=40,
    learning_starts=10,
    batch_size=8,
    frame_stack=2,
    image_size=25,
    action_repeat=4,
    eval_every=30,
    eval_episodes=4,
    checkpoint_every=20,
    log_every=5,
    video=False,
    agent=rainbow.Config(hidden_size=8, n_step=3, target_every=5),
)


class Env(FakeEnv):
    def __init__(self, num_envs=CONFIG.num_envs):
        super().__init__(
            num_envs,
            lengths=(5, 3),
            terminals=(False, True),
            num_actions=3,
            obs_shape=(25, 25, 1),
            action_repeat=4,
            stack_pad="zeros",
        )
        self.spec = self.spec._replace(reference_scores=(-20.0, 10.0))


class Unrestorable(Env):
    """Begins a new episode when it is restored, as EnvPool's games do."""

    def set_state(self, state):
        self._episode = np.array(state["episode"])
        self._t = self._length()
        return False


pytestmark = pytest.mark.usefixtures("compile_once")

AGENT = rainbow.make(CONFIG.agent, Env().spec, CONFIG.frame_stack)


def run(logdir, env=None, **changes):
    logdir.mkdir(exist_ok=True)
    config = dataclasses.replace(CONFIG, **changes)
    env = env or Env(config.num_envs)
    return train.train(config, logdir, env, Env, AGENT, show_progress=False)


def run_until_it_fails(logdir, env, passes, **changes):
    """As if the machine had failed after so many passes."""
    step, left = env.step, iter(range(passes))

    def step_or_fail(action):
        if next(left, None) is None:
            raise RuntimeError("the machine failed")
        return step(action)

    env.step = step_or_fail
    with pytest.raises(RuntimeError, match="the machine failed"):
        run(logdir, env, **changes)


@pytest.mark.parametrize("num_envs", [1, 2, 3])
def test_every_step_of_every_environment_counts(tmp_path, num_envs):
    run(tmp_path, num_envs=num_envs)
    items, progress = read_checkpoint(tmp_path)
    assert 60 <= progress["step"] < 60 + num_envs
    # An update for each step, but for those of the passes that began with random actions.
    assert 60 - 10 - num_envs < progress["updates"] <= progress["step"] - 10
    rows = items["replay"][".rows.step_type"]
    assert rows.shape[1] == num_envs and len(rows) == items["replay"][".size"]
    lines = read_metrics(tmp_path)
    ended = of(lines, "train/length")
    assert {length for _, length in ended} == {3, 5}
    assert [step // 30 for step, _ in of(lines, "eval/return")] == [0, 1, 2]
    normalised = of(lines, "eval/human_normalised")
    assert [value * 30 - 20 for _, value in normalised] == pytest.approx(
        [value for _, value in of(lines, "eval/return")]
    )


def test_flops_are_those_of_all_environments(tmp_path):
    config = dataclasses.replace(CONFIG, num_envs=3)
    run = train.Run(config, tmp_path, Env(3), Env, AGENT)
    run.restore_or_start()
    run.loggers = [types.SimpleNamespace(write=lambda *_: None, close=lambda: None)]
    flops = run.agent.flops
    while run.progress.step < 12:
        run.step()
    before, updates = run.progress.flops, run.progress.updates
    run.step()
    expected = 3 * (flops.encode + flops.act)
    expected += (run.progress.updates - updates) * config.batch_size * flops.update
    assert run.progress.flops - before == pytest.approx(expected, rel=1e-9)
    before, rows = run.progress.flops, int(run.replay.size)
    run.freeze()
    assert run.progress.flops - before == pytest.approx(3 * rows * flops.encode, rel=1e-9)
    run.close()


def test_evaluation_counts_the_same_number_of_episodes_of_each_environment(tmp_path):
    run(tmp_path, num_steps=1, eval_episodes=4)
    (_, mean), *_ = of(read_metrics(tmp_path), "eval/return")
    # Environment 0 plays 5 and then 3 steps, environment 1 plays 3 and then 5.
    total = lambda episode, steps: sum(FakeEnv.reward(episode, t) for t in range(1, steps + 1))
    assert mean == np.mean([total(0, 5), total(1, 3), total(0, 3), total(1, 5)])


def test_an_episode_that_cannot_go_on_ends_as_by_a_time_limit(tmp_path):
    run_until_it_fails(tmp_path, Unrestorable(), passes=14)
    cut = read_checkpoint(tmp_path)[1]["iteration"]
    run_until_it_fails(tmp_path, Unrestorable(), passes=14)
    items, progress = read_checkpoint(tmp_path)
    rows = {name: items["replay"][f".rows.{name}"] for name in ("step_type", "discount")}
    cut -= progress["iteration"] - items["replay"][".size"]  # its row, where older ones are gone
    assert rows["step_type"][cut].tolist() == [LAST] * 2 and rows["discount"][cut].all()
    assert {length for _, length in of(read_metrics(tmp_path), "train/length")} <= {3, 5}
    for env in range(2):
        step_type = rows["step_type"][:, env]
        for before, after in zip(step_type[:-1], step_type[1:], strict=True):
            assert (before == LAST) == (after == FIRST)
    assert progress["step"] >= 40


@pytest.mark.parametrize(
    ("replay", "latent_dtype"),
    [("uniform", "float32"), ("prioritised", "bfloat16"), ("prioritised", "uint8")],
)
def test_a_stopped_run_ends_like_an_uninterrupted_one(tmp_path, replay, latent_dtype):
    changes = dict(replay=replay, latent_dtype=latent_dtype)
    run(tmp_path / "whole", **changes)

    for passes in (13, 8, 9):  # before the freeze, at it, after it
        run_until_it_fails(tmp_path / "crashed", Env(), passes, **changes)
    run(tmp_path / "crashed", **changes)
    assert_same_run(tmp_path / "crashed", tmp_path / "whole")
    items, _ = read_checkpoint(tmp_path / "whole")
    stored = items["replay"][".rows.obs"]
    assert stored.dtype.name == latent_dtype
    assert (".scale" in items["replay"]) == (latent_dtype == "uint8")
    priorities = items["replay"].get(".priorities.values")
    assert (priorities is not None) == (replay == "prioritised")
    if priorities is not None:  # those of LAST rows, of rows never drawn, and others
        assert len(np.unique(priorities)) > 9
    clipped = of(read_metrics(tmp_path / "whole"), "latent/clipped")
    # At the freeze, and watched after it.
    assert (len(clipped) > 2) == bool(clipped) == (latent_dtype == "uint8")
