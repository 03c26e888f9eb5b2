"""Time, FLOPs and share of peak of an update and of acting, before and after the freeze.

    python -m benchmarks.update --agent=curl_sac --json=update.json
    python -m benchmarks.update --agent=rainbow --encoder=der

At the paper's sizes. CURL-SAC: batch 128, 84-pixel crops of 100-pixel frames, 32 filters, hidden
width 1024. Rainbow: batch 32, 84-pixel frames, 18 actions, 20 steps, hidden width 256, with the
Nature encoder 512. An update is what the loop dispatches: sampling a batch from replay and one
gradient step; it is timed in twos, since CURL-SAC's actor takes a step every second time. Acting
is the loop's other dispatch: stack, encode, choose an action, store (after the freeze curl_sac
encodes K + 1 crops).
"""

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from benchmarks.conv import plain_conv2d
from seer_jax import build, conv, dispatch, flops, freezing, memory, presets
from seer_jax import replay as replay_lib
from seer_jax.agents import curl_sac, rainbow
from seer_jax.config import Config
from seer_jax.types import MID, Agent, EnvSpec, TimeStep, Transition

_ROWS = 2_000


class Phase:
    """The loop's two dispatches in one phase, each callable again and again."""

    def __init__(self, config: Config, agent: Agent, spec: EnvSpec, frozen: bool) -> None:
        memory.keep_freed()  # as a run does
        self.functions = dispatch.compile_functions(config, agent, spec)
        row = freezing.plan(config, agent, spec).at(frozen).row
        self.state = jax.jit(agent.init)(jax.random.key(0))
        if frozen:
            self.state = agent.freeze(self.state)
        self.replay = filled(replay_lib.init(_ROWS, row))
        self.stack = self.functions.empty_stack(1)
        self.timestep = jax.device_put(
            TimeStep(
                np.full(1, MID, np.int32),
                np.ones(1, np.float32),
                np.ones(1, np.float32),
                np.zeros((1, *spec.obs_shape), np.uint8),
            )
        )
        self.key = jax.random.key(1)
        self.iteration = np.int32(0)

    def update(self) -> Any:
        for _ in range(2):
            self.iteration += 1  # draws another batch
            self.state, _, _ = self.functions.learn(
                self.state, None, self.replay, self.key, self.iteration, np.float32(0)
            )
        return self.state.step  # one array to wait for: what a program gives is ready at once

    def act(self) -> Any:
        action, self.replay, self.stack, _ = self.functions.act_and_store(
            self.state,
            self.replay,
            self.stack,
            self.timestep,
            self.key,
            self.iteration,
            random=False,
        )
        return action


def filled(replay: replay_lib.Replay) -> replay_lib.Replay:
    """A full replay of random rows, all of one endless episode."""
    rows = replay.rows
    return replay.replace(
        rows=rows._replace(
            obs=jax.tree.map(_random_like, rows.obs),
            action=_random_like(rows.action),
            step_type=jnp.full_like(rows.step_type, MID),
            discount=jnp.ones_like(rows.discount),
        ),
        size=jnp.int32(replay_lib.get_capacity(replay)),
    )


def _random_like(x: jax.Array) -> jax.Array:
    if x.dtype == jnp.uint8:
        # By numpy: jax.random needs ten times the bytes, too many for the frames of several seeds.
        return jnp.asarray(np.random.default_rng(2).integers(0, 256, x.shape, np.uint8))
    if x.dtype == jnp.int32:
        return jax.random.randint(jax.random.key(4), x.shape, 0, 2)
    return jax.random.normal(jax.random.key(3), x.shape).astype(x.dtype)


def xla_flops(config: Config, spec: EnvSpec, frozen: bool) -> tuple[float, float]:
    """FLOPs of one update in which the actor takes a step: by hand, and as XLA counts them.

    XLA counts the body of a loop once, so for its count the library's convolution, whose weight
    gradient is a loop on CPUs, is replaced by the plain one.
    """
    if isinstance(config.agent, curl_sac.Config):
        every_time = dataclasses.replace(config.agent, actor_every=1)
        config = dataclasses.replace(config, agent=every_time)
    agent = build.make_agent(config, spec)
    by_hand = agent.flops.update_frozen if frozen else agent.flops.update
    batch = config.batch_size
    scalars = jax.ShapeDtypeStruct((batch,), jnp.float32)
    discrete = spec.num_actions is not None
    actions = jax.ShapeDtypeStruct(
        (batch, *spec.action_shape), jnp.int32 if discrete else jnp.float32
    )
    height, width, channels = spec.obs_shape
    pixels = (batch, height, width, channels * config.frame_stack)
    obs: Any = jax.ShapeDtypeStruct(pixels, jnp.uint8)
    key = jax.eval_shape(lambda: jax.random.key(0))
    with mock.patch.object(conv, "conv2d", plain_conv2d):
        state = jax.eval_shape(agent.init, key)
        if frozen:
            state = jax.eval_shape(agent.freeze, state)
            obs = jax.eval_shape(lambda s, x: agent.encode(s.frozen, agent.view(x)), state, obs)
        transition = Transition(obs, actions, scalars, scalars, obs, scalars)
        counted = flops.xla_count(agent.update, state, transition, key)
    return by_hand * batch, counted


