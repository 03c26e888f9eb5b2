"""The convolution and its own CPU gradient agree with lax's, whatever the sizes."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from seer_jax import conv, dispatch, networks


def plain(x, kernel, stride):
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def test_a_convolution_by_hand():
    """A 2 x 2 kernel of ones sums the windows of a picture; its gradient sums the pictures."""
    x = jnp.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]).reshape(1, 3, 3, 1)
    kernel = jnp.ones((2, 2, 1, 1))
    assert conv.conv2d(x, kernel, 1)[0, :, :, 0].tolist() == [[12, 16], [24, 28]]
    grad = jax.grad(lambda kernel: conv.conv2d(x, kernel, 1).sum())(kernel)
    assert grad[:, :, 0, 0].tolist() == [[12, 16], [24, 28]]


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_sum_over_groups_is_the_gradient_of_lax(stride, monkeypatch):
    x, kernel = normal(0, 4, 11, 10, 2), normal(1, 4, 3, 2, 5)
    out, back = jax.vjp(lambda kernel: plain(x, kernel, stride), kernel)
    grad = normal(2, *out.shape)
    monkeypatch.setattr(conv, "_GROUP", (x.nbytes + grad.nbytes) // 2)  # two images of four
    found = conv._kernel_grad(x, grad, kernel.shape, stride)
    np.testing.assert_allclose(found, back(grad)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("height", "width", "kernel_height", "kernel_width"),
    [(8, 8, 3, 3), (9, 9, 3, 3), (9, 6, 2, 3), (3, 3, 3, 3)],
)
def test_values_and_gradients_are_those_of_lax(height, width, kernel_height, kernel_width, stride):
    x, kernel = normal(0, 3, height, width, 2), normal(1, kernel_height, kernel_width, 2, 4)

    def results(function):
        """The output and, for a random gradient of it, both gradients."""
        out, pull_back = jax.vjp(lambda x, kernel: function(x, kernel, stride), x, kernel)
        return out, *pull_back(normal(2, *out.shape))

    ours, theirs = jax.jit(lambda: (results(conv.conv2d), results(plain)))()
    for mine, lax_own in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, lax_own, rtol=1e-5, atol=1e-5)


def test_tiles_by_hand():
    """Squares of a picture, each row after row; what does not fill one is left out."""
    x = jnp.arange(25).reshape(1, 5, 5, 1)
    squares = [[[0, 1, 5, 6], [2, 3, 7, 8]], [[10, 11, 15, 16], [12, 13, 17, 18]]]
    assert conv.tiles(x, 2)[0].tolist() == squares
    assert conv.tiles(x, 4)[0, 0, 0].tolist() == [5 * row + i for row in range(4) for i in range(4)]


def test_gradients_in_bfloat16_are_summed_in_float32():
    """Each number of both is a count of pixels. bfloat16 has 8 bits: it counts to 256."""
    x = jnp.ones((160, 31, 31, 16), jnp.bfloat16)
    pixels = 160 * 29 * 29
    assert x.nbytes + 8 * 2 * pixels > conv._GROUP  # so kernels' is a sum over groups of images
    net = networks.Conv(8, 3, 1)
    params = {"kernel": jnp.zeros((3, 3, 16, 8)), "bias": jnp.zeros(8)}
    loss = lambda params, x: net.apply({"params": params}, x).astype(jnp.float32).sum()
    grads = jax.jit(jax.grad(loss))(params, x)
    assert (grads["bias"] == pixels).all()
    # Rounded twice, for each group and at the end.
    np.testing.assert_allclose(grads["kernel"], pixels, rtol=2 / 256)


def test_groups_of_images_in_bfloat16_are_added_in_float32(monkeypatch):
    """400 images of four windows each, one by one: in bfloat16, 1,024 + 4 would stay 1,024."""
    monkeypatch.setattr(conv, "_GROUP", 1)
    x, grad = jnp.ones((400, 4, 4, 2), jnp.bfloat16), jnp.ones((400, 2, 2, 3), jnp.bfloat16)
    assert (conv._kernel_grad(x, grad, (3, 3, 2, 3), 1) == 1600).all()


@pytest.mark.parametrize("size", [1, 3, 4, 5])
def test_windows_that_do_not_overlap(size):
    """A product with tiles is lax's convolution, in both directions."""
    x, kernel = normal(0, 3, 11, 10, 2), normal(1, size, size, 2, 4)

    def results(function):
        """The output and both gradients."""
        out, pull_back = jax.vjp(lambda x, kernel: function(x, kernel, size), x, kernel)
        return out, *pull_back(normal(2, *out.shape))

    for mine, lax_own in zip(results(conv.conv2d), results(plain), strict=True):
        np.testing.assert_allclose(mine, lax_own, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_in_a_loop_gradients_keep_the_form_that_a_cpu_is_fast_with(stride):
    """As it is only outside loops that XLA's compiler brings them into it."""

    def gradients(_, own):
        x, kernel, grad = own
        return None, jax.vjp(lambda x, k: conv.conv2d(x, k, stride), x, kernel)[1](grad)

    out = (9 - 3) // stride + 1
    own = normal(0, 5, 3, 9, 9, 2), normal(1, 5, 3, 3, 2, 4), normal(2, 5, 3, out, out, 4)
    program = jax.jit(lambda own: lax.scan(gradients, None, own)[1]).lower(own).compile().as_text()
    forms = re.findall(r"\bconvolution\(.*window=\{(.*?)\}.*dim_labels=([^,]*)", program)
    assert len(forms) == 2
    for window, dimensions in forms:
        assert "reversal" not in window
        assert dimensions == "b01f_01io->b01f"


def test_the_gradient_keeps_float64():
    with jax.enable_x64(True):
        x, kernel = np.asarray(normal(0, 3, 9, 9, 2), np.float64), np.ones((3, 3, 2, 4))
        loss = lambda kernel, function: jnp.sum(function(x, kernel, 2) ** 2)
        ours, theirs = (
            jax.jit(jax.grad(loss), static_argnums=1)(kernel, f) for f in (conv.conv2d, plain)
        )
        assert ours.dtype == jnp.float64
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_groups_of_a_large_batch_divide_it():
    """80 images of 82,688 bytes with their gradients: 63 would fit, and 40 is the next divisor."""
    x, grad = normal(0, 80, 30, 30, 16), normal(1, 80, 28, 28, 8)
    grouped = jax.make_jaxpr(lambda: conv._kernel_grad(x, grad, (3, 3, 16, 8), 1))()
    (scan,) = [e for e in grouped.eqns if e.primitive.name == "scan"]
    assert scan.params["length"] == 2
    _, pull_back = jax.vjp(lambda kernel: conv.conv2d(x, kernel, 1), jnp.zeros((3, 3, 16, 8)))
    _, plain_back = jax.vjp(lambda kernel: plain(x, kernel, 1), jnp.zeros((3, 3, 16, 8)))
    np.testing.assert_allclose(pull_back(grad)[0], plain_back(grad)[0], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("size", [(12, 12), (11, 7), (1, 2)])
def test_max_pool_is_that_of_flax(size):
    x = jax.random.normal(jax.random.key(0), (2, *size, 3))
    theirs = lambda x: nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
    expected, their_gradient = jax.vjp(theirs, x)
    found, gradient = jax.vjp(conv.max_pool, x)
    np.testing.assert_array_equal(found, expected)
    grad = jax.random.normal(jax.random.key(1), expected.shape)
    np.testing.assert_allclose(gradient(grad)[0], their_gradient(grad)[0], rtol=1e-6, atol=1e-6)


def test_max_pool_gives_a_gradient_to_one_of_equals():
    gradient = jax.grad(lambda x: conv.max_pool(x).sum())(jnp.zeros((1, 2, 2, 1)))
    np.testing.assert_array_equal(gradient[0, ..., 0], [[1, 0], [0, 0]])


def test_compiler_options_are_known_to_this_version_of_xla():
    options = conv.compiler_options()
    assert dispatch._known(options) == options


def test_options_of_a_gpu_are_known_to_this_version_of_xla(monkeypatch):
    assert dispatch._without_waiting() == {}
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    options = dispatch._without_waiting()
    assert options and dispatch._known(options) == options


def test_compiler_options_that_xla_does_not_know_are_left_out():
    assert dispatch._known({"xla_no_such_option": True}) == {}


@pytest.mark.parametrize(
    "net",
    [
        networks.PlainConvs(networks.NATURE_LAYERS, "uniform"),
        networks.ImpalaConvs((4, 4)),
    ],
)
def test_the_gradient_keeps_pixels_as_bytes(net):
    obs = jnp.zeros((2, 84, 84, 3), jnp.uint8)
    _, backward = jax.vjp(net.apply, net.init(jax.random.key(0), obs), obs)
    kept = [x.dtype for x in jax.tree.leaves(backward) if x.shape[1:3] == obs.shape[1:3]]
    assert kept == [jnp.uint8]
