"""A 2-D convolution and a pooling that are fast on CPUs too.

Where the stride is the kernel's size, no two windows overlap, and the convolution is one matrix
product of the image cut into tiles, on any device and in both directions.

XLA runs the forward pass and the input gradient of a small convolution near a CPU's matmul rate,
but the weight gradient of a large batch at a fraction of it. Here, on CPU only, that gradient is a
sum over groups of images that stay in cache, and each is a convolution once more, whose channels
are the images: a matrix product for every place in the picture, without unfolding it into patches.
And within a loop both gradients are slow unless they are written as the forward pass is. The
numbers are the same up to summation order; docs/performance.md has the measurements.

The gradient of XLA's pooling, a search of each window, takes longer than all convolutions around
it. So `max_pool` takes maxima along one axis and then the other, of slices of a reshaped array: the
gradient of each is a plain selection.
"""

import functools
import platform
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from seer_jax.types import Array

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")

# Bytes of a group of images and their output gradients; measured.
_GROUP = 5 << 20
# Side of the smallest tile that is copied strip by strip; measured on CPUs.
_COPIED_TILE = 4


def compiler_options() -> dict[str, Any]:
    """XLA's, for programs with convolutions: on an x86 CPU those of oneDNN instead of YNNPACK's,
    which copy more. Matrix products and reductions stay with YNNPACK."""
    if jax.default_backend() != "cpu" or platform.machine() not in ("x86_64", "AMD64"):
        return {}
    kept = ("INDIVIDUAL_DOT", "REDUCE")
    return {
        "xla_cpu_experimental_onednn_custom_call": True,
        "xla_cpu_experimental_ynn_fusion_type": ",".join(f"LIBRARY_FUSION_TYPE_{x}" for x in kept),
    }


def conv2d(x: Array, kernel: Array, stride: int) -> Array:
    """Unpadded convolution: x f32[B, H, W, C], kernel f32[h, w, C, D] -> f32[B, H', W', D]."""
    if kernel.shape[:2] == (stride, stride):
        return tiles(x, stride) @ kernel.reshape(-1, kernel.shape[-1])
    return _conv(x, kernel, stride)


def tiles(x: Array, size: int) -> Array:
    """Cuts images [B, H, W, C] into squares [B, H', W', size * size * C]; a rest is left out."""
    batch, height, width, channels = x.shape
    rows, columns = height // size, width // size
    strips = x[:, : rows * size, : columns * size].reshape(
        batch, rows, size, columns, size * channels
    )
    if size < _COPIED_TILE:
        return strips.transpose(0, 1, 3, 2, 4).reshape(batch, rows, columns, -1)
    cut = jnp.concatenate([strips[:, :, i] for i in range(size)], axis=-1)
    # Apart: fused with what reads them, they are no copies but worked out number by number.
    return lax.optimization_barrier(cut)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x: Array, kernel: Array, stride: int) -> Array:
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), "VALID", dimension_numbers=_DIMENSIONS
    )


def _forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return _conv(x, kernel, stride), (x, kernel)


def _backward(stride: int, saved: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    x, kernel = saved
    plain = functools.partial(
        lax.conv_general_dilated,
        window_strides=(stride, stride),
        padding="VALID",
        dimension_numbers=_DIMENSIONS,
    )
    x_grad = lax.platform_dependent(
        kernel,
        grad,
        default=lambda kernel, grad: jax.vjp(lambda x: plain(x, kernel), x)[1](grad)[0],
        cpu=lambda kernel, grad: _input_grad(kernel, grad, x.shape, stride),
    )
    return x_grad, lax.platform_dependent(
        x,
        grad,
        default=lambda x, grad: jax.vjp(lambda kernel: plain(x, kernel), kernel)[1](grad)[0],
        cpu=lambda x, grad: _kernel_grad(x, grad, kernel.shape, stride),
    )


_conv.defvjp(_forward, _backward)


# XLA's CPU compiler brings convolutions into the form it is fast with only outside loops. These two
# are in it already, kernels turned and dimensions in the order of `_DIMENSIONS`.


def _input_grad(kernel: Array, grad: Array, shape: tuple[int, ...], stride: int) -> Array:
    """The convolution of output gradients, spread by the stride, with the turned kernel."""
    height, width = kernel.shape[:2]
    rows, columns = (stride * (out - 1) + 1 for out in grad.shape[1:3])
    return lax.conv_general_dilated(
        grad,
        kernel[::-1, ::-1].swapaxes(2, 3),
        (1, 1),
        [(height - 1, shape[1] - rows), (width - 1, shape[2] - columns)],
        lhs_dilation=(stride, stride),
        dimension_numbers=_DIMENSIONS,
    )


def _kernel_grad(x: Array, grad: Array, shape: tuple[int, ...], stride: int) -> Array:
    """The convolution of inputs with output gradients, over images instead of channels, summed over
    groups of images.

    Columns and channels are one axis, so that a step of the kernel is as many numbers as there are
    channels: with channels for a batch, the products would have a kernel's width of rows.
    """
    height, width, channels, features = shape
    batch, out_height, out_width, _ = grad.shape
    rows = stride * (out_height - 1) + height
    columns = stride * (out_width - 1) + width
    most = max(1, _GROUP * batch // (x.nbytes + grad.nbytes))
    group = max(n for n in range(1, batch + 1) if batch % n == 0 and n <= most)

    def add_group(total: Array, images_and_grads: tuple[Array, Array]) -> tuple[Array, None]:
        images, grads = images_and_grads
        images = images[:, :rows, :columns].transpose(1, 2, 3, 0)
        # Asked for float32, XLA would widen bfloat16 operands first, and a CPU's units for them
        # would idle.
        found = lax.conv_general_dilated(
            images.reshape(1, rows, columns * channels, group),
            grads.transpose(1, 2, 0, 3),
            (1, 1),
            "VALID",
            rhs_dilation=(stride, stride * channels),
            dimension_numbers=_DIMENSIONS,
        )
        return total + found, None

    grouped = lambda x: x.reshape(batch // group, group, *x.shape[1:])
    wide = jnp.promote_types(grad.dtype, jnp.float32)  # of so many bfloat16 numbers
    zero = jnp.zeros((1, height, width * channels, features), wide)
    total, _ = lax.scan(add_group, zero, (grouped(x), grouped(grad)))
    return total.reshape(shape).astype(grad.dtype)


def max_pool(x: Array) -> Array:
    """Maxima of 3x3 windows at stride 2, padded by 1: f32[B, H, W, C] -> f32[B, H', W', C] with
    H' = ceil(H / 2). A gradient goes to the first of equals, and a NaN may be passed over."""
    return _max_along(_max_along(x, 1), 2)


def _max_along(x: Array, axis: int) -> Array:
    """Window i holds elements 2i - 1, 2i and 2i + 1: a pair, and the second of the pair before."""
    windows = -(-x.shape[axis] // 2)
    least = jnp.array(-jnp.inf, x.dtype)
    padding = [(0, 0, 0)] * x.ndim
    padding[axis] = (0, 2 * windows - x.shape[axis], 0)
    pairs = lax.pad(x, least, padding)
    pairs = pairs.reshape(*x.shape[:axis], windows, 2, *x.shape[axis + 1 :])
    even, odd = (lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in range(2))
    padding[axis] = (1, -1, 0)
    before = lax.pad(odd, least, padding)
    best = jnp.where(even > before, even, before)
    return jnp.where(odd > best, odd, best)
