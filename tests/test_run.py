"""The command line: mistakes cost one plain message and no work, and what broke goes on.

Exit codes: 0 done, 2 a mistake to mend, 130 stopped. Where a run is needed, it is a copy of the one
that conftest.py trains, taken back to its last checkpoint but one.
"""

import contextlib
import dataclasses
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from runs import (
    TINY,
    assert_same_arrays,
    assert_same_run,
    of,
    read_checkpoint,
    read_evals,
    read_metrics,
)

from seer_jax import build, checkpoint, run, train, video
from seer_jax import config as config_lib
from seer_jax.envs import gl
from seer_jax.types import UserError

pytestmark = pytest.mark.usefixtures("compile_once")


def test_what_jax_cannot_do_is_said_plainly(monkeypatch):
    build._check_jax()
    with jax.enable_x64(True), pytest.raises(UserError, match="unset JAX_ENABLE_X64"):
        build._check_jax()

    def no_cuda():
        raise AssertionError

    monkeypatch.setattr(jax, "devices", no_cuda)
    with pytest.raises(UserError, match="JAX finds no device with JAX_PLATFORMS="):
        build._check_jax()


def call(capsys, logdir, *flags):
    """Exit code, stdout and stderr of the command line."""
    capsys.readouterr()
    try:
        code = run.main([*TINY, f"--logdir={logdir}", *flags])
    except SystemExit as exit:  # tyro's way of refusing a flag
        code = exit.code
    return code, *capsys.readouterr()


@pytest.fixture
def stopped(trained, tmp_path):
    """The tiny run as it was at step 50 of 60."""
    logdir = shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(logdir / "checkpoints" / "60")
    return logdir


# Flags that cannot work.


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--task=walker_wolk", "Unknown dm_control task 'walker_wolk'. Did you mean walker_walk"),
        ("--task=", "Unknown dm_control task ''"),
        ("--task", "--task"),
        ("--tsak walker_walk", "Perhaps you meant: .*--task"),
        ("--num_stpes=5", "Perhaps you meant: .*--num_steps"),
        ("--preset=papre", "unknown preset 'papre'; choose one of paper, quick"),
        ("--task=walker_wolk", "of Gymnasium: --task=gymnasium:ID"),
        ("--task=gym:CarRacing-v3", "before the colon write dmc, atari or gymnasium"),
        ("--num_steps=many", "num_steps=many: give a whole number, such as 100000"),
        ("--num_steps=1e4", "num_steps=1e4: give a whole number"),
        ("--num_steps=0", "num_steps=0 is too small: the least is 1"),
        ("--num_steps=-5", "num_steps=-5 is too small"),
        ("--batch_size=1", "batch_size=1 is too small: the least is 2"),
        ("--num_copies=0", "num_copies=0 is too small"),
        ("--eval_episodes=0", "eval_episodes=0 is too small"),
        ("--checkpoint_every=0", "checkpoint_every=0 is too small"),
        ("--seed=-1", "seed=-1 is too small"),
        (f"--seed={2**32}", "seed=4294967296 is too large: the most is 4294967295"),
        ("--freeze_step=-1", "freeze_step=-1: give a step from 0 on, or never"),
        ("--freeze_step=soon", "freeze_step=soon: give a step, such as 10000, or never, or auto"),
        ("--freeze-step=10k", "freeze_step=10k: give a step"),
        ("--latent_dtype=uint8", "those of curl_sac are signed: choose int8"),
        ("--latent_shift --num_copies=1", "moves feature maps: add --frozen_depth=convs"),
        ("--latent_shift --frozen_depth=convs", "one view of an observation: add --num_copies=1"),
        ("--latent_dtype=float8", "invalid choice 'float8' for argument '--latent_dtype'"),
        ("--render_quality=best", "invalid choice 'best' .* Expected one of .*'full'"),
        ("--video=perhaps", "--video takes no value: write --video or --no_video"),
        ("--no-video=True", "--no_video takes no value: write --video or --no_video"),
        ("--encoder=impala", "a flag of rainbow, and cartpole_swingup is learned by curl_sac"),
        ("--replay_memory=1GB --replay_capacity=9", "both size replay: give one of them"),
        ("--critic_lr=0", "critic_lr=0.0: it must be positive"),
        ("--actor_lr=nan", "actor_lr=nan"),
        ("--gamma=1.5", "gamma=1.5: it must not exceed 1"),
        ("--strides", "strides is empty: give a number for each"),
        ("--strides 2 0", r"strides=\(2, 0\): it must be positive"),
        ("--strides 2 2 2 2 2", "leave nothing of a 20-pixel crop"),
        ("--crop_size=30", r"crop_size=30 is larger than the rendered image \(24 pixels\)"),
        ("--image_size=8", "image_size=8 is too small"),
        ("--image_size=100000", "image_size=100000 is too large: the most is 2000"),
        ("--num_envs=100000", "num_envs=100000 is too large"),
        ("--num_seeds=1001", "num_seeds=1001 is too large: the most is 1000"),
        ("--n_step=999999999999", "n_step=999999999999: it must not exceed 1000"),
        ("--replay_memory=1e999", "'1e999' is not a size"),
        ("--encoder_from=/etc/passwd --freeze_step=0", "/etc/passwd holds no run"),
        ("--encoder_from=gs://bucket/run --freeze_step=0", "a folder of this machine"),
        ("--log_every=100000", "log_every=100000 is too large: the most is 10000"),
        ("--replay_memory=1e308k", "'1e308k' is not a size"),
        ("--seed=9223372036854775808", "seed=9223372036854775808 is too large"),
        ("--replay_memory=lots", "'lots' is not a size: write a number and a unit"),
        ("--replay_memory=1kB", "the run needs .*: raise --replay_memory to 1MiB"),
        ("--replay_capacity=1", "the run needs .* or --replay_capacity to"),
        (
            "--replay_memory=900TB --num_steps=100000000000",
            r"Replay needs .* GiB and .* GiB are free: lower --replay_memory",
        ),
    ],
)
def test_flags_that_cannot_work_are_refused_before_anything_is_made(
    tmp_path, capsys, flags, message
):
    code, out, err = call(capsys, tmp_path / "run", *flags.split())
    plain = " ".join(err.replace("│", " ").split())  # tyro draws a box
    assert code == 2 and out == ""
    assert re.search(message, plain), plain
    assert "Traceback" not in err
    # Nothing to clear away, and the mended command may use the folder.
    assert list(tmp_path.iterdir()) == []


