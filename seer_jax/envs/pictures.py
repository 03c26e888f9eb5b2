"""Pictures in other sizes."""

import numpy as np

from seer_jax.interface import UserError


def resample(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture [H, W, C] as [height, width, C]: each new pixel the nearest old one, for people."""
    rows = np.arange(height) * picture.shape[0] // height
    columns = np.arange(width) * picture.shape[1] // width
    return picture[rows][:, columns]


def rgb(picture: np.ndarray) -> np.ndarray:
    """A picture u8[H, W, C] as u8[H, W, 3]: grey, of its last channel, unless it has three."""
    return picture if picture.shape[-1] == 3 else np.repeat(picture[..., -1:], 3, axis=-1)


def shrink(picture: np.ndarray, size: int) -> np.ndarray:
    """A picture u8[H, W, C] as u8[size, size, C]: each new pixel the mean of those it covers.

    Raises:
        UserError: if the picture is smaller.
    """
    height, width = picture.shape[:2]
    if min(height, width) < size:
        raise UserError(
            f"image_size={size} is larger than the environment's pictures ({height} x {width}): "
            "lower --image_size."
        )
    if height == width == size:
        return picture
    rows, columns = np.arange(size) * height // size, np.arange(size) * width // size
    sums = np.add.reduceat(picture.astype(np.uint32), rows, axis=0)
    sums = np.add.reduceat(sums, columns, axis=1)
    covered = np.outer(np.diff([*rows, height]), np.diff([*columns, width]))
    return (sums / covered[..., None] + 0.5).astype(np.uint8)
