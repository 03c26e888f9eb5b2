"""The same bytes of replay for frames and for latents: what do more rows do for the score?

    python -m experiments.equal_memory --task=Krull --jobs 2

Replay has the bytes of 10,000 Atari frames in every run, before the freeze and after it, and keeps
frames to the end, or from step 25,000 on latents in float32 or in 8 bits. Until then runs are the
same, so these two begin as copies of the first; as an emulator's state is not in a
checkpoint, their first episode after the freeze is a new one.
"""

from experiments.study import Study, run_study

_MEMORY = [
    f"--replay_memory={10_000 * (84 * 84 + 16)}",  # a row is a frame and 16 bytes beside it
    "--checkpoint_every=5000",  # one of them at the freeze
]
_LATENTS = [*_MEMORY, "--freeze_step=25000"]

STUDY = Study(
    name="equal_memory",
    methods={
        "frames": [*_MEMORY, "--freeze_step=never"],
        "float32": [*_LATENTS, "--latent_dtype=float32"],
        "uint8": [*_LATENTS, "--latent_dtype=uint8"],
    },
    task="Krull",
    preset="atari100k",
    copies_of="frames",
)

if __name__ == "__main__":
    run_study(STUDY, __doc__.splitlines()[0])
