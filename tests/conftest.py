"""What several test files share: compiled programs, and a tiny run with the real dm_control."""

import contextlib
import os
import signal

import jax
import pytest
import runs

from seer_jax import build, dispatch

# A shell starts a background job with SIGINT ignored; what tests send must arrive all the same.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Halves the time of compiling, here and in the processes that tests start: all must round alike.
jax.config.update("jax_disable_most_optimizations", True)
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"

_agents, _programs = {}, {}


@contextlib.contextmanager
def _compiling_once():
    make_agent, compile_functions = build.make_agent, dispatch.compile_functions

    def shared_agent(config, spec):
        names = (
            "agent",
            "frame_stack",
            "latent_dtype",
            "learning_starts",
            "num_copies",
            "num_seeds",
        )
        key = (spec, *(getattr(config, name) for name in names))
        if key not in _agents:
            _agents[key] = make_agent(config, spec)
        return _agents[key]

    def shared_programs(config, agent, spec):
        names = (
            "batch_size",
            "frame_stack",
            "num_copies",
            "latent_dtype",
            "priority_exponent",
            "num_seeds",
        )
        key = (agent, spec, *(getattr(config, name) for name in names))
        _programs[key] = _programs.pop(key, None) or compile_functions(config, agent, spec)
        if len(_programs) > 2:
            del _programs[next(iter(_programs))]  # the one unused for longest
        return _programs[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "make_agent", shared_agent)
        patch.setattr(dispatch, "compile_functions", shared_programs)
        yield


@pytest.fixture(scope="module", autouse=True)
def few_programs():
    """Programs end with their file, and in it only those of a few runs are kept: a run's are up to
    4,000 memory maps, and with the 65,530 that Linux allows compiling crashes."""
    yield
    _programs.clear()
    jax.clear_caches()


@pytest.fixture(scope="module")
def compile_once():
    """Runs of the same sizes share their programs: compiling takes longer than all the rest."""
    with _compiling_once():
        yield


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The folder of a finished run with the flags `runs.TINY`. Copy it before you change it."""
    from seer_jax import run  # late: most files do not need dm_control

    logdir = tmp_path_factory.mktemp("trained") / "run"
    with _compiling_once():
        assert run.main([*runs.TINY, f"--logdir={logdir}"]) == 0
    return logdir
