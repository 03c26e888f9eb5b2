"""Rainbow: distributional double Q-learning with noisy networks, as SEER trains it on Atari.

    obs -> convolutions -> latent -> noisy value and advantage streams -> returns of each action

One update moves the predicted distribution of n-step returns of the action taken towards the
bootstrapped one: the online network, with the noise of this update, chooses the next action, the
target network, with noise of its own, says what it is worth. After the freeze `params.encoder` is
None, the transitions hold latents, and what is left of an update is the streams.

Source: lili-chen/SEER at 73ae6e1, seer_atari, itself after Kaixhin/Rainbow. Knowingly different:
- n-step returns end at an episode's last row and bootstrap from it where it is not terminal;
- the steps before `learning_starts` are random, where the official code acts on its noisy network;
- acting and the update after it draw noise of their own, where the official code draws it once.
"""

import dataclasses
import functools
from typing import Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from seer_jax import flops, losses, networks
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

_LAYERS = {"der": networks.DER_LAYERS, "nature": networks.NATURE_LAYERS}
_LEAST_SIZE = {"der": 25, "nature": 36, "impala": 1}  # pixels that leave one place at the end


@dataclasses.dataclass(frozen=True)
class Config:
    """Hyperparameters of Rainbow; the defaults are the official script's (data-efficient)."""

    encoder: Literal["der", "nature", "impala"] = "der"
    """Convolutions: data-efficient Rainbow's two, DQN's three, or IMPALA's fifteen."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """What networks compute in. bfloat16 is for large batches on devices that have units for it,
    GPUs, TPUs and CPUs with Intel's AMX: see docs/performance.md; other CPUs gain nothing.
    Parameters, optimisers, losses, normalisation and output layers stay float32."""
    hidden_size: int | None = None
    """Width of the hidden layer of each stream. None, as in the official code: 512 with Nature's
    convolutions, else 256."""
    num_atoms: int = 51
    """Points of the distribution of returns."""
    v_min: float = -10.0
    """Least return of the support."""
    v_max: float = 10.0
    """Largest return of the support."""
    noisy_std: float = 0.1
    """Scale of the noise on the weights at the start."""
    gamma: float = 0.99
    """Discount per agent step."""
    n_step: int = 20
    """Steps of reward before the bootstrap."""
    learning_rate: float = 1e-4
    """Adam's step size."""
    adam_eps: float = 1.5e-4
    """Adam's epsilon."""
    max_grad_norm: float = 10.0
    """Norm to which the gradient of all trained parameters is clipped."""
    target_every: int = 2_000
    """Agent steps between two copies of the online network into the target; with several updates a
    step, updates."""
    eval_epsilon: float = 0.001
    """Share of random actions in evaluation."""


class Noise(NamedTuple):
    """The noise of one update: by layer, of its inputs and outputs."""

    online: dict[str, networks.Noise]
    target: dict[str, networks.Noise]


class Model(NamedTuple):
    """What the functions below close over: networks and optimiser, no parameters."""

    config: Config
    convs: networks.PlainConvs | networks.ImpalaConvs
    head: networks.NoisyDueling
    latent_size: int
    tx: optax.GradientTransformation  # elementwise: each part of the parameters has its own state
    learning_starts: int

    @property
    def support(self) -> Array:
        return jnp.linspace(self.config.v_min, self.config.v_max, self.config.num_atoms)


def make(config: Config, spec: EnvSpec, frame_stack: int, learning_starts: int = 0) -> Agent:
    """Builds the agent for an environment.

    Args:
        config: hyperparameters.
        spec: the environment's; its actions must be discrete.
        frame_stack: k, frames in an observation.
        learning_starts: agent steps before the first update.

    Raises:
        UserError: if the sizes do not fit together.
    """
    if spec.num_actions is None:
        raise UserError("rainbow needs discrete actions; this task's are continuous.")
    if config.num_atoms < 2:
        raise UserError(f"num_atoms={config.num_atoms}: a distribution has 2 or more.")
    if config.v_min >= config.v_max:
        raise UserError(f"v_min={config.v_min} must be below v_max={config.v_max}.")
    obs_shape = (*spec.obs_shape[:2], frame_stack * spec.obs_shape[-1])
    model = make_model(config, obs_shape, spec.num_actions, learning_starts)
    return Agent(
        init=functools.partial(_init, model, obs_shape),
        view=lambda obs, key=None: obs,
        encode=lambda encoder, view: model.convs.apply(encoder, view),
        act=functools.partial(_act, model),
        update=functools.partial(_update, model),
        freeze=_freeze,
        flops=_flops(model, obs_shape, spec.num_envs),
        random_views=False,
        signed_latents=False,
    )


