"""Latents in 8 bits: what is stored can be told by hand, and what is lost is reported."""

import jax.numpy as jnp
import numpy as np
import pytest

from seer_jax import quantise

LATENTS = {"a": np.float32([[0.0, 10.0], [2.55, 1.0]]), "b": np.float32([[-4.0], [1.0]])}


def test_codes_by_hand():
    relu = {"a": LATENTS["a"]}
    scale = quantise.fit([relu], "uint8")
    np.testing.assert_allclose(scale["a"], [0.01, 10 / 255], rtol=1e-6)
    codes = quantise.encode(relu, scale, "uint8")["a"]
    assert codes.dtype == jnp.uint8
    np.testing.assert_array_equal(codes, [[0, 255], [255, 26]])

    signed = {"b": LATENTS["b"]}
    scale = quantise.fit([signed], "int8")
    codes = quantise.encode(signed, scale, "int8")["b"]
    assert codes.dtype == jnp.int8
    np.testing.assert_array_equal(codes, [[-127], [32]])


def test_the_scale_is_of_the_largest_in_any_part():
    parts = [np.float32([x]) for x in ([1, 30], [20, 3], [5, 5])]
    scale = quantise.fit(parts, "uint8")
    np.testing.assert_allclose(scale, np.float32([20, 30]) / 255, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_there_and_back_within_half_a_step(dtype):
    z = np.random.default_rng(0).normal(size=(100, 7)).astype(np.float32) * np.arange(1, 8)
    z = abs(z) if dtype == "uint8" else z
    scale = quantise.fit([z], dtype)
    back = quantise.decode(quantise.encode(z, scale, dtype), scale)
    assert np.all(abs(back - z) <= scale / 2 + 1e-6)
    assert quantise.scale_shape(quantise.encode(z, scale, dtype)).shape == (7,)


def test_a_dimension_that_is_always_zero():
    z = np.zeros((5, 3), np.float32)
    scale = quantise.fit([z], "uint8")
    np.testing.assert_array_equal(quantise.decode(quantise.encode(z, scale, "uint8"), scale), z)


def test_floats_need_no_scale():
    for dtype in ("float32", "bfloat16"):
        assert quantise.fit([LATENTS], dtype) is None
        stored = quantise.encode(LATENTS, None, dtype)
        assert {x.dtype.name for x in stored.values()} == {dtype}
        assert quantise.scale_shape(stored) is None
        assert quantise.quality(LATENTS, None, dtype) == {}


def test_what_is_clipped_is_counted():
    scale = {"z": jnp.float32([0.01])}  # up to 2.55
    z = {"z": jnp.float32([[1.0], [2.55], [3.55], [5.1]])}
    quality = quantise.quality(z, scale, "uint8")
    assert quality["latent/clipped"] == pytest.approx(0.5)
    lost = np.sqrt((1.0**2 + 2.55**2) / (1.0**2 + 2.55**2 + 3.55**2 + 5.1**2))
    assert quality["latent/error"] == pytest.approx(lost, rel=1e-4)
