"""The similarity that says whether an encoder still moves, and when an agent has learned."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seer_jax import replay as replay_lib
from seer_jax import settling
from seer_jax.types import Row


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def test_linear_cka_by_hand():
    """One feature each: CKA is the squared correlation."""
    x, y = jnp.array([[1.0], [2], [3]]), jnp.array([[1.0], [3], [2]])
    np.testing.assert_allclose(settling.linear_cka(x, y), 0.5**2, rtol=1e-5)


def test_rotation_scale_and_shift_do_not_count():
    x = normal(0, 50, 8)
    rotation, _ = jnp.linalg.qr(normal(1, 8, 8))
    np.testing.assert_allclose(settling.linear_cka(x, 3 * x @ rotation + 1), 1, rtol=1e-5)


def test_unlike_features_are_unlike():
    assert settling.linear_cka(normal(0, 500, 4), normal(1, 500, 4)) < 0.05


def test_features_that_do_not_vary_are_like_none():
    assert settling.linear_cka(jnp.ones((5, 3)), normal(0, 5, 3)) == 0


def test_maps_are_taken_as_they_lie():
    x, y = normal(0, 20, 3, 3, 2), normal(1, 20, 3, 3, 2)
    flat = settling.linear_cka(x.reshape(20, -1), y.reshape(20, -1))
    np.testing.assert_allclose(settling.linear_cka(x, y), flat, rtol=1e-6)


class TwoKinds:
    """An agent with two kinds of latents, of a matrix each."""

    encode = staticmethod(lambda encoder, view: {k: view @ w for k, w in encoder.items()})


@pytest.mark.parametrize("moved", ["critic", "actor"])
def test_a_look_reports_the_kind_of_latents_that_moved_most(moved):
    view = normal(0, 200, 6)
    first, now = ({kind: normal(i, 6, 6) for kind in ("critic", "actor")} for i in (1, 2))
    half = now | {moved: now[moved] + 0.3 * normal(3, 6, 6)}
    similarity, movement = settling.look(TwoKinds, first, half, now, view)
    of_first, of_half, of_now = (view @ x[moved] for x in (first, half, now))
    expected = settling.linear_cka(of_half, of_now)
    np.testing.assert_allclose(similarity, expected, rtol=1e-5)
    way = 1 - settling.linear_cka(of_first, of_now)
    np.testing.assert_allclose(movement, (1 - expected) / way, rtol=1e-4)
    assert 0 < movement < 1


def test_movement_is_of_the_newer_half_alone():
    view, first, now = normal(0, 200, 6), *({"a": normal(i, 6, 6)} for i in (1, 2))
    at_rest = settling.look(TwoKinds, first, now, now, view)
    np.testing.assert_allclose(at_rest, (1, 0), atol=1e-5)
    all_of_its_way = settling.look(TwoKinds, first, first, now, view)
    np.testing.assert_allclose(all_of_its_way[1], 1, rtol=1e-5)
    never_moved = settling.look(TwoKinds, now, now, now, view)
    np.testing.assert_allclose(never_moved, (1, 1), atol=1e-5)


def test_a_probe_is_drawn_from_all_rows_that_are_held_and_from_no_others():
    row = Row(*(np.zeros((2, *shape), np.float32) for shape in ((3,), (1,), (), (), ())))
    replay = replay_lib.init(100, row)
    replay = replay.replace(size=jnp.int32(5), position=jnp.int32(5))
    where = lambda replay, age, env, key: jnp.stack([age, env], axis=1)
    agent = types.SimpleNamespace(view=lambda obs: obs)
    probe = settling.draw(agent, where, replay, jax.random.key(0))
    assert probe.shape[0] == settling.PROBE_SIZE
    assert set(map(tuple, probe.tolist())) == {(age, env) for age in range(5) for env in range(2)}


def test_a_look_is_preceded_by_one_at_half_its_step():
    steps = [1_000]
    for _ in range(12):
        steps.append(settling.next_look(steps[-1]))
    for before, after in zip(steps, steps[settling.LOOKS_BACK :], strict=False):
        assert after == pytest.approx(2 * before, rel=0.005)


@pytest.mark.parametrize(
    ("returns", "learned"),
    [
        ([], False),
        ([0], False),
        ([0] * 20, False),
        ([3, 0, 9, 4, 1, 9, 2, 9, 0, 9], False),  # as good as the best of the first, no better
        ([3, 0, 9, 4, 1, 10, 2, 10, 0, 10], True),
        ([0, 1, 2, 3, 4, 5, 6], False),  # two new ones
        ([0, 1, 2, 3, 4, 5, 6, 7], True),
        ([-5, -5, -5, -5, -5, -5, -4, -4, -4], True),
        ([10, 10, 10, 10, 10, 1, 1, 1, 1, 1], False),
    ],
)
def test_an_agent_has_learned_once_most_new_episodes_beat_all_of_the_first(returns, learned):
    first, newest = returns[: settling.EPISODES], returns[-settling.EPISODES :]
    assert settling.has_learned(first, newest) is learned
