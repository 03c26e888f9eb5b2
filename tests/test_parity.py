"""Step-by-step agreement with the official PyTorch code.

`tests/data/parity` holds numbers recorded while running lili-chen/SEER at 73ae6e1 on small networks
with recorded inputs and noise: outputs, losses and parameters of three updates, latents at the
freeze, three updates on latents. Tolerances: 1e-4 relative for outputs and losses, 1e-3 for
parameters after Adam. Set SEER_PARITY_DIR to check against another recording.

Updates are checked in float64 besides float32: in the second one a single pre-activation lies 3e-8
from ReLU's edge, so which side it falls on in float32 is a matter of rounding, and Adam blows the
difference up to 6e-4 in some filters. In float64 all parameters agree to 1e-5.
"""

import dataclasses
import functools
import os
import pathlib

import jax
import numpy as np
import pytest

from seer_jax import losses, networks
from seer_jax.agents import curl_sac, rainbow
from seer_jax.types import Params, Transition

DATA = pathlib.Path(
    os.environ.get("SEER_PARITY_DIR", pathlib.Path(__file__).parent / "data/parity")
)

outputs_close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
params_close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def recorded():
    with np.load(DATA / "curl_sac_0.npz") as data:
        return dict(data)


CONFIG = curl_sac.Config(crop_size=64, num_filters=4, latent_size=16, hidden_size=32)


def model(dtype=np.float32):
    model = curl_sac.make_model(CONFIG, action_dim=2)
    return model._replace(convs=networks.PlainConvs(CONFIG.layers, "delta_orthogonal", dtype))


def layer(recorded, prefix):
    return {name: recorded[f"{prefix}/{name}"] for name in ("kernel", "bias")}


def dense(recorded, prefix):
    weights = layer(recorded, prefix)
    return weights | {"kernel": weights["kernel"].T}  # ours is [outputs, inputs]


def projection(recorded, prefix):
    ln = {name: recorded[f"{prefix}/ln/{name}"] for name in ("scale", "bias")}
    return {"params": {"fc": dense(recorded, f"{prefix}/fc"), "ln": ln}}


def mlp(recorded, prefix):
    return {f"dense{i}": dense(recorded, f"{prefix}/dense{i}") for i in range(3)}


def critic_encoder(recorded, prefix):
    convs = {f"conv{i}": layer(recorded, f"{prefix}/conv{i}") for i in range(4)}
    return {"convs": {"params": convs}, "projection": projection(recorded, prefix)}


def twin_q(recorded, prefix):
    twins = [mlp(recorded, f"{prefix}/{q}") for q in ("q1", "q2")]
    return {"params": {"q": jax.tree.map(lambda *x: np.stack(x), *twins)}}


def recorded_params(recorded, when):
    """The recording's parameters in our layout; without an encoder where it holds none."""
    head = {
        "q": twin_q(recorded, f"{when}/critic"),
        "policy": {"params": {"policy": mlp(recorded, f"{when}/actor/policy")}},
        "log_alpha": recorded[f"{when}/log_alpha"],
    }
    encoder = {
        "critic": critic_encoder(recorded, f"{when}/critic/encoder"),
        "actor": projection(recorded, f"{when}/actor/encoder"),
        "contrast": recorded[f"{when}/curl/W"],
    }
    return Params(encoder, head)


def recorded_target(recorded, when):
    return Params(
        critic_encoder(recorded, f"{when}/target/encoder"),
        {"q": twin_q(recorded, f"{when}/target")},
    )


def noise_of(recorded, batch):
    critic = recorded[f"{batch}/critic_noise"]
    # Only recorded where the actor takes a step; elsewhere it is not used.
    return curl_sac.Noise(critic, recorded.get(f"{batch}/actor_noise", np.zeros_like(critic)))


def assert_trees_close(actual, expected):
    jax.tree.map(params_close, actual, jax.device_get(expected))
    assert jax.tree.structure(actual) == jax.tree.structure(expected)


def after_three_updates(recorded, dtype=np.float32, m=None):
    m = m or model(dtype)
    state = curl_sac.init_from(m, jax.device_put(recorded_params(recorded, "init")))
    # The recording starts with a target that differs from the online critic.
    state = state.replace(target=jax.device_put(recorded_target(recorded, "init")))
    update = jax.jit(functools.partial(curl_sac.update_on_views, m))
    states, metrics = [], []
    for i in range(3):
        fields = {name: recorded[f"batch{i}/{name}"] for name in Transition._fields[:-1]}
        fields["weight"] = np.ones_like(fields["reward"])
        positive = recorded[f"batch{i}/positive"]
        state, logs, _ = update(
            state, Transition(**fields), positive, noise_of(recorded, f"batch{i}")
        )
        states.append(state)
        metrics.append(logs)
    return states, metrics


