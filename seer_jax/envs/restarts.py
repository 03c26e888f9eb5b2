"""For simulators that cannot be saved: a restored run begins new episodes from its own seed."""

import numpy as np


def moment(seed: int, steps: int) -> dict[str, np.ndarray]:
    """Identifies a moment: the seed, and the steps since it was set."""
    return {"seed": np.asarray(seed), "steps": np.asarray(steps)}


def seed_after(moment: dict[str, np.ndarray]) -> int:
    """The seed, 0 to 2**32 - 1, of the episodes that follow a restored moment."""
    mixed = np.random.SeedSequence([int(moment["seed"]), int(moment["steps"])])
    return int(mixed.generate_state(1)[0])
