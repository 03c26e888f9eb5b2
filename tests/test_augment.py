"""Crops and shifts: which offsets they reach, and that all channels move together."""

import jax
import jax.numpy as jnp
import numpy as np

from seer_jax import augment


def pixels(batch, height, width, channels):
    """u8[B, H, W, C] whose values say (10 y + x), plus 100 for each channel after the first."""
    y, x, channel = np.mgrid[:height, :width, :channels]
    return np.broadcast_to(10 * y + x + 100 * channel, (batch, height, width, channels)).astype(
        np.uint8
    )


def test_random_crop_reaches_every_offset_equally():
    """On a frame of 5 x 4 pixels a crop of 3 has 3 x 2 offsets, the last ones included."""
    crops = augment.random_crop(jax.random.key(0), pixels(6000, 5, 4, 1), 3)
    assert crops.shape == (6000, 3, 3, 1) and crops.dtype == jnp.uint8
    corners, counts = np.unique(crops[:, 0, 0, 0], return_counts=True)
    assert corners.tolist() == [0, 1, 10, 11, 20, 21]
    assert abs(counts - 1000).max() < 150  # five standard deviations


def test_random_crop_is_a_window_shared_by_all_channels():
    obs = pixels(64, 5, 5, 2)
    for crop in np.asarray(augment.random_crop(jax.random.key(1), obs, 3)):
        y, x = divmod(int(crop[0, 0, 0]), 10)
        np.testing.assert_array_equal(crop, obs[0, y : y + 3, x : x + 3])


def test_a_crop_of_full_size_changes_nothing():
    obs = pixels(2, 4, 4, 3)
    np.testing.assert_array_equal(augment.random_crop(jax.random.key(0), obs, 4), obs)
    np.testing.assert_array_equal(augment.center_crop(obs, 4), obs)


def test_center_crop():
    """100 to 84 begins at 8; where the middle is between two pixels, it takes the upper left."""
    obs = pixels(1, 5, 4, 1)
    assert augment.center_crop(obs, 3)[0, :, :, 0].tolist() == [
        [10, 11, 12],
        [20, 21, 22],
        [30, 31, 32],
    ]
    rendered = jnp.arange(100 * 100).reshape(1, 100, 100, 1)
    assert augment.center_crop(rendered, 84)[0, 0, 0, 0] == 8 * 100 + 8


def test_a_shift_of_whole_cells_is_the_crop_that_the_key_draws():
    """But for what comes in from beyond the edge, of which the centre crop knows nothing."""
    obs = np.random.default_rng(0).integers(0, 256, (64, 17, 16, 2), np.uint8)
    key, inside = jax.random.key(2), np.s_[:, 3:-3, 2:-2]
    crops = augment.random_crop(key, obs, 12)
    features = np.asarray(augment.center_crop(obs, 12), np.float32)
    shifted = np.asarray(augment.shift(key, features, (5, 4), 1))
    assert crops[inside].size and (crops[inside] != features[inside]).any()
    np.testing.assert_array_equal(shifted[inside], crops[inside])


def test_between_cells_a_shift_interpolates_and_beyond_the_edge_repeats():
    """On a ramp, whose values are places: by up to 2 pixels either way, of 4 to a cell."""
    height, width = 5, 3
    y, x = np.mgrid[:height, :width].astype(np.float32)
    ramp = np.broadcast_to(np.stack([y, x], axis=-1), (4000, height, width, 2))
    shifted = np.asarray(augment.shift(jax.random.key(3), ramp, (4, 4), 4))
    moved = shifted[:, 2, 1] - ramp[:, 2, 1]
    places, counts = np.unique(moved, axis=0, return_counts=True)
    assert sorted(map(tuple, places)) == [
        (a / 4, b / 4) for a in range(-2, 3) for b in range(-2, 3)
    ]
    assert abs(counts - 160).max() < 65  # five standard deviations
    for axis, last in ((0, height - 1), (1, width - 1)):
        by_hand = np.clip(ramp[..., axis] + moved[:, axis, None, None], 0, last)
        np.testing.assert_allclose(shifted[..., axis], by_hand, atol=1e-6)


def test_windows_are_the_same_on_a_tpu():
    x = np.random.default_rng(0).integers(0, 256, (9, 12, 11, 2), np.uint8)
    starts = np.random.default_rng(1).integers(0, (8, 6), (9, 2))  # up to the last that fits
    starts[:2] = (0, 0), (7, 5)
    sliced, taken = (f(x, starts, 5, 6) for f in (augment._slice_windows, augment._take_windows))
    np.testing.assert_array_equal(sliced, taken)
    assert sliced.shape == (9, 5, 6, 2) and sliced.dtype == taken.dtype == jnp.uint8
