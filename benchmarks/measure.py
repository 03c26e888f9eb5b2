"""How everything here is timed and written down.

Variants are interleaved, so that a machine whose speed drifts treats them alike; compiling and
warming up are left out; every sample ends with `block_until_ready`.
"""

import argparse
import dataclasses
import datetime
import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from seer_jax.types import UserError


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of one call: the median over samples, and the quartiles."""

    median: float
    low: float
    high: float
    repeats: int


def interleaved(
    variants: dict[str, Callable[[], Any]], repeats: int, sample_seconds: float = 0.0
) -> dict[str, Timing]:
    """Times variants in turn: A B C A B C ...

    Args:
        variants: functions by name; what they return is waited for.
        repeats: samples of each, after one that is thrown away.
        sample_seconds: a sample is one call, or as many as take about so long: a short one alone
            pays for what the other variants left in the caches.
    """
    counts = dict.fromkeys(variants, 1)
    samples: dict[str, list[float]] = {name: [] for name in variants}
    for repeat in range(repeats + 1):
        for name, function in variants.items():
            seconds = _time(function, counts[name])
            if repeat:
                samples[name].append(seconds)
            elif sample_seconds:  # the first call compiled
                counts[name] = max(1, round(sample_seconds / _time(function, 1)))
    return {name: _timing(x) for name, x in samples.items()}


def _time(function: Callable[[], Any], count: int) -> float:
    """Seconds of one of so many calls in a row."""
    start = time.perf_counter()
    for _ in range(count):
        result = function()
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / count


def _timing(samples: list[float]) -> Timing:
    quartiles = samples * 3
    if len(samples) > 1:
        quartiles = statistics.quantiles(samples, n=4, method="inclusive")
    return Timing(statistics.median(samples), quartiles[0], quartiles[2], len(samples))


def record(name: str, timing: Timing, calls: float = 1) -> dict[str, Any]:
    """A timing of so many calls at once as a record: seconds of one."""
    quartiles = {"low": timing.low / calls, "high": timing.high / calls}
    value = timing.median / calls
    return {"name": name, "unit": "s", "value": value, **quartiles, "repeats": timing.repeats}


_MATMUL_SIZE = 2048
_MATMUL_FLOPS = 2 * _MATMUL_SIZE**3


def matmul(dtype: str = "float32") -> Callable[[], jax.Array]:
    """A product of square matrices, to be timed in turn with what it is compared to."""
    matrix = jnp.ones((_MATMUL_SIZE, _MATMUL_SIZE), dtype)
    return functools.partial(jax.jit(jnp.matmul), matrix, matrix)


def matmul_record(timing: Timing) -> dict[str, Any]:
    """Its rate, the median of the samples."""
    return {"name": "matmul_peak", "unit": "FLOP/s", "value": _MATMUL_FLOPS / timing.median}


_CODE = (":/", ":(top,exclude)*/results/*")  # all but what the runs themselves write


def machine(device: str | None = None) -> dict[str, Any]:
    """Commit, versions and hardware: what a figure depends on; the device is JAX's own, if it is
    not named."""
    commit = _git("rev-parse", "HEAD") or "unknown"
    changes = _git("status", "--porcelain", "--untracked-files=no", "--", *_CODE)
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "dirty": bool(changes) or commit == "unknown",
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax")},
        "device": device or jax.devices()[0].device_kind,
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
    }


def _git(*args: str) -> str:
    """What it prints; nothing where it or the repository is missing."""
    try:
        here = pathlib.Path(__file__).parent  # whatever repository it is called from
        done = subprocess.run(["git", *args], cwd=here, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def _processor() -> str:
    """Its name, and family and model: a virtual machine may call three generations the same."""
    try:
        first = pathlib.Path("/proc/cpuinfo").read_text().split("\n\n")[0]
        pairs = (line.split(":", 1) for line in first.splitlines())
        fields = {name.strip(): value.strip() for name, value in pairs}
        name = fields["model name"]
    except (OSError, KeyError, ValueError):
        return platform.processor()
    if {"cpu family", "model"} <= fields.keys():
        name += f" (family {fields['cpu family']} model {fields['model']})"
    return name


def plain_refusals(main: Callable[..., None]) -> Callable[..., None]:
    """Lets a command end with status 2 and the message alone where it is refused."""

    @functools.wraps(main)
    def refusing(argv: list[str] | None = None) -> None:
        try:
            main(argv)
        except UserError as error:
            print(f"{pathlib.Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
            sys.exit(2)

    return refusing


def add_arguments(parser: argparse.ArgumentParser, repeats: int | None = None) -> None:
    """The flags that benchmarks share: `--json` and, with a default for it, `--repeats`."""
    if repeats is not None:
        parser.add_argument("--repeats", type=count, default=repeats, help="samples of each")
    parser.add_argument("--json", type=new_file, help="file to write the records to")


def count(text: str) -> int:
    """A flag's number, 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return int(text)


def new_file(text: str) -> str:
    """A flag's file to write, checked before anything is measured for it."""
    if not os.access(pathlib.Path(text).parent, os.W_OK) or pathlib.Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} cannot be written")
    return text


def command(module: str, argv: Sequence[str] | None) -> str:
    """The command line that runs a module with these arguments; None: with those of this one."""
    return shlex.join(["python", "-m", module, *(sys.argv[1:] if argv is None else argv)])


def write_json(path: str, command: str, records: list[dict[str, Any]], **context: Any) -> None:
    """Writes records with the machine they were taken on."""
    content = {"command": command, "machine": machine(), **context, "records": records}
    write_whole(pathlib.Path(path), json.dumps(content, indent=2) + "\n")


def write_whole(path: pathlib.Path, text: str) -> None:
    """Writes a file in one move: an interrupt leaves what was there before."""
    temporary = pathlib.Path(f"{path}.tmp")
    temporary.write_text(text)
    temporary.replace(path)