def measure_update(config: Config, spec: EnvSpec, repeats: int) -> list[dict[str, Any]]:
    """Records of every program: seconds, FLOPs, FLOP/s and share of the matmul peak."""
    agent = build.make_agent(config, spec)
    phases = {"pixels": False, "latents": True}
    programs = {name: Phase(config, agent, spec, frozen) for name, frozen in phases.items()}
    calls: dict[str, Callable[[], Any]] = {"matmul": measure.matmul(config.agent.compute_dtype)}
    for name, program in programs.items():
        calls |= {f"update/{name}": program.update, f"act/{name}": program.act}
    timings = measure.interleaved(calls, repeats, sample_seconds=0.5)
    peak = measure.matmul_record(timings.pop("matmul"))
    cost = agent.flops
    analytic = {
        "update/pixels": config.batch_size * cost.update,
        "update/latents": config.batch_size * cost.update_frozen,
        "act/pixels": cost.encode + cost.act,
        "act/latents": freezing.num_views(agent, config.num_copies) * cost.encode + cost.act,
    }
    records = []
    for name, timing in timings.items():
        per_call = 2 if name.startswith("update") else 1
        record = measure.record(name, timing, per_call)
        seconds = record["value"]
        record |= {
            "analytic_flops": analytic[name],
            "flops_per_s": analytic[name] / seconds,
            "share_of_peak": analytic[name] / seconds / peak["value"],
        }
        if name.startswith("update"):
            with_actor, counted = xla_flops(config, spec, phases[name.split("/")[1]])
            record |= {"analytic_flops_with_actor": with_actor, "xla_flops_with_actor": counted}
        records.append(record)
    return [*records, peak]


def print_table(records: list[dict[str, Any]]) -> None:
    """One line a program."""
    print(
        f"{'':16}{'ms':>10}{'quartiles':>19}{'GFLOP':>9}{'GFLOP/s':>9}{'of peak':>9}  XLA/by hand"
    )
    for r in records:
        if r["unit"] != "s":
            print(f"{r['name']:16}{'':38}{r['value'] / 1e9:9.1f}")
            continue
        ratio = ""
        if "xla_flops_with_actor" in r:
            ratio = f"{r['xla_flops_with_actor'] / r['analytic_flops_with_actor']:.3f}"
        print(
            f"{r['name']:16}{r['value'] * 1e3:10.2f}{r['low'] * 1e3:9.2f} -{r['high'] * 1e3:8.2f}"
            f"{r['analytic_flops'] / 1e9:9.2f}{r['flops_per_s'] / 1e9:9.1f}"
            f"{r['share_of_peak']:9.0%}  {ratio}"
        )


@measure.plain_refusals
def main(argv: list[str] | None = None) -> None:
    """Prints the table and writes the records."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agent", choices=["curl_sac", "rainbow"], default="curl_sac")
    parser.add_argument("--encoder", choices=["der", "nature", "impala"], help="Rainbow's; der")
    parser.add_argument("--task", help="sets the number of actions; walker_walk or Alien, with 18")
    parser.add_argument("--compute_dtype", default="float32", choices=["float32", "bfloat16"])
    measure.add_arguments(parser, repeats=9)
    args = parser.parse_args(argv)
    task = args.task or ("Alien" if args.agent == "rainbow" else "walker_walk")
    config = presets.for_task(build.parse_task(task), "paper")
    if config.algorithm != args.agent:
        parser.error(f"{args.agent} does not play {task}.")
    agent = dataclasses.replace(config.agent, compute_dtype=args.compute_dtype)
    if args.encoder:
        if not isinstance(agent, rainbow.Config):
            parser.error("--encoder goes with --agent=rainbow.")
        agent = dataclasses.replace(agent, encoder=args.encoder)
    config = dataclasses.replace(config, agent=agent)
    env = build.make_env(config)
    env.close()
    records = measure_update(config, env.spec, args.repeats)
    print_table(records)
    if args.json:
        command = measure.command("benchmarks.update", argv)
        measure.write_json(args.json, command, records, config=dataclasses.asdict(config))


if __name__ == "__main__":
    main()
