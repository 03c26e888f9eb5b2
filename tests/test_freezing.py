"""The freeze: replay's frames become latents, in order and without loss; the encoder stands still.

Most tests use a toy agent whose latent is the crop it is made of, one pixel wide, and frames whose
pixels say (position in the frame, environment, episode, t). So a stored latent tells which row and
which crop it came from. `test_replay` has the plain Python that the results are compared with.
"""

import dataclasses
import functools
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_replay import (
    CAPACITY,
    add,
    fake_env,
    fill,
    name,
    play,
    sampled_transitions,
    true_stack,
    true_transitions,
)

from seer_jax import augment, freezing, memory, presets, programs
from seer_jax import replay as replay_lib
from seer_jax.agents import curl_sac
from seer_jax.config import Config
from seer_jax.envs.fake import FakeEnv
from seer_jax.types import LAST, Agent, TimeStep, Transition, UserError

SIDE, STACK, COPIES = 3, 2, 4
POSITIONS = SIDE * SIDE  # of a crop of one pixel
CENTRE = 4
READ = replay_lib.stacked_frames((SIDE, SIDE, 4), STACK, "repeat")


def random_view(obs, key=None):
    return augment.center_crop(obs, 1) if key is None else augment.random_crop(key, obs, 1)


def center_view(obs, key=None):
    return augment.center_crop(obs, 1)


def toy_agent(view):
    """An agent whose latent is its view times the encoder's only parameter, 1."""
    encode = lambda encoder, view: {"crop": encoder * view.reshape(len(view), -1)}
    return Agent(None, view, encode, None, None, None, None, True, signed_latents=False)


def paint(rows):
    """The same rows with frames of SIDE x SIDE pixels (position, environment, episode, t)."""
    position = np.arange(POSITIONS, dtype=np.uint8).reshape(SIDE, SIDE, 1)

    def frame(label):
        labels = np.broadcast_to(label, (SIDE, SIDE, 3))
        return np.concatenate([position, labels], axis=-1).ravel()

    return [row._replace(obs=np.stack([frame(x) for x in row.obs])) for row in rows]


def latent_row(row, dtype=np.float32):
    num_envs = len(row.reward)
    obs = {"crop": jax.ShapeDtypeStruct((num_envs, COPIES, STACK * 4), dtype)}
    return row._replace(obs=obs)


@functools.cache
def compiled_encode(view):
    """`encode_rows` of the toy agent, as `to_latents` takes it."""

    def encode(replay, age, number):
        return freezing.encode_rows(
            toy_agent(view),
            jnp.float32(1),
            replay,
            age,
            jnp.arange(2),
            jax.random.fold_in(jax.random.key(0), number),
            read=READ,
            copies=COPIES,
        )

    return jax.jit(encode)


def freeze(rows, capacity, view=random_view, chunk=4, dtype="float32"):
    """Fills a ring of frames with `rows` and converts it."""
    shaped_like = paint(play(fake_env(num_envs=2), 1))[0]
    replay = replay_lib.init(CAPACITY, shaped_like)
    for row in rows:
        replay = add(replay, row)
    replay, _, _ = freezing.to_latents(
        replay,
        compiled_encode(view),
        row=latent_row(shaped_like, dtype),
        capacity=capacity,
        chunk=chunk,
    )
    return replay


def held_rows(replay):
    """The rows of a replay, oldest first, as `Row`s of numpy arrays."""
    ages = replay_lib.slot(replay, jnp.arange(replay.size))
    rows = jax.tree.map(lambda x: np.asarray(x[ages]), replay.rows)
    return [jax.tree.map(lambda x, i=i: x[i], rows) for i in range(int(replay.size))]


def crops(latent):
    """A stored latent [K, STACK * 4] as [K, STACK, 4]: position, environment, episode, t."""
    return np.reshape(latent, (COPIES, STACK, 4))


# The conversion.


