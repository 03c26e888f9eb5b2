"""Replay: what a sample may contain, and that samples contain all of it.

The frames of `FakeEnv` say (environment, episode, t), so every sampled row tells where it came
from. The same rows are kept as a plain list, which `true_transitions` searches slowly and plainly;
what is sampled must be the same set. Numbers are chosen so that float32 holds them exactly.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seer_jax import programs
from seer_jax import replay as replay_lib
from seer_jax.envs.fake import FakeEnv
from seer_jax.types import FIRST, LAST, MID, InPieces, Row, TimeStep

GAMMA = 0.5
FRAME = (1, 1, 3)  # a frame is exactly (environment, episode, t)
ACTION_SCALE = 128  # the action taken at a frame is that frame / 128, within [-1, 1]
CAPACITY = 10  # the same in most tests, and so is the batch, to compile less

add = jax.jit(replay_lib.add, donate_argnums=0)
sample = jax.jit(replay_lib.sample, static_argnames=("batch_size", "n_step", "gamma", "read"))
read_frame = replay_lib.stacked_frames(FRAME, 1, "repeat")


# The truth, in plain Python. tests/test_freezing.py uses it too.


def play(env, count, interrupted_at=()):
    """The first rows of an environment, as the training loop writes them.

    Before each row of `interrupted_at` all environments begin a new episode, without a LAST row.
    """
    timestep = env.reset(seed=0)
    rows = []
    for i in range(count):
        if i in interrupted_at:
            timestep = env.reset()
        frames = timestep.obs.reshape(env.spec.num_envs, -1)
        action = np.float32(frames[:, :3]) / ACTION_SCALE
        rows.append(Row(frames, action, timestep.reward, timestep.discount, timestep.step_type))
        timestep = env.step(action)
    return rows


def fake_env(**kwargs):
    return FakeEnv(action_shape=(3,), obs_shape=FRAME, **kwargs)


def name(row, env):
    """(environment, episode, t) of a row."""
    return tuple(int(x) for x in row.obs[env][:3])


def true_transitions(rows, n_step):
    """{name of start: (reward, discount, name of next_obs)} of each complete transition."""
    found = {}
    for env in range(len(rows[0].reward)):
        for start in range(len(rows)):
            if rows[start].step_type[env] == LAST:
                continue
            reward, discount = 0.0, 1.0
            for i in range(start + 1, min(start + n_step + 1, len(rows))):
                if rows[i].step_type[env] == FIRST:
                    break
                reward += discount * rows[i].reward[env]
                discount *= GAMMA * rows[i].discount[env]
                if rows[i].step_type[env] == LAST or i == start + n_step:
                    found[name(rows[start], env)] = (reward, discount, name(rows[i], env))
                    break
    return found


def true_stack(rows, age, env, stack, pad):
    """Names u8[k, 3] of the frames stacked at `rows[age]`, oldest first; `rows` are those held."""
    frames = [rows[age].obs[env]]
    for _ in range(stack - 1):
        if rows[age].step_type[env] == FIRST:
            frames.append(frames[-1] if pad == "repeat" else np.zeros_like(frames[-1]))
        else:
            age = max(age - 1, 0)  # what the ring has overwritten is filled with the oldest left
            frames.append(rows[age].obs[env])
    return np.array(frames[::-1])


def fill(rows, capacity):
    replay = replay_lib.init(capacity, rows[0])
    for row in rows:
        replay = add(replay, row)
    return replay


def draw(replay, n_step, key, read=read_frame):
    return sample(jax.random.key(key), replay, 2048, n_step=n_step, gamma=GAMMA, read=read)[0]


def sampled_transitions(replay, n_step, key=0, read=read_frame):
    """Like `true_transitions`, from samples; fails if one start came with two different answers.

    `read` returns names.
    """
    batch = draw(replay, n_step, key, read)
    obs, next_obs = (np.reshape(x, (-1, 3)) for x in (batch.obs, batch.next_obs))
    np.testing.assert_array_equal(batch.action * ACTION_SCALE, obs)
    columns = np.column_stack([obs, batch.reward, batch.discount, next_obs])
    found = {}
    for row in np.unique(columns, axis=0).tolist():
        start, answer = tuple(row[:3]), (row[3], row[4], tuple(row[5:]))
        assert found.setdefault(start, answer) == answer
    return found


# A buffer of four rows, by hand.


@pytest.fixture
def four_rows():
    """Episode 7 ended at t = 2 by a time limit, episode 8 terminates at t = 2; six rows came by.

    slot        0       1       2       3
    obs        81      82      72      80     episode and t
    type      MID    LAST    LAST   FIRST
    reward     10      20       4       0
    discount    1       0       1       1
                      newest  oldest
    """
    rows = [
        # obs, action, reward, discount, step type
        ([70], [0.70], 0, 1, FIRST),
        ([71], [0.71], 2, 1, MID),
        ([72], [0.72], 4, 1, LAST),
        ([80], [0.80], 0, 1, FIRST),
        ([81], [0.81], 10, 1, MID),
        ([82], [0.82], 20, 0, LAST),
    ]
    dtypes = (np.uint8, np.float32, np.float32, np.float32, np.int32)
    return fill(
        [
            Row(*(np.array([x], dtype) for x, dtype in zip(row, dtypes, strict=True)))
            for row in rows
        ],
        capacity=4,
    )


def test_four_rows_lie_in_their_slots(four_rows):
    assert four_rows.rows.obs[:, 0, 0].tolist() == [81, 82, 72, 80]
    assert (four_rows.position, four_rows.size) == (2, 4)
    assert replay_lib.slot(four_rows, jnp.arange(4)).tolist() == [2, 3, 0, 1]


@pytest.mark.parametrize(
    ("n_step", "expected"),
    [
        # obs: reward, discount, next_obs
        (1, {80: (10, 0.5, 81), 81: (20, 0, 82)}),
        (2, {80: (10 + 0.5 * 20, 0, 82), 81: (20, 0, 82)}),
    ],
)
def test_four_rows_have_two_transitions(four_rows, n_step, expected):
    read = replay_lib.stacked_frames((1, 1, 1), 1, "repeat")
    batch, _ = sample(jax.random.key(0), four_rows, 64, n_step=n_step, gamma=GAMMA, read=read)
    found = {}
    columns = (np.ravel(x).tolist() for x in batch)
    for obs, action, *answer, next_obs, _ in zip(*columns, strict=True):
        assert action == pytest.approx(obs / 100)
        found[obs] = (*answer, next_obs)
    assert found == expected


def one_row(replay):
    return jax.tree.map(lambda x: x[0], replay.rows)


def in_pieces(replay, rows):
    """Its arrays, to be read so many rows at a time."""

    def cut(x):
        read = lambda: ((i, x[i : i + rows]) for i in range(0, len(x), rows))
        return InPieces(x.shape, x.dtype, read)

    priorities = replay.priorities
    if priorities is not None:
        priorities = priorities._replace(values=cut(priorities.values))
    return replay.replace(rows=jax.tree.map(cut, replay.rows), priorities=priorities)


@pytest.mark.parametrize("rows", [None, 1, 3])
@pytest.mark.parametrize("prioritised", [False, True])
def test_a_full_ring_with_another_room_goes_on_after_its_newest_row(four_rows, prioritised, rows):
    if prioritised:
        values = jnp.float32([[81], [0], [0], [80]])
        priorities = replay_lib.Priorities(values, jnp.float32(81))
        four_rows = four_rows.replace(priorities=priorities)
    held = replay_lib.trimmed(four_rows, one_row(four_rows))
    if rows is not None:
        held = in_pieces(held, rows)
    same, larger, smaller = (replay_lib.untrimmed(held, capacity) for capacity in (4, 6, 3))
    assert jax.tree.all(jax.tree.map(np.array_equal, same, four_rows))
    assert (larger.position, larger.size) == (4, 4)
    assert larger.rows.obs[:, 0, 0].tolist() == [72, 80, 81, 82, 0, 0]
    assert larger.rows.reward[:, 0].tolist() == [4, 0, 10, 20, 0, 0]
    if prioritised:
        assert larger.priorities.values[:, 0].tolist() == [0, 80, 81, 0, 0, 0]
        assert larger.priorities.highest == 81
        assert smaller.priorities.values[:, 0].tolist() == [80, 81, 0]
    # With less room, the newest that it has room for.
    assert (smaller.position, smaller.size) == (0, 3)
    assert smaller.rows.obs[:, 0, 0].tolist() == [80, 81, 82]


def test_a_ring_with_just_the_room_for_what_it_held_goes_on_over_the_oldest_row():
    rows = play(fake_env(), 4)
    held = replay_lib.trimmed(fill(rows[:3], 10), rows[0])
    for capacity, kept in ((3, rows[:3]), (2, rows[1:3]), (4, rows[:3])):
        full = replay_lib.untrimmed(held, capacity)
        replay = add(full, rows[3])
        newest = [*kept, rows[3]][-capacity:]
        ages = replay_lib.slot(replay, np.arange(len(newest)))
        np.testing.assert_array_equal(replay.rows.obs[ages], np.stack([x.obs for x in newest]))


def test_a_terminal_step_stops_the_bootstrap_and_a_time_limit_does_not():
    for terminal, discount in ((True, 0), (False, GAMMA)):
        rows = play(fake_env(lengths=(2,), terminals=(terminal,)), 3)
        transitions = sampled_transitions(fill(rows, CAPACITY), 1)
        assert transitions[0, 0, 1] == (2, discount, (0, 0, 2))


# Writing.


@pytest.mark.parametrize("num_envs", [1, 3])
def test_add_writes_in_place(num_envs):
    rows = play(fake_env(num_envs=num_envs), 9)
    replay = replay_lib.init(4, rows[0])
    pointers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(replay.rows)]
    for row in rows:
        given, replay = replay, add(replay, row)
        assert all(x.is_deleted() for x in jax.tree.leaves(given.rows))
        assert [x.unsafe_buffer_pointer() for x in jax.tree.leaves(replay.rows)] == pointers


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 8, 11])
def test_the_newest_rows_are_held_in_order(count):
    rows = play(fake_env(num_envs=2), 11)
    replay = functools.reduce(add, rows[:count], replay_lib.init(4, rows[0]))
    held = rows[:count][-4:]
    assert (replay.size, replay.position) == (len(held), count % 4)
    for age, row in enumerate(held):
        where = replay_lib.slot(replay, age)
        jax.tree.map(lambda x, y, i=where: np.testing.assert_array_equal(x[i], y), replay.rows, row)


def test_write_rows_puts_a_block_in_place():
    rows = play(fake_env(num_envs=2), 5)
    block = jax.tree.map(lambda *x: np.stack(x), *rows[2:4])
    written = replay_lib.write_rows(replay_lib.init(5, rows[0]).rows, block, 2)
    empty = jax.tree.map(np.zeros_like, rows[0])
    for slot, expected in enumerate([empty, empty, *rows[2:4], empty]):
        jax.tree.map(lambda x, y, i=slot: np.testing.assert_array_equal(x[i], y), written, expected)


def test_bytes_are_those_of_the_arrays():
    frame = jax.ShapeDtypeStruct((2, 100 * 100 * 3), jnp.uint8)
    action = jax.ShapeDtypeStruct((2, 6), jnp.float32)
    scalar, integer = (jax.ShapeDtypeStruct((2,), x) for x in (jnp.float32, jnp.int32))
    frames = Row(frame, action, scalar, scalar, integer)
    assert replay_lib.row_bytes(frames) == 2 * (30_000 + 6 * 4 + 4 + 4 + 4)

    sides = {side: jax.ShapeDtypeStruct((2, 4, 50), jnp.bfloat16) for side in ("critic", "actor")}
    latents = frames._replace(obs=sides)
    assert replay_lib.row_bytes(latents) == 2 * (2 * 4 * 50 * 2 + 6 * 4 + 4 + 4 + 4)
    for row in (frames, latents):
        replay = replay_lib.init(7, row)
        assert replay_lib.get_capacity(replay) == 7
        assert replay_lib.replay_bytes(replay) == 7 * replay_lib.row_bytes(row)


# Sampling: every complete transition, and nothing else.

ENVS = {
    "time limits": dict(lengths=(4,)),
    "terminals": dict(lengths=(4,), terminals=(True,)),
    "mixed lengths": dict(lengths=(1, 3, 2, 7), terminals=(True, False, False)),
    "one endless episode": dict(lengths=(99,)),
}


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("num_envs", [1, 2])
@pytest.mark.parametrize("episodes", ENVS)
def test_samples_are_exactly_the_complete_transitions(episodes, num_envs, n_step):
    """At every position of the write head: before the ring is full, and two times around it."""
    rows = play(fake_env(num_envs=num_envs, **ENVS[episodes]), 3 * CAPACITY)
    replay = replay_lib.init(CAPACITY, rows[0])
    for count, row in enumerate(rows, start=1):
        replay = add(replay, row)
        if count >= replay_lib.min_rows(n_step):
            truth = true_transitions(rows[:count][-CAPACITY:], n_step)
            assert sampled_transitions(replay, n_step, key=count) == truth, f"after {count} rows"


@pytest.mark.parametrize("n_step", [1, 3])
def test_an_interrupted_episode_is_not_spliced_to_the_next(n_step):
    """FIRST after MID without a LAST, as when a run is taken up without its environment's state."""
    rows = play(fake_env(num_envs=2, lengths=(5, 4)), 36, interrupted_at=(9, 17, 24))
    interrupted = [row.step_type[0] for row in rows[7:10]]
    assert interrupted == [MID, MID, FIRST]
    replay = fill(rows[:8], CAPACITY)
    for count, row in enumerate(rows[8:], start=9):
        replay = add(replay, row)
        truth = true_transitions(rows[:count][-CAPACITY:], n_step)
        assert sampled_transitions(replay, n_step, key=count) == truth, f"after {count} rows"


