"""The loop in numbers that can be counted by hand, on an environment whose episodes are known.

Episodes last 5, 3, 5, 3, ... steps, so they end at steps 5, 8, 13, 16, 21 and 24, and each but the
last is followed by a pass that only resets. The standard run takes 24 steps, 4 of them random,
freezes at 12, and its replay has room for 12 frames or 50 latents.
"""

import collections
import contextlib
import dataclasses
import functools
import json
import signal
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import (
    assert_same_arrays,
    assert_same_run,
    of,
    read_checkpoint,
    read_evals,
    read_metrics,
)

from seer_jax import checkpoint, dispatch, programs, settling, train
from seer_jax import config as config_lib
from seer_jax import replay as replay_lib
from seer_jax.agents import curl_sac
from seer_jax.config import Config
from seer_jax.envs.fake import FakeEnv
from seer_jax.types import FIRST, LAST, Metrics, UserError

CONFIG = Config(
    num_steps=24,
    freeze_step=12,
    num_copies=2,
    replay_capacity=12,
    learning_starts=4,
    batch_size=8,
    frame_stack=2,
    image_size=24,
    action_repeat=2,
    eval_every=12,
    eval_episodes=2,
    checkpoint_every=8,
    log_every=5,  # no divisor of checkpoint_every: checkpoints fall between two reports
    video=False,
    agent=curl_sac.Config(
        crop_size=20, num_filters=4, strides=(2, 1), latent_size=6, hidden_size=16
    ),
)


class Env(FakeEnv):
    """The environment of this file, which can do something at a step of the run."""

    def __init__(self, at_step: int | None = None, do=None):
        super().__init__(
            lengths=(5, 3), terminals=(False, True), obs_shape=(24, 24, 3), action_repeat=2
        )
        self.steps, self.at_step, self.do = 0, at_step, do

    def step(self, action):
        timestep = super().step(action)
        self.steps += int(timestep.step_type[0] != FIRST)
        if self.steps == self.at_step:
            self.do()
        return timestep


@functools.cache
def make_agent(config):
    return curl_sac.make(config, Env().spec, CONFIG.frame_stack)


AGENT = make_agent(CONFIG.agent)


pytestmark = pytest.mark.usefixtures("compile_once")


def run(logdir, env=None, make_eval_env=Env, **changes):
    """Trains, or goes on training, in a folder."""
    logdir.mkdir(exist_ok=True)
    config = dataclasses.replace(CONFIG, **changes)
    agent = make_agent(config.agent)
    return train.train(config, logdir, env or Env(), make_eval_env, agent, show_progress=False)


@contextlib.contextmanager
def open_run(logdir, **changes):
    """A run to be stepped by hand."""
    config = dataclasses.replace(CONFIG, **changes)
    run = train.Run(config, logdir, Env(), Env, make_agent(config.agent))
    run.restore_or_start()
    with contextlib.closing(run), contextlib.ExitStack() as stack:
        run.open_loggers(stack, show_progress=False)
        yield run


def step_to(run, step):
    while run.progress.step < step:
        run.step()


def programs_compiled():
    """How many programs the runs so far have compiled."""
    functions = dispatch.compile_functions(CONFIG, AGENT, Env().spec)
    names = ("act_and_store", "learn", "act", "encode_rows")
    return {name: getattr(functions, name)._cache_size() for name in names}


@pytest.fixture(scope="module")
def standard(tmp_path_factory, compile_once):
    """The folder of the standard run, and how many programs it compiled."""
    logdir = tmp_path_factory.mktemp("standard")
    run(logdir)
    return logdir, programs_compiled()


# What a run counts and writes.


def test_each_program_is_compiled_once_a_phase(standard):
    assert standard[1] == {
        "act_and_store": 3,  # random; from pixels; storing latents
        "learn": 2,
        "act": 2,
        "encode_rows": 1,
    }


def test_the_update_compiled_ahead_of_replay_is_the_one_that_runs(tmp_path, caplog):
    with jax.log_compiles():
        run(tmp_path / "run", num_steps=12, freeze_step="never", batch_size=7)  # not yet compiled
    compiled = [record.getMessage() for record in caplog.records]
    assert sum(x.startswith("Finished XLA compilation of jit(learn)") for x in compiled) == 1


def test_rows_are_steps_and_resets_and_only_steps_count(standard):
    items, progress = read_checkpoint(standard[0])
    assert progress["step"] == 24
    assert progress["iteration"] == 24 + 5
    assert progress["updates"] == 24 - 4  # none on the pass of a reset
    # At the freeze 14 rows were written and 12 held; the other 15 came as latents.
    assert items["replay"][".size"] == 12 + 15
    # What step 24 brought was seen, but not acted on.
    step_type = items["replay"][".rows.step_type"][:, 0]
    assert step_type.tolist()[-10:] == [LAST, FIRST, 1, 1, 1, 1, LAST, FIRST, 1, 1]


