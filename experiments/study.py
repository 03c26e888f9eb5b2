"""What every study shares: the same runs by several methods, made once and kept as data.

    python -m experiments.STUDY --task=TASK --seeds 0 1 2 --jobs 2

With --jobs=2 two runs go on side by side, each held to one core, so that wall-clock times compare.
With --together one process trains all seeds of a method, which on an accelerator is quickest; hours
are then those of all. Every run that ends is added to experiments/results/STUDY_TASK_PRESET.csv: a
row for each of its evaluations, with commit, versions, hardware and command. Runs that are there
already are not repeated, and an interrupted one goes on from its last checkpoint. Then the table is
printed. Flags that a study does not know go to seer_jax.run.
"""

import argparse
import concurrent.futures
import contextlib
import csv
import dataclasses
import fcntl
import functools
import json
import math
import os
import pathlib
import queue
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence

from benchmarks import measure
from seer_jax import config as config_lib
from seer_jax import run as run_lib
from seer_jax import transfer
from seer_jax.config import Config
from seer_jax.types import UserError

RESULTS = pathlib.Path(__file__).parent / "results"
MEASURED = ("step", "env_step", "return", "return_std", "flops", "replay_bytes", "hours")
_ORIGIN = ("commit", "versions", "hardware")
CONTEXT = (*_ORIGIN, "command")
COLUMNS = ("method", "task", "seed", *MEASURED, *CONTEXT)
_ALL = 1_000_000  # checkpoints
_RUN = ["python", "-m", "seer_jax.run"]
_THEN = " then "


@dataclasses.dataclass(frozen=True)
class Study:
    """A question, as runs that differ in a few flags."""

    name: str
    methods: dict[str, list[str]]
    """Flags of seer_jax.run by method."""
    task: str
    """The one that is run if none is named."""
    preset: str
    copies_of: str | None = None
    """A method, if the others differ from it only in when and how they freeze. As runs are the same
    until then, the others begin as copies of its run: best one that freezes late or never."""
    source: str | None = None
    """A task that each seed is trained on first, by the preset; `{source}` in the flags of a method
    is the folder of that run."""


def train(
    command: list[str],
    logdir: pathlib.Path,
    core: int | None,
    under_way: set[subprocess.Popen[bytes]],
) -> None:
    """One run in a process of its own, held to one core if one is named.

    Raises:
        subprocess.CalledProcessError: if it fails.
    """
    logdir.parent.mkdir(parents=True, exist_ok=True)
    cores = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})  # of this thread alone; the process inherits it
    try:
        with open(f"{logdir}.log", "a", encoding="utf-8") as log:
            command = [sys.executable, *command[1:], f"--logdir={logdir}"]
            process = subprocess.Popen(command, stdout=log, stderr=log)
    finally:
        os.sched_setaffinity(0, cores)
    under_way.add(process)
    status = process.wait()
    under_way.remove(process)
    if status:
        raise subprocess.CalledProcessError(status, command)


def copy_until_freeze(source: pathlib.Path, config: Config) -> None:
    """Makes the folder of a run out of another's that is the same until one of the two freezes.

    The copy begins at the newest checkpoint before that, on which it may freeze itself, and from
    the start if there is none.

    Args:
        source: folder of the other run.
        config: of the run to make; nothing happens if its folder is there.
    """
    logdir, freeze_step = pathlib.Path(config.logdir), config.freeze_step
    assert freeze_step != "auto", "what it looks at is only in its own checkpoints"
    if logdir.exists():
        return
    metrics = [json.loads(line) for line in (source / "metrics.jsonl").read_text().splitlines()]
    frozen_at = min((each["step"] for each in metrics if "freeze/step" in each), default=math.inf)
    own = config.num_steps if freeze_step == "never" else freeze_step
    shared = [step for step in _kept(source) if step <= own and step < frozen_at]
    step = max(shared, default=None)
    if step is None:
        return
    copy = logdir.with_name(logdir.name + ".tmp")
    shutil.rmtree(copy, ignore_errors=True)
    checkpoint = pathlib.Path("checkpoints", str(step))
    shutil.copytree(source / checkpoint, copy / checkpoint)
    config_lib.write(config, copy)
    # Where it freezes at once, the copy makes its own evaluation, with the encoder frozen.
    evaluated = step - 1 if step == freeze_step else step
    lines = (source / "eval.csv").read_text().splitlines(keepends=True)
    until = [line for line in lines[1:] if int(line.split(",")[0]) <= evaluated]
    (copy / "eval.csv").write_text("".join(lines[:1] + until))
    with (copy / "metrics.jsonl").open("w") as file:
        for each in metrics:
            evaluates = any(name.startswith("eval/") for name in each)
            if each["step"] <= (evaluated if evaluates else step):
                file.write(json.dumps(each) + "\n")
    _inherit_context(source, logdir)
    copy.rename(logdir)


