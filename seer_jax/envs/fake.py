"""A tiny deterministic environment: every frame says which one it is. For this package's tests, and
for those of whoever adds an agent.

A frame holds (environment, episode, t) modulo 256 over and over, so that a test that meets it deep
inside a replay buffer can tell where it came from; rewards are a known function of the same.
"""

from collections.abc import Sequence

import numpy as np

from seer_jax.interface import FIRST, LAST, MID, EnvSpec, StackPad, TimeStep


class FakeEnv:
    """N environments behind the `Env` protocol; actions are checked and otherwise ignored.

    Episode e of environment n lasts `lengths[(n + e) % len(lengths)]` agent steps (so it has one
    more row, the FIRST) and ends with discount 0 if `terminals[(n + e) % len(terminals)]`.

    Args:
        num_envs: N.
        lengths: agent steps of the episodes, cycled.
        terminals: whether an episode ends by terminating rather than by a time limit, cycled.
        num_actions: number of discrete actions, or None for continuous ones.
        action_shape: shape of a continuous action.
        obs_shape: (H, W, C); three values at least.
        action_repeat, stack_pad: only reported in `spec`.
    """

    def __init__(
        self,
        num_envs: int = 1,
        lengths: Sequence[int] = (5,),
        terminals: Sequence[bool] = (False,),
        num_actions: int | None = None,
        action_shape: tuple[int, ...] = (2,),
        obs_shape: tuple[int, int, int] = (8, 8, 3),
        action_repeat: int = 1,
        stack_pad: StackPad = "repeat",
    ):
        self._lengths, self._terminals = np.asarray(lengths), np.asarray(terminals)
        self.spec = EnvSpec(
            obs_shape=obs_shape,
            action_shape=action_shape if num_actions is None else (),
            num_actions=num_actions,
            num_envs=num_envs,
            action_repeat=action_repeat,
            episode_steps=lengths[0] if len(set(lengths)) == 1 else None,
            stack_pad=stack_pad,
        )
        self._episode = np.full(num_envs, -1)
        self._t = self._length()  # as if an episode had just ended: the next step resets

    @staticmethod
    def decode(frame: np.ndarray) -> tuple[int, int, int]:
        """(environment, episode, t) modulo 256 of a frame u8[H, W, C]."""
        env, episode, t = np.asarray(frame).reshape(-1)[:3]
        return int(env), int(episode), int(t)

    @staticmethod
    def reward(episode: int | np.ndarray, t: int | np.ndarray) -> int | np.ndarray:
        """The reward that arrives with frame t of an episode, 0 at FIRST."""
        return (100 * episode + t) * (t > 0)

    def reset(self, seed: int | None = None) -> TimeStep:
        """Starts the next episode everywhere; with any seed, episode 0."""
        self._episode = self._episode + 1 if seed is None else np.zeros_like(self._episode)
        self._t = np.zeros_like(self._episode)
        return self._time_step()

    def step(self, action: np.ndarray) -> TimeStep:
        """action: f32[N, *action_shape] in [-1, 1], or i32[N] below num_actions."""
        action = np.asarray(action)
        low, high = (-1, 1) if self.spec.num_actions is None else (0, self.spec.num_actions - 1)
        assert action.shape == (self.spec.num_envs, *self.spec.action_shape), action.shape
        assert np.all((action >= low) & (action <= high)), action

        ended = self._t == self._length()
        self._episode = self._episode + ended
        self._t = np.where(ended, 0, self._t + 1)
        return self._time_step()

    def _length(self) -> np.ndarray:
        """Agent steps of each environment's current episode."""
        return self._cycled(self._lengths)

    def _cycled(self, values: np.ndarray) -> np.ndarray:
        return values[(np.arange(self.spec.num_envs) + self._episode) % len(values)]

    def _time_step(self) -> TimeStep:
        last = self._t == self._length()
        terminal = last & self._cycled(self._terminals)
        return TimeStep(
            step_type=np.where(last, LAST, np.where(self._t == 0, FIRST, MID)).astype(np.int32),
            reward=np.asarray(self.reward(self._episode, self._t), np.float32),
            discount=1 - terminal.astype(np.float32),
            obs=np.stack([self._frame(n, self.spec.obs_shape) for n in range(self.spec.num_envs)]),
        )

    def _frame(self, env: int, shape: tuple[int, ...]) -> np.ndarray:
        return np.resize([env, self._episode[env], self._t[env]], shape).astype(np.uint8)

    def render(self, height: int, width: int) -> np.ndarray:
        """The first environment's frame at another size."""
        return self._frame(0, (height, width, 3))

    def get_state(self) -> dict[str, np.ndarray]:
        return {"episode": self._episode.copy(), "t": self._t.copy()}

    def set_state(self, state: dict[str, np.ndarray]) -> bool:
        self._episode, self._t = np.array(state["episode"]), np.array(state["t"])
        return True

    def close(self) -> None:
        pass
