"""How much memory there is and how much is in use, on the device that holds replay."""

import contextlib
import ctypes
import os
import pathlib
import resource
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from seer_jax import cores
from seer_jax.types import first_line

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h
_DEFAULT = 128 << 10  # bytes, of all three
_THREAD_HEAP = 64 << 20  # bytes; glibc maps larger blocks of a thread anew each time
_LARGE = 8 << 20  # bytes of an array; measured: for smaller ones sparing is no faster, or slower
_OLD_MOST = 32 << 20  # bytes; glibc before 2.35 refuses a larger threshold
# XLA runs programs in one thread or another, of as many as there are cores to this process, and
# each keeps temporaries of its own: at the paper's sizes 200 MiB.
_FEW_CORES = cores.available() <= 4


def shared_devices(num_seeds: int) -> list[jax.Device]:
    """The devices that learners and their replay are spread over: as many as share them evenly."""
    devices = jax.local_devices()
    return devices[: max(n for n in range(1, len(devices) + 1) if num_seeds % n == 0)]


def available_bytes(devices: Sequence[jax.Device]) -> int | None:
    """Bytes that can still be allocated on devices of one kind; None where nobody tells."""
    stats = devices[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return (stats["bytes_limit"] - stats["bytes_in_use"]) * len(devices)
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = dict(line.split(":") for line in file)
        of_machine = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return None
    return min([of_machine, *_left_to_groups()])


def _left_to_groups(root: pathlib.Path = pathlib.Path("/sys/fs/cgroup")) -> Iterator[int]:
    """Bytes that each control group of this process, as of a container or a batch job, has left
    (cgroup v2)."""
    with contextlib.suppress(OSError, StopIteration):
        lines = pathlib.Path("/proc/self/cgroup").read_text().splitlines()
        own = next(line.removeprefix("0::/") for line in lines if line.startswith("0::/"))
        for folder in (root / own, *(root / own).parents):
            with contextlib.suppress(OSError, ValueError, KeyError):  # without a limit: "max"
                limit = int((folder / "memory.max").read_text())
                used = int((folder / "memory.current").read_text())
                lines = (folder / "memory.stat").read_text().splitlines()
                reclaimable = int(dict(line.split() for line in lines)["inactive_file"])
                yield limit - used + reclaimable


def shortage(error: Exception) -> str | None:
    """What an error of NumPy or JAX says of memory that was not there, in a line; None if it is
    about something else."""
    line = first_line(error)
    short = isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in line
    return line if short or "out of memory" in line.lower() else None


def usage() -> dict[str, float]:
    """`memory/bytes` in use now and `memory/peak_bytes`, of the device or of this process."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_in_use" in stats:
        return {
            "memory/bytes": stats["bytes_in_use"],
            "memory/peak_bytes": stats["peak_bytes_in_use"],
        }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_bytes = peak if sys.platform == "darwin" else peak * 1024
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
    except OSError:
        return {"memory/peak_bytes": peak_bytes}
    now = pages * os.sysconf("SC_PAGE_SIZE")
    # The kernel brings the peak up to date now and then only.
    return {"memory/bytes": now, "memory/peak_bytes": max(peak_bytes, now)}


def keep_freed(keep: bool = True) -> None:
    """Lets glibc keep what is freed, up to 2 GiB, until `give_back_freed`; or no longer. On a CPU
    every program allocates its temporaries anew, and getting tens of MiB from the system, page by
    page, each time took up to a quarter of an update. Does nothing under other C libraries."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        # Larger ones, as of replay, still come and go alone.
        if not libc.mallopt(_M_MMAP_THRESHOLD, 2**30 if keep else _DEFAULT):
            libc.mallopt(_M_MMAP_THRESHOLD, _OLD_MOST)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1 if keep else _DEFAULT)
        if _FEW_CORES:  # a heap that falls empty is kept too
            libc.mallopt(_M_TOP_PAD, _THREAD_HEAP if keep else _DEFAULT)


def give_back_freed() -> None:
    """Returns freed memory to the system, which glibc keeps: hundreds of MiB after a compilation or
    an update on a CPU. Does nothing under other C libraries."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def giving_back() -> Iterator[None]:
    """Within, nothing that is freed is kept: for what allocates much and once."""
    keep_freed(False)
    give_back_freed()
    try:
        yield
    finally:
        keep_freed()
        give_back_freed()


def spare_temporaries(largest: int) -> dict[str, Any]:
    """Compiler options for a CPU's program whose largest array has `largest` bytes. If that is
    large, operations come in the order that takes fewest temporaries, and with few cores they lie
    in blocks that `keep_freed` can keep, instead of in a single one."""
    if largest < _LARGE:
        return {}
    block = _THREAD_HEAP - (4 << 20)  # beside what else is in the heap
    options: dict[str, Any] = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    if _FEW_CORES and largest <= block:  # XLA warns of each array that is larger
        options["xla_multiheap_size_constraint_per_heap"] = block
    return options
