"""Networks beside plain formulas, and the values that their parameters begin from."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from seer_jax import networks


def test_impala_is_its_paper_written_out():
    """Per section a convolution, a pooling and two residual blocks; in the end a ReLU."""
    net = networks.ImpalaConvs((2, 3))
    obs = jax.random.randint(jax.random.key(0), (4, 13, 13, 2), 0, 256).astype(jnp.uint8)
    params = net.init(jax.random.key(1), obs)

    def same(x, name):
        layer = params["params"][name]
        where = dict(padding="SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return lax.conv_general_dilated(x, layer["kernel"], (1, 1), **where) + layer["bias"]

    x = obs / 255
    for section in range(2):
        x = same(x, f"section{section}_in")
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for block in range(2):
            name = f"section{section}_block{block}_conv"
            x = x + same(nn.relu(same(nn.relu(x), f"{name}0")), f"{name}1")
    expected = nn.relu(x).reshape(4, -1)
    found = net.apply(params, obs)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert (found == 0).any() and found.min() == 0 < found.max()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("size", [3, 2], ids=["windows", "tiles"])  # at a stride of 2
def test_a_convolution_that_ends_with_a_relu_has_its_gradient(size, dtype):
    """Zero where nothing passes, at zero too: of the last feature all is."""
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3), dtype)
    params = networks.Conv(4, size, 2, init="uniform").init_with_output(jax.random.key(1), x)[1]
    last_zero = jnp.array([1, 1, 1, 0])
    params = jax.tree.map(lambda leaf: leaf * last_zero, params)

    def loss(apart, params, x):
        out = networks.Conv(4, size, 2, init="uniform", relu=not apart).apply(params, x)
        out = nn.relu(out) if apart else out
        assert out.dtype == dtype
        return jnp.sum(out.astype(jnp.float32) ** 2 + 3 * out)

    expected, found = (
        jax.value_and_grad(functools.partial(loss, apart), (0, 1))(params, x)
        for apart in (True, False)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)
    kernel = found[1][0]["params"]["kernel"]
    assert not kernel[..., 3].any() and kernel[..., :3].any()


def begin(module, *inputs):
    return module.init_with_output(jax.random.key(0), *inputs)[1]["params"]


@pytest.mark.parametrize("seeds", [1, 2])
def test_matrices_of_several_networks_are_decomposed_one_after_the_other(seeds):
    """Two batches at once never end with jax 0.10 on a CPU; small ones as here do not show it."""
    twins, inputs = networks.TwinQ(16), (jnp.zeros((1, 6)), jnp.zeros((1, 2)))
    init = jax.vmap(lambda key: twins.init(key, *inputs))
    program = jax.jit(init).lower(jax.random.split(jax.random.key(0), seeds)).as_text()
    shapes = re.findall(r"@\w*geqrf.*-> \(tensor<(\w+)xf32>", program)
    assert shapes == ["16x8", "16x16", "16x1"]


def test_convolutions_begin_orthogonal_in_the_centre_of_their_kernels():
    x = jnp.zeros((1, 9, 9, 4))
    params = begin(networks.Conv(6, 3, 1), x)
    centre = params["kernel"][1, 1]
    np.testing.assert_allclose(centre @ centre.T, 2 * np.eye(4), atol=1e-5)  # ReLU's gain, squared
    assert jnp.count_nonzero(params["kernel"]) == centre.size
    assert not params["bias"].any()


@pytest.mark.parametrize("size", [5, 3])
def test_rainbows_convolutions_begin_as_torchs(size):
    """Uniform within one over the root of what each output sums."""
    x = jnp.zeros((1, 15, 15, 4))
    params = begin(networks.Conv(64, size, 3, init="uniform"), x)
    most = 1 / (size * size * 4) ** 0.5
    for name, least in (("kernel", 0.99), ("bias", 0.9)):
        assert least * most < jnp.abs(params[name]).max() <= most


def test_noisy_layers_begin_with_the_spread_of_their_paper():
    """sigma_0 over the root of the inputs, of biases of the outputs."""
    params = begin(networks.NoisyDense(16, std=0.1), jnp.zeros((64, 2)), None)
    spread = {name: set(np.unique(x)) for name, x in params.items() if "sigma" in name}
    assert spread == {
        "kernel_sigma": {np.float32(0.1 / 8)},
        "bias_sigma": {np.float32(0.1 / 4)},
    }
    for name in ("kernel_mu", "bias_mu"):
        assert 0.8 / 8 < jnp.abs(params[name]).max() <= 1 / 8
