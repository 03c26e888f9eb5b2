"""What a run says and leaves behind: lines on the terminal, and in the run folder

    metrics.jsonl  one JSON object per line: step, env_step, then metrics by name
    eval.csv       one row per evaluation, columns `EVAL_COLUMNS`
    tensorboard/   the same numbers for TensorBoard, which shows them against env_step

`step` counts agent steps, `env_step = step x action_repeat` simulator steps; both are always
written. Every line is in the file when its call returns, so a kill costs at most the line that is
being written, and a resumed run goes on as if it had never been further than its checkpoint.
"""

import contextlib
import csv
import io
import json
import math
import os
import pathlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import tqdm
from tensorboardX import event_file_writer
from tensorboardX.proto import event_pb2, summary_pb2

from seer_jax.types import UserError

EVAL_COLUMNS = (
    "step",
    "env_step",
    "return",  # mean over the evaluation's episodes, undiscounted
    "return_std",  # standard deviation over those episodes
    "episodes",
    "flops",  # spent by the run so far, evaluation not counted
    "replay_bytes",  # held by replay now
    "hours",  # wall-clock time of the run so far, earlier sessions included
    "phase",  # "pixels" before the freeze, "latents" after it
)


class Logger:
    """Writes a run's numbers to its folder and to the terminal. A context manager.

    Args:
        logdir: the run folder; made if absent.
        action_repeat: simulator steps per agent step.
        num_steps: agent steps of the whole run, the progress bar's end.
        resume_step: the agent step of the checkpoint that the run continues from. What the files
            hold of later steps is dropped, since the run will write it again; what they hold of
            this very step stays. 0 starts all files anew.
        progress: draw a progress bar on stderr. Never drawn where stderr is not a terminal.

    Raises:
        UserError: a file cannot be written. Every method may raise it, for example when the disk
            is full.
    """

    def __init__(
        self,
        logdir: pathlib.Path,
        *,
        action_repeat: int,
        num_steps: int,
        resume_step: int = 0,
        progress: bool = True,
    ) -> None:
        self._action_repeat = action_repeat
        self._metrics_path = logdir / "metrics.jsonl"
        self._eval_path = logdir / "eval.csv"
        self._tensorboard_path = logdir / "tensorboard"

        with disk_errors(logdir):
            logdir.mkdir(parents=True, exist_ok=True)
            _drop_after(resume_step, self._metrics_path, lambda line: json.loads(line)["step"])
            header = ",".join(EVAL_COLUMNS) + "\n"
            _drop_after(resume_step, self._eval_path, lambda line: int(line.split(b",")[0]), header)
            if resume_step == 0:
                shutil.rmtree(self._tensorboard_path, ignore_errors=True)
            self._tensorboard = _open_tensorboard(
                self._tensorboard_path, purge_step=resume_step * action_repeat + 1
            )

        self._bar = tqdm.tqdm(
            total=num_steps,
            initial=resume_step,
            disable=None if progress else True,  # None: disabled where stderr is not a terminal
            dynamic_ncols=True,
            bar_format="{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} steps, "
            "{remaining} left{postfix}",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Appends one line to metrics.jsonl and one point per metric to TensorBoard.

        Args:
            step: agent steps done.
            metrics: numbers by name, such as `loss/critic`, `train/return`, `time/hours`; Python,
                NumPy or JAX scalars. NaN and infinities, which JSON lacks, are written as null.
        """
        env_step = step * self._action_repeat
        values = {name: float(value) for name, value in metrics.items()}
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        line = {"step": step, "env_step": env_step} | {name: finite.get(name) for name in values}
        _append(self._metrics_path, json.dumps(line, allow_nan=False) + "\n")
        summary = summary_pb2.Summary(
            value=[
                summary_pb2.Summary.Value(tag=name, simple_value=value)
                for name, value in finite.items()
            ]
        )
        with disk_errors(self._tensorboard_path):
            self._tensorboard.write_event(
                event_pb2.Event(wall_time=time.time(), step=env_step, summary=summary)
            )
            self._tensorboard.flush()

    def write_eval(self, step: int, **columns: Any) -> None:
        """Appends one row to eval.csv, and eval/return, eval/return_std, time/hours to the metrics.

        Args:
            step: agent steps done.
            **columns: a value for each of `EVAL_COLUMNS` but step and env_step, which are added
                here. `return` is a Python keyword: pass it as `**{"return": value}`.
        """
        row = {"step": step, "env_step": step * self._action_repeat} | columns
        assert sorted(row) == sorted(EVAL_COLUMNS), f"got {list(columns)}, want {EVAL_COLUMNS}"
        text = io.StringIO()
        csv.DictWriter(text, EVAL_COLUMNS, lineterminator="\n").writerow(row)
        _append(self._eval_path, text.getvalue())
        self.write(
            step,
            {
                "eval/return": columns["return"],
                "eval/return_std": columns["return_std"],
                "time/hours": columns["hours"],
            },
        )

    def last_eval(self) -> int:
        """Step of the newest row of eval.csv; -1 if there is none."""
        with self._eval_path.open(newline="") as file:
            return max((int(row["step"]) for row in csv.DictReader(file)), default=-1)

    def progress(
        self, step: int, phase: str, train_return: float | None, steps_per_s: float
    ) -> None:
        """Moves the progress bar. Cheap enough to call at every step.

        Args:
            step: agent steps done.
            phase: "pixels" or "latents".
            train_return: of the last training episode that ended; None before the first.
            steps_per_s: agent steps a second.
        """
        if self._bar.disable:
            return
        shown = "none yet" if train_return is None else f"{train_return:.1f}"
        self._bar.set_description_str(f"{phase} ", refresh=False)
        self._bar.set_postfix_str(f"return {shown}, {steps_per_s:.0f} steps/s", refresh=False)
        self._bar.update(step - self._bar.n)

    def line(self, text: str) -> None:
        """Prints one line to stdout, above the bar where there is one."""
        with self._bar.external_write_mode(sys.stdout):
            try:
                print(text, flush=True)  # flushed: whoever reads a pipe sees it now
            except UnicodeEncodeError:
                print(text.encode("ascii", "replace").decode(), flush=True)
            except OSError:  # nobody does any more, as after Ctrl-C with `| tee`, or a full disk
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def close(self) -> None:
        """Closes the files and leaves the bar as it stands."""
        self._bar.close()
        with disk_errors(self._tensorboard_path):
            self._tensorboard.close()


@contextlib.contextmanager
def disk_errors(path: pathlib.Path) -> Iterator[None]:
    """Turns an `OSError` of the body into a `UserError` that names `path` and what to do."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"Cannot write {error.filename or path}: {error.strerror or error}. Make room or set "
            "the permissions there, then run the same command again to go on from the last "
            "checkpoint; or choose another --logdir."
        ) from error


