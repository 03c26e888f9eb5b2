"""Our Adam takes the steps that optax's takes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from seer_jax import adam


def test_steps_equal_optax():
    gradients = jax.random.normal(jax.random.key(0), (20, 3, 4)) * 10.0 ** jnp.arange(-4, 0)
    ours, theirs = adam.adam(1e-3, b1=0.5), optax.adam(1e-3, b1=0.5)
    params = {"w": jnp.ones((3, 4))}
    states = [ours.init(params), theirs.init(params)]
    stepped = [params, params]
    for gradient in gradients:
        for i, tx in enumerate((ours, theirs)):
            updates, states[i] = tx.update({"w": gradient}, states[i])
            stepped[i] = optax.apply_updates(stepped[i], updates)
        np.testing.assert_allclose(stepped[0]["w"], stepped[1]["w"], rtol=1e-6)
    assert np.abs(stepped[0]["w"] - 1).max() > 1e-3
