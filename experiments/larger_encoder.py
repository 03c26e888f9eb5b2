"""A larger encoder: what do runs save, and lose, by a freeze where the encoder is nearly all of the
work?

    python -m experiments.larger_encoder --seeds 0 --jobs 1

Rainbow with IMPALA's encoder on Krull, 30,000 steps. Each seed runs once without a freeze; copies
of it freeze at a third, as the preset says, and at half of the run.

One core of an AMD EPYC (Zen 5), 90 minutes a seed and 10 more for each copy. Seeds 0 and 1 end at
1818 and 2082, at 2390 and 1724, and without a freeze at 1746 and 2616, for 1.6e14, 2.5e14 and
5.0e14 FLOPs: no loss that two seeds show. docs/results.md has the curves.
"""

from experiments.study import Study, run_study

_IMPALA = ["--encoder=impala"]

STUDY = Study(
    name="larger_encoder",
    methods={
        "impala_at_10000": [*_IMPALA, "--freeze_step=10000"],
        "impala_at_15000": [*_IMPALA, "--freeze_step=15000"],
        "impala_never": [*_IMPALA, "--freeze_step=never"],
    },
    task="Krull",
    preset="quick",
    copies_of="impala_never",
)

if __name__ == "__main__":
    run_study(STUDY, __doc__.split("\n\n")[0])