@pytest.mark.parametrize("capacity", [4, 7, 10, 16])
@pytest.mark.parametrize("count", [0, 1, 7, 10, 23])
def test_conversion_is_encoding_by_hand(count, capacity):
    """Before and after the ring of frames has wrapped; into a smaller, equal or larger one."""
    rows = paint(play(fake_env(num_envs=2, lengths=(1, 3, 2, 7)), count))
    frames = rows[-CAPACITY:]
    replay = freeze(rows, capacity, view=center_view)

    assert replay_lib.get_capacity(replay) == capacity
    assert replay.size == min(count, CAPACITY, capacity)
    assert replay.position == replay.size % capacity
    for age, found in enumerate(held_rows(replay), start=len(frames) - int(replay.size)):
        expected = frames[age]
        for column in ("action", "reward", "discount", "step_type"):
            np.testing.assert_array_equal(getattr(found, column), getattr(expected, column))
        for env in range(2):
            stack = true_stack(frames, age, env, STACK, "repeat").reshape(STACK, POSITIONS, 4)
            for copy in crops(found.obs["crop"][env]):
                np.testing.assert_array_equal(copy, stack[:, CENTRE])


def test_the_chunk_does_not_matter():
    rows = paint(play(fake_env(num_envs=2), 23))
    first, *others = (freeze(rows, 10, center_view, chunk) for chunk in (4, 1, 64))
    for other in others:
        jax.tree.map(np.testing.assert_array_equal, first, other)


def test_copies_are_independent_crops():
    rows = paint(play(fake_env(num_envs=2, lengths=(7,)), CAPACITY))
    positions = []
    for age, found in enumerate(held_rows(freeze(rows, CAPACITY))):
        for env in range(2):
            stack = true_stack(rows, age, env, STACK, "repeat").reshape(STACK, POSITIONS, 4)
            copies = crops(found.obs["crop"][env])
            position = copies[:, :, 0].astype(int)
            # One crop for all frames of a stack, and what lies there.
            assert (position == position[:, :1]).all()
            np.testing.assert_array_equal(copies, stack[:, position[:, 0]].swapaxes(0, 1))
            positions.append(position[:, 0])
    positions = np.array(positions)  # [rows x environments, K]
    assert set(positions.ravel()) == set(range(POSITIONS))
    # No two copies, rows, environments or chunks (of 4 rows x 2 environments) share their draws.
    for draws in (positions.T, positions, positions[:16].reshape(2, -1)):
        assert len({tuple(x) for x in draws}) == len(draws)


