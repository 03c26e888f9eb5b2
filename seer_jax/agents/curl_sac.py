"""CURL-SAC: soft actor-critic from pixels with a contrastive auxiliary loss, as SEER trains it.

    obs -> random crop -> convolutions (shared) -> critic's projection -> latent.critic -> twin Q
                                              \\-> actor's projection  -> latent.actor  -> policy

One update, in the official order: the critic's loss steps Q and the critic's side of the encoder;
every second update the actor's loss steps the policy, its own projection and the temperature, and
the targets move; then the contrastive loss steps the encoder again. After the freeze
`params.encoder` is None, the transitions hold latents, and what is left of an update is the heads.
With `frozen_depth="convs"` the projections stay there and go on training, on stored features of the
convolutions.

Source: lili-chen/SEER at 73ae6e1, seer_dmc. Knowingly different from it:
- latents are stored after the LayerNorm (it is frozen too), so no update runs it;
- K latents are stored for each observation, and read both as its own and as the next one of the
  transition before, where the official code stores K for either role: half the crops and bytes;
- a crop can fall on the last offset;
- the actor's loss leaves the critic's weights out of its backward pass instead of discarding their
  gradient, and shares the contrastive anchor's forward pass: same numbers, less work.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from seer_jax import augment, flops, losses, networks
from seer_jax.types import (
    Agent,
    AgentState,
    Array,
    EnvSpec,
    Flops,
    Key,
    Params,
    PyTree,
    Transition,
    UserError,
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Hyperparameters of CURL-SAC; the defaults are the official script's."""

    crop_size: int = 84
    """Side of the crop of the rendered image that the encoder sees, pixels."""
    pixel_offset: float = 0.0
    """Subtracted from pixels in [0, 1]: near their mean, the encoder learns faster. The official
    code subtracts nothing."""
    num_filters: int = 32
    """Filters of each 3x3 convolution."""
    strides: tuple[int, ...] = (2, 1, 1, 1)
    """Stride of each convolution; as many as there are layers."""
    latent_size: int = 50
    """Width of a latent."""
    hidden_size: int = 1024
    """Width of the two hidden layers of the policy and of each Q function."""
    gamma: float = 0.99
    """Discount per agent step."""
    n_step: int = 1
    """Steps of reward before the bootstrap."""
    critic_lr: float = 1e-3
    """Adam's step size for the Q functions."""
    actor_lr: float = 1e-3
    """Adam's step size for the policy."""
    encoder_lr: float = 1e-3
    """Adam's step size for the encoder, in all three of its optimisers."""
    alpha_lr: float = 1e-4
    """Adam's step size for the temperature (with b1 = 0.5)."""
    init_temperature: float = 0.1
    """The entropy bonus at the start."""
    critic_tau: float = 0.01
    """Share of the online Q functions that enters their target at a target update."""
    encoder_tau: float = 0.05
    """The same for the encoder."""
    actor_every: int = 2
    """Updates between two steps of the actor, the temperature and the targets."""
    contrastive: bool = True
    """Train the encoder by CURL's contrastive loss too. Without it the agent is RAD's SAC (arXiv
    2004.14990): random crops alone, and little more than half the work of an update."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """What networks compute in. bfloat16 is for large batches on devices that have units for it,
    GPUs, TPUs and CPUs with Intel's AMX: see docs/performance.md; other CPUs gain nothing.
    Parameters, optimisers, losses, normalisation and output layers stay float32."""
    frozen_depth: Literal["projection", "convs"] = "projection"
    """How deep the freeze reaches. projection, as in the official code: all of the encoder, and
    latents are latent_size numbers a side. convs: the convolutions alone; the projections go on
    learning, and latents are the convolutions' features, which are more but never negative."""
    latent_shift: bool = False
    """With frozen_depth=convs and num_copies=1: store the features of the centre crop alone, and
    whenever they are drawn shift them at random as far as a crop would (a subpixel shift). Acting
    then encodes one view of an observation instead of 1 + num_copies."""

    @property
    def layers(self) -> networks.Layers:
        """Filters, size and stride of each convolution."""
        return tuple((self.num_filters, 3, stride) for stride in self.strides)


class Noise(NamedTuple):
    """The random numbers of one update, f32[B, A] each, standard normal."""

    critic: Array
    actor: Array