def test_every_transition_is_as_likely_as_any_other():
    """Also beside rows that are no start, and in both environments; a chi-square test."""
    rows = play(fake_env(num_envs=2, lengths=(1, 3, 2, 7)), 37)
    replay = fill(rows, CAPACITY)
    truth = true_transitions(rows[-CAPACITY:], 3)
    drawn = np.concatenate([draw(replay, 3, key).obs.reshape(-1, 3) for key in range(8)])
    starts, counts = np.unique(drawn, axis=0, return_counts=True)
    assert {tuple(start) for start in starts.tolist()} == set(truth)
    expected, freedom = len(drawn) / len(truth), len(truth) - 1
    statistic = np.sum((counts - expected) ** 2 / expected)
    assert abs(statistic - freedom) < 4 * (2 * freedom) ** 0.5, (statistic, freedom)


def test_samples_differ_within_a_batch_and_with_the_key():
    replay = fill(play(fake_env(lengths=(50,)), CAPACITY), CAPACITY)
    first, again, other = (draw(replay, 1, key).reward.tolist() for key in (0, 0, 1))
    assert first == again != other
    assert first[:1024] != first[1024:]


def test_min_rows_always_hold_a_transition():
    """However episodes of at least one step lie in them, also where a run was resumed just before
    the first step of one: its FIRST row is LAST then."""
    lengths = np.random.default_rng(0).integers(1, 9, 40).tolist()
    rows = play(fake_env(lengths=lengths), 150)
    first = next(i for i, row in enumerate(rows) if i > 70 and row.step_type == FIRST)
    rows.insert(first, rows[first]._replace(step_type=np.array([LAST], np.int32)))
    for n_step in range(1, 9):
        count = replay_lib.min_rows(n_step)
        windows = [rows[start : start + count] for start in range(len(rows) - count)]
        assert all(true_transitions(window, n_step) for window in windows)
        # And no fewer would do.
        assert not all(true_transitions(window[:-1], n_step) for window in windows)


