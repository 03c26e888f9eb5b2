"""`kill -9` at any moment costs the way from the last checkpoint, never the run or a bit of it.

Real processes of `python -m seer_jax.run`, killed and started again until the run is done. It must
then be the one that nobody killed: the same checkpoint to the last bit, the same lines.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from runs import TINY, assert_same_run, cache_in, of, read_checkpoint, read_evals, read_metrics

STEPS, FREEZE = 120, 60
# The step of the freeze ends an episode, and a line says so just before it: a kill can be aimed.
FLAGS = (*TINY, f"--num_steps={STEPS}", f"--freeze_step={FREEZE}", "--checkpoint_every=15")


class Killable:
    """A run in a process of its own, and in its folder."""

    def __init__(self, logdir, cache, flags=FLAGS):
        self.logdir, self.started = logdir, time.time()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "seer_jax.run", *flags, f"--logdir={logdir}"],
            env=os.environ | cache_in(cache),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self):
        output, _ = self.process.communicate(timeout=300)
        assert self.process.returncode == 0 and "Traceback" not in output, output

    def kill(self, moment, delay=0.0):
        """Kills the process at a moment: a function of this run. False if it never came.

        It is halted first and killed only if it still is at that moment.
        """
        while True:
            while not moment(self):
                if self.process.poll() is not None:
                    return False
                time.sleep(0.0002)
            time.sleep(delay)
            self.process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            if self.process.poll() is None and moment(self):
                self.process.kill()
                self.process.communicate()
                assert self.process.returncode == -signal.SIGKILL
                return True
            self.process.send_signal(signal.SIGCONT)

    def lines(self):
        """Of metrics.jsonl; the last may be half written."""
        path = self.logdir / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        for line in lines:
            try:
                yield json.loads(line)
            except ValueError:
                pass

    def step(self):
        return max((line["step"] for line in self.lines()), default=-1)

    def is_starting(self):
        return True

    def is_freezing(self):
        told = [line for line in self.lines() if line["step"] == FREEZE]
        return any("train/return" in x for x in told) and not any("freeze/step" in x for x in told)

    def is_writing_a_checkpoint(self):
        """Into a folder begun by this process, not one that an earlier kill has left."""
        with contextlib.suppress(FileNotFoundError):  # renamed or removed in between
            unfinished = (self.logdir / "checkpoints").glob("*.orbax-checkpoint-tmp*")
            return any(folder.stat().st_ctime > self.started for folder in unfinished)
        return False


def kill_and_finish(tmp_path, kills):
    """Runs with these kills, (moment, seconds later) each, against a run without any."""
    Killable(tmp_path / "whole", tmp_path / "cache").finish()
    logdir = tmp_path / "killed"
    for number, (moment, delay) in enumerate(kills):
        assert Killable(logdir, tmp_path / "cache").kill(moment, delay), f"kill {number} missed"
    Killable(logdir, tmp_path / "cache").finish()
    assert_same_run(logdir, tmp_path / "whole")
    # What the kills left half written is cleared away.
    assert sorted(x.name for x in (logdir / "checkpoints").iterdir()) == ["105", "120"]


def test_killed_at_the_freeze_and_while_writing_a_checkpoint(tmp_path):
    kills = [(Killable.is_freezing, 0.02), (Killable.is_writing_a_checkpoint, 0)]
    kill_and_finish(tmp_path, kills)


@pytest.mark.slow
def test_killed_ten_times(tmp_path):
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # shown if the test fails
    draw = random.Random(seed)

    def at_steps(steps):
        for step in sorted(draw.sample(steps, 3)):
            yield lambda run, step=step: run.step() >= step, draw.uniform(0, 0.02)

    kills = [
        (Killable.is_starting, draw.uniform(0, 8)),
        *at_steps(range(1, FREEZE)),
        (Killable.is_freezing, draw.uniform(0, 0.1)),
        *at_steps(range(FREEZE, STEPS)),
    ]
    for _ in range(2):
        # A checkpoint comes every 15 steps, so before, between and after all the others.
        writing = (Killable.is_writing_a_checkpoint, draw.uniform(0, 0.02))
        kills.insert(draw.randrange(len(kills)), writing)
    assert len(kills) == 10
    kill_and_finish(tmp_path, kills)


@pytest.mark.slow
def test_a_killed_game_resumes_with_new_games(tmp_path):
    """EnvPool cannot restore a game, so the run is another one; but all of it is there."""
    pytest.importorskip("envpool")
    flags = [
        "--task=Pong", "--preset=quick", "--num_steps=600", "--freeze_step=300", "--num_envs=2",
        "--learning_starts=100", "--batch_size=8", "--hidden_size=16", "--eval_every=300",
        "--eval_episodes=1", "--checkpoint_every=100", "--log_every=10", "--no_video",
    ]  # fmt: skip
    logdir = tmp_path / "killed"
    for step in (150, 250, 350, 550):
        run = Killable(logdir, tmp_path / "cache", flags)
        assert run.kill(lambda run, step=step: run.step() >= step)
    Killable(logdir, tmp_path / "cache", flags).finish()
    _, progress = read_checkpoint(logdir)
    assert progress["step"] == 600 and progress["phase"] == "latents"
    # One for each step after the first 100.
    assert progress["updates"] == 500
    assert [row["step"] for row in read_evals(logdir)] == ["0", "300", "600"]
    assert [step for step, _ in of(read_metrics(logdir), "freeze/step")] == [300]
    assert [step for step, _ in of(read_metrics(logdir), "loss/critic")] == [*range(110, 601, 10)]
