"""How much of a pole's motion near the top can be read off an encoder: after its convolutions and
after its projections.

    python -m experiments.pole runs/quick --json=experiments/results/pole.json

For runs of cartpole_swingup by CURL-SAC. Sets the simulator to random states within 0.6 rad of the
top, takes a stack of frames under random actions, and regresses the angle and its velocity on the
features by ridge regression, three quarters of the states for fitting. Prints R^2 on the rest of
them, within 0.3 rad: 1 is all, 0 is nothing. A head learns from what it can read off.
"""

import argparse
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from seer_jax.agents import curl_sac
from seer_jax.envs.dmc import DmcEnv
from seer_jax.policy import Policy
from seer_jax.types import UserError

_WIDE, _NEAR = 0.6, 0.3  # rad
_PENALTIES = (1, 10, 100, 1_000, 10_000)
_CHUNK = 100  # observations encoded at a time


def collect(env: DmcEnv, stack: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Stacked frames u8[M, H, W, k*C] and [angle, velocity] f64[M, 2], of M < count states."""
    random, physics = np.random.default_rng(0), env._env.physics
    frames, motions = [], []
    for _ in range(count):
        env.reset()
        with physics.reset_context():
            physics.named.data.qpos["slider"] = random.uniform(-1, 1)
            physics.named.data.qpos["hinge_1"] = random.uniform(-_WIDE, _WIDE)
            physics.named.data.qvel["slider"] = random.normal()
            physics.named.data.qvel["hinge_1"] = 1.5 * random.normal()
        steps = [env.step(random.uniform(-1, 1, (1, 1)).astype(np.float32)) for _ in range(stack)]
        angle = (physics.data.qpos[1] + np.pi) % (2 * np.pi) - np.pi
        if abs(angle) < _WIDE:  # some have fallen further
            frames.append(np.concatenate([step.obs[0] for step in steps], axis=-1))
            motions.append([angle, physics.data.qvel[1]])
    return np.stack(frames), np.array(motions)


def features(policy: Policy, obs: np.ndarray) -> dict[str, np.ndarray]:
    """f64[M, ...] after each part of the encoder, for centre crops of obs."""
    config = policy.config.agent
    assert isinstance(config, curl_sac.Config)
    model, state = curl_sac.make_model(config, action_dim=1), policy.state
    critic = {**state.encoder["critic"]}
    actor = state.encoder.get("actor")
    if state.params.encoder is not None:  # what of it is not frozen
        critic |= state.params.encoder["critic"]
        actor = state.params.encoder["actor"]
    parts: dict[str, list[np.ndarray]] = {"convs": [], "critic": [], "actor": []}
    for start in range(0, len(obs), _CHUNK):
        view = curl_sac._view(config.crop_size, jnp.asarray(obs[start : start + _CHUNK]))
        found = model.convs.apply(critic["convs"], view)
        parts["convs"].append(found)
        parts["critic"].append(model.projection.apply(critic["projection"], found))
        parts["actor"].append(model.projection.apply(actor, found))
    return {name: np.concatenate(x).astype(np.float64) for name, x in parts.items()}


def r_squared(x: np.ndarray, y: np.ndarray, near: np.ndarray) -> float:
    """Of ridge regression, on the last quarter, where `near`; the best of some penalties."""
    x = np.c_[(x - x.mean(axis=0)) / (x.std(axis=0) + 1e-6), np.ones(len(x))]
    fit = len(x) * 3 // 4
    found = []
    for penalty in _PENALTIES:
        gram = x[:fit].T @ x[:fit] + penalty * np.eye(x.shape[1])
        error = (x[fit:] @ np.linalg.solve(gram, x[:fit].T @ y[:fit]) - y[fit:])[near[fit:]]
        found.append(1 - np.mean(error**2) / np.var(y[fit:][near[fit:]]))
    return float(max(found))


def main(argv: list[str] | None = None) -> None:
    """Prints the table and writes the records."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("logdir", nargs="+", type=pathlib.Path, help="run folder")
    parser.add_argument("--states", type=measure.count, default=2_400)
    measure.add_arguments(parser)
    args = parser.parse_args(argv)
    records: list[dict[str, Any]] = []
    seen: dict[tuple, tuple[np.ndarray, np.ndarray]] = {}
    print(f"{'':34}{'angle':>24}{'velocity':>24}")
    print(f"{'run, step':34}" + f"{'convs':>8}{'critic':>8}{'actor':>8}" * 2)
    for logdir in args.logdir:
        try:
            policy = Policy(logdir)
        except UserError as error:
            parser.error(str(error))
        config = policy.config
        looks = (config.image_size, config.render_quality, config.frame_stack, config.action_repeat)
        if looks not in seen:
            env = policy.make_env()
            if not isinstance(env, DmcEnv) or config.task != "cartpole_swingup":
                parser.error(f"{logdir} is no run of cartpole_swingup.")
            seen[looks] = collect(env, config.frame_stack, args.states)
            env.close()
        obs, motion = seen[looks]
        near = np.abs(motion[:, 0]) < _NEAR
        record: dict[str, Any] = {"run": logdir.name, "step": policy.step, "states": len(obs)}
        for name, x in features(policy, obs).items():
            record[f"angle/{name}"] = r_squared(x, motion[:, 0], near)
            record[f"velocity/{name}"] = r_squared(x, motion[:, 1], near)
        records.append(record)
        values = [
            record[f"{what}/{part}"]
            for what in ("angle", "velocity")
            for part in ("convs", "critic", "actor")
        ]
        print(f"{logdir.name[:24]:24}{policy.step:10,}" + "".join(f"{x:8.2f}" for x in values))
    if args.json:
        command = measure.command("experiments.pole", argv)
        measure.write_json(args.json, command, records)


if __name__ == "__main__":
    main()