def make_model(
    config: Config,
    obs_shape: tuple[int, int, int],
    num_actions: int,
    learning_starts: int = 0,
) -> Model:
    """Networks and optimiser; `obs_shape` is (H, W, k*C)."""
    dtype = jnp.dtype(config.compute_dtype)
    convs: networks.PlainConvs | networks.ImpalaConvs
    if config.encoder == "impala":
        convs = networks.ImpalaConvs(networks.IMPALA_SECTIONS, dtype)
    else:
        convs = networks.PlainConvs(_LAYERS[config.encoder], "uniform", dtype)
    if min(obs_shape[:2]) < _LEAST_SIZE[config.encoder]:
        raise UserError(
            f"{obs_shape[0]}x{obs_shape[1]} pixels are too few for the {config.encoder} encoder: "
            f"raise --image_size to {_LEAST_SIZE[config.encoder]} or more."
        )
    obs = jax.ShapeDtypeStruct((1, *obs_shape), jnp.uint8)
    latent, _ = jax.eval_shape(convs.init_with_output, jax.random.key(0), obs)
    hidden_size = config.hidden_size or (512 if config.encoder == "nature" else 256)
    return Model(
        config,
        convs,
        networks.NoisyDueling(
            hidden_size,
            num_actions,
            config.num_atoms,
            config.noisy_std,
            networks.narrow(config.compute_dtype),
        ),
        latent.shape[1],
        optax.adam(config.learning_rate, eps=config.adam_eps),
        learning_starts,
    )


def _init(model: Model, obs_shape: tuple[int, int, int], key: Key) -> AgentState:
    convs_key, head_key = jax.random.split(key)
    encoder = model.convs.init(convs_key, jnp.zeros((1, *obs_shape), jnp.uint8))
    head = model.head.init(head_key, jnp.zeros((1, model.latent_size)), None)
    return init_from(model, Params(encoder, head))


def init_from(model: Model, params: Params) -> AgentState:
    """A fresh state around given parameters: target equal to them, optimiser at zero."""
    return AgentState(
        params=params,
        # Copies: a state is donated to its update, so no buffer may occur in it twice.
        target=jax.tree.map(jnp.copy, params),
        frozen=None,
        opt_state=Params(model.tx.init(params.encoder), model.tx.init(params.head)),
        step=jnp.zeros((), jnp.int32),
    )


def _act(model: Model, state: AgentState, latent: Array, key: Key, greedy: bool) -> Array:
    noise_key, random_key, epsilon_key = jax.random.split(key, 3)
    layers = model.head.layers(model.latent_size)
    noise = None if greedy else networks.factorised_noise(noise_key, layers)
    best = jnp.argmax(_q_values(model, model.head.apply(state.params.head, latent, noise)), axis=1)
    if not greedy:
        return best.astype(jnp.int32)
    random = jax.random.randint(random_key, best.shape, 0, model.head.num_actions)
    explore = jax.random.uniform(epsilon_key, best.shape) < model.config.eval_epsilon
    return jnp.where(explore, random, best).astype(jnp.int32)


def _q_values(model: Model, logits: Array) -> Array:
    """Mean return of each action: f32[B, actions, atoms] -> f32[B, actions]."""
    return jax.nn.softmax(logits) @ model.support.astype(logits.dtype)


def _update(
    model: Model, state: AgentState, batch: Transition, key: Key
) -> tuple[AgentState, dict[str, Array], Array]:
    layers = model.head.layers(model.latent_size)
    keys = jax.random.split(key)
    return update_with_noise(
        model, state, batch, Noise(*(networks.factorised_noise(k, layers) for k in keys))
    )


