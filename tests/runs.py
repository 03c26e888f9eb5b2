"""Run folders as the tests read and compare them, and the flags of a run of seconds."""

import collections
import csv
import json
import pathlib
import re

import jax
import numpy as np

from seer_jax import checkpoint

# Three episodes of 20 steps, with random steps, the freeze, evaluations and checkpoints among them.
# Freezing is as in the presets but quick; what quick freezes is CONVS.
TINY = (
    "--task=cartpole_swingup", "--preset=quick", "--num_steps=60", "--freeze_step=40",
    "--learning_starts=5", "--batch_size=8", "--frame_stack=2", "--image_size=24", "--crop_size=20",
    "--num_filters=4", "--strides", "2", "1", "--latent_size=6", "--hidden_size=16",
    "--action_repeat=50", "--eval_every=20", "--eval_episodes=1", "--checkpoint_every=10",
    "--log_every=1", "--no_video", "--frozen_depth=projection", "--latent_dtype=float32",
    "--frozen_updates=1",
)  # fmt: skip


def tiny_without(*names: str) -> list[str]:
    """The flags of `TINY` without some."""
    return [flag for flag in TINY if not flag.startswith(names)]


def cache_in(folder: pathlib.Path) -> dict[str, str]:
    """What lets processes share their programs: compiling takes longer than all the rest."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


LOG_COMPILATIONS = {"JAX_LOG_COMPILES": "1"}


def compilations(log: str) -> collections.Counter[str]:
    """How often each program was compiled, by the log of a process with `LOG_COMPILATIONS`."""
    return collections.Counter(re.findall(r"Compiling jit\((\w+)\)", log))


CONVS = ("--frozen_depth=convs", "--latent_dtype=uint8")


def read_checkpoint(logdir: pathlib.Path) -> tuple[dict, dict]:
    """The newest checkpoint: arrays by item and path, and the counters but the seconds."""
    restored = checkpoint.restore_once(logdir / "checkpoints", ("state", "replay", "loop", "env"))
    assert restored is not None
    items, progress = restored
    del progress["seconds"]
    return items, progress


def read_metrics(logdir: pathlib.Path) -> list[dict]:
    """Lines of metrics.jsonl without what a clock or the machine's memory says."""
    lines = [json.loads(line) for line in (logdir / "metrics.jsonl").read_text().splitlines()]
    unsteady = lambda name: name.startswith(("time/", "memory/")) or name == "freeze/seconds"
    return [{name: x for name, x in line.items() if not unsteady(name)} for line in lines]


def read_evals(logdir: pathlib.Path) -> list[dict]:
    """Rows of eval.csv without the hours."""
    with (logdir / "eval.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "hours"} for row in csv.DictReader(file)]


def of(lines: list[dict], name: str) -> list[tuple]:
    """(step, value) of every line that has this metric."""
    return [(line["step"], line[name]) for line in lines if name in line]


def assert_same_arrays(actual, expected) -> None:
    """Two pytrees are equal to the last bit."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def assert_close(actual, expected, path):
    """Alike as far as the order of sums allows, which updates amplify."""
    assert actual.shape == expected.shape and actual.dtype == expected.dtype, path
    actual, expected = np.float64(actual), np.float64(expected)
    difference = np.linalg.norm(actual - expected)
    assert difference <= 1e-3 * np.linalg.norm(expected) + 1e-6, path


def assert_same_run(logdir: pathlib.Path, expected: pathlib.Path) -> None:
    """Both folders end in the same checkpoint, to the last bit, and tell the same story."""
    (items, progress), (expected_items, expected_progress) = map(
        read_checkpoint, (logdir, expected)
    )
    assert_same_arrays(items, expected_items)
    assert progress == expected_progress
    assert read_metrics(logdir) == read_metrics(expected)
    assert read_evals(logdir) == read_evals(expected)
