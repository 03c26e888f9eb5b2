"""The shared formulas, against numbers worked out by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seer_jax import losses


def test_tanh_gaussian_by_hand():
    """Two action dimensions: mean 0.5 and -1, deviation 2 and 1/2, noise 0.25 and -1."""
    mean, log_std = jnp.array([[0.5, -1.0]]), jnp.log(jnp.array([[2.0, 0.5]]))
    action, log_prob = losses.tanh_gaussian(mean, log_std, jnp.array([[0.25, -1.0]]))
    expected = [math.tanh(0.5 + 0.25 * 2.0), math.tanh(-1.0 - 1.0 * 0.5)]
    np.testing.assert_allclose(action, [expected], rtol=1e-6)

    normal = lambda noise, std: math.exp(-0.5 * noise**2) / (std * math.sqrt(2 * math.pi))
    density = normal(0.25, 2.0) * normal(-1.0, 0.5)
    for x in expected:
        density /= 1 - x**2 + 1e-6  # the tanh's change of volume, guarded against 0
    np.testing.assert_allclose(log_prob, [math.log(density)], rtol=1e-5)


def test_the_density_of_tanh_gaussian_integrates_to_one():
    noise = np.linspace(-8, 8, 4001, dtype=np.float32)[:, None]
    ones = np.ones_like(noise)
    action, log_prob = losses.tanh_gaussian(0.3 * ones, -0.2 * ones, noise)
    assert np.trapezoid(np.exp(log_prob), action[:, 0]) == pytest.approx(1, abs=1e-3)


def test_tanh_gaussian_stays_finite_where_tanh_saturates():
    loss = lambda mean: jnp.sum(losses.tanh_gaussian(mean, mean * 0, mean * 0)[1])
    value, grad = jax.value_and_grad(loss)(jnp.array([[100.0], [-100.0]]))
    assert jnp.isfinite(value) and jnp.all(jnp.isfinite(grad))


def test_info_nce_by_hand():
    """Logits of anchor i and positive j are anchor_i^T W positive_j; the right class is i.

    W positive: (1, 0) -> (1, 3) and (0, 1) -> (2, 4). With anchors (1, 0) and (0, 1) the logits are
    [[1, 2], [3, 4]], and the loss the mean of -1 + log(e^1 + e^2) and -4 + log(e^3 + e^4).
    """
    similarity = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    loss = losses.info_nce(jnp.eye(2), jnp.eye(2), similarity)
    by_row = [-1 + math.log(math.e + math.e**2), -4 + math.log(math.e**3 + math.e**4)]
    assert float(loss) == pytest.approx(sum(by_row) / 2, rel=1e-6)


def test_info_nce_tells_anchor_from_positive():
    """Swapped, the roles give the loss of the transposed logits, another number."""
    anchor, positive = jnp.array([[1.0, 0.0], [2.0, 0.0]]), jnp.eye(2)
    similarity = jnp.array([[0.0, 1.0], [0.0, 0.0]])
    # Logits [[0, 1], [0, 2]].
    expected = [math.log(1 + math.e), -2 + math.log(1 + math.e**2)]
    assert float(losses.info_nce(anchor, positive, similarity)) == pytest.approx(sum(expected) / 2)


@pytest.mark.parametrize("shapes", [((2,), (2,)), ((2, 3), (2, 2))])
def test_wrong_shapes_are_refused(shapes):
    first, second = (jnp.zeros(shape) for shape in shapes)
    with pytest.raises(AssertionError):
        losses.tanh_gaussian(first, second, first)
    with pytest.raises(AssertionError):
        losses.info_nce(first, second, jnp.zeros((3, 3)))
