"""Studies: run what is missing, once, and keep what they found."""

import csv
import dataclasses
import os
import pathlib
import shlex
import shutil
import signal
import threading
import time
from contextlib import nullcontext

import jax
import numpy as np
import pytest

from benchmarks import measure
from experiments import (
    ablations,
    convergence,
    equal_memory,
    freeze_or_never,
    freezing_step,
    larger_encoder,
    replay,
    study,
    transfer,
)
from experiments.freeze_or_never import STUDY
from experiments.study import Runs, copy_until_freeze, read, run_study
from seer_jax import config as config_lib
from seer_jax import run
from seer_jax.config import is_atari
from seer_jax.types import UserError
from tests import runs


@pytest.fixture(scope="module", autouse=True)
def compile_once_in_processes(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in runs.cache_in(tmp_path_factory.mktemp("cache")).items():
            patch.setenv(name, value)
        yield


# Of so small a replay, runs with a freeze and without have as much, and the same programs.
SMALL_REPLAY = "--replay_capacity=41"


def test_every_run_is_made_once_and_recorded(tmp_path, capsys):
    results = tmp_path / "results.csv"
    flags = runs.tiny_without("--task", "--preset", "--no_video")
    study = [f"--folder={tmp_path}", f"--results={results}", "--seeds", "0", "1", *flags]
    study += ["--methods", "freeze", "never", SMALL_REPLAY]

    run_study(STUDY, "", [*study, "--jobs=2"])
    with results.open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["method"], r["seed"], r["step"]) for r in rows] == [
        (method, seed, str(step))
        for method in ("freeze", "never")
        for seed in "01"
        for step in (0, 20, 40, 60)
    ]
    held = {row["method"]: int(row["replay_bytes"]) for row in rows}  # at the end
    assert held["freeze"] != held["never"]  # latents, frames
    assert "--freeze_step=never" in rows[-1]["command"]
    assert all(f"1 of {len(os.sched_getaffinity(0))} cores" in row["hardware"] for row in rows)
    assert rows[0]["commit"]
    assert "never" in capsys.readouterr().out.splitlines()[-1]

    written = results.read_text()
    run_study(STUDY, "", [*study, "--jobs=1"])  # nothing is missing now
    assert "4 of 4 runs are in" in capsys.readouterr().out
    for wrong, message in (
        (["--num_steps=61"], "holds runs made with other flags"),
        (["--num_steps=61", "--seeds", "7"], "holds runs made with other flags"),
        (["--task=cartpole_balance"], "holds runs made with other flags"),
        (["--sedes=7"], "Unrecognized options"),
        (["--jobs=0"], "--jobs must be 1 or more"),
    ):
        with pytest.raises(SystemExit) as stopped:
            run_study(STUDY, "", [*study, *wrong])
        assert stopped.value.code == 2 and message in capsys.readouterr().err
    assert results.read_text() == written


def test_seeds_are_trained_together_in_one_process(tmp_path, capsys):
    """Each is a run of its own in the results, and counts as one that had a process to itself."""
    results = tmp_path / "results.csv"
    flags = runs.tiny_without("--task", "--preset", "--no_video")
    argv = [f"--folder={tmp_path}", f"--results={results}", "--methods", "freeze", *flags]
    run_study(STUDY, "", [*argv, "--seeds", "1", "0", "--together"])
    rows = read(results)
    assert [(row["seed"], row["step"]) for row in rows] == [
        (seed, str(step)) for seed in "01" for step in (0, 20, 40, 60)
    ]
    assert all("--seed=0 --no-video --num_seeds=2" in row["command"] for row in rows)
    logdir = tmp_path / "freeze_or_never" / "cartpole_swingup-quick-freeze-s0-1"
    assert study.evaluations(logdir / "seed1") == study._measured(rows, "freeze", 1)
    assert rows[0]["return"] != rows[4]["return"]

    written = results.read_text()
    run_study(STUDY, "", [*argv, "--seeds", "0", "1"])
    assert "2 of 2 runs are in" in capsys.readouterr().out
    assert results.read_text() == written


def test_seeds_that_follow_each_other_share_a_process():
    left = [("never", 4), ("never", 0), ("freeze", 1), ("never", 1)]
    assert study.processes(left, together=True) == [
        (["freeze"], range(1, 2)),
        (["never"], range(2)),
        (["never"], range(4, 5)),
    ]
    assert study.processes(left, together=False) == [
        (["never"], range(4, 5)),
        (["never"], range(1)),
        (["freeze", "never"], range(1, 2)),
    ]


