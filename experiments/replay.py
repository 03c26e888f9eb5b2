"""What should replay keep, and how should it be drawn? The preset, with fewer rows or by priority.

    python -m experiments.replay --methods 2500_rows preset --seeds 0 1 2 --jobs 2
    python -m experiments.replay --task=Krull --methods prioritised preset --seeds 0 1 2 --jobs 2

Replay keeps the newest rows, as frames before the freeze and as latents after it. `quick` has room
for all of a run's and draws them uniformly.

One core of an AMD EPYC (Zen 3) each: cartpole_swingup takes 16 to 26 minutes a run beside others,
Krull 10. docs/results.md says what came out.
"""

from experiments.study import Study, run_study

STUDY = Study(
    name="replay",
    methods={
        "preset": [],
        "1000_rows": ["--replay_capacity=1000"],
        "2500_rows": ["--replay_capacity=2500"],
        "prioritised": ["--replay=prioritised"],
    },
    task="cartpole_swingup",
    preset="quick",
)

if __name__ == "__main__":
    run_study(STUDY, __doc__.splitlines()[0])
