"""Figure and summary of studies: what their files under experiments/results say.

    python -m experiments.plot experiments/results/ablations_cartpole_swingup_quick.csv
    python -m experiments.plot FILE ... --methods quick never --published curl --out figure.png

Draws return against environment steps, FLOPs and minutes, a row of panels for each task (or
those of --against; minutes say little of runs that shared their cores with other work): the mean
over seeds with a 95% bootstrap interval (of two or three seeds that is from the least to the
most), each seed as a thin line, and a diamond wherever the encoder of one froze. Then prints, over
all tasks, the interquartile mean of the normalised return at the last step that all methods have
got to, and how probable it is that the first method does better, both with 95% intervals (Agarwal
et al. 2021, arXiv 2108.13264), and what all runs together cost until then. Returns are normalised
by the 1,000 that a task of the suite gives at most, or by human scores.

`rliable`, that paper's library, does nearly the same (here tasks weigh alike, and the middle half
may begin within a run); it has not been released since August 2024 and would bring pandas, seaborn
and statsmodels for these two numbers, so they come from SciPy.
"""

import argparse
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import matplotlib.axes
import matplotlib.figure
import matplotlib.ticker
import numpy as np
from scipy import stats

from experiments import study
from experiments.plot_run import COLOURS, plain, save
from seer_jax.config import is_atari, is_gymnasium
from seer_jax.envs.atari import REFERENCE_SCORES
from seer_jax.types import UserError

# Curves by seed that facebookresearch/drqv2 publishes (its folder curves/, MIT licence).
PUBLISHED = pathlib.Path(__file__).parent / "published" / "dmc_pixels.csv"
_RESAMPLES = 2_000
_X = {"env_step": "environment steps", "flops": "FLOPs", "minutes": "minutes"}

Rows = list[dict[str, str]]


class Curves(NamedTuple):
    """The runs of one method on one task: S seeds, E evaluations at the same steps."""

    x: dict[str, np.ndarray]  # f64[S, E] by name of the axis
    returns: np.ndarray  # f64[S, E]
    replay_bytes: np.ndarray  # f64[S, E]
    frozen: list[int]  # indices of evaluations that were the first after the freeze, of any seed


def curves(rows: Rows, task: str, method: str) -> Curves:
    """Curves of one method on one task, as far as all of its seeds have got.

    Raises:
        UserError: if seeds are there twice, or were evaluated at different steps.
    """
    ours = [row for row in rows if (row["task"], row["method"]) == (task, method)]
    seeds = sorted({row["seed"] for row in ours}, key=int)
    if len({(row["seed"], row["step"]) for row in ours}) < len(ours):
        raise UserError(f"Two files have runs of {method} on {task} with the same seed: name one.")
    runs = [[row for row in ours if row["seed"] == seed] for seed in seeds]
    ends = min(map(len, runs))
    column = lambda name: np.array([[float(row[name]) for row in run[:ends]] for run in runs])
    x = {"env_step": column("env_step"), "flops": column("flops"), "minutes": column("hours") * 60}
    if (x["env_step"] != x["env_step"][0]).any():
        raise UserError(
            f"Seeds of {method} on {task} were evaluated at different steps: name one file, or run "
            "them with the same --eval_every."
        )
    replay_bytes = column("replay_bytes")
    commands = [run[0].get("command", "") for run in runs]
    freezes = [_frozen(*each) for each in zip(commands, replay_bytes, strict=True)]
    frozen = sorted({at for at in freezes if at is not None})
    return Curves(x, column("return"), replay_bytes, frozen)


def _frozen(command: str, replay_bytes: np.ndarray) -> int | None:
    """Which evaluation f64[E] of a run was the first after its freeze, None if it did not freeze.
    Replay has other rows then, and so another size; so has that of a run made longer."""
    differs = replay_bytes != replay_bytes[0]
    if "--freeze_step=never" in command or not (differs.any() or "--freeze_step=0" in command):
        return None
    return int(np.argmax(differs))


