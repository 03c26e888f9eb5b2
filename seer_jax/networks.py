"""Networks, and the only file that imports flax.linen: encoders below, heads after them.

Parameters are explicit pytrees made by `init` and used by `apply`; no module keeps state.
"""

import flax.linen as nn
import jax.numpy as jnp

from seer_jax import conv
from seer_jax.types import Array, Key

_orthogonal = nn.initializers.orthogonal()


def _delta_orthogonal(key: Key, shape: tuple[int, ...]) -> Array:
    """Orthogonal on the kernel's centre, zero elsewhere, with ReLU's gain (arXiv 1806.05393).

    `jax.nn.initializers.delta_orthogonal` refuses more inputs than outputs; torch, and so the
    official code, takes them.
    """
    centre = nn.initializers.orthogonal(scale=2**0.5)(key, shape[2:], jnp.float32)
    return jnp.zeros(shape).at[shape[0] // 2, shape[1] // 2].set(centre)


class Conv(nn.Module):
    """Square unpadded convolution with bias: f32[B, H, W, C] -> f32[B, H', W', features]."""

    features: int
    size: int
    stride: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", _delta_orthogonal, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return conv.conv2d(x, kernel, self.stride) + bias


class PixelConvs(nn.Module):
    """The convolutions of the CURL/SAC-AE pixel encoder: 3x3, ReLU, flattened as (H, W, C)."""

    num_filters: int
    strides: tuple[int, ...]
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        """obs u8[B, H, W, C] -> f32[B, H' * W' * num_filters]."""
        x = obs.astype(self.dtype) / 255
        for i, stride in enumerate(self.strides):
            x = nn.relu(Conv(self.num_filters, 3, stride, name=f"conv{i}")(x))
        return x.reshape(x.shape[0], -1)


class Projection(nn.Module):
    """From flattened convolutions to a latent: dense, then LayerNorm (no tanh)."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """f32[B, D] -> f32[B, features]."""
        x = nn.Dense(self.features, kernel_init=_orthogonal, name="fc")(x)
        # torch's LayerNorm, which the official encoder uses, has this epsilon and subtracts the
        # mean before it squares.
        return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name="ln")(x)


class Mlp(nn.Module):
    """Two hidden ReLU layers and a linear output."""

    hidden: int
    outputs: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for i in range(2):
            x = nn.relu(nn.Dense(self.hidden, kernel_init=_orthogonal, name=f"dense{i}")(x))
        return nn.Dense(self.outputs, kernel_init=_orthogonal, name="dense2")(x)


class TwinQ(nn.Module):
    """Two Q functions of a latent and an action, as parameters with a leading axis of 2."""

    hidden: int

    @nn.compact
    def __call__(self, latent: Array, action: Array) -> Array:
        """latent f32[B, L], action f32[B, A] -> f32[2, B]."""
        twins = nn.vmap(
            Mlp,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=None,
            axis_size=2,
        )(self.hidden, 1, name="q")
        return twins(jnp.concatenate([latent, action], axis=-1))[..., 0]


class GaussianPolicy(nn.Module):
    """Mean and log standard deviation of a Gaussian before its tanh; log_std in [-10, 2]."""

    hidden: int
    action_dim: int

    @nn.compact
    def __call__(self, latent: Array) -> tuple[Array, Array]:
        """latent f32[B, L] -> (mean f32[B, A], log_std f32[B, A])."""
        outputs = Mlp(self.hidden, 2 * self.action_dim, name="policy")(latent)
        mean, log_std = jnp.split(outputs, 2, axis=-1)
        return mean, -10 + 6 * (jnp.tanh(log_std) + 1)


def conv_output_sizes(size: int, strides: tuple[int, ...]) -> list[int]:
    """Sides of the outputs of `PixelConvs` on a square input of this side."""
    sizes = []
    for stride in strides:
        size = (size - 3) // stride + 1
        sizes.append(size)
    return sizes
