"""The training loop: act, store, learn, simulate; freeze once; evaluate now and then.

timestep -> act_and_store: stack, encode once, choose an action, write a replay row    dispatch 1
         -> learn: sample and update, fused; runs on while the simulator steps         dispatch 2
         -> env.step(action)
"""

import collections
import contextlib
import dataclasses
import functools
import pathlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seer_jax import checkpoint, cores, dispatch, freezing, memory, quantise, seeds, settling, video
from seer_jax import replay as replay_lib
from seer_jax.config import Config
from seer_jax.logger import Logger
from seer_jax.types import (
    LAST,
    Agent,
    AgentState,
    Array,
    Env,
    Key,
    Metrics,
    PyTree,
    TimeStep,
    UserError,
)

CHECKPOINTED = ("state", "replay", "loop", "env")  # the items of a checkpoint
_CHUNK_IMAGES = 128  # images encoded at a time at the freeze
_VIDEO_SIZE = 240  # pixels
_VIDEO_FPS = 30
_VIDEO_FRAMES = 1_000  # 170 MB until they are written; a game may go on for 27,000


class Interrupted(Exception):
    """The run was asked to stop; what it needs to go on is written."""


@dataclasses.dataclass
class Progress:
    """Counters on the host; saved with every checkpoint. Steps, updates and FLOPs are those of each
    learner, if there are several."""

    step: int = 0  # agent steps, of all its environments together
    iteration: int = 0  # passes, and so rows written for each environment
    updates: int = 0
    episode_return: list[float] = dataclasses.field(default_factory=list)  # by environment
    episode_length: list[int] = dataclasses.field(default_factory=list)
    first_returns: list[float] = dataclasses.field(default_factory=list)  # settling.EPISODES
    newest_returns: list[float] = dataclasses.field(default_factory=list)  # as many at most
    looked: int = 0  # step of the last look at the encoder (freeze_step=auto)
    learned: int = 0  # step of the first look that found the agent better than at first
    flops: float = 0.0  # acting, storing, updating, looking at the encoder and converting replay
    seconds: float = 0.0  # wall-clock, earlier sessions included


class Keys(NamedTuple):
    """Random keys by purpose; each use folds in a counter (of passes, updates or rows), so there is
    nothing to save. With several learners [S] each."""

    init: Key
    act: Key
    learn: Key
    freeze: Key


def train(
    config: Config,
    logdir: pathlib.Path,
    env: Env,
    make_eval_env: Callable[[], Env],
    agent: Agent,
    show_progress: bool = True,
    read_encoder: Callable[[], PyTree] | None = None,
) -> AgentState:
    """Trains until `config.num_steps`, from the newest checkpoint in `logdir` if there is one.

    Args:
        config: the run.
        logdir: run folder.
        env: to train in.
        make_eval_env: builds the environment to evaluate in, when it is first needed.
        agent: the learner.
        show_progress: draw a progress bar, where stderr is a terminal.
        read_encoder: reads the encoder that the freeze keeps instead of the run's own.

    Returns:
        The agent at the end.

    Raises:
        Interrupted: on SIGINT or SIGTERM, after a checkpoint.
        UserError: if the run cannot go on; the last checkpoint stands.
    """
    with contextlib.ExitStack() as stack:
        run = Run(config, logdir, env, make_eval_env, agent, read_encoder)
        stack.callback(run.close)
        fresh = run.restore_or_start()
        run.open_loggers(stack, show_progress)
        stop_requested = stack.enter_context(_stop_requests())
        to_evaluate = run.lacks_an_evaluation()
        if fresh:
            run.say_what_will_not_be()
        elif run.progress.step >= config.num_steps and not to_evaluate:
            run.loggers[0].line(f"{logdir} has finished its {config.num_steps:,} steps already.")
        # A restored run is to freeze only if it is a copy of one that freezes later
        # (experiments.study) or had stepped over its end and is longer now.
        run.freeze_if_due()
        if to_evaluate and not run.evaluate(stop_requested):  # what is there leads here again
            raise Interrupted(f"Stopped at step {run.progress.step}, in its evaluation.")
        run.loop(stop_requested)
    return seeds.together(run.state)


