"""Atari games through EnvPool, as `Env`s: 84x84 grey, max-pooled, without sticky actions.

In training an episode ends with a life, the next begins after a step without action, and rewards
are clipped to [-1, 1]; in evaluation an episode is a whole game and rewards are its score. EnvPool
is imported inside functions: it is an optional dependency.
"""

import importlib.util
from typing import Any

import numpy as np

from seer_jax.envs import names, pictures, restarts
from seer_jax.interface import FIRST, LAST, MID, EnvSpec, TimeStep, UnknownTask, UserError

# Scores of random play and of a human in the 26 games of Atari 100k, as its papers give them.
REFERENCE_SCORES = {
    "Alien": (227.8, 7127.7),
    "Amidar": (5.8, 1719.5),
    "Assault": (222.4, 742.0),
    "Asterix": (210.0, 8503.3),
    "BankHeist": (14.2, 753.1),
    "BattleZone": (2360.0, 37187.5),
    "Boxing": (0.1, 12.1),
    "Breakout": (1.7, 30.5),
    "ChopperCommand": (811.0, 7387.8),
    "CrazyClimber": (10780.5, 35829.4),
    "DemonAttack": (152.1, 1971.0),
    "Freeway": (0.0, 29.6),
    "Frostbite": (65.2, 4334.7),
    "Gopher": (257.6, 2412.5),
    "Hero": (1027.0, 30826.4),
    "Jamesbond": (29.0, 302.8),
    "Kangaroo": (52.0, 3035.0),
    "Krull": (1598.0, 2665.5),
    "KungFuMaster": (258.5, 22736.3),
    "MsPacman": (307.3, 6951.6),
    "Pong": (-20.7, 14.6),
    "PrivateEye": (24.9, 69571.3),
    "Qbert": (163.9, 13455.0),
    "RoadRunner": (11.5, 7845.0),
    "Seaquest": (68.4, 42054.7),
    "UpNDown": (533.4, 11693.2),
}

_MAX_FRAMES = 108_000  # of a game, half an hour of play
_NOOPS = 30  # frames without action, at most, at the start of a game
_NO_ACTION = 0

INSTALL = "Atari needs EnvPool: pip install 'seer_jax[atari]' (or: pip install envpool)"


def make(
    task: str,
    *,
    seed: int,
    num_envs: int = 1,
    action_repeat: int = 4,
    image_size: int = 84,
    training: bool = True,
) -> "AtariEnv":
    """Builds a game.

    Args:
        task: any spelling that `parse_task` accepts.
        seed: of no-ops and whatever else is random, 0 to 2**31 - 1.
        num_envs: N games played in parallel.
        action_repeat: frames per agent step, of which the last two are max-pooled.
        image_size: height and width of a frame in pixels.
        training: whether a life lost ends an episode and rewards are clipped.

    Raises:
        UserError: the game is unknown, an argument is out of range, or EnvPool is missing.
    """
    game = parse_task(task)
    if not 0 <= seed < 2**31:
        raise UserError(f"seed={seed}: EnvPool takes 0 to 2**31 - 1.")
    return AtariEnv(game, seed, num_envs, action_repeat, image_size, training)


def parse_task(task: str) -> str:
    """EnvPool's name of a game, such as 'RoadRunner', from that, 'road_runner' or 'road-runner'.

    Upper and lower case are alike and a leading 'atari:' is allowed.

    Raises:
        UnknownTask: there is none; the message names the nearest ones.
    """
    plain = lambda name: name.lower().replace("_", "").replace("-", "").replace(" ", "")
    known = {plain(name): name for name in game_names()}
    name = plain(task.strip().lower().removeprefix("atari:"))
    if name in known:
        return known[name]
    hint = names.did_you_mean(name, known)
    raise UnknownTask(
        f"Unknown Atari game {task!r}. {hint}All {len(known)} games: "
        "python -c \"from seer_jax.envs import atari; print(*atari.game_names(), sep='\\n')\""
    )


def game_names() -> list[str]:
    """Every game that EnvPool brings, sorted."""
    if importlib.util.find_spec("envpool") is None:
        raise UserError(INSTALL)
    from envpool.atari.registration import atari_game_list

    return ["".join(word.capitalize() for word in game.split("_")) for game in atari_game_list]


