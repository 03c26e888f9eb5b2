"""README and docs/results.md quote what the committed runs of freeze_or_never say."""

import pathlib
import re

import pytest

from experiments import plot, scores, study

ROOT = pathlib.Path(__file__).parents[1]
README, RESULTS = (
    " ".join((ROOT / name).read_text().split()) for name in ("README.md", "docs/results.md")
)


TASKS = {
    "quick": (
        *("ball_in_cup_catch", "cartpole_swingup", "cheetah_run", "finger_spin", "reacher_easy"),
        "walker_walk",
    ),
    "atari100k": ("CrazyClimber", "Krull", "RoadRunner"),
}


def runs(*presets):
    """Rows of the study by these presets, of the two methods that every task has."""
    folder = ROOT / "experiments" / "results"
    names = [f"freeze_or_never_{task}_{preset}.csv" for preset in presets for task in TASKS[preset]]
    rows = study.read_all([folder / name for name in names])
    return [row for row in rows if row["method"] in ("freeze", "never")]


def summed_up(*presets):
    """Of both methods FLOPs and "0.37 (0.29 to 0.46)", and the probability written so too."""
    lines = plot.summary(runs(*presets))[1:]
    frozen, never, better = re.findall(r"(\d\.\d\d) (\(.*?\)) ", " ".join(lines) + " ")
    flops = [float(line.split()[2]) for line in lines]
    return flops, " ".join(frozen), " ".join(never), " ".join(better)


def test_all_tasks_together():
    flops, frozen, never, better = summed_up("quick", "atari100k")
    for name, each, quoted in zip(("frozen", "never"), flops, (frozen, never), strict=True):
        cells = quoted.replace(" (", " | ", 1).strip(")")
        assert f"| {name} | {cells} | {f'{each:.1e}'.replace('+', '')} |" in RESULTS
    share = f"{flops[0] / flops[1]:.2f}"
    assert f"with a probability of {better}" in RESULTS and f"for {share} of the FLOPs" in RESULTS
    assert f"| {frozen} | {never}, never frozen | {share}: " in README


@pytest.mark.parametrize(("preset", "name"), [("quick", "suite"), ("atari100k", "Atari")])
def test_each_suite(preset, name):
    (ours, theirs), frozen, never, better = summed_up(preset)
    share = f"{ours / theirs:.2f}"
    assert f"{name} {share}" in README
    found = f"{frozen} and {never}, for {share} of the FLOPs, with a probability of {better}"
    assert found in RESULTS


def test_returns_by_seed():
    rows = runs("quick")
    for task, method in sorted({(row["task"], row["method"]) for row in rows}):
        finals = plot.curves(rows, task, method).returns[:, -1]
        assert " | ".join(f"{x:.0f}" for x in finals) in RESULTS, (task, method)
    for game, method, by_seed, mean, *_ in scores.rows_of(runs("atari100k")):
        assert f"| {by_seed} | {mean} |" in RESULTS, (game, method)
