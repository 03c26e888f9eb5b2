"""Agent steps per second of environments alone: simulating, rendering, both.

    python -m benchmarks.env --json=env.json
    python -m benchmarks.env --tasks Pong walker_walk --num_envs 1 8

Tasks at the preset's frame size and action repeat, with each number of environments; those of
dm_control rendered `full` and `fast`.
"""

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any, get_args

import numpy as np

from benchmarks import measure
from seer_jax import build, presets
from seer_jax import config as config_lib
from seer_jax.config import Config
from seer_jax.envs.dmc import DmcEnv, RenderQuality
from seer_jax.types import Env

_STEPS = 25  # in a sample


def variants(task: str, preset: config_lib.Preset, num_envs: list[int]) -> dict[str, Config]:
    """What is timed of a task, by name."""
    config = presets.for_task(build.parse_task(task), preset)
    found = {f"{n} envs": dataclasses.replace(config, num_envs=n) for n in num_envs}
    if config_lib.is_atari(config.task) or config_lib.is_gymnasium(config.task):
        return found
    rendered = {}
    for name, own in found.items():
        for quality in get_args(RenderQuality):
            full_name = quality if own.num_envs == 1 else f"{quality}, {name}"
            rendered[full_name] = dataclasses.replace(own, render_quality=quality)
    return rendered


def stepping(env: Env) -> Callable[[], None]:
    """Agent steps with actions drawn beforehand."""
    spec, rng = env.spec, np.random.default_rng(0)
    shape = (_STEPS, spec.num_envs, *spec.action_shape)
    discrete = spec.num_actions
    actions = rng.uniform(-1, 1, shape) if discrete is None else rng.integers(discrete, size=shape)

    def run() -> None:
        for action in actions:
            env.step(action)

    return run


def rendering(env: DmcEnv) -> Callable[[], None]:
    """The picture of one state, again and again."""

    def run() -> None:
        for _ in range(_STEPS):
            env.frame()

    return run


def measure_task(
    task: str, preset: config_lib.Preset, num_envs: list[int], repeats: int
) -> list[dict[str, Any]]:
    """Records of one task: seconds per agent step of one environment, or per frame."""
    passes: dict[str, Callable[[], None]] = {}
    scale: dict[str, int] = {}
    envs = []
    for name, config in variants(task, preset, num_envs).items():
        env = build.make_env(config)
        envs.append(env)
        env.reset()
        passes[f"{config.task}/step/{name}"] = stepping(env)
        scale[f"{config.task}/step/{name}"] = _STEPS * env.spec.num_envs
        if isinstance(env, DmcEnv):
            passes[f"{config.task}/frame/{name}"] = rendering(env)
            scale[f"{config.task}/frame/{name}"] = _STEPS
    timings = measure.interleaved(passes, repeats)
    for env in envs:
        env.close()
    return [measure.record(name, timing, scale[name]) for name, timing in timings.items()]


@measure.plain_refusals
def main(argv: list[str] | None = None) -> None:
    """Prints the table and writes the records."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=["cartpole_swingup", "walker_walk"])
    parser.add_argument("--preset", default="paper", choices=["paper", "quick", "atari100k"])
    parser.add_argument("--num_envs", type=measure.count, nargs="+", default=[1])
    measure.add_arguments(parser, repeats=9)
    args = parser.parse_args(argv)
    records = []
    for task in args.tasks:
        for record in measure_task(task, args.preset, args.num_envs, args.repeats):
            records.append(record)
            ms, rate = record["value"] * 1e3, 1 / record["value"]
            print(f"{record['name']:36}{ms:9.2f} ms{rate:9.0f} /s")
    if args.json:
        command = measure.command("benchmarks.env", argv)
        measure.write_json(args.json, command, records, preset=args.preset)


if __name__ == "__main__":
    main()
