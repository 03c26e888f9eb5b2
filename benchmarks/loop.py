"""Time of an agent step of the whole loop, before and after the freeze, and of its parts alone.

    python -m benchmarks.loop --task=cartpole_swingup --json=loop.json
    python -m benchmarks.loop --task=Alien --preset=atari100k --num_envs 1 8
    python -m benchmarks.loop --preset=quick --num_seeds 4

A step of the loop is one action: stack, encode, act and store; one update; one step of the
environment, which simulates while the update runs. `simulate`, `learn` and `act` are those three
alone, each waited for. Where simulation and learning overlap fully, a step of the loop takes
max(simulate, learn) + act; `over` is what it takes beyond that.
"""

import argparse
import contextlib
import dataclasses
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks import measure
from seer_jax import build, presets, train
from seer_jax.config import Config, check
from seer_jax.types import Env

_ROWS = 600  # in replay before anything is timed
PHASES = "pixels", "latents"
_PARTS = "loop", "simulate", "learn", "act"


@contextlib.contextmanager
def opened_run(config: Config, env: Env) -> Iterator[train.Run]:
    """A run at its first step, in a folder that is thrown away; closes the environment too."""
    agent = build.make_agent(config, env.spec)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        stack.callback(env.close)
        run = train.Run(config, pathlib.Path(folder), env, lambda: env, agent)
        stack.callback(run.close)
        run.restore_or_start()
        run.open_loggers(stack, show_progress=False)
        yield run


def parts(run: train.Run, passes: int) -> dict[str, Callable[[], Any]]:
    """The whole loop and its three parts, each for so many passes over the environments."""
    updates = passes * run.num_envs()
    action = np.zeros(
        (run.env.spec.num_envs, *run.env.spec.action_shape),
        np.int32 if run.env.spec.num_actions is not None else np.float32,
    )

    def loop() -> Any:
        for _ in range(passes):
            run.step()
        run.metrics.clear()
        return run.state

    def simulate() -> None:
        for _ in range(passes):
            run.timestep = run.env.step(action)

    def learn() -> Any:
        for _ in range(updates):
            run.learn()
        run.metrics.clear()
        return run.state

    def act() -> None:
        for _ in range(passes):
            action, run.replay, run.stack, _ = run.functions.act_and_store(
                run.state,
                run.replay,
                run.stack,
                run.timestep,
                run.keys.act,
                np.int32(0),
                random=False,
            )
            np.asarray(action)

    return dict(zip(_PARTS, (loop, simulate, learn, act), strict=True))


def measure_loops(
    configs: list[Config], repeats: int, passes: int
) -> Iterator[list[dict[str, Any]]]:
    """For each run the records of both phases, seconds per agent step; with several seeds, of any
    of them. All runs are timed in turn, so that their ratios outlast a drift of the machine."""
    with contextlib.ExitStack() as stack:
        runs = {}
        for config in configs:
            sized = _with_room(config, repeats, passes)
            run = stack.enter_context(opened_run(sized, build.make_env(sized)))
            while run.progress.step < _ROWS:
                run.step()
            seeds = config.num_seeds
            runs[f"{seeds} seeds" if seeds > 1 else str(config.num_envs)] = run
        timings: dict[str, measure.Timing] = {}
        for phase in PHASES:
            variants = {}
            for of_run, run in runs.items():
                if phase == "latents":
                    run.freeze()
                for part, function in parts(run, passes).items():
                    variants[f"{part}/{phase}/{of_run}"] = function
            timings |= measure.interleaved(variants, repeats)
    for of_run, config in zip(runs, configs, strict=True):
        steps = passes * config.num_envs * config.num_seeds
        records = []
        for phase in PHASES:
            names = (f"{part}/{phase}/{of_run}" for part in _PARTS)
            found = [measure.record(name, timings[name], steps) for name in names]
            loop, simulate, learn, act = (record["value"] for record in found)
            found[0]["over"] = loop / (max(simulate, learn) + act) - 1
            records += found
        yield records


def _with_room(config: Config, repeats: int, passes: int) -> Config:
    """The same run, with steps and rows for all that is timed, and its freeze between the two."""
    windows = (repeats + 2) * 4 * passes * config.num_envs
    return dataclasses.replace(
        config,
        num_steps=_ROWS + 2 * windows,
        freeze_step=_ROWS + windows,
        learning_starts=_ROWS - 10 * config.num_envs,
        replay_capacity=_ROWS + 2 * windows,
    )


@measure.plain_refusals
def main(argv: list[str] | None = None) -> None:
    """Prints the table and writes the records."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="cartpole_swingup")
    parser.add_argument("--preset", default="paper", choices=["paper", "quick", "atari100k"])
    parser.add_argument("--render_quality", default=None, choices=["full", "fast"])
    parser.add_argument("--compute_dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--num_envs", type=int, nargs="+", default=[1])
    parser.add_argument("--num_seeds", type=int, nargs="+", default=[])
    parser.add_argument(
        "--passes", type=measure.count, default=40, help="over the environments, a sample"
    )
    measure.add_arguments(parser, repeats=7)
    args = parser.parse_args(argv)
    config = presets.for_task(build.parse_task(args.task), args.preset)
    if args.render_quality:
        config = dataclasses.replace(config, render_quality=args.render_quality)
    agent = dataclasses.replace(config.agent, compute_dtype=args.compute_dtype)
    config = dataclasses.replace(config, agent=agent)
    runs = [{"num_envs": n} for n in args.num_envs] + [{"num_seeds": n} for n in args.num_seeds]
    configs = list(dict.fromkeys(dataclasses.replace(config, **changes) for changes in runs))
    for each in configs:
        check(each)
    records = []
    print(
        f"{'ms per agent step':20}{'loop':>9}{'simulate':>10}{'learn':>9}{'act':>8}{'over':>7}"
        f"{'steps/s':>9}"
    )
    for found in measure_loops(configs, args.repeats, args.passes):
        records += found
        for loop, simulate, learn, act in (found[:4], found[4:]):
            print(
                f"{loop['name'][5:]:20}{loop['value'] * 1e3:9.2f}{simulate['value'] * 1e3:10.2f}"
                f"{learn['value'] * 1e3:9.2f}{act['value'] * 1e3:8.2f}{loop['over']:7.0%}"
                f"{1 / loop['value']:9.0f}"
            )
    if args.json:
        command = measure.command("benchmarks.loop", argv)
        measure.write_json(args.json, command, records, config=dataclasses.asdict(config))


if __name__ == "__main__":
    main()
