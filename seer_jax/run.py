"""`python -m seer_jax.run --task=walker_walk`: the command line."""

import argparse
import contextlib
import dataclasses
import fcntl
import functools
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import get_args

import tyro

from seer_jax import config as config_lib
from seer_jax import presets
from seer_jax.config import Config
from seer_jax.types import UserError

_LOCK = "lock"  # in the run folder
_FOLLOW_FROM_LENGTH = {"freeze_step", "freeze_earliest", "freeze_latest"}  # unless given


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 0 done, 2 a mistake to mend, 130 stopped."""
    try:
        return run(parse(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        print(f"seer_jax: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("seer_jax: stopped; the same command resumes.", file=sys.stderr)
        return 130


def parse(argv: list[str]) -> Config:
    """The configuration that the flags ask for.

    `--task` and `--preset` choose the defaults of all other flags, and `--num_steps` those of when
    to freeze. A wrong flag or value prints a message with the nearest flags and exits with 2.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    # nargs: a flag without its value is for the full parser below to complain about.
    first.add_argument("--task", nargs="?", default=Config.task, const=Config.task)
    first.add_argument("--preset", nargs="?", default=Config.preset, const=Config.preset)
    first.add_argument("--num_steps", "--num-steps", nargs="?")
    first.add_argument("--freeze_step", "--freeze-step", nargs="?")
    known, _ = first.parse_known_args(argv)
    if known.preset not in get_args(config_lib.Preset):
        names = ", ".join(get_args(config_lib.Preset))
        raise UserError(f"unknown preset {known.preset!r}; choose one of {names}.")
    from seer_jax import build  # late: it settles how to render, which takes a moment

    task = build.parse_task(known.task)
    num_steps = _steps("num_steps", known.num_steps, "a whole number, such as 100000")
    if known.freeze_step not in ("never", "auto"):
        _steps("freeze_step", known.freeze_step, "a step, such as 10000, or never, or auto")
    default = presets.for_task(task, known.preset, num_steps)
    _check_spelling(argv, default)
    # The flags of this agent and not of the others.
    flags = dataclasses.make_dataclass(
        "Flags", [("agent", type(default.agent), default.agent)], bases=(Config,), frozen=True
    )
    fields = {field.name: getattr(default, field.name) for field in dataclasses.fields(Config)}
    config = tyro.cli(
        flags,
        args=argv,
        default=flags(**fields),
        config=(tyro.conf.OmitArgPrefixes,),
        prog="python -m seer_jax.run",
        description="Trains an agent with SEER: pixels first, then a frozen encoder and latents.",
        use_underscores=True,
    )
    chosen = {name: getattr(config, name) for name in fields} | {"task": task}
    # In `--logdir=~/run` no shell does.
    home = {name: os.path.expanduser(chosen[name]) for name in ("logdir", "encoder_from")}
    logdir = home["logdir"] or f"runs/{task}-{config.preset}-s{config.seed}"
    config = Config(**chosen | home | {"logdir": logdir})
    config_lib.check(config)
    return config


def _steps(name: str, text: str | None, accepted: str) -> int | None:
    """A flag's number of steps, if it is given."""
    try:
        return None if text is None else int(text)
    except ValueError as error:
        raise UserError(f"{name}={text}: give {accepted}.") from error


def _check_spelling(argv: list[str], config: Config) -> None:
    """Mistakes that a parser of these flags alone could only call unrecognized."""
    parts = [flag.lstrip("-").partition("=") for flag in argv if flag.startswith("--")]
    given = {name.replace("-", "_"): equals for name, equals, _ in parts}
    switches = {
        field.name
        for part in (config, config.agent)
        for field in dataclasses.fields(part)
        if isinstance(getattr(part, field.name), bool)
    }
    for name in given.keys() & (switches | {f"no_{switch}" for switch in switches}):
        if given[name]:
            switch = name.removeprefix("no_")
            raise UserError(f"--{name} takes no value: write --{switch} or --no_{switch}.")
    fields = lambda agent: {field.name for field in dataclasses.fields(agent)}
    for algorithm, agent in config_lib.AGENTS.items():
        others = fields(agent) - fields(config.agent)
        for name in {name.removeprefix("no_") for name in given} & others:
            raise UserError(
                f"--{name} is a flag of {algorithm}, and {config.task} is learned by "
                f"{config.algorithm}: leave it out."
            )
    if {"replay_capacity", "replay_memory"} <= given.keys():
        raise UserError("--replay_capacity and --replay_memory both size replay: give one of them.")