def test_runs_that_begin_with_another_are_not_trained_together(tmp_path, capsys):
    argv = ["--together", f"--results={tmp_path}/results.csv", f"--folder={tmp_path}"]
    for main in (freezing_step.main, lambda argv: run_study(transfer.STUDY, "", argv)):
        with pytest.raises(SystemExit) as stopped:
            main(argv)
        assert stopped.value.code == 2 and "leave out --together" in capsys.readouterr().err


def test_a_run_is_held_to_the_core_it_is_given(tmp_path):
    core = max(os.sched_getaffinity(0))
    command = ["python", "-c", "import os; print(os.sched_getaffinity(0))"]
    study.train(command, tmp_path / "run", core, set())
    assert (tmp_path / "run.log").read_text() == f"{{{core}}}\n"


def write_evals(logdir):
    """One evaluation, all of whose numbers are 1."""
    logdir.mkdir(parents=True)
    names = study.MEASURED
    (logdir / "eval.csv").write_text(f"{','.join(names)}\n{','.join('1' for _ in names)}\n")


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_runs_side_by_side_have_a_core_each(tmp_path, monkeypatch):
    both, cores = threading.Barrier(2, timeout=60), []

    def train(command, logdir, core, under_way):
        cores.append(core)
        both.wait()
        write_evals(logdir)

    monkeypatch.setattr(study, "train", train)
    two = Runs(STUDY, "cartpole_swingup", "quick", None, [], tmp_path)
    study.make_runs(
        two, [(["never"], range(1)), (["never"], range(1, 2))], 2, tmp_path / "results.csv"
    )
    assert len(set(cores)) == 2


@pytest.mark.parametrize("theirs", ["1", "2"])
def test_another_run_that_a_study_has_recorded_meanwhile_is_told(tmp_path, monkeypatch, theirs):
    results = tmp_path / "results.csv"
    row = dict.fromkeys(study.COLUMNS, theirs) | {"method": "never", "seed": "0"}

    def train(command, logdir, core, under_way):
        study.write(results, study.COLUMNS, [row])
        write_evals(logdir)

    monkeypatch.setattr(study, "train", train)
    ours = Runs(STUDY, "cartpole_swingup", "quick", None, [], tmp_path)
    with nullcontext() if theirs == "1" else pytest.raises(UserError, match="meanwhile"):
        study.make_runs(ours, [(["never"], range(1))], 1, results)
    assert read(results) == [row]


