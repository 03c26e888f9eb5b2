"""When to freeze: each seed frozen at several steps, automatically, and never.

    python -m experiments.freezing_step --freeze_steps 5000 7500 10000 --seeds 0 1 2 --jobs 2
    python -m experiments.freezing_step --task=Alien --preset=atari100k --freeze_steps 50000 auto

Until it freezes, a run is the same whenever it will. So each seed runs once without a freeze, or
with `auto` if that is among the steps, and keeps all its checkpoints; the others go on as copies
from the last one they share. Their hours and FLOPs count from the start. On Atari a copy's first
episode is a new one, as an emulator's state is not in a checkpoint. Copies are the cheaper, the
shorter --checkpoint_every.
"""

import argparse
import sys

from experiments.study import Study, run_study


def main(argv: list[str] | None = None) -> None:
    """Reads the freezing steps and runs the study."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--freeze_steps", nargs="+", default=["5000", "7500", "10000"])
    args, rest = parser.parse_known_args(argv)
    study = Study(
        name="freezing_step",
        methods={step: [f"--freeze_step={step}"] for step in [*args.freeze_steps, "never"]},
        task="cartpole_swingup",
        preset="quick",
        copies_of="auto" if "auto" in args.freeze_steps else "never",
    )
    run_study(study, __doc__.splitlines()[0] + " --freeze_steps STEP ...", rest)


if __name__ == "__main__":
    main(sys.argv[1:])