def test_latents_are_stored_as_asked():
    rows = paint(play(fake_env(num_envs=2), 7))
    exact, rounded = (freeze(rows, 7, center_view, dtype=x) for x in ("float32", "bfloat16"))
    assert rounded.rows.obs["crop"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(exact.rows.obs["crop"], rounded.rows.obs["crop"])


def test_frames_are_let_go():
    rows = paint(play(fake_env(num_envs=2), 7))
    replay = fill(rows, CAPACITY)
    encode = compiled_encode(center_view)
    row = latent_row(rows[0])
    latents, _, encoded = freezing.to_latents(replay, encode, row=row, capacity=9, chunk=4)
    assert all(x.is_deleted() for x in jax.tree.leaves(replay.rows))
    assert not any(x.is_deleted() for x in jax.tree.leaves(latents))
    assert encoded == 7


def test_priorities_stay_with_their_rows():
    rows = paint(play(fake_env(num_envs=2), 7))
    replay = replay_lib.init(CAPACITY, rows[0], prioritised=True)
    for row in rows:
        replay = add(replay, row)
    values = np.arange(2 * CAPACITY, dtype=np.float32).reshape(CAPACITY, 2)
    priorities = replay_lib.Priorities(jnp.asarray(values), jnp.float32(81))
    latents, _, _ = freezing.to_latents(
        replay.replace(priorities=priorities),
        compiled_encode(center_view),
        row=latent_row(rows[0]),
        capacity=5,
        chunk=4,
    )
    np.testing.assert_array_equal(latents.priorities.values, values[2:7])
    assert latents.priorities.highest == 81


# Going on afterwards.


def read_name(replay, age, env, key):
    """The (environment, episode, t) of the newest frame in a stored latent."""
    return replay_lib.latents(replay, age, env, key)["crop"][:, -3:]


def encoded_by_hand(row):
    """A row as the loop writes it after the freeze; only its newest frame matters here."""
    pixel = row.obs.reshape(2, POSITIONS, 4)[:, CENTRE]
    return row._replace(obs={"crop": np.float32(np.tile(pixel[:, None], (1, COPIES, STACK)))})


def test_what_is_stored_are_random_crops_of_each_environment_and_the_centre_is_to_act_on():
    rows = paint(play(fake_env(num_envs=2), STACK))
    stack = np.stack([row.obs for row in rows], axis=1)  # [N, k, H*W*C]
    obs = replay_lib.frames_to_obs(stack, (SIDE, SIDE, 4))
    agent, seen = toy_agent(random_view), set()
    for seed in range(9):
        latent, copies = freezing.encode_with_copies(
            agent, jnp.float32(1), obs, jax.random.key(seed), COPIES
        )
        for env in range(2):
            of_stack = stack[env].reshape(STACK, POSITIONS, 4)
            np.testing.assert_array_equal(
                np.reshape(latent["crop"][env], (STACK, 4)), of_stack[:, CENTRE]
            )
            stored = crops(np.asarray(copies["crop"][env]))
            position = stored[:, 0, 0].astype(int)
            np.testing.assert_array_equal(stored, of_stack[:, position].swapaxes(0, 1))
            seen |= {tuple(position)}
    assert len(seen) > 9


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("capacity", [6, 16])
def test_no_transition_is_lost_or_spliced_at_the_freeze(capacity, n_step):
    """Wherever the freeze falls, with replay empty, partly filled and wrapped around."""
    rows = paint(play(fake_env(num_envs=2, lengths=(3, 5)), 40))
    labels = play(fake_env(num_envs=2, lengths=(3, 5)), 40)
    across = 0
    for frozen_at in (0, 1, 6, 10, 17):
        replay = freeze(rows[:frozen_at], capacity)
        held = labels[:frozen_at][-CAPACITY:][-capacity:]
        for i in range(frozen_at, min(frozen_at + capacity + 4, 40)):
            replay = add(replay, encoded_by_hand(rows[i]))
            held = (held + [labels[i]])[-capacity:]
            if len(held) < replay_lib.min_rows(n_step):
                continue
            truth = true_transitions(held, n_step)
            found = sampled_transitions(replay, n_step, key=i, read=read_name)
            assert found == truth, f"frozen after {frozen_at} rows, at row {i}"
            last_frame = frozen_at > 0 and name(labels[frozen_at - 1], 0)
            across += last_frame in truth
    assert across > 0  # such transitions were among them


def test_a_step_stores_the_newest_frame_and_acts_on_the_centre_of_the_stack_that_ends_with_it():
    """Before the freeze; greedy in an evaluation alone."""
    act = lambda state, latent, key, greedy: latent["crop"] + 1_000 * greedy
    agent = toy_agent(random_view)._replace(act=act)
    config = Config(num_copies=1, frame_stack=STACK)
    spec = FakeEnv(num_envs=2, action_shape=(3,), obs_shape=(SIDE, SIDE, 4)).spec
    loop = programs.make(config, agent, spec, READ, lambda batch: batch)
    rows = paint(play(fake_env(num_envs=2, lengths=(3, 4)), 9))
    state = types.SimpleNamespace(frozen=None, encoder=jnp.float32(1))
    stack, key = jnp.zeros((2, STACK, SIDE * SIDE * 4), jnp.uint8), jax.random.key(0)
    for age, row in enumerate(rows):
        seen = stack, TimeStep(row.step_type, row.reward, row.discount, row.obs), key, age
        greedy, same_stack = loop.act(state, *seen)
        stored, stack, _ = loop.choose(state, None, *seen, random=False)
        np.testing.assert_array_equal(stored.obs, row.obs)
        np.testing.assert_array_equal(stack, same_stack)
        for env in range(2):
            frames = true_stack(rows, age, env, STACK, "repeat").reshape(STACK, POSITIONS, 4)
            np.testing.assert_array_equal(stored.action[env], frames[:, CENTRE].ravel())
        np.testing.assert_array_equal(greedy, stored.action + 1_000)


def test_every_chunk_and_every_step_has_crops_of_its_own():
    """What the loop is given: chunks at the freeze by their number, rows after it by the pass."""
    config = Config(num_copies=COPIES, frame_stack=STACK)
    spec = FakeEnv(num_envs=2, action_shape=(3,), obs_shape=(SIDE, SIDE, 4)).spec
    agent = toy_agent(random_view)._replace(act=lambda state, latent, *_: latent["crop"][:, :3])
    loop = programs.make(config, agent, spec, READ, lambda batch: batch)
    rows = paint(play(fake_env(num_envs=2, lengths=(9,)), 6))
    replay, key = fill(rows, 6), jax.random.key(0)
    one = jnp.float32(1)
    state = types.SimpleNamespace(frozen=one, encoder=one)
    ages, envs = jnp.arange(6), jnp.arange(2)
    chunks = [loop.encode_rows(state, replay, ages, envs, key, number) for number in (0, 1)]
    timestep = TimeStep(rows[0].step_type, rows[0].reward, rows[0].discount, rows[0].obs)
    stack = jnp.zeros((2, STACK, SIDE * SIDE * 4), jnp.uint8)
    stored = [
        loop.choose(state, None, stack, timestep, key, jnp.int32(i), random=False)[0].obs
        for i in (0, 1)
    ]
    for first, second in (chunks, stored):
        assert (first["crop"] != second["crop"]).any()


def test_the_scale_of_8_bits_is_of_all_rows_and_not_of_the_newest_alone():
    rows = paint(play(fake_env(num_envs=2), 6))
    rows[0] = rows[0]._replace(obs=np.full_like(rows[0].obs, 200))
    converted = freeze(rows, 6, center_view, chunk=2, dtype="uint8")
    np.testing.assert_allclose(converted.scale["crop"].max(), 200 / 255, rtol=1e-6)


@pytest.mark.parametrize(("most", "sampled"), [(8, 4), (1_000, 6)])
def test_the_scale_of_8_bits_is_of_as_many_rows_of_all_environments(monkeypatch, most, sampled):
    """Two environments: of half as many rows of both, or of all there are."""
    monkeypatch.setattr(freezing, "_SCALE_ROWS", most)
    rows = paint(play(fake_env(num_envs=2), 6))
    _, _, encoded = freezing.to_latents(
        fill(rows, 6),
        compiled_encode(random_view),
        row=latent_row(rows[0], "int8"),
        capacity=6,
        chunk=2,
    )
    assert encoded == 6 + sampled


# With CURL-SAC.


def small_agent(**kwargs):
    spec = FakeEnv(obs_shape=(18, 18, 3)).spec
    config = curl_sac.Config(
        crop_size=16, num_filters=4, strides=(2, 1), latent_size=5, hidden_size=16, **kwargs
    )
    return curl_sac.make(config, spec, STACK)


def test_real_latents_are_those_of_random_crops():
    """Each stored copy is what the encoder makes of one of the 9 possible crops, on both sides."""
    agent = small_agent()
    encoder = jax.jit(agent.init)(jax.random.key(0)).encoder
    random = np.random.default_rng(0)
    frame_size = 18 * 18 * 3
    rows = [
        row._replace(obs=random.integers(0, 256, (2, frame_size), np.uint8))
        for row in play(fake_env(num_envs=2, lengths=(3,)), 6)
    ]
    read = replay_lib.stacked_frames((18, 18, 3), STACK, "repeat")

    def encode(replay, age, number):
        key = jax.random.fold_in(jax.random.key(1), number)
        return freezing.encode_rows(
            agent, encoder, replay, age, jnp.arange(2), key, read=read, copies=COPIES
        )

    sides = {side: jax.ShapeDtypeStruct((2, COPIES, 5), np.float32) for side in encoder}
    sides.pop("contrast")
    replay, _, _ = freezing.to_latents(
        fill(rows, 6),
        jax.jit(encode),
        row=rows[0]._replace(obs=sides),
        capacity=8,
        chunk=3,
    )

    encode_crops = jax.jit(agent.encode)
    chosen = []
    for age, found in enumerate(held_rows(replay)):
        for env in range(2):
            stack = true_stack(rows, age, env, STACK, "repeat").reshape(STACK, 18, 18, 3)
            obs = np.concatenate(list(stack), axis=-1)
            views = np.stack([obs[y : y + 16, x : x + 16] for y in range(3) for x in range(3)])
            by_hand = jax.device_get(encode_crops(encoder, views))
            error = sum(
                np.abs(found.obs[side][env][:, None] - by_hand[side]).max(axis=-1)
                for side in ("critic", "actor")
            )  # [K, crops]
            assert error.min(axis=1).max() < 1e-4
            chosen.append(error.argmin(axis=1))
    assert set(np.ravel(chosen)) == set(range(9))


def test_the_encoder_stands_still():
    """It is the same to the last bit after the freeze and after 20 updates; the head moves on."""
    agent = small_agent()
    before = jax.jit(agent.init)(jax.random.key(0))
    before = before.replace(target=jax.tree.map(lambda x: x + 1, before.target))
    state = agent.freeze(before)
    assert before.frozen is None
    for part in (state.params, state.target, state.opt_state):
        assert part.encoder is None
    assert set(state.frozen) == {"critic", "actor"}
    assert state.encoder is state.frozen
    # The target becomes the online critic, whatever it was.
    jax.tree.map(np.testing.assert_array_equal, state.target.head["q"], state.params.head["q"])
    jax.tree.map(np.testing.assert_array_equal, state.params.head, before.params.head)

    frozen = jax.device_get(state.frozen)
    for side, weights in frozen.items():
        jax.tree.map(np.testing.assert_array_equal, weights, before.params.encoder[side])
    random = np.random.default_rng(0)
    normal = lambda *shape: random.normal(size=(8, *shape)).astype(np.float32)
    update = jax.jit(agent.update, donate_argnums=0)
    head = jax.device_get(state.params.head)
    for i in range(20):
        latents = [{"critic": normal(5), "actor": normal(5)} for _ in range(2)]
        discount, weight = 0.99 * np.ones(8), np.ones(8)
        batch = Transition(latents[0], np.tanh(normal(2)), normal(), discount, latents[1], weight)
        state, metrics, _ = update(state, batch, jax.random.key(i))
    assert np.isfinite(metrics["loss/critic"])
    jax.tree.map(np.testing.assert_array_equal, frozen, jax.device_get(state.frozen))
    moved = jax.tree.map(lambda x, y: not np.array_equal(x, y), head, state.params.head)
    assert all(jax.tree.leaves(moved))


# Sizes. An observation is 3 x 10,000 bytes as a frame and 2 x 50 floats x 4 copies as latents; with
# it go an action of one float, reward, discount and step type.

FRAME_ROW = 30_000 + 16
LATENT_ROW = 2 * 50 * 4 * 4 + 16
EPISODE = 125


def plan(episode_steps=EPISODE, num_envs=1, obs_shape=(100, 100, 3), **kwargs):
    lengths = (episode_steps,) if episode_steps else (5, 6)
    env = FakeEnv(num_envs, lengths, obs_shape=obs_shape, action_shape=(1,))
    config = dataclasses.replace(presets.for_task("cartpole_swingup", "paper"), **kwargs)
    agent = curl_sac.make(config.agent, env.spec, config.frame_stack)
    return freezing.plan(config, agent, env.spec)


def observation_bytes(row):
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(row.obs))