_ACTOR_METRICS = ("loss/actor", "loss/alpha", "actor/alpha", "actor/entropy")


class Model(NamedTuple):
    """What the functions below close over: networks and optimisers, no parameters.

    Parameters are laid out by what trains them:
        encoder: {"critic": {"convs", "projection"}, "actor": projection, "contrast": W}
        head:    {"q": twin Q, "policy", "log_alpha"}
        target:  encoder's "critic" and head's "q"
    After the freeze `encoder` is None, or without "convs" and "contrast" (frozen_depth="convs").
    """

    config: Config
    convs: networks.PlainConvs
    projection: networks.Projection
    q: networks.TwinQ
    policy: networks.GaussianPolicy
    tx: Params  # optimisers by name, like the parameters


def make(config: Config, spec: EnvSpec, frame_stack: int) -> Agent:
    """Builds the agent for an environment.

    Args:
        config: hyperparameters.
        spec: the environment's; its actions must be continuous.
        frame_stack: k, frames in an observation.

    Raises:
        UserError: if the sizes do not fit together.
    """
    channels = frame_stack * spec.obs_shape[-1]
    _check(config, spec)
    model = make_model(config, spec.action_shape[0])
    view = functools.partial(_view, config.crop_size)
    return Agent(
        init=functools.partial(_init, model, channels),
        # Replay stores these: with latent_shift the centre crop alone.
        view=(lambda obs, key=None: view(obs)) if config.latent_shift else view,
        encode=functools.partial(_encode, model),
        act=functools.partial(_act, model),
        update=functools.partial(_update, model, spec.obs_shape),
        freeze=functools.partial(_freeze, config.frozen_depth),
        flops=_flops(config, channels, spec.action_shape[0]),
        random_views=not config.latent_shift and max(spec.obs_shape[:2]) > config.crop_size,
        signed_latents=config.frozen_depth == "projection",
    )


def make_model(config: Config, action_dim: int) -> Model:
    """Networks and optimisers of the agent."""
    dtype = networks.narrow(config.compute_dtype)
    return Model(
        config,
        networks.PlainConvs(
            config.layers,
            "delta_orthogonal",
            jnp.dtype(config.compute_dtype),
            config.pixel_offset,
        ),
        networks.Projection(config.latent_size, dtype),
        networks.TwinQ(config.hidden_size, dtype),
        networks.GaussianPolicy(config.hidden_size, action_dim, dtype),
        Params(
            # Two of the three meet on the critic's encoder, as in the official code: "critic" takes
            # the critic's and then the contrastive gradient, "contrast" the latter once more.
            encoder={
                name: optax.adam(config.encoder_lr)
                for name in ("critic", "actor", "contrast")[: 3 if config.contrastive else 2]
            },
            head={
                "q": optax.adam(config.critic_lr),
                "policy": optax.adam(config.actor_lr),
                "log_alpha": optax.adam(config.alpha_lr, b1=0.5),
            },
        ),
    )


def _check(config: Config, spec: EnvSpec) -> None:
    if spec.num_actions is not None:
        raise UserError("curl_sac needs continuous actions; this task's are discrete.")
    rendered = min(spec.obs_shape[:2])
    if config.crop_size > rendered:
        raise UserError(
            f"crop_size={config.crop_size} is larger than the rendered image ({rendered} pixels): "
            "lower --crop_size or raise --image_size."
        )
    if min(networks.conv_output_sizes(config.crop_size, config.layers)) < 1:
        raise UserError(
            f"strides={config.strides} leave nothing of a {config.crop_size}-pixel crop: "
            "use fewer layers, smaller strides or a larger --crop_size."
        )


def _init(model: Model, channels: int, key: Key) -> AgentState:
    keys = jax.random.split(key, 6)
    size, latent_size = model.config.crop_size, model.config.latent_size
    obs = jnp.zeros((1, size, size, channels), jnp.uint8)
    latent, action = jnp.zeros((1, latent_size)), jnp.zeros((1, model.policy.action_dim))
    convs = model.convs.init(keys[0], obs)
    features = model.convs.apply(convs, obs)
    encoder = {
        "critic": {"convs": convs, "projection": model.projection.init(keys[1], features)},
        "actor": model.projection.init(keys[2], features),
    }
    if model.config.contrastive:
        encoder["contrast"] = jax.random.uniform(keys[3], (latent_size, latent_size))
    head = {
        "q": model.q.init(keys[4], latent, action),
        "policy": model.policy.init(keys[5], latent),
        "log_alpha": jnp.log(jnp.float32(model.config.init_temperature)),
    }
    return init_from(model, Params(encoder, head))


