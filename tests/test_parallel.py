"""Environments in processes of their own do what they would do alone."""

import functools
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from runs import CONVS, TINY, of, read_checkpoint, read_evals, read_metrics

from seer_jax import build, checkpoint, run
from seer_jax.envs import parallel
from seer_jax.envs.fake import FakeEnv
from seer_jax.envs.parallel import ParallelEnv, own_seeds
from seer_jax.types import LAST, TimeStep, UserError

# Environment 0 plays episodes of 2 steps, environment 1 of 3 and 1 in turn.
LENGTHS = ((2,), (3, 1))
ACTION = np.zeros((2, 2), np.float32)


def refuse():
    raise UserError("no such task")


class Interrupted:
    """A maker whose process gets Ctrl-C before it serves: while it reads what it shall make."""

    def __call__(self):
        return FakeEnv()

    def __getstate__(self):
        return {"any": 0}

    def __setstate__(self, _):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module")
def env():
    env = ParallelEnv([functools.partial(FakeEnv, lengths=lengths) for lengths in LENGTHS])
    yield env
    env.close()


def assert_equal(timestep, singles):
    expected = TimeStep(*(np.concatenate(x) for x in zip(*singles, strict=True)))
    for name, x in timestep._asdict().items():
        np.testing.assert_array_equal(x, getattr(expected, name), err_msg=name)
        assert x.dtype == getattr(expected, name).dtype


def test_steps_and_pictures_are_those_of_each_alone(env):
    alone = [FakeEnv(lengths=lengths) for lengths in LENGTHS]
    assert env.spec == alone[0].spec._replace(num_envs=2)
    assert_equal(env.reset(seed=3), [each.reset(seed=3) for each in alone])
    for _ in range(7):
        timestep = env.step(ACTION)
        assert_equal(timestep, [each.step(ACTION[:1]) for each in alone])
    np.testing.assert_array_equal(env.render(8, 8), alone[0].render(8, 8))
    assert_equal(env.reset(), [each.reset() for each in alone])


def test_a_state_brings_all_of_them_back_from_a_checkpoint(env, tmp_path):
    env.reset(seed=0)
    env.step(ACTION)
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(1, {"env": env.get_state()}, {})
    checkpoints.close()
    restored, _ = checkpoint.restore_once(tmp_path, ("env",))
    state = {path[2:-2]: x for path, x in restored["env"].items()}  # as train.py reads it
    after = [env.step(ACTION) for _ in range(4)]
    assert any((timestep.step_type == LAST).any() for timestep in after)
    assert env.set_state(state) is True
    for timestep in after:
        assert_equal(env.step(ACTION), [timestep])


def test_an_error_in_a_process_is_raised_here(env):
    """With where it came from: FakeEnv's own, about the action."""
    with pytest.raises(RuntimeError, match=r"(?s)fake.py.*AssertionError"):
        env.step(ACTION + 2)
    assert env.reset(seed=0).obs.shape == (2, 8, 8, 3)


def test_what_is_wrong_with_building_one_is_said_plainly():
    with pytest.raises(UserError, match="no such task"):
        ParallelEnv([FakeEnv, refuse])


def test_a_process_that_dies_is_a_plain_message():
    env = ParallelEnv([FakeEnv])
    os.kill(env._processes[0].pid, signal.SIGKILL)
    with pytest.raises(UserError, match="environment 0 has died .exit code -9.*Fewer --num_envs"):
        env.step(ACTION[:1])
    env.close()


def test_more_processes_than_the_system_allows_are_a_plain_message(monkeypatch):
    start = parallel._start

    def only_one(pipe):
        monkeypatch.setattr(parallel, "_start", lambda _: os.pipe2(-1))  # raises an OSError
        return start(pipe)

    monkeypatch.setattr(parallel, "_start", only_one)
    with pytest.raises(UserError, match="environment 1 of 2 cannot be started .*Fewer --num_envs"):
        ParallelEnv([FakeEnv, FakeEnv])


def test_ctrl_c_does_not_end_a_process_that_is_still_starting():
    handler = signal.getsignal(signal.SIGINT)
    env = ParallelEnv([Interrupted()])
    assert env.reset(seed=0).obs.shape[0] == 1
    assert signal.getsignal(signal.SIGINT) is handler
    env.close()


def test_a_signal_is_not_lost_while_a_process_starts():
    received = []
    before = signal.signal(signal.SIGTERM, lambda *_: received.append("SIGTERM"))
    try:
        with parallel._signals_held_back():
            os.kill(os.getpid(), signal.SIGTERM)
        assert received == ["SIGTERM"]
    finally:
        signal.signal(signal.SIGTERM, before)


def refused_connection():
    raise ConnectionRefusedError("no simulator listens")


def test_a_connection_that_an_environment_lacks_is_said_to_be_that():
    with pytest.raises(RuntimeError, match=r"(?s)process:.*no simulator listens"):
        ParallelEnv([refused_connection])


class Simulator(FakeEnv):
    """One that runs in a process of its own."""

    def close(self):
        with subprocess.Popen(["sleep", "60"]) as process:
            process.terminate()


def test_what_an_environment_starts_can_be_terminated():
    env = ParallelEnv([Simulator])
    began = time.perf_counter()
    env.close()
    assert time.perf_counter() - began < 5 and env._processes[0].returncode == 0


def test_processes_whose_parent_is_gone_end_without_a_word():
    program = (
        "import os; from seer_jax.envs import fake, parallel\n"
        "env = parallel.ParallelEnv([fake.FakeEnv])\n"
        "for _ in range(200): env._connections[0].send(('reset', ()))\n"
        "os._exit(7)"
    )
    # Returns once they have ended too: stderr is theirs as well.
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (7, b"", b"")


def test_every_environment_has_a_seed_of_its_own():
    assert len(set(own_seeds(0, 8)) | set(own_seeds(1, 8))) == 16
    assert own_seeds(0, 8)[:2] == own_seeds(0, 2)


def test_several_environments_play_something_else_each():
    env = build.make_env(run.parse([*TINY, "--task=reacher_easy", "--num_envs=2"]))
    for seed in (None, 0):
        first, second = env.reset(seed=seed).obs
        assert (first != second).any()
    env.close()


def test_a_process_does_without_jax():
    env = build.make_env(run.parse([*TINY, "--num_envs=2"]))
    for process in env._processes:
        loaded = pathlib.Path(f"/proc/{process.pid}/maps").read_text()
        assert "mujoco" in loaded and "jaxlib" not in loaded
    env.close()
    assert [process.returncode for process in env._processes] == [0, 0]


@pytest.mark.usefixtures("compile_once")
def test_a_run_steps_several_real_environments(tmp_path):
    flags = [*TINY, *CONVS, "--num_envs=2", "--eval_episodes=4", f"--logdir={tmp_path}"]
    assert run.main(flags) == 0
    items, progress = read_checkpoint(tmp_path)
    assert progress["step"] == 60 and progress["phase"] == "latents"
    assert items["replay"][".rows.reward"].shape[1] == 2
    assert [row["episodes"] for row in read_evals(tmp_path)] == ["4"] * 4
    # Two environments: each has ended an episode of 20 steps at step 40.
    ended = of(read_metrics(tmp_path), "train/return")
    assert [step for step, _ in ended] == [39, 40] and ended[0][1] != ended[1][1]
