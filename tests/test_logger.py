"""The run folder's files: whole after a kill, continued on resume, plain errors on a full disk."""

import csv
import errno
import json
import os
import pathlib
import struct
import subprocess
import sys

import imageio_ffmpeg
import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from seer_jax import logger, video
from seer_jax.types import UserError


def open_logger(logdir: pathlib.Path, resume_step: int = 0) -> logger.Logger:
    return logger.Logger(
        logdir, action_repeat=8, num_steps=100, resume_step=resume_step, progress=False
    )


def evaluation(value: float) -> dict:
    return {
        "return": value,
        "return_std": 1.5,
        "episodes": 10,
        "flops": 2e9,
        "replay_bytes": 3000,
        "hours": 0.25,
        "phase": "pixels",
    }


def read_metrics(logdir: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in (logdir / "metrics.jsonl").read_text().splitlines()]


def read_evals(logdir: pathlib.Path) -> list[dict]:
    with (logdir / "eval.csv").open() as file:
        return list(csv.DictReader(file))


def read_events(logdir: pathlib.Path) -> list[event_pb2.Event]:
    """All TensorBoard events: records of u64 length, u32 checksum, data, u32 checksum."""
    events = []
    for path in sorted((logdir / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            events.append(event_pb2.Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return events


def test_every_line_carries_step_and_env_step_and_is_there_at_once(tmp_path):
    log = open_logger(tmp_path)
    log.write(5, {"loss/critic": np.float32(0.5)})
    log.write_eval(10, **evaluation(123.0))
    # Read before close: what a killed run leaves.
    assert read_metrics(tmp_path) == [
        {"step": 5, "env_step": 40, "loss/critic": 0.5},
        {
            "step": 10,
            "env_step": 80,
            "eval/return": 123.0,
            "eval/return_std": 1.5,
            "time/hours": 0.25,
        },
    ]
    assert (tmp_path / "eval.csv").read_text() == (
        "step,env_step,return,return_std,episodes,flops,replay_bytes,hours,phase\n"
        "10,80,123.0,1.5,10,2000000000.0,3000,0.25,pixels\n"
    )
    points = {
        (event.step, value.tag): value.simple_value
        for event in read_events(tmp_path)
        for value in event.summary.value
    }
    assert points[40, "loss/critic"] == 0.5
    assert points[80, "eval/return"] == 123.0
    log.close()


def test_an_evaluation_without_all_its_columns_is_refused(tmp_path):
    columns = evaluation(1.0)
    del columns["phase"]
    with open_logger(tmp_path) as log, pytest.raises(AssertionError, match="phase"):
        log.write_eval(10, **columns)


def test_numbers_that_json_lacks_become_null(tmp_path):
    with open_logger(tmp_path) as log:
        log.write(1, {"a": float("nan"), "b": np.float32("inf"), "c": 1.0})
    text = (tmp_path / "metrics.jsonl").read_text()
    refuse = lambda constant: pytest.fail(f"{constant} is not JSON")
    assert json.loads(text, parse_constant=refuse) == {
        "step": 1,
        "env_step": 8,
        "a": None,
        "b": None,
        "c": 1.0,
    }


def test_resume_drops_what_the_run_will_write_again(tmp_path):
    with open_logger(tmp_path) as log:
        for step in (10, 20, 30):
            log.write(step, {"loss": float(step)})
            log.write_eval(step, **evaluation(float(step)))
    with open_logger(tmp_path, resume_step=20) as log:
        log.write(25, {"loss": 25.0})
        log.write_eval(25, **evaluation(25.0))
    assert [m["loss"] for m in read_metrics(tmp_path) if "loss" in m] == [10.0, 20.0, 25.0]
    assert [row["return"] for row in read_evals(tmp_path)] == ["10.0", "20.0", "25.0"]
    assert not list(tmp_path.glob("*.tmp"))
    # TensorBoard hides what came before a START from its step on: the point at 160 stays.
    starts = [event.step for event in read_events(tmp_path) if event.session_log.status == 1]
    assert starts == [1, 161]


def test_resume_drops_a_line_cut_short_by_a_kill(tmp_path):
    with open_logger(tmp_path) as log:
        log.write(10, {"loss": 1.0})
        log.write_eval(10, **evaluation(1.0))
    for name, cut in (
        ("metrics.jsonl", '{"step": 12, "lo'),
        ("eval.csv", "12,96,5.0,1.5,10,2e9,3"),
    ):
        with (tmp_path / name).open("a") as file:
            file.write(cut)
    with open_logger(tmp_path, resume_step=12) as log:
        log.write(13, {"loss": 2.0})
        log.write_eval(13, **evaluation(2.0))
    assert [m["step"] for m in read_metrics(tmp_path)] == [10, 10, 13, 13]
    assert [row["step"] for row in read_evals(tmp_path)] == ["10", "13"]


def test_step_0_starts_anew(tmp_path):
    with open_logger(tmp_path) as log:
        log.write(10, {"loss": 1.0})
        log.write_eval(10, **evaluation(1.0))
    open_logger(tmp_path).close()
    assert read_metrics(tmp_path) == []
    assert read_evals(tmp_path) == []
    assert not any(event.summary.value for event in read_events(tmp_path))


def test_without_a_terminal_only_evaluation_lines_are_printed(tmp_path, capfd):
    with logger.Logger(tmp_path, action_repeat=8, num_steps=100) as log:
        log.progress(1, "pixels", None, 10.0)
        log.line("step 10 return 5")
        log.progress(2, "latents", 7.0, 10.0)
    captured = capfd.readouterr()
    assert captured.out == "step 10 return 5\n"
    assert captured.err == ""


def test_a_reader_that_has_gone_does_not_end_the_run(tmp_path):
    """Ctrl-C with `| tee` ends tee too, and the run still has a checkpoint to write."""
    program = f"""
import pathlib, sys
from seer_jax.logger import Logger
with Logger(pathlib.Path({str(tmp_path)!r}), action_repeat=1, num_steps=9, progress=False) as log:
    sys.stdin.read()  # until the reader has gone
    log.line("one")
    log.line("two")
print("alive", file=sys.stderr)
"""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == "alive\n"
    assert process.returncode == 0


def test_a_line_that_cannot_be_printed_does_not_end_the_run(tmp_path):
    program = f"""
import os, pathlib, sys
from seer_jax.logger import Logger
with Logger(pathlib.Path({str(tmp_path)!r}), action_repeat=1, num_steps=9, progress=False) as log:
    log.line("1 \u00b1 2")
    os.dup2(os.open("/dev/full", os.O_WRONLY), sys.stdout.fileno())
    log.line("three")
    log.line("four")
print("alive", file=sys.stderr)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "1 ? 2\n", "alive\n")


def test_on_a_terminal_the_bar_shows_phase_return_and_speed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with logger.Logger(tmp_path, action_repeat=8, num_steps=100, resume_step=40) as log:
        log._bar.mininterval = 0
        log.progress(41, "pixels", None, 10.0)
        log.progress(50, "latents", 123.45, 67.8)
    shown = capsys.readouterr().err
    assert "pixels" in shown and "return none yet" in shown
    assert "latents  50%" in shown and "50/100 steps" in shown
    assert "return 123.5, 68 steps/s" in shown or "return 123.4, 68 steps/s" in shown


def test_a_full_disk_is_one_plain_message(tmp_path):
    with open_logger(tmp_path) as log:
        path = tmp_path / "metrics.jsonl"
        path.unlink()
        path.symlink_to("/dev/full")
        with pytest.raises(UserError, match=r"metrics\.jsonl: No space left on device\. Make room"):
            log.write(1, {"loss": 1.0})


def test_a_disk_full_for_tensorboard_is_a_plain_message_too(tmp_path, monkeypatch):
    with open_logger(tmp_path) as log:

        def full():
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(log._tensorboard, "flush", full)
            with pytest.raises(UserError, match="tensorboard: No space left on device"):
                log.write(1, {"loss": 1.0})


def test_a_logdir_that_cannot_be_made_is_a_plain_message(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write .*file"):
        open_logger(tmp_path / "file" / "run")


def test_video_is_readable_and_has_all_frames_at_even_size(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frames = [np.full((33, 47, 3), 10 * i, np.uint8) for i in range(12)]
    path = pathlib.Path("gymnasium:video", "800.mp4")  # no protocol, though ffmpeg has such names
    video.write_video(path, frames, fps=10)
    assert [p.name for p in path.parent.iterdir()] == ["800.mp4"]
    # Not imageio_ffmpeg.read_frames: it forks with Python code in between, which JAX warns about.
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", path.absolute()]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    stream = next(line for line in done.stderr.decode().splitlines() if "Video: h264" in line)
    assert "yuv420p" in stream and "48x34" in stream and "10 fps" in stream
    decoded = np.frombuffer(done.stdout, np.uint8).reshape(-1, 34, 48, 3)
    assert len(decoded) == 12
    for i, frame in enumerate(decoded):
        np.testing.assert_allclose(frame, 10 * i, atol=4)  # lossy


def test_a_video_that_cannot_be_written_is_a_plain_message(tmp_path):
    path = tmp_path / "1.mp4"
    path.with_name("1.mp4.tmp").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"Cannot write .*1\.mp4: .*No space left on device\. Make"):
        video.write_video(path, [np.zeros((32, 32, 3), np.uint8)] * 3, fps=10)
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_does_not_end_a_video(tmp_path):
    """It reaches every process of a terminal; the run notes it and goes on to a checkpoint."""
    program = f"""
import os, pathlib, signal
import numpy as np
from seer_jax import video
signal.signal(signal.SIGINT, lambda *_: None)

class Frames(list):
    def __iter__(self):
        yield from self[:10]
        os.killpg(0, signal.SIGINT)
        yield from self[10:]

frames = Frames(np.zeros((20, 32, 32, 3), np.uint8))
video.write_video(pathlib.Path({str(tmp_path / "v.mp4")!r}), frames, fps=10)
"""
    subprocess.run([sys.executable, "-c", program], start_new_session=True, check=True)
    assert (tmp_path / "v.mp4").exists()


def test_without_ffmpeg_the_way_out_is_named(tmp_path, monkeypatch):
    def missing():
        raise RuntimeError("no ffmpeg")

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", missing)
    with pytest.raises(UserError, match="no ffmpeg to write videos with.*--no_video"):
        video.write_video(tmp_path / "v.mp4", [np.zeros((32, 32, 3), np.uint8)], fps=10)
