"""Does freezing cost return, and what does it save? The same runs with a freeze, by hand or
automatic, and without.

    python -m experiments.freeze_or_never --jobs 2
    python -m experiments.freeze_or_never --task=Krull --preset=atari100k --jobs 2

Each seed once as the preset says, once with --freeze_step=auto and once with --freeze_step=never.
"""

from experiments.study import Study, run_study

STUDY = Study(
    name="freeze_or_never",
    methods={
        "freeze": [],
        "auto": ["--freeze_step=auto"],
        "never": ["--freeze_step=never"],
    },
    task="cartpole_swingup",
    preset="quick",
)

if __name__ == "__main__":
    run_study(STUDY, __doc__.split("\n\n")[0])