def test_plan_of_a_small_memory():
    """The paper's 1,000 rows of frames; its 18.75 times as many latents, less the small columns."""
    sizes = plan(replay_capacity=1_000)
    assert replay_lib.row_bytes(sizes.pixels.row) == FRAME_ROW
    assert replay_lib.row_bytes(sizes.latents.row) == LATENT_ROW
    assert observation_bytes(sizes.pixels.row) / observation_bytes(sizes.latents.row) == 18.75
    assert sizes.pixels.capacity == 1_000
    assert sizes.latents.capacity == 1_000 * FRAME_ROW // LATENT_ROW == 18_574


def test_plan_of_a_budget_in_bytes():
    budget = 64 * 2**20
    for text in ("64MiB", str(budget)):
        sizes = plan(replay_memory=text, replay_capacity=1)
        assert sizes.pixels.capacity == budget // FRAME_ROW
        assert sizes.latents.capacity == budget // LATENT_ROW
    for row, _, capacity in sizes:
        replay = jax.eval_shape(functools.partial(replay_lib.init, capacity, row))
        held = replay.rows.reward.shape[0] * replay_lib.row_bytes(row)
        assert budget - replay_lib.row_bytes(row) < held <= budget


def test_plan_with_half_as_wide_latents():
    sizes = plan(replay_capacity=1_000, latent_dtype="bfloat16")
    assert sizes.latents.row.obs["actor"].dtype == jnp.bfloat16
    assert sizes.latents.capacity == 1_000 * FRAME_ROW // (LATENT_ROW - 800) == 36_784


