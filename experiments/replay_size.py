"""How many rows should replay keep? The preset, with fewer rows than steps.

    python -m experiments.replay_size --seeds 0 1 2 --jobs 2

Replay keeps the newest rows, as frames before the freeze and as latents after it. `quick` has room
for all of a run's.

cartpole_swingup, one core of an AMD EPYC (Zen 3) each: 16 to 26 minutes a run beside others. In two
of three seeds 2,500 rows are better than all; docs/results.md has them.
"""

from experiments.study import Study, run_study

STUDY = Study(
    name="replay_size",
    methods={f"{rows}_rows": [f"--replay_capacity={rows}"] for rows in (1_000, 2_500, 20_000)},
    task="cartpole_swingup",
    preset="quick",
)

if __name__ == "__main__":
    run_study(STUDY, __doc__.splitlines()[0])