def interval(
    samples: Sequence[np.ndarray], statistic: Callable[..., Any]
) -> tuple[np.ndarray, np.ndarray]:
    """The 95% percentile interval of a statistic, each sample resampled by itself."""
    result = stats.bootstrap(
        samples,
        statistic,
        n_resamples=_RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return result.confidence_interval.low, result.confidence_interval.high


def draw(
    rows: Rows, published: Sequence[str] = (), against: Sequence[str] = tuple(_X)
) -> matplotlib.figure.Figure:
    """A row of panels for each task, a column for each quantity of `against`; `published` names
    methods drawn beside ours, dashed."""
    tasks = sorted({row["task"] for row in rows})
    size = 4 * len(against), 3.6 * len(tasks)
    figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(tasks), len(against), sharey="row", squeeze=False)
    for task, row_of_panels in zip(tasks, panels, strict=True):
        methods = dict.fromkeys(row["method"] for row in rows if row["task"] == task)
        if len(methods) > len(COLOURS):
            raise UserError(f"{len(methods)} methods are too many: {len(COLOURS)} have a colour.")
        by_method = {method: curves(rows, task, method) for method in methods}
        for axes, name in zip(row_of_panels, against, strict=True):
            for (method, found), colour in zip(by_method.items(), COLOURS, strict=False):
                _draw_method(axes, method, found, name, colour)
            if name == "env_step":
                _draw_published(axes, published, task, by_method)
            axes.set_xlabel(_X[name])
            plain(axes)
            axes.set_ylim(bottom=min(0.0, *(found.returns.min() for found in by_method.values())))
            axes.xaxis.set_major_formatter(matplotlib.ticker.EngFormatter(sep=""))
        first = row_of_panels[0]
        first.set_title(task, loc="left")
        first.set_ylabel("return")
        if any(found.frozen for found in by_method.values()):
            # Of no method's colour, and outside the data: for the legend alone.
            first.plot([], [], "D", mfc="white", mec="0.3", mew=1.8, label="encoder frozen")
        first.legend(frameon=False, loc="best")
    return figure


def _draw_method(
    axes: matplotlib.axes.Axes, method: str, found: Curves, name: str, colour: str
) -> None:
    x, mean = found.x[name].mean(axis=0), found.returns.mean(axis=0)
    for seed_x, seed_returns in zip(found.x[name], found.returns, strict=True):
        axes.plot(seed_x, seed_returns, color=colour, linewidth=0.7, alpha=0.4)
    if len(found.returns) > 1:
        low, high = interval((found.returns,), lambda x, axis: np.mean(x, axis=axis))
        axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
    count = len(found.returns)
    label = f"{method} ({count} seed{'s' * (count > 1)})"
    axes.plot(x, mean, color=colour, linewidth=2, label=label)
    if at := found.frozen:  # around a line without points, not clipped, there is no layout
        diamonds = axes.plot(x[at], mean[at], "D", ms=7, mfc="white", mec=colour, mew=1.8, zorder=3)
        diamonds[0].set_clip_on(False)  # whole at step 0 too


def _draw_published(
    axes: matplotlib.axes.Axes, published: Sequence[str], task: str, ours: dict[str, Curves]
) -> None:
    last = max(found.x["env_step"].max() for found in ours.values())
    for method, grey in zip(published, ("0.35", "0.6", "0.75"), strict=False):
        steps, mean = read_published(method, task, last)
        axes.plot(steps, mean, "--", color=grey, linewidth=1.4, label=f"{method} (published)")