def _kept(logdir: pathlib.Path) -> list[int]:
    """Steps of the checkpoints of a run."""
    return [int(x.name) for x in (logdir / "checkpoints").glob("*") if x.name.isdigit()]


def context_of(
    logdir: pathlib.Path, command: list[str], cores: int, goes_on: bool
) -> dict[str, str]:
    """Where all that a run measured comes from: `CONTEXT`, kept beside its folder.

    Args:
        logdir: of the run.
        command: that starts it.
        cores: it may use.
        goes_on: whether it has steps to make now. If it does so by another commit than before, or
            than the run that it is a copy of or has its encoder from, both are named, and so with
            versions and hardware. Of a run begun without a study they are unknown.
    """
    file, context = _context_file(logdir), describe(command, cores)
    before: dict[str, str] = {}
    if file.exists():
        before = json.loads(file.read_text())
    elif logdir.exists():
        before = dict.fromkeys(_ORIGIN, "unknown")
    if not goes_on:
        return context | before
    for name in _ORIGIN if before else ():
        known = before[name].split(_THEN)
        context[name] = _THEN.join(known if context[name] in known else [*known, context[name]])
    file.parent.mkdir(parents=True, exist_ok=True)
    measure.write_whole(file, json.dumps(context, indent=2) + "\n")
    return context


def _context_file(logdir: pathlib.Path) -> pathlib.Path:
    return logdir.with_name(logdir.name + ".json")


def _inherit_context(source: pathlib.Path, logdir: pathlib.Path) -> None:
    """Lets a run that begins with something of another begin with its context too."""
    if (context := _context_file(source)).exists():
        shutil.copyfile(context, _context_file(logdir))


def has_ended(config: Config) -> bool:
    """Whether a run has written its last checkpoint and made its last evaluation, which a stop may
    have cut short."""
    logdir = pathlib.Path(config.logdir)
    got_to = [max(_kept(logdir), default=0)]
    for folder in config.folders(logdir):
        if not (folder / "eval.csv").exists():
            return False
        got_to.append(max((int(row["step"]) for row in evaluations(folder)), default=0))
    return min(got_to) >= config.num_steps


def same_run(one: Config, other: Config) -> bool:
    """Whether two configurations make the same run, wherever it and what it takes may lie."""
    of_no_matter = ("logdir", "keep_checkpoints", "encoder_from")
    shared = {name: getattr(other, name) for name in of_no_matter}
    # A source's folder is named for its task, preset and seed.
    ours, theirs = (pathlib.PurePath(x.encoder_from or "").name for x in (one, other))
    return ours == theirs and dataclasses.replace(one, **shared) == other


def describe(command: list[str], cores: int) -> dict[str, str]:
    """Where figures come from that are measured now: `CONTEXT`, the columns beside them."""
    machine = measure.machine(_device())
    versions = " ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return {
        "commit": machine["commit"] + ("+" if machine["dirty"] else ""),
        "versions": f"python {machine['python']} {versions}",
        "hardware": f"{cores} of {machine['cores']} cores of {machine['processor']}"
        if machine["device"] == "cpu"
        else machine["device"],
        "command": shlex.join(command),
    }


