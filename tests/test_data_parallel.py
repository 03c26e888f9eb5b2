"""Devices that share the batches of one learner come to what one device comes to."""

import os
import pathlib
import subprocess
import sys

import pytest
from runs import (
    CONVS,
    LOG_COMPILATIONS,
    TINY,
    assert_close,
    compilations,
    read_checkpoint,
    read_metrics,
)

ROOT = pathlib.Path(__file__).parent.parent
# Short: updates amplify what the order of sums changes.
FLAGS = (*TINY, "--freeze_step=20", "--num_steps=28", "--data_parallel")


def start(devices, *flags):
    xla_flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    return subprocess.Popen(
        [sys.executable, "-m", "seer_jax.run", *FLAGS, *flags],
        env=os.environ | xla_flags | LOG_COMPILATIONS,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("depth", [(), CONVS], ids=["projection", "convs"])
def test_eight_devices_do_what_one_does(tmp_path, depth):
    logdirs = {devices: tmp_path / str(devices) for devices in (1, 8)}
    for process in [start(n, *depth, f"--logdir={logdir}") for n, logdir in logdirs.items()]:
        log = process.communicate()[1]
        assert process.returncode == 0, log
        made = compilations(log)  # acting before and after random steps, all after the freeze
        assert (made["act_and_store"], made["learn"]) == (3, 2)
    one, eight = (read_checkpoint(logdir)[0]["state"] for logdir in logdirs.values())
    for path, x in one.items():
        assert_close(eight[path], x, path)
    for line, expected in zip(*(read_metrics(logdirs[n]) for n in (8, 1)), strict=True):
        assert line == pytest.approx(expected, rel=1e-2, abs=1e-3)


@pytest.mark.slow
def test_batches_that_cannot_be_shared_evenly_are_refused(tmp_path):
    process = start(3, f"--logdir={tmp_path}/run")
    log = process.communicate()[1]
    assert process.returncode == 2
    assert "3 devices cannot share a batch of 8 evenly" in log


# Prints the FLOPs of an update that one device does, by phase, without sharing and with it.
COUNT_FLOPS = """
import dataclasses
from unittest import mock
import jax.numpy as jnp
from benchmarks import conv as plain, update
from seer_jax import build, conv, presets
from seer_jax.types import EnvSpec

quick = presets.for_task("cartpole_swingup", "quick")
spec = EnvSpec((52, 52, 3), (1,), None, 1, 8, 125)
for frozen in (False, True):
    for shared in (False, True):
        # Large, as the optimisers' work is whole on each.
        chosen = dataclasses.replace(quick, data_parallel=shared, batch_size=128)
        # As in the benchmark: XLA counts the body of a loop once.
        with mock.patch.object(conv, "conv2d", plain.plain_conv2d):
            p = update.Phase(chosen, build.make_agent(chosen, spec), spec, frozen)
            arguments = p.state, None, p.replay, p.key, p.iteration, jnp.float32(0)
            program = p.functions.learn.lower(*arguments).compile()
        print(program.cost_analysis()["flops"])
"""


@pytest.mark.slow
def test_four_devices_share_the_work():
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    command = [sys.executable, "-c", COUNT_FLOPS]
    done = subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True, cwd=ROOT
    )
    pixels, pixels_shared, latents, latents_shared = map(float, done.stdout.split())
    assert pixels_shared < 0.27 * pixels and latents_shared < 0.3 * latents
