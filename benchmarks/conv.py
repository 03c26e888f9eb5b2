"""The convolutions of the encoders, layer by layer: ours beside XLA's own.

    python -m benchmarks.conv --json=conv.json

For each layer the forward pass, the gradient of its input and that of its weights, in GFLOP/s, as
an update runs them, and as XLA makes them of the plain convolution (`/xla`). The two differ on CPUs
only, see seer_jax/conv.py.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax

from benchmarks import measure
from seer_jax import conv, flops, memory


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


def _passes(function: Callable[..., jax.Array]) -> dict[str, Callable[..., jax.Array]]:
    """The three passes of a layer, each of (x, kernel, output gradient)."""
    return {
        "forward": lambda x, kernel, grad: function(x, kernel),
        "input": lambda x, kernel, grad: jax.vjp(lambda x: function(x, kernel), x)[1](grad)[0],
        "weights": lambda x, kernel, grad: jax.vjp(partial(function, x), kernel)[1](grad)[0],
    }


def measure_layer(layer: Layer, repeats: int) -> list[dict[str, Any]]:
    """Records of one layer: seconds and FLOP/s of each pass."""

    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (layer.batch, layer.side, layer.side, layer.channels))
    kernel = jax.random.normal(keys[1], (layer.size, layer.size, layer.channels, layer.features))
    out = plain_conv2d(x, kernel, layer.stride)
    grad = jax.random.normal(keys[2], out.shape)
    passes: dict[str, Callable[[], Any]] = {}
    ways = {"": (conv.conv2d, conv.compiler_options()), "/xla": (plain_conv2d, {})}
    for suffix, (function, options) in ways.items():
        for name, one in _passes(partial(function, stride=layer.stride)).items():
            passes[name + suffix] = partial(jax.jit(one, compiler_options=options), x, kernel, grad)
    work = layer.batch * flops.conv(layer.channels, layer.features, layer.size, out.shape[1])
    return [
        measure.record(f"{layer.name}/{name}", timing)
        | {"analytic_flops": work, "flops_per_s": work / timing.median}
        for name, timing in measure.interleaved(passes, repeats, sample_seconds=0.02).items()
    ]


def main(argv: list[str] | None = None) -> None:
    """Prints the table and writes the records."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    measure.add_arguments(parser, repeats=7)
    args = parser.parse_args(argv)
    memory.keep_freed()  # as a run does
    timings = measure.interleaved({"matmul": measure.matmul()}, args.repeats, sample_seconds=0.2)
    peak = measure.matmul_record(timings["matmul"])
    records = [peak]
    names = [name + suffix for name in _passes(plain_conv2d) for suffix in ("", "/xla")]
    print(
        f"matmul peak {peak['value'] / 1e9:.0f} GFLOP/s\n{'GFLOP/s':10}{'input of a layer':>18}",
        end="",
    )
    print(*(f"{name:>12}" for name in names))
    for layer in LAYERS:
        found = measure_layer(layer, args.repeats)
        records += found
        shape = f"{layer.batch}x{layer.side}x{layer.side}x{layer.channels}"
        rates = {r["name"].removeprefix(f"{layer.name}/"): r["flops_per_s"] / 1e9 for r in found}
        print(f"{layer.name:10}{shape:>18}", *(f"{rates[name]:12.0f}" for name in names))
    if args.json:
        command = measure.command("benchmarks.conv", argv)
        measure.write_json(args.json, command, records)


if __name__ == "__main__":
    main()
