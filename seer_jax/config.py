"""What a run is: one frozen `Config`, checked, written to its folder and read back."""

import contextlib
import dataclasses
import json
import math
import pathlib
import re
from typing import Literal

from seer_jax.agents import curl_sac, rainbow
from seer_jax.quantise import LARGEST_CODE
from seer_jax.types import UserError

Preset = Literal["paper", "quick", "atari100k"]
LatentDtype = Literal["float32", "bfloat16", "uint8", "int8"]

AGENTS: dict[str, type] = {"curl_sac": curl_sac.Config, "rainbow": rainbow.Config}

LARGEST_SEED = 2**32 - 1  # of NumPy's random streams

_ANY_SIGN = ("v_min", "v_max", "pixel_offset")
_MAY_BE_ZERO = ("eval_epsilon",)


@dataclasses.dataclass(frozen=True)
class Config:
    """One run. Steps are agent steps; env_step = step x action_repeat."""

    task: str = "cartpole_swingup"
    """A task of the DeepMind Control suite, such as walker_walk, walker-walk or cup_catch, an Atari
    game, such as Alien or atari:road_runner, or a Gymnasium environment with continuous actions
    that shows pictures, such as gymnasium:CarRacing-v3 (your own: gymnasium:MODULE:ID)."""
    preset: Preset = "paper"
    """Where the defaults of all other flags come from: paper (the official hyperparameters; the
    official code's script for the suite is of cartpole_swingup, other tasks differ in
    action_repeat and lengths), quick (a small agent that learns in minutes on two CPU cores) or,
    for Atari, atari100k (the benchmark of 100,000 steps)."""
    logdir: str = ""
    """Run folder. Empty: runs/TASK-PRESET-sSEED. The same command with the same folder resumes."""
    seed: int = 0
    """What parameters, environment and all sampling begin from."""
    num_steps: int = 80_000
    """Length of the run, agent steps. A larger one, with the freeze_step that the run had, makes a
    run that has ended go on."""
    freeze_step: int | Literal["never", "auto"] = 10_000
    """Agent step at which the encoder freezes and replay turns into latents; never to keep training
    it; auto to freeze once the latents of a probe batch have hardly moved since returns rose, or at
    freeze_latest. The official scripts freeze at 10,000 of 80,000 steps (cartpole_swingup) and at
    50,004 of 500,000 (Atari); on other tasks paper takes an eighth of the run. The steps of quick
    and atari100k are our choice. A run of another length (num_steps) freezes at the same share."""
    frozen_updates: int = 1
    """Updates for each agent step after the freeze, where they cost little. Before it there is one,
    and in the official code always."""
    encoder_from: str = ""
    """Run folder whose encoder to take, frozen from the first step: needs freeze_step=0. With
    freeze_step=0 alone the encoder is a random one. (8-bit latents freeze after the random steps:
    their scale is taken from those rows.)"""
    freeze_earliest: int = 5_000
    """With freeze_step=auto: the step of the first look at the encoder. It is compared with itself
    at half the step, so none freezes before twice this one."""
    freeze_latest: int = 66_666
    """With freeze_step=auto: the step at which the encoder freezes at the latest."""
    freeze_movement: float = 0.05
    """With freeze_step=auto: freeze once the encoder has made at most this share of its way, by
    linear CKA, in the newer half of its training, before which returns had risen already."""
    num_copies: int = 4
    """K, latents of independent random crops stored for each observation. For curl_sac; rainbow
    crops nothing and takes 1."""
    latent_dtype: LatentDtype = "float32"
    """How latents are stored. In 8 bits with a scale for each dimension, fixed at the freeze: uint8
    where latents are never negative (rainbow, and curl_sac with frozen_depth=convs), else int8."""
    data_parallel: bool = False
    """Share the batch of every update among all local devices, of which each holds the whole
    learner and replay: for encoders or batches that keep one device busy."""
    replay_capacity: int = 100_000
    """Rows of frames that replay can hold, of all environments together. Latents then get as many
    as fit in the same bytes, and neither gets more than the run can fill."""
    replay_memory: str | None = None
    """A budget in bytes, such as 512MiB or 2GB, instead of replay_capacity: it sizes replay before
    and after the freeze."""
    replay: Literal["uniform", "prioritised"] = "uniform"
    """How transitions are drawn."""
    priority_exponent: float = 0.5
    """With prioritised replay: a priority is the error to this power."""
    priority_beta: float = 0.4
    """With prioritised replay: exponent of the importance weights at the start; 1 at the end."""
    num_seeds: int = 1
    """S, runs that differ in their seed alone (seed, seed + 1, ...), trained in one process, each
    with an environment of its own. Each has as much replay and as many steps as a run alone, and
    its curves in LOGDIR/seedN."""
    num_envs: int = 1
    """Environments stepped together. num_steps counts the steps of all, and each still has its
    update. Atari games share a pool of threads, others have a process each."""
    learning_starts: int = 1_000
    """Agent steps with random actions and without updates; then one update a step."""
    batch_size: int = 128
    """Transitions in a batch."""
    frame_stack: int = 3
    """Frames in an observation."""
    image_size: int = 100
    """Side of the frames, pixels; curl_sac crops them to crop_size."""
    action_repeat: int = 2
    """Simulator steps per agent step."""
    render_quality: Literal["full", "fast"] = "full"
    """For dm_control. full: MuJoCo's defaults; fast: no shadows or reflections, several times
    faster on a CPU."""
    eval_every: int = 2_500
    """Agent steps between evaluations."""
    eval_episodes: int = 10
    """Episodes of an evaluation, with greedy actions (rainbow: see eval_epsilon)."""
    checkpoint_every: int = 2_500
    """Agent steps between checkpoints."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints to keep; the second is for when a disk spoils the first.
    Each holds all of replay."""
    log_every: int = 100
    """Agent steps between lines of training metrics."""
    video: bool = True
    """Record the first episode of every evaluation."""
    agent: curl_sac.Config | rainbow.Config = curl_sac.Config()
    """The agent's hyperparameters."""

    @property
    def algorithm(self) -> str:
        """The agent's name: curl_sac for continuous actions, rainbow for Atari."""
        return next(name for name, kind in AGENTS.items() if isinstance(self.agent, kind))

    @property
    def seeds(self) -> list[int]:
        """The seed of each learner."""
        return list(range(self.seed, self.seed + self.num_seeds))

    def folders(self, logdir: pathlib.Path) -> list[pathlib.Path]:
        """Where in a run folder the curves of each learner lie."""
        if self.num_seeds == 1:
            return [logdir]
        return [logdir / f"seed{seed}" for seed in self.seeds]

    @property
    def last_freeze_step(self) -> int | None:
        """The step that freezes if none has before; None if none does.

        The scale of 8-bit latents comes from rows, so the freeze waits for the random ones.
        """
        if self.freeze_step == "never":
            return None
        last = self.freeze_latest if self.freeze_step == "auto" else self.freeze_step
        return max(last, self.learning_starts) if self.latent_dtype in LARGEST_CODE else last

    @property
    def pixel_steps(self) -> int:
        """Steps of the run before its freeze, if that comes as late as it may."""
        last = self.last_freeze_step
        return self.num_steps if last is None else min(last, self.num_steps)

    @property
    def never_freezes(self) -> bool:
        """Whether the run ends before its freeze; `auto` may find an earlier step than the last."""
        last = self.last_freeze_step
        return last is None or (last > self.num_steps and self.freeze_step != "auto")


