"""The tables of docs/performance.md and the README, from the records in benchmarks/results.

    python -m benchmarks.report
    python -m benchmarks.report benchmarks/results/epyc-zen5-2cores

A folder holds one machine's records, as the benchmarks' --json writes them: update_AGENT_ROUND.json
and, taken in the same rounds, official.json with the seconds of the official code, which our
bfloat16 (update_AGENT_bf16_1.json) is compared with too; loop_*.json, programs.json, env_*.json,
replay*.json, conv.json, memory.json, growth.json and tpu_*.json.
"""

import argparse
import collections
import json
import pathlib
import statistics
from collections.abc import Iterator
from typing import Any

RESULTS = pathlib.Path(__file__).parent / "results"

TPU_HERTZ = 1.5e9  # of a v5e's clock

Records = dict[str, dict[str, Any]]  # by name


def read(path: pathlib.Path) -> Records:
    """The records of one file; none if there is no such file."""
    if not path.exists():
        return {}
    return {record["name"]: record for record in json.loads(path.read_text())["records"]}


def table(header: list[str], rows: list[list[str]]) -> Iterator[str]:
    """A table in Markdown, if there are rows."""
    if not rows:
        return
    yield "| " + " | ".join(header) + " |"
    yield "|---" * len(header) + "|"
    yield from ("| " + " | ".join(row) + " |" for row in rows)


def updates(folder: pathlib.Path) -> Iterator[str]:
    """Updates and acting beside the official code: medians over rounds, and every ratio, or that of
    the medians if not every round is of both."""
    official = _official(folder)
    rounds_of = collections.defaultdict(list)
    for path in sorted(folder.glob("update_*_*.json")):
        agent = path.stem.removeprefix("update_").rpartition("_")[0]
        rounds_of[agent].append(read(path))
    rows = []
    for agent, rounds in rounds_of.items():
        for name in (n for n, record in rounds[0].items() if record["unit"] == "s"):
            ours = [r[name]["value"] for r in rounds]
            flops = rounds[0][name]["analytic_flops"]
            peaks = [r["matmul_peak"]["value"] for r in rounds]
            share = statistics.median(flops / t / p for t, p in zip(ours, peaks, strict=True))
            theirs = _beside(official, f"{agent}/{name}")
            rows.append(
                [agent, name, _ms(ours), _ms(theirs), _ratios(ours, theirs)]
                + [f"{flops / 1e9:.2f}", f"{share:.0%}"]
            )
    header = ["agent", "program", "ms", "official, ms", "ratio by round", "GFLOP", "of peak"]
    yield from table(header, rows)


def _official(folder: pathlib.Path) -> dict[str, list[float]]:
    """Seconds of the official code by round, where they were taken."""
    path = folder / "official.json"
    return json.loads(path.read_text())["seconds"] if path.exists() else {}


def _beside(official: dict[str, list[float]], name: str) -> list[float]:
    """The official code's seconds to compare with; it was timed in float32 alone."""
    return official.get(name.replace("_bf16", ""), [])


def _ratios(ours: list[float], theirs: list[float]) -> str:
    if not theirs:
        return ""
    if len(ours) != len(theirs):
        ours, theirs = [statistics.median(ours)], [statistics.median(theirs)]
    return " ".join(f"{a / b:.2f}" for a, b in zip(ours, theirs, strict=True))


def _ms(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1e3:.1f}" if seconds else ""


def loops(folder: pathlib.Path) -> Iterator[str]:
    """Whole steps and their parts, beside the official code's whole steps."""
    rows, official = [], _official(folder)
    for path in sorted(folder.glob("loop_*.json")):
        records = read(path)
        for name in (n for n in records if n.startswith("loop/")):
            phase = name.removeprefix("loop/")
            parts = [records[f"{part}/{phase}"] for part in ("loop", "simulate", "learn", "act")]
            theirs = _beside(official, f"{path.stem}/{phase}")
            rows.append(
                [path.stem.removeprefix("loop_"), *phase.split("/")]
                + [f"{part['value'] * 1e3:.1f}" for part in parts]
                + [f"{parts[0]['over']:.0%}", f"{1 / parts[0]['value']:.0f}"]
                + [_ms(theirs), _ratios([parts[0]["value"]], theirs)]
            )
    header = ["run", "phase", "envs", "ms a step", "simulate", "learn", "act", "over", "steps/s"]
    yield from table([*header, "official, ms", "ratio"], rows)


def programs(folder: pathlib.Path) -> Iterator[str]:
    """Programs by themselves on an accelerator, and how long the host is busy with a call."""
    rows = [
        [name, f"{r['value'] * 1e3:.2f}", f"{r['host_busy'] * 1e3:.2f}" if "host_busy" in r else ""]
        for name, r in read(folder / "programs.json").items()
    ]
    yield from table(["program", "ms", "host busy, ms"], rows)