def test_folders_below_the_home_directory_and_with_odd_names(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run.parse([*TINY, "--logdir=~/run"]).logdir == str(tmp_path / "run")
    with pytest.raises(UserError, match="logdir='/tmp/.*udcff': checkpoints need a path in UTF-8"):
        run.parse([*TINY, "--logdir=/tmp/\udcff"])


def test_help_shows_every_flag(tmp_path, capsys):
    code, out, _ = call(capsys, tmp_path / "run", "--help")
    assert code == 0
    for field in dataclasses.fields(config_lib.Config) + dataclasses.fields(
        config_lib.curl_sac.Config
    ):
        assert field.name == "agent" or re.search(rf"--{field.name}\b", out)


@pytest.mark.parametrize("flag", ["--num_steps=20000", "--num-steps 20000"])
def test_a_run_of_another_length_freezes_at_the_same_share_of_it(flag):
    config = run.parse(["--task=cartpole_swingup", *flag.split()])  # 10,000 of 80,000 by itself
    assert (config.freeze_step, config.num_steps) == (2_500, 20_000)
    assert (config.freeze_earliest, config.freeze_latest) == (1_250, 16_666)
    assert config.action_repeat == 8
    assert run.parse(["--freeze_step=9", *flag.split()]).freeze_step == 9


def test_a_run_that_looks_for_its_freeze_keeps_when_it_may():
    fixed, auto = config_lib.Config(), config_lib.Config(freeze_step="auto")
    names = {"freeze_earliest", "freeze_latest"}
    assert names <= run._may_change(fixed, fixed) and not names & run._may_change(auto, auto)


@pytest.mark.parametrize(
    ("text", "size"), [("2GB", 2e9), ("2GiB", 2**31), ("800M", 8e8), ("1e9", 1e9), ("1.5kib", 1536)]
)
def test_sizes(text, size):
    assert config_lib.parse_bytes(text) == size


def test_evaluations_without_random_actions_can_be_asked_for():
    pytest.importorskip("envpool")
    assert run.parse(["--task=Alien", "--eval_epsilon=0"]).agent.eval_epsilon == 0


# Folders that cannot be used.


def test_a_file_in_the_place_of_the_folder(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for logdir in (tmp_path / "file", tmp_path / "file" / "run"):
        code, _, err = call(capsys, logdir)
        assert code == 2 and "cannot be used as run folder" in err
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_cannot_be_made(capsys):
    code, _, err = call(capsys, "/proc/seer_jax/run")  # even root may not write here
    assert code == 2 and "/proc/seer_jax/run cannot be used as run folder (No such file" in err


def test_a_folder_of_something_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("mine")
    code, _, err = call(capsys, tmp_path)
    assert code == 2 and "is not empty and holds no run (no config.json)" in err
    assert [x.name for x in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_killed_while_it_wrote_its_configuration_starts(tmp_path):
    (tmp_path / "config.json.tmp").write_text('{"ta')
    config = config_lib.Config(logdir=str(tmp_path))
    with run.held_logdir(config) as logdir:
        assert logdir == tmp_path
    assert {x.name for x in tmp_path.iterdir()} == {"config.json", "lock"}


def test_a_folder_that_another_run_trains_in(stopped, capsys):
    with run.held_logdir(dataclasses.replace(config_lib.read(stopped), logdir=str(stopped))):
        code, _, err = call(capsys, stopped)
        assert code == 2 and f"Another process trains in {stopped}: wait" in err
    assert call(capsys, stopped)[0] == 0


def test_another_configuration_is_refused_with_the_difference(trained, capsys):
    before = read_checkpoint(trained)[1]
    code, _, err = call(capsys, trained, "--num_steps=70", "--critic_lr=0.5", "--gamma=0.9")
    assert code == 2 and "holds a run with another configuration" in err
    assert "  critic_lr: 0.001 there, 0.5 here\n" in err and "  gamma: 0.99 there, 0.9 here" in err
    assert "batch_size" not in err and "num_steps: 60" not in err
    assert read_checkpoint(trained)[1] == before


def test_a_run_can_be_made_longer(trained, tmp_path, capsys):
    """It goes on as if it had been meant to be as long from the start."""
    logdir = tmp_path / "run"
    assert call(capsys, logdir, "--num_steps=20")[0] == 0
    code, out, _ = call(capsys, logdir, "--keep_checkpoints=3")
    assert code == 0 and out.startswith(f"{logdir} goes on, with other flags:\n")
    assert "  num_steps: 20 there, 60 here\n" in out
    assert "  keep_checkpoints: 2 there, 3 here\n" in out
    (items, progress), (expected, expected_progress) = map(read_checkpoint, (logdir, trained))
    assert_same_arrays(items, expected)
    assert progress == expected_progress
    returns = lambda folder: [(row["step"], row["return"]) for row in read_evals(folder)]
    assert returns(logdir) == returns(trained)
    assert sorted(x.name for x in (logdir / "checkpoints").iterdir()) == ["40", "50", "60"]
    code, _, err = call(capsys, logdir, "--num_steps=50")
    assert code == 2 and "  num_steps: 60 there, 50 here\n" in err


def test_a_longer_run_freezes_where_it_did(trained, capsys):
    flags = [*TINY[:2], "--num_steps=90", *TINY[4:], f"--logdir={trained}"]  # no freeze_step
    assert run.main(flags) == 2
    err = capsys.readouterr().err
    assert "  freeze_step: 40 there, 75 here\n" in err
    assert err.endswith("to make the run longer add --freeze_step=40\n")


def test_a_run_of_another_agent_is_refused_with_the_difference(trained, capsys):
    pytest.importorskip("envpool")
    assert run.main(["--task=Alien", f"--logdir={trained}"]) == 2
    err = capsys.readouterr().err
    assert "task: cartpole_swingup there, Alien here" in err


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: text.replace('"num_steps"', '"steps"'),
    ],
    ids=["half", "empty", "a list", "another version"],
)
def test_a_damaged_configuration_is_refused(stopped, capsys, damage):
    path = stopped / "config.json"
    path.write_text(damage(path.read_text()))
    code, _, err = call(capsys, stopped)
    assert code == 2 and f"{path} is damaged or of another version" in err
    assert read_checkpoint(stopped)[1]["step"] == 50


def test_where_memory_is_short_smaller_flags_may_begin(tmp_path, capsys, monkeypatch):
    """The folder remembers the flags that did not fit, but they bind nobody."""
    error = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.")

    def fail(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(train.Run, "evaluate", fail)
        code, _, err = call(capsys, tmp_path / "run", "--seed=1")
        assert code == 2 and err.count("\n") == 1
        assert "Memory is short (RESOURCE_EXHAUSTED: Out of memory" in err and "--batch_size" in err
        error = jax.errors.JaxRuntimeError("INTERNAL: a bug")
        with pytest.raises(jax.errors.JaxRuntimeError, match="a bug"):
            run.main([*TINY, f"--logdir={tmp_path / 'run'}", "--seed=1"])
    with run.held_logdir(config_lib.read(tmp_path / "run")):
        code, _, err = call(capsys, tmp_path / "run")
        assert code == 2 and "Another process trains in" in err
    code, out, _ = call(capsys, tmp_path / "run")
    assert code == 0 and "held a run that had not begun, with other flags:" in out
    assert "  seed: 1 there, 0 here\n" in out
    assert config_lib.read(tmp_path / "run").seed == 0


# Checkpoints that cannot be read.


def spoil(folder, damage):
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(damage(path.read_bytes()))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data[:-1] + bytes([data[-1] ^ 1]) if data else data,  # one bit
    ],
    ids=["half", "empty", "one bit"],
)
def test_a_spoilt_checkpoint_costs_the_way_from_the_one_before(trained, tmp_path, capsys, damage):
    logdir = shutil.copytree(trained, tmp_path / "run")
    spoil(logdir / "checkpoints" / "60" / "state", damage)
    code, out, err = call(capsys, logdir)
    assert code == 0 and err == ""
    assert "The checkpoint of step 60 cannot be read (its files are not as they were" in out
    assert_same_run(logdir, trained)


