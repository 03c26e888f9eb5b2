"""What environments and learners say to each other, and the mistakes of users.

Without JAX, so that a process that only simulates does without its memory and its start. `types`
passes everything on.
"""

from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

PyTree = Any
Leaf = Any  # an array, or its ShapeDtypeStruct where only shapes matter
StackPad = Literal["repeat", "zeros"]

FIRST, MID, LAST = 0, 1, 2


class UserError(Exception):
    """A mistake the user can mend: the message says what was wrong and what to do."""


class UnknownTask(UserError):
    """No environment of this kind has a task of that name."""


def first_line(error: Exception) -> str:
    """What an error says, in a line of 200 characters at most; its kind if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


class EnvSpec(NamedTuple):
    """What a learner must know of an environment.

    Attributes:
        obs_shape: (H, W, C) of one uint8 frame.
        action_shape: shape of one action; `()` when actions are discrete.
        num_actions: number of discrete actions, or None for continuous actions in [-1, 1].
        num_envs: N, environments stepped together.
        action_repeat: simulator control steps per agent step: env_step = step x action_repeat.
        episode_steps: agent steps of every episode, or None where episodes vary in length.
        stack_pad: what fills a stack before an episode's second frame: the first again, or black.
        reference_scores: of random play and of a human, where evaluations are measured against
            them.
    """

    obs_shape: tuple[int, int, int]
    action_shape: tuple[int, ...]
    num_actions: int | None
    num_envs: int
    action_repeat: int
    episode_steps: int | None
    stack_pad: StackPad = "repeat"
    reference_scores: tuple[float, float] | None = None


class TimeStep(NamedTuple):
    """One observation of each of N environments, newest frame only."""

    step_type: Leaf  # i32[N]
    reward: Leaf  # f32[N], arrived with obs; 0 at FIRST
    discount: Leaf  # f32[N], 0 = terminal
    obs: Leaf  # u8[N, H, W, C]


class Env(Protocol):
    """N environments stepped together. One whose last step was LAST restarts on `step`."""

    spec: EnvSpec

    def reset(self, seed: Any = None) -> TimeStep:
        """Starts a new episode everywhere; `seed` restarts the random stream too: an int, or one
        for each environment where each has a process of its own."""

    def step(self, action: np.ndarray) -> TimeStep:
        """Advances every environment by one agent step. action: [N, *action_shape]."""

    def render(self, height: int, width: int) -> np.ndarray:
        """A u8[height, width, 3] picture of the first environment, for people."""

    def get_state(self) -> dict[str, np.ndarray]:
        """Arrays for `set_state`, by name."""

    def set_state(self, state: dict[str, np.ndarray]) -> bool:
        """Restores what `get_state` returned, if it can.

        Returns:
            True if the episodes under way go on; False if the next step begins new ones.
        """

    def close(self) -> None:
        """Releases the simulator and the renderer."""