@pytest.mark.parametrize("n_step", [1, 3])
def test_sampling_from_min_rows_finds_what_there_is(n_step):
    """Where one row fewer held nothing: two LAST rows, and n of the next episode's steps."""
    last, *rows = play(fake_env(lengths=(5,)), 20)[5 : 4 + replay_lib.min_rows(n_step)]
    rows = [last, last, *rows]
    truth = true_transitions(rows, n_step)
    assert last.step_type == LAST and list(truth) == [(0, 1, 0)]
    assert sampled_transitions(fill(rows, CAPACITY), n_step) == truth


# Reading frames.


@pytest.mark.parametrize(
    ("pad", "expected"),
    [
        ("repeat", {0: [0, 0, 0], 1: [0, 0, 1], 2: [0, 1, 2], 3: [1, 2, 3]}),
        ("zeros", {0: [-1, -1, 0], 1: [-1, 0, 1], 2: [0, 1, 2], 3: [1, 2, 3]}),
    ],
)
def test_a_stack_begins_with_its_episode(pad, expected):
    """t of the stacked frames at each t of episode 1, which follows episode 0; -1 is black."""
    rows = play(fake_env(lengths=(3,)), 8)
    read = replay_lib.stacked_frames(FRAME, 3, pad)
    age = jnp.arange(4, 8)
    obs = read(fill(rows, 8), age, jnp.zeros_like(age), jax.random.key(0))
    for t, stack in zip(range(4), np.reshape(obs, (4, 3, 3)), strict=True):
        frames = [(0, 1, then) if then >= 0 else (0, 0, 0) for then in expected[t]]
        np.testing.assert_array_equal(stack, frames)


