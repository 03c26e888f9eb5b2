"""When to freeze: each seed frozen at several steps, and never.

    python -m experiments.freezing_step --freeze_steps 5000 7500 10000 --seeds 0 1 2 --jobs 2

Until it freezes, a run is the same whenever it will. So each seed runs once without a freeze and
keeps all its checkpoints; copies of it freeze at theirs and go on. Their hours and FLOPs count from
the start. On Atari a copy's first episode after the freeze is a new one, as an emulator's state is
not in a checkpoint. Freezing steps are multiples of --checkpoint_every.
"""

import argparse
import sys

from experiments.study import Study, run_study


def main(argv: list[str] | None = None) -> None:
    """Reads the freezing steps and runs the study."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--freeze_steps", type=int, nargs="+", default=[5_000, 7_500, 10_000])
    args, rest = parser.parse_known_args(argv)
    study = Study(
        name="freezing_step",
        methods={str(step): [f"--freeze_step={step}"] for step in args.freeze_steps}
        | {"never": ["--freeze_step=never"]},
        task="cartpole_swingup",
        preset="quick",
        copies_of="never",
    )
    run_study(study, __doc__.splitlines()[0] + " --freeze_steps STEP ...", rest)


if __name__ == "__main__":
    main(sys.argv[1:])