def test_a_study_that_is_terminated_takes_its_runs_along(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "_RUN", ["python", "-c", "import time; time.sleep(100)"])
    timer = threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM))
    begin = time.monotonic()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        of = Runs(STUDY, "cartpole_swingup", "quick", None, [], tmp_path)
        study.make_runs(
            of, [(["never"], range(1)), (["never"], range(1, 2))], 1, tmp_path / "results.csv"
        )
    assert time.monotonic() - begin < 50
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("spoilt", ["", "many", None])
def test_a_row_that_is_not_whole_is_named(tmp_path, spoilt):
    row = dict.fromkeys(study.COLUMNS, "1")
    file = tmp_path / "results.csv"
    study.write(file, study.COLUMNS, [row, row | {"step": "2", "return": spoilt}])
    if spoilt is None:
        file.write_text(file.read_text().rpartition(",1,1,1,1")[0])
    with pytest.raises(UserError, match=r"Row 2 of .*results.csv is not whole"):
        study.read_all([file])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--task=walker_wolk"], "Did you mean walker_walk"),
        (["--seeds=-1"], "seed=-1 is too small"),
        (["--sedes=7"], "Unrecognized options"),
        (["--num_seeds=2"], "give --seeds, with --together for one process, not --num_seeds"),
        (["--together", "--methods", "auto"], "freeze_step=auto would find one for each"),
        (["--together", "--task=Krull"], "needs episodes of one length"),
        (["--latent_shift", "--num_copies=1", "--preset=paper"], "add --frozen_depth=convs"),
        (["--latent_shift"], "one view of an observation: add --num_copies=1"),
        (["--results=."], "cannot be read as a CSV file"),
        (["--results=/proc/none/results.csv"], "/proc/none cannot be written to (No such file"),
        (["--folder=/dev/null"], "/dev/null cannot be written to (File exists): name another"),
    ],
)
def test_flags_of_a_study_are_looked_at_before_it_begins(tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit) as stopped:
        run_study(STUDY, "", [f"--folder={tmp_path}", f"--results={tmp_path}/results.csv", *flags])
    assert stopped.value.code == 2 and message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_only_the_cores_of_a_cpu_are_shared(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(study, "_device", lambda: "TPU v5 lite")
    with pytest.raises(SystemExit):
        run_study(STUDY, "", ["--jobs=2", f"--results={tmp_path}/results.csv"])
    assert "--jobs=2 shares the cores of a CPU" in capsys.readouterr().err


STUDIES = (
    *(ablations.STUDY, freeze_or_never.STUDY, larger_encoder.STUDY, replay.STUDY, transfer.STUDY),
    *(equal_memory.ATARI, equal_memory.SUITE),
)


@pytest.mark.parametrize("of", STUDIES, ids=lambda of: f"{of.name}-{of.task}")
def test_every_method_of_a_study_is_of_flags_that_runs_take(of):
    if is_atari(of.task):
        pytest.importorskip("envpool")
    Runs(of, of.task, of.preset, of.source, [], pathlib.Path("runs")).check([*of.methods], range(1))


def test_rows_lie_in_the_order_of_their_numbers(tmp_path):
    order = [("0", "2500"), ("0", "10000"), ("2", "0"), ("10", "0")]
    rows = [{"method": "never", "seed": seed, "step": step} for seed, step in order]
    study.write(tmp_path / "results.csv", ("method", "seed", "step"), rows[::-1])
    assert read(tmp_path / "results.csv") == rows


def test_the_table_has_means_over_the_seeds_of_a_method(capsys):
    row = {"method": "never", "hours": "0.5", "replay_bytes": str(2**20)}
    last = [row | {"seed": x, "return": f"{x}00", "flops": f"{x}e9"} for x in "13"]
    other = {**last[0], "method": "freeze", "return": "7"}
    first = {**last[0], "return": "5"}
    study.print_table(STUDY, [first, *last, other])
    freeze, never = (line.split() for line in capsys.readouterr().out.splitlines()[1:])
    assert freeze[:3] == ["freeze", "1", "7.0"]
    assert never == ["never", "2", "200.0", "±", "100.0", "30.0", "2.00e+09", "1.0"]


def test_a_study_leaves_the_device_to_its_runs(monkeypatch):
    """A TPU serves one process."""
    study._device.cache_clear()
    monkeypatch.setattr(jax, "devices", lambda *_: pytest.fail("the parent asked for devices"))
    assert "cores of" in study.describe(["python"], cores=1)["hardware"]


def test_a_run_stopped_in_its_last_evaluation_goes_on(tmp_path, trained):
    logdir = shutil.copytree(trained, tmp_path / "run")
    config = dataclasses.replace(config_lib.read(trained), logdir=str(logdir))
    assert study.has_ended(config)
    evals = (logdir / "eval.csv").read_text().splitlines(keepends=True)
    (logdir / "eval.csv").write_text("".join(evals[:-1]))
    assert not study.has_ended(config)
    shutil.rmtree(logdir)
    assert not study.has_ended(config)


@pytest.mark.parametrize(("task", "method"), [("cartpole_swingup", "float32"), ("Pong", "shift")])
def test_equal_memory_has_methods_for_the_kind_of_task(capsys, task, method):
    if task == "Pong":
        pytest.importorskip("envpool")
    with pytest.raises(SystemExit):
        equal_memory.main([f"--task={task}", "--methods", method])
    assert f"invalid choice: '{method}' (choose from" in capsys.readouterr().err


def test_only_what_takes_an_encoder_needs_the_source_task():
    of = Runs(transfer.STUDY, "Krull", "quick", "RoadRunner", [], pathlib.Path("runs"))
    assert of.needs_source(["scratch", "transferred"])
    assert not of.needs_source(["scratch", "random"])


def test_a_run_on_an_encoder_is_of_the_commits_of_both(tmp_path, monkeypatch):
    machine, commits = measure.machine("cpu"), iter(["earlier", "later"])
    monkeypatch.setattr(
        measure, "machine", lambda _: machine | {"commit": next(commits), "dirty": False}
    )
    monkeypatch.setattr(study, "train", lambda command, logdir, *_: write_evals(logdir))
    of = Runs(transfer.STUDY, "cartpole_swingup", "quick", "cartpole_balance", [], tmp_path)
    study.make_runs(of, [(["transferred"], range(1))], 1, tmp_path / "results.csv")
    assert [row["commit"] for row in read(tmp_path / "results.csv")] == ["earlier then later"]


def test_an_ended_source_of_other_flags_is_not_taken_for_the_one_asked_for(tmp_path, trained):
    of = Runs(transfer.STUDY, "cartpole_swingup", "quick", "cartpole_balance", [], tmp_path)
    source = shutil.copytree(trained, of.logdir_of_source(range(1)))
    shorter = dataclasses.replace(of, shared_flags=["--num_steps=60"])
    with pytest.raises(UserError, match=f"{source} holds a run made with other flags"):
        study.make_runs(shorter, [(["transferred"], range(1))], 1, tmp_path / "results.csv")


def test_a_run_on_the_encoder_of_another_source_is_another_run():
    one, other = (
        Runs(transfer.STUDY, "Krull", "quick", source, [], pathlib.Path("runs"))
        for source in ("RoadRunner", "Alien")
    )
    seed = range(1)
    assert one.logdir("scratch", seed) == other.logdir("scratch", seed)
    assert one.logdir("transferred", seed) != other.logdir("transferred", seed)
    command = shlex.join(["python", "-m", "seer_jax.run", *one.flags("transferred", seed)])
    row = {"method": "transferred", "seed": "0", "task": "Krull", "command": command}
    assert one.made(row) and not other.made(row)
    elsewhere = dataclasses.replace(one, folder=pathlib.Path("/elsewhere"))
    assert elsewhere.made(row)


def test_an_encoder_that_will_not_fit_is_refused_before_it_is_trained(tmp_path, capsys):
    pytest.importorskip("envpool")
    argv = ["--source=Alien", "--task=walker_walk", f"--folder={tmp_path}"]
    with pytest.raises(SystemExit) as stopped:
        run_study(transfer.STUDY, "", [*argv, f"--results={tmp_path}/results.csv"])
    assert stopped.value.code == 2 and "sees in another way" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_is_trained_on_the_source_task_and_taken_over(tmp_path):
    results = tmp_path / "results.csv"
    flags = runs.tiny_without("--task", "--preset", "--no_video", "--freeze_step")
    study = [f"--folder={tmp_path}", f"--results={results}", "--seeds", "1", *flags]
    study += ["--methods", "transferred", "--source=cartpole_balance"]
    run_study(transfer.STUDY, "", study)
    source = tmp_path / "transfer" / "cartpole_balance-quick-s1"
    taken = tmp_path / "transfer" / "cartpole_swingup-quick-transferred-cartpole_balance-s1"
    assert {(row["method"], row["task"]) for row in read(results)} == {
        ("transferred", "cartpole_swingup")
    }
    theirs, ours = (runs.read_checkpoint(logdir)[0]["state"] for logdir in (source, taken))
    frozen = [path for path in ours if path.startswith(".frozen")]
    assert frozen
    for path in frozen:
        np.testing.assert_array_equal(ours[path], theirs[path])


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """The folder of a study of a run without a freeze and its copy that froze at step 40."""
    folder = tmp_path_factory.mktemp("copied")
    flags = runs.tiny_without("--preset", "--no_video", "--freeze_step")
    study = ["--freeze_steps", "40", "--seeds", "0", f"--folder={folder}", SMALL_REPLAY, *flags]
    freezing_step.main([*study, f"--results={folder / 'results.csv'}"])
    return folder


def test_copies_are_recorded_from_their_first_step(copied):
    assert [(row["method"], row["step"]) for row in read(copied / "results.csv")] == [
        (method, str(step)) for method in ("40", "never") for step in (0, 20, 40, 60)
    ]


@pytest.mark.parametrize("freeze_step", ["40", "45"])
def test_a_copy_that_freezes_is_the_run_that_froze(copied, tmp_path, freeze_step):
    """Copied from a checkpoint at its freezing step, or from one before it."""
    frozen, folder = tmp_path / "frozen", shutil.copytree(copied, tmp_path / "copied")
    argv = [*runs.tiny_without("--freeze_step"), SMALL_REPLAY]
    assert run.main([*argv, f"--freeze_step={freeze_step}", f"--logdir={frozen}"]) == 0
    flags = runs.tiny_without("--preset", "--no_video", "--freeze_step")
    study = ["--freeze_steps", freeze_step, "--seeds", "0", SMALL_REPLAY, *flags]
    freezing_step.main([*study, f"--folder={folder}", f"--results={folder / 'more.csv'}"])
    copy = folder / "freezing_step" / f"cartpole_swingup-quick-{freeze_step}-s0"
    (items, progress), (expected, expected_progress) = map(runs.read_checkpoint, (copy, frozen))
    runs.assert_same_arrays(items, expected)
    assert progress == expected_progress
    assert runs.read_evals(copy) == runs.read_evals(frozen)
    froze_at = int(freeze_step)
    assert runs.of(runs.read_metrics(copy), "freeze/step") == [(froze_at, froze_at)]


@pytest.mark.parametrize(
    ("source", "freeze_step", "begins_at"),
    [
        ("copies/cartpole_swingup-quick-never-s0", 40, [40]),
        ("copies/cartpole_swingup-quick-never-s0", 45, [40]),
        ("copies/cartpole_swingup-quick-never-s0", 5, []),
        ("freezing_step/cartpole_swingup-quick-40-s0", "never", []),  # has none before its freeze
    ],
)
def test_a_copy_begins_at_the_last_checkpoint_it_shares(
    copied, tmp_path, source, freeze_step, begins_at
):
    copy = tmp_path / "copy"
    config = config_lib.read(copied / source)
    config = dataclasses.replace(config, freeze_step=freeze_step, logdir=str(copy))
    copy_until_freeze(copied / source, config)
    assert [int(x.name) for x in (copy / "checkpoints").glob("*")] == begins_at
    assert copy.exists() == bool(begins_at)


def test_copies_of_an_automatic_run_freeze_earlier_or_never(copied, tmp_path):
    results = tmp_path / "results.csv"
    flags = runs.tiny_without("--preset", "--no_video", "--freeze_step")
    study = ["--freeze_steps", "40", "auto", "--freeze_latest=55", f"--folder={tmp_path}"]
    freezing_step.main([*study, "--seeds", "0", f"--results={results}", SMALL_REPLAY, *flags])
    ends = {row["method"]: row["return"] for row in read(results) if row["step"] == "60"}
    assert ends.keys() == {"40", "auto", "never"}
    name = "cartpole_swingup-quick-{}-s0".format
    auto = runs.read_metrics(tmp_path / "copies" / name("auto"))
    assert runs.of(auto, "freeze/step") == [(55, 55)]
    for ours, theirs in (
        (tmp_path / "freezing_step" / name("40"), copied / "freezing_step" / name("40")),
        (tmp_path / "freezing_step" / name("never"), copied / "copies" / name("never")),
    ):
        items, expected = (runs.read_checkpoint(logdir)[0] for logdir in (ours, theirs))
        for item in ("state", "replay", "env"):
            runs.assert_same_arrays(items[item], expected[item])


def test_a_copy_killed_after_its_first_evaluation_makes_it_once(copied, tmp_path):
    """Started again it freezes again, from its source's checkpoint."""
    name = "cartpole_swingup-quick-40-s0"
    copy = shutil.copytree(copied / "freezing_step" / name, tmp_path / name)
    evals = runs.read_evals(copy)
    for step in (50, 60):
        shutil.rmtree(copy / "checkpoints" / str(step))
    assert run.main([*runs.TINY, SMALL_REPLAY, f"--logdir={copy}"]) == 0
    assert runs.read_evals(copy) == evals


def test_an_ended_run_of_other_flags_is_not_taken_for_the_one_asked_for(copied, tmp_path, capsys):
    flags = runs.tiny_without("--preset", "--no_video", "--freeze_step")
    study = ["--freeze_steps", "40", "--seeds", "0", f"--folder={copied}", SMALL_REPLAY, *flags]
    with pytest.raises(SystemExit):
        freezing_step.main([*study, "--critic_lr=0.5", f"--results={tmp_path}/other.csv"])
    assert "holds a run made with other flags: name another --folder" in capsys.readouterr().err
    assert not (tmp_path / "other.csv").exists()


def test_copies_of_another_run_are_not_added_to_the_results_of_one(copied, tmp_path, capsys):
    flags = runs.tiny_without("--preset", "--no_video", "--freeze_step")
    results = shutil.copy(copied / "results.csv", tmp_path)
    study = ["--seeds", "0", f"--results={results}", SMALL_REPLAY, *flags]
    study += ["--freeze_steps", "40", "50"]  # the one at 50 is not there
    before = read(pathlib.Path(results))
    other = shutil.copytree(copied, tmp_path / "other")
    evals = other / "copies" / "cartpole_swingup-quick-never-s0" / "eval.csv"
    evals.write_text(evals.read_text().replace("\n60,", "\n060,"))
    for folder in (other, tmp_path / "new"):
        with pytest.raises(SystemExit):
            freezing_step.main([*study, f"--folder={folder}"])
        assert "that is not the one in" in capsys.readouterr().err
    assert read(pathlib.Path(results)) == before and not (tmp_path / "new").exists()
    freezing_step.main([*study, f"--folder={copied}"])
    assert {row["method"] for row in read(pathlib.Path(results))} == {"40", "50", "never"}


def test_a_run_is_remembered_with_what_it_was_made_by(copied, tmp_path, monkeypatch):
    """Added to other results, it is not the work of who adds it; one that goes on is of both."""
    flags = runs.tiny_without("--preset", "--no_video", "--freeze_step")
    study = ["--freeze_steps", "40", "--seeds", "0", SMALL_REPLAY, *flags]
    folder = shutil.copytree(copied, tmp_path / "folder")
    study += [f"--folder={folder}", f"--results={tmp_path / 'results.csv'}"]
    before = read(copied / "results.csv")
    machine = measure.machine()
    monkeypatch.setattr(
        measure, "machine", lambda _: machine | {"commit": "another", "dirty": False}
    )
    freezing_step.main(study)
    assert read(tmp_path / "results.csv") == before
    (tmp_path / "results.csv").unlink()
    shutil.rmtree(folder / "freezing_step" / "cartpole_swingup-quick-40-s0")
    freezing_step.main(study)
    now = {row["method"]: row["commit"] for row in read(tmp_path / "results.csv")}
    commit = before[0]["commit"]
    assert now == {"never": commit, "40": f"{commit} then another"}

    (tmp_path / "results.csv").unlink()  # and one of which no study knows is of nobody
    (folder / "freezing_step" / "cartpole_swingup-quick-40-s0.json").unlink()
    freezing_step.main(study)
    now = {row["method"]: row["commit"] for row in read(tmp_path / "results.csv")}
    assert now == {"never": commit, "40": "unknown"}


def test_an_encoder_comes_to_rest_at_its_last_checkpoint(copied, tmp_path):
    out = tmp_path / "convergence.csv"
    never = copied / "copies" / "cartpole_swingup-quick-never-s0"
    convergence.main([str(never), f"--out={out}"])
    rows = read(out)
    assert {row["layer"] for row in rows} == {"conv0", "conv1", "critic", "actor"}
    for layer in ("conv0", "critic"):
        ours = [row for row in rows if row["layer"] == layer]
        assert [int(row["step"]) for row in ours] == [0, 10, 20, 30, 40, 50, 60]
        weights, cka = ([float(row[name]) for row in ours] for name in ("weights", "cka"))
        assert (weights[0], weights[-1]) == (1, 0) and cka[-1] == pytest.approx(1)
        assert cka[0] < cka[-2] and weights[0] > weights[-2]
        movement = {int(row["step"]): float(row["movement"]) for row in ours}
        halved = [20, 40, 60]  # whose halves are there
        assert [step for step in movement if np.isfinite(movement[step])] == halved
        assert all(movement[step] > 0 for step in halved)
        assert movement[60] == pytest.approx((1 - cka[3]) / (1 - cka[0]), rel=1e-3)
    assert out.with_suffix(".png").exists() and (tmp_path / "convergence_maps.png").exists()


def test_comparing_encoders_deletes_no_checkpoint(copied, tmp_path, capsys):
    name = "cartpole_swingup-quick-never-s0"
    never = shutil.copytree(copied / "copies" / name, tmp_path / name)
    state = never / "checkpoints" / "60" / "state"
    files = [path for path in state.rglob("*") if path.is_file()]
    spoilt = max(files, key=lambda path: path.stat().st_size)
    spoilt.write_bytes(spoilt.read_bytes()[:-1])
    with pytest.raises(SystemExit):
        convergence.main([str(never), f"--out={tmp_path}/convergence.csv"])
    assert "(its files are not as they were written)" in capsys.readouterr().out
    assert spoilt.exists()


def test_runs_of_one_seed_are_no_curve_together(copied, tmp_path, capsys):
    never = copied / "copies" / "cartpole_swingup-quick-never-s0"
    with pytest.raises(SystemExit):
        convergence.main([str(never), str(never), f"--out={tmp_path}/convergence.csv"])
    assert "each of another seed" in capsys.readouterr().err


def test_what_froze_or_kept_too_little_cannot_be_compared(trained, capsys):
    with pytest.raises(SystemExit):
        convergence.main([str(trained), "--out=x.csv"])
    assert "--freeze_step=never and --keep_checkpoints" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        convergence.main([str(trained), "--out=x.png"])
    assert "--out=x.png must end in .csv" in capsys.readouterr().err