def test_plan_is_linear_in_environments_and_copies():
    sizes = plan(num_envs=3, num_copies=2, replay_capacity=3_000)
    assert replay_lib.row_bytes(sizes.pixels.row) == 3 * FRAME_ROW
    assert replay_lib.row_bytes(sizes.latents.row) == 3 * (LATENT_ROW - 800)


@pytest.mark.parametrize("budget", [dict(replay_capacity=1_000), dict(replay_memory="64MiB")])
def test_each_of_several_learners_has_as_much_replay_as_one_alone(budget):
    alone, two = plan(**budget), plan(num_envs=2, num_seeds=2, **budget)
    assert two.pixels.capacity == alone.pixels.capacity
    assert two.latents.capacity == alone.latents.capacity


@pytest.mark.parametrize(
    ("freeze_step", "frame_steps"),
    [(10_000, 10_000), (0, 0), (80_000, 80_000), (90_000, 80_000), ("never", 80_000)],
)
def test_plan_has_no_room_that_the_run_cannot_fill(freeze_step, frame_steps):
    sizes = plan(replay_capacity=100_000, freeze_step=freeze_step)
    for capacity, steps in ((sizes.pixels.capacity, frame_steps), (sizes.latents.capacity, 80_000)):
        rows = steps + steps // EPISODE  # a FIRST row for each episode
        assert rows <= capacity <= rows + 2