class Run:
    """The parts of one run, and what happens to them in `loop`."""

    loggers: list[Logger]  # one for each learner; the first speaks for all
    state: AgentState | seeds.Apart
    replay: replay_lib.Replay
    stack: Array  # u8[N, k, H*W*C], the frames acting needs, newest last
    timestep: TimeStep  # seen, not yet acted on

    def __init__(
        self,
        config: Config,
        logdir: pathlib.Path,
        env: Env,
        make_eval_env: Callable[[], Env],
        agent: Agent,
        read_encoder: Callable[[], PyTree] | None = None,
    ) -> None:
        self.config, self.logdir, self.env, self.agent = config, logdir, env, agent
        self.read_encoder = read_encoder
        self.make_eval_env = make_eval_env
        self.eval_env: Env | None = None
        self.checkpoints = checkpoint.Checkpoints(logdir / "checkpoints", config.keep_checkpoints)
        memory.keep_freed()
        if jax.default_backend() == "cpu":
            cores.let_simulator_go_first()
        self.functions = dispatch.compile_functions(config, agent, env.spec)
        self.folders = config.folders(logdir)
        split = lambda key: Keys(*jax.random.split(key, len(Keys._fields)))
        if config.num_seeds > 1:
            split = jax.vmap(split)
        self.keys = split(seeds.keys(config.seeds))
        self.plan = freezing.plan(config, agent, env.spec)
        self.init_replay = functools.partial(seeds.empty_replay, config.num_seeds)
        self.metrics: list[Metrics] = []  # of the dispatches since the last report, on device
        # With freeze_step=auto until it freezes: the encoders of the last looks, newest last.
        self.looks: list[PyTree] = []
        self.began = time.perf_counter()
        self.progress = Progress()
        self.forget_episodes()

    def open_loggers(self, stack: contextlib.ExitStack, show_progress: bool) -> None:
        """Opens the files of every learner; `stack` closes them."""
        self.loggers = [
            stack.enter_context(
                Logger(
                    folder,
                    action_repeat=self.env.spec.action_repeat,
                    num_steps=self.config.num_steps,
                    resume_step=self.progress.step,
                    progress=show_progress and folder == self.folders[0],
                )
            )
            for folder in self.folders
        ]

    def num_envs(self) -> int:
        """Environments of one learner."""
        return self.env.spec.num_envs // self.config.num_seeds

    def prioritised(self) -> bool:
        return self.config.replay == "prioritised"

    def forget_episodes(self) -> None:
        self.progress.episode_return = [0.0] * self.env.spec.num_envs
        self.progress.episode_length = [0] * self.env.spec.num_envs

    def loop(self, stop_requested: Callable[[], bool]) -> None:
        """Steps until the end of the run or a request to stop."""
        config, progress = self.config, self.progress
        # When, at which step and update; pauses to evaluate and save move it on.
        self.reported = (time.perf_counter(), progress.step, progress.updates)
        while progress.step < config.num_steps:
            before = progress.step
            self.step()
            if progress.step == before:
                continue
            # Before the checkpoint of this step, so that no resumed run freezes a second time.
            self.freeze_if_due()
            last = progress.step >= config.num_steps
            # Several environments step at once and may step over a multiple.
            due = lambda every: last or progress.step // every > before // every  # noqa: B023
            if due(config.log_every):
                self.report()
            paused = time.perf_counter()
            evaluated = not due(config.eval_every) or self.evaluate(stop_requested)
            if stop_requested() and not (last and evaluated):
                self.save()
                raise Interrupted(f"Stopped at step {progress.step}, after a checkpoint.")
            if due(config.checkpoint_every):
                self.save()
            then, step, updates = self.reported
            self.reported = (then + time.perf_counter() - paused, step, updates)

    def step(self) -> None:
        """One pass: act, store, learn, simulate. An environment that only resets takes no step."""
        config, progress, flops = self.config, self.progress, self.agent.flops
        num_envs, frozen = self.num_envs(), self.state.frozen is not None
        random = progress.step < config.learning_starts
        acting = self.timestep.step_type != LAST  # of several learners all or none
        action, self.replay, self.stack, metrics = self.functions.act_and_store(
            self.state,
            self.replay,
            self.stack,
            self.timestep,
            self.keys.act,
            np.int32(progress.iteration),
            random=random,
        )
        if metrics is not None:
            self.metrics.append(metrics)
        progress.iteration += 1
        encoded = freezing.num_views(self.agent, config.num_copies) if frozen else not random
        progress.flops += num_envs * (encoded * flops.encode + (not random) * flops.act)

        if not random and progress.iteration >= replay_lib.min_rows(config.agent.n_step):
            steps = np.count_nonzero(acting) // config.num_seeds
            for _ in range(steps * (config.frozen_updates if frozen else 1)):
                self.learn()

        self.timestep = self.env.step(_to_host(action))
        for env in np.flatnonzero(acting).tolist():
            progress.step += env < num_envs  # the steps of one learner
            progress.episode_return[env] += float(self.timestep.reward[env])
            progress.episode_length[env] += 1
            if self.timestep.step_type[env] == LAST:
                self.end_episode(env)

    def learn(self) -> None:
        """One update, of each learner."""
        config, progress, flops = self.config, self.progress, self.agent.flops
        done = min(progress.step / config.num_steps, 1.0)
        beta = config.priority_beta + (1 - config.priority_beta) * done
        replay, priorities = self.replay.replace(priorities=None), self.replay.priorities
        self.state, priorities, metrics = self.functions.learn(
            self.state,
            priorities,
            replay,
            self.keys.learn,
            np.int32(progress.updates),
            np.float32(beta),
        )
        self.replay = replay.replace(priorities=priorities)
        self.metrics.append(metrics)
        progress.updates += 1
        frozen = self.state.frozen is not None
        progress.flops += config.batch_size * (flops.update_frozen if frozen else flops.update)

    def end_episode(self, env: int) -> None:
        progress = self.progress
        episode_return = progress.episode_return[env]
        self.loggers[env // self.num_envs()].write(
            progress.step,
            {"train/return": episode_return, "train/length": progress.episode_length[env]},
        )
        if len(progress.first_returns) < settling.EPISODES:
            progress.first_returns.append(episode_return)
        progress.newest_returns = [*progress.newest_returns, episode_return][-settling.EPISODES :]
        progress.episode_return[env], progress.episode_length[env] = 0.0, 0

    def freeze_if_due(self) -> None:
        """Freezes when it is time to."""
        last = self.config.last_freeze_step
        # Several environments may step over the end, to a freezing step after it.
        if last is None or self.config.never_freezes or self.state.frozen is not None:
            return
        if self.progress.step >= last or (self.config.freeze_step == "auto" and self.settled()):
            self.freeze()

    def say_what_will_not_be(self) -> None:
        """Says what the flags seem to ask for and what will not happen."""
        config, last = self.config, self.config.last_freeze_step
        say, num_envs = self.loggers[0].line, config.num_envs
        passed = lambda step: -(-step // num_envs) * num_envs  # as so many are taken at once
        complete = num_envs * (replay_lib.min_rows(config.agent.n_step) - 1)
        first_update = max(complete, passed(config.learning_starts))
        if passed(config.num_steps) <= first_update:
            say(
                f"No update is made: the first would be at step {first_update:,}, and the run ends "
                f"at {config.num_steps:,}."
            )
        elif complete > passed(config.learning_starts):
            say(f"Updates begin near step {complete:,}, when replay has complete returns.")
        used, devices = len(memory.shared_devices(config.num_seeds)), jax.local_device_count()
        if config.num_seeds > 1 and used < devices:
            say(f"{used} of {devices} devices share {config.num_seeds} seeds evenly: others idle.")
        if last is not None and config.never_freezes:
            say(f"The encoder never freezes: step {last:,} is after the end of the run.")
            return
        if last is not None and passed(last) <= first_update and not config.encoder_from:
            say(f"The encoder freezes untrained: by step {last:,} there has been no update.")
        frames, latents = self.plan.pixels.capacity, self.plan.latents.capacity
        if last is None or latents >= frames:
            return
        row_bytes = replay_lib.row_bytes(self.plan.latents.row) // config.num_seeds
        say(
            f"Replay has room for {frames:,} rows of frames but for only {latents:,} of latents, "
            f"{row_bytes:,} bytes each: the freeze drops the oldest. --latent_dtype, fewer "
            "--num_copies or more --replay_memory let it keep more."
        )

    def settled(self) -> bool:
        """Looks at the encoder when it is time to; says whether it has been at rest since the agent
        began to learn."""
        config, progress = self.config, self.progress
        # Without updates nothing moves, which is no reason to freeze.
        due = max(config.freeze_earliest, settling.next_look(progress.looked))
        if not progress.updates or progress.step < due:
            return False
        progress.looked = progress.step
        now = self.agent.freeze(seeds.together(self.state)).frozen
        past = self.looks
        # A copy: the next update is given the parameters to overwrite.
        self.looks = [*past, jax.tree.map(jnp.copy, now)][-settling.LOOKS_BACK :]
        learned = settling.has_learned(progress.first_returns, progress.newest_returns)
        if learned and not progress.learned:
            progress.learned = progress.step
        if len(past) < settling.LOOKS_BACK:
            return False
        first = self.agent.freeze(self.functions.init(self.keys.init)).frozen
        key = jax.random.fold_in(self.keys.freeze, progress.iteration)
        probe = self.functions.draw_probe(self.replay, key)
        progress.flops += 3 * settling.PROBE_SIZE * self.agent.flops.encode
        similarity, movement = jax.device_get(self.functions.look(first, past[0], now, probe))
        self.loggers[0].write(
            progress.step,
            {
                "freeze/cka": float(similarity),
                "freeze/movement": float(movement),
                "freeze/learned": float(learned),
            },
        )
        long_since = 2 * progress.learned <= progress.step
        return learned and long_since and movement <= config.freeze_movement

    def freeze(self) -> None:
        """Freezes the encoder and turns the rows held into latents; none are lost that fit."""
        start, rows = time.perf_counter(), int(self.replay.size)
        before = self.replay_bytes()
        self.state = self.agent.freeze(seeds.together(self.state))
        if self.read_encoder is not None:
            self.state = self.state.replace(frozen=self.read_encoder())
        encode = lambda replay, age, number: self.functions.encode_rows(
            self.state, replay, age, self.keys.freeze, number
        )
        with memory.giving_back():  # frames and latents are held together
            self.replay, quality, encoded = freezing.to_latents(
                self.replay,
                encode,
                row=self.plan.latents.row,
                capacity=self.plan.latents.capacity,
                chunk=chunk(self.config, self.num_envs()),
                several=self.config.num_seeds > 1,
                init=self.init_replay,
            )
            self.place()
            self.looks = []
        copies = self.num_envs() * self.config.num_copies
        self.progress.flops += self.agent.flops.encode * encoded * copies
        self.write(
            {
                "freeze/step": self.progress.step,
                "freeze/rows": int(self.replay.size),
                "freeze/rows_before": rows,
                "freeze/seconds": time.perf_counter() - start,
                "freeze/replay_bytes_before": before,
                "replay/bytes": self.replay_bytes(),
                **memory.usage(),
            },
            quality,
        )

    def write(self, of_all: dict[str, float], of_each: dict[str, np.ndarray]) -> None:
        """Writes what holds for every learner, and what f32[S] says of each."""
        for i, logger in enumerate(self.loggers):
            own = {name: float(x.reshape(-1)[i]) for name, x in of_each.items()}
            logger.write(self.progress.step, of_all | own)

    def replay_bytes(self) -> int:
        """Of one learner."""
        return replay_lib.replay_bytes(self.replay) // self.config.num_seeds

    def report(self) -> None:
        """Writes the metrics since the last report and moves the progress bar.

        Raises:
            UserError: if the critic's loss is not finite any more.
        """
        progress, now = self.progress, time.perf_counter()
        then, step, updates = self.reported
        metrics = self.mean_metrics()
        self.reported = (now, progress.step, progress.updates)
        steps_per_s = (progress.step - step) / (now - then)
        of_all = memory.usage() | {
            "time/sps": steps_per_s,
            "time/updates_per_s": (progress.updates - updates) / (now - then),
            "time/hours": self.seconds() / 3600,
            "replay/rows": int(self.replay.size),
            "replay/bytes": self.replay_bytes(),
            "flops/total": progress.flops,
        }
        self.write(of_all, metrics)
        last_return = progress.newest_returns[-1] if progress.newest_returns else None
        self.loggers[0].progress(progress.step, self.phase(), last_return, steps_per_s)

    def mean_metrics(self) -> dict[str, np.ndarray]:
        """Means over the updates since the last call, f32[S] for S learners; nan in a metric means
        not computed then."""
        metrics, self.metrics = jax.device_get(self.metrics), []
        columns = collections.defaultdict(list)
        for each in metrics:  # those from before a freeze have more names than those after it
            for name, value in each.by_name().items():
                columns[name].append(value.reshape(-1))
        if not np.isfinite(columns.get("loss/critic", 0.0)).all():
            raise _diverged("loss/critic")
        computed = {name: np.array(x) for name, x in columns.items() if not np.isnan(x).all()}
        return {name: np.nanmean(x, axis=0) for name, x in computed.items()}

    def lacks_an_evaluation(self) -> bool:
        """Whether this step's evaluation is still to be made: the first, or one cut short by a
        stop."""
        step, every = self.progress.step, self.config.eval_every
        last = min(logger.last_eval() for logger in self.loggers)  # a kill may fall between two
        return last < step and (step >= self.config.num_steps or step // every > last // every)

    def evaluate(self, stop_requested: Callable[[], bool] = lambda: False) -> bool:
        """Greedy episodes in an environment of their own, the same ones at the same step. Returns
        False if a request to stop cut them short; then nothing is written."""
        config, step = self.config, self.progress.step
        if self.eval_env is None:
            self.eval_env = self.make_eval_env()
        own_seeds = [
            int(np.random.SeedSequence([seed, 1, step]).generate_state(1)[0])
            for seed in config.seeds
        ]
        frames: list[np.ndarray] | None = [] if config.video else None
        episodes = config.eval_episodes
        returns = run_episodes(
            self.functions, self.state, self.eval_env, episodes, own_seeds, frames, stop_requested
        )
        if returns is None:
            return False
        env_step = step * self.env.spec.action_repeat
        scores = self.env.spec.reference_scores
        for logger, of_one in zip(self.loggers, returns, strict=True):
            if logger.last_eval() >= step:
                continue
            if scores is not None:
                normalised = (float(np.mean(of_one)) - scores[0]) / (scores[1] - scores[0])
                logger.write(step, {"eval/human_normalised": normalised})
            logger.write_eval(
                step,
                **{"return": float(np.mean(of_one))},
                return_std=float(np.std(of_one)),
                episodes=len(of_one),
                flops=self.progress.flops,
                replay_bytes=self.replay_bytes(),
                hours=self.seconds() / 3600,
                phase=self.phase(),
            )
        if frames:
            video.write_video(self.folders[0] / "video" / f"{env_step}.mp4", frames, _VIDEO_FPS)
        # The spread is over the episodes of one learner, or over the means of several.
        spread = np.std(returns[0] if len(returns) == 1 else np.mean(returns, axis=1))
        self.loggers[0].line(
            f"step {step:>7,}  env_step {env_step:>9,}  return {np.mean(returns):7.1f} "
            f"± {spread:5.1f}  {self.phase():>7}  "
            f"{replay_lib.replay_bytes(self.replay) / 2**20:8.1f} MiB replay  "
            f"{self.progress.flops * config.num_seeds:.2e} FLOPs  {self.seconds() / 60:6.1f} min"
        )
        return True

    def phase(self) -> str:
        return "pixels" if self.state.frozen is None else "latents"

    def seconds(self) -> float:
        """Wall-clock of the run so far, earlier sessions included."""
        return self.progress.seconds + time.perf_counter() - self.began

    def save(self) -> None:
        """Writes a checkpoint of everything.

        Raises:
            UserError: if the agent has diverged; no checkpoint is worth having of that.
        """
        if not all(np.isfinite(x).all() for x in jax.device_get(jax.tree.leaves(self.state))):
            raise _diverged("A parameter or an optimiser's moment")
        frozen = self.state.frozen is not None
        items = {
            "state": seeds.together(self.state),
            "replay": replay_lib.trimmed(self.replay, self.plan.at(frozen).row),
            "loop": {"stack": self.stack, "timestep": self.timestep, "looks": self.looks},
            "env": self.env.get_state(),
        }
        progress = dataclasses.replace(self.progress, seconds=self.seconds())
        self.metrics = jax.device_get(self.metrics)
        metrics = [
            {name: value.tolist() for name, value in each.by_name().items()}
            for each in self.metrics
        ]
        saved = dataclasses.asdict(progress) | {"phase": self.phase(), "metrics": metrics}
        self.checkpoints.save(progress.step, items, saved)
        memory.give_back_freed()  # by compiling, updates and writing

    def restore_or_start(self) -> bool:
        """Takes up the newest checkpoint, or begins; says whether it began."""
        with memory.giving_back():  # what is read
            restored = self.checkpoints.restore(CHECKPOINTED, in_pieces=("replay",))
            if restored is not None:
                self.resume(*restored)
        if restored is None:
            self.start()
        self.place()
        return restored is None

    def place(self) -> None:
        """Lays the arrays of the run out as the programs return them."""
        arrays = self.state, self.replay, self.stack
        self.state, self.replay, self.stack = self.functions.place(*arrays)

    def start(self) -> None:
        """Begins at step 0."""
        self.state = self.functions.init(self.keys.init)
        row, _, capacity = self.plan.pixels
        empty = functools.partial(self.init_replay, capacity, row, self.prioritised())
        self.compile_update(jax.eval_shape(empty))
        self.replay = empty()
        self.stack = self.functions.empty_stack(self.env.spec.num_envs)
        self.timestep = self.env.reset()

    def resume(self, items: dict[str, checkpoint.Flat], saved: dict[str, Any]) -> None:
        """Goes on from the arrays and the counters of a checkpoint."""
        frozen = saved.pop("phase") == "latents"
        row, _, capacity = self.plan.at(frozen)
        state, scale = jax.eval_shape(self.functions.init, self.keys.init), None
        if frozen:
            state = jax.eval_shape(self.agent.freeze, state)
            scale = quantise.scale_shape(row.obs, self.config.num_seeds > 1)
        self.metrics = [Metrics.pack(each) for each in saved.pop("metrics")]
        try:
            self.progress = Progress(**saved)
        except TypeError as error:
            raise UserError(
                f"The run in {self.logdir} was made by another version of seer_jax: go on with "
                "that one, or choose another --logdir to start anew."
            ) from error
        self.state = jax.device_put(checkpoint.rebuild(state, items["state"]))
        size = int(items["replay"][".size"])
        held = replay_lib.trimmed_shape(size, row, self.prioritised(), scale)
        held = checkpoint.rebuild(held, items["replay"])
        self.replay = replay_lib.untrimmed(held, capacity, self.init_replay)
        numbers = {path.split("]")[1] for path in items["loop"] if path.startswith("['looks']")}
        loop = {
            "stack": jax.eval_shape(lambda: self.functions.empty_stack(self.env.spec.num_envs)),
            "timestep": jax.eval_shape(lambda x: x, self.env.reset()),
            "looks": [jax.eval_shape(self.agent.freeze, state).frozen for _ in numbers],
        }
        loop = checkpoint.rebuild(loop, items["loop"])
        self.stack = jnp.asarray(loop["stack"])
        self.timestep = loop["timestep"]
        self.looks = jax.device_put(loop["looks"])
        goes_on = self.env.set_state({path[2:-2]: array for path, array in items["env"].items()})
        if not goes_on:
            # Cut short, as by a time limit: the next step begins new episodes.
            ended = np.full_like(self.timestep.step_type, LAST)
            self.timestep = self.timestep._replace(step_type=ended)
            self.forget_episodes()

    def compile_update(self, replay: replay_lib.Replay) -> None:
        """Compiles the update from pixels while there is no replay yet, only its shapes: compiling
        takes hundreds of MiB for a while."""
        config = self.config
        # What is spread over devices is so by its arrays, which are not there yet.
        spread = config.num_seeds > 1 or config.data_parallel
        if config.pixel_steps <= config.learning_starts or spread:
            return
        update, beta = np.int32(0), np.float32(0)
        apart = replay.replace(priorities=None)
        self.functions.learn.lower(
            self.state, replay.priorities, apart, self.keys.learn, update, beta
        ).compile()
        memory.give_back_freed()

    def close(self) -> None:
        self.checkpoints.close()
        if self.eval_env is not None:
            self.eval_env.close()


def chunk(config: Config, num_envs: int) -> int:
    """Rows of a learner with so many environments that are encoded at a time at the freeze."""
    return max(1, _CHUNK_IMAGES // (config.num_copies * num_envs))


def run_episodes(
    functions: dispatch.Functions,
    state: AgentState | seeds.Apart,
    env: Env,
    episodes: int,
    seeds_of: list[int],
    frames: list[np.ndarray] | None = None,
    stop_requested: Callable[[], bool] = lambda: False,
) -> list[list[float]] | None:
    """Returns of greedy episodes, for each learner; None if asked to stop before their end.

    Args:
        functions: compiled.
        state: of the learner, or of several.
        env: each environment of a learner plays the same number of episodes: the first to end
            would be the short ones.
        episodes: how many of a learner, a multiple of the environments it has.
        seeds_of: for each learner; restarts the environment's random stream, and the agent's.
        frames: takes pictures u8[H, W, 3] of the beginning of the first environment's first
            episode, if given.
        stop_requested: asked at each step.
    """
    num_envs = env.spec.num_envs
    each = episodes * len(seeds_of) // num_envs
    stack = functions.empty_stack(num_envs)
    returns: list[list[float]] = [[] for _ in range(num_envs)]
    timestep = env.reset(seed=seeds_of if len(seeds_of) > 1 else seeds_of[0])
    key, iteration, totals = seeds.keys(seeds_of), 0, np.zeros(num_envs)
    while not stop_requested():
        if frames is not None and not returns[0] and len(frames) < _VIDEO_FRAMES:
            frames.append(env.render(_VIDEO_SIZE, _VIDEO_SIZE))
        for i in np.flatnonzero(timestep.step_type == LAST):
            returns[i].append(float(totals[i]))
            totals[i] = 0.0
        if all(len(of_env) >= each for of_env in returns):
            own = np.array([of_env[:each] for of_env in returns])
            return own.reshape(len(seeds_of), -1).tolist()
        action, stack = functions.act(state, stack, timestep, key, np.int32(iteration))
        timestep = env.step(_to_host(action))
        totals += timestep.reward
        iteration += 1
    return None


def _to_host(action: Array) -> np.ndarray:
    """An action as environments take it. They would answer nan with a traceback."""
    on_host = jax.device_get(action)
    if not np.isfinite(on_host).all():
        raise _diverged("An action")
    return on_host


def _diverged(what: str) -> UserError:
    return UserError(
        f"{what} is not finite any more: the run has diverged. Checkpoints from before are intact; "
        "lower the learning rates (see --help) and start again with another --logdir."
    )


@contextlib.contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Within, SIGINT and SIGTERM are noted instead of raised; a second one is not held back."""
    received = False

    def note(signum: int, _: object) -> None:
        nonlocal received
        received = True
        for each, handler in before.items():
            signal.signal(each, handler)

    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    for each in before:
        signal.signal(each, note)
    try:
        yield lambda: received
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