def test_flops_are_those_of_the_passes_made(standard):
    _, progress = read_checkpoint(standard[0])
    # 10 passes acted from pixels: steps 5 to 12 and two resets. 15 passes came after the freeze: 12
    # steps and three resets, each encoding one view to act and two to store. The freeze encoded 12
    # rows twice. Updates: 8 and 12, of 8 transitions each.
    flops = AGENT.flops
    expected = (10 + 15) * flops.act + (10 + 15 * 3 + 12 * 2) * flops.encode
    expected += 8 * 8 * flops.update + 12 * 8 * flops.update_frozen
    assert progress["flops"] == expected
    assert of(read_metrics(standard[0]), "flops/total")[-1] == (24, expected)


def test_more_updates_after_the_freeze_and_not_before(tmp_path, standard):
    run(tmp_path / "run", frozen_updates=3)
    _, progress = read_checkpoint(tmp_path / "run")
    assert progress["updates"] == 8 + 3 * 12
    more = 2 * 12 * 8 * AGENT.flops.update_frozen
    assert progress["flops"] == read_checkpoint(standard[0])[1]["flops"] + more


def test_metrics_have_the_documented_names(standard):
    lines = read_metrics(standard[0])
    by_step = collections.defaultdict(set)
    for line in lines:
        assert line["env_step"] == 2 * line["step"]
        by_step[line["step"]] |= set(line) - {"step", "env_step"}
    report = {"replay/rows", "replay/bytes", "flops/total"}
    losses = {"loss/critic", "loss/actor", "loss/alpha"}
    updates = losses | {"critic/q", "actor/alpha", "actor/entropy"}
    episode = {"train/return", "train/length"}
    assert by_step[5] == report | updates | {"loss/contrast"} | episode
    assert by_step[20] == report | updates
    freeze = {"freeze/step", "freeze/rows", "freeze/rows_before"}
    freeze |= {"freeze/replay_bytes_before", "replay/bytes"}
    assert by_step[12] == freeze | {"eval/return", "eval/return_std"}
    raw = [json.loads(line) for line in (standard[0] / "metrics.jsonl").open()]
    assert {"time/sps", "time/updates_per_s", "time/hours", "memory/peak_bytes"} <= set(raw[-2])


def test_pauses_to_evaluate_do_not_count_in_the_steps_per_second(tmp_path, monkeypatch):
    clock = 0.0

    def take(seconds, result=None):
        nonlocal clock
        clock += seconds
        return result

    monkeypatch.setattr(train, "time", types.SimpleNamespace(perf_counter=lambda: clock))
    with open_run(tmp_path, frozen_updates=3) as run:
        step = run.step
        monkeypatch.setattr(run, "step", lambda: take(1, step()))
        monkeypatch.setattr(run, "evaluate", lambda stop_requested: take(100, True))
        run.loop(lambda: False)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    rates = [line["time/sps"] for line in lines if "time/sps" in line]
    # A second for a step; in some a new episode begins, which is none.
    assert len(rates) == 5 and all(0.7 < rate <= 1 for rate in rates)
    updates = [line["time/updates_per_s"] for line in lines if "time/updates_per_s" in line]
    assert max(updates[:2]) <= 1 and all(2 < rate <= 3 for rate in updates[-2:])


def test_no_two_updates_draw_alike(tmp_path):
    with open_run(tmp_path, frozen_updates=3) as run:
        numbers, learn = [], run.functions.learn

        def numbered(*args):
            numbers.append(int(args[4]))
            return learn(*args)

        run.functions = run.functions._replace(learn=numbered)
        step_to(run, 12)
        run.freeze()
        step_to(run, 14)
        assert numbers == [*range(8 + 2 * 3)]

        def q(number):
            state = jax.tree.map(lambda x: x.copy(), run.state)
            keys, beta = run.keys.learn, np.float32(0)
            metrics = learn(state, None, run.replay, keys, np.int32(number), beta)[2]
            return float(metrics.by_name()["critic/q"])

        assert q(0) == q(0) != q(1)


