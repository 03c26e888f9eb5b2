"""How to freeze: what K, the depth of the freeze and the storage of latents do for the return.

    python -m experiments.ablations --methods quick one_update never --seeds 0 1 2 --jobs 2

Each method changes one thing about `quick`, which keeps K = 4 crops of the convolutions' features
in 8 bits and makes two updates a step from them. All of it acts from the freeze on, so each seed
runs once without a freeze and copies of it freeze, as in experiments.freezing_step; the freezing
step is a multiple of --checkpoint_every.

finger_spin, three seeds, one core of an AMD EPYC (Zen 1) each: some 50 minutes a seed without a
freeze, and 6 for each copy. `quick` ended at returns of 521, 267 and 442, with one update at 429,
360 and 327, without a freeze at 474, 250 and 355.
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
    task="cartpole_swingup",
    preset="quick",
    copies_of="never",
)

if __name__ == "__main__":
    run_study(STUDY, __doc__.splitlines()[0])
