"""How to freeze: what K, the depth of the freeze and the storage of latents do for the return.

    python -m experiments.ablations --methods quick one_update never --seeds 0 1 2 --jobs 2

Each method changes one thing about `quick`, which keeps K = 4 crops of the convolutions' features
in 8 bits and makes two updates a step from them. All of it acts from the freeze on, so each seed
runs once without a freeze and copies of it freeze, as in experiments.freezing_step; the freezing
step is a multiple of --checkpoint_every.
"""

from experiments.study import Study, run_study

_PROJECTION = ["--frozen_depth=projection", "--latent_dtype=float32"]

STUDY = Study(
    name="ablations",
    methods={
        "quick": [],
        "one_update": ["--frozen_updates=1"],
        "one_copy": ["--num_copies=1"],
        "float32": ["--latent_dtype=float32"],
        "projection": _PROJECTION,
        "projection_one_copy": [*_PROJECTION, "--num_copies=1"],
        "projection_int8": ["--frozen_depth=projection", "--latent_dtype=int8"],
        "never": ["--freeze_step=never"],
    },
    task="finger_spin",
    preset="quick",
    copies_of="never",
)

if __name__ == "__main__":
    run_study(STUDY, __doc__.splitlines()[0])