def is_atari(task: str) -> bool:
    """Whether a task, spelt as runs keep it, is an Atari game: those begin with a capital."""
    return task[:1].isupper()


def is_gymnasium(task: str) -> bool:
    """Whether a task, spelt as runs keep it, is a Gymnasium environment."""
    return task.startswith("gymnasium:")


def write(config: Config, logdir: pathlib.Path) -> None:
    """Writes `config.json`, in one move."""
    temporary = logdir / "config.json.tmp"
    fields = dataclasses.asdict(config) | {"algorithm": config.algorithm}
    temporary.write_text(json.dumps(fields, indent=2) + "\n")
    temporary.replace(logdir / "config.json")


def read(logdir: pathlib.Path) -> Config:
    """Reads the configuration of a run folder.

    Raises:
        UserError: if there is none, or not one of this version.
    """
    path = logdir / "config.json"
    try:
        fields = json.loads(path.read_text())
        agent, kind = fields.pop("agent"), AGENTS[fields.pop("algorithm")]
        agent = {name: tuple(x) if isinstance(x, list) else x for name, x in agent.items()}
        return Config(**fields, agent=kind(**agent))
    except (FileNotFoundError, NotADirectoryError) as error:
        if logdir.name.startswith("seed") and (logdir.parent / "config.json").exists():
            raise UserError(
                f"{logdir} is a part of the runs in {logdir.parent}: name that."
            ) from error
        raise UserError(f"{logdir} holds no run: there is no {path}.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path} is damaged or of another version ({error}): restore it, or choose another "
            "--logdir."
        ) from error


