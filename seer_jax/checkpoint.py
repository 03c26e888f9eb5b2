"""Checkpoints of a whole run: learner, replay, environment and counters, through orbax.

A checkpoint is either whole or not there: orbax writes it beside its place and renames it. The last two
are kept, so that one which the disk has spoilt costs the way from the one before, not the run.
"""

import logging
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from seer_jax.types import PyTree, UserError

# What reading a spoilt checkpoint raises, as far as orbax and tensorstore let one know.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError)
_SPARE_BYTES = 16 * 2**20

logging.getLogger("absl").setLevel(logging.ERROR)  # orbax reports every call


class Checkpoints:
    """The checkpoints of one run folder."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory
        self._manager: ocp.CheckpointManager | None = None

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=2, enable_async_checkpointing=False
            )
            self._manager = ocp.CheckpointManager(self._directory.absolute(), options=options)
        return self._manager

    def save(self, step: int, arrays: PyTree, progress: dict[str, Any]) -> None:
        """Writes a checkpoint.

        Args:
            step: agent steps done; names the checkpoint.
            arrays: a pytree of arrays. Host views of device memory are fine: nothing is copied
                before it is compressed, and all references are dropped on return.
            progress: JSON-serialisable counters.

        Raises:
            UserError: if it cannot be written; earlier checkpoints are untouched.
        """
        flat = {jax.tree_util.keystr(path): np.asarray(x) for path, x in _leaves(arrays)}
        needed = sum(x.nbytes for x in flat.values()) + _SPARE_BYTES
        free = shutil.disk_usage(self._existing_parent()).free
        if needed > free:
            raise UserError(
                f"Not enough room for a checkpoint in {self._directory}: up to {needed / 2**20:.0f} "
                f"MiB needed, {free / 2**20:.0f} MiB free. Earlier checkpoints are intact: make "
                "room and run the same command again."
            )
        try:
            self._open().save(
                step,
                args=ocp.args.Composite(
                    arrays=ocp.args.PyTreeSave(flat), progress=ocp.args.JsonSave(progress)
                ),
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"The checkpoint of step {step} could not be written to {self._directory}: "
                f"{_first_line(error)}. Earlier checkpoints are intact: mend the cause and run the "
                "same command again."
            ) from error

    def restore(self) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """Reads the newest readable checkpoint; `rebuild` puts its arrays back into a pytree.

        Checkpoints that cannot be read are reported and deleted, so that the run can write them
        again.

        Returns:
            Arrays by path and the counters, or None when there is no checkpoint yet.

        Raises:
            UserError: if there are checkpoints but none can be read.
        """
        if not self._directory.exists():
            return None
        manager = self._open()
        steps = sorted(manager.all_steps(), reverse=True)
        problems = []
        for step in steps:
            try:
                metadata = manager.item_metadata(step)["arrays"]
                as_numpy = jax.tree.map(
                    lambda _: ocp.RestoreArgs(restore_type=np.ndarray), metadata.tree
                )
                saved = manager.restore(
                    step,
                    args=ocp.args.Composite(
                        arrays=ocp.args.PyTreeRestore(restore_args=as_numpy),
                        progress=ocp.args.JsonRestore(),
                    ),
                )
            except _UNREADABLE as error:
                problems.append(f"step {step}: {_first_line(error)}")
                continue
            for unreadable in steps[: len(problems)]:
                print(f"Checkpoint of {problems.pop(0)}: unreadable; going back to step {step}.")
                manager.delete(unreadable)
            return saved["arrays"], saved["progress"]
        if problems:
            raise UserError(
                f"No checkpoint in {self._directory} can be read ({'; '.join(problems)}). Restore "
                "the folder from a copy, or remove it to start anew."
            )
        return None

    def close(self) -> None:
        """Releases orbax's threads."""
        if self._manager is not None:
            self._manager.close()

    def _existing_parent(self) -> pathlib.Path:
        directory = self._directory.absolute()
        while not directory.exists():
            directory = directory.parent
        return directory


def rebuild(template: PyTree, arrays: dict[str, np.ndarray], prefix: str = "") -> PyTree:
    """Arrays by path, as `Checkpoints.restore` returns them, in the structure of `template`.

    Args:
        template: pytree of arrays or ShapeDtypeStructs.
        arrays: by path.
        prefix: path of the template within what was saved.

    Raises:
        UserError: if an array is missing or has another shape or dtype.
    """

    def find(path: tuple, like: Any) -> np.ndarray:
        name = prefix + jax.tree_util.keystr(path)
        found = arrays.get(name)
        if found is None or np.shape(found) != np.shape(like) or found.dtype != like.dtype:
            raise UserError(
                f"The checkpoint does not fit this version of seer_jax or this configuration "
                f"({name}). Use the version that wrote it, or another --logdir."
            )
        return found

    return jax.tree_util.tree_map_with_path(find, template)


def _leaves(tree: PyTree) -> list[tuple[tuple, Any]]:
    return jax.tree_util.tree_flatten_with_path(tree)[0]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