@functools.cache
def _device() -> str:
    """What JAX runs on, asked in another process: a TPU serves one alone, and that is the run."""
    ask = "import jax; print(jax.devices()[0].device_kind)"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True)
    if done.returncode:
        raise UserError("JAX finds no device: python -m seer_jax.doctor says what to mend.")
    return done.stdout.strip()


def evaluations(logdir: pathlib.Path) -> list[dict[str, str]]:
    """What a run measured, from its eval.csv."""
    with open(logdir / "eval.csv", encoding="utf-8") as file:
        return [{name: row[name] for name in MEASURED} for row in csv.DictReader(file)]


def _measured(rows: list[dict[str, str]], method: str, seed: int) -> list[dict[str, str]]:
    """What a run measured, from rows of results."""
    found = [row for row in rows if (row["method"], row["seed"]) == (method, str(seed))]
    return [{name: row[name] for name in MEASURED} for row in found]


def read(results: pathlib.Path) -> list[dict[str, str]]:
    """Rows of the runs that have ended, in any session.

    Raises:
        UserError: if it is no CSV file.
    """
    if not results.exists():
        return []
    try:
        with open(results, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{results} cannot be read as a CSV file: {error}") from error


def read_all(files: Sequence[pathlib.Path]) -> list[dict[str, str]]:
    """Rows of several results together.

    Raises:
        UserError: if a file is missing or has something else, as those of
            `experiments.convergence`, or a row is not whole.
    """
    rows = []
    for file in files:
        if not file.exists():
            raise UserError(f"There is no {file}: run the study first.")
        found = read(file)
        if found and set(COLUMNS) - set(found[0]):
            raise UserError(f"{file} does not hold evaluations of runs by method.")
        for number, row in enumerate(found, 1):
            if not _is_whole(row):
                raise UserError(f"Row {number} of {file} is not whole: mend it, or delete its run.")
        rows += found
    return rows


def _is_whole(row: dict[str, str]) -> bool:
    """Whether a row has a text for each column and numbers where they belong."""
    try:
        finite = [math.isfinite(float(row[name])) for name in ("seed", *MEASURED)]
    except (TypeError, ValueError):
        return False
    return all(finite) and None not in (*row, *row.values())


def write(results: pathlib.Path, columns: Sequence[str], rows: list[dict[str, str]]) -> None:
    """Writes results, sorted by what the first column compares, seed and step, so that their order
    does not depend on which run was first; in one move, so that an interrupt loses none."""
    by = columns[0]
    rows = sorted(rows, key=lambda row: (row[by], int(row["seed"]), int(row["step"])))
    results.parent.mkdir(parents=True, exist_ok=True)
    temporary = results.with_suffix(".tmp")
    with open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(results)


@contextlib.contextmanager
def _alone_in(folder: pathlib.Path) -> Iterator[None]:
    """Within, no other study adds to results of this folder."""
    held = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks, as network drives can be
            fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def print_table(study: Study, rows: list[dict[str, str]]) -> None:
    """Mean and spread over seeds of the last evaluation of each run."""
    print(f"{'':20}{'seeds':>6}{'return':>18}{'minutes':>9}{'FLOPs':>11}{'replay MiB':>12}")
    for method in study.methods:
        last = {row["seed"]: row for row in rows if row["method"] == method}
        if not last:
            continue
        means = {
            name: statistics.mean(float(row[name]) for row in last.values())
            for name in ("return", "hours", "flops", "replay_bytes")
        }
        spread = statistics.pstdev(float(row["return"]) for row in last.values())
        print(
            f"{method:20}{len(last):6}{means['return']:10.1f} ± {spread:5.1f}"
            f"{means['hours'] * 60:9.1f}{means['flops']:11.2e}"
            f"{means['replay_bytes'] / 2**20:12.1f}"
        )


@dataclasses.dataclass(frozen=True)
class Runs:
    """The runs of a study on one task: what starts each, and where it lies."""

    study: Study
    task: str
    preset: str
    source: str | None
    shared_flags: list[str]
    """Of seer_jax.run, for all."""
    folder: pathlib.Path

    def logdir(self, method: str, seeds: range) -> pathlib.Path:
        """Of one process, which trains these seeds by a method."""
        # Studies share the runs that their methods are copies of.
        folder = "copies" if method == self.study.copies_of else self.study.name
        name = f"{method}-{self.source}" if self.needs_source([method]) else method
        return self.folder / folder / f"{self.task}-{self.preset}-{name}-{_named(seeds)}"

    def logdir_of_source(self, seeds: range) -> pathlib.Path:
        return self.folder / self.study.name / f"{self.source}-{self.preset}-{_named(seeds)}"

    def flags(self, method: str, seeds: range) -> list[str]:
        """Of seer_jax.run, but for the run folder."""
        own = self.study.methods[method]
        if self.source is not None:
            own = [flag.format(source=self.logdir_of_source(seeds)) for flag in own]
        return self._flags(self.task, seeds) + own

    def flags_of_source(self, seeds: range) -> list[str]:
        assert self.source is not None
        return self._flags(self.source, seeds)

    def needs_source(self, methods: Sequence[str]) -> bool:
        """Whether one of them takes something from a run on the source task."""
        return any("{source}" in flag for name in methods for flag in self.study.methods[name])

    def check(self, methods: Sequence[str], seeds: range) -> None:
        """Raises `UserError` if the flags of one cannot work."""
        source = self.source and run_lib.parse(self.flags_of_source(seeds))
        for method in methods:
            config = run_lib.parse(self.flags(method, seeds))
            if source and self.needs_source([method]):
                transfer.check(source, config)
            if config.seeds != [*seeds]:
                raise UserError(
                    "A study chooses its runs' seeds: give --seeds, with --together for one "
                    "process, not --num_seeds."
                )

    def made(self, row: dict[str, str]) -> bool:
        """Whether a row of results is of the run that the study would make, alone or together
        with other seeds."""
        seed = int(row["seed"])
        ours = run_lib.parse(self.flags(row["method"], range(seed, seed + 1)))
        try:
            theirs = run_lib.parse(shlex.split(row["command"])[len(_RUN) :])
        except (UserError, SystemExit):  # flags of another version
            return False
        alone = dataclasses.replace(theirs, seed=seed, num_seeds=1)
        return row["task"] == self.task and seed in theirs.seeds and same_run(alone, ours)

    def _flags(self, task: str, seeds: range) -> list[str]:
        own = [f"--task={task}", f"--preset={self.preset}", f"--seed={seeds[0]}", "--no-video"]
        if len(seeds) > 1:
            own.append(f"--num_seeds={len(seeds)}")
        return own + self.shared_flags


def _named(seeds: range) -> str:
    return f"s{seeds[0]}" + f"-{seeds[-1]}" * (len(seeds) > 1)


def processes(runs: Sequence[tuple[str, int]], together: bool) -> list[tuple[list[str], range]]:
    """Runs to make, each a method and a seed, as methods and the seeds of a process of each: one
    seed, or `together` all of the method's that follow each other."""
    if not together:
        seeds = dict.fromkeys(seed for _, seed in runs)
        return [([m for m, s in runs if s == seed], range(seed, seed + 1)) for seed in seeds]
    found: list[tuple[list[str], range]] = []
    for method, seed in sorted(runs):
        if found and found[-1][0] == [method] and found[-1][1].stop == seed:
            found[-1] = [method], range(found[-1][1].start, seed + 1)
        else:
            found.append(([method], range(seed, seed + 1)))
    return found


def _check_writable(folder: pathlib.Path) -> None:
    """Makes a folder, if it is not there. Raises `UserError` if nothing can be written to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written to ({error.strerror}): name another --folder or --results."
        ) from error


def _check_folder(config: Config) -> None:
    """Raises `UserError` if the folder of a run holds another one that has ended."""
    logdir = pathlib.Path(config.logdir)
    if has_ended(config) and not same_run(config_lib.read(logdir), config):
        raise UserError(f"{logdir} holds a run made with other flags: name another --folder.")


def _check_held(configs: dict[tuple[str, range], Config], results: pathlib.Path) -> None:
    """Raises `UserError` if results hold a run, by method and seed, that is not in its folder."""
    held = read(results)
    for (method, _), config in configs.items():
        # Held are only those that others are to be copies of, which are of one seed each.
        known = _measured(held, method, config.seed)
        if known and not (has_ended(config) and evaluations(pathlib.Path(config.logdir)) == known):
            raise UserError(
                f"{results} holds a run of {method} with seed {config.seed} that is not the one in "
                f"{config.logdir}, so that no copy of it can be made: name another file with "
                "--results."
            )


def make_runs(
    runs: Runs, missing: list[tuple[list[str], range]], jobs: int, results: pathlib.Path
) -> None:
    """Makes runs, so many at a time, and adds each that ends to the results.

    Args:
        runs: of the study.
        missing: methods, and the seeds of a process to run each of them by.
        jobs: runs at a time; more than one are held to a core each.
        results: what to add to.

    Raises:
        UserError: if the folder of one holds a run of other flags, the results another run of
            those that are to be copied, or nothing can be written there, before any begins.
        subprocess.CalledProcessError: if one fails, once those under way have ended; no other
            begins.
    """
    study = runs.study
    first = [study.copies_of] if study.copies_of else []
    work: list[tuple[list[str], range]] = []
    for own, seeds in missing:
        if first or runs.needs_source(own):
            # In turn: they need what they copy, or the encoder of the source; both go on if there.
            work.append(([*dict.fromkeys(first + own)], seeds))
        else:
            work += [([method], seeds) for method in own]
    # Here: flags cannot be parsed in several threads at once.
    in_folder = lambda flags, logdir: run_lib.parse([*flags, f"--logdir={logdir}"])
    configs = {
        (method, seeds): in_folder(runs.flags(method, seeds), runs.logdir(method, seeds))
        for methods, seeds in work
        for method in methods
    }
    sources = {
        seeds: in_folder(runs.flags_of_source(seeds), runs.logdir_of_source(seeds))
        for methods, seeds in work
        if runs.needs_source(methods)
    }
    for config in [*sources.values(), *configs.values()]:
        _check_folder(config)
    _check_held(configs, results)
    if work:
        for folder in (runs.folder, results.parent):
            _check_writable(folder)
    cores = sorted(os.sched_getaffinity(0))
    free: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    for core in cores[:jobs] if jobs > 1 else [None]:
        free.put(core)
    one_writes = threading.Lock()
    stopped = threading.Event()
    under_way: set[subprocess.Popen[bytes]] = set()

    def finish(config: Config, flags: list[str], core: int | None) -> dict[str, str]:
        """Makes what is missing of a run. Returns its context."""
        logdir, goes_on = pathlib.Path(config.logdir), not has_ended(config)
        command = [*_RUN, *flags]
        context = context_of(logdir, command, len(cores) if jobs == 1 else 1, goes_on)
        if goes_on:
            train(command, logdir, core, under_way)
        return context

    def make_one(method: str, seeds: range, core: int | None) -> None:
        config, logdir = configs[method, seeds], runs.logdir(method, seeds)
        if study.copies_of not in (None, method):
            copy_until_freeze(runs.logdir(study.copies_of, seeds), config)
        elif runs.needs_source([method]) and not logdir.exists():
            _inherit_context(runs.logdir_of_source(seeds), logdir)
        context = finish(config, runs.flags(method, seeds), core)
        with one_writes, _alone_in(results.parent):
            held, new = read(results), []
            for seed, folder in zip(seeds, config.folders(logdir), strict=True):
                run = {"method": method, "task": runs.task, "seed": str(seed)} | context
                known, own = _measured(held, method, seed), evaluations(folder)
                if known not in ([], own):
                    raise UserError(
                        f"{results} has got another run of {method} with seed {seed} meanwhile "
                        f"than the one in {folder}: record it with another --results."
                    )
                if not known:
                    new += [run | row for row in own]
            if new:
                write(results, COLUMNS, held + new)

    def make_in_turn(methods: list[str], seeds: range) -> None:
        core = free.get()
        try:
            if runs.needs_source(methods) and not stopped.is_set():
                finish(sources[seeds], runs.flags_of_source(seeds), core)
            for method in methods:
                if not stopped.is_set():
                    make_one(method, seeds, core)
        except BaseException:
            stopped.set()
            raise
        finally:
            free.put(core)

    def terminate(*_: object) -> None:
        stopped.set()
        for process in list(under_way):
            process.terminate()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            begun = [pool.submit(make_in_turn, *each) for each in work]
            try:
                for ended in concurrent.futures.as_completed(begun):
                    ended.result()
            except BaseException:  # Ctrl-C reaches the runs under way too
                stopped.set()
                raise
    finally:
        signal.signal(signal.SIGTERM, before)


def run_study(study: Study, description: str, argv: list[str] | None = None) -> None:
    """Runs what is missing, adds it to the results and prints the table.

    Args:
        study: what to run.
        description: one line, for `--help`.
        argv: the command line.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.epilog = "Every other flag is one of seer_jax.run, for all runs."
    parser.add_argument("--task", default=study.task, help="default: %(default)s")
    parser.add_argument("--preset", default=study.preset, help="default: %(default)s")
    methods = [*study.methods]
    parser.add_argument("--methods", nargs="+", choices=methods, default=methods, help="or a few")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.set_defaults(source=None)
    if study.source is not None:
        parser.add_argument("--source", default=study.source, help="the task to train on first")
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        help="runs at a time, each held to one of the first cores; of two studies at once, start "
        "each under taskset",
    )
    parser.add_argument(
        "--together",
        action="store_true",
        help="one process for all seeds of a method, for accelerators; hours are those of all",
    )
    folder = pathlib.Path("runs")
    parser.add_argument("--folder", type=pathlib.Path, default=folder, help="default: %(default)s")
    parser.add_argument(
        "--results",
        type=pathlib.Path,
        help="the CSV file to add to, whose runs are not repeated; default: in experiments/results",
    )
    args, flags = parser.parse_known_args(argv)
    if args.jobs < 1:
        parser.error("--jobs must be 1 or more.")
    if study.copies_of is not None:
        flags.append(f"--keep_checkpoints={_ALL}")
    runs = Runs(study, args.task, args.preset, args.source, flags, args.folder)
    name = study.name if args.source is None else f"{study.name}_{args.source}"
    results = args.results or RESULTS / f"{name}_{args.task}_{args.preset}.csv"
    try:
        if args.jobs > 1 and _device() != "cpu":
            raise UserError(
                f"--jobs={args.jobs} shares the cores of a CPU; an accelerator serves one process: "
                "leave it out."
            )
        rows = read_all([results]) if results.exists() else []
        held = {(row["method"], int(row["seed"])): row for row in rows}  # a row of each run
        wanted = {(method, seed): None for seed in args.seeds for method in args.methods}
        missing = processes([run for run in wanted if run not in held], args.together)
        if args.together and (study.copies_of or runs.needs_source(args.methods)):
            raise UserError(
                "Each of these runs begins with something of another run of its seed: leave out "
                "--together."
            )
        for methods, seeds in missing:
            runs.check(methods, seeds)
        for (method, _), row in held.items():
            # Of all its seeds, as their means are taken together.
            if method in study.methods and not runs.made(row):
                raise UserError(
                    f"{results} holds runs made with other flags ({row['command']}): name another "
                    "file with --results, and another --folder."
                )
        if args.jobs > (cores := len(os.sched_getaffinity(0))):
            print(f"A run has a core to itself: {cores} at a time, not {args.jobs}.")
        if there := wanted.keys() & held.keys():
            print(
                f"{len(there)} of {len(wanted)} runs are in {results} already and are not repeated."
            )
        make_runs(runs, missing, args.jobs, results)
    except UserError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print("Stopped. The same command goes on.", file=sys.stderr)
        sys.exit(130)  # as a run that is stopped
    except subprocess.CalledProcessError as error:
        log = error.cmd[-1].removeprefix("--logdir=") + ".log"
        sys.exit(f"A run failed, as {log} says: {shlex.join(error.cmd)}")
    print_table(study, read(results))