def init_from(model: Model, params: Params) -> AgentState:
    """A fresh state around given parameters: targets equal to them, optimisers at zero."""
    trained_by = dict(params.encoder)
    if model.config.contrastive:
        trained_by["contrast"] = _trained_by_contrast(params.encoder)
    return AgentState(
        params=params,
        # Copies: a state is donated to its update, so no buffer may occur in it twice.
        target=jax.tree.map(jnp.copy, Params(params.encoder["critic"], {"q": params.head["q"]})),
        frozen=None,
        opt_state=Params(
            {name: tx.init(trained_by[name]) for name, tx in model.tx.encoder.items()},
            {name: tx.init(params.head[name]) for name, tx in model.tx.head.items()},
        ),
        step=jnp.zeros((), jnp.int32),
    )


def _trained_by_contrast(encoder: PyTree) -> PyTree:
    return {name: encoder[name] for name in ("critic", "contrast")}


def _view(size: int, obs: Array, key: Key | None = None) -> Array:
    return augment.center_crop(obs, size) if key is None else augment.random_crop(key, obs, size)


def _encode(model: Model, encoder: PyTree, view: Array) -> PyTree:
    """u8[B, H, W, k*C] crop -> {"critic": f32[B, L], "actor": f32[B, L]}; by an encoder of
    convolutions alone {"features": f32[B, D]}."""
    features = model.convs.apply(encoder["critic"]["convs"], view)
    if "projection" not in encoder["critic"]:
        return {"features": features}
    return {
        "critic": model.projection.apply(encoder["critic"]["projection"], features),
        "actor": model.projection.apply(encoder["actor"], features),
    }


def _features(model: Model, encoder: PyTree, obs: PyTree) -> Array:
    """f32[B, D] of crops, or as they are stored; `encoder` is the critic's part of it."""
    return model.convs.apply(encoder["convs"], obs) if "convs" in encoder else obs["features"]


def _critic_latent(model: Model, encoder: PyTree, obs: PyTree) -> Array:
    """f32[B, L], what Q reads; `encoder` is the critic's part of what trains, None if nothing."""
    if encoder is None:
        return obs["critic"]
    return model.projection.apply(encoder["projection"], _features(model, encoder, obs))


def _act(model: Model, state: AgentState, latent: PyTree, key: Key, greedy: bool) -> Array:
    if "features" in latent:
        actor = model.projection.apply(state.params.encoder["actor"], latent["features"])
    else:
        actor = latent["actor"]
    mean, log_std = model.policy.apply(state.params.head["policy"], actor)
    if greedy:
        return jnp.tanh(mean)
    return jnp.tanh(mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape))


def _update(
    model: Model,
    obs_shape: tuple[int, int, int],
    state: AgentState,
    batch: Transition,
    key: Key,
) -> tuple[AgentState, dict[str, Array], Array]:
    crop_key, critic_key, actor_key = jax.random.split(key, 3)
    shape = batch.action.shape
    noise = Noise(jax.random.normal(critic_key, shape), jax.random.normal(actor_key, shape))
    if state.frozen is not None:
        if model.config.latent_shift:
            batch = _shift(model.config, obs_shape, batch, crop_key)
        return update_on_views(model, state, batch, None, noise)
    view = functools.partial(_view, model.config.crop_size)
    obs_key, next_key, positive_key = jax.random.split(crop_key, 3)
    positive = view(batch.obs, positive_key) if model.config.contrastive else None
    batch = batch._replace(obs=view(batch.obs, obs_key), next_obs=view(batch.next_obs, next_key))
    return update_on_views(model, state, batch, positive, noise)


def _shift(
    config: Config, obs_shape: tuple[int, int, int], batch: Transition, key: Key
) -> Transition:
    """Moves stored features of centre crops as random crops would have moved them."""
    side = networks.conv_output_sizes(config.crop_size, config.layers)[-1]
    room = (obs_shape[0] - config.crop_size, obs_shape[1] - config.crop_size)

    def shifted(latent: PyTree, key: Key) -> PyTree:
        features = latent["features"]
        maps = features.reshape(-1, side, side, config.num_filters)
        moved = augment.shift(key, maps, room, math.prod(config.strides))
        return {"features": moved.reshape(features.shape)}

    obs_key, next_key = jax.random.split(key)
    return batch._replace(
        obs=shifted(batch.obs, obs_key), next_obs=shifted(batch.next_obs, next_key)
    )


