"""How an encoder comes to rest: the reason why freezing it works, layer by layer.

    python -m experiments.freezing_step --task=TASK --seeds 0 1 2
    python -m experiments.convergence runs/copies/TASK-quick-never-s? --out=FILE.csv

Takes runs of one task that never froze and kept all their checkpoints (--keep_checkpoints=100), and
compares the encoders of each, on 256 observations drawn from all of its replay:

- weights: how far a layer still is from its last weights, as a share of the way from its first;
- cka: how like the last ones its features are (linear CKA), 1 for the same but for a rotation;
- movement: the share of its way that it has gone, in terms of CKA, in the newer half of its
  training, as `--freeze_step=auto` looks at it; where there is a checkpoint of half the step.

Writes them to FILE.csv, and two pictures beside it: these curves for all seeds, and where each
convolution looks (the energy of its features at each place) in one observation of the first run.

Three seeds of finger_spin, two minutes on one core: the deeper a layer, the later it settles
(docs/freezing.md).
"""

import argparse
import contextlib
import os
import pathlib
import sys
from collections.abc import Callable, Sequence

import jax
import matplotlib.figure
import matplotlib.ticker
import numpy as np

from experiments import study
from experiments.plot_run import COLOURS, plain, save
from seer_jax import build, checkpoint, networks, settling
from seer_jax import config as config_lib
from seer_jax.train import CHECKPOINTED, Run
from seer_jax.types import Agent, Array, PyTree, UserError

MEASURED = ("weights", "cka", "movement")
COLUMNS = ("layer", "task", "seed", "step", *MEASURED, *study.CONTEXT)
_MAPS = 5  # encoders in the picture of where layers look


def read_run(logdir: pathlib.Path) -> tuple[config_lib.Config, Agent, dict[int, PyTree], Array]:
    """A run, its encoders by step, in order, and observations to compare them on, as the encoder
    takes them: u8[P, H, W, k*C].

    Raises:
        UserError: if it holds no run, or fewer than two encoders that train.
    """
    config = config_lib.read(logdir)
    saved = checkpoint.Checkpoints(logdir / "checkpoints", read_only=True)
    with contextlib.closing(saved):
        steps = saved.steps()
    if config.last_freeze_step is not None or config.num_seeds > 1 or len(steps) < 2:
        raise UserError(
            f"{logdir} cannot be used: it must be one run with --freeze_step=never and "
            "--keep_checkpoints=100."
        )
    env = build.make_env(config)
    with contextlib.closing(env):
        agent = build.make_agent(config, env.spec)
        run = Run(config, logdir, env, lambda: env, agent)
        with contextlib.closing(run):
            # Read only: the run itself would delete what cannot be read.
            restored = checkpoint.restore_once(logdir / "checkpoints", CHECKPOINTED)
            assert restored is not None  # there are two or more
            run.resume(*restored)
            probe = run.functions.draw_probe(run.replay, run.keys.freeze)
            first = run.functions.init(run.keys.init)
    encoders = {0: first.encoder}
    for step in steps:
        state, _ = checkpoint.restore_state(logdir, step)
        encoders[step] = checkpoint.rebuild(first, state).encoder
    return config, agent, encoders, probe


def layers(agent: Agent, encoder: PyTree, view: Array) -> dict[str, Array]:
    """Features of each layer f32[P, ...]: of the convolutions, then of what follows them."""
    latents: list[PyTree] = []
    features = networks.feature_maps(lambda: latents.append(agent.encode(encoder, view)))
    return features | (latents[0] if isinstance(latents[0], dict) else {})


def weights(encoder: PyTree) -> dict[str, np.ndarray]:
    """The kernel of each layer of `layers`."""
    found = {}
    for path, kernel in jax.tree_util.tree_leaves_with_path(encoder):
        names = [key.key for key in path]
        if names[-1] == "kernel":  # of a convolution, or of a side's projection
            found[names[0] if names[-2] == "fc" else names[-2]] = np.asarray(kernel)
    return found


