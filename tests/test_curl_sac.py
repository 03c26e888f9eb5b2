"""CURL-SAC as an `Agent`: shapes, what each update changes, and what `make` refuses.

That its numbers are the official code's is the matter of test_parity.py.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seer_jax import augment, build, presets
from seer_jax.agents import curl_sac
from seer_jax.envs.fake import FakeEnv
from seer_jax.types import Transition, UserError

BATCH, ACTIONS, LATENT = 8, 3, 5
SPEC = FakeEnv(obs_shape=(18, 18, 3), action_shape=(ACTIONS,)).spec
CONFIG = curl_sac.Config(
    crop_size=16, num_filters=4, strides=(2, 1), latent_size=LATENT, hidden_size=16
)


@pytest.fixture(scope="module")
def agent():
    return curl_sac.make(CONFIG, SPEC, frame_stack=2)


@pytest.fixture(scope="module")
def state(agent):
    return jax.jit(agent.init)(jax.random.key(0))


@pytest.fixture(scope="module")
def update(agent):
    return jax.jit(agent.update)


def batch(latents=False):
    random = np.random.default_rng(0)
    normal = lambda *shape: random.normal(size=(BATCH, *shape)).astype(np.float32)
    if latents:
        obs, next_obs = ({"critic": normal(LATENT), "actor": normal(LATENT)} for _ in range(2))
    else:
        obs, next_obs = (random.integers(0, 256, (BATCH, 18, 18, 6), np.uint8) for _ in range(2))
    discount, weight = np.full(BATCH, 0.99, "f4"), np.ones(BATCH, "f4")
    return Transition(obs, np.tanh(normal(ACTIONS)), normal(), discount, next_obs, weight)


def changed(old, new):
    """Names of the parts in which something changed."""
    equal = lambda x, y: all(jax.tree.leaves(jax.tree.map(np.array_equal, x, y)))
    return {name for name in old if not equal(old[name], new[name])}


def test_an_update_crops_each_view_by_itself(agent, state, monkeypatch):
    """Pixels that say where they are and of which observation."""
    seen, (y, x) = [], np.mgrid[:18, :18]
    monkeypatch.setattr(curl_sac, "update_on_views", lambda *args: seen.append(args))

    def images(label):
        obs = np.zeros((BATCH, 18, 18, 6), np.uint8)
        obs[..., 0], obs[..., 1], obs[..., 2] = y, x, label
        return obs

    transition = batch()._replace(obs=images(1), next_obs=images(2))
    agent.update(state, transition, jax.random.key(0))
    ((_, _, views, positive, noise),) = seen
    corners = [np.asarray(v)[:, 0, 0] for v in (views.obs, views.next_obs, positive)]
    assert [set(c[:, 2].tolist()) for c in corners] == [{1}, {2}, {1}]
    offsets = [tuple(map(tuple, c[:, :2].tolist())) for c in corners]
    assert len(set(offsets)) == 3 and all(len(set(of_view)) > 1 for of_view in offsets)
    assert not np.array_equal(noise.critic, noise.actor)


def test_the_offset_is_subtracted_from_pixels():
    pixels = np.full((1, 16, 16, 6), 51, np.uint8)  # 0.2
    for offset, black in ((0.2, True), (0.0, False)):
        config = dataclasses.replace(CONFIG, pixel_offset=offset, frozen_depth="convs")
        agent = curl_sac.make(config, SPEC, frame_stack=2)
        frozen = agent.freeze(jax.jit(agent.init)(jax.random.key(0))).frozen
        assert (np.abs(agent.encode(frozen, pixels)["features"]).max() < 1e-6) == black


def test_views(agent):
    obs = batch().obs
    assert agent.view(obs).shape == (BATCH, 16, 16, 6)
    np.testing.assert_array_equal(agent.view(obs), obs[:, 1:17, 1:17])
    assert not np.array_equal(agent.view(obs, jax.random.key(0)), agent.view(obs))


def test_latents_and_actions(agent, state):
    latent = agent.encode(state.encoder, agent.view(batch().obs))
    assert set(latent) == {"critic", "actor"}
    for side in latent.values():
        assert side.shape == (BATCH, LATENT) and side.dtype == jnp.float32
    act = lambda seed, greedy: agent.act(state, latent, jax.random.key(seed), greedy)
    for greedy in (False, True):
        action = act(0, greedy)
        assert action.shape == (BATCH, ACTIONS) and action.dtype == jnp.float32
        assert jnp.all(abs(action) <= 1)
    np.testing.assert_array_equal(act(0, True), act(1, True))
    assert not np.array_equal(act(0, False), act(1, False))


def test_actions_stay_in_bounds_however_large_the_latent(agent, state):
    latent = {side: jnp.full((BATCH, LATENT), 1e6) for side in ("critic", "actor")}
    for greedy in (False, True):
        assert jnp.all(abs(agent.act(state, latent, jax.random.key(0), greedy)) <= 1)


def test_actions_spread_as_the_policy_says(agent, state):
    model = curl_sac.make_model(CONFIG, ACTIONS)
    latent = {"actor": jnp.tile(jnp.linspace(-1, 1, LATENT), (4_000, 1))}
    mean, log_std = model.policy.apply(state.params.head["policy"], latent["actor"][:1])
    drawn = np.arctanh(agent.act(state, latent, jax.random.key(0), False))
    std = np.exp(log_std[0])
    np.testing.assert_allclose(drawn.std(axis=0), std, rtol=0.06)  # five standard deviations
    assert (np.abs(drawn.mean(axis=0) - mean[0]) < 0.08 * std).all()


def test_a_fresh_state(state):
    jax.tree.map(np.testing.assert_array_equal, state.target.encoder, state.encoder["critic"])
    jax.tree.map(np.testing.assert_array_equal, state.target.head["q"], state.params.head["q"])
    assert jnp.exp(state.params.head["log_alpha"]) == pytest.approx(CONFIG.init_temperature)
    twins = jax.tree.leaves(state.params.head["q"])
    assert not any(np.array_equal(twin[0], twin[1]) for twin in twins if np.any(twin))


def test_no_buffer_occurs_twice_in_a_state(agent, state):
    """Else it could not be donated to its update."""
    fresh = curl_sac.init_from(curl_sac.make_model(CONFIG, ACTIONS), state.params)
    for each in (state, fresh, agent.freeze(fresh)):
        buffers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(each)]
        assert len(set(buffers)) == len(buffers)


def test_an_update_with_the_actors_turn_changes_everything(state, update):
    new, metrics, _ = update(state, batch(), jax.random.key(0))
    assert changed(state.params.encoder, new.params.encoder) == {"critic", "actor", "contrast"}
    assert changed(state.params.head, new.params.head) == {"q", "policy", "log_alpha"}
    assert changed(state.target.encoder, new.target.encoder) == {"convs", "projection"}
    assert changed(state.target.head, new.target.head) == {"q"}
    assert (state.step, new.step) == (0, 1)
    assert all(x.shape == () and jnp.isfinite(x) for x in metrics.values())
    assert jax.tree.structure(new) == jax.tree.structure(state)


def test_every_second_update_leaves_actor_temperature_and_targets(state, update):
    state, _, _ = update(state, batch(), jax.random.key(0))
    new, metrics, _ = update(state, batch(), jax.random.key(1))
    assert changed(state.params.encoder, new.params.encoder) == {"critic", "contrast"}
    assert changed(state.params.head, new.params.head) == {"q"}
    assert not changed(state.target.encoder, new.target.encoder)
    assert not changed(state.target.head, new.target.head)
    assert changed(state.opt_state.head, new.opt_state.head) == {"q"}
    not_computed = {name for name, value in metrics.items() if jnp.isnan(value)}
    assert not_computed == {"loss/actor", "loss/alpha", "actor/alpha", "actor/entropy"}


def test_without_the_contrastive_loss_the_rest_learns():
    config = dataclasses.replace(CONFIG, contrastive=False)
    agent = curl_sac.make(config, SPEC, frame_stack=2)
    state = jax.jit(agent.init)(jax.random.key(0))
    new, metrics, _ = jax.jit(agent.update)(state, batch(), jax.random.key(0))
    assert changed(state.params.encoder, new.params.encoder) == {"critic", "actor"}
    assert changed(state.params.head, new.params.head) == {"q", "policy", "log_alpha"}
    assert "loss/contrast" not in metrics


@pytest.mark.parametrize(("step", "turn"), [(0, True), (1, False)])
def test_an_update_on_latents_changes_the_head_only(agent, state, update, step, turn):
    frozen = agent.freeze(state).replace(step=jnp.int32(step))
    new, metrics, _ = update(frozen, batch(latents=True), jax.random.key(0))
    assert changed(frozen.params.head, new.params.head) == (
        {"q", "policy", "log_alpha"} if turn else {"q"}
    )
    assert changed(frozen.target.head, new.target.head) == ({"q"} if turn else set())
    assert not changed(frozen.frozen, new.frozen)
    assert new.params.encoder is new.target.encoder is new.opt_state.encoder is None
    assert "loss/contrast" not in metrics


def test_with_frozen_convolutions_an_update_still_steps_the_projections():
    agent = curl_sac.make(dataclasses.replace(CONFIG, frozen_depth="convs"), SPEC, frame_stack=2)
    assert not agent.signed_latents
    frozen = agent.freeze(jax.jit(agent.init)(jax.random.key(0)))
    obs, next_obs = (agent.encode(frozen.frozen, agent.view(batch().obs)) for _ in range(2))
    assert obs["features"].shape == (BATCH, 5 * 5 * 4)
    transition = batch()._replace(obs=obs, next_obs=next_obs)
    new, metrics, _ = jax.jit(agent.update)(frozen, transition, jax.random.key(0))
    assert changed(frozen.params.encoder, new.params.encoder) == {"critic", "actor"}
    assert changed(frozen.params.head, new.params.head) == {"q", "policy", "log_alpha"}
    assert changed(frozen.target.encoder, new.target.encoder) == {"projection"}
    assert not changed(frozen.frozen, new.frozen)
    assert jax.tree.structure(new) == jax.tree.structure(frozen)
    assert "loss/contrast" not in metrics
    buffers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(frozen)]
    assert len(set(buffers)) == len(buffers)


def test_with_frozen_convolutions_the_target_becomes_the_online_critic(state, update):
    agent = curl_sac.make(dataclasses.replace(CONFIG, frozen_depth="convs"), SPEC, frame_stack=2)
    before, _, _ = update(state, batch(), jax.random.key(0))
    frozen = agent.freeze(before)
    assert changed(before.target.encoder, before.params.encoder["critic"])
    same = functools.partial(jax.tree.map, np.testing.assert_array_equal)
    same(frozen.target.encoder, frozen.params.encoder["critic"])
    same(frozen.target.head["q"], before.params.head["q"])


def test_crops_as_large_as_the_picture_are_all_the_same():
    config = presets.for_task("cartpole_swingup", "paper")
    config = dataclasses.replace(config, agent=dataclasses.replace(CONFIG, crop_size=20))
    with pytest.raises(UserError, match="num_copies=4: curl_sac augments nothing here"):
        build.make_agent(config, FakeEnv(obs_shape=(20, 20, 3)).spec)
    assert build.make_agent(config, FakeEnv(obs_shape=(22, 20, 3)).spec).random_views


def test_stored_centre_crops_are_shifted_anew_by_each_update():
    config = dataclasses.replace(CONFIG, frozen_depth="convs", latent_shift=True)
    agent = curl_sac.make(config, SPEC, frame_stack=2)
    assert not agent.random_views
    np.testing.assert_array_equal(
        agent.view(batch().obs, jax.random.key(0)), agent.view(batch().obs)
    )

    still = curl_sac.make(dataclasses.replace(config, latent_shift=False), SPEC, frame_stack=2)
    frozen = agent.freeze(jax.jit(agent.init)(jax.random.key(0)))
    obs, next_obs = (agent.encode(frozen.frozen, agent.view(x)) for x in (batch().obs,) * 2)
    transition = batch()._replace(obs=obs, next_obs=next_obs)
    q = lambda agent, transition: [
        float(jax.jit(agent.update)(frozen, transition, jax.random.key(i))[1]["critic/q"])
        for i in (0, 1)
    ]
    assert len(set(q(still, transition))) == 1
    assert len({*q(agent, transition), *q(still, transition)}) == 3
    # Features that are alike everywhere stay as they are: so all the difference is in the places.
    even = jax.tree.map(lambda x: jnp.ones_like(x), transition)
    assert q(agent, even) == q(still, even)


def test_a_shift_of_whole_cells_is_the_crop_that_far_away():
    """But for cells at the edge, whose windows reach beyond the centre crop."""
    config = dataclasses.replace(CONFIG, frozen_depth="convs", latent_shift=True)
    obs_shape = (22, 21, 3)
    agent = curl_sac.make(config, SPEC._replace(obs_shape=obs_shape), frame_stack=2)
    encoder = agent.freeze(jax.jit(agent.init)(jax.random.key(0))).frozen
    encode = lambda crops: agent.encode(encoder, crops)["features"].reshape(-1, 5, 5, 4)
    obs = np.random.default_rng(0).integers(0, 256, (64, *obs_shape[:2], 6), np.uint8)
    centre = {"features": encode(agent.view(obs)).reshape(64, -1)}
    stored = batch()._replace(obs=centre, next_obs=centre)
    shifted = curl_sac._shift(config, obs_shape, stored, jax.random.key(1))
    of_each = shifted.obs, shifted.next_obs
    for key, latent in zip(jax.random.split(jax.random.key(1)), of_each, strict=True):
        crops = encode(augment.random_crop(key, obs, 16))
        pixels = jax.random.randint(key, (64, 2), 0, jnp.array([7, 6])) - jnp.array([3, 2])
        whole = np.asarray((pixels % 2 == 0).all(axis=1))
        assert 10 < whole.sum() < 50
        maps = latent["features"].reshape(-1, 5, 5, 4)
        inside = np.s_[whole, 1:-1, 1:-1]
        np.testing.assert_allclose(maps[inside], crops[inside], atol=1e-4)
        assert np.abs(maps[whole] - crops[whole]).max() > 1e-2


def test_on_features_the_critics_step_is_that_on_pixels():
    """Where target and online networks are equal, as after the freeze."""
    config = dataclasses.replace(CONFIG, frozen_depth="convs", contrastive=False)
    agent = curl_sac.make(config, SPEC, frame_stack=2)
    model = curl_sac.make_model(config, ACTIONS)
    state = jax.jit(agent.init)(jax.random.key(0))
    frozen = agent.freeze(state)
    noise = curl_sac.Noise(
        *(jax.random.normal(jax.random.key(i), (BATCH, ACTIONS)) for i in (0, 1))
    )
    pixels = batch()._replace(obs=agent.view(batch().obs), next_obs=agent.view(batch().next_obs))
    stored = pixels._replace(
        obs=agent.encode(frozen.frozen, pixels.obs),
        next_obs=agent.encode(frozen.frozen, pixels.next_obs),
    )
    update = jax.jit(
        lambda state, batch: curl_sac.update_on_views(model, state, batch, None, noise)
    )
    (on_pixels, metrics, errors), (on_features, same_metrics, same_errors) = (
        update(state, pixels),
        update(frozen, stored),
    )
    for name in ("loss/critic", "critic/q"):
        np.testing.assert_allclose(metrics[name], same_metrics[name], rtol=1e-5)
    np.testing.assert_allclose(errors, same_errors, rtol=1e-4)
    projections = (x.params.encoder["critic"]["projection"] for x in (on_pixels, on_features))
    q = (x.params.head["q"] for x in (on_pixels, on_features))
    for one, other in (projections, q):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), one, other)


def test_weights_weigh_the_loss_and_errors_have_no_sign(state, update):
    data = batch()
    half = data._replace(weight=data.weight / 2)
    (_, whole, errors), (_, halved, same_errors) = (
        update(state, x, jax.random.key(0)) for x in (data, half)
    )
    assert float(halved["loss/critic"]) == pytest.approx(float(whole["loss/critic"]) / 2, rel=1e-5)
    np.testing.assert_allclose(errors, same_errors, rtol=1e-5)
    high, low = (data._replace(reward=np.full(BATCH, reward, np.float32)) for reward in (99, -99))
    for extreme in (high, low):
        assert (update(state, extreme, jax.random.key(0))[2] > 50).all()


def test_the_target_moves_by_tau(state, update):
    """A hundredth of the way to Q as this update leaves it."""
    new, _, _ = update(state, batch(), jax.random.key(0))
    old = [np.asarray(x) for x in jax.tree.leaves(state.target.head["q"])]
    online, target = (jax.tree.leaves(x.head["q"]) for x in (new.params, new.target))
    for before, goal, after in zip(old, online, target, strict=True):
        np.testing.assert_allclose(after, 0.99 * before + 0.01 * goal, rtol=1e-5, atol=1e-7)


def test_updates_learn(state, update):
    """Where the rewards of a few transitions are all there is to know, Q comes to know them."""
    data = batch()._replace(discount=np.zeros(BATCH, np.float32))
    errors = []
    for i in range(400):
        state, metrics, _ = update(state, data, jax.random.key(i))
        errors.append(float(metrics["loss/critic"]))
    assert np.mean(errors[-10:]) < 0.2 * errors[0]


def test_randomness_comes_from_the_key_alone(state, update):
    first, again, other = (update(state, batch(), jax.random.key(key))[0] for key in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert changed(first.params.head, other.params.head)


@pytest.mark.parametrize(
    ("config", "spec", "message"),
    [
        ({}, dict(num_actions=4), "continuous actions"),
        (
            dict(crop_size=19),
            {},
            "crop_size=19 is larger than the rendered image .18 pixels.*lower",
        ),
        (dict(strides=(2, 2, 2, 2)), {}, "leave nothing of a 16-pixel crop: use fewer layers"),
    ],
)
def test_make_says_what_does_not_fit(config, spec, message):
    small = dict(crop_size=16, strides=(2, 1))
    env = FakeEnv(obs_shape=(20, 18, 3), **spec)
    with pytest.raises(UserError, match=message):
        curl_sac.make(curl_sac.Config(**small | config), env.spec, frame_stack=2)