def update_on_views(
    model: Model, state: AgentState, batch: Transition, positive: Array | None, noise: Noise
) -> tuple[AgentState, dict[str, Array], Array]:
    """One update with its random choices given; `Agent.update` draws them.

    Args:
        model: networks and optimisers.
        state: before the freeze or after it.
        batch: observations already cropped, u8[B, H, W, k*C]; after the freeze latents.
        positive: a second crop of `batch.obs`; None after the freeze or without the contrastive
            loss.
        noise: of the next action and of the actor's action.

    Returns:
        The new state; f32[] metrics, of which those of the actor are nan when it was not its turn;
        the Bellman error f32[B] of each transition, mean over the two Q functions.
    """
    chex.assert_rank([batch.action, batch.reward, batch.discount, batch.weight], [2, 1, 1, 1])
    state, metrics, errors = _step_critic(model, state, batch, noise.critic)
    encoder = state.params.encoder
    contrast: dict[str, Array] = {}
    if positive is not None:
        # The actor's step leaves the convolutions alone: one forward pass serves both losses.
        convolve = lambda convs: model.convs.apply(convs, batch.obs)
        anchor, anchor_vjp = jax.vjp(convolve, encoder["critic"]["convs"])
        features = lambda: anchor
    elif encoder is not None:
        features = lambda: _features(model, encoder["critic"], batch.obs)
    else:
        features = lambda: batch.obs
    state, actor = _step_actor_in_turn(model, state, features, noise.actor)
    if positive is not None:
        state, contrast = _step_contrast(model, state, anchor, anchor_vjp, positive)
    return state.replace(step=state.step + 1), metrics | actor | contrast, errors


def _step_critic(
    model: Model, state: AgentState, batch: Transition, noise: Array
) -> tuple[AgentState, dict[str, Array], Array]:
    """Bellman step of the twin Q functions and of what trains of the critic's encoder."""
    head = state.params.head
    encoder = None
    next_latent = batch.next_obs
    if state.params.encoder is not None:
        encoder = state.params.encoder["critic"]
        features = _features(model, encoder, batch.next_obs)
        next_latent = {
            "critic": _critic_latent(model, state.target.encoder, batch.next_obs),
            "actor": model.projection.apply(state.params.encoder["actor"], features),
        }
    mean, log_std = model.policy.apply(head["policy"], next_latent["actor"])
    next_action, log_prob = losses.tanh_gaussian(mean, log_std, noise)
    next_q = model.q.apply(state.target.head["q"], next_latent["critic"], next_action)
    value = jnp.min(next_q, axis=0) - jnp.exp(head["log_alpha"]) * log_prob
    target = batch.reward + batch.discount * value

    obs = batch.obs
    if encoder is not None:
        # The passes on next observations are over before this one begins to keep its layers.
        obs, target = jax.lax.optimization_barrier((obs, target))

    def loss_fn(encoder: PyTree, q_params: PyTree) -> tuple[Array, tuple[Array, Array]]:
        latent = _critic_latent(model, encoder, obs)
        q = model.q.apply(q_params, latent, batch.action)
        loss = jnp.sum(jnp.mean(batch.weight * (q - target) ** 2, axis=1))
        return loss, (jnp.mean(q), jnp.mean(jnp.abs(q - target), axis=0))

    (loss, (q, errors)), (encoder_grad, q_grad) = jax.value_and_grad(loss_fn, (0, 1), has_aux=True)(
        encoder, head["q"]
    )
    state = _step(model, state, "head", "q", q_grad)
    if encoder is not None:
        state = _step(model, state, "encoder", "critic", encoder_grad)
    return state, {"loss/critic": loss, "critic/q": q}, errors