def test_plan_where_episodes_vary_has_room_for_short_ones():
    """A FIRST row for each ten steps, not for each step, as if any could end an episode."""
    sizes = plan(episode_steps=None, replay_capacity=100_000)
    assert sizes.pixels.capacity == 10_000 + 1_000 + 2
    assert sizes.latents.capacity == 80_000 + 8_000 + 2


@pytest.mark.parametrize("lengths", [(1,), (5,), (7,), (10, 40, 20)])
def test_a_run_writes_no_more_rows_than_planned(lengths):
    env = FakeEnv(lengths=lengths)
    for num_steps in range(60):
        timestep, step, rows = env.reset(seed=0), 0, 0
        while step < num_steps:
            rows += 1
            step += timestep.step_type[0] != LAST
            timestep = env.step(np.zeros((1, 2)))
        assert rows <= freezing.rows_of(num_steps, env.spec.episode_steps, env.spec.num_envs)


@pytest.mark.parametrize(
    "kwargs",
    [
        dict(replay_capacity=EPISODE),
        dict(replay_capacity=20, num_envs=4, episode_steps=8),
        dict(replay_memory="1MiB"),
        dict(replay_capacity=2, episode_steps=None),
        dict(replay_capacity=EPISODE, freeze_step="never"),
        # Frames smaller than latents: it is these that need the room.
        dict(replay_capacity=150, obs_shape=(84, 84, 1), num_copies=32),
    ],
)
def test_plan_refuses_what_does_not_hold_an_episode(kwargs):
    """And each of the two ways out that it names is one."""
    with pytest.raises(UserError, match="MiB holds .* rows of .* bytes") as error:
        plan(**kwargs)
    memory_flag = re.search(r"--replay_memory to (\w+)", str(error.value))[1]
    capacity_flag = re.search(r"--replay_capacity to (\d+)", str(error.value))[1]
    plan(**kwargs | dict(replay_memory=memory_flag))
    plan(**kwargs | dict(replay_memory=None, replay_capacity=int(capacity_flag)))


def test_plan_accepts_one_episode():
    assert plan(replay_capacity=EPISODE + 1).pixels.capacity == EPISODE + 1
    assert plan(episode_steps=None, replay_capacity=4).pixels.capacity == 4


def test_plan_refuses_what_the_machine_does_not_have(monkeypatch):
    # At the freeze the latents of the rows held lie beside the ring.
    needed = 1_000 * (FRAME_ROW + LATENT_ROW)
    monkeypatch.setattr(memory, "available_bytes", lambda _: needed - 1)
    with pytest.raises(UserError, match="lower --replay_memory or --replay_capacity"):
        plan(replay_capacity=1_000)
    for enough in (needed, None):
        monkeypatch.setattr(memory, "available_bytes", lambda _, enough=enough: enough)
        plan(replay_capacity=1_000)
    monkeypatch.setattr(memory, "available_bytes", lambda _: 1_000 * FRAME_ROW)
    for never in ("never", 80_001):
        plan(replay_capacity=1_000, freeze_step=never)
