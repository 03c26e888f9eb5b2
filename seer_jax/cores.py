"""The cores of a CPU, and how the learner shares them with the simulator. Without JAX, so that
environments' processes can do without it."""

import contextlib
import os
import pathlib

_STEPS_DOWN = 5  # of `nice`, 19 at most; measured: with 1 or 2 the simulator still waits


def available() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def let_simulator_go_first() -> None:
    """Lowers the priority of the threads in which JAX computes on a CPU. An update goes on on
    whichever core is free, while a simulator, which has one thread, would go on alone when the
    update is over, and leave a core idle. Only on Linux; what has been lowered stays so."""
    with contextlib.suppress(OSError):
        for thread in pathlib.Path("/proc/self/task").iterdir():
            if "XLA" in (thread / "comm").read_text():
                os.setpriority(os.PRIO_PROCESS, int(thread.name), _STEPS_DOWN)