@contextlib.contextmanager
def held_logdir(config: Config) -> Iterator[pathlib.Path]:
    """The run folder: made, or the run in it can go on with this configuration. Within, no other
    process can train there; one that is killed lets go of it.

    Raises:
        UserError: if the folder cannot be used, holds something else or another configuration, or
            another process trains there.
    """
    logdir = pathlib.Path(config.logdir)
    with contextlib.ExitStack() as stack:
        try:
            _make(logdir)
            # Not the configuration, which is replaced; opened to write, as NFS locks nothing else.
            lock = stack.enter_context(open(logdir / _LOCK, "a"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"Another process trains in {logdir}: wait for its end, or choose another "
                    "--logdir."
                ) from error
            except OSError:
                pass  # a file system without locks, as network drives can be
            _configure(logdir, config)
        except OSError as error:
            raise UserError(
                f"{logdir} cannot be used as run folder ({error.strerror}): choose another "
                "--logdir."
            ) from error
        yield logdir


def _make(logdir: pathlib.Path) -> None:
    # A kill may have left the beginning of a config.json.
    ours = {"config.json", "config.json.tmp", _LOCK}
    there = {x.name for x in logdir.iterdir()} if logdir.exists() else set()
    if there - ours and "config.json" not in there:
        raise UserError(
            f"{logdir} is not empty and holds no run (no config.json): choose another --logdir."
        )
    logdir.mkdir(parents=True, exist_ok=True)


def _configure(logdir: pathlib.Path, config: Config) -> None:
    if not (logdir / "config.json").exists():
        config_lib.write(config, logdir)
        return
    found = config_lib.read(logdir)
    differences = _differences(found, config)
    if not differences:
        return
    begun = _has_begun(logdir)
    may_change = _may_change(found, config)
    fixed = {name: x for name, x in differences.items() if name not in may_change}
    if begun and fixed:
        raise UserError(
            f"{logdir} holds a run with another configuration:\n{_lines(fixed)}\n"
            + _how_to_go_on(found, config, fixed)
        )
    config_lib.write(config, logdir)
    said = "goes on" if begun else "held a run that had not begun"
    print(f"{logdir} {said}, with other flags:\n{_lines(differences)}")


def _has_begun(logdir: pathlib.Path) -> bool:
    """Whether there is more than the evaluation at step 0, as where memory was short."""
    from seer_jax import checkpoint

    lines = [len(path.read_text().splitlines()) for path in logdir.rglob("eval.csv")]
    with contextlib.closing(checkpoint.Checkpoints(logdir / "checkpoints", read_only=True)) as kept:
        return bool(kept.steps()) or max(lines, default=0) > 2


def _differences(found: Config, wanted: Config) -> dict[str, tuple]:
    """What differs, by name: there and here."""
    there, here = (dataclasses.asdict(c) | dataclasses.asdict(c.agent) for c in (found, wanted))
    shared = [n for n in here if n in there and n not in ("agent", "logdir")]
    return {name: (there[name], here[name]) for name in shared if there[name] != here[name]}


def _lines(differences: dict[str, tuple]) -> str:
    return "\n".join(
        f"  {name}: {there} there, {here} here" for name, (there, here) in differences.items()
    )


def _how_to_go_on(found: Config, wanted: Config, fixed: dict[str, tuple]) -> str:
    if wanted.num_steps > found.num_steps and fixed.keys() <= _FOLLOW_FROM_LENGTH:
        kept = " ".join(f"--{name}={there}" for name, (there, _) in fixed.items())
        return f"Unless given, that follows from --num_steps: to make the run longer add {kept}"
    return (
        "Use the same flags to resume it, more --num_steps to make it longer, or another --logdir."
    )


def _may_change(found: Config, wanted: Config) -> set[str]:
    """Names of what a run that has begun can take up: what it has done would have been the same,
    but for the growth of priority_beta."""
    names = {
        "checkpoint_every",
        "keep_checkpoints",
        "eval_every",
        "eval_episodes",
        "log_every",
        "video",
    }
    if wanted.num_steps > found.num_steps:
        names.add("num_steps")
    if wanted.freeze_step != "auto":  # not looked at
        names |= _FOLLOW_FROM_LENGTH - {"freeze_step"}
    return names


def run(config: Config) -> int:
    """Builds environment and agent and trains; returns the exit code."""
    # Late: by now the flags are known to be right.
    import jax

    from seer_jax import build, freezing, memory, train, transfer

    env = build.make_env(config)
    try:
        agent = build.make_agent(config, env.spec)
        # What does not fit together is refused before the folder remembers it as its configuration.
        freezing.plan(config, agent, env.spec)
        read_encoder = None
        if config.encoder_from:
            # Once: a checkpoint is long to read, and the freeze follows at once.
            read_encoder = functools.cache(lambda: transfer.read_encoder(config, agent))
            if not (pathlib.Path(config.logdir) / "config.json").exists():
                read_encoder()
        make_eval_env = lambda: build.make_eval_env(config)
        with held_logdir(config) as logdir:
            train.train(config, logdir, env, make_eval_env, agent, read_encoder=read_encoder)
    except train.Interrupted as stopped:
        print(f"seer_jax: {stopped} The same command resumes.", file=sys.stderr)
        return 130
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        shortage = memory.shortage(error)
        if shortage is None:
            raise
        raise UserError(
            f"Memory is short ({shortage}): lower --replay_memory, --batch_size or the sizes of "
            "the networks; with another --logdir if this one has checkpoints, which are intact."
        ) from error
    finally:
        env.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