@pytest.mark.parametrize("pad", ["repeat", "zeros"])
@pytest.mark.parametrize("num_envs", [1, 2])
def test_stacks_of_all_rows(num_envs, pad):
    """At every position of the write head; interrupted episodes and overwritten beginnings too."""
    stack = 3
    env = fake_env(num_envs=num_envs, lengths=(1, 3, 2, 7))
    rows = play(env, 3 * CAPACITY, interrupted_at=(13,))
    read = jax.jit(replay_lib.stacked_frames(FRAME, stack, pad))
    replay = replay_lib.init(CAPACITY, rows[0])
    ages, envs = (x.ravel() for x in np.mgrid[:CAPACITY, :num_envs])
    for count, row in enumerate(rows, start=1):
        replay = add(replay, row)
        held = rows[:count][-CAPACITY:]
        obs = np.reshape(read(replay, ages, envs, jax.random.key(0)), (-1, stack, 3))
        for age, env, found in zip(ages, envs, obs, strict=True):
            if age < len(held):
                np.testing.assert_array_equal(found, true_stack(held, age, env, stack, pad))


def test_frames_become_channels_oldest_first():
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5, 6), np.uint8)  # B, k, H, W, C
    obs = replay_lib.frames_to_obs(frames.reshape(2, 3, -1), (4, 5, 6))
    expected = np.concatenate([frames[:, 0], frames[:, 1], frames[:, 2]], axis=-1)
    np.testing.assert_array_equal(obs, expected)