def test_an_update_samples_as_the_run_says(monkeypatch):
    given = {}

    def sample(key, replay, batch_size, **kwargs):
        given.update(kwargs, batch_size=batch_size)
        raise InterruptedError

    monkeypatch.setattr(replay_lib, "sample", sample)
    agent = dataclasses.replace(CONFIG.agent, n_step=4, gamma=0.9)
    config = dataclasses.replace(CONFIG, agent=agent)
    state, key = types.SimpleNamespace(frozen=None), jax.random.key(0)
    with pytest.raises(InterruptedError):
        programs._learn(config, None, "frames", None, state, None, key, 0, 0.7)
    assert given == dict(n_step=4, gamma=0.9, beta=0.7, env=None, read="frames", batch_size=8)


def test_priorities_have_the_exponent_that_the_run_says(monkeypatch):
    given = []
    monkeypatch.setattr(replay_lib, "sample", lambda *_, **__: ("batch", "start"))
    monkeypatch.setattr(replay_lib, "update_priorities", lambda *args: given.append(args))
    config = dataclasses.replace(CONFIG, priority_exponent=0.7)
    agent = types.SimpleNamespace(update=lambda state, *_: (state, {"a": 1.0}, "errors"))
    state, replay = types.SimpleNamespace(frozen=None), types.SimpleNamespace(priorities="old")
    key = jax.random.key(0)
    programs._learn(config, agent, None, lambda batch: batch, state, replay, key, 0, 0.4)
    assert given == [("old", "start", "errors", 0.7)]


def test_beta_rises_to_one(tmp_path):
    with open_run(tmp_path) as run:
        seen, state = [], run.state

        def learn(*args):
            seen.append(float(args[5]))
            return state, None, None

        run.functions = run.functions._replace(learn=learn)
        for run.progress.step in (0, 12, 24, 30):
            run.learn()
        assert seen == pytest.approx([0.4, 0.7, 1, 1])


def test_hours_go_on_where_they_were(tmp_path, monkeypatch):
    clock = types.SimpleNamespace(now=0.0)
    monkeypatch.setattr(train, "time", types.SimpleNamespace(perf_counter=lambda: clock.now))
    with open_run(tmp_path) as run:
        step_to(run, 3)
        clock.now = 100.0
        run.save()
    clock.now = 500.0
    with open_run(tmp_path) as run:
        clock.now = 507.0
        assert run.seconds() == 107


def test_metrics_that_only_some_updates_have_are_means_over_these(tmp_path):
    """Whatever the order of their names."""
    pack = lambda b, a: Metrics.pack({"loss/b": jnp.float32(b), "b": b, "a": jnp.float32(a)})
    with open_run(tmp_path) as run:
        run.metrics = [pack(1.0, np.nan), pack(3.0, 4.0), pack(5.0, 6.0)]
        means = {name: x.tolist() for name, x in run.mean_metrics().items()}
    assert means == {"loss/b": [3], "b": [3], "a": [5]}


def test_reports_come_every_log_every_steps_and_at_the_end(standard):
    lines = read_metrics(standard[0])
    assert [step for step, _ in of(lines, "flops/total")] == [5, 10, 15, 20, 24]
    # Episode e is worth 100 e a step, and 1 + 2 + ... more.
    returns = [(5, 15), (8, 306), (13, 1015), (16, 906), (21, 2015), (24, 1506)]
    assert of(lines, "train/return") == returns
    assert [length for _, length in of(lines, "train/length")] == [5, 3] * 3


def test_the_freeze_is_logged_with_the_bytes_before_and_after(standard):
    lines = read_metrics(standard[0])
    frames = 12 * (24 * 24 * 3 + 2 * 4 + 4 + 4 + 4)
    latents = 28 * (2 * (6 + 6) * 4 + 2 * 4 + 4 + 4 + 4)
    assert of(lines, "freeze/step") == [(12, 12)]
    assert of(lines, "freeze/rows") == [(12, 12)]
    assert of(lines, "freeze/replay_bytes_before") == [(12, frames)]
    assert of(lines, "replay/bytes") == [(5, frames), (10, frames)] + [
        (step, latents) for step in (12, 15, 20, 24)
    ]


def test_evaluations_are_greedy_episodes_at_their_steps(standard):
    rows = read_evals(standard[0])
    assert [(row["step"], row["env_step"], row["phase"]) for row in rows] == [
        ("0", "0", "pixels"),
        ("12", "24", "latents"),
        ("24", "48", "latents"),
    ]
    for row in rows:  # of episodes 0 and 1
        assert (row["return"], row["return_std"], row["episodes"]) == ("160.5", "145.5", "2")
    assert float(rows[0]["flops"]) == 0 < float(rows[1]["flops"]) < float(rows[2]["flops"])
    assert rows[0]["replay_bytes"] == str(12 * 1748) and rows[2]["replay_bytes"] == str(28 * 116)