def _step_actor_in_turn(
    model: Model, state: AgentState, features: Callable[[], PyTree], noise: Array
) -> tuple[AgentState, dict[str, Array]]:
    """The actor, the temperature and the targets, every `actor_every` updates."""

    def skip(state: AgentState) -> tuple[AgentState, dict[str, Array]]:
        return state, dict.fromkeys(_ACTOR_METRICS, jnp.full((), jnp.nan, noise.dtype))

    turn = state.step % model.config.actor_every == 0
    step = lambda state: _step_actor(model, state, features(), noise)
    state, metrics = jax.lax.cond(turn, step, skip, state)
    # In a branch of their own: in the actor's, a TPU's compiler would transpose the targets with Q.
    move = lambda state: _step_targets(model.config, state)
    return jax.lax.cond(turn, move, lambda state: state, state), metrics


def _step_actor(
    model: Model, state: AgentState, features: PyTree, noise: Array
) -> tuple[AgentState, dict[str, Array]]:
    """Policy, temperature and, as long as it trains, the actor's projection.

    `features` are the convolutions' f32[B, D], or the stored latents if no projection trains.
    """
    head = state.params.head
    alpha = jnp.exp(head["log_alpha"])
    if state.params.encoder is None:
        projection, critic_latent = None, features["critic"]
    else:
        projection = state.params.encoder["actor"]
        critic_projection = state.params.encoder["critic"]["projection"]
        critic_latent = model.projection.apply(critic_projection, features)

    def loss_fn(projection: PyTree, policy: PyTree) -> tuple[Array, tuple[Array, Array]]:
        if projection is None:
            latent = features["actor"]
        else:
            latent = model.projection.apply(projection, features)
        mean, log_std = model.policy.apply(policy, latent)
        action, log_prob = losses.tanh_gaussian(mean, log_std, noise)
        q = jnp.min(model.q.apply(head["q"], critic_latent, action), axis=0)
        return jnp.mean(alpha * log_prob - q), (log_prob, log_std)

    (loss, (log_prob, log_std)), (projection_grad, policy_grad) = jax.value_and_grad(
        loss_fn, (0, 1), has_aux=True
    )(projection, head["policy"])
    state = _step(model, state, "head", "policy", policy_grad)
    if projection is not None:
        state = _step(model, state, "encoder", "actor", projection_grad)

    target_entropy = -noise.shape[-1]
    alpha_loss, alpha_grad = jax.value_and_grad(
        lambda log_alpha: jnp.mean(jnp.exp(log_alpha) * (-log_prob - target_entropy))
    )(head["log_alpha"])
    state = _step(model, state, "head", "log_alpha", alpha_grad)
    gaussian_entropy = jnp.mean(jnp.sum(0.5 * jnp.log(2 * jnp.pi * jnp.e) + log_std, axis=-1))
    values = (loss, alpha_loss, alpha, gaussian_entropy)
    return state, dict(zip(_ACTOR_METRICS, values, strict=True))


def _step_targets(config: Config, state: AgentState) -> AgentState:
    target, params = state.target, state.params
    head = optax.incremental_update({"q": params.head["q"]}, target.head, config.critic_tau)
    encoder = None
    if params.encoder is not None:
        encoder = optax.incremental_update(
            params.encoder["critic"], target.encoder, config.encoder_tau
        )
    return state.replace(target=Params(encoder, head))


def _step_contrast(
    model: Model,
    state: AgentState,
    features: Array,
    features_vjp: Callable[[Array], tuple[PyTree]],
    positive: Array,
) -> tuple[AgentState, dict[str, Array]]:
    """Contrastive step of the critic's encoder and of W.

    `features` f32[B, D] are the anchor's convolutions and `features_vjp` their backward pass.
    """
    encoder = state.params.encoder
    positive_latent = _critic_latent(model, state.target.encoder, positive)

    def loss_fn(features: Array, projection: PyTree, similarity: Array) -> Array:
        anchor = model.projection.apply(projection, features)
        return losses.info_nce(anchor, positive_latent, similarity)

    loss, (features_grad, projection_grad, similarity_grad) = jax.value_and_grad(
        loss_fn, (0, 1, 2)
    )(features, encoder["critic"]["projection"], encoder["contrast"])
    critic_grad = {"convs": features_vjp(features_grad)[0], "projection": projection_grad}
    state = _step(model, state, "encoder", "critic", critic_grad)

    trained = _trained_by_contrast(state.params.encoder)
    updates, opt_state = model.tx.encoder["contrast"].update(
        {"critic": critic_grad, "contrast": similarity_grad},
        state.opt_state.encoder["contrast"],
        trained,
    )
    trained = optax.apply_updates(trained, updates)
    state = state.replace(
        params=state.params._replace(encoder=state.params.encoder | trained),
        opt_state=state.opt_state._replace(
            encoder=state.opt_state.encoder | {"contrast": opt_state}
        ),
    )
    return state, {"loss/contrast": loss}


