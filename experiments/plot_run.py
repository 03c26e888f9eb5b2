"""Draws the evaluation return of run folders, against environment steps and against hours.

    python -m experiments.plot_run runs/quick                      -> runs/quick/curve.png
    python -m experiments.plot_run runs/seer runs/curl --out fig.png

A run of several seeds (--num_seeds) is one curve, the mean over them. Reads eval.csv for the curves
and metrics.jsonl for the step of the freeze, which is marked.
"""

import argparse
import csv
import json
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib.axes
import matplotlib.figure
import matplotlib.ticker
import numpy as np

from seer_jax.types import UserError

# Okabe and Ito's palette, told apart by colour-blind readers; its yellow is too pale for lines.
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"),
    *("#F0E442", "#999999", "#882255"),
)


class Curve(NamedTuple):
    """The evaluations of a run, E of them."""

    label: str
    env_step: np.ndarray  # f64[E]
    hours: np.ndarray  # f64[E]
    mean: np.ndarray  # f64[E] return
    std: np.ndarray  # f64[E], over the episodes of an evaluation; of several seeds, over these
    freeze_env_step: float | None  # None: the encoder never froze


def read_curve(logdir: pathlib.Path) -> Curve:
    """Reads a run folder.

    Raises:
        UserError: there is no evaluation in it.
    """
    folders = [logdir] if (logdir / "eval.csv").is_file() else sorted(logdir.glob("seed*"))
    runs = [rows for folder in folders if (rows := _read_evaluations(folder / "eval.csv"))]
    if not runs:
        raise UserError(
            f"{logdir} has no evaluation to draw: its eval.csv is missing or empty. Give the "
            "folder of a run (its --logdir) that has evaluated at least once."
        )
    ends, seeds = min(map(len, runs)), len(runs)

    def column(name: str) -> np.ndarray:
        return np.array([[float(row[name]) for row in rows[:ends]] for rows in runs])

    returns, name = column("return"), logdir.resolve().name
    return Curve(
        label=f"{name} ({seeds} seeds)" if seeds > 1 else name,
        env_step=column("env_step")[0],
        hours=column("hours")[0],
        mean=returns.mean(axis=0),
        std=returns.std(axis=0) if seeds > 1 else column("return_std")[0],
        freeze_env_step=_read_freeze(folders[0] / "metrics.jsonl"),
    )


def _read_evaluations(path: pathlib.Path) -> list[dict[str, str]]:
    """Whole rows; a run that was killed, or still goes on, may leave a last one that is none."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if None not in row.values()]


def draw(curves: Sequence[Curve]) -> matplotlib.figure.Figure:
    """One figure of two panels; a diamond on each curve marks its freeze."""
    figure = matplotlib.figure.Figure(figsize=(9, 3.6), layout="constrained")
    by_step, by_hours = figure.subplots(1, 2, sharey=True)
    for i, curve in enumerate(curves):
        colour = COLOURS[i % len(COLOURS)]
        for axes, x in ((by_step, curve.env_step), (by_hours, curve.hours)):
            low, high = curve.mean - curve.std, curve.mean + curve.std
            axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
            axes.plot(x, curve.mean, color=colour, linewidth=1.8, label=curve.label)
            if curve.freeze_env_step is not None:
                axes.plot(
                    np.interp(curve.freeze_env_step, curve.env_step, x),
                    np.interp(curve.freeze_env_step, curve.env_step, curve.mean),
                    marker="D",
                    markersize=7,
                    markerfacecolor="white",
                    markeredgecolor=colour,
                    markeredgewidth=1.8,
                    zorder=3,
                )
    if any(curve.freeze_env_step is not None for curve in curves):
        # Of no run's colour, and outside the data: for the legend alone.
        by_step.plot([], [], "D", mfc="white", mec="0.3", mew=1.8, label="encoder frozen")

    by_step.set_xlabel("environment steps")
    by_step.xaxis.set_major_formatter(matplotlib.ticker.EngFormatter(sep=""))
    by_hours.set_xlabel("wall-clock hours")
    by_step.set_ylabel("evaluation return")
    for axes in (by_step, by_hours):
        plain(axes)
        axes.set_ylim(bottom=min(0.0, *(curve.mean.min() for curve in curves)))
    by_step.legend(frameon=False, loc="best")
    return figure


def plain(axes: matplotlib.axes.Axes) -> None:
    """How panels of curves look in every figure here."""
    axes.set_xlim(left=0)
    axes.grid(axis="y", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)


def _read_freeze(path: pathlib.Path) -> float | None:
    """The env step of the freeze, from the first line that has one."""
    if not path.is_file():
        return None
    with path.open() as file:
        for line in file:
            if '"freeze/step"' not in line or not line.endswith("\n"):
                continue
            metrics = json.loads(line)
            if metrics["freeze/step"] is not None:
                action_repeat = metrics["env_step"] / max(metrics["step"], 1)
                return metrics["freeze/step"] * action_repeat
    return None


def save(figure: matplotlib.figure.Figure, out: pathlib.Path, dpi: int) -> None:
    """Writes a figure and says where.

    Raises:
        UserError: if it cannot be written.
    """
    if not out.suffix:
        raise UserError(f"{out} must end in a format, as .png or .pdf.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=dpi)
    except (OSError, ValueError) as error:  # the latter for an ending that is no format
        raise UserError(f"{out} cannot be written: {error}") from error
    print(f"wrote {out}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("logdir", nargs="+", type=pathlib.Path, help="run folder")
    parser.add_argument(
        "--out", type=pathlib.Path, help="picture to write (default: LOGDIR/curve.png)"
    )
    options = parser.parse_args(arguments)
    out = options.out or options.logdir[0] / "curve.png"
    try:
        save(draw([read_curve(logdir) for logdir in options.logdir]), out, dpi=160)
    except UserError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
