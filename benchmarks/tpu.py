"""What the TPU's compiler makes of a run's programs, where there is no TPU.

    pip install -c constraints.txt -e '.[atari,tpu]'
    python -m benchmarks.tpu --json=tpu_paper.json
    python -m benchmarks.tpu --tasks walker_walk --num_seeds=8

Compiles for one v5e, ahead of time: the update, and acting and storing, before and after the
freeze, and the encoding of replay at the freeze. The compiler, for Linux on x86-64, says what
memory a program needs beside its arguments, and estimates the cycles of most operations, though not
of copies between its memories. Their sum counts a loop's body as often as it runs, once where that
is not known (drawing again what was no valid start), and the dearer of two branches (the actor's
step). So it is an estimate of what the device computes: nothing here has run.
"""

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import os
import pathlib
import re
import time
from collections.abc import Iterator
from typing import Any, get_args
from unittest import mock

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from benchmarks import measure, report
from seer_jax import build, dispatch, freezing, presets, quantise, seeds, train
from seer_jax import replay as replay_lib
from seer_jax.config import Config, LatentDtype
from seer_jax.types import PyTree, TimeStep, UserError, first_line

_TOPOLOGY = "v5e:2x2"  # the smallest that can be described


def described_device() -> SingleDeviceSharding:
    """A v5e as its compiler describes it: where the arrays of programs would lie.

    Raises:
        UserError: if its compiler is not installed, or in use.
    """
    found = importlib.util.find_spec("libtpu")
    if found is None or found.origin is None:
        install = "pip install -c constraints.txt -e '.[tpu]'"
        raise UserError(f"The TPU's compiler is missing: {install}")
    described = {
        "TPU_LIBRARY_PATH": str(pathlib.Path(found.origin).with_name("libtpu.so")),
        "TPU_SKIP_MDS_QUERY": "1",  # of a cloud machine's description
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_WORKER_ID": "0",
    }
    try:
        with mock.patch.dict(os.environ, described):
            topology = topologies.get_topology_desc(_TOPOLOGY, platform="tpu")
    except jax.errors.JaxRuntimeError as error:  # as where another process compiles with it
        raise UserError(f"The TPU's compiler cannot be used now: {first_line(error)}") from error
    return SingleDeviceSharding(topology.devices[0])