def assert_losses(metrics, recorded, prefix, actor_turns):
    outputs_close([m["loss/critic"] for m in metrics], recorded[f"{prefix}/train_critic/loss"])
    ours_and_theirs = {
        "loss/actor": "train_actor/loss",
        "actor/entropy": "train_actor/entropy",
        "loss/alpha": "train_alpha/loss",
        "actor/alpha": "train_alpha/value",
    }
    for ours, theirs in ours_and_theirs.items():
        values = np.array([m[ours] for m in metrics])
        outputs_close(values[actor_turns], recorded[f"{prefix}/{theirs}"], err_msg=ours)
        assert np.isnan(np.delete(values, actor_turns)).all()


def test_forward(recorded):
    m, params = model(), recorded_params(recorded, "init")
    expected = {name.removeprefix("forward/"): value for name, value in recorded.items()}
    latent = curl_sac._encode(m, params.encoder, expected["obs"])
    outputs_close(latent["critic"], expected["critic_latent"])
    outputs_close(latent["actor"], expected["actor_latent"])
    q = m.q.apply(params.head["q"], latent["critic"], expected["action"])
    outputs_close(q, np.stack([expected["q1"], expected["q2"]]))
    mean, log_std = m.policy.apply(params.head["policy"], latent["actor"])
    outputs_close(np.tanh(mean), expected["mean_action"])
    outputs_close(log_std, expected["log_std"])
    action, log_prob = losses.tanh_gaussian(mean, log_std, expected["noise"])
    outputs_close(action, expected["action_sample"])
    outputs_close(log_prob, expected["log_prob"])


def test_fully_connected_outputs(recorded):
    """The dense layer before the LayerNorm, so that an error there is not normalised away."""
    m, params = model(), recorded_params(recorded, "init")
    features = m.convs.apply(params.encoder["critic"]["convs"], recorded["forward/obs"])
    sides = {"critic": params.encoder["critic"]["projection"], "actor": params.encoder["actor"]}
    for side, weights in sides.items():
        fc = networks.ColumnDense(CONFIG.latent_size)
        out = fc.apply({"params": weights["params"]["fc"]}, features.T)
        outputs_close(out.T, recorded[f"forward/{side}_fc"])


@pytest.fixture
def recorded64(recorded):
    with jax.enable_x64(True):
        yield {
            name: value.astype(np.float64) if value.dtype == np.float32 else value
            for name, value in recorded.items()
        }


def test_bfloat16_stays_near(recorded):
    """Eight bits of mantissa in every layer but the last: a few percent, and float32 to keep."""
    config = dataclasses.replace(CONFIG, compute_dtype="bfloat16")
    m, params = curl_sac.make_model(config, action_dim=2), recorded_params(recorded, "init")
    latent = curl_sac._encode(m, params.encoder, recorded["forward/obs"])
    for side in ("critic", "actor"):
        error = np.abs(latent[side] - recorded[f"forward/{side}_latent"])
        assert latent[side].dtype == np.float32
        assert 1e-4 < error.max() and error.mean() < 0.02  # a LayerNorm's outputs are about 1

    states, metrics = after_three_updates(recorded, m=m)
    for ours, theirs in (
        ([x["loss/critic"] for x in metrics], "train_critic/loss"),
        ([x["loss/contrast"] for x in metrics], "train/curl_loss"),
        ([metrics[i]["loss/actor"] for i in (0, 2)], "train_actor/loss"),
    ):
        np.testing.assert_allclose(ours[0], recorded[f"log/{theirs}"][0], rtol=0.03)
        # Adam's first steps are as long for small gradients, of any sign, as for large ones.
        np.testing.assert_allclose(ours[1:], recorded[f"log/{theirs}"][1:], rtol=0.25)
    dtypes = {x.dtype.name for x in jax.tree.leaves((states[-1].params, states[-1].opt_state))}
    assert dtypes == {"float32", "int32"}  # Adam counts its steps


def test_three_updates_float32(recorded):
    states, metrics = after_three_updates(recorded)
    assert_losses(metrics, recorded, "log", [0, 2])
    outputs_close([m["loss/contrast"] for m in metrics], recorded["log/train/curl_loss"])
    assert_trees_close(states[0].params, recorded_params(recorded, "after1"))
    assert_trees_close(states[0].target, recorded_target(recorded, "after1"))
    for name in ("q", "policy"):
        expected = recorded_params(recorded, "after3").head[name]
        assert_trees_close(states[2].params.head[name], expected)


def test_three_updates_float64(recorded64):
    states, metrics = after_three_updates(recorded64, np.float64)
    assert_losses(metrics, recorded64, "log", [0, 2])
    outputs_close([m["loss/contrast"] for m in metrics], recorded64["log/train/curl_loss"])
    for state, when in ((states[0], "after1"), (states[2], "after3")):
        assert_trees_close(state.params, recorded_params(recorded64, when))
        assert_trees_close(state.target, recorded_target(recorded64, when))


