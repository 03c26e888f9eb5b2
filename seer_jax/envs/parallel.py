"""Several environments behind one `Env`, each in a process of its own.

    step: one message to every process, which simulates and renders, one answer from each

So N environments take the time of the slowest instead of the sum. A frame of 30 KB is nothing for
a pipe. The processes end with their parent, however it ends: the pipe closes.
"""

import contextlib
import multiprocessing.connection
import pickle
import signal
import subprocess
import sys
import traceback
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from seer_jax.interface import Env, TimeStep, UserError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_CLOSE = ("close", ())
_FEWER = "Fewer --num_envs or --num_seeds need less."


class ParallelEnv:
    """N environments of one kind, N = 1 each, stepped together.

    Args:
        makers: build one each, in its process; they are pickled.

    Raises:
        UserError: if one of them says so while it is built, or its process cannot be started or
            dies.
    """

    def __init__(self, makers: Sequence[Callable[[], Env]]) -> None:
        self._connections: list[multiprocessing.connection.Connection] = []
        self._processes: list[subprocess.Popen] = []
        # Also when nobody calls `close`: at exit, or when an environment cannot be built.
        self._end = weakref.finalize(self, _end, self._connections, self._processes)
        for maker in makers:
            try:
                ours = self._serve_one()
            except OSError as error:
                raise UserError(
                    f"A process for environment {len(self._processes)} of {len(makers)} cannot be "
                    f"started ({error.strerror}). {_FEWER}"
                ) from error
            with contextlib.suppress(BrokenPipeError):  # `_receive` says that it has died
                ours.send(maker)
        specs = self._answers(len(makers))
        self.spec = specs[0]._replace(num_envs=len(makers))

    def reset(self, seed: int | Sequence[int] | None = None) -> TimeStep:
        """Starts a new episode everywhere; environment i restarts its random stream from the i-th
        seed, or from one of its own that follows from a single one."""
        seeds: Sequence[Any] = [None] * len(self._connections)
        if isinstance(seed, int):
            seeds = own_seeds(seed, len(seeds))
        elif seed is not None:
            seeds = seed
        return _together(self._call("reset", [(each,) for each in seeds]))

    def step(self, action: np.ndarray) -> TimeStep:
        """Advances every environment. action: [N, *action_shape]."""
        return _together(self._call("step", [(each[None],) for each in action]))

    def render(self, height: int, width: int) -> np.ndarray:
        """A u8[height, width, 3] picture of the first environment."""
        (picture,) = self._call("render", [(height, width)])
        return picture

    def get_state(self) -> dict[str, np.ndarray]:
        """The states of all, their names numbered by environment."""
        states = self._call("get_state", [()] * len(self._connections))
        return {f"{i}.{name}": x for i, state in enumerate(states) for name, x in state.items()}

    def set_state(self, state: dict[str, np.ndarray]) -> bool:
        """Restores them. Returns whether the episodes under way go on."""
        numbered = [name.split(".", 1) for name in state]
        each = [
            ({name: state[f"{i}.{name}"] for number, name in numbered if number == str(i)},)
            for i in range(len(self._connections))
        ]
        return all(self._call("set_state", each))

    def close(self) -> None:
        """Ends the processes."""
        self._end()

    def _serve_one(self) -> multiprocessing.connection.Connection:
        """Starts one more process; returns our end of its pipe."""
        ours, theirs = multiprocessing.connection.Pipe()
        self._connections.append(ours)
        # Theirs is closed here, so that the end of the process is the end of the pipe.
        with theirs, _signals_held_back():
            self._processes.append(_start(theirs.fileno()))
        return ours

    def _call(self, name: str, arguments: Sequence[tuple]) -> list[Any]:
        """A method of the first environments, of as many as there are arguments, all at once."""
        for connection, each in zip(self._connections, arguments, strict=False):
            with contextlib.suppress(BrokenPipeError):  # `_receive` says that it has died
                connection.send((name, each))
        return self._answers(len(arguments))

    def _answers(self, count: int) -> list[Any]:
        answers = [self._receive(i) for i in range(count)]
        for answer in answers:  # all received by now, so that the next call finds its own
            if isinstance(answer, Exception):
                raise answer
        return answers

    def _receive(self, i: int) -> Any:
        try:
            return self._connections[i].recv()
        except (EOFError, ConnectionResetError) as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._processes[i].wait(timeout=10)
            raise UserError(
                f"The process of environment {i} has died (exit code "
                f"{self._processes[i].returncode}): is memory short? {_FEWER}"
            ) from error


def own_seeds(seed: int, count: int) -> list[int]:
    """Seeds of several environments, from one."""
    return [int(each) for each in np.random.SeedSequence(seed).generate_state(count)]


@contextlib.contextmanager
def _signals_held_back() -> Iterator[None]:
    """A process started within never gets them, not even before it serves: they are its parent's
    matter, who may want a checkpoint."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _together(timesteps: Sequence[TimeStep]) -> TimeStep:
    return TimeStep(*(np.concatenate(leaves) for leaves in zip(*timesteps, strict=True)))


def _end(
    connections: Sequence[multiprocessing.connection.Connection],
    processes: Sequence[subprocess.Popen],
) -> None:
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.send(_CLOSE)
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
        process.kill()
        process.wait()


def _start(pipe: int) -> subprocess.Popen:
    """A process that serves at this end of a pipe.

    Not forked, because a copy of a process in which JAX has threads may hang. Not spawned by
    multiprocessing, which has a process import the main module and so JAX: a second and 60 MB.
    """
    program = (
        f"import sys; sys.path[:] = {sys.path!r}; "
        f"from seer_jax.envs import parallel; parallel.serve({pipe})"
    )
    command = [sys.executable, "-c", program]
    return subprocess.Popen(command, pass_fds=[pipe], stdin=subprocess.DEVNULL)


def serve(pipe: int) -> None:
    """The life of one process: builds an environment and does what it is told."""
    for each in _SIGNALS:  # still held back; a process that the environment starts gets them
        signal.signal(each, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    with multiprocessing.connection.Connection(pipe) as connection:
        with contextlib.suppress(EOFError, ConnectionError):  # the parent is gone
            _serve(connection)


def _serve(connection: multiprocessing.connection.Connection) -> None:
    pickled = connection.recv_bytes()
    try:
        env = pickle.loads(pickled)()
    except Exception as error:
        connection.send(_told(error))
        return
    with contextlib.closing(env):
        connection.send(env.spec)
        while (call := connection.recv()) != _CLOSE:
            name, arguments = call
            try:
                answer = getattr(env, name)(*arguments)
            except Exception as error:
                answer = _told(error)
            connection.send(answer)


def _told(error: Exception) -> Exception:
    """What the parent raises: an error that pickles, and says where it came from."""
    if isinstance(error, UserError):
        return error
    return RuntimeError(f"In an environment's process:\n\n{traceback.format_exc()}")
