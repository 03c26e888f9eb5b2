"""The same bytes of replay for frames and for latents: what do more rows do for the score?

    python -m experiments.equal_memory --task=Krull --jobs 2
    python -m experiments.equal_memory --task=cartpole_swingup --preset=quick --jobs 2

Replay has in every run, before the freeze and after it, the bytes of 10,000 Atari frames or, on the
suite, of 1,000 frames of cartpole by `quick`. It keeps frames to the end, or from step 25,000 (on
the suite 10,000) on latents. Until then runs are the same, so the others begin as copies of the one
on frames; as an emulator's state is not in a checkpoint, on Atari their first episode after the
freeze is a new one.

docs/results.md says what came out: latents above frames, on Krull and on cartpole_swingup.
"""

import argparse
import contextlib
import sys

from experiments.study import Study, run_study
from seer_jax import build
from seer_jax.config import is_atari
from seer_jax.types import UserError

# A row is a frame, 12 bytes and the action: 4 on Atari, 4 a dimension on the suite.
_ATARI = [
    f"--replay_memory={10_000 * (84 * 84 + 16)}",
    "--checkpoint_every=5000",  # one of them at the freeze
]
_ATARI_LATENTS = [*_ATARI, "--freeze_step=25000"]
_SUITE = [f"--replay_memory={1_000 * (52 * 52 * 3 + 16)}"]
_SUITE_LATENTS = [*_SUITE, "--freeze_step=10000"]

ATARI = Study(
    name="equal_memory",
    methods={
        "frames": [*_ATARI, "--freeze_step=never"],
        "float32": [*_ATARI_LATENTS, "--latent_dtype=float32"],
        "uint8": [*_ATARI_LATENTS, "--latent_dtype=uint8"],
    },
    task="Krull",
    preset="atari100k",
    copies_of="frames",
)

SUITE = Study(
    name="equal_memory",
    methods={
        "frames": [*_SUITE, "--freeze_step=never"],
        "crops": _SUITE_LATENTS,
        "shift": [*_SUITE_LATENTS, "--num_copies=1", "--latent_shift"],
    },
    task="cartpole_swingup",
    preset="quick",
    copies_of="frames",
)


def main(argv: list[str]) -> None:
    """Chooses by the task."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--task", default=ATARI.task)
    study = ATARI
    with contextlib.suppress(UserError):  # run_study says what is wrong with it
        task = build.parse_task(parser.parse_known_args(argv)[0].task)
        study = ATARI if is_atari(task) else SUITE
    run_study(study, __doc__.splitlines()[0], argv)


if __name__ == "__main__":
    main(sys.argv[1:])
