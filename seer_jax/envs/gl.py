"""Which OpenGL backend MuJoCo renders with: the first that really does."""

import os
import subprocess
import sys

from seer_jax import cores
from seer_jax.interface import UserError

FIX = (
    "On Debian or Ubuntu: apt-get install libegl1 libgl1-mesa-dri (or libosmesa6); in a container "
    "with an NVIDIA GPU: NVIDIA_DRIVER_CAPABILITIES=all. Set MUJOCO_GL to egl, osmesa or glfw to "
    "insist on one, unset it to let seer_jax choose."
)

# mujoco alone loads in half the time of dm_control and sets OpenGL up in the same way.
_PROBE = """
import mujoco
context = mujoco.GLContext(8, 8)
context.make_current()
mujoco.MjrContext(mujoco.MjModel.from_xml_string("<mujoco/>"), mujoco.mjtFontScale.mjFONTSCALE_100)
"""


def select() -> str:
    """Chooses the OpenGL backend for MuJoCo; call it before anything imports MuJoCo.

    MUJOCO_GL, when set, is honoured untried. Otherwise, on Linux, the first of EGL (GPUs and Mesa)
    and OSMesa (software) that really renders is written to MUJOCO_GL and PYOPENGL_PLATFORM, where
    child processes find it too. Elsewhere MuJoCo's own default stays.

    With one core or two, Mesa is to draw in the thread that asks it to, unless LP_NUM_THREADS says
    otherwise: threads of its own take more processor time, and the learner has work for the other
    core.

    Returns:
        The backend's name: 'egl', 'osmesa' or 'glfw'.

    Raises:
        UserError: nothing renders; the message names the packages to install.
    """
    bound = sys.modules.get("dm_control._render")
    if bound is not None:  # too late to choose: somebody has imported dm_control already
        return bound.BACKEND or "none"
    if cores.available() <= 2:
        os.environ.setdefault("LP_NUM_THREADS", "0")
    chosen = os.environ.get("MUJOCO_GL")
    if chosen:
        return chosen
    if sys.platform != "linux":
        return "glfw"
    failures = []
    for backend in ("egl", "osmesa"):
        failure = probe(backend)
        if failure is None:
            os.environ["MUJOCO_GL"] = os.environ["PYOPENGL_PLATFORM"] = backend
            return backend
        failures.append(f"{backend}: {failure}")
    raise error(f"No OpenGL backend renders here ({'; '.join(failures)})")


def probe(backend: str) -> str | None:
    """Why MuJoCo cannot render with a backend, or None if it can.

    Tried in a process of its own: a broken driver may crash it, and PyOpenGL binds only once.
    """
    env = os.environ | {"MUJOCO_GL": backend, "PYOPENGL_PLATFORM": backend}
    try:
        tried = subprocess.run(
            [sys.executable, "-c", _PROBE], env=env, capture_output=True, text=True, timeout=120
        )
    except subprocess.TimeoutExpired:
        return "did not answer within 120 s"
    if tried.returncode == 0:
        return None
    return (tried.stderr.strip().splitlines() or [f"crashed, exit status {tried.returncode}"])[-1]


def error(problem: str) -> UserError:
    """A problem with rendering, and the ways out."""
    return UserError(f"{problem}. {FIX}")
