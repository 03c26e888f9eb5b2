"""The similarity that says whether an encoder still moves, and when an agent has learned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seer_jax import settling


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def test_linear_cka_by_hand():
    """One feature each: CKA is the squared correlation."""
    x, y = jnp.array([[1.0], [2], [3]]), jnp.array([[1.0], [3], [2]])
    np.testing.assert_allclose(settling.linear_cka(x, y), 0.5**2, rtol=1e-5)


def test_rotation_scale_and_shift_do_not_count():
    x = normal(0, 50, 8)
    rotation, _ = jnp.linalg.qr(normal(1, 8, 8))
    np.testing.assert_allclose(settling.linear_cka(x, 3 * x @ rotation + 1), 1, rtol=1e-5)


def test_unlike_features_are_unlike():
    assert settling.linear_cka(normal(0, 500, 4), normal(1, 500, 4)) < 0.05


def test_features_that_do_not_vary_are_like_none():
    assert settling.linear_cka(jnp.ones((5, 3)), normal(0, 5, 3)) == 0


def test_maps_are_taken_as_they_lie():
    x, y = normal(0, 20, 3, 3, 2), normal(1, 20, 3, 3, 2)
    flat = settling.linear_cka(x.reshape(20, -1), y.reshape(20, -1))
    np.testing.assert_allclose(settling.linear_cka(x, y), flat, rtol=1e-6)


@pytest.mark.parametrize("moved", ["critic", "actor"])
def test_a_look_reports_the_kind_of_latents_that_moved_most(moved):
    class Agent:
        encode = staticmethod(lambda encoder, view: {k: view @ w for k, w in encoder.items()})

    view, weights = normal(0, 200, 6), {"critic": jnp.eye(6), "actor": jnp.eye(6)}
    probe = settling.Probe(view, Agent.encode(weights, view))
    weights[moved] = normal(1, 6, 6)
    probe, similarity = settling.look(Agent, weights, probe)
    np.testing.assert_allclose(
        similarity, settling.linear_cka(view, view @ weights[moved]), rtol=1e-5
    )
    assert similarity < 0.95
    np.testing.assert_allclose(settling.look(Agent, weights, probe)[1], 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("returns", "learned"),
    [
        ([], False),
        ([0], False),
        ([0] * 20, False),
        ([3, 0, 9, 4, 1, 9, 2, 9, 0, 9], False),  # as good as the best of the first, no better
        ([3, 0, 9, 4, 1, 10, 2, 10, 0, 10], True),
        ([0, 1, 2, 3, 4, 5, 6], False),  # two new ones
        ([0, 1, 2, 3, 4, 5, 6, 7], True),
        ([-5, -5, -5, -5, -5, -5, -4, -4, -4], True),
        ([10, 10, 10, 10, 10, 1, 1, 1, 1, 1], False),
    ],
)
def test_an_agent_has_learned_once_most_new_episodes_beat_all_of_the_first(returns, learned):
    first, newest = returns[: settling.EPISODES], returns[-settling.EPISODES :]
    assert settling.has_learned(first, newest) is learned
