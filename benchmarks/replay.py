"""Replay alone: writing a row, and drawing a batch uniformly and by priority.

    python -m benchmarks.replay --json=replay.json
    python -m benchmarks.replay --rows=1000000 --phases latents

At the paper's sizes: CURL-SAC draws 128 transitions of one step, with a frame of 30,000 bytes or 4
latents of 100 numbers a row; Rainbow draws 32 of twenty steps, with a frame of 7,056 bytes or a
latent of 576 numbers. In a run these are parts of its two programs; here each is a program by
itself, which costs a dispatch more. `priorities` is how a batch's errors are written back.
"""

import argparse
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import measure
from benchmarks.update import filled
from seer_jax import build, freezing, presets
from seer_jax import replay as replay_lib
from seer_jax.config import Config
from seer_jax.types import MID, Agent, EnvSpec

TASKS = {"curl_sac": "cartpole_swingup", "rainbow": "Alien"}
_CALLS = 20  # of a sample: single ones are too short to time


class Ring:
    """A full replay of one phase, and what is done with it."""

    def __init__(
        self, config: Config, agent: Agent, spec: EnvSpec, frozen: bool, rows: int
    ) -> None:
        row = freezing.plan(config, agent, spec).at(frozen).row
        self.row_bytes = replay_lib.row_bytes(row)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), row)
        in_episode = jnp.full_like(zeros.step_type, MID)  # else the rows added end every window
        self.row = zeros._replace(step_type=in_episode, discount=jnp.ones_like(zeros.discount))
        replay = filled(replay_lib.init(rows, row, prioritised=True))
        values = jax.random.uniform(jax.random.key(5), replay.rows.reward.shape)
        self.replay = replay.replace(priorities=replay_lib.Priorities(values, jnp.float32(1)))
        frames = replay_lib.stacked_frames(spec.obs_shape, config.frame_stack, spec.stack_pad)
        self._sample = jax.jit(
            functools.partial(
                replay_lib.sample,
                batch_size=config.batch_size,
                n_step=config.agent.n_step,
                gamma=config.agent.gamma,
                read=replay_lib.latents if frozen else frames,
                beta=config.priority_beta,
            )
        )
        self._add = jax.jit(replay_lib.add, donate_argnums=0)
        self._update = jax.jit(replay_lib.update_priorities, donate_argnums=0)
        self.errors = jnp.ones(config.batch_size)
        self.key, self.exponent = jax.random.key(6), config.priority_exponent

    def add(self) -> Any:
        for _ in range(_CALLS):
            self.replay = self._add(self.replay, self.row)
        return self.replay.position

    def uniform(self) -> Any:
        replay = self.replay.replace(priorities=None)
        for i in range(_CALLS):
            batch, _ = self._sample(jax.random.fold_in(self.key, i), replay)
        return batch.weight

    def prioritised(self) -> Any:
        for i in range(_CALLS):
            batch, self.start = self._sample(jax.random.fold_in(self.key, i), self.replay)
        return batch.weight

    def priorities(self) -> Any:
        for _ in range(_CALLS):
            priorities = self._update(
                self.replay.priorities, self.start, self.errors, self.exponent
            )
            self.replay = self.replay.replace(priorities=priorities)
        return priorities.highest


def measure_replay(
    algorithm: str, phases: list[str], rows: int, repeats: int
) -> list[dict[str, Any]]:
    """Records of one agent's replay: seconds of each operation, and bytes of a row."""
    config = presets.for_task(TASKS[algorithm], "paper")
    env = build.make_env(config)
    env.close()
    agent = build.make_agent(config, env.spec)
    rings = {phase: Ring(config, agent, env.spec, phase == "latents", rows) for phase in phases}
    calls: dict[str, Callable[[], Any]] = {}
    for phase, ring in rings.items():
        for call in (ring.add, ring.uniform, ring.prioritised, ring.priorities):
            calls[f"{algorithm}/{phase}/{call.__name__}"] = call
    return [
        measure.record(name, timing, _CALLS)
        | {"rows": rows, "row_bytes": rings[name.split("/")[1]].row_bytes}
        for name, timing in measure.interleaved(calls, repeats).items()
    ]


@measure.plain_refusals
def main(argv: list[str] | None = None) -> None:
    """Prints the table and writes the records."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agents", nargs="+", choices=TASKS, default=[*TASKS])
    phases = ["pixels", "latents"]
    parser.add_argument("--phases", nargs="+", choices=phases, default=phases)
    parser.add_argument("--rows", type=int, default=10_000, help="of the ring, which is full")
    measure.add_arguments(parser, repeats=15)
    args = parser.parse_args(argv)
    if args.rows < 100:
        parser.error("--rows must be 100 or more: twenty steps are drawn.")
    records = []
    for algorithm in args.agents:
        for record in measure_replay(algorithm, args.phases, args.rows, args.repeats):
            records.append(record)
            print(
                f"{record['name']:32}{record['value'] * 1e6:9.0f} us"
                f"{record['row_bytes']:9,} bytes a row"
            )
    if args.json:
        measure.write_json(args.json, measure.command("benchmarks.replay", argv), records)


if __name__ == "__main__":
    main()
