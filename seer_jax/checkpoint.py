"""Checkpoints of a whole run: learner, replay, environment and counters, through orbax.

A checkpoint is either whole or not there: orbax writes it beside its place and renames it. The last
two are kept, or as many as asked for, so that one which the disk has spoilt costs the way from the
one before, not the run.
What is spoilt shows in the checksums of the files: orbax itself lets a wrong byte in an array pass.
"""

import contextlib
import functools
import json
import logging
import pathlib
import shutil
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from seer_jax.types import InPieces, PyTree, UserError, first_line

# What reading a spoilt checkpoint raises, as far as orbax and tensorstore let one know.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError)
_SPARE_BYTES = 16 * 2**20
_CHECKSUMS = "checksums.json"
_PIECE_BYTES = 8 * 2**20
_AT_ONCE = 8  # pieces compressed and written
_READ_AT_ONCE = 4  # pieces; each is there twice for a moment, compressed too

Flat = dict[str, Any]  # NumPy's arrays by path within a pytree; large ones may be `InPieces`

logging.getLogger("absl").setLevel(logging.ERROR)  # orbax reports every call


class Checkpoints:
    """The checkpoints of one run folder, the newest `keep` of them. With `read_only` nothing there
    changes."""

    def __init__(self, directory: pathlib.Path, keep: int = 2, read_only: bool = False) -> None:
        self._directory = directory
        self._keep = keep
        self._read_only = read_only
        self._manager: ocp.CheckpointManager | None = None

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=self._keep,
                enable_async_checkpointing=False,
                cleanup_tmp_directories=True,  # what a kill left half written
                read_only=self._read_only,
            )
            self._manager = ocp.CheckpointManager(
                self._directory.absolute(), options=options, handler_registry=_handlers()
            )
        return self._manager

    def save(self, step: int, items: dict[str, PyTree], progress: dict[str, Any]) -> None:
        """Writes a checkpoint.

        Args:
            step: agent steps done; names the checkpoint.
            items: pytrees of arrays by name. Host views of device memory are fine: they are not
                copied, and all references are dropped on return.
            progress: JSON-serialisable counters.

        Raises:
            UserError: if it cannot be written; earlier checkpoints are untouched.
        """
        flat = {name: _by_path(tree) for name, tree in items.items()}
        needed = sum(x.nbytes for x in jax.tree.leaves(flat)) + _SPARE_BYTES
        free = shutil.disk_usage(self._existing_parent()).free
        if needed > free:
            raise UserError(
                f"Not enough room for a checkpoint in {self._directory}: up to "
                f"{needed / 2**20:.0f} MiB needed, {free / 2**20:.0f} MiB free. Earlier "
                "checkpoints are intact: make room and run the same command again."
            )
        arguments = {name: ocp.args.PyTreeSave(_cut(tree)) for name, tree in flat.items()}
        try:
            written = self._open().save(
                step, args=ocp.args.Composite(progress=ocp.args.JsonSave(progress), **arguments)
            )
            if not written:
                raise UserError(
                    f"{self._directory} holds a checkpoint of step {step} or later by now: another "
                    "process trains there too."
                )
            # A kill before this line leaves a good checkpoint that nobody can check.
            folder = self._directory / str(step)
            temporary = self._directory / (_CHECKSUMS + ".tmp")
            temporary.write_text(json.dumps(_checksums(folder)))
            temporary.replace(folder / _CHECKSUMS)
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"The checkpoint of step {step} could not be written to {self._directory}: "
                f"{first_line(error)}. Earlier checkpoints are intact: mend the cause and run the "
                "same command again."
            ) from error

    def steps(self) -> list[int]:
        """Steps of the checkpoints that are there, in order."""
        return sorted(self._open().all_steps()) if self._directory.exists() else []

    def restore(
        self, names: Sequence[str], step: int | None = None, in_pieces: Sequence[str] = ()
    ) -> tuple[dict[str, Flat], dict[str, Any]] | None:
        """Reads items of the newest readable checkpoint; `rebuild` makes pytrees of them.

        Checkpoints that cannot be read are reported and deleted, so that the run can write them
        again.

        Args:
            names: of the items.
            step: the checkpoint of that step instead, and no other.
            in_pieces: those of the items whose large arrays are not read yet.

        Returns:
            Arrays by path for each item named, and the counters; None if there is no checkpoint.

        Raises:
            UserError: if there are checkpoints but none can be read, or none of that step; or
                the disk fails while one is read.
        """
        steps = self.steps()
        if step is not None and step not in steps:
            raise UserError(f"{self._directory} has no checkpoint of step {step}; it has {steps}.")
        problems: dict[int, str] = {}
        for candidate in reversed(steps) if step is None else (step,):
            try:
                restored = self._read(candidate, names, in_pieces)
            except _UNREADABLE as error:
                if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                    raise self._not_now(candidate, error) from error  # nothing is deleted for it
                problems[candidate] = first_line(error)
                continue
            for bad, problem in problems.items():
                print(
                    f"The checkpoint of step {bad} cannot be read ({problem}): back to {candidate}."
                )
                self._open().delete(bad)
            return restored
        if step in problems:
            raise UserError(
                f"The checkpoint of step {step} in {self._directory} cannot be read "
                f"({problems[step]}): restore it from a copy, or read another one of {steps}."
            )
        if problems:
            raise UserError(
                f"No checkpoint in {self._directory} can be read ({problems}): restore the folder "
                "from a copy, or choose another --logdir to train anew."
            )
        return None

    def _not_now(self, step: int, error: Exception) -> UserError:
        return UserError(
            f"The checkpoint of step {step} cannot be read now ({first_line(error)}): run the same "
            f"command again, or delete {self._directory / str(step)} to go on from the one before."
        )

    def _read(
        self, step: int, names: Sequence[str], in_pieces: Sequence[str]
    ) -> tuple[dict[str, Flat], dict[str, Any]]:
        folder = self._directory / str(step)
        if (folder / _CHECKSUMS).exists():
            for path, checksum in json.loads((folder / _CHECKSUMS).read_text()).items():
                item, within, _ = path.partition("/")
                read = not within or item in (*names, "progress")
                if read and _checksum(folder / path) != checksum:
                    raise ValueError("its files are not as they were written")
        # Arrays come back as what they were saved as, NumPy's.
        arguments = {name: ocp.args.PyTreeRestore() for name in names if name not in in_pieces}
        saved = self._open().restore(
            step, args=ocp.args.Composite(progress=ocp.args.JsonRestore(), **arguments)
        )
        items = {name: _joined(saved[name]) for name in arguments}
        return items | {name: self._in_pieces(step, name) for name in in_pieces}, saved["progress"]

    def _in_pieces(self, step: int, name: str) -> Flat:
        """An item whose large arrays are still to be read."""
        folder = self._directory.absolute() / str(step) / name
        known = _array_handler().metadata(folder).tree
        whole = [path for path in known if "#" not in path]
        arrays: Flat = self._read_some(step, name, whole) if whole else {}
        for path, starts in _pieces_of(known).items():
            last = known[f"{path}#{starts[-1]}"]
            read = functools.partial(self._read_pieces, step, name, path, starts)
            shape = (starts[-1] + last.shape[0], *last.shape[1:])
            arrays[path] = InPieces(shape, np.dtype(last.dtype), read)
        return arrays

    def _read_pieces(
        self, step: int, name: str, path: str, starts: list[int]
    ) -> Iterator[tuple[int, np.ndarray]]:
        for i in range(0, len(starts), _READ_AT_ONCE):
            some = starts[i : i + _READ_AT_ONCE]
            try:
                pieces = self._read_some(step, name, [f"{path}#{start}" for start in some])
            except _UNREADABLE as error:
                raise self._not_now(step, error) from error
            for start in some:
                yield start, pieces.pop(f"{path}#{start}")

    def _read_some(self, step: int, name: str, paths: list[str]) -> Flat:
        some = ocp.args.PyTreeRestore(item=dict.fromkeys(paths, 0), partial_restore=True)
        return self._open().restore(step, args=ocp.args.Composite(**{name: some}))[name]

    def close(self) -> None:
        """Releases orbax's threads."""
        if self._manager is not None:
            self._manager.close()

    def _existing_parent(self) -> pathlib.Path:
        directory = self._directory.absolute()
        while not directory.exists():
            directory = directory.parent
        return directory