def compare(
    features_of: Callable[[PyTree], dict[str, Array]], encoders: dict[int, PyTree]
) -> list[dict[str, str]]:
    """Rows of layer, step and `MEASURED`."""
    gram = jax.jit(settling.gram)
    grams = {step: jax.tree.map(gram, features_of(encoders[step])) for step in encoders}
    kernels = {step: weights(encoder) for step, encoder in encoders.items()}
    first, last = min(encoders), max(encoders)
    rows = []
    for step in encoders:
        for layer, own in grams[step].items():
            distance = lambda x, layer=layer: float(
                np.linalg.norm(kernels[x][layer] - kernels[last][layer])
            )
            like = lambda x, layer=layer, own=own: settling.alignment(grams[x][layer], own)
            halved = step > first and step % 2 == 0 and step // 2 in encoders
            found = {
                "weights": distance(step) / distance(first),
                "cka": float(like(last)),
                "movement": float(settling.movement(like(step // 2), like(first)))
                if halved
                else float("nan"),
            }
            rows.append({"layer": layer, "step": str(step)} | {k: str(x) for k, x in found.items()})
    return rows


def draw(rows: list[dict[str, str]]) -> matplotlib.figure.Figure:
    """The curves: a panel for each quantity, a colour for each layer, a thin line for each seed."""
    figure = matplotlib.figure.Figure(figsize=(12, 3.6), layout="constrained")
    labels = (
        "distance to the last weights",
        "CKA with the last features",
        "movement in the newer half",
    )
    panels = figure.subplots(1, len(MEASURED))
    convs_first = lambda layer: (not layer.startswith(("conv", "section")), layer)
    in_order = sorted({row["layer"] for row in rows}, key=convs_first)
    for axes, name, label in zip(panels, MEASURED, labels, strict=True):
        for i, layer in enumerate(in_order):
            colour, style = COLOURS[i % len(COLOURS)], ("-", "--")[i // len(COLOURS) % 2]
            ours = [row for row in rows if row["layer"] == layer]
            seeds = sorted({row["seed"] for row in ours})
            of_seeds = [[row for row in ours if row["seed"] == seed] for seed in seeds]
            ends = min(map(len, of_seeds))
            steps = [int(row["step"]) for row in of_seeds[0][:ends]]
            values = np.array([[float(row[name]) for row in run[:ends]] for run in of_seeds])
            there = np.isfinite(values).all(axis=0)
            x, values = np.array(steps)[there], values[:, there]
            axes.plot(x, values.T, color=colour, linewidth=0.7, alpha=0.4)
            mean = values.mean(axis=0)
            axes.plot(x, mean, color=colour, linestyle=style, linewidth=2, label=layer)
        axes.set_title(label, loc="left", fontsize="medium")
        axes.set_xlabel("agent steps")
        axes.xaxis.set_major_formatter(matplotlib.ticker.EngFormatter(sep=""))
        plain(axes)
        axes.set_ylim(0, None if name == "movement" else 1.02)
    panels[-1].axhline(config_lib.Config.freeze_movement, color="0.5", linestyle=":")
    panels[0].legend(frameon=False, loc="best")
    return figure


def draw_maps(
    features_of: Callable[[PyTree], dict[str, Array]],
    encoders: dict[int, PyTree],
    obs: np.ndarray,
    frame_stack: int,
) -> matplotlib.figure.Figure:
    """Where each convolution looks in the first observation: a row for each of some encoders.

    Args:
        features_of: by layer.
        encoders: by step.
        obs: u8[H, W, k*C], that observation.
        frame_stack: k.
    """
    shown = np.unique(np.linspace(0, len(encoders) - 1, _MAPS).astype(int))
    steps = np.array([*encoders])[shown].tolist()
    maps = {}
    for step in steps:
        spatial = {k: x[0] for k, x in features_of(encoders[step]).items() if x.ndim == 4}
        maps[step] = {k: np.sum(np.square(x), axis=-1) for k, x in spatial.items()}
    names = [*maps[steps[0]]]
    newest = np.split(obs, frame_stack, axis=-1)[-1]
    figure = matplotlib.figure.Figure(
        figsize=(1.7 * (len(names) + 1), 1.8 * len(steps)), layout="constrained"
    )
    panels = figure.subplots(len(steps), len(names) + 1)
    for step, row in zip(steps, panels, strict=True):
        row[0].imshow(newest, cmap="gray")
        row[0].set_ylabel(f"step {step:,}")
        for axes, name in zip(row[1:], names, strict=True):
            axes.imshow(maps[step][name], cmap="viridis")
            if step == steps[0]:
                axes.set_title(name, fontsize="medium")
    for axes in panels.flat:
        axes.set_xticks([])
        axes.set_yticks([])
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Compares, writes and draws."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logdir", nargs="+", type=pathlib.Path, help="run folder")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="CSV file to write")
    argv = sys.argv[1:] if argv is None else argv
    args = parser.parse_args(argv)
    if args.out.suffix != ".csv":
        parser.error(f"--out={args.out} must end in .csv: the pictures go beside it.")
    context = study.describe(
        ["python", "-m", "experiments.convergence", *argv], len(os.sched_getaffinity(0))
    )
    rows: list[dict[str, str]] = []
    for logdir in args.logdir:
        try:
            config, agent, encoders, view = read_run(logdir)
        except UserError as error:
            parser.error(str(error))
        if any(row["task"] != config.task or row["seed"] == str(config.seed) for row in rows):
            parser.error(f"{logdir}: compare runs of one task, each of another seed.")
        features_of = jax.jit(lambda encoder: layers(agent, encoder, view))  # noqa: B023
        of_run = {"task": config.task, "seed": str(config.seed)} | context
        if not rows:
            maps = draw_maps(features_of, encoders, np.asarray(view[0]), config.frame_stack)
        rows += [of_run | row for row in compare(features_of, encoders)]
    try:
        study.write(args.out, COLUMNS, rows)
        print(f"wrote {args.out}")
        save(draw(rows), args.out.with_suffix(".png"), dpi=130)
        save(maps, args.out.with_name(f"{args.out.stem}_maps.png"), dpi=110)
    except (OSError, UserError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
