"""The analytic count against XLA's, at the paper's sizes. Programs are lowered and not executed."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from seer_jax import conv, flops
from seer_jax.agents import curl_sac, rainbow
from seer_jax.envs.fake import FakeEnv
from seer_jax.types import Transition

BATCH = 128
RAINBOWS_BATCH = 32
CLOSE = 0.03  # what the analytic count leaves out: biases, normalisation, losses, Adam


def test_by_hand():
    assert flops.dense(3, 5) == 2 * 3 * 5
    assert flops.dense(50, 1024, 1024, 6) == 2 * (50 * 1024 + 1024 * 1024 + 1024 * 6)
    # 41 x 41 places, each with 3 x 3 x 9 products for each of 32 filters.
    assert flops.conv(9, 32, 3, 41) == 2 * 41 * 41 * 81 * 32


def test_xla_counts_a_matrix_product():
    a, b = jax.ShapeDtypeStruct((4, 5), jnp.float32), jax.ShapeDtypeStruct((5, 6), jnp.float32)
    assert flops.xla_count(jnp.matmul, a, b) == 2 * 4 * 5 * 6


@pytest.fixture(autouse=True)
def plain_convolutions(monkeypatch):
    """XLA counts the body of a loop once, and our convolution's gradient is a loop on CPUs."""

    def conv2d(x, kernel, stride):
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    monkeypatch.setattr(conv, "conv2d", conv2d)


def make(**kwargs):
    spec = FakeEnv(obs_shape=(100, 100, 3), action_shape=(6,)).spec
    return curl_sac.make(curl_sac.Config(**kwargs), spec, frame_stack=3)


def arrays(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def transition(obs):
    return Transition(obs, arrays(BATCH, 6), arrays(BATCH), arrays(BATCH), obs, arrays(BATCH))


KEY = jax.eval_shape(lambda: jax.random.key(0))


def after_the_freeze(agent, state):
    """The state then, and latents of some observations."""
    view = lambda batch: arrays(batch, 84, 84, 9, dtype=jnp.uint8)
    state = jax.eval_shape(agent.freeze, state)
    return state, lambda batch: jax.eval_shape(agent.encode, state.frozen, view(batch))


@pytest.mark.parametrize("depth", ["projection", "convs"])
def test_encoding_and_acting(depth):
    agent = make(frozen_depth=depth)
    state, latents = after_the_freeze(agent, jax.eval_shape(agent.init, KEY))
    view = arrays(1, 84, 84, 9, dtype=jnp.uint8)
    counted = flops.xla_count(agent.encode, state.encoder, view)
    assert agent.flops.encode == pytest.approx(counted, rel=CLOSE)
    act = lambda *args: agent.act(*args, greedy=True)
    counted = flops.xla_count(act, state, latents(1), KEY)
    assert agent.flops.act == pytest.approx(counted, rel=CLOSE)


SIZES = {
    "paper": {},
    "without the contrastive loss": dict(contrastive=False),
    "other layers": dict(num_filters=16, strides=(2, 2, 1), hidden_size=512),
    "frozen convolutions": dict(strides=(2, 1, 2, 1), frozen_depth="convs"),
}


@pytest.mark.parametrize("sizes", SIZES)
def test_updates(sizes):
    """With the actor's turn in every update: XLA counts a conditional as its dearer branch."""
    agent = make(actor_every=1, **SIZES[sizes])
    state = jax.eval_shape(agent.init, KEY)
    frames = transition(arrays(BATCH, 100, 100, 9, dtype=jnp.uint8))
    counted = flops.xla_count(agent.update, state, frames, KEY) / BATCH
    assert agent.flops.update == pytest.approx(counted, rel=CLOSE)

    frozen, latents = after_the_freeze(agent, state)
    counted = flops.xla_count(agent.update, frozen, transition(latents(BATCH)), KEY) / BATCH
    assert agent.flops.update_frozen == pytest.approx(counted, rel=CLOSE)


def test_the_actors_turns_are_averaged():
    """Updates with and without one: every second time costs half of what every time adds."""
    always, second, seldom = (make(actor_every=n).flops for n in (1, 2, 10**9))
    for name in ("update", "update_frozen"):
        least = getattr(seldom, name)
        added = getattr(always, name) - least
        assert added > 0
        assert getattr(second, name) == pytest.approx(least + added / 2)


def test_freezing_saves_most_of_an_update():
    """The claim of the paper, here for its own sizes."""
    agent = make()
    assert agent.flops.update > 8 * agent.flops.update_frozen


@pytest.mark.parametrize("encoder", ["der", "nature", "impala"])
def test_rainbow(encoder):
    """Noise on weights and Adam are left out of the count, and with so small a batch they show."""
    spec = FakeEnv(obs_shape=(84, 84, 1), num_actions=18).spec
    agent = rainbow.make(rainbow.Config(encoder=encoder), spec, frame_stack=4)
    state = jax.eval_shape(agent.init, KEY)
    obs = arrays(RAINBOWS_BATCH, 84, 84, 4, dtype=jnp.uint8)
    latent = jax.eval_shape(agent.encode, state.encoder, obs)
    counted = flops.xla_count(agent.encode, state.encoder, obs) / RAINBOWS_BATCH
    assert agent.flops.encode == pytest.approx(counted, rel=CLOSE)

    act = lambda *args: agent.act(*args, greedy=False)
    one = jax.tree.map(lambda x: arrays(1, *x.shape[1:]), latent)
    # Beside two products a layer: drawing the noise, most where the latent is small.
    assert agent.flops.act == pytest.approx(flops.xla_count(act, state, one, KEY), rel=0.15)

    def batch(obs):
        scalar = arrays(RAINBOWS_BATCH)
        return Transition(obs, arrays(RAINBOWS_BATCH, dtype=jnp.int32), scalar, scalar, obs, scalar)

    counted = flops.xla_count(agent.update, state, batch(obs), KEY) / RAINBOWS_BATCH
    assert 0.93 * counted < agent.flops.update < counted
    frozen = jax.eval_shape(agent.freeze, state)
    counted = flops.xla_count(agent.update, frozen, batch(latent), KEY) / RAINBOWS_BATCH
    assert 0.85 * counted < agent.flops.update_frozen < counted
