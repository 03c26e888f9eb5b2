"""Does freezing cost return, and what does it save? The same runs with a freeze and without.

    python -m experiments.freeze_or_never --seeds 0 1 2 --jobs 2

Trains the `quick` preset on cartpole_swingup, each seed once as it is and once with
--freeze_step=never. With --jobs=2 two runs go on side by side, each held to one core, so that
wall-clock times compare. Interrupted, the same command goes on. Writes
experiments/results/freeze_or_never.csv (every evaluation of every run) and .json (machine,
versions, commit, command), and prints the table.
"""

import argparse
import concurrent.futures
import csv
import json
import os
import pathlib
import queue
import statistics
import subprocess
import sys

from benchmarks import measure

RESULTS = pathlib.Path(__file__).parent / "results"
COLUMNS = ("method", "task", "seed", "step", "env_step", "return") + (
    "flops",
    "replay_bytes",
    "hours",
)
METHODS: dict[str, list[str]] = {"freeze": [], "never": ["--freeze_step=never"]}


def train(task: str, method: str, seed: int, folder: pathlib.Path, core: int | None) -> None:
    """One run in a process of its own, held to one core if one is named."""
    logdir = folder / f"{task}-{method}-s{seed}"
    command = [sys.executable, "-m", "seer_jax.run", "--preset=quick", f"--task={task}"]
    command += [f"--seed={seed}", f"--logdir={logdir}", "--no-video", *METHODS[method]]
    hold = None if core is None else lambda: os.sched_setaffinity(0, {core})
    logdir.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{logdir}.log", "a", encoding="utf-8") as log:
        subprocess.run(command, stdout=log, stderr=log, check=True, preexec_fn=hold)


def collect(task: str, seeds: list[int], folder: pathlib.Path) -> list[dict[str, str]]:
    """Every evaluation of every run, from the runs' eval.csv."""
    rows = []
    for method in METHODS:
        for seed in seeds:
            with open(folder / f"{task}-{method}-s{seed}" / "eval.csv", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    row |= {"method": method, "task": task, "seed": str(seed)}
                    rows.append({name: row[name] for name in COLUMNS})
    return rows


def print_table(rows: list[dict[str, str]]) -> None:
    """Mean and spread over seeds of the last evaluation of each run."""
    print(f"{'':8}{'return':>16}{'minutes':>9}{'FLOPs':>11}{'replay MiB':>12}")
    for method in METHODS:
        last = {row["seed"]: row for row in rows if row["method"] == method}
        means = {
            name: statistics.mean(float(row[name]) for row in last.values())
            for name in ("return", "hours", "flops", "replay_bytes")
        }
        spread = statistics.pstdev(float(row["return"]) for row in last.values())
        print(
            f"{method:8}{means['return']:9.1f} ± {spread:4.1f}{means['hours'] * 60:9.1f}"
            f"{means['flops']:11.2e}{means['replay_bytes'] / 2**20:12.1f}"
        )


def main(argv: list[str] | None = None) -> None:
    """Runs what is missing, then collects and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="cartpole_swingup")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/freeze_or_never"))
    args = parser.parse_args(argv)
    free: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    for core in sorted(os.sched_getaffinity(0))[: args.jobs] if args.jobs > 1 else [None]:
        free.put(core)

    def job(method: str, seed: int) -> None:
        core = free.get()
        try:
            train(args.task, method, seed, args.folder, core)
        finally:
            free.put(core)

    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        jobs = [pool.submit(job, method, seed) for seed in args.seeds for method in METHODS]
        for done in concurrent.futures.as_completed(jobs):
            done.result()

    rows = collect(args.task, args.seeds, args.folder)
    RESULTS.mkdir(exist_ok=True)
    with open(RESULTS / "freeze_or_never.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    command = "python -m experiments.freeze_or_never " + " ".join(argv or sys.argv[1:])
    context = {"command": command, "jobs": args.jobs, "machine": measure.machine()}
    (RESULTS / "freeze_or_never.json").write_text(json.dumps(context, indent=2) + "\n")
    print_table(rows)


if __name__ == "__main__":
    main()
