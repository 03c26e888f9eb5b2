"""How the cost of an update grows: with batch, latent width, K, capacity, seeds and encoder depth.

    python -m benchmarks.growth --json=growth.json --picture=docs/images/growth.png

Each is varied alone, about the sizes of the preset `quick` on cartpole_swingup, with the whole
encoder frozen and float32 latents as in the paper. Measured are the seconds of an update of all
learners, out of full replays, before the freeze and after it, and counted are the bytes of those
replays. In the picture dotted lines are in proportion to what is varied.
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import matplotlib.axes
import matplotlib.backend_bases
import matplotlib.figure
import matplotlib.ticker

from benchmarks import measure
from benchmarks.loop import PHASES, opened_run, parts
from benchmarks.update import filled
from experiments.plot_run import COLOURS, plain
from seer_jax import build, presets
from seer_jax import replay as replay_lib
from seer_jax.agents import curl_sac
from seer_jax.config import Config

AXES = {
    "batch_size": (16, 32, 64, 128, 256),
    "latent_size": (25, 50, 100, 200, 400),
    "num_copies": (1, 2, 4, 8),
    "replay_capacity": (1_000, 4_000, 16_000, 64_000),
    "num_seeds": (1, 2, 4, 8),
    "convolutions": (1, 2, 3, 4, 5),
}
_ROWS = 600  # of real frames, for the freeze to encode
_UPDATES = {"pixels": 2, "latents": 10}  # a sample; even, as the actor takes every second step


def base() -> Config:
    """The configuration about which everything is varied."""
    config = presets.for_task("cartpole_swingup", "quick")
    assert isinstance(config.agent, curl_sac.Config)
    return dataclasses.replace(
        config,
        num_steps=1_000_000,  # so that no replay is cut to what the run can fill
        freeze_step=500_000,
        learning_starts=_ROWS + 1,
        latent_dtype="float32",
        agent=dataclasses.replace(config.agent, frozen_depth="projection"),
    )


def varied(config: Config, axis: str, value: int) -> Config:
    """The configuration with one size changed."""
    agent = config.agent
    assert isinstance(agent, curl_sac.Config)
    if axis == "latent_size":
        return dataclasses.replace(config, agent=dataclasses.replace(agent, latent_size=value))
    if axis == "convolutions":
        strides = (agent.strides[0], *(1,) * (value - 1))
        return dataclasses.replace(config, agent=dataclasses.replace(agent, strides=strides))
    change: dict[str, Any] = {axis: value}
    return dataclasses.replace(config, **change)


def measure_point(name: str, config: Config, repeats: int) -> Iterator[dict[str, Any]]:
    """Records of both phases at one point."""
    with opened_run(config, build.make_env(config)) as run:
        while run.progress.step < _ROWS:
            run.step()
        flops = run.agent.flops
        of_update = (flops.update, flops.update_frozen)
        for phase, replay, cost in zip(PHASES, run.plan, of_update, strict=True):
            if phase == "latents":
                run.freeze()
            run.replay = filled(run.replay)
            updates = _UPDATES[phase]
            learn = parts(run, updates)["learn"]
            timing = measure.interleaved({phase: learn}, repeats)[phase]
            yield measure.record(f"{name}/{phase}", timing, updates) | {
                "analytic_flops": cost * config.batch_size * config.num_seeds,
                # As many rows in both phases, each of all learners.
                "replay_bytes": config.replay_capacity * replay_lib.row_bytes(replay.row),
            }


def draw(records: list[dict[str, Any]]) -> matplotlib.figure.Figure:
    """Seconds above, bytes below, a column for each axis."""
    axes_of_records = list(dict.fromkeys(record["name"].split("/")[0] for record in records))
    figure = matplotlib.figure.Figure(figsize=(2.6 * len(axes_of_records), 5), layout="constrained")
    panels = figure.subplots(2, len(axes_of_records), sharey="row", squeeze=False)
    for column, axis in enumerate(axes_of_records):
        for axes, quantity in zip(panels[:, column], ("value", "replay_bytes"), strict=True):
            for phase, colour in zip(PHASES, COLOURS, strict=False):
                ours = [r for r in records if r["name"].split("/")[::2] == [axis, phase]]
                x = [int(record["name"].split("/")[1]) for record in ours]
                y = [record[quantity] for record in ours]
                axes.plot(x, y, "o-", ms=4, color=colour, label=phase)
                in_proportion = [y[-1] * value / x[-1] for value in x]
                axes.plot(x, in_proportion, ":", color=colour, linewidth=1)
            _logarithmic(axes, x)
        panels[1, column].set_xlabel(axis)
    panels[0, 0].set_ylabel("seconds of an update")
    panels[1, 0].set_ylabel("bytes of replay")
    panels[0, 0].legend(frameon=False)
    return figure


def _logarithmic(axes: matplotlib.axes.Axes, ticks: list[int]) -> None:
    plain(axes)
    axes.set_xscale("log")
    axes.set_xlim(ticks[0] / 1.2, ticks[-1] * 1.2)
    axes.set_yscale("log")
    axes.set_xticks(ticks, labels=[f"{tick:,}" for tick in ticks])
    axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    axes.yaxis.set_major_formatter(matplotlib.ticker.EngFormatter(sep=""))


def _picture(text: str) -> str:
    """A flag's file to draw to."""
    formats = matplotlib.backend_bases.FigureCanvasBase.get_supported_filetypes()
    if pathlib.Path(text).suffix[1:] not in formats:
        raise argparse.ArgumentTypeError(f"{text} must end in a format, as .png or .pdf")
    return measure.new_file(text)


@measure.plain_refusals
def main(argv: list[str] | None = None) -> None:
    """Prints the table, writes the records and draws them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--axes", nargs="+", choices=AXES, default=[*AXES])
    measure.add_arguments(parser, repeats=7)
    parser.add_argument("--picture", type=_picture, help="file to draw them to")
    args = parser.parse_args(argv)
    config = base()
    command = measure.command("benchmarks.growth", argv)
    records = []
    print(f"{'':28}{'ms':>9}{'GFLOP/s':>9}{'replay MiB':>12}")
    for axis in args.axes:
        for value in AXES[axis]:
            point = varied(config, axis, value)
            for record in measure_point(f"{axis}/{value}", point, args.repeats):
                records.append(record)
                print(
                    f"{record['name']:28}{record['value'] * 1e3:9.2f}"
                    f"{record['analytic_flops'] / record['value'] / 1e9:9.1f}"
                    f"{record['replay_bytes'] / 2**20:12.1f}"
                )
            if args.json:  # at every point: the last ones take minutes and gigabytes
                measure.write_json(args.json, command, records, config=dataclasses.asdict(config))
    if args.picture:
        draw(records).savefig(args.picture, dpi=110)


if __name__ == "__main__":
    main()
