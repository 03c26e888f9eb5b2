"""Networks, and the only file that imports flax.linen: encoders below, heads after them.

Parameters are explicit pytrees made by `init` and used by `apply`; no module keeps state. They are
float32, and so is what comes out; `dtype` is what a module computes in. In bfloat16, output layers
and normalisation stay float32.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from seer_jax import conv
from seer_jax.types import Array, Key

Noise = tuple[Array, Array]  # of a layer's inputs and outputs
Dtype = jnp.dtype | None  # None: the inputs'


def adds_noise_apart(samples: int) -> bool:
    """Whether a noisy layer takes two products, with means and with spreads: with few samples, as
    in acting, they cost less than weights with noise on them."""
    return samples <= 8


def narrow(compute_dtype: str) -> Dtype:
    """A `compute_dtype` as heads take it: with float32 they follow their inputs, so that what is
    float64 stays so."""
    return None if compute_dtype == "float32" else jnp.dtype(compute_dtype)


def _orthogonal(
    key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32, scale: float = 1.0
) -> Array:
    """Orthogonal rows or columns. Of several networks one after the other: on a CPU, with jax 0.10
    (Python 3.11's), two batches of such matrices at once wait for each other forever."""

    @jax.custom_batching.sequential_vmap
    def draw(key: Key) -> Array:
        return nn.initializers.orthogonal(scale)(key, shape, dtype)

    return draw(key)


def _delta_orthogonal(key: Key, shape: tuple[int, ...]) -> Array:
    """Orthogonal on the kernel's centre, zero elsewhere, with ReLU's gain (arXiv 1806.05393).

    `jax.nn.initializers.delta_orthogonal` refuses more inputs than outputs; torch, and so the
    official code, takes them.
    """
    centre = _orthogonal(key, shape[2:], scale=2**0.5)
    return jnp.zeros(shape).at[shape[0] // 2, shape[1] // 2].set(centre)


def _within(fan_in: int) -> Callable[..., Array]:
    """Uniform within 1/sqrt(fan_in) of 0: torch's default, for kernels and biases."""

    def init(key: Key, shape: tuple[int, ...]) -> Array:
        return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0) / fan_in**0.5

    return init


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _narrow_relu(x: Array, dtype: jnp.dtype) -> Array:
    """A ReLU whose gradient reads what it gives. What it is given is not kept so, and a CPU's
    convolution does it on the way."""
    return nn.relu(x).astype(dtype)


@_narrow_relu.defjvp
def _narrow_relu_jvp(
    dtype: jnp.dtype, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    out = _narrow_relu(*primals, dtype)
    # Not "above 0", which XLA would ask of the input, as it comes to the same.
    return out, jnp.where(out != 0, tangents[0].astype(dtype), 0)


class Conv(nn.Module):
    """Square convolution with bias: f32[B, H, W, C] -> f32[B, H', W', features].

    `init` is "delta_orthogonal" with a bias of zero (SAC-AE), or "uniform", torch's default. `read`
    makes numbers of the u8 pixels that a first layer is given. `relu` ends it with one.
    """

    features: int
    size: int
    stride: int
    pad: int = 0
    init: str = "delta_orthogonal"
    read: Callable[[Array], Array] | None = None
    relu: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.size, self.size, x.shape[-1], self.features)
        inits = _delta_orthogonal, nn.initializers.zeros
        if self.init == "uniform":
            inits = (_within(math.prod(shape[:3])),) * 2
        kernel = self.param("kernel", inits[0], shape)
        bias = self.param("bias", inits[1], (self.features,))

        stride = self.stride
        tiled = self.size == stride and not self.pad
        if tiled:  # before pixels are read: as bytes they are a quarter
            x, kernel = conv.tiles(x, stride), kernel.reshape(1, 1, -1, self.features)
            stride = 1

        def convolve(x: Array, kernel: Array) -> Array:
            if self.read:
                x = self.read(x)
            if self.pad:
                x = jnp.pad(x, ((0, 0), (self.pad, self.pad), (self.pad, self.pad), (0, 0)))
            return conv.conv2d(x, kernel.astype(x.dtype), stride)

        if self.read and not tiled:
            # For the gradient, numbers are made of pixels anew: a quarter of the bytes to keep. But
            # tiles are kept: making them takes longer than reading them.
            convolve = jax.checkpoint(convolve)
        y = convolve(x, kernel)
        # Wide, so that the bias's gradient, a sum over all pixels, is too.
        out = y.astype(_wide(y.dtype)) + bias
        if self.relu and not tiled:
            return _narrow_relu(out, y.dtype)
        out = out.astype(y.dtype)
        return nn.relu(out) if self.relu else out  # of a product of tiles the faster way


def _reader(dtype: jnp.dtype, offset: float = 0.0) -> Callable[[Array], Array]:
    """Makes numbers, less an offset, of u8 pixels."""
    return lambda obs: (obs.astype(_wide(dtype)) / 255 - offset).astype(dtype)


def _flat(x: Array) -> Array:
    """Feature maps as float32 vectors, flattened as (H, W, C)."""
    return x.reshape(x.shape[0], -1).astype(_wide(x.dtype))


def _wide(dtype: jnp.dtype) -> jnp.dtype:
    return jnp.promote_types(dtype, jnp.float32)


def feature_maps(run: Callable[[], object]) -> dict[str, Array]:
    """What every `Conv` gives within `run()`, after a ReLU: f32[B, H', W', features] by name."""
    maps: dict[str, Array] = {}

    def keep(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        out = call(*args, **kwargs)
        if isinstance(context.module, Conv):
            maps[str(context.module.name)] = nn.relu(out)
        return out

    with nn.intercept_methods(keep):
        run()
    return maps


Layers = tuple[tuple[int, int, int], ...]  # filters, size and stride of each convolution

DER_LAYERS: Layers = ((32, 5, 5), (64, 5, 5))  # data-efficient Rainbow, arXiv 1906.05243
NATURE_LAYERS: Layers = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # DQN
IMPALA_SECTIONS = (16, 32, 32)  # filters, arXiv 1802.01561


class PlainConvs(nn.Module):
    """Convolutions with ReLU, flattened as (H, W, C)."""

    layers: Layers
    initial: str  # parameters, as `Conv.init`
    dtype: jnp.dtype = jnp.dtype("float32")
    pixel_offset: float = 0.0

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        """obs u8[B, H, W, C] -> f32[B, H' * W' * features]."""
        x = obs
        for i, layer in enumerate(self.layers):
            read = None if i else _reader(self.dtype, self.pixel_offset)
            x = Conv(*layer, init=self.initial, read=read, relu=True, name=f"conv{i}")(x)
        return _flat(x)


class ImpalaConvs(nn.Module):
    """IMPALA's residual encoder: per section a convolution, a pooling by 2, two residual blocks."""

    sections: tuple[int, ...]
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        """obs u8[B, H, W, C] -> f32[B, H' * W' * features]."""
        x = obs
        for i, features in enumerate(self.sections):
            same = functools.partial(Conv, features, 3, 1, pad=1, init="uniform")
            read = None if i else _reader(self.dtype)
            x = conv.max_pool(same(read=read, name=f"section{i}_in")(x))
            for block in range(2):
                name = f"section{i}_block{block}"
                y = same(relu=True, name=f"{name}_conv0")(nn.relu(x))
                x = x + same(name=f"{name}_conv1")(y)
        return _flat(nn.relu(x))


class ColumnDense(nn.Module):
    """A dense layer of samples in columns, its kernel [outputs, inputs]: a CPU's libraries make the
    products of a wide layer, and above all its kernel's gradient, in less time so."""

    features: int
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """f32[D, B] -> f32[features, B]."""
        kernel = self.param("kernel", _orthogonal, (self.features, x.shape[0]))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        return kernel @ x + bias[:, None]


class Projection(nn.Module):
    """From flattened convolutions to a latent: dense, then LayerNorm (no tanh)."""

    features: int
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """f32[B, D] -> f32[B, features]."""
        x = ColumnDense(self.features, self.dtype, name="fc")(x.T).T
        # torch's LayerNorm, which the official encoder uses, has this epsilon and subtracts the
        # mean before it squares.
        return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name="ln")(x)


class Mlp(nn.Module):
    """Two hidden ReLU layers and a linear output."""

    hidden: int
    outputs: int
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """f32[B, D] -> f32[B, outputs]."""
        x = x.T
        for i in range(2):
            x = nn.relu(ColumnDense(self.hidden, self.dtype, name=f"dense{i}")(x))
        return ColumnDense(self.outputs, name="dense2")(x).T


class TwinQ(nn.Module):
    """Two Q functions of a latent and an action, as parameters with a leading axis of 2."""

    hidden: int
    dtype: Dtype = None

    @nn.compact
    def __call__(self, latent: Array, action: Array) -> Array:
        """latent f32[B, L], action f32[B, A] -> f32[2, B]."""
        twins = nn.vmap(
            Mlp,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=None,
            axis_size=2,
        )(self.hidden, 1, self.dtype, name="q")
        return twins(jnp.concatenate([latent, action], axis=-1))[..., 0]


class GaussianPolicy(nn.Module):
    """Mean and log standard deviation of a Gaussian before its tanh; log_std in [-10, 2]."""

    hidden: int
    action_dim: int
    dtype: Dtype = None

    @nn.compact
    def __call__(self, latent: Array) -> tuple[Array, Array]:
        """latent f32[B, L] -> (mean f32[B, A], log_std f32[B, A])."""
        outputs = Mlp(self.hidden, 2 * self.action_dim, self.dtype, name="policy")(latent)
        mean, log_std = jnp.split(outputs, 2, axis=-1)
        return mean, -10 + 6 * (jnp.tanh(log_std) + 1)


class NoisyDense(nn.Module):
    """A dense layer with factorised Gaussian noise on its weights (arXiv 1706.10295), by columns as
    `ColumnDense` is."""

    features: int
    std: float
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array, noise: Noise | None) -> Array:
        """f32[D, B] -> f32[features, B]; `noise` is (f32[D], f32[features]), None for the means."""
        fan_in, batch = x.shape
        spread = self.std / fan_in**0.5, self.std / self.features**0.5
        shape = (self.features, fan_in)
        kernel = self.param("kernel_mu", _within(fan_in), shape)
        kernel_sigma = self.param("kernel_sigma", nn.initializers.constant(spread[0]), shape)
        bias = self.param("bias_mu", _within(fan_in), (self.features,))
        bias_sigma = self.param("bias_sigma", nn.initializers.constant(spread[1]), (self.features,))
        if noise is not None:
            bias = bias + bias_sigma * noise[1]
            if adds_noise_apart(batch):
                x, kernel, kernel_sigma, bias, *noise = nn.dtypes.promote_dtype(
                    x, kernel, kernel_sigma, bias, *noise, dtype=self.dtype
                )
                of_inputs, of_outputs = (n[:, None] for n in noise)
                noisy = (kernel_sigma @ (x * of_inputs)) * of_outputs
                return kernel @ x + noisy + bias[:, None]
            kernel = kernel + kernel_sigma * (noise[1][:, None] * noise[0])
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        return kernel @ x + bias[:, None]