def test_without_any_readable_checkpoint_nothing_is_lost(trained, tmp_path, capsys):
    logdir = shutil.copytree(trained, tmp_path / "run")
    spoil(logdir / "checkpoints", lambda data: data[: len(data) // 2])
    before = sorted(x for x in logdir.rglob("*"))
    code, _, err = call(capsys, logdir)
    assert code == 2 and "No checkpoint in" in err and "choose another --logdir" in err
    assert sorted(x for x in logdir.rglob("*")) == before


def test_a_disk_that_fails_for_once_costs_no_checkpoint(stopped, capsys, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Checkpoints, "_read", fail)
        code, _, err = call(capsys, stopped)
    assert code == 2 and "step 50 cannot be read now ([Errno 5] Input/output error)" in err
    assert read_checkpoint(stopped)[1]["step"] == 50


def test_a_checkpoint_of_other_shapes_is_refused(stopped, capsys):
    path = stopped / "config.json"
    fields = json.loads(path.read_text())
    fields["agent"]["hidden_size"] = 17
    path.write_text(json.dumps(fields))
    code, _, err = call(capsys, stopped, "--hidden_size=17")
    assert code == 2 and "does not fit this version of seer_jax or this configuration" in err
    assert checkpoint.restore_once(stopped / "checkpoints", ("state",))[1]["step"] == 50


# Disks that are full.


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 4 MiB of its own, and a function that fills that disk."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "seer_jax_test", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root may mount a small disk")

    def fill():
        with contextlib.suppress(OSError), (folder / "filler").open("ab", buffering=0) as file:
            for size in (2**16, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(size))

    yield folder, fill
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ((train.Run, "report"), r"Cannot write .*metrics\.jsonl: No space left on device"),
        ((video, "write_video"), r"Cannot write .*3000\.mp4"),
        ((checkpoint.Checkpoints, "save"), "checkpoint of step 60 could not be written"),
    ],
    ids=["metrics", "video", "checkpoint"],
)
def test_a_full_disk_costs_no_checkpoint(
    trained, stopped, small_disk, capsys, monkeypatch, where, message
):
    disk, fill = small_disk
    logdir = shutil.copytree(stopped, disk / "run")
    if where[0] is video:  # the tiny run records none
        path = logdir / "config.json"
        path.write_text(path.read_text().replace('"video": false', '"video": true'))
    flags = ["--video"] if where[0] is video else []
    # The check before a checkpoint would see it coming: here the disk fills up after it.
    free = shutil.disk_usage(logdir)._replace(free=2**40)
    original = getattr(*where)

    def fill_and_go_on(*args, **kwargs):
        fill()
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "disk_usage", lambda _: free)
        patch.setattr(*where, fill_and_go_on)
        code, _, err = call(capsys, logdir, *flags)
    assert code == 2 and re.search(message, err), err
    assert "Traceback" not in err and err.count("seer_jax: ") == 1
    assert read_checkpoint(logdir)[1]["step"] == 50
    (disk / "filler").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "disk_usage", lambda _: free)
        assert call(capsys, logdir, *flags)[0] == 0
    assert_same_run(logdir, trained)


