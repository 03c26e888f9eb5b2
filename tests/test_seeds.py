"""Several runs in one process are the runs they would be alone."""

import dataclasses
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from runs import (
    CONVS,
    LOG_COMPILATIONS,
    TINY,
    assert_close,
    assert_same_arrays,
    compilations,
    read_checkpoint,
    read_evals,
    read_metrics,
)

import seer_jax
from benchmarks.update import filled
from seer_jax import build, dispatch, freezing, programs, run, seeds
from seer_jax import config as config_lib
from seer_jax import replay as replay_lib
from seer_jax.envs.fake import FakeEnv
from seer_jax.types import LAST, MID, TimeStep, UserError

pytestmark = pytest.mark.usefixtures("compile_once")

SEEDS = (4, 5)
# Short: updates amplify what the order of sums changes, and a pole falls to one side or the other.
FLAGS = (*TINY, "--freeze_step=20", "--num_steps=28")


@pytest.fixture(scope="module", params=[(), CONVS], ids=["projection", "convs"])
def together(request, tmp_path_factory):
    """Folders of two runs in one and of each alone."""
    folder = tmp_path_factory.mktemp("seeds")
    flags = (*FLAGS, *request.param)
    assert run.main([*flags, "--num_seeds=2", "--seed=4", f"--logdir={folder}/both"]) == 0
    for seed in SEEDS:
        assert run.main([*flags, f"--seed={seed}", f"--logdir={folder}/{seed}"]) == 0
    return folder


def test_each_has_the_metrics_of_the_run_alone(together):
    for seed in SEEDS:
        several = read_metrics(together / "both" / f"seed{seed}")
        alone = read_metrics(together / str(seed))
        assert [line.keys() for line in several] == [line.keys() for line in alone]
        for line, expected in zip(several, alone, strict=True):
            assert line == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_each_has_the_evaluations_of_the_run_alone(together):
    for seed in SEEDS:
        several = read_evals(together / "both" / f"seed{seed}")
        alone = read_evals(together / str(seed))
        assert len(several) == len(alone) == 3
        for row, expected in zip(several, alone, strict=True):
            assert row.pop("phase") == expected.pop("phase")
            row, expected = ({n: float(x) for n, x in r.items()} for r in (row, expected))
            assert row == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_each_learns_and_stores_what_the_run_alone_does(together):
    items, progress = read_checkpoint(together / "both")
    for i, seed in enumerate(SEEDS):
        expected, expected_progress = read_checkpoint(together / str(seed))
        for name in ("step", "iteration", "updates", "flops"):
            assert progress[name] == expected_progress[name]
        for path, x in expected["state"].items():
            mine = items["state"][path]
            assert_close(mine if path == ".step" else mine[i], x, path)
        for path, x in expected["replay"].items():
            mine = items["replay"][path]
            if path.startswith(".rows"):
                mine = mine[:, i : i + 1]
            elif path.startswith(".scale"):
                mine = mine[i]
            assert_close(mine, x, path)


def test_the_learners_differ(together):
    state = read_checkpoint(together / "both")[0]["state"]
    heads = {path: x for path, x in state.items() if path.startswith(".params.head")}
    assert heads
    assert not any(np.array_equal(x[0], x[1]) for path, x in heads.items() if "kernel" in path)


def test_a_run_that_was_stopped_goes_on_bit_for_bit(together, tmp_path):
    logdir = shutil.copytree(together / "both", tmp_path / "run")
    shutil.rmtree(logdir / "checkpoints" / "28")
    config = config_lib.read(logdir)
    assert run.run(dataclasses.replace(config, logdir=str(logdir))) == 0
    (items, progress), expected = map(read_checkpoint, (logdir, together / "both"))
    assert_same_arrays(items, expected[0])
    assert progress == expected[1]
    for seed in SEEDS:
        folders = [folder / f"seed{seed}" for folder in (logdir, together / "both")]
        assert read_metrics(folders[0]) == read_metrics(folders[1])
        assert read_evals(folders[0]) == read_evals(folders[1])


def test_an_evaluation_that_only_some_have_written_is_made_for_the_others(together, tmp_path):
    logdir = shutil.copytree(together / "both", tmp_path / "run")
    last = logdir / f"seed{SEEDS[1]}" / "eval.csv"
    last.write_text("".join(last.read_text().splitlines(keepends=True)[:-1]))
    config = config_lib.read(logdir)
    assert run.run(dataclasses.replace(config, logdir=str(logdir))) == 0
    for seed in SEEDS:
        both = [read_evals(folder / f"seed{seed}") for folder in (logdir, together / "both")]
        assert both[0] == both[1]


@pytest.fixture
def two():
    """Two learners: configuration, agent, the environment's sizes and their programs in one."""
    config = run.parse([*FLAGS, "--num_seeds=2", "--seed=4"])
    spec = FakeEnv(num_envs=2, obs_shape=(24, 24, 3)).spec
    agent = build.make_agent(config, spec)
    read = replay_lib.stacked_frames(spec.obs_shape, config.frame_stack, spec.stack_pad)
    one = programs.make(config, agent, spec, read, lambda batch: batch)
    return config, agent, spec, seeds.lift(one)