def test_actions_of_an_evaluation_have_random_numbers_of_their_own():
    numbers, env = [], FakeEnv(lengths=(3,))

    def act(state, stack, timestep, key, iteration):
        numbers.append(int(iteration))
        return jnp.zeros((1, 2)), stack

    functions = types.SimpleNamespace(act=act, empty_stack=lambda n: None)
    train.run_episodes(functions, None, env, 2, [0])
    assert len(numbers) == len(set(numbers)) == 3 + 1 + 3


def test_evaluation_leaves_training_alone(standard, tmp_path):
    run(tmp_path, eval_every=5)
    (items, progress), (expected, _) = read_checkpoint(tmp_path), read_checkpoint(standard[0])
    assert len(read_evals(tmp_path)) == 6
    assert_same_arrays(items, expected)
    assert progress["flops"] == read_checkpoint(standard[0])[1]["flops"]


def test_a_finished_run_says_so_and_changes_nothing(standard, capsys):
    before = read_checkpoint(standard[0]), read_metrics(standard[0]), read_evals(standard[0])
    run(standard[0])
    assert capsys.readouterr().out == f"{standard[0]} has finished its 24 steps already.\n"
    after = read_checkpoint(standard[0]), read_metrics(standard[0]), read_evals(standard[0])
    assert_same_arrays(after[0][0], before[0][0])
    assert after[1:] == before[1:]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(freeze_step=25), "The encoder never freezes: step 25 is after the end of the run."),
        (
            dict(freeze_step=24, learning_starts=24),
            "No update is made: the first would be at step 24, and the run ends at 24.\n"
            "The encoder freezes untrained: by step 24 there has been no update.",
        ),
        (
            dict(freeze_step=30, learning_starts=30),
            "No update is made: the first would be at step 30, and the run ends at 24.\n"
            "The encoder never freezes: step 30 is after the end of the run.",
        ),
        (dict(freeze_step=5), ""),
        (dict(freeze_step="never"), ""),
        (
            dict(freeze_step=20, num_envs=3),
            "Updates begin near step 9, when replay has complete returns.",
        ),
        (
            dict(freeze_step=8, num_envs=3),  # the third pass ends at 9, before the first update
            "Updates begin near step 9, when replay has complete returns.\n"
            "The encoder freezes untrained: by step 8 there has been no update.",
        ),
        (
            dict(freeze_step=20, num_envs=12),
            "No update is made: the first would be at step 36, and the run ends at 24.\n"
            "The encoder freezes untrained: by step 20 there has been no update.",
        ),
    ],
)
def test_what_will_not_be_is_said(tmp_path, capsys, changes, said):
    with open_run(tmp_path, **changes) as run:
        run.say_what_will_not_be()
        assert capsys.readouterr().out.strip() == said


def test_devices_that_idle_are_named(tmp_path, capsys, monkeypatch):
    with open_run(tmp_path, freeze_step=5) as run:
        run.config = dataclasses.replace(run.config, num_seeds=3)
        monkeypatch.setattr(jax, "local_device_count", lambda: 8)
        monkeypatch.setattr(train.memory, "shared_devices", lambda seeds: [0] * seeds)
        run.say_what_will_not_be()
    assert capsys.readouterr().out == "3 of 8 devices share 3 seeds evenly: others idle.\n"


def test_an_end_that_is_stepped_over_is_no_freeze(tmp_path):
    """Three environments take nine steps and then twelve."""
    env = FakeEnv(num_envs=3, obs_shape=(24, 24, 3), action_repeat=2)
    run(tmp_path, env, num_envs=3, num_steps=10, freeze_step=11, replay_capacity=40)
    last = read_evals(tmp_path)[-1]
    assert (last["step"], last["phase"]) == ("12", "pixels")


def test_random_actions_are_all_that_there_are():
    spec = FakeEnv(num_actions=4).spec
    drawn = programs.random_action(jax.random.key(0), spec, 500)
    assert set(drawn.tolist()) == {0, 1, 2, 3}


def test_random_actions_first_and_then_such_that_explore(tmp_path):
    with open_run(tmp_path) as run:
        step_to(run, 6)
        stored = np.asarray(run.replay.rows.action)[:4, 0]
        assert len({tuple(action) for action in stored}) == 4
        assert stored.min() < 0 < stored.max()
        stack = jax.tree.map(np.array, run.stack)
        greedy, _ = run.functions.act(
            run.state, stack, run.timestep, run.keys.act, np.int32(run.progress.iteration)
        )
        row = run.progress.iteration
        run.step()
        assert (np.asarray(run.replay.rows.action)[row] != np.asarray(greedy)).all()


