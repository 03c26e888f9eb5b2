"""Will training work here, and how fast? `python -m seer_jax.doctor` prints a plain-text report.

Each check yields findings; a finding that is a problem carries one line `fix: ...`. Nothing heavy
is imported before the check that needs it, so that a broken package spoils only its own lines.
"""

import argparse
import contextlib
import importlib.metadata
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, get_args

from seer_jax import cores

_WHAT = "Will training work here, and how fast? Prints a plain-text report."
_TASK = "walker_walk"
_SECONDS = 1.0  # of rendering, for each measured frame rate
_FREE_DISK = 5e9  # bytes: a run with its checkpoints and videos fits


class Finding(NamedTuple):
    """One line of the report.

    Attributes:
        name, text: what was looked at and what was found.
        fix: what to do about it, or None if all is well.
        fatal: training cannot work until it is fixed.
    """

    name: str
    text: str
    fix: str | None = None
    fatal: bool = False


def main(argv: list[str] | None = None) -> int:
    """Prints the report. Returns 0 if training will work and 2 otherwise."""
    argparse.ArgumentParser(prog="python -m seer_jax.doctor", description=_WHAT).parse_args(argv)
    checks = [check_machine, check_packages, check_jax, check_rendering, check_video, check_disk]
    findings = []
    for check in checks:
        for finding in _guarded(check):
            print(f"{finding.name:18} {finding.text}", flush=True)
            if finding.fix:
                print(f"{'':18} fix: {finding.fix}", flush=True)
            findings.append(finding)

    if fatal := {finding.name for finding in findings if finding.fatal}:
        games_work = fatal == {"rendering"} and _version("envpool")
        games = ", except for Atari games," if games_work else ""
        print(f"\nTraining will NOT work here{games} until the problems above are fixed.")
        return 2
    advice = "; see the lines marked fix above." if any(x.fix for x in findings) else "."
    print(f"\nTraining will work here{advice}")
    return 0


