"""The presets: what a run of a task is, but for the flags that are given."""

import dataclasses

from seer_jax.agents import curl_sac, rainbow
from seer_jax.config import Config, Preset, is_atari, is_gymnasium
from seer_jax.types import UserError

# PlaNet's action repeats (arXiv 1811.04551), as the official script's 8 for cartpole is. For other
# domains we take 2, as DrQ-v2 does.
_ACTION_REPEAT = {
    "cartpole": 8,
    "reacher": 4,
    "cheetah": 4,
    "ball_in_cup": 4,
    "finger": 2,
    "walker": 2,
}
_DEFAULT_ACTION_REPEAT = 2


def for_task(task: str, preset: Preset, num_steps: int | None = None) -> Config:
    """The preset's configuration for a task: `domain_task`, or an Atari game such as `Alien`.

    Args:
        task: as runs keep it.
        preset: its name.
        num_steps: length of the run, if not the preset's; it freezes at the same share of it.

    Raises:
        UserError: if the preset is not for such tasks.
    """
    presets = _DMC_PRESETS
    if is_atari(task):
        presets = _ATARI_PRESETS
    elif is_gymnasium(task):
        presets = _GYMNASIUM_PRESETS
    if preset not in presets:
        raise UserError(f"preset={preset} is not for {task}: choose {' or '.join(presets)}.")
    config = presets[preset](task)
    if num_steps is not None:
        assert isinstance(config.freeze_step, int)
        freeze_step = config.freeze_step * num_steps // config.num_steps
        config = dataclasses.replace(config, num_steps=num_steps, freeze_step=freeze_step)
    return dataclasses.replace(
        config, freeze_earliest=config.num_steps // 16, freeze_latest=config.num_steps * 5 // 6
    )


def _paper(task: str) -> Config:
    """The official script's hyperparameters, with PlaNet's action repeats.

    The official code has a script for cartpole_swingup alone: 80,000 steps, of which replay holds
    as many rows. Elsewhere a run is 500,000 environment steps, as the paper's curves are, and
    freezes at the same eighth; cheetah_run's learning rate is CURL's (arXiv 2004.04136).
    """
    repeat = _action_repeat(task)
    num_steps = 80_000 if task == "cartpole_swingup" else 500_000 // repeat
    lr = 2e-4 if task == "cheetah_run" else 1e-3
    return Config(
        task=task,
        preset="paper",
        num_steps=num_steps,
        freeze_step=num_steps // 8,
        replay_capacity=80_000 if task == "cartpole_swingup" else 100_000,
        action_repeat=repeat,
        agent=curl_sac.Config(critic_lr=lr, actor_lr=lr, encoder_lr=lr),
    )


def _quick(task: str) -> Config:
    """A smaller agent on smaller, plainer pictures: minutes on two CPU cores.

    Its crops move by 4 pixels of 52, not by 16 of 100: less of a small picture is lost. The first
    convolution's windows do not overlap, so that it is one matrix product, and 32 filters keep a
    CPU busier than fewer do. In so few updates the official target network (critic_tau=0.01) lets
    values reach half of what they should be, and the official temperature (alpha_lr=1e-4) stays
    where it began; returns over three steps, a faster target and a faster temperature let them
    arrive. The convolutions soon tell how a pole near the top leans, the projections after them do
    not yet: so those go on learning. And in so short a run a freeze at 10,000 costs some return.
    """
    return dataclasses.replace(
        _paper(task),
        preset="quick",
        num_steps=15_000,
        freeze_step=12_500,
        latent_dtype="uint8",
        replay_capacity=20_000,
        learning_starts=500,
        batch_size=64,
        image_size=52,
        render_quality="fast",
        eval_episodes=5,
        agent=curl_sac.Config(
            crop_size=48,
            pixel_offset=0.35,
            strides=(3, 2, 1),
            latent_size=100,
            hidden_size=512,
            alpha_lr=1e-3,
            n_step=3,
            critic_tau=0.05,
            frozen_depth="convs",
        ),
    )


def _atari_paper(task: str) -> Config:
    """The official script's hyperparameters: data-efficient Rainbow."""
    return Config(
        task=task,
        preset="paper",
        num_steps=500_000,
        freeze_step=50_004,
        num_copies=1,  # nothing is augmented
        replay_capacity=500_000,
        learning_starts=1_600,
        batch_size=32,
        frame_stack=4,
        image_size=84,
        action_repeat=4,
        eval_every=10_000,
        checkpoint_every=10_000,
        log_every=500,
        agent=rainbow.Config(),
    )


def _atari_100k(task: str) -> Config:
    """The same agent for 100,000 steps. It freezes where the official script does, not at the same
    tenth of a run: by 10,000 steps the encoder has seen few rewards, by 50,000 it is at rest
    (docs/freezing.md)."""
    return dataclasses.replace(
        _atari_paper(task),
        preset="atari100k",
        num_steps=100_000,
        freeze_step=50_000,
        replay_capacity=100_000,
    )


def _atari_quick(task: str) -> Config:
    """The same agent for a first look: minutes on two CPU cores."""
    return dataclasses.replace(
        _atari_paper(task),
        preset="quick",
        num_steps=30_000,
        freeze_step=10_000,
        replay_capacity=30_000,
        eval_every=5_000,
        checkpoint_every=5_000,
        eval_episodes=5,
    )


def _gymnasium_paper(task: str) -> Config:
    """CURL-SAC as on the suite. Pictures of 96 pixels, as CarRacing's are; crops of 84."""
    return dataclasses.replace(_paper(task), image_size=96)


def _gymnasium_quick(task: str) -> Config:
    return dataclasses.replace(_quick(task), render_quality="full")


_DMC_PRESETS = {"paper": _paper, "quick": _quick}
_GYMNASIUM_PRESETS = {"paper": _gymnasium_paper, "quick": _gymnasium_quick}
_ATARI_PRESETS = {"paper": _atari_paper, "atari100k": _atari_100k, "quick": _atari_quick}


def _action_repeat(task: str) -> int:
    for domain, repeat in _ACTION_REPEAT.items():
        if task.startswith(domain + "_"):
            return repeat
    return _DEFAULT_ACTION_REPEAT
