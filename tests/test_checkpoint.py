"""What checkpoint.py alone promises.

That runs resume is the matter of test_train.py, test_run.py and test_kill.py.
"""

import shutil
import subprocess
import sys

import numpy as np
import pytest

from seer_jax import checkpoint
from seer_jax.types import UserError

MIB = 2**20


def test_arrays_of_any_dtype_and_scalars_come_back_as_they_were(tmp_path):
    items = {"a": {"x": np.arange(12, dtype=np.uint8), "y": np.float32(3)}, "b": [np.ones((2, 1))]}
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(3, items, {"step": 3})
    checkpoints.close()
    restored, progress = checkpoint.restore_once(tmp_path, ("a", "b"))
    assert progress == {"step": 3}
    again = {name: checkpoint.rebuild(items[name], arrays) for name, arrays in restored.items()}
    np.testing.assert_equal(again, items)
    assert again["a"]["x"].dtype == np.uint8


def test_as_many_are_kept_as_asked_for_and_each_can_be_read(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path, keep=3)
    for step in range(5):
        checkpoints.save(step, {"a": {"x": np.full(2, step)}}, {"step": step})
    assert checkpoints.steps() == [2, 3, 4]
    checkpoints.close()
    restored, progress = checkpoint.restore_once(tmp_path, ("a",), step=3)
    assert progress == {"step": 3}
    np.testing.assert_array_equal(restored["a"]["['x']"], [3, 3])
    with pytest.raises(UserError, match=r"no checkpoint of step 1; it has \[2, 3, 4\]"):
        checkpoint.restore_once(tmp_path, ("a",), step=1)


def test_counters_that_are_spoilt_are_noticed(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(1, {"state": {"x": np.ones(2)}}, {"updates": 1234})
    checkpoints.close()
    counters = tmp_path / "1" / "progress" / "metadata"
    assert "1234" in counters.read_text()
    counters.write_text(counters.read_text().replace("1234", "1235"))
    with pytest.raises(UserError, match="its files are not as they were written"):
        checkpoint.restore_once(tmp_path, ("state",))


def test_what_others_leave_in_a_checkpoint_does_not_spoil_it(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(3, {"a": {"x": np.ones(2)}}, {})
    (tmp_path / "3" / ".DS_Store").touch()
    assert checkpoints.restore(("a",)) is not None
    with pytest.raises(UserError, match="of step 2 or later by now: another process"):
        checkpoints.save(2, {"a": {"x": np.ones(2)}}, {})
    checkpoints.close()


def test_who_reads_one_item_does_not_mind_another_that_is_spoilt(tmp_path):
    """So a policy needs no replay."""
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(1, {"state": {"x": np.ones(2)}, "replay": {"x": np.ones(2)}}, {})
    checkpoints.close()
    files = [path for path in (tmp_path / "1" / "replay").rglob("*") if path.is_file()]
    spoilt = max(files, key=lambda path: path.stat().st_size)
    spoilt.write_bytes(spoilt.read_bytes()[::-1])
    restored, _ = checkpoint.restore_once(tmp_path, ("state",))
    np.testing.assert_array_equal(restored["state"]["['x']"], np.ones(2))
    with pytest.raises(UserError, match="its files are not as they were written"):
        checkpoint.restore_once(tmp_path, ("state", "replay"))
    with pytest.raises(UserError, match=r"of step 1 in .* cannot be read .*another one of \[1\]"):
        checkpoint.restore_once(tmp_path, ("state", "replay"), step=1)


@pytest.mark.parametrize("rows", [10_007, 10_000])
def test_large_arrays_become_few_files_also_of_a_prime_number_of_rows(tmp_path, rows):
    x = np.arange(rows * 4_000, dtype=np.uint16).reshape(rows, 1, 4_000)
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(1, {"replay": {"rows": x, "few": x[:3]}}, {})
    checkpoints.close()
    files = [path for path in (tmp_path / "1" / "replay").rglob("*") if path.is_file()]
    assert len(files) < 2 * x.nbytes / checkpoint._PIECE_BYTES + 10
    restored, _ = checkpoint.restore_once(tmp_path, ("replay",))
    assert set(restored["replay"]) == {"['rows']", "['few']"}
    np.testing.assert_array_equal(restored["replay"]["['rows']"], x)

    checkpoints = checkpoint.Checkpoints(tmp_path)
    restored, _ = checkpoints.restore(("replay",), in_pieces=("replay",))
    large, few = restored["replay"]["['rows']"], restored["replay"]["['few']"]
    assert (large.shape, large.dtype) == (x.shape, x.dtype)
    starts, pieces = zip(*large.read(), strict=True)
    assert starts == (0, *np.cumsum([len(piece) for piece in pieces])[:-1])
    np.testing.assert_array_equal(np.concatenate(pieces), x)
    np.testing.assert_array_equal(few, x[:3])
    for spoilt in (tmp_path / "1" / "replay").glob("*#*"):
        shutil.rmtree(spoilt)
    with pytest.raises(UserError, match="cannot be read now"):
        next(large.read())
    checkpoints.close()


WRITE_AND_READ_A_LARGE_ARRAY = """
import pathlib, sys
import numpy as np
from seer_jax import checkpoint

def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

checkpoints = checkpoint.Checkpoints(pathlib.Path(sys.argv[1]))
checkpoints.save(0, {"small": np.zeros(4)}, {})
large = np.random.default_rng(0).integers(0, 256, (256, 2**20), np.uint8)
pathlib.Path("/proc/self/clear_refs").write_text("5")
before = peak()
checkpoints.save(1, {"large": large}, {})
written = peak() - before
items, _ = checkpoints.restore(("large",), in_pieces=("large",))
del large
pathlib.Path("/proc/self/clear_refs").write_text("5")
before = peak()
rows = sum(len(piece) for _, piece in next(iter(items["large"].values())).read())
assert rows == 256
print(written, peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_writing_and_reading_take_much_less_memory_than_what_is_written(tmp_path):
    command = [sys.executable, "-c", WRITE_AND_READ_A_LARGE_ARRAY, str(tmp_path / "checkpoints")]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    written, read = map(int, printed.split())
    assert written < 128 * MIB and read < 160 * MIB  # of 256