def test_a_disk_with_too_little_room_is_noticed_before_the_checkpoint(
    trained, stopped, capsys, monkeypatch
):
    full = shutil.disk_usage(stopped)._replace(free=2**20)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "disk_usage", lambda _: full)
        code, _, err = call(capsys, stopped)
    assert code == 2 and "Not enough room for a checkpoint" in err and "1 MiB free" in err
    assert call(capsys, stopped)[0] == 0
    assert_same_run(stopped, trained)


def test_a_disk_full_from_the_start(tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(config_lib, "write", full)
    code, _, err = call(capsys, tmp_path / "run")
    assert code == 2 and "cannot be used as run folder (No space left on device)" in err


# No OpenGL.


def test_without_opengl_the_packages_are_named(tmp_path, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "dm_control._render")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(gl, "probe", lambda name: f"lib{name} is missing")
    for name in ("MUJOCO_GL", "PYOPENGL_PLATFORM"):
        monkeypatch.setenv(name, "")
    code, _, err = call(capsys, tmp_path / "run")
    assert code == 2 and "apt-get install libegl1 libgl1-mesa-dri" in err
    assert err.count("\n") == 1 and list(tmp_path.iterdir()) == []


def test_a_backend_that_does_not_render_is_a_plain_message(tmp_path):
    command = [sys.executable, "-m", "seer_jax.run", *TINY, f"--logdir={tmp_path / 'run'}"]
    done = subprocess.run(
        command, env=os.environ | {"MUJOCO_GL": "disable"}, capture_output=True, text=True
    )
    assert done.returncode == 2 and "apt-get install libegl1" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and list(tmp_path.iterdir()) == []


# Stopped, diverged, finished.


@contextlib.contextmanager
def at_step(step, do):
    """Does something when the run reaches a step."""
    original = train.Run.step

    def step_and_do(self):
        before = self.progress.step
        original(self)
        if before < self.progress.step == step:
            do(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.Run, "step", step_and_do)
        yield


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_writes_a_checkpoint_and_the_same_command_resumes(trained, stopped, capsys, which):
    with at_step(55, lambda _: signal.raise_signal(which)):
        code, _, err = call(capsys, stopped)
    assert code == 130
    assert err == "seer_jax: Stopped at step 55, after a checkpoint. The same command resumes.\n"
    assert read_checkpoint(stopped)[1]["step"] == 55
    half_written = stopped / "checkpoints" / "57.orbax-checkpoint-tmp" / "state"
    half_written.mkdir(parents=True)  # as a kill leaves it
    assert call(capsys, stopped)[0] == 0
    assert not half_written.parent.exists()
    assert_same_run(stopped, trained)


def test_a_second_ctrl_c_is_obeyed_at_once(trained, stopped, capsys):
    def twice(_):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with at_step(55, twice):
        code, _, err = call(capsys, stopped)
    assert (code, err) == (130, "seer_jax: stopped; the same command resumes.\n")
    assert call(capsys, stopped)[0] == 0
    assert_same_run(stopped, trained)


def test_a_run_that_diverges_keeps_its_last_checkpoint(trained, stopped, capsys):
    def poison(run):
        params = jax.tree.map(lambda x: x * np.float32(np.nan), run.state.params)
        run.state = run.state.replace(params=params)

    with at_step(55, poison):
        code, _, err = call(capsys, stopped)
    assert code == 2 and "the run has diverged. Checkpoints from before are intact" in err
    assert err.count("\n") == 1
    items, progress = read_checkpoint(stopped)
    assert progress["step"] == 50
    assert all(np.isfinite(x).all() for x in items["state"].values())
    assert call(capsys, stopped)[0] == 0
    assert_same_run(stopped, trained)


@pytest.mark.slow
def test_learning_rates_that_diverge(tmp_path, capsys):
    # The checkpoint of step 10 falls among the random steps; the updates then diverge at once.
    flags = ("--critic_lr=1e30", "--log_every=100", "--learning_starts=15")
    code, _, err = call(capsys, tmp_path / "run", *flags)
    assert code == 2 and "the run has diverged" in err and err.count("\n") == 1
    items, progress = read_checkpoint(tmp_path / "run")
    assert progress["step"] == 10
    assert all(np.isfinite(x).all() for x in items["state"].values())


def test_a_finished_run_says_so(trained, capsys):
    lines = read_metrics(trained)
    code, out, err = call(capsys, trained)
    assert (code, out, err) == (0, f"{trained} has finished its 60 steps already.\n", "")
    assert read_metrics(trained) == lines and of(lines, "freeze/step") == [(40, 40)]


# The whole, as a user would meet it.


def test_the_run_folder_has_what_the_documentation_says(trained):
    names = {x.name for x in trained.iterdir()} - {"config.json", "lock"}
    assert names == {"metrics.jsonl", "eval.csv", "tensorboard", "checkpoints"}
    assert sorted(x.name for x in (trained / "checkpoints").iterdir()) == ["50", "60"]
    config = config_lib.read(trained)
    assert (config.task, config.num_steps, config.video) == ("cartpole_swingup", 60, False)