# The freeze, whenever it comes.


@pytest.mark.parametrize(
    ("freeze_step", "frozen_rows"),
    [
        (0, 0),
        (2, 2),  # among the random steps
        (24, 12),  # at the end of the run
        (25, None),  # after it
        ("never", None),
    ],
)
def test_runs_pass_the_freeze(tmp_path, capsys, freeze_step, frozen_rows):
    state = run(tmp_path, freeze_step=freeze_step)
    assert ("The encoder never freezes" in capsys.readouterr().out) == (freeze_step == 25)
    items, progress = read_checkpoint(tmp_path)
    lines = read_metrics(tmp_path)
    frozen = frozen_rows is not None
    assert of(lines, "freeze/rows") == ([(freeze_step, frozen_rows)] if frozen else [])
    assert progress["phase"] == ("latents" if frozen else "pixels")
    assert (state.frozen is not None) == (state.params.encoder is None) == frozen
    assert progress["step"] == 24 and progress["updates"] == int(state.step) == 20
    # Until the freeze 12 rows at most are held; after it 28 of 29, as these episodes are short.
    held = {0: 28, 2: 28, 24: 12, 25: 12, "never": 12}[freeze_step]
    assert items["replay"][".size"] == held == len(items["replay"][".rows.reward"])
    phases = [row["phase"] for row in read_evals(tmp_path)]
    latent_from = {0: 0, 2: 1, 24: 2}.get(freeze_step, 3)
    assert phases == ["pixels"] * latent_from + ["latents"] * (3 - latent_from)


# Episodes return 15, 306, 1015, 906, 2015, 1506, 3015, 2106, 4015: with the ninth, which ends at
# step 37, the agent has learned, as the look at 40 finds; so none freezes before 80. These are the
# steps of looks; the fifth is the first to compare.
LOOKS = (6, 8, 10, 12, 15, 18, 22, 27, 33, 40, 48, 58, 69)
AUTO = dict(num_steps=79, freeze_step="auto", freeze_earliest=6, freeze_latest=99)


def looks_find(run, movements):
    """Makes looks find these movements, in turn; takes the run to its freeze."""
    movements = iter(movements)
    run.functions = run.functions._replace(look=lambda *_: (0.9, next(movements)))
    while run.state.frozen is None:
        run.step()
        run.freeze_if_due()
    return run.progress.step


@pytest.mark.parametrize(("latest", "frozen_at"), [(99, None), (17, 17), (7, 7)])
def test_auto_freezes_at_the_latest_what_still_moves(tmp_path, latest, frozen_at):
    run(tmp_path, **AUTO | dict(freeze_latest=latest))
    lines = read_metrics(tmp_path)
    assert [step for step, _ in of(lines, "freeze/step")] == ([frozen_at] if frozen_at else [])
    looks = [step for step in LOOKS[settling.LOOKS_BACK :] if step < latest]
    assert [step for step, _ in of(lines, "freeze/cka")] == looks
    assert all(-0.01 < x < 1.01 for _, x in of(lines, "freeze/cka"))
    assert len(of(lines, "freeze/movement")) == len(looks)
    assert of(lines, "freeze/learned") == [(step, float(step >= 37)) for step in looks]


@pytest.mark.parametrize(
    ("movements", "frozen_at"), [([0.01] * 10, 83), ([0.01] * 9 + [0.051, 0.05], 99)]
)
def test_auto_freezes_what_has_been_at_rest_since_it_learned(tmp_path, movements, frozen_at):
    with open_run(tmp_path, **AUTO | dict(num_steps=101, freeze_latest=100)) as run:
        assert looks_find(run, movements) == frozen_at
        assert run.looks == []


def test_looks_count_their_flops(tmp_path):
    with open_run(tmp_path, **AUTO) as run:
        while run.progress.step < 17:
            run.step()
            run.freeze_if_due()
        flops, progress = run.agent.flops, run.progress
        assert progress.looked == 15
        acted = (progress.iteration - 4) * (flops.encode + flops.act)
        expected = acted + progress.updates * 8 * flops.update + 3 * 256 * flops.encode
        assert progress.flops == pytest.approx(expected, rel=1e-9)


def test_auto_notes_that_returns_rose_before_it_can_compare(tmp_path, monkeypatch):
    with open_run(tmp_path, **AUTO) as run:
        monkeypatch.setattr(settling, "has_learned", lambda *_: True)
        assert looks_find(run, [0.01]) == 15