def test_freeze_and_three_updates_on_latents(recorded64):
    recorded = recorded64
    m = model(np.float64)
    state = curl_sac._freeze("projection", after_three_updates(recorded, np.float64)[0][-1])
    encoder_before = jax.device_get(state.frozen)
    latents = curl_sac._encode(m, state.frozen, recorded["frozen/obs"])
    for side, latent in latents.items():
        outputs_close(latent, recorded[f"frozen/{side}_latent"])

    metrics = []
    update = jax.jit(functools.partial(curl_sac.update_on_views, m))
    for i in range(3):
        batch = f"latent_batch{i}"
        pick = lambda index: jax.tree.map(lambda latent: latent[recorded[index]], latents)
        transition = Transition(
            obs=pick(f"{batch}/index"),
            action=recorded[f"{batch}/action"],
            reward=recorded[f"{batch}/reward"],
            discount=recorded[f"{batch}/discount"],
            next_obs=pick(f"{batch}/next_index"),
            weight=np.ones_like(recorded[f"{batch}/reward"]),
        )
        state, logs, _ = update(state, transition, None, noise_of(recorded, batch))
        metrics.append(logs)
    assert_losses(metrics, recorded, "latent_log", [1])
    expected = recorded_params(recorded, "after_latent")
    assert_trees_close(state.params, Params(None, expected.head))
    assert_trees_close(state.target.head["q"], twin_q(recorded, "after_latent/target"))
    jax.tree.map(np.testing.assert_array_equal, encoder_before, jax.device_get(state.frozen))


# Rainbow


@pytest.fixture(scope="module", params=["der", "nature"])
def rainbow_recorded(request):
    with np.load(DATA / f"rainbow_{request.param}_0.npz") as data:
        return request.param, dict(data)


def rainbow_model(encoder):
    config = rainbow.Config(encoder=encoder, hidden_size=16)
    return rainbow.make_model(config, (84, 84, 4), num_actions=5)


def rainbow_params(recorded, prefix):
    """The recording's parameters in our layout; without an encoder where it holds none."""
    layers = {}
    for name, value in recorded.items():
        if name.startswith(prefix + "/"):
            layer, weight = name.removeprefix(prefix + "/").split("/")
            noisy = weight.startswith("kernel_")  # ours is [outputs, inputs]
            layers.setdefault(layer, {})[weight] = value.T if noisy else value
    convs = {name: layers.pop(name) for name in list(layers) if name.startswith("conv")}
    return Params({"params": convs} if convs else None, {"params": layers})


def rainbow_noise(recorded, prefix):
    layers = ("fc_h_v", "fc_h_a", "fc_z_v", "fc_z_a")
    return {
        name: (recorded[f"{prefix}/{name}/in"], recorded[f"{prefix}/{name}/out"]) for name in layers
    }


def rainbow_updates(model, state, recorded, prefix, read):
    update = jax.jit(functools.partial(rainbow.update_with_noise, model))
    for i in range(3):
        batch = f"{prefix}{i}"
        pick = lambda name, batch=batch: recorded[f"{batch}/{name}"]
        reward = pick("reward")
        transition = Transition(
            read(batch, "obs"),
            pick("action"),
            reward,
            pick("discount"),
            read(batch, "next_obs"),
            np.ones_like(reward),
        )
        noises = (rainbow_noise(recorded, f"{batch}/{net}_noise") for net in ("online", "target"))
        state, metrics, errors = update(state, transition, rainbow.Noise(*noises))
        outputs_close(errors, pick("loss"))
        outputs_close(metrics["loss/critic"], np.mean(pick("loss")))
    return state


def test_rainbow(rainbow_recorded):
    """Outputs, three updates, the freeze, its latents, three updates on latents."""
    encoder, recorded = rainbow_recorded
    model = rainbow_model(encoder)
    params = jax.device_put(rainbow_params(recorded, "init/online"))
    latent = model.convs.apply(params.encoder, recorded["forward/obs"])
    outputs_close(latent, recorded["forward/latent"])
    logits = model.head.apply(params.head, latent, rainbow_noise(recorded, "forward/noise"))
    outputs_close(jax.nn.softmax(logits), recorded["forward/probs"])
    q = rainbow._q_values(model, model.head.apply(params.head, latent, None))
    outputs_close(q, recorded["forward/q_mean_weights"])

    state = rainbow.init_from(model, params)
    # The recording starts with a target that differs from the online network.
    state = state.replace(target=jax.device_put(rainbow_params(recorded, "init/target")))
    frames = lambda batch, name: recorded[f"{batch}/{name}"]
    state = rainbow_updates(model, state, recorded, "batch", frames)
    assert_trees_close(state.params, rainbow_params(recorded, "after"))

    state = rainbow._freeze(state)
    assert_trees_close(state.target.head, rainbow_params(recorded, "init/target").head)
    latents = model.convs.apply(state.frozen, recorded["frozen/obs"])
    outputs_close(latents, recorded["frozen/latent"])
    names = {"obs": "index", "next_obs": "next_index"}
    stored = lambda batch, name: latents[recorded[f"{batch}/{names[name]}"]]
    frozen = jax.device_get(state.frozen)
    state = rainbow_updates(model, state, recorded, "latent_batch", stored)
    assert_trees_close(state.params, rainbow_params(recorded, "after_latent"))
    jax.tree.map(np.testing.assert_array_equal, frozen, jax.device_get(state.frozen))