def _step(model: Model, state: AgentState, part: str, name: str, grad: PyTree) -> AgentState:
    """One step of the optimiser that owns `state.params.<part>[name]`."""
    params, opt_state = getattr(state.params, part), getattr(state.opt_state, part)
    tx = getattr(model.tx, part)[name]
    # Parameters are written over once no gradient needs them any more, so nothing copies them.
    grad = jax.lax.optimization_barrier(grad)
    updates, new_opt_state = tx.update(grad, opt_state[name], params[name])
    new_params = params | {name: optax.apply_updates(params[name], updates)}
    return state.replace(
        params=state.params._replace(**{part: new_params}),
        opt_state=state.opt_state._replace(**{part: opt_state | {name: new_opt_state}}),
    )


def _freeze(depth: str, state: AgentState) -> AgentState:
    """The encoder stops training, the target becomes the online critic, W has done its work."""
    encoder, opt_state = state.params.encoder, state.opt_state.encoder
    if depth == "projection":
        frozen = {side: encoder[side] for side in ("critic", "actor")}
        encoder = opt_state = target = None
    else:
        frozen = {"critic": {"convs": encoder["critic"]["convs"]}}
        encoder, opt_state = (
            {side: _without_convs(tree[side]) for side in ("critic", "actor")}
            for tree in (encoder, opt_state)
        )
        target = jax.tree.map(jnp.copy, encoder["critic"])
    head = state.params.head
    return AgentState(
        params=Params(encoder, head),
        target=Params(target, jax.tree.map(jnp.copy, {"q": head["q"]})),
        frozen=frozen,
        opt_state=Params(opt_state, state.opt_state.head),
        step=state.step,
    )


def _without_convs(tree: PyTree) -> PyTree:
    """Parameters without the convolutions', or the state of their optimiser."""
    has_convs = lambda x: isinstance(x, dict) and "convs" in x
    return jax.tree.map(
        lambda x: {"projection": x["projection"]} if has_convs(x) else x, tree, is_leaf=has_convs
    )


def _flops(config: Config, channels: int, action_dim: int) -> Flops:
    sizes = networks.conv_output_sizes(config.crop_size, config.layers)
    first, *rest = flops.convs(channels, config.layers, sizes)
    convs = first + sum(rest)
    # The pixels need no gradient: the first layer's backward pass is half of a usual one.
    convs_backward = 2 * convs - first
    projection = flops.dense(sizes[-1] ** 2 * config.num_filters, config.latent_size)
    hidden = config.hidden_size
    policy = flops.dense(config.latent_size, hidden, hidden, 2 * action_dim)
    twin_q = 2 * flops.dense(config.latent_size + action_dim, hidden, hidden, 1)

    critic_head = policy + twin_q + 3 * twin_q
    actor_head = 3 * policy + 2 * twin_q  # Q's weights get no gradient from the actor
    head = critic_head + actor_head / config.actor_every
    train_critic_side = convs + convs_backward + 3 * projection
    encoder = (
        2 * (convs + projection)  # next_obs, online and target
        + train_critic_side  # obs
        # The actor's step: its side trains, on features that need no gradient; the critic's reads.
        + 3 * projection / config.actor_every
    )
    if config.contrastive:
        encoder += train_critic_side + convs + projection  # the anchor, the positive
    else:
        encoder += convs / config.actor_every  # the contrastive anchor serves the actor otherwise
    if config.frozen_depth == "projection":
        # Stored latents need no gradient: as inputs of Q in the critic's step, of the actor in its.
        frozen = head - 2 * flops.dense(config.latent_size + action_dim, hidden)
        frozen -= flops.dense(config.latent_size, hidden) / config.actor_every
        encode, act = convs + 2 * projection, policy
    else:
        # Of next_obs: online and target; of obs, whose features need no gradient; the actor's step.
        frozen = head + (2 + 2 + 3 / config.actor_every) * projection
        encode, act = convs, projection + policy
    return Flops(encode=encode, act=act, update=encoder + head, update_frozen=frozen)