def test_auto_does_not_freeze_where_returns_have_fallen_again(tmp_path, monkeypatch):
    with open_run(tmp_path, **AUTO) as run:
        learned = lambda *_: run.progress.step >= 22 and run.progress.step != 48
        monkeypatch.setattr(settling, "has_learned", learned)
        assert looks_find(run, [0.01] * 8) == 58


def test_auto_compares_with_the_encoder_at_half_the_step(tmp_path):
    seen, encoders = [], {}
    with open_run(tmp_path, **AUTO) as run:

        def look(first, half, now, probe):
            assert probe.shape[0] == settling.PROBE_SIZE
            assert_same_arrays(first, run.agent.freeze(run.functions.init(run.keys.init)).frozen)
            before = LOOKS[LOOKS.index(run.progress.step) - settling.LOOKS_BACK]
            assert_same_arrays(half, encoders[before])
            seen.append(run.progress.step)
            return 0.5, 0.5

        run.functions = run.functions._replace(look=look)
        while run.progress.step < 40:
            run.step()
            encoders[run.progress.step] = jax.tree.map(np.array, run.agent.freeze(run.state).frozen)
            run.freeze_if_due()
    assert seen == [15, 18, 22, 27, 33, 40]


def test_auto_does_not_mistake_a_run_without_updates_for_a_calm_one(tmp_path):
    run(tmp_path, **AUTO | dict(freeze_earliest=0))
    # The first update is at step 5, the first look there, then at 6, 8, 10 and the steps below.
    looks = of(read_metrics(tmp_path), "freeze/cka")
    assert [step for step, _ in looks] == [12, 15, 18, 22, 27, 33, 40, 48, 58, 69]


def test_auto_resumes_with_its_looks(tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    auto = AUTO | dict(num_steps=90, freeze_movement=1.0)
    run(tmp_path / "whole", **auto)
    with open_run(tmp_path / "cut", **auto) as cut:
        while cut.progress.step < 42:
            cut.step()
            cut.freeze_if_due()
        assert len(cut.looks) == settling.LOOKS_BACK and cut.progress.learned == 40
        cut.evaluate()
        cut.save()
    with open_run(tmp_path / "cut", **auto) as again:
        assert again.progress.learned == 40
        assert_same_arrays(again.looks, cut.looks)
    run(tmp_path / "cut", **auto)
    assert_same_arrays(*(read_checkpoint(tmp_path / name)[0] for name in ("whole", "cut")))


def rewards(replay):
    """Rewards of the rows held, oldest first."""
    held = range(int(replay.position) - int(replay.size), int(replay.position))
    return np.array(replay.rows.reward)[:, 0].take(held, mode="wrap").tolist()


@pytest.mark.parametrize("capacity", [10, 12, 50])
def test_latents_have_room_for_fewer_as_many_or_more_rows(tmp_path, capacity):
    with open_run(tmp_path) as run:
        run.plan = run.plan._replace(latents=run.plan.latents._replace(capacity=capacity))
        step_to(run, 12)
        frames = rewards(run.replay)
        assert len(frames) == 12 and frames[-3:] == [201, 202, 203]
        run.freeze()
        assert rewards(run.replay) == frames[-capacity:]
        step_to(run, 15)
        assert rewards(run.replay) == (frames + [204, 205, 0, 301])[-capacity:]
    lines = read_metrics(tmp_path)
    assert of(lines, "freeze/rows_before") == [(12, 12)]
    assert of(lines, "freeze/rows") == [(12, min(12, capacity))]


def test_every_chunk_of_the_freeze_has_a_number_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "_CHUNK_IMAGES", 8)  # four rows
    with open_run(tmp_path) as run:
        step_to(run, 12)
        numbers, encode_rows = [], run.functions.encode_rows

        def numbered(*args):
            numbers.append(int(args[4]))
            return encode_rows(*args)

        run.functions = run.functions._replace(encode_rows=numbered)
        run.freeze()
        assert len(numbers) == len(set(numbers)) == 3


def test_the_encoder_stays_as_it_was_at_the_freeze(tmp_path):
    with open_run(tmp_path) as run:
        copy = lambda: jax.tree.map(np.array, run.state.encoder)
        fresh = copy()
        step_to(run, 12)
        assert any(
            (a != b).any() for a, b in zip(*map(jax.tree.leaves, (fresh, copy())), strict=True)
        )
        run.freeze_if_due()
        frozen = copy()
        step_to(run, 24)
        run.evaluate()
        assert_same_arrays(copy(), frozen)


# One step, looked at closely.