def parse_bytes(text: str) -> int:
    """Bytes of a size such as 512MiB, 2GiB, 2GB, 800M or 1e9.

    Raises:
        UserError: if it is not one.
    """
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([kmgt]?)(i?)b?\s*", text.lower())
    number = -1.0
    if match is not None:
        base = 1024 if match[3] else 1000
        with contextlib.suppress(ValueError):
            number = float(match[1]) * base ** " kmgt".index(match[2] or " ")
    if not 0 < number < math.inf:
        raise UserError(
            f"replay_memory={text!r} is not a size: write a number and a unit, like 512MiB or 2GB."
        )
    return int(number)


def check(config: Config) -> None:
    """Raises `UserError` for values that cannot work, before anything is built."""
    minimum = {
        "num_steps": 1,
        "num_copies": 1,
        "frozen_updates": 1,
        "replay_capacity": 1,
        "num_seeds": 1,
        "num_envs": 1,
        "learning_starts": 0,
        "batch_size": 2,
        "frame_stack": 1,
        "image_size": 16,
        "action_repeat": 1,
        "eval_every": 1,
        "eval_episodes": 1,
        "checkpoint_every": 1,
        "keep_checkpoints": 1,
        "log_every": 1,
        "freeze_earliest": 0,
        "seed": 0,
    }
    for name, least in minimum.items():
        if (value := getattr(config, name)) < least:
            raise UserError(f"{name}={value} is too small: the least is {least}.")
    maximum = {
        "num_envs": 1_000,
        "num_seeds": 1_000,
        "eval_episodes": 1_000,
        "batch_size": 100_000,
        "frame_stack": 100,
        "image_size": 2_000,
        "log_every": 10_000,  # until then metrics are kept
        "seed": LARGEST_SEED,
    }
    for name, most in maximum.items():
        if (value := getattr(config, name)) > most:
            raise UserError(f"{name}={value} is too large: the most is {most}.")
    for name in ("logdir", "encoder_from"):
        _check_folder(name, getattr(config, name))
    if isinstance(config.freeze_step, int) and config.freeze_step < 0:
        raise UserError(
            f"freeze_step={config.freeze_step}: give a step from 0 on, or never, or auto."
        )
    if config.encoder_from and config.freeze_step != 0:
        raise UserError(
            "encoder_from gives an encoder that is frozen from the start: add --freeze_step=0."
        )
    if config.freeze_step == "auto" and config.freeze_latest < config.freeze_earliest:
        raise UserError(
            f"freeze_latest={config.freeze_latest} is before "
            f"freeze_earliest={config.freeze_earliest}."
        )
    if not 0 < config.freeze_movement <= 1:
        raise UserError(
            f"freeze_movement={config.freeze_movement} must lie above 0 and not above 1."
        )
    if config.last_freeze_step == 0 and config.latent_dtype in LARGEST_CODE:
        raise UserError(
            f"latent_dtype={config.latent_dtype} takes its scale from rows of replay, and at "
            "step 0 there are none: raise --learning_starts or choose --latent_dtype=bfloat16."
        )
    if config.replay_memory is not None:
        parse_bytes(config.replay_memory)
    if config.num_seeds > 1:
        _check_several(config)
    _check_agent(config)
    if not 0 <= config.priority_exponent <= 1 or not 0 <= config.priority_beta <= 1:
        raise UserError("priority_exponent and priority_beta must lie between 0 and 1.")
    dmc = not is_atari(config.task) and not is_gymnasium(config.task)
    if config.render_quality != "full" and not dmc:
        raise UserError("render_quality is for dm_control; other tasks have one picture only.")


