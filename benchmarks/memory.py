"""Memory of a run at the paper's sizes, before, at and after the freeze.

    python -m benchmarks.memory --rows=100000 --json=memory.json

Builds the loop's own parts for walker_walk, fills a replay of that many rows with real frames,
takes a few real steps, writes a checkpoint, freezes, and does both again. Memory is the resident
set of this process, above what it held once everything was imported; `needed` counts the arrays
that must exist (replay, learner) and the buffers XLA says the dearer program of a step needs.
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import loop, measure
from seer_jax import build, presets, train
from seer_jax import replay as replay_lib

_STEPS = 10
_EPISODE = 501  # rows of walker_walk


def resident() -> dict[str, int]:
    """Bytes resident now and at the highest since the last `reset_peak`."""
    fields = dict(
        line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines()
    )
    return {name: int(fields[key].split()[0]) * 1024 for name, key in _FIELDS.items()}


_FIELDS = {"now": "VmRSS", "peak": "VmHWM"}


def reset_peak() -> None:
    """Makes the kernel forget the highest resident set so far."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def learner_bytes(run: train.Run) -> int:
    """Bytes of everything but replay that lives across steps."""
    return sum(x.nbytes for x in jax.tree.leaves((run.state, run.stack)))


def step_bytes(run: train.Run) -> int:
    """Buffers that XLA allocates besides arguments and results, of the dearer program."""
    arguments = (run.state, None, run.replay, run.keys.learn, jnp.int32(0), jnp.float32(0))
    analysis = run.functions.learn.lower(*arguments).compile().memory_analysis()
    assert analysis is not None, "this backend does not tell"
    return int(analysis.temp_size_in_bytes)


def measure_run(rows: int) -> list[dict[str, Any]]:
    """Records of the phases of one run."""
    paper = presets.for_task("walker_walk", "paper")
    config = dataclasses.replace(
        paper, num_steps=2 * rows, freeze_step=rows, replay_capacity=rows, learning_starts=0
    )
    env = build.make_env(config)
    base = resident()["now"]  # everything is imported, nothing compiled
    with loop.opened_run(config, env) as run:
        records = []

        def record(phase: str, count_needed: Callable[[], int]) -> None:
            used = {name: value - base for name, value in resident().items()}
            needed = count_needed()  # after reading what is used, because counting compiles
            records.append(
                {"name": f"memory/{phase}", "unit": "B", "needed": needed, "base": base}
                | {"value": used["peak"], "settled": used["now"], "over": used["peak"] / needed - 1}
            )
            reset_peak()

        reset_peak()
        for _ in range(_STEPS):
            run.step()
        run.save()  # as runs do long before replay is full
        fill(run, rows)
        for _ in range(_STEPS):
            run.step()
        jax.block_until_ready(run.state)
        frames = replay_lib.replay_bytes(run.replay)
        record("pixels", lambda: frames + learner_bytes(run) + step_bytes(run))
        run.save()
        record("checkpoint of pixels", lambda: frames + learner_bytes(run) + step_bytes(run))
        run.freeze()
        row_bytes = replay_lib.row_bytes(run.plan.latents.row)
        latents, held = run.plan.latents.capacity * row_bytes, rows * row_bytes
        record("freeze", lambda: max(frames + held, latents + held) + learner_bytes(run))
        for _ in range(_STEPS):
            run.step()
        jax.block_until_ready(run.state)
        record("latents", lambda: latents + learner_bytes(run) + step_bytes(run))
        run.save()
        record("checkpoint of latents", lambda: latents + learner_bytes(run) + step_bytes(run))
    return records


def fill(run: train.Run, rows: int) -> None:
    """Fills the replay by copying its first rows, real frames of an episode, over and over."""
    seed = jax.tree.map(lambda x: np.array(x[:_STEPS]), run.replay.rows)
    filled = run.replay.rows
    for start in range(_STEPS, rows - _STEPS, _STEPS):
        filled = replay_lib.write_rows(filled, seed, start)
    size = jnp.int32(start + _STEPS)
    run.replay = run.replay.replace(rows=filled, position=size, size=size + 0)
    run.progress.step = run.progress.iteration = int(size)


@measure.plain_refusals
def main(argv: list[str] | None = None) -> None:
    """Prints the table and writes the records."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000, help="of frames in replay")
    measure.add_arguments(parser)
    args = parser.parse_args(argv)
    if args.rows < _EPISODE:
        parser.error(f"--rows must hold an episode: {_EPISODE} or more.")
    records = measure_run(args.rows)
    mib = lambda number: f"{number / 2**20:12,.0f}"
    print(f"{'MiB':29}{'needed':>12}{'peak':>12}{'over':>8}{'settled':>12}{'base':>12}")
    for r in records:
        print(
            f"{r['name']:29}{mib(r['needed'])}{mib(r['value'])}{r['over']:8.1%}"
            f"{mib(r['settled'])}{mib(r['base'])}"
        )
    if args.json:
        command = measure.command("benchmarks.memory", argv)
        measure.write_json(args.json, command, records)


if __name__ == "__main__":
    main()