def test_a_step_moves_nothing_between_host_and_device_but_what_programs_are_given(tmp_path):
    def given(program):
        def call(*args, **kwargs):
            with jax.transfer_guard("allow"):
                return program(*args, **kwargs)

        return call

    with open_run(tmp_path) as run:
        step_to(run, 6)
        act_and_store, learn = given(run.functions.act_and_store), given(run.functions.learn)
        run.functions = run.functions._replace(act_and_store=act_and_store, learn=learn)
        with jax.transfer_guard("disallow"):
            step_to(run, 9)  # over the reset after step 8
        step_to(run, 12)
        run.freeze()
        step_to(run, 13)
        with jax.transfer_guard("disallow"):
            step_to(run, 17)


def test_rows_are_written_in_place_also_after_a_checkpoint(tmp_path):
    with open_run(tmp_path) as run:
        for step, act in ((6, run.save), (12, run.freeze), (15, run.save)):
            step_to(run, step)
            act()
            address = lambda: [
                x.unsafe_buffer_pointer() for x in jax.tree.leaves(run.replay.rows.obs)
            ]
            before = address()
            run.step()
            run.step()
            assert address() == before, act


# Stopped and taken up again.


def stop():
    signal.raise_signal(signal.SIGINT)


def crash():
    raise RuntimeError("as if the machine had failed")


@pytest.mark.parametrize(
    "stops",
    [
        (1,),
        (4,),  # before the first update
        (5,),  # an episode has ended, its reset is to come
        (8,),  # at a checkpoint
        (12,),  # at the freeze
        (13, 23),
    ],
    ids=str,
)
def test_a_stopped_run_ends_like_an_uninterrupted_one(standard, tmp_path, stops):
    done = 0
    for step in stops:
        with pytest.raises(train.Interrupted, match=f"step {step},"):
            run(tmp_path, env=Env(step - done, stop))
        done = step
        assert read_checkpoint(tmp_path)[1]["step"] == step
    run(tmp_path)
    assert_same_run(tmp_path, standard[0])


@pytest.mark.parametrize(("step", "played"), [(0, 3), (12, 8 + 3), (24, 16 + 3)])
def test_a_run_stopped_in_an_evaluation_makes_it_again(standard, tmp_path, step, played):
    """Each evaluation plays 8 steps."""
    with pytest.raises(train.Interrupted, match=f"step {step},"):
        run(tmp_path, make_eval_env=lambda: Env(played, stop))
    assert str(step) not in [row["step"] for row in read_evals(tmp_path)]
    run(tmp_path)
    assert_same_run(tmp_path, standard[0])


@pytest.mark.parametrize(
    "crashes",
    [
        (3,),  # before the first checkpoint
        (15, 7, 8),  # counted from the start, and from the checkpoints of 8 twice: 15 and 16
    ],
    ids=str,
)
def test_a_crashed_run_ends_like_an_uninterrupted_one(standard, tmp_path, crashes):
    for step in crashes:
        with pytest.raises(RuntimeError, match="machine"):
            run(tmp_path, env=Env(step, crash))
    run(tmp_path)
    assert_same_run(tmp_path, standard[0])


def test_a_crash_after_a_checkpoint_at_the_freeze_does_not_freeze_twice(tmp_path):
    for logdir in (tmp_path / "whole", tmp_path / "crashed"):
        if logdir.name == "crashed":
            with pytest.raises(RuntimeError, match="machine"):
                run(logdir, env=Env(14, crash), checkpoint_every=12)
        run(logdir, checkpoint_every=12)
    assert of(read_metrics(logdir), "freeze/step") == [(12, 12)]
    assert_same_run(logdir, tmp_path / "whole")


def test_resuming_compiles_nothing_new(standard, tmp_path):
    before = programs_compiled()
    with pytest.raises(train.Interrupted):
        run(tmp_path, env=Env(10, stop))
    run(tmp_path)
    assert programs_compiled() == before


def test_the_run_of_another_version_is_a_plain_message(tmp_path):
    run(tmp_path, num_steps=3)
    folder = tmp_path / "checkpoints" / "3"
    (folder / "checksums.json").unlink()
    counters = folder / "progress" / "metadata"
    counters.write_text(counters.read_text().replace('"looked"', '"had_another_name"'))
    with pytest.raises(UserError, match="made by another version of seer_jax"):
        run(tmp_path, num_steps=3)


def test_a_second_signal_is_not_held_back(tmp_path):
    def stop_twice():
        stop()
        stop()

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, env=Env(6, stop_twice))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# Divergence.


