"""SEER in JAX: off-policy RL from pixels with a frozen encoder and stored latents."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seer_jax.policy import Policy

__version__ = "0.1.0"


def load_policy(logdir: str, seed: int | None = None, step: int | None = None) -> "Policy":
    """The greedy policy of a run folder: `action = policy(timestep)`. See `seer_jax.policy`.

    `seed` says which of several runs (`--num_seeds`); None: the first. `step` says which of its
    checkpoints (`--keep_checkpoints`); None: the newest.
    """
    from seer_jax import policy  # late: importing seer_jax alone stays light

    return policy.Policy(logdir, seed, step)