def read_published(method: str, task: str, last: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean published curve: env steps up to `last`, and returns.

    Raises:
        UserError: if none is published.
    """
    found = [r for r in study.read(PUBLISHED) if (r["method"], r["task"]) == (method, task)]
    if not found:
        raise UserError(f"{PUBLISHED.name} has no curve of {method} on {task}.")
    steps = sorted({int(row["env_step"]) for row in found if int(row["env_step"]) <= last})
    at = lambda step: [float(row["return"]) for row in found if int(row["env_step"]) == step]
    return np.array(steps), np.array([np.mean(at(step)) for step in steps])


def normalised(task: str, returns: np.ndarray) -> np.ndarray:
    """Returns of a task on a scale that tasks share.

    Raises:
        UserError: if there is none.
    """
    if is_gymnasium(task) or (is_atari(task) and task not in REFERENCE_SCORES):
        raise UserError(f"There are no scores to normalise returns of {task} by.")
    low, high = REFERENCE_SCORES[task] if is_atari(task) else (0.0, 1_000.0)
    return (returns - low) / (high - low)


def summary(rows: Rows) -> list[str]:
    """A line for each method, over the tasks that all methods have run."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    run = {(row["task"], row["method"]) for row in rows}
    tasks = sorted({task for task, _ in run if all((task, method) in run for method in methods)})
    if not tasks:
        raise UserError("There is no task that all these methods have run.")
    final: dict[str, list[np.ndarray]] = {method: [] for method in methods}
    flops = dict.fromkeys(methods, 0.0)
    for task in tasks:
        found = {method: curves(rows, task, method) for method in methods}
        last = min(each.x["env_step"].max() for each in found.values())  # that all have got to
        for method, each in found.items():
            at = np.flatnonzero(each.x["env_step"][0] <= last)[-1]
            final[method].append(normalised(task, each.returns[:, at]))
            flops[method] += each.x["flops"][:, at].sum()
    width = 2 + max(map(len, methods))
    lines = [
        f"{'':{width}}{'runs':>5}{'FLOPs':>10}{'IQM of normalised return':>30}"
        f"{f'P({methods[0]} better)':>26}"
    ]
    for method in methods:
        middle = float(interquartile_mean(*final[method], axis=-1))
        line = f"{method:{width}}{sum(map(len, final[method])):5}{flops[method]:10.2e}"
        line += f"{middle:14.2f} {_between(final[method], interquartile_mean):15}"
        if method != methods[0]:
            pairs = [*final[methods[0]], *final[method]]
            line += f"{improvement(*pairs, axis=-1):11.2f} {_between(pairs, improvement):14}"
        lines.append(line)
    return lines


def interquartile_mean(*by_task: np.ndarray, axis: int) -> np.ndarray:
    """Mean of the middle half of all runs, each task with the same weight, however many it has."""
    assert axis == -1
    runs = np.concatenate(by_task, axis=-1)
    weight = np.concatenate([np.full(x.shape, 1 / x.shape[-1]) for x in by_task], axis=-1)
    order = np.argsort(runs, axis=-1)
    runs, weight = (np.take_along_axis(x, order, -1) for x in (runs, weight))
    weight /= len(by_task)
    end = np.cumsum(weight, axis=-1)
    inside = np.clip(end, 0.25, 0.75) - np.clip(end - weight, 0.25, 0.75)
    return np.asarray(np.sum(runs * inside, axis=-1) / 0.5)


def improvement(*by_task: np.ndarray, axis: int) -> np.ndarray:
    """Probability that a run of the first half of the samples beats one of its task in the other
    half, mean over tasks; a tie counts half."""
    assert axis == -1
    half = len(by_task) // 2
    wins = []
    for ours, theirs in zip(by_task[:half], by_task[half:], strict=True):
        difference = ours[..., :, None] - theirs[..., None, :]
        wins.append(np.mean((np.sign(difference) + 1) / 2, axis=(-2, -1)))
    return np.asarray(np.mean(wins, axis=0))


def _between(samples: Sequence[np.ndarray], statistic: Callable[..., Any]) -> str:
    if min(map(len, samples)) < 2:
        return "(one seed)"
    low, high = interval(samples, statistic)
    return f"({low:.2f} to {high:.2f})"


def main(argv: list[str] | None = None) -> None:
    """Draws the figure and prints the summary."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="+", type=pathlib.Path, help="CSV file of a study")
    parser.add_argument("--methods", nargs="+", help="of all that the files have")
    parser.add_argument("--published", nargs="*", choices=("sac", "curl", "drqv2"), default=[])
    parser.add_argument("--against", nargs="+", choices=_X, default=[*_X], help="panels")
    parser.add_argument("--out", type=pathlib.Path, help="default: here, named as the first file")
    args = parser.parse_args(argv)
    if args.published and args.against[0] != "env_step":
        parser.error("--published is drawn against environment steps: --against must begin so")
    out = args.out or pathlib.Path(args.results[0].stem + ".png")
    try:
        rows = study.read_all(args.results)
        if not rows:
            parser.error(f"no results in {', '.join(map(str, args.results))}: run the study first")
        if args.methods:
            known = dict.fromkeys(row["method"] for row in rows)
            if unknown := set(args.methods) - set(known):
                parser.error(
                    f"no runs of {', '.join(sorted(unknown))}; there are {', '.join(known)}"
                )
            rows = [row for row in rows if row["method"] in args.methods]
            rows.sort(key=lambda row: args.methods.index(row["method"]))
        save(draw(rows, args.published, args.against), out, dpi=130)
        try:
            print(*summary(rows), sep="\n")
        except UserError as error:  # the figure is worth having by itself
            print(error)
    except UserError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