class _FewAtATime(ocp.type_handlers.NumpyHandler):
    """Writes some arrays after others: all at once, they pile up where the disk is slower than
    their compression."""

    async def _background_serialize(
        self, values: Sequence[Any], infos: Sequence[Any], args: Sequence[Any] | None = None
    ) -> None:
        args = args or [ocp.SaveArgs()] * len(values)
        for i in range(0, len(values), _AT_ONCE):
            some = slice(i, i + _AT_ONCE)
            await super()._background_serialize(values[some], infos[some], args[some])


def _handlers() -> ocp.handlers.CheckpointHandlerRegistry:
    """orbax's own, but for what costs memory: its copy of every array before it writes, and its
    format (OCDBT) that gathers the compressed chunks until all are there."""
    arrays = _array_handler()
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    for arguments in (ocp.args.PyTreeSave, ocp.args.PyTreeRestore):
        registry.add(None, arguments, arrays)
    return registry


def _array_handler() -> ocp.PyTreeCheckpointHandler:
    as_they_are = _FewAtATime(deepcopy_host_arrays=False)
    types = ocp.type_handlers.create_type_handler_registry((np.ndarray, as_they_are))
    return ocp.PyTreeCheckpointHandler(type_handler_registry=types, use_ocdbt=False)


def restore_once(
    directory: pathlib.Path, names: Sequence[str], step: int | None = None
) -> tuple[dict[str, Flat], dict[str, Any]] | None:
    """`Checkpoints.restore` for a reader, who leaves even unreadable checkpoints as they are."""
    with contextlib.closing(Checkpoints(directory, read_only=True)) as checkpoints:
        return checkpoints.restore(names, step)


