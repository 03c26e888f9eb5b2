"""Does an encoder of another task serve this one, frozen from the first step?

It comes from a run on a source task, or is a random one; beside them the preset, which trains its
own.

    python -m experiments.transfer --source=cartpole_balance --task=cartpole_swingup --jobs 2
    python -m experiments.transfer --source=RoadRunner --task=Krull --jobs 2
    python -m experiments.transfer --source=walker_stand --task=walker_walk --preset=paper

Each seed is trained on the source task first. By `quick` on the suite only the convolutions are
taken over, and 8-bit latents freeze after the random steps, from whose rows their scale is taken.
"""

from experiments.study import Study, run_study

STUDY = Study(
    name="transfer",
    methods={
        "transferred": ["--freeze_step=0", "--encoder_from={source}"],
        "random": ["--freeze_step=0"],
        "scratch": [],
    },
    task="cartpole_swingup",
    preset="quick",
    source="cartpole_balance",
)

if __name__ == "__main__":
    run_study(STUDY, __doc__.splitlines()[0])
