"""What updates free stays with the process."""

import dataclasses
import platform
import subprocess
import sys
import types

import jax
import pytest

from seer_jax import build, dispatch, memory, presets
from seer_jax.types import EnvSpec

ARRAY = 40 << 20  # bytes; three of them do not fit into a heap of one of glibc's threads


# In a process of its own: what other tests have freed would be taken again.
KEEPS_AND_GIVES_BACK = f"""
import ctypes, resource
import jax, jax.numpy as jnp
from seer_jax import memory

def three_temporaries(x):
    "What a loop of unknown length goes on with has memory of its own in every version of XLA."
    step = lambda _, xs: (xs[0] + 1, xs[1] * 2, xs[2] - 3)
    xs = jax.lax.fori_loop(0, 1 + x[0].astype(int), step, (x, x, x))
    return sum(each[:1] for each in xs)

def share_fetched(calls=8):
    "Of the pages that a call needs, how many come from the system."
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(calls):
        jax.block_until_ready(function(x))
    fetched = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return fetched / calls / (3 * {ARRAY} / resource.getpagesize())

def kept():
    "Each thread of XLA's fetches its own once, and which one runs a program is chance."
    return any(share_fetched() < 0.1 for _ in range(40))

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # no huge pages: one would count for 512
memory._FEW_CORES = True
memory.keep_freed()
x = jnp.zeros({ARRAY} // 4)
options = memory.spare_temporaries({ARRAY})
function = jax.jit(three_temporaries, compiler_options=options)
assert kept()
with memory.giving_back():
    assert share_fetched() > 0.9
assert kept()
"""


@pytest.mark.skipif(
    jax.default_backend() != "cpu" or platform.libc_ver()[0] != "glibc",
    reason="temporaries are cut, and freed memory kept, on CPUs and by glibc alone",
)
def test_temporaries_in_blocks_are_kept():
    subprocess.run([sys.executable, "-c", KEEPS_AND_GIVES_BACK], check=True)


def test_an_older_glibc_keeps_as_much_as_it_can(monkeypatch):
    """It refuses a threshold above 32 MiB, and with what is set after that would not raise its own
    any more."""
    thresholds = [128 << 10]

    def mallopt(name, value):
        if name != memory._M_MMAP_THRESHOLD:
            return 1
        if value <= 32 << 20:
            thresholds.append(value)
        return int(value <= 32 << 20)

    library = types.SimpleNamespace(mallopt=mallopt)
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: library)
    memory.keep_freed()
    assert thresholds[-1] == 32 << 20
    memory.keep_freed(False)
    assert thresholds[-1] == 128 << 10


def test_options_follow_the_largest_array(monkeypatch):
    order, blocks = "xla_cpu_scheduler_type", "xla_multiheap_size_constraint_per_heap"
    monkeypatch.setattr(memory, "_FEW_CORES", True)
    assert set(memory.spare_temporaries(1 << 20)) == set()
    assert set(memory.spare_temporaries(ARRAY)) == {order, blocks}
    assert set(memory.spare_temporaries(64 << 20)) == {order}  # larger than a block
    monkeypatch.setattr(memory, "_FEW_CORES", False)
    assert set(memory.spare_temporaries(ARRAY)) == {order}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_largest_array_is_a_batch_of_pictures(dtype):
    """Not the kernel that becomes bfloat16 in passing."""
    config = presets.for_task("cartpole_swingup", "paper")
    agent = dataclasses.replace(config.agent, compute_dtype=dtype)
    config = dataclasses.replace(config, agent=agent)
    spec = EnvSpec((100, 100, 3), (1,), None, 1, 8, 125)
    largest = dispatch._largest_array(config, build.make_agent(config, spec), spec)
    assert largest == 128 * 84 * 84 * 9 * 4


def test_a_container_has_what_its_group_has_left(tmp_path):
    assert list(memory._left_to_groups(tmp_path)) == []
    for name, text in (("max", "1000"), ("current", "700"), ("stat", "anon 1\ninactive_file 50")):
        (tmp_path / f"memory.{name}").write_text(f"{text}\n")
    assert list(memory._left_to_groups(tmp_path)) == [350]
    (tmp_path / "memory.max").write_text("max\n")
    assert list(memory._left_to_groups(tmp_path)) == []