def _check_folder(name: str, folder: str) -> None:
    if "://" in folder:
        raise UserError(
            f"{name}={folder}: name a folder of this machine, such as a mounted bucket."
        )
    try:
        str(pathlib.Path(folder).absolute()).encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{name}={folder!a}: checkpoints need a path in UTF-8, also of the folder that the "
            "command runs in."
        ) from error


def _check_several(config: Config) -> None:
    at_once = "with num_seeds above 1"
    if is_atari(config.task) or is_gymnasium(config.task):
        raise episodes_vary(config.task)
    if config.freeze_step == "auto":
        raise UserError(
            f"{at_once}, all encoders freeze at one step, and freeze_step=auto would find one for "
            "each: give a step, or never."
        )
    if config.num_envs > 1:
        raise UserError(f"{at_once}, each run has one environment: leave out --num_envs.")
    if config.replay == "prioritised":
        raise UserError(f"{at_once}, replay is drawn uniformly: leave out --replay=prioritised.")
    if config.data_parallel:
        raise UserError(
            f"{at_once}, devices share the runs and not their batches: leave out --data_parallel."
        )
    if config.encoder_from:
        raise UserError(f"{at_once}, each run begins with its own encoder: leave out encoder_from.")


def episodes_vary(task: str) -> UserError:
    """Why several seeds cannot train on this task in one process."""
    return UserError(
        "with num_seeds above 1, all runs go in step, which needs episodes of one length: those of "
        f"{task} vary. Start a run for each seed."
    )


def _check_agent(config: Config) -> None:
    agent = config.agent
    if isinstance(agent, curl_sac.Config) and agent.latent_shift:
        if agent.frozen_depth != "convs":
            raise UserError("latent_shift moves feature maps: add --frozen_depth=convs.")
        if config.num_copies > 1:
            raise UserError("latent_shift stores one view of an observation: add --num_copies=1.")
    for name in (field.name for field in dataclasses.fields(agent)):
        value = getattr(agent, name)
        if isinstance(value, (bool, str)) or value is None:
            continue
        numbers = value if isinstance(value, tuple) else (value,)
        if not numbers:
            raise UserError(f"{name} is empty: give a number for each layer.")
        if not all(map(math.isfinite, numbers)):
            raise UserError(f"{name}={value}: it must be finite.")
        least = min(numbers)
        if not (name in _ANY_SIGN or least > 0 or (least == 0 and name in _MAY_BE_ZERO)):
            raise UserError(f"{name}={value}: it must be positive.")
    most = {"gamma": 1, "critic_tau": 1, "encoder_tau": 1, "eval_epsilon": 1, "n_step": 1_000}
    for name, value in most.items():
        if getattr(agent, name, 0) > value:
            raise UserError(f"{name}={getattr(agent, name)}: it must not exceed {value}.")