def _append(path: pathlib.Path, text: str) -> None:
    # Opened for each line: a line is rare, and a full disk then fails here and not again in close.
    with disk_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(text)


def _drop_after(
    step: int, path: pathlib.Path, step_of: Callable[[bytes], int], header: str = ""
) -> None:
    """Rewrites `path` in one move: the header, and the whole lines up to `step`."""

    def kept(line: bytes) -> bool:
        try:
            return line.endswith(b"\n") and step_of(line) <= step
        except (ValueError, LookupError, TypeError):  # the header, or what a crash left
            return False

    lines: list[bytes] = []
    if step > 0 and path.exists():
        lines = [line for line in path.read_bytes().splitlines(keepends=True) if kept(line)]
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(header.encode() + b"".join(lines))
    os.replace(temporary, path)


def _open_tensorboard(folder: pathlib.Path, purge_step: int) -> event_file_writer.EventsWriter:
    """Opens an event file that tells TensorBoard to forget earlier points from `purge_step` on.

    This is the writer inside tensorboardX's SummaryWriter, without the thread around it: there a
    full disk ends the thread, and the run hangs on the thread's queue.
    """
    folder.mkdir(exist_ok=True)
    # The suffix keeps a run resumed within the same second from overwriting the file before.
    writer = event_file_writer.EventsWriter(str(folder / "events"), f".{purge_step}")
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    writer.write_event(event_pb2.Event(wall_time=time.time(), step=purge_step, session_log=start))
    writer.flush()
    return writer
