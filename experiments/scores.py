"""Scores on Atari beside those of random play, of a human and of published agents, as Markdown.

    python -m experiments.scores experiments/results/freeze_or_never_*_atari100k.csv

A row for each game and method: the score at the end of each run, in the order of the seeds, and
means over the runs of it and of what they cost. DER is data-efficient Rainbow after 100,000 steps,
as its papers evaluate it: n-step 10 and prioritised replay, where SEER has n-step 20 and uniform
replay.
"""

import argparse
import pathlib
import statistics
from collections.abc import Iterator

from benchmarks.report import table
from experiments import study
from seer_jax.envs.atari import REFERENCE_SCORES

PUBLISHED = pathlib.Path(__file__).parent / "published" / "atari100k.csv"


def rows_of(results: list[dict[str, str]]) -> Iterator[list[str]]:
    """Cells of each game and method; results of other tasks are left out."""
    with_scores = [row for row in results if row["task"] in REFERENCE_SCORES]
    published = {row["game"]: row for row in study.read(PUBLISHED)}
    for game, method in sorted({(row["task"], row["method"]) for row in with_scores}):
        ours = [row for row in with_scores if (row["task"], row["method"]) == (game, method)]
        last: dict[int, dict[str, str]] = {}  # by seed
        for row in sorted(ours, key=lambda row: (int(row["seed"]), int(row["step"]))):
            last[int(row["seed"])] = row
        mean = lambda name: statistics.mean(float(row[name]) for row in last.values())  # noqa: B023
        random, human = REFERENCE_SCORES[game]
        yield [
            *(game, method, " ".join(f"{float(row['return']):,.0f}" for row in last.values())),
            f"{mean('return'):,.0f}",
            f"{(mean('return') - random) / (human - random):.2f}",
            *(f"{random:,.0f}", f"{human:,.0f}"),
            f"{float(published[game]['der']):,.0f}" if game in published else "",
            *(f"{mean('hours') * 60:.0f}", f"{mean('flops'):.1e}"),
            f"{mean('replay_bytes') / 2**20:.0f}",
        ]


def main(argv: list[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="+", type=pathlib.Path, help="CSV file of a study")
    args = parser.parse_args(argv)
    rows = [*rows_of([row for path in args.results for row in study.read(path)])]
    if not rows:
        parser.error(f"no scores of Atari games in {', '.join(map(str, args.results))}")
    header = ["game", "method", "score by seed", "mean", "of human", "random", "human", "DER"]
    print(*table([*header, "minutes", "FLOPs", "replay MiB"], rows), sep="\n")


if __name__ == "__main__":
    main()
