"""Scores on Atari beside those of random play, of a human and of published agents, as Markdown.

    python -m experiments.scores experiments/results/freeze_or_never_*_atari100k.csv

A row for each game and method: the score at the end of each run, in the order of the seeds, and
means over the runs of it, of those of the last three evaluations, and of what they cost. DER is
data-efficient Rainbow after 100,000 steps as published: with prioritised replay, where SEER's is
uniform. SEER's own published scores, in the last column, are those of 500,000 steps.
"""

import argparse
import pathlib
from collections.abc import Iterator

import numpy as np

from benchmarks.report import table
from experiments import plot, study
from seer_jax.envs.atari import REFERENCE_SCORES
from seer_jax.types import UserError

PUBLISHED = pathlib.Path(__file__).parent / "published" / "atari100k.csv"


def rows_of(results: plot.Rows) -> Iterator[list[str]]:
    """Cells of each game and method; results of other tasks are left out.

    Raises:
        UserError: if there are two runs of the same seed.
    """
    published = {row["game"]: row for row in study.read(PUBLISHED)}
    runs = {(row["task"], row["method"]) for row in results if row["task"] in REFERENCE_SCORES}
    for game, method in sorted(runs):
        found = plot.curves(results, game, method)
        scores = found.returns[:, -1]
        score = np.mean(scores)
        minutes, flops = (np.mean(found.x[name][:, -1]) for name in ("minutes", "flops"))
        random, human = REFERENCE_SCORES[game]
        yield [
            *(game, method, " ".join(f"{each:,.0f}" for each in scores)),
            *(f"{score:,.0f}", f"{np.mean(found.returns[:, -3:]):,.0f}"),
            f"{plot.normalised(game, score):.2f}",
            *(f"{random:,.0f}", f"{human:,.0f}"),
            f"{float(published[game]['der']):,.0f}" if game in published else "",
            *(f"{minutes:.0f}", f"{flops:.1e}"),
            f"{np.mean(found.replay_bytes[:, -1]) / 2**20:.0f}",
            f"{float(published[game]['seer_rainbow_500k']):,.0f}" if game in published else "",
        ]


def main(argv: list[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="+", type=pathlib.Path, help="CSV file of a study")
    args = parser.parse_args(argv)
    try:
        rows = [*rows_of(study.read_all(args.results))]
    except UserError as error:
        parser.error(str(error))
    if not rows:
        parser.error(f"no scores of Atari games in {', '.join(map(str, args.results))}")
    header = ["game", "method", "score by seed", "mean", "of last 3", "of human", "random", "human"]
    cost = ["minutes", "FLOPs", "replay MiB"]
    print(*table([*header, "DER", *cost, "SEER, 500k"], rows), sep="\n")


if __name__ == "__main__":
    main()