def envs(folder: pathlib.Path) -> Iterator[str]:
    """Environments alone."""
    rows = [
        [*name.split("/"), f"{record['value'] * 1e3:.2f}", f"{1 / record['value']:.0f}"]
        for path in sorted(folder.glob("env_*.json"))
        for name, record in read(path).items()
    ]
    yield from table(["task", "what", "how", "ms", "per second"], rows)


def replays(folder: pathlib.Path) -> Iterator[str]:
    """What is done with replay, alone."""
    operations = ["add", "uniform", "prioritised", "priorities"]
    rows = []
    for path in sorted(folder.glob("replay*.json")):
        records = read(path)
        for name in dict.fromkeys(n.rsplit("/", 1)[0] for n in records):
            found = [records[f"{name}/{operation}"] for operation in operations]
            rows.append(
                [*name.split("/"), f"{found[0]['rows']:,}", f"{found[0]['row_bytes']:,}"]
                + [f"{r['value'] * 1e6:.0f}" for r in found]
            )
    header = ["agent", "phase", "rows", "bytes a row", "us to add one", "draw a batch"]
    yield from table([*header, "by priority", "set priorities"], rows)


def convolutions(folder: pathlib.Path) -> Iterator[str]:
    """Layers of the encoders, GFLOP/s."""
    records = read(folder / "conv.json")
    layers = [name.removesuffix("/forward") for name in records if name.endswith("/forward")]
    passes = [x.removeprefix(f"{layers[0]}/") for x in records if x.startswith(f"{layers[0]}/")]
    rows = [
        [layer, *(f"{records[f'{layer}/{p}']['flops_per_s'] / 1e9:.0f}" for p in passes)]
        for layer in layers
    ]
    yield from table(["GFLOP/s", *passes], rows)


def memory(folder: pathlib.Path) -> Iterator[str]:
    """Bytes of a run."""
    mib = lambda number: f"{number / 2**20:,.0f}"
    rows = [
        [name.removeprefix("memory/"), mib(r["needed"]), mib(r["value"]), f"{r['over']:.1%}"]
        + [mib(r["settled"])]
        for name, r in read(folder / "memory.json").items()
    ]
    yield from table(["MiB", "needed", "peak", "over", "settled"], rows)


def growth(folder: pathlib.Path) -> Iterator[str]:
    """An update and replay, before and after the freeze, about one configuration."""
    records = read(folder / "growth.json")
    rows = []
    for name in (n.removesuffix("/pixels") for n in records if n.endswith("/pixels")):
        phases = [records[f"{name}/{phase}"] for phase in ("pixels", "latents")]
        rows.append(
            name.split("/")
            + [f"{r['value'] * 1e3:.2f}" for r in phases]
            + [f"{r['analytic_flops'] / r['value'] / 1e9:.0f}" for r in phases]
            + [f"{r['replay_bytes'] / 2**20:.1f}" for r in phases]
        )
    header = ["varied", "", "ms, pixels", "latents", "GFLOP/s, pixels", "latents"]
    yield from table([*header, "MiB, pixels", "latents"], rows)


def tpu(folder: pathlib.Path) -> Iterator[str]:
    """What its compiler makes of programs."""
    rows = []
    for path in sorted(folder.glob("tpu_*.json")):
        for name, r in read(path).items():
            mib = [f"{r[f'{which}_bytes'] / 2**20:,.0f}" for which in ("temporary", "argument")]
            ms = f"{r['value'] / TPU_HERTZ * 1e3:.2f}"
            rows.append([path.stem.removeprefix("tpu_"), *name.rsplit("/", 2), ms, *mib])
    header = ["run", "task", "phase", "program", "ms, estimated", "temporary, MiB"]
    yield from table([*header, "arguments, MiB"], rows)


SECTIONS = {
    "Updates": updates,
    "The loop": loops,
    "Programs": programs,
    "Environments": envs,
    "Replay": replays,
    "Convolutions": convolutions,
    "Memory": memory,
    "Growth": growth,
    "Compiled for a TPU": tpu,
}


def main(argv: list[str] | None = None) -> None:
    """Prints every table there are records for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=pathlib.Path, help="all of them by default")
    args = parser.parse_args(argv)
    found = sorted(x for x in RESULTS.iterdir() if x.is_dir())
    for folder in args.folders:
        if not any(folder.glob("*.json")):
            parser.error(f"{folder} holds no records; these do: {', '.join(map(str, found))}")
    for folder in args.folders or found:
        print(f"# {folder.resolve().name}\n")
        for title, section in SECTIONS.items():
            lines = list(section(folder))
            if lines:
                print(f"## {title}\n", *lines, "", sep="\n")


if __name__ == "__main__":
    main()
