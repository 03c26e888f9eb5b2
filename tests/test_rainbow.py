"""Rainbow's functions, beyond their agreement with the official code in test_parity."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seer_jax import build, losses, networks, presets
from seer_jax.agents import rainbow
from seer_jax.envs.fake import FakeEnv
from seer_jax.types import Transition, UserError

BATCH, ACTIONS = 16, 3
SPEC = FakeEnv(num_actions=ACTIONS, obs_shape=(84, 84, 1)).spec
CONFIG = rainbow.Config(hidden_size=16, target_every=2)


@pytest.fixture(scope="module")
def agent():
    return rainbow.make(CONFIG, SPEC, frame_stack=4)


@pytest.fixture(scope="module")
def state(agent):
    return jax.jit(agent.init)(jax.random.key(0))


@pytest.fixture(scope="module")
def update(agent):
    return jax.jit(agent.update)


def batch(latents=False):
    random = np.random.default_rng(0)
    if latents:
        obs, next_obs = random.uniform(size=(2, BATCH, 576)).astype(np.float32)
    else:
        obs, next_obs = random.integers(0, 256, (2, BATCH, 84, 84, 4), np.uint8)
    action = random.integers(0, ACTIONS, BATCH).astype(np.int32)
    ones = np.ones(BATCH, np.float32)
    return Transition(obs, action, (action == 1) * ones, 0 * ones, next_obs, ones)


def test_convolutions_begin_as_in_torch(state):
    """Biases too, which CURL-SAC's begin at zero."""
    for layer in state.params.encoder["params"].values():
        limit = 1 / np.sqrt(np.prod(layer["kernel"].shape[:3]))
        for values in layer.values():
            assert 0.5 * limit < np.abs(values).max() <= limit


def same(a, b):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


def test_the_target_has_noise_of_its_own(agent, state, monkeypatch):
    seen = []
    monkeypatch.setattr(rainbow, "update_with_noise", lambda *args: seen.append(args[3]))
    agent.update(state, batch(), jax.random.key(0))
    pairs = zip(*map(jax.tree.leaves, (seen[0].online, seen[0].target)), strict=True)
    assert not any(np.array_equal(a, b) for a, b in pairs)


def test_project_categorical_by_hand():
    """0.75 of a probability at 1.25 belongs to 1, the rest to 2; 9 counts for the end, 2."""
    support = jnp.arange(-2.0, 3.0)
    found = losses.project_categorical(
        jnp.float32([[0.4, 0.5, 0.1]]), jnp.float32([[1.25, -1.0, 9.0]]), support
    )
    np.testing.assert_allclose(found, [[0, 0.5, 0, 0.3, 0.2]], atol=1e-6)


@pytest.mark.parametrize("latents", [False, True])
def test_updates_learn(agent, state, update, latents):
    """An action that earns 1 at once and others that earn nothing: a bandit."""
    state = agent.freeze(state) if latents else state
    data = batch(latents)
    losses_seen = []
    for i in range(60):
        state, metrics, errors = update(state, data, jax.random.key(i))
        losses_seen.append(float(metrics["loss/critic"]))
    assert errors.shape == (BATCH,)
    assert losses_seen[-1] < 0.8 * losses_seen[0]


def test_bfloat16_learns_the_same_and_keeps_float32(state, update):
    narrow = rainbow.make(dataclasses.replace(CONFIG, compute_dtype="bfloat16"), SPEC, 4)
    narrow_update, same_state = jax.jit(narrow.update), state
    for i in range(60):
        state, metrics, _ = narrow_update(state, batch(), jax.random.key(i))
        same_state, expected, _ = update(same_state, batch(), jax.random.key(i))
    assert 0 < abs(metrics["loss/critic"] - expected["loss/critic"]) < 0.03
    assert {x.dtype.name for x in jax.tree.leaves(state)} == {"float32", "int32"}


def test_the_freeze(agent, state, update):
    state, _, _ = update(state, batch(), jax.random.key(0))
    frozen = agent.freeze(state)
    assert frozen.params.encoder is None and frozen.target.encoder is None
    assert same(frozen.frozen, state.params.encoder)
    assert same(frozen.target.head, state.target.head)
    assert not same(frozen.target.head, frozen.params.head)
    after, _, _ = update(frozen, batch(latents=True), jax.random.key(0))
    assert same(after.frozen, frozen.frozen)
    assert not same(after.params.head, frozen.params.head)


@pytest.mark.parametrize("learning_starts", [0, 1])
def test_the_target_follows_on_even_steps(learning_starts):
    """Of the agent, whose first ones had no update."""
    config = presets.for_task("Alien", "quick")
    config = dataclasses.replace(config, agent=CONFIG, learning_starts=learning_starts)
    agent = build.make_agent(config, SPEC)
    state, update = jax.jit(agent.init)(jax.random.key(0)), jax.jit(agent.update)
    for step in range(learning_starts + 1, learning_starts + 5):
        before, (state, *_) = state, update(state, batch(), jax.random.key(step))
        assert same(state.target, state.params) == (step % 2 == 0)
        assert same(state.target, before.target) == (step % 2 == 1)


