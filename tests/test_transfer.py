"""A run that begins with the encoder of another, from pixels or from latents, and with no other."""

import dataclasses
import shutil

import numpy as np
import pytest
from runs import CONVS, TINY, assert_same_arrays, of, read_checkpoint, read_metrics, tiny_without

from seer_jax import config as config_lib
from seer_jax import run, transfer
from seer_jax.agents import curl_sac
from seer_jax.envs.fake import FakeEnv
from seer_jax.types import UserError

pytestmark = pytest.mark.usefixtures("compile_once")


def encoder(logdir, place):
    items, _ = read_checkpoint(logdir)
    arrays = items["state"].items()
    return {path.removeprefix(place): x for path, x in arrays if path.startswith(place)}


def flags(logdir, source, *more):
    others = tiny_without("--freeze_step", "--task")
    task = ("--task=cartpole_balance", "--freeze_step=0", f"--encoder_from={source}")
    return [*others, *task, f"--logdir={logdir}", *more]


def test_the_encoder_of_another_task_is_kept_to_the_end(trained, tmp_path):
    assert run.main(flags(tmp_path / "run", trained)) == 0
    given = encoder(trained, ".frozen")
    assert len(given) > 5
    assert_same_arrays(encoder(tmp_path / "run", ".frozen"), given)
    lines = read_metrics(tmp_path / "run")
    assert of(lines, "freeze/step") == [(0, 0)] and of(lines, "freeze/rows") == [(0, 0)]


def test_convolutions_alone_go_either_way(trained, tmp_path):
    """8-bit latents need rows for their scale, so this freeze waits for the random steps."""
    assert run.main(flags(tmp_path / "convs", trained, *CONVS)) == 0
    given, kept = encoder(trained, ".frozen"), encoder(tmp_path / "convs", ".frozen")
    convs = {path: x for path, x in given.items() if "['convs']" in path}
    assert_same_arrays(kept, convs)
    lines = read_metrics(tmp_path / "convs")
    assert of(lines, "freeze/step") == [(5, 5)] and of(lines, "freeze/rows") == [(5, 5)]
    assert all(share < 0.2 for _, share in of(lines, "latent/clipped"))

    # Back to a run that freezes all: the projections are among what the other still trained.
    assert run.main(flags(tmp_path / "all", tmp_path / "convs")) == 0
    trained_on = encoder(tmp_path / "convs", ".params.encoder")
    assert_same_arrays(encoder(tmp_path / "all", ".frozen"), convs | trained_on)


def test_it_need_not_be_frozen_there_and_is_read_again_after_an_early_kill(tmp_path):
    never = ("--freeze_step=never", "--num_steps=40")  # a replay, and programs, as of `trained`
    assert run.main([*TINY, *never, f"--logdir={tmp_path}/pixels"]) == 0
    logdir = tmp_path / "run"
    logdir.mkdir()
    config = run.parse(flags(logdir, tmp_path / "pixels"))
    config_lib.write(config, logdir)  # as a run leaves it that was killed before a checkpoint
    (logdir / "checkpoints").mkdir()
    assert run.run(config) == 0
    given = encoder(tmp_path / "pixels", ".params.encoder")
    kept = encoder(logdir, ".frozen")
    assert kept and all((given[path] == x).all() for path, x in kept.items())
    random = run.main([*flags(tmp_path / "random", ""), "--encoder_from="])
    assert random == 0
    assert any(
        not np.array_equal(kept[path], x)
        for path, x in encoder(tmp_path / "random", ".frozen").items()
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--freeze_step=40"], "add --freeze_step=0"),
        (["--render_quality=full"], "render_quality=fast there and full here"),
        (["--crop_size=22"], "crop_size=20 there and 22 here"),
        (["--encoder_from=nowhere"], "nowhere holds no run"),
    ],
)
def test_what_does_not_fit_is_said_before_a_folder_is_made(
    trained, tmp_path, capsys, more, message
):
    assert run.main(flags(tmp_path / "run", trained, *more)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["image_size", "frame_stack"])
def test_frames_must_be_those_that_the_encoder_has_seen(name):
    here = run.parse([*TINY, "--freeze_step=0", "--encoder_from=there"])
    check_differs(dataclasses.replace(here, **{name: getattr(here, name) + 1}), here, name)


@pytest.mark.parametrize("name", ["crop_size", "pixel_offset", "num_filters", "latent_size"])
def test_agents_must_see_alike(name):
    here = run.parse([*TINY, "--freeze_step=0", "--encoder_from=there"])
    agent = dataclasses.replace(here.agent, **{name: getattr(here.agent, name) + 1})
    check_differs(dataclasses.replace(here, agent=agent), here, name)


def check_differs(there, here, name):
    transfer.check(here, here)
    with pytest.raises(UserError, match=f"sees in another way: {name}="):
        transfer.check(there, here)


def test_a_source_that_has_been_moved_is_named_where_it_is(trained, tmp_path, capsys):
    moved = shutil.copytree(trained, tmp_path / "moved")
    assert run.main(flags(tmp_path / "run", moved, "--crop_size=22")) == 2
    assert f"The encoder of {moved} sees in another way" in capsys.readouterr().err


def test_an_encoder_of_other_colours_is_refused(trained, tmp_path):
    """What a task shows is not among the flags."""
    config = run.parse(flags(tmp_path / "run", trained))
    agent = curl_sac.make(config.agent, FakeEnv(obs_shape=(24, 24, 1)).spec, config.frame_stack)
    with pytest.raises(UserError, match="encoder of .* does not fit this run's: .* grey pictures"):
        transfer.read_encoder(config, agent)


def test_a_source_without_a_checkpoint_is_refused(trained, tmp_path):
    shutil.copy(trained / "config.json", tmp_path)
    config = run.parse(flags(tmp_path / "run", tmp_path))
    with pytest.raises(UserError, match="holds no checkpoint yet"):
        run.run(config)