def cycles(program: str) -> int:
    """Estimated cycles of a compiled program, of its text; of branches, those of the dearest."""
    own: dict[str, int] = {}
    loops: dict[str, list[tuple[str, str]]] = {}  # condition and body of each
    branches: dict[str, list[list[str]]] = {}
    numbers: dict[str, int] = {}
    times: dict[str, int] = {}  # a condition that counts holds
    name = entry = ""
    for line in program.splitlines():
        if begun := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{\s*$", line):
            name = begun[2]
            entry = name if begun[1] else entry
            own[name], loops[name], branches[name] = 0, [], []
        if estimate := re.search(r'"estimated_cycles":"(\d+)"', line):
            own[name] += int(estimate[1])
        if number := re.match(r"\s*%?([\w.\-]+) = s32\[\]\S* constant\((\d+)\)", line):
            numbers[number[1]] = int(number[2])
        if limit := re.search(r"ROOT .* compare\(.*, %?([\w.\-]+)\), direction=LT", line):
            times[name] = numbers.get(limit[1], 1)
        if loop := re.search(r" while\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)", line):
            loops[name].append((loop[1], loop[2]))
        if chosen := re.search(r"branch_computations=\{(.*?)\}", line):
            branches[name].append([branch.strip(" %") for branch in chosen[1].split(",")])

    def total(name: str) -> int:
        of_loops = sum(times.get(until, 1) * total(body) for until, body in loops[name])
        return own[name] + of_loops + sum(max(map(total, each)) for each in branches[name])

    return total(entry)


def lowered(config: Config, where: SingleDeviceSharding) -> Iterator[tuple[str, Any]]:
    """Each program of a run, by a name, lowered for a TPU."""
    env = build.make_env(config)
    env.close()
    agent, n = build.make_agent(config, env.spec), env.spec.num_envs
    functions = dispatch.compile_functions(config, agent, env.spec)
    plan = freezing.plan(config, agent, env.spec)

    def placed(tree: PyTree) -> Any:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree)

    key = placed(jax.eval_shape(lambda: seeds.keys(config.seeds)))
    count, beta = placed(np.int32(0)), placed(np.float32(0))
    stack = placed(jax.eval_shape(lambda: functions.empty_stack(n)))
    reward, pixels = np.zeros(n, np.float32), np.zeros((n, *env.spec.obs_shape), np.uint8)
    seen = placed(TimeStep(np.zeros(n, np.int32), reward, reward, pixels))
    pixel_state = jax.eval_shape(functions.init, key)
    latent_state = jax.eval_shape(agent.freeze, pixel_state)

    def replay_of(phase: freezing.Phase) -> Any:
        prioritised = config.replay == "prioritised"
        return placed(
            jax.eval_shape(lambda: replay_lib.init(phase.capacity, phase.row, prioritised))
        )

    frames, latents = map(replay_of, plan)
    dtype = config.latent_dtype
    if dtype in quantise.LARGEST_CODE:
        scale = quantise.scale_shape(plan.latents.row.obs, config.num_seeds > 1)
        latents = latents.replace(scale=placed(scale))
    for phase, state, replay in (
        ("pixels", pixel_state, frames),
        (f"latents, {dtype}", latent_state, latents),
    ):
        state = placed(jax.eval_shape(functions.place, state, replay, stack)[0])
        bare = replay.replace(priorities=None)
        if isinstance(state, seeds.Apart):
            of_one = state.each[0], bare, key, count, count, beta
            yield f"{phase}/update of each", functions.learn.of_one.lower(*of_one)
        else:
            learn = getattr(functions.learn, "of_all", functions.learn)
            learning = state, replay.priorities, bare, key, count, beta
            yield f"{phase}/update", learn.lower(*learning)
        acting = state, replay, stack, seen, key, count
        yield f"{phase}/act", functions.act_and_store.lower(*acting, random=False)
    age = placed(np.zeros(train.chunk(config, n // config.num_seeds), np.int32))
    encoding = placed(latent_state), frames, age, key, count
    yield "freeze/encode", functions.encode_rows.lower(*encoding)


def compiled(config: Config, where: SingleDeviceSharding) -> list[dict[str, Any]]:
    """A record of each program of a run."""
    records = []
    # The package asks JAX what it computes on.
    with mock.patch.object(jax, "default_backend", return_value="tpu"):
        for name, program in lowered(config, where):
            start = time.perf_counter()
            made = program.compile()
            memory = made.memory_analysis()
            records.append(
                {
                    "name": f"{config.task}/{name}",
                    "unit": "cycles",
                    "value": cycles(made.as_text()),
                    "temporary_bytes": memory.temp_size_in_bytes,
                    "argument_bytes": memory.argument_size_in_bytes,
                    "compile_seconds": time.perf_counter() - start,
                }
            )
    return records


@measure.plain_refusals
def main(argv: list[str] | None = None) -> None:
    """Prints the table and writes the records."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=["walker_walk", "Alien"])
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--num_seeds", type=measure.count, default=1)
    dtypes = get_args(LatentDtype)
    parser.add_argument("--latent_dtype", choices=dtypes, help="the preset's by default")
    measure.add_arguments(parser)
    args = parser.parse_args(argv)
    jax.config.update("jax_platforms", "cpu")  # would look for a TPU with its compiler there
    where, records = described_device(), []
    print(f"{'':42}{'ms':>9}{'temporary, MiB':>16}{'arguments, MiB':>16}{'to compile, s':>15}")
    for task in args.tasks:
        config = presets.for_task(build.parse_task(task), args.preset)
        latent_dtype = args.latent_dtype or config.latent_dtype
        changes = {"num_seeds": args.num_seeds, "latent_dtype": latent_dtype}
        for record in compiled(dataclasses.replace(config, **changes), where):
            records.append(record)
            ms = record["value"] / report.TPU_HERTZ * 1e3
            mib = [record[f"{which}_bytes"] / 2**20 for which in ("temporary", "argument")]
            print(
                f"{record['name']:42}{ms:9.2f}{mib[0]:16,.0f}{mib[1]:16,.0f}"
                f"{record['compile_seconds']:15.0f}"
            )
    if args.json:
        versions = {"libtpu": importlib.metadata.version("libtpu"), "topology": _TOPOLOGY}
        command = measure.command("benchmarks.tpu", argv)
        measure.write_json(args.json, command, records, compiler=versions)


if __name__ == "__main__":
    main()