def test_importance_weights_scale_the_loss(state, update):
    data = batch()
    half = data._replace(weight=data.weight / 2)
    (_, whole, errors), (_, halved, same_errors) = (
        update(state, x, jax.random.key(0)) for x in (data, half)
    )
    assert float(halved["loss/critic"]) == pytest.approx(float(whole["loss/critic"]) / 2)
    np.testing.assert_allclose(errors, same_errors, rtol=1e-5)


def test_gradients_are_clipped_to_their_norm():
    agent = rainbow.make(dataclasses.replace(CONFIG, max_grad_norm=0.01), SPEC, frame_stack=4)
    state = jax.jit(agent.init)(jax.random.key(0))
    new, metrics, _ = jax.jit(agent.update)(state, batch(), jax.random.key(0))
    assert metrics["critic/grad_norm"] > 0.1
    moments = [new.opt_state.encoder[0].mu, new.opt_state.head[0].mu]
    assert optax.tree.norm(moments) == pytest.approx(0.1 * 0.01, rel=1e-3)  # b1 is 0.9


def test_acting(agent, state):
    latent = agent.encode(state.encoder, batch().obs)
    act = lambda seed, greedy: agent.act(state, latent, jax.random.key(seed), greedy)
    for greedy in (True, False):
        actions = act(0, greedy)
        assert actions.shape == (BATCH,) and actions.dtype == jnp.int32
        assert np.all((actions >= 0) & (actions < ACTIONS))
    greedy = [np.asarray(act(seed, True)) for seed in range(200)]
    usual = np.median(greedy, axis=0)
    share = np.mean([actions != usual for actions in greedy])
    assert share < 4 * CONFIG.eval_epsilon  # mean weights, and few random actions
    careless = rainbow.make(dataclasses.replace(CONFIG, eval_epsilon=1.0), SPEC, frame_stack=4)
    greedy = [np.asarray(careless.act(state, latent, jax.random.key(s), True)) for s in range(60)]
    assert np.mean([actions != usual for actions in greedy]) == pytest.approx(
        1 - 1 / ACTIONS, abs=0.1
    )
    head = state.params.head["params"]
    noisy = {
        name: layer | {k: 30 * v for k, v in layer.items() if k.endswith("sigma")}
        for name, layer in head.items()
    }
    spread = state.replace(params=state.params._replace(head={"params": noisy}))
    tries = {
        tuple(np.asarray(agent.act(spread, latent, jax.random.key(s), False))) for s in range(8)
    }
    assert len(tries) > 2  # the noise on the weights explores


def test_noise_is_scaled_and_independent():
    layers = {"one": (1000, 2000), "two": (1000, 2000)}
    noise = networks.factorised_noise(jax.random.key(0), layers)
    flat = np.concatenate([np.ravel(x) for pair in noise.values() for x in pair])
    # E[x] = 0 and E[x^2] = E|normal| = sqrt(2 / pi) for x = sign(n) sqrt(|n|)
    assert np.mean(flat) == pytest.approx(0, abs=0.05)
    assert np.mean(flat**2) == pytest.approx((2 / np.pi) ** 0.5, rel=0.05)
    assert abs(np.corrcoef(noise["one"][0], noise["two"][0])[0, 1]) < 0.1


def test_noise_of_few_samples_is_that_of_many(agent, state):
    """Few, as in acting, go through two products; many through weights with noise on them."""
    head = rainbow.make_model(CONFIG, (84, 84, 4), ACTIONS).head
    latents = batch(latents=True).obs
    noise = networks.factorised_noise(jax.random.key(3), head.layers(576))
    logits = functools.partial(head.apply, state.params.head, noise=noise)
    few = jnp.concatenate([logits(latents[:1]), logits(latents[1:8])])
    np.testing.assert_allclose(few, logits(latents)[:8], rtol=1e-4, atol=1e-5)
    assert not np.allclose(few, head.apply(state.params.head, latents[:8], None), atol=1e-3)


@pytest.mark.parametrize("encoder, width", [("der", 576), ("nature", 3136), ("impala", 3872)])
def test_encoders(encoder, width):
    agent = rainbow.make(rainbow.Config(encoder=encoder, hidden_size=8), SPEC, frame_stack=4)
    state = jax.eval_shape(agent.init, jax.random.key(0))
    latent = jax.eval_shape(agent.encode, state.encoder, batch().obs)
    assert latent.shape == (BATCH, width)


def test_what_does_not_go_together():
    with pytest.raises(UserError, match="needs discrete actions"):
        rainbow.make(CONFIG, FakeEnv().spec, 4)
    with pytest.raises(UserError, match="too few for the der encoder: raise --image_size"):
        rainbow.make(CONFIG, SPEC._replace(obs_shape=(20, 20, 1)), 4)
    config = dataclasses.replace(presets.for_task("Krull", "quick"), num_copies=2)
    with pytest.raises(UserError, match="num_copies=2: rainbow augments nothing"):
        build.make_agent(config, SPEC)
    with pytest.raises(UserError, match="v_min=1 must be below v_max=0"):
        rainbow.make(rainbow.Config(v_min=1, v_max=0), SPEC, 4)