def update_with_noise(
    model: Model, state: AgentState, batch: Transition, noise: Noise
) -> tuple[AgentState, dict[str, Array], Array]:
    """One update with its noise given; `Agent.update` draws it.

    Args:
        model: networks and optimiser.
        state: before the freeze or after it.
        batch: observations u8[B, H, W, k*C]; after the freeze latents f32[B, L].
        noise: of the online network, for both of its passes, and of the target's.

    Returns:
        The new state, f32[] metrics, and the cross-entropy f32[B] of each transition.
    """
    chex.assert_rank([batch.action, batch.reward, batch.discount, batch.weight], 1)
    params, rows = state.params, jnp.arange(batch.action.shape[0])

    def logits(params: Params, obs: Array, noise: dict[str, networks.Noise]) -> Array:
        latent = obs if params.encoder is None else model.convs.apply(params.encoder, obs)
        return model.head.apply(params.head, latent, noise)

    next_action = jnp.argmax(_q_values(model, logits(params, batch.next_obs, noise.online)), axis=1)
    next_logits = logits(state.target, batch.next_obs, noise.target)
    support = model.support.astype(next_logits.dtype)
    target = losses.project_categorical(
        jax.nn.softmax(next_logits[rows, next_action]),
        batch.reward[:, None] + batch.discount[:, None] * support,
        support,
    )

    def loss_fn(params: Params) -> tuple[Array, tuple[Array, Array]]:
        chosen = logits(params, batch.obs, noise.online)[rows, batch.action]
        errors = -jnp.sum(target * jax.nn.log_softmax(chosen), axis=1)
        return jnp.mean(batch.weight * errors), (errors, jax.nn.softmax(chosen) @ support)

    (loss, (errors, q)), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
    norm = optax.tree.norm(grads)
    clip = jnp.minimum(1.0, model.config.max_grad_norm / (norm + 1e-6))
    grads = jax.tree.map(lambda g: g * clip, grads)
    head, head_opt = _step(model, grads.head, state.opt_state.head, params.head)
    encoder = encoder_opt = None
    if params.encoder is not None:
        encoder, encoder_opt = _step(model, grads.encoder, state.opt_state.encoder, params.encoder)
    params, step = Params(encoder, head), state.step + 1
    target_params = optax.periodic_update(
        params, state.target, model.learning_starts + step, model.config.target_every
    )
    metrics = {"loss/critic": loss, "critic/q": jnp.mean(q), "critic/grad_norm": norm}
    state = state.replace(
        params=params,
        target=target_params,
        opt_state=Params(encoder_opt, head_opt),
        step=step,
    )
    return state, metrics, errors


def _step(model: Model, grad: PyTree, opt_state: PyTree, params: PyTree) -> tuple[PyTree, PyTree]:
    updates, opt_state = model.tx.update(grad, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def _freeze(state: AgentState) -> AgentState:
    """The encoder stops training; the target's streams stay, its convolutions have no more use."""
    return AgentState(
        params=Params(None, state.params.head),
        target=Params(None, state.target.head),
        frozen=state.params.encoder,
        opt_state=Params(None, state.opt_state.head),
        step=state.step,
    )


def _flops(model: Model, obs_shape: tuple[int, int, int], num_envs: int) -> Flops:
    first, *rest = _conv_flops(model.config.encoder, obs_shape)
    convs = first + sum(rest)
    layers = model.head.layers(model.latent_size)
    head = sum(flops.dense(*sizes) for sizes in layers.values())
    hidden = sum(flops.dense(*layers[name]) for name in ("fc_h_v", "fc_h_a"))
    # Two passes over next_obs, one there and back over obs. The backward pass of the first layer
    # that trains is half of a usual one: what lies before it needs no gradient.
    return Flops(
        encode=convs,
        act=head * (1 + networks.adds_noise_apart(num_envs)),
        update=5 * (convs + head) - first,
        update_frozen=5 * head - hidden,
    )


def _conv_flops(encoder: str, obs_shape: tuple[int, int, int]) -> list[float]:
    """Forward FLOPs of each convolution, for square images."""
    side, _, channels = obs_shape
    if encoder == "impala":
        costs = []
        for features in networks.IMPALA_SECTIONS:
            costs.append(flops.conv(channels, features, 3, side))
            side, channels = (side + 1) // 2, features
            costs += [flops.conv(features, features, 3, side)] * 4
        return costs
    layers = _LAYERS[encoder]
    return flops.convs(channels, layers, networks.conv_output_sizes(side, layers))