class NoisyDueling(nn.Module):
    """Value and advantage streams that give a distribution of returns for each action."""

    hidden: int
    num_actions: int
    num_atoms: int
    std: float
    dtype: Dtype = None

    def layers(self, inputs: int) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of each layer, by name."""
        return {
            "fc_h_v": (inputs, self.hidden),
            "fc_h_a": (inputs, self.hidden),
            "fc_z_v": (self.hidden, self.num_atoms),
            "fc_z_a": (self.hidden, self.num_actions * self.num_atoms),
        }

    @nn.compact
    def __call__(self, latent: Array, noise: dict[str, Noise] | None) -> Array:
        """latent f32[B, L] -> logits f32[B, num_actions, num_atoms]; noise by layer."""
        layers = {
            name: NoisyDense(
                outputs, self.std, self.dtype if name.startswith("fc_h") else None, name=name
            )
            for name, (_, outputs) in self.layers(latent.shape[-1]).items()
        }

        def stream(side: str) -> Array:
            noises = [noise and noise[f"fc_{part}_{side}"] for part in "hz"]
            hidden = nn.relu(layers[f"fc_h_{side}"](latent.T, noises[0]))
            out = layers[f"fc_z_{side}"](hidden, noises[1])
            return out.reshape(-1, self.num_atoms, latent.shape[0])

        value, advantage = stream("v"), stream("a")
        logits = value + advantage - jnp.mean(advantage, axis=0)
        return logits.transpose(2, 0, 1)


def factorised_noise(key: Key, layers: dict[str, tuple[int, int]]) -> dict[str, Noise]:
    """One draw of noise for `NoisyDueling.layers`: sign(x) sqrt(|x|) of standard normals."""
    ends = list(itertools.accumulate(itertools.chain(*layers.values())))
    x = jax.random.normal(key, (ends[-1],))  # at once: each draw is a dozen small operations
    parts = jnp.split(jnp.sign(x) * jnp.sqrt(jnp.abs(x)), ends[:-1])
    noise = dict(zip(layers, zip(parts[::2], parts[1::2], strict=True), strict=True))
    # Else XLA's CPU compiler draws the noise anew for every element of a layer's noisy weights.
    return jax.lax.optimization_barrier(noise)


def conv_output_sizes(size: int, layers: Layers) -> list[int]:
    """Sides of the outputs of `PlainConvs` on a square input of this side."""
    sizes = []
    for _, kernel, stride in layers:
        size = (size - kernel) // stride + 1
        sizes.append(size)
    return sizes