def _guarded(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The check's findings; if it breaks, that is one more."""
    try:
        yield from check()
    except Exception as error:  # a doctor reports whatever ails, it does not fall ill
        name = check.__name__.removeprefix("check_")
        yield Finding(
            name,
            f"{type(error).__name__}: {error}",
            fix="mend or reinstall what the line above names",
            fatal=True,
        )


def check_machine() -> Iterator[Finding]:
    """Python, operating system, cores, memory."""
    supported = (3, 11) <= sys.version_info[:2] < (3, 14)
    yield Finding(
        "python",
        f"{platform.python_version()} ({sys.executable})",
        fix=None if supported else "use Python 3.11 to 3.13",
        fatal=not supported,
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    has = f"{cores.available()} cores, {memory / 2**30:.0f} GiB"
    yield Finding("machine", f"{platform.platform()}, {has}")


def check_packages() -> Iterator[Finding]:
    """Versions of the packages that setup.cfg requires, then of the optional ones."""
    from packaging.requirements import Requirement

    for text in importlib.metadata.requires("seer_jax") or ():
        wanted = Requirement(text)
        install = "pip install"
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            if wanted.name != "dm_control":  # of an extra, or for another Python
                continue
            install += " --no-deps"  # on Python 3.13: setup.cfg says why
        version = _version(wanted.name)
        good = version is not None and wanted.specifier.contains(version, prereleases=True)
        yield Finding(
            wanted.name,
            version or "not installed",
            fix=None if good else f"{install} '{wanted.name}{wanted.specifier}'",
            fatal=not good,
        )
    for name, tasks in (("envpool", "Alien"), ("gymnasium", "gymnasium:...")):
        yield Finding(name, _version(name) or f"not installed (optional: for --task={tasks})")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_jax() -> Iterator[Finding]:
    """JAX's devices and what the first one makes of a matrix product."""
    import jax
    import jax.numpy as jnp

    try:
        devices = jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter for want of CUDA's libraries
        why = str(error) or "Libraries of the platform are missing."
        text = f"none with JAX_PLATFORMS={jax.config.jax_platforms}. {why}"
        fix = "unset JAX_PLATFORMS, or install JAX for that platform"
        yield Finding("jax devices", text, fix=fix, fatal=True)
        return
    kinds = ", ".join(sorted({device.device_kind for device in devices}))
    cpu = devices[0].platform == "cpu"
    # Looked for in the file system: asking the driver needs libraries that may be what is missing.
    idle_gpu = cpu and os.path.exists("/proc/driver/nvidia/version")
    yield Finding(
        "jax devices",
        f"{len(devices)} x {devices[0].platform} ({kinds})"
        + (", but this machine has an NVIDIA GPU" if idle_gpu else ""),
        fix="pip install 'jax[cuda13]', or 'jax[cuda12]' for an older driver" if idle_gpu else None,
    )
    size = 2048 if cpu else 8192
    matrix = jnp.ones((size, size), jnp.float32)
    product = jax.jit(jnp.matmul)
    product(matrix, matrix).block_until_ready()  # compiles
    times = []
    for _ in range(3):
        start = time.perf_counter()
        product(matrix, matrix).block_until_ready()
        times.append(time.perf_counter() - start)
    rate = 2 * size**3 / min(times)
    yield Finding("matmul", f"{rate / 1e9:,.0f} GFLOP/s (float32, {size} x {size})")


def check_rendering() -> Iterator[Finding]:
    """The OpenGL backend, and frames per second of a real task."""
    from seer_jax.envs import dmc, gl
    from seer_jax.types import UserError

    named = bool(os.environ.get("MUJOCO_GL"))  # then `select` takes its word for it
    try:
        backend = gl.select()
    except UserError as error:
        text = str(error).removesuffix(gl.FIX).strip()
        yield Finding("rendering", text, fix=gl.FIX, fatal=True)
        return
    # In a process of its own: a crash here would take the report along.
    failure = gl.probe(backend) if named and sys.platform == "linux" else None
    if failure is not None:
        text = f"MUJOCO_GL={backend} does not render: {failure}"
        yield Finding("rendering", text, fix=gl.FIX, fatal=True)
        return
    yield Finding("rendering", f"MUJOCO_GL={backend}")
    for quality in get_args(dmc.RenderQuality):
        rate = _frame_rate(quality)
        yield Finding(f"{_TASK} {quality}", f"{rate:.0f} frames/s (84 x 84, one control step each)")


def _frame_rate(quality: Any) -> float:
    import numpy as np

    from seer_jax.envs import dmc

    env = dmc.make(_TASK, seed=0, action_repeat=1, image_size=84, render_quality=quality)
    action = np.zeros((1, *env.spec.action_shape), np.float32)
    env.reset()
    env.step(action)  # the first frames are slow
    frames, start = 0, time.perf_counter()
    while time.perf_counter() < start + _SECONDS:
        env.step(action)
        frames += 1
    rate = frames / (time.perf_counter() - start)
    env.close()
    return rate


def check_video() -> Iterator[Finding]:
    """ffmpeg, which writes the videos of evaluations."""
    path = None
    with contextlib.suppress(ImportError, RuntimeError):  # no package; no program in it
        import imageio_ffmpeg

        path = imageio_ffmpeg.get_ffmpeg_exe()
    yield Finding(
        "ffmpeg",
        path or "not found: no videos",
        fix=None if path else "pip install --force-reinstall imageio-ffmpeg, or --no_video",
    )


def check_disk() -> Iterator[Finding]:
    """Free space where runs go by default."""
    free = shutil.disk_usage(".").free
    yield Finding(
        "disk",
        f"{free / 1e9:.0f} GB free in {os.getcwd()}",
        fix=None if free > _FREE_DISK else "free some, or put --logdir on a larger disk",
    )


if __name__ == "__main__":
    sys.exit(main())
