"""The simulator's thread goes before those that JAX computes in."""

import os
import pathlib
import sys
import threading

import jax.numpy as jnp
import pytest

from seer_jax import cores


def test_at_least_one_core_is_available():
    assert 1 <= cores.available() <= os.cpu_count()


@pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere threads have no priority of their own"
)
def test_threads_that_compute_give_way():
    jnp.zeros(()).block_until_ready()  # starts them
    niceness = lambda thread: os.getpriority(os.PRIO_PROCESS, thread)
    own = niceness(threading.get_native_id())
    cores.let_simulator_go_first()
    threads = pathlib.Path("/proc/self/task").iterdir()
    computing = [int(x.name) for x in threads if "XLA" in (x / "comm").read_text()]
    assert len(computing) >= cores.available()
    assert all(niceness(thread) > own for thread in computing)
    assert niceness(threading.get_native_id()) == own