def test_learning_in_a_loop_as_on_a_gpu_is_learning_apart(two):
    config, agent, spec, several = two
    keys = seeds.keys(config.seeds)
    state = several.init(keys)
    replay = filled(replay_lib.init(20, freezing.plan(config, agent, spec).pixels.row))
    shared = np.int32(0), np.float32(0)
    in_loop, _, expected = jax.jit(several.learn)(state, replay, keys, *shared)
    functions = dispatch.compile_functions(config, agent, spec)
    state = functions.place(state, replay, functions.empty_stack(2))[0]
    learned, _, metrics = functions.learn(state, None, replay, keys, *shared)
    assert isinstance(learned, seeds.Apart)
    np.testing.assert_allclose(metrics.values, expected.values, rtol=1e-4, atol=1e-5)
    for x, y in zip(*map(jax.tree.leaves, (seeds.together(learned), in_loop)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("frozen", [False, True])
def test_acting_in_one_batch_as_on_an_accelerator_is_acting_in_turn(monkeypatch, two, frozen):
    config, agent, spec, several = two
    keys = seeds.keys(config.seeds)
    state = several.init(keys)
    state = agent.freeze(state) if frozen else state
    pixels = np.random.default_rng(0).integers(0, 256, (2, *spec.obs_shape), np.uint8)
    timestep = TimeStep(np.full(2, MID, np.int32), *2 * [np.ones(2, np.float32)], pixels)
    stack = np.zeros((2, config.frame_stack, pixels[0].size), np.uint8)

    def act(batched):
        monkeypatch.setattr(seeds, "_on_accelerator", lambda: batched)
        greedy = several.act(state, stack, timestep, keys, np.int32(3))
        return greedy, several.choose(state, None, stack, timestep, keys, np.int32(3), False)

    for x, expected in zip(*map(jax.tree.leaves, (act(True), act(False))), strict=True):
        np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-5)


TWO_DEVICES = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
CHECK_DEVICES = """
import numpy as np
from seer_jax import seeds
from seer_jax.types import Row
assert seeds.mesh(2).size == 2 and not seeds.mesh(3)
row = Row(np.zeros((2, 3), np.uint8), *4 * [np.zeros(2, np.float32)])
obs = seeds.empty_replay(2, 5, row).rows.obs
assert [part.data.shape for part in obs.addressable_shards] == [(5, 1, 3), (5, 1, 3)]
"""


def test_devices_that_share_the_learners_hold_their_replay_alone():
    subprocess.run([sys.executable, "-c", CHECK_DEVICES], env=TWO_DEVICES, check=True)


@pytest.mark.slow
def test_devices_share_the_learners(together, tmp_path):
    """Two simulated devices, a learner each, come to what one device comes to."""
    depth = config_lib.read(together / "both").agent.frozen_depth
    flags = [*FLAGS, *(CONVS if depth == "convs" else ()), "--num_seeds=2", "--seed=4"]
    command = [sys.executable, "-m", "seer_jax.run", *flags, f"--logdir={tmp_path}/run"]
    environment = TWO_DEVICES | LOG_COMPILATIONS
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = compilations(done.stderr)  # acting before and after random steps, all after the freeze
    assert (made["act_and_store"], made["learn"], made["act"]) == (3, 2, 2)
    (items, progress), (expected, expected_progress) = map(
        read_checkpoint, (tmp_path / "run", together / "both")
    )
    assert progress["step"] == expected_progress["step"]
    for path, x in expected["state"].items():
        np.testing.assert_allclose(items["state"][path], x, rtol=1e-4, atol=1e-5, err_msg=path)


@pytest.mark.slow
def test_two_processes_do_what_one_does(together, tmp_path):
    """As on two hosts: the command on each, with a seed of its own."""
    depth = config_lib.read(together / "both").agent.frozen_depth
    flags = [*FLAGS, *(CONVS if depth == "convs" else ())]
    command = lambda seed: [f"--seed={seed}", f"--logdir={tmp_path}/{seed}"]
    processes = [
        subprocess.Popen([sys.executable, "-m", "seer_jax.run", *flags, *command(seed)])
        for seed in SEEDS
    ]
    assert [process.wait() for process in processes] == [0, 0]
    both = read_checkpoint(together / "both")[0]["state"]
    for i, seed in enumerate(SEEDS):
        for path, x in read_checkpoint(tmp_path / str(seed))[0]["state"].items():
            assert_close(both[path] if path == ".step" else both[path][i], x, path)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_policy_is_read_by_its_seed(together, seed):
    policy = seer_jax.load_policy(together / "both", seed=seed)
    alone = seer_jax.load_policy(together / str(seed))
    env = policy.make_env()
    timestep = env.reset(seed=0)
    while timestep.step_type[0] != LAST:
        action = policy(timestep)
        np.testing.assert_allclose(action, alone(timestep), rtol=1e-3, atol=1e-3)
        timestep = env.step(action)
    env.close()


def test_a_policy_of_another_seed_is_a_plain_message(together):
    with pytest.raises(UserError, match=r"holds no run of seed 6; it has \[4, 5\]"):
        seer_jax.load_policy(together / "both", seed=6)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--freeze_step=auto"], "all encoders freeze at one step"),
        (["--data_parallel"], "leave out --data_parallel"),
        (["--num_envs=2"], "leave out --num_envs"),
        (["--replay=prioritised"], "leave out --replay=prioritised"),
        (["--freeze_step=0", "--encoder_from=x"], "leave out encoder_from"),
        (["--num_seeds=0"], "num_seeds=0 is too small"),
    ],
)
def test_what_does_not_go_together_is_refused(flags, message, capsys):
    assert run.main([*FLAGS, "--num_seeds=2", *flags]) == 2
    assert message in capsys.readouterr().err


def test_episodes_of_several_lengths_are_refused():
    config = run.parse([*FLAGS, "--num_seeds=2"])
    with pytest.raises(UserError, match="needs episodes of one length"):
        build.make_agent(config, FakeEnv(num_envs=2, lengths=(3, 4), obs_shape=(24, 24, 3)).spec)
