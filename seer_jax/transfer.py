"""An encoder that another run has trained, for a run that begins with it frozen.

The two runs must see alike: the same frames, the same crops, the same convolutions. The task, the
heads and everything else may differ. Only what the run freezes is taken: with
`frozen_depth="convs"` its projections begin anew.
"""

import pathlib
from typing import Any

import jax

from seer_jax import checkpoint, seeds
from seer_jax import config as config_lib
from seer_jax.config import Config
from seer_jax.types import Agent, PyTree, UserError

_OF_RUN = ("algorithm", "image_size", "frame_stack", "render_quality")
_OF_AGENT = ("encoder", "crop_size", "pixel_offset", "num_filters", "strides", "latent_size")


def check(source: Config, config: Config) -> None:
    """Raises `UserError` if the encoder of one run cannot be that of another."""
    there, here = _sight(source), _sight(config)
    if getattr(config.agent, "frozen_depth", None) == "convs":  # the projections begin anew
        del there["latent_size"], here["latent_size"]
    if there != here:
        different = ", ".join(
            f"{name}={there[name]} there and {here[name]} here"
            for name in here
            if there[name] != here[name]
        )
        raise UserError(f"The encoder of {config.encoder_from} sees in another way: {different}.")


def _sight(config: Config) -> dict[str, Any]:
    """What decides how a run's encoder sees, by name; None for what its agent has not."""
    of_agent = {name: getattr(config.agent, name, None) for name in _OF_AGENT}
    return {name: getattr(config, name) for name in _OF_RUN} | of_agent


def read_encoder(config: Config, agent: Agent) -> PyTree:
    """The encoder of the newest checkpoint in `config.encoder_from`, frozen there or not; that of
    the first run where there are several.

    Raises:
        UserError: if there is none, or it does not see as this run does.
    """
    logdir = pathlib.Path(config.encoder_from)
    source = config_lib.read(logdir)
    check(source, config)
    saved, _ = checkpoint.restore_state(logdir)
    if source.num_seeds > 1:
        saved = seeds.pick(saved, 0)
    # Frozen there or trained, or some of it this and some that: no part is in both.
    arrays = {
        path.removeprefix(".frozen").removeprefix(".params.encoder"): x for path, x in saved.items()
    }
    template = jax.eval_shape(lambda key: agent.freeze(agent.init(key)).frozen, jax.random.key(0))
    try:
        return jax.device_put(checkpoint.rebuild(template, arrays))
    except UserError as error:
        raise UserError(
            f"The encoder of {logdir} does not fit this run's: one of them may see grey pictures "
            f"and the other colours, or be of another version of seer_jax. ({error})"
        ) from error
