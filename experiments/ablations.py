"""How to freeze: what K, the depth of the freeze and the storage of latents do for the return.

    python -m experiments.ablations --methods quick at_10000 never --seeds 0 1 2 --jobs 2

Each method changes a thing or two about `quick`, which keeps K = 4 crops of the convolutions'
features in 8 bits from step 12,500 of 15,000 on. What the others change about latents they do from
step 10,000 on, where it shows more. All of it acts from the freeze on, so each seed runs once
without a freeze and copies of it freeze, as in experiments.freezing_step.

cartpole_swingup, one core of an AMD EPYC (Zen 3) each: 20 minutes a seed without a freeze, 1 to 5
for each copy. docs/results.md says what came out.
"""

from experiments.study import Study, run_study

_AT_10000 = ["--freeze_step=10000"]
_AT_7500 = ["--freeze_step=7500"]

STUDY = Study(
    name="ablations",
    methods={
        "quick": [],
        "at_10000": _AT_10000,
        "at_7500": _AT_7500,
        "at_10000_two_updates": [*_AT_10000, "--frozen_updates=2"],
        "at_7500_two_updates": [*_AT_7500, "--frozen_updates=2"],
        "one_copy": [*_AT_10000, "--num_copies=1"],
        "float32": [*_AT_10000, "--latent_dtype=float32"],
        "shift": [*_AT_10000, "--num_copies=1", "--latent_shift"],
        "projection": [*_AT_10000, "--frozen_depth=projection", "--latent_dtype=float32"],
        "never": ["--freeze_step=never"],
    },
    task="cartpole_swingup",
    preset="quick",
    copies_of="never",
)

if __name__ == "__main__":
    run_study(STUDY, __doc__.splitlines()[0])