# Reading latents.


def test_stored_codes_are_read_with_their_scale():
    codes = np.arange(8, dtype=np.uint8).reshape(4, 1, 1, 2)
    one = np.ones((4, 1), np.float32)
    rows = Row({"z": codes}, one[..., None], one, one, np.int32(one))
    replay = replay_lib.Replay(rows, jnp.int32(0), jnp.int32(4), None, {"z": jnp.float32([0.5, 3])})
    age = jnp.array([3, 0])
    read = replay_lib.latents(replay, age, jnp.zeros_like(age), jax.random.key(0))
    np.testing.assert_array_equal(read["z"], [[3, 21], [0, 3]])


def test_latents_come_from_one_copy_for_all_leaves():
    """Leaves hold 10 x t + copy, so that a sample tells the row and the copy it came from."""
    copies = 3

    def with_latents(t):
        value = np.broadcast_to(10 * t + np.arange(copies), (2, copies)).astype(jnp.bfloat16)
        step_type = np.full(2, FIRST if t == 0 else MID, np.int32)
        scalar = np.full(2, t, np.float32)
        obs = {"actor": value[..., None].repeat(2, axis=-1), "critic": value}
        return Row(obs, scalar[:, None], scalar, np.ones(2, np.float32), step_type)

    replay = fill([with_latents(t) for t in range(7)], 5)
    read = replay_lib.latents
    batch, _ = sample(jax.random.key(0), replay, 512, n_step=1, gamma=GAMMA, read=read)
    chosen = []
    for obs, t in ((batch.obs, batch.reward - 1), (batch.next_obs, batch.reward)):
        assert obs["actor"].dtype == obs["critic"].dtype == jnp.float32
        assert obs["actor"].shape == (512, 2)
        np.testing.assert_array_equal(obs["actor"], np.stack([obs["critic"]] * 2, axis=-1))
        chosen.append(np.asarray(obs["critic"] - 10 * t, int))
    # Both observations draw any copy, and they draw independently: each pair about 57 times.
    pairs, counts = np.unique(np.column_stack(chosen), axis=0, return_counts=True)
    assert pairs.tolist() == [[i, j] for i in range(copies) for j in range(copies)]
    assert counts.min() > 25