class AtariEnv:
    """N games of one kind behind the `Env` protocol; built by `make`."""

    def __init__(
        self,
        game: str,
        seed: int,
        num_envs: int,
        action_repeat: int,
        image_size: int,
        training: bool,
    ) -> None:
        self._game, self._seed, self._training = game, seed, training
        self._num_envs, self._action_repeat, self._size = num_envs, action_repeat, image_size
        self._pool = self._make_pool(seed)
        self._steps = 0  # since the last seed
        self._started = False
        self._lives = np.zeros(num_envs, int)  # at the last step
        self._ended = np.zeros(num_envs, bool)  # whether that was the last of an episode
        self.spec = EnvSpec(
            obs_shape=(image_size, image_size, 1),
            action_shape=(),
            num_actions=self._pool.action_spec().num_values,
            num_envs=num_envs,
            action_repeat=action_repeat,
            episode_steps=None,
            stack_pad="zeros",
            reference_scores=REFERENCE_SCORES.get(game),
        )

    def _make_pool(self, seed: int) -> Any:
        import envpool

        if self._num_envs > 1:
            # EnvPool gives game i the seed + i: neighbouring seeds would share most games.
            seed = int(np.random.SeedSequence(seed).generate_state(1)[0] % 2**31)
        return envpool.make(
            f"{self._game}-v5",
            env_type="dm",
            num_envs=self._num_envs,
            seed=seed,
            stack_num=1,
            frame_skip=self._action_repeat,
            img_height=self._size,
            img_width=self._size,
            noop_max=_NOOPS,
            max_episode_steps=_MAX_FRAMES // self._action_repeat,
            # EnvPool would make up to 30 frames without action between two lives.
            episodic_life=False,
            reward_clip=self._training,
            # As the official code plays: no button pressed for the player, linear interpolation.
            use_fire_reset=False,
            use_inter_area_resize=False,
            render_mode="rgb_array",
        )

    def reset(self, seed: int | None = None) -> TimeStep:
        """Starts a new game everywhere; `seed` restarts the random stream too."""
        if seed is not None:
            self._seed = seed % 2**31
            self._steps = 0
            self.close()
            self._pool = self._make_pool(self._seed)
        self._started = True
        self._ended[:] = True
        return self._time_step(self._pool.reset())

    def step(self, action: np.ndarray) -> TimeStep:
        """One agent step. action: i32[N]; ignored where the last step was LAST."""
        if not self._started:
            return self.reset()
        action = np.asarray(action, np.int32)
        if action.shape != (self._num_envs,):
            raise ValueError(f"action {action.shape}, expected {(self._num_envs,)}")
        self._steps += 1
        return self._time_step(self._pool.step(np.where(self._ended, _NO_ACTION, action)))

    def _time_step(self, timestep: Any) -> TimeStep:
        """EnvPool's step with the ends of episodes that training has."""
        step_type, observation = np.asarray(timestep.step_type, np.int32), timestep.observation
        lives, before = np.asarray(observation.lives), self._lives
        begins, lost = self._ended, (lives < before) & self._training
        # A game that ends in the step between two lives is over when the next begins.
        ends = (step_type == LAST) | (lost & (lives > 0)) | (step_type == FIRST)
        self._lives, self._ended = lives, ends & ~begins
        # EnvPool ends an episode with discount 0 at the time limit too.
        at_limit = (step_type == LAST) & (observation.terminated == 0) & ~lost
        return TimeStep(
            step_type=np.select([begins, ends], [FIRST, LAST], MID).astype(np.int32),
            reward=np.where(begins, 0, timestep.reward).astype(np.float32),
            discount=np.where(self._ended & ~at_limit, 0, 1).astype(np.float32),
            obs=np.asarray(observation.obs).reshape(-1, *self.spec.obs_shape),
        )

    def render(self, height: int, width: int) -> np.ndarray:
        """A u8[height, width, 3] picture of the first game."""
        return pictures.resample(self._pool.render(env_ids=[0])[0], height, width)

    def get_state(self) -> dict[str, np.ndarray]:
        """EnvPool cannot save a game: identifies this moment by its seed and steps."""
        return restarts.moment(self._seed, self._steps)

    def set_state(self, state: dict[str, np.ndarray]) -> bool:
        """Begins new games, with a seed of their own; those under way are lost. Returns False."""
        self.close()
        self._seed, self._steps = restarts.seed_after(state) % 2**31, 0
        self._pool = self._make_pool(self._seed)
        self._started = False
        return False

    def close(self) -> None:
        """Releases the games."""
        self._pool.close()
