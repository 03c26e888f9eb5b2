"""A trained policy read back: the three lines of its documentation, on a real run."""

import dataclasses
import shutil
import subprocess
import sys

import numpy as np
import pytest

import seer_jax
from seer_jax.types import LAST, UserError

pytestmark = pytest.mark.usefixtures("compile_once")


def test_the_three_documented_lines(trained):
    policy = seer_jax.load_policy(trained)
    env = policy.make_env()
    timestep = env.step(policy(env.reset()))
    assert timestep.obs.shape == (1, 24, 24, 3)
    assert policy.step == 60 and policy.config.task == "cartpole_swingup"
    env.close()


def test_it_scores_what_the_last_evaluation_says(trained):
    """Same parameters, same episode, same actions: the same return to the last digit."""
    policy = seer_jax.load_policy(str(trained))
    env = policy.make_env()
    seed = int(np.random.SeedSequence([0, 1, 60]).generate_state(1)[0])  # as train.py draws it
    for _ in range(2):  # the first frame of an episode restarts the stack of frames
        timestep, total = env.reset(seed=seed), 0.0
        while timestep.step_type[0] != LAST:
            action = policy(timestep)
            assert action.shape == (1, 1) and action.dtype == np.float32
            timestep = env.step(action)
            total += float(timestep.reward[0])
        last = (trained / "eval.csv").read_text().splitlines()[-1].split(",")
        assert (last[0], float(last[2])) == ("60", total)
    env.close()
    assert policy.evaluate(episodes=1, seed=seed).tolist() == [total]
    policy.config = dataclasses.replace(policy.config, num_envs=3)  # makes no difference
    assert policy.evaluate(episodes=3, seed=seed)[0] == total
    with pytest.raises(UserError, match="episodes=0 is too small"):
        policy.evaluate(episodes=0)
    with pytest.raises(UserError, match="seed=-1 is too small"):
        policy.evaluate(seed=-1)
    with pytest.raises(UserError, match="seed=4294967296 is too large: the most is 4294967295"):
        policy.evaluate(seed=2**32)


def test_what_is_no_frame_of_the_run_is_refused(trained):
    policy = seer_jax.load_policy(trained)
    env = policy.make_env()
    timestep = env.reset()
    env.close()
    wrong = (
        (timestep.obs, "acts on a TimeStep, not on ndarray"),
        (timestep._replace(obs=timestep.obs / 255), r"it is float64\(1, 24, 24, 3\)"),
        (timestep._replace(obs=timestep.obs[:, :20]), r"must be uint8\(1, 24, .* is uint8\(1, 20"),
    )
    for given, message in wrong:
        with pytest.raises(UserError, match=message):
            policy(given)


def test_any_checkpoint_that_was_kept_can_be_read(trained):
    policy = seer_jax.load_policy(trained, step=50)
    assert policy.step == 50 and policy.state.frozen is not None
    with pytest.raises(UserError, match=r"no checkpoint of step 30; it has \[50, 60\]"):
        seer_jax.load_policy(trained, step=30)


def test_loading_changes_nothing_in_the_folder(trained, tmp_path):
    """Not even where the newest checkpoint is spoilt: the run itself may be about to mend it."""
    logdir = shutil.copytree(trained, tmp_path / "run")
    (logdir / "checkpoints" / "60" / "progress" / "metadata").write_text("{")
    (logdir / "checkpoints" / "70.orbax-checkpoint-tmp").mkdir()
    listing = lambda: sorted(str(x) for x in logdir.rglob("*"))
    before = listing()
    assert seer_jax.load_policy(logdir).step == 50
    assert listing() == before


def test_a_folder_without_a_run_or_a_checkpoint_is_a_plain_message(trained, tmp_path):
    with pytest.raises(UserError, match="holds no run: there is no .*config.json"):
        seer_jax.load_policy(tmp_path)
    with pytest.raises(UserError, match="seed0 is a part of the runs in .*: name that"):
        seer_jax.load_policy(trained / "seed0")
    shutil.copy(trained / "config.json", tmp_path)
    with pytest.raises(UserError, match="holds no checkpoint yet: let the run reach"):
        seer_jax.load_policy(tmp_path)


def test_importing_the_package_alone_stays_light():
    program = "import seer_jax, sys; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
