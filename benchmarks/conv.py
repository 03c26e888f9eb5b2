"""The convolutions of the encoders, layer by layer: ours beside XLA's own.

    python -m benchmarks.conv --json=conv.json

For each layer the forward pass, the gradient of its input and that of its weights, in GFLOP/s.
`weights/xla` is what XLA makes of the plain convolution, `weights`
what an update runs (the two differ on CPUs only, see seer_jax/conv.py).
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax

from benchmarks import measure
from seer_jax import conv, flops


class Layer(NamedTuple):
    """An unpadded convolution of a batch of square images."""

    name: str
    batch: int
    side: int
    channels: int
    features: int
    size: int
    stride: int


LAYERS = (
    Layer("paper 1", 128, 84, 9, 32, 3, 2),
    Layer("paper 2", 128, 41, 32, 32, 3, 1),
    Layer("paper 4", 128, 37, 32, 32, 3, 1),
    Layer("quick 1", 64, 48, 9, 32, 3, 3),
    Layer("quick 2", 64, 16, 32, 32, 3, 2),
    Layer("quick 3", 64, 7, 32, 32, 3, 1),
    Layer("der 1", 32, 84, 4, 32, 5, 5),
    Layer("der 2", 32, 16, 32, 64, 5, 5),
    Layer("nature 1", 32, 84, 4, 32, 8, 4),
    Layer("nature 2", 32, 20, 32, 64, 4, 2),
    Layer("nature 3", 32, 9, 64, 64, 3, 1),
    Layer("impala 1", 32, 84, 4, 16, 3, 1),
    Layer("impala 2", 32, 42, 16, 16, 3, 1),
)


def plain_conv2d(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """`conv.conv2d` as XLA has it."""
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def measure_layer(layer: Layer, repeats: int) -> list[dict[str, Any]]:
    """Records of one layer: seconds and FLOP/s of each pass."""

    def weight_gradient(
        function: Callable[..., jax.Array], x: jax.Array, kernel: jax.Array, grad: jax.Array
    ) -> Any:
        return jax.vjp(partial(function, x), kernel)[1](grad)

    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (layer.batch, layer.side, layer.side, layer.channels))
    kernel = jax.random.normal(keys[1], (layer.size, layer.size, layer.channels, layer.features))
    ours = lambda x, kernel: conv.conv2d(x, kernel, layer.stride)
    plain = lambda x, kernel: plain_conv2d(x, kernel, layer.stride)
    out = ours(x, kernel)
    grad = jax.random.normal(keys[2], out.shape)
    passes: dict[str, Callable[[], Any]] = {
        "forward": partial(jax.jit(ours), x, kernel),
        "input": partial(
            jax.jit(lambda x, g: jax.vjp(lambda x: ours(x, kernel), x)[1](g)), x, grad
        ),
        "weights": partial(jax.jit(partial(weight_gradient, ours)), x, kernel, grad),
        "weights/xla": partial(jax.jit(partial(weight_gradient, plain)), x, kernel, grad),
    }
    work = layer.batch * flops.conv(layer.channels, layer.features, layer.size, out.shape[1])
    calls = dict.fromkeys(passes, max(1, int(2e9 / work)))
    return [
        measure.record(f"{layer.name}/{name}", timing)
        | {"analytic_flops": work, "flops_per_s": work / timing.median}
        for name, timing in measure.interleaved(passes, repeats, calls).items()
    ]


def main(argv: list[str] | None = None) -> None:
    """Prints the table and writes the records."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", help="file to write the records to")
    args = parser.parse_args(argv)
    peak = measure.matmul_flops_per_s()
    records: list[dict[str, Any]] = [{"name": "matmul_peak", "unit": "FLOP/s", "value": peak}]
    names = ("forward", "input", "weights", "weights/xla")
    print(f"matmul peak {peak / 1e9:.0f} GFLOP/s\n{'GFLOP/s':10}{'input of a layer':>18}", end="")
    print(*(f"{name:>12}" for name in names))
    for layer in LAYERS:
        found = measure_layer(layer, args.repeats)
        records += found
        shape = f"{layer.batch}x{layer.side}x{layer.side}x{layer.channels}"
        print(f"{layer.name:10}{shape:>18}", *(f"{r['flops_per_s'] / 1e9:12.0f}" for r in found))
    if args.json:
        command = "python -m benchmarks.conv " + " ".join(argv or sys.argv[1:])
        measure.write_json(args.json, command, records)


if __name__ == "__main__":
    main()