def restore_state(logdir: pathlib.Path, step: int | None = None) -> tuple[Flat, dict[str, Any]]:
    """The learner in the newest readable checkpoint of a run folder, or in that of a step, and the
    counters.

    Raises:
        UserError: if there is no checkpoint, or none can be read.
    """
    restored = restore_once(logdir / "checkpoints", ("state",), step)
    if restored is None:
        raise UserError(f"{logdir} holds no checkpoint yet: let the run reach its first one.")
    items, progress = restored
    return items["state"], progress


def rebuild(template: PyTree, arrays: Flat) -> PyTree:
    """Arrays of one item in the structure of `template`, which gives shapes and dtypes.

    Raises:
        UserError: if an array is missing or has another shape or dtype.
    """

    def find(path: tuple, like: Any) -> np.ndarray:
        found = arrays.get(jax.tree_util.keystr(path))
        if found is None or found.shape != like.shape or found.dtype != like.dtype:
            raise UserError(
                "The checkpoint does not fit this version of seer_jax or this configuration "
                f"({jax.tree_util.keystr(path)}): use the version that wrote it, or another "
                "--logdir."
            )
        return found

    return jax.tree_util.tree_map_with_path(find, template)


def _by_path(tree: PyTree) -> Flat:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in leaves}


def _cut(arrays: Flat) -> Flat:
    """Views of large arrays, cut along their first axis: `path#start`. (orbax's own chunks need
    sizes that divide the array, and of a prime number of rows make a file a row.)"""
    pieces = {}
    for path, x in arrays.items():
        if x.nbytes <= _PIECE_BYTES or not x.ndim:
            pieces[path] = x
            continue
        rows = max(1, _PIECE_BYTES * len(x) // x.nbytes)
        pieces |= {f"{path}#{i}": x[i : i + rows] for i in range(0, len(x), rows)}
    return pieces


def _joined(pieces: Flat) -> Flat:
    """Takes `_cut` back. Pieces are let go of one by one, so that no array is held twice."""
    for path, starts in _pieces_of(pieces).items():
        last = pieces[f"{path}#{starts[-1]}"]
        whole = np.empty((starts[-1] + len(last), *last.shape[1:]), last.dtype)
        for start in starts:
            piece = pieces.pop(f"{path}#{start}")
            whole[start : start + len(piece)] = piece
        pieces[path] = whole
    return pieces


def _pieces_of(names: Iterable[str]) -> dict[str, list[int]]:
    """Where the pieces begin, in order, of each array that `_cut` has cut."""
    starts: dict[str, list[int]] = {}
    for path, _, at in (name.partition("#") for name in names if "#" in name):
        starts.setdefault(path, []).append(int(at))
    return {path: sorted(of_path) for path, of_path in starts.items()}


def _checksums(folder: pathlib.Path) -> dict[str, int]:
    """Of every file in a checkpoint, by its path."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): _checksum(path) for path in files}


def _checksum(path: pathlib.Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(2**20):
            checksum = zlib.crc32(block, checksum)
    return checksum