# Prioritised.


def a_million_rows(values):
    """One endless episode of rows that carry their own number, with these priorities."""
    count = len(values)
    number = np.arange(count, dtype=np.float32)[:, None]
    zeros = np.zeros((count, 1), np.float32)
    rows = Row(
        obs={"z": jnp.asarray(number[:, :, None, None])},
        action=jnp.asarray(zeros),
        reward=jnp.asarray(number),
        discount=jnp.asarray(zeros + 1),
        step_type=jnp.full((count, 1), MID),
    )
    priorities = replay_lib.Priorities(jnp.float32(values)[:, None], jnp.float32(values.max()))
    return replay_lib.Replay(rows, jnp.int32(0), jnp.int32(count), priorities)


def test_a_million_priorities_in_float32():
    """Shares of the draws are those of the priorities, also among a million rows and their last."""
    count, draws = 1_000_000, 2_000_000
    random = np.random.default_rng(0)
    values = random.gamma(0.5, size=count).astype(np.float32)
    values[::100] = 0
    draw = jax.jit(lambda key: replay_lib._draw_by_priority(jnp.asarray(values), draws // 20)(key))
    found = np.concatenate([np.asarray(draw(jax.random.key(i))) for i in range(20)])
    counts = np.bincount(found, minlength=count)
    assert len(counts) == count and not counts[values == 0].any()
    expected = draws * values.astype(np.float64) / values.sum(dtype=np.float64)
    # Pearson's statistic has mean and half its variance `cells` where the shares are right.
    for order in (np.arange(count), np.argsort(values)):  # stretches of the ring; equal priorities
        seen, due = (x[order].reshape(1000, -1).sum(1) for x in (counts, expected))
        seen, due = seen[due > 20], due[due > 20]
        chi2 = np.sum((seen - due) ** 2 / due)
        assert abs(chi2 - len(due)) < 6 * np.sqrt(2 * len(due)), chi2
    # Neighbours at the far end, where a running float32 sum would no longer tell them apart.
    tail = slice(count - 2000, count)
    chi2 = np.sum((counts[tail] - expected[tail]) ** 2 / np.maximum(expected[tail], 1e-3))
    cells = np.count_nonzero(values[tail])
    assert abs(chi2 - cells) < 10 * np.sqrt(2 * cells), chi2


def test_importance_weights_at_a_million_rows():
    values = np.random.default_rng(1).gamma(0.5, size=1_000_000).astype(np.float32) + 0.01
    replay = a_million_rows(values)
    batch, start = sample(
        jax.random.key(0), replay, 256, n_step=1, gamma=1.0, read=replay_lib.latents, beta=0.4
    )
    drawn = values[np.asarray(start.slot)]
    np.testing.assert_array_equal(batch.obs["z"][:, 0], np.asarray(start.slot))
    expected = (1 / (len(values) * drawn.astype(np.float64) / values.sum())) ** 0.4
    np.testing.assert_allclose(batch.weight, expected / expected.max(), rtol=1e-5)


def test_weights_make_up_for_priorities():
    """With beta = 1 the weighted mean over draws is the plain mean over rows."""
    values = np.float32([1, 2, 4, 8, 1, 2, 4, 8])
    replay = a_million_rows(values)
    batch, _ = sample(
        jax.random.key(0), replay, 50_000, n_step=1, gamma=1.0, read=replay_lib.latents, beta=1.0
    )
    weighted = np.sum(batch.weight * batch.obs["z"][:, 0]) / np.sum(batch.weight)
    assert weighted == pytest.approx(np.mean(np.arange(7)), abs=0.05)  # the last has no next row


def test_priorities_follow_rows_and_errors():
    rows = play(fake_env(lengths=(2,)), 5)  # FIRST MID LAST FIRST MID
    replay = replay_lib.init(4, rows[0], prioritised=True)
    for row in rows[:2]:
        replay = add(replay, row)
    start = replay_lib.Start(jnp.array([0]), jnp.array([0]))
    priorities = replay_lib.update_priorities(replay.priorities, start, jnp.array([-9.0]), 0.5)
    np.testing.assert_allclose(priorities.values[:, 0], [3, 1, 0, 0], rtol=1e-5)
    replay = replay.replace(priorities=priorities)
    for row in rows[2:]:
        replay = add(replay, row)
    # LAST gets none, new rows the highest so far; the fifth row has overwritten the first.
    np.testing.assert_allclose(replay.priorities.values[:, 0], [3, 1, 0, 3], rtol=1e-5)
    priorities = replay_lib.update_priorities(replay.priorities, start, jnp.array([4.0]), 0.5)
    np.testing.assert_allclose((priorities.values[0, 0], priorities.highest), (2, 3), rtol=1e-5)


@pytest.mark.parametrize("count", [8, 13])
def test_each_environment_has_priorities_of_its_own(count):
    rows = play(fake_env(num_envs=2, lengths=(99,)), count)
    replay = replay_lib.init(CAPACITY, rows[0], prioritised=True)
    for row in rows:
        replay = add(replay, row)
    likely = replay.priorities.values.at[6, 1].set(1e6)
    replay = replay.replace(priorities=replay.priorities._replace(values=likely))
    _, start = sample(jax.random.key(0), replay, 256, n_step=1, gamma=GAMMA, read=read_frame)
    assert np.mean((start.slot == 6) & (start.env == 1)) > 0.99


def test_errors_that_are_not_finite_leave_draws_whole():
    """As of a run that diverges: the next batch is still drawn, and the loop can say so."""
    rows = play(fake_env(lengths=(2,)), 5)
    replay = replay_lib.init(2_000, rows[0], prioritised=True)
    for row in rows:
        replay = add(replay, row)
    start = replay_lib.Start(jnp.array([0, 1]), jnp.array([0, 0]))
    errors = jnp.array([jnp.nan, jnp.inf])
    replay = replay.replace(
        priorities=replay_lib.update_priorities(replay.priorities, start, errors, 0.5)
    )
    assert jnp.isfinite(replay.priorities.values).all()
    assert sampled_transitions(replay, 1) == sampled_transitions(replay.replace(priorities=None), 1)


@pytest.mark.parametrize(
    ("error", "at", "drawn"), [(1e12, (5, 6), {0, 1, 2, 3}), (3e38, (2, 3), {2, 3})]
)
def test_an_error_that_runs_away_leaves_draws_whole(error, at, drawn):
    """New rows get the highest priority, and none is drawn while its window of 20 steps has not
    ended: with 24 rows the first four can be, although no sum would hold them beside the others.
    Nor is the sum of two such priorities infinite. Otherwise the draw would never end."""
    rows = play(fake_env(lengths=(30,)), 24)
    replay = replay_lib.init(2_000, rows[0], prioritised=True)
    for row in rows[:10]:
        replay = add(replay, row)
    start = replay_lib.Start(jnp.array(at), jnp.array([0, 0]))
    replay = replay.replace(
        priorities=replay_lib.update_priorities(replay.priorities, start, jnp.full(2, error), 1.0)
    )
    for row in rows[10:]:
        replay = add(replay, row)
    _, start = replay_lib.sample(
        jax.random.key(0), replay, 500, n_step=20, gamma=1.0, read=replay_lib.latents
    )
    assert set(start.slot.tolist()) == drawn


def test_prioritised_draws_are_whole_transitions():
    """The same transitions as uniform sampling finds, and no other."""
    rows = play(fake_env(num_envs=2, lengths=(1, 3, 2, 7)), 37)
    plain = fill(rows, CAPACITY)
    prioritised = replay_lib.init(CAPACITY, rows[0], prioritised=True)
    for row in rows:
        prioritised = add(prioritised, row)
    for n_step in (1, 3):
        assert sampled_transitions(prioritised, n_step) == sampled_transitions(plain, n_step)


@pytest.mark.parametrize("pad", ["repeat", "zeros"])
def test_what_acting_sees_is_what_replay_reads(pad):
    """The stacks of the loop, pushed frame by frame, are those that are cut out of rows."""
    rows = play(fake_env(num_envs=2, lengths=(3, 1, 4)), 12)
    stack = jnp.zeros((2, 3, 3), jnp.uint8)
    for age, row in enumerate(rows):
        timestep = TimeStep(row.step_type, row.reward, row.discount, row.obs)
        stack = programs.push(stack, timestep, pad)
        for env in range(2):
            np.testing.assert_array_equal(stack[env], true_stack(rows, age, env, 3, pad))


@pytest.mark.parametrize("pieces", [None, 3])
def test_frames_are_filled_up_on_a_tpu_but_not_where_they_are_saved(monkeypatch, pieces):
    rows = play(fake_env(num_envs=2, lengths=(3, 1, 4)), 12)
    replay = fill(rows, CAPACITY)
    held = replay_lib.trimmed(replay, rows[0])
    with monkeypatch.context() as patched:
        patched.setattr(jax, "default_backend", lambda: "tpu")
        on_tpu = fill(rows, CAPACITY)
        assert on_tpu.rows.obs.shape == (CAPACITY, 2, 128)
        assert replay_lib.row_bytes(rows[0]) * CAPACITY == replay_lib.replay_bytes(on_tpu)
        assert jax.tree.all(jax.tree.map(np.array_equal, replay_lib.trimmed(on_tpu, rows[0]), held))
        taken_up = replay_lib.untrimmed(in_pieces(held, pieces) if pieces else held, CAPACITY)
        assert jax.tree.all(jax.tree.map(np.array_equal, taken_up, on_tpu))
    read = replay_lib.stacked_frames(FRAME, 3, "repeat")
    for n_step in (1, 2):
        draw = functools.partial(sample, jax.random.key(0), n_step=n_step, gamma=GAMMA, read=read)
        batches = [draw(each, batch_size=64) for each in (replay, on_tpu)]
        assert jax.tree.all(jax.tree.map(np.array_equal, *batches))


def test_vectors_are_read_alike_on_a_tpu():
    rows = np.random.default_rng(0).integers(0, 256, (7, 2, 3, 5), np.uint8)
    at = [np.random.default_rng(i).integers(0, n, 20) for i, n in enumerate(rows.shape[:3])]
    np.testing.assert_array_equal(replay_lib._read_by_number(jnp.asarray(rows), *at), rows[*at])