@pytest.mark.parametrize("log_every", [1, 100])
def test_a_diverged_run_ends_plainly_and_leaves_a_sound_checkpoint(tmp_path, log_every):
    """With reports at every step the loss shows it; without, the actions or the next checkpoint."""

    class Poisoned(Env):
        def step(self, action):
            timestep = super().step(action)
            if self.steps >= 10:
                timestep = timestep._replace(reward=timestep.reward * np.float32(np.nan))
            return timestep

    with pytest.raises(UserError, match="not finite any more: the run has diverged. Checkpoints"):
        run(tmp_path, env=Poisoned(), log_every=log_every, freeze_step="never")
    items, progress = read_checkpoint(tmp_path)
    assert progress["step"] == 8
    assert all(np.isfinite(x).all() for x in items["state"].values())


def test_a_diverged_policy_is_not_evaluated(tmp_path):
    with open_run(tmp_path, log_every=100) as run:
        params = jax.tree.map(lambda x: x * np.float32(np.nan), run.state.params)
        run.state = run.state.replace(params=params)
        with pytest.raises(UserError, match="An action is not finite"):
            run.evaluate()
        with pytest.raises(UserError, match="the run has diverged"):
            run.save()
    assert checkpoint.restore_once(tmp_path / "checkpoints", ("state",)) is None


def test_the_configuration_of_this_file_is_a_valid_one():
    config_lib.check(CONFIG)


# With other programs than the runs above: of so many at a time only these are kept.


CONVS = dict(latent_dtype="uint8", agent=dataclasses.replace(CONFIG.agent, frozen_depth="convs"))


def test_above_frozen_convolutions_the_projections_go_on_learning(tmp_path):
    with open_run(tmp_path, **CONVS) as run:
        step_to(run, 12)
        encoder = jax.device_get(run.state.params.encoder)
        run.freeze_if_due()
        frozen, projections = jax.device_get((run.state.frozen, run.state.params.encoder))
        critic = encoder["critic"]
        assert_same_arrays(frozen, {"critic": {"convs": critic["convs"]}})
        projection = {"projection": critic["projection"]}
        assert_same_arrays(projections, {"critic": projection, "actor": encoder["actor"]})
        # Their optimisers go on where they were, without what was the convolutions'.
        moments = jax.tree.leaves(run.state.opt_state.encoder["critic"])
        assert len(moments) == 1 + 2 * len(jax.tree.leaves(projection))
        assert moments[0] == 2 * 8  # the critic's loss and the contrastive one, eight updates
        step_to(run, 24)
        run.evaluate()
        assert_same_arrays(jax.device_get(run.state.frozen), frozen)
        for before, after in zip(
            *map(jax.tree.leaves, (projections, run.state.params.encoder)), strict=True
        ):
            assert (before != after).any()
    latents = run.replay.rows.obs["features"]
    assert latents.dtype == np.uint8 and latents.shape[3] == 7 * 7 * 4  # of 20-pixel crops


SHIFT = CONVS | dict(num_copies=1, agent=dataclasses.replace(CONVS["agent"], latent_shift=True))


def test_shifted_latents_are_those_of_the_view_to_act_on(tmp_path):
    """One for each observation, which acting has encoded; before the freeze nothing is another."""
    with open_run(tmp_path / "crops", **CONVS) as crops, open_run(tmp_path, **SHIFT) as run:
        for each in (crops, run):
            step_to(each, 12)
        assert_same_arrays(jax.device_get(crops.state.params), jax.device_get(run.state.params))
        run.freeze_if_due()
        before = run.progress.flops
        step_to(run, 13)
        counted = run.agent.flops
        of_step = counted.encode + counted.act + CONFIG.batch_size * counted.update_frozen
        assert run.progress.flops - before == pytest.approx(of_step)
        stored = run.replay.rows.obs["features"][int(run.replay.position) - 1]
        scale = run.replay.scale["features"]
        obs = replay_lib.frames_to_obs(run.stack, run.env.spec.obs_shape)
        seen = run.agent.encode(run.state.encoder, run.agent.view(obs))["features"]
    assert stored.shape[1] == 1
    kept = np.asarray(stored[:, 0] * scale)
    assert (np.abs(kept - np.minimum(seen, 255 * scale)) <= 0.51 * scale).all()


@pytest.mark.parametrize("depth", [CONVS, SHIFT], ids=["crops", "shift"])
def test_above_frozen_convolutions_a_resumed_run_ends_like_another(tmp_path, depth):
    run(tmp_path / "whole", **depth)
    for steps in (8, 16):

        def crash():
            raise RuntimeError("as if the machine had failed")

        with pytest.raises(RuntimeError):
            run(tmp_path / f"at{steps}", Env(steps + 2, crash), **depth)
        run(tmp_path / f"at{steps}", **depth)
        assert_same_run(tmp_path / f"at{steps}", tmp_path / "whole")
