"""`python -m seer_jax.run --task=walker_walk`: the command line."""

import argparse
import dataclasses
import json
import os
import pathlib
import sys
from typing import Annotated, get_args

import tyro

from seer_jax import config as config_lib
from seer_jax.config import Config
from seer_jax.types import UserError


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 0 done, 2 a mistake to mend, 130 stopped."""
    try:
        return _train(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        print(f"seer_jax: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("seer_jax: stopped; the same command resumes from the last checkpoint.", file=sys.stderr)
        return 130


def _train(argv: list[str]) -> int:
    # Heavy imports wait until the flags are known to be right.
    config = parse(argv)
    from seer_jax import train
    from seer_jax.agents import curl_sac
    from seer_jax.envs import dmc

    logdir = prepare_logdir(config)
    make_env = lambda: dmc.make(
        config.task,
        seed=config.seed,
        action_repeat=config.action_repeat,
        image_size=config.image_size,
        render_quality=config.render_quality,
    )
    env = make_env()
    agent = curl_sac.make(config.agent, env.spec, config.frame_stack)
    try:
        train.train(config, logdir, env, make_env, agent)
    except train.Interrupted as stopped:
        print(f"seer_jax: {stopped} The same command resumes.", file=sys.stderr)
        return 130
    finally:
        env.close()
    return 0
