"""The types that flow through seer_jax, in the order a transition meets them.

An environment emits `TimeStep`s; replay keeps one `Row` per time step; sampling turns rows into a
`Transition`; an `Agent` (a bundle of pure functions) turns transitions into a new `AgentState`.

Alignment is dm_env's: `reward` and `discount` at time t arrived *with* observation t. `discount` is
0 at a terminal step and 1 otherwise; an episode that ends by a time limit keeps discount 1.

Letters in shapes: N environments, B batch, K stored copies of a latent, k stacked frames, A action
dimensions.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

# Apart, because environments' processes do without JAX.
from seer_jax.interface import (  # noqa: F401
    FIRST,
    LAST,
    MID,
    Env,
    EnvSpec,
    Leaf,
    PyTree,
    StackPad,
    TimeStep,
    UnknownTask,
    UserError,
    first_line,
)

Array = jax.Array
Key = jax.Array


class Row(NamedTuple):
    """What the agent saw and did at time t in each of N environments. LAST rows included."""

    obs: PyTree  # u8[N, H*W*C] newest frame, or the latent pytree with leaves [N, K, ...]
    action: Leaf  # f32[N, A] or i32[N]; meaningless in a LAST row
    reward: Leaf  # f32[N]
    discount: Leaf  # f32[N]
    step_type: Leaf  # i32[N]


class Transition(NamedTuple):
    """A batch for `Agent.update`."""

    obs: PyTree  # u8[B, H, W, k*C], or the latent pytree with leaves [B, ...]
    action: Leaf  # f32[B, A] or i32[B]
    reward: Leaf  # f32[B], n-step return
    discount: Leaf  # f32[B], gamma^n times the environment's discounts; 0 = do not bootstrap
    next_obs: PyTree  # like obs, n steps later or at the episode's end
    weight: Leaf  # f32[B], importance weights; ones under uniform sampling


class Params(NamedTuple):
    """Trainable (or target) parameters. After the freeze `encoder` is None, or what of it goes on
    training."""

    encoder: PyTree
    head: PyTree


class AgentState(flax.struct.PyTreeNode):
    """Everything an agent learns; `frozen` is None before the freeze, and after it the encoder that
    replay's latents come from."""

    params: Params
    target: Params
    frozen: PyTree  # the encoder once it trains no more, None before
    opt_state: Params  # optimiser state, split like the parameters
    step: Array  # i32[], updates done

    @property
    def encoder(self) -> PyTree:
        """The encoder to act with: frozen or still trained."""
        return self.params.encoder if self.frozen is None else self.frozen


class Metrics(flax.struct.PyTreeNode):
    """What one dispatch says of itself, in one array, as fetching scalars one by one is slow. nan:
    not computed this time."""

    values: Array  # f32[M], or f32[S, M] of several learners
    names: tuple[str, ...] = flax.struct.field(pytree_node=False)

    @classmethod
    def pack(cls, metrics: dict[str, Array]) -> "Metrics":
        """Of scalars by name, or of arrays f32[S]; at least one."""
        values = [jnp.asarray(value, jnp.float32) for value in metrics.values()]
        return cls(jnp.stack(values, axis=-1), tuple(metrics))

    def by_name(self) -> dict[str, Array]:
        """What was packed."""
        return {name: self.values[..., i] for i, name in enumerate(self.names)}


@dataclasses.dataclass(frozen=True)
class InPieces:
    """An array on disk that is too large to be held twice."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], Iterator[tuple[int, np.ndarray]]]
    """Its pieces along the first axis, and where each begins."""


class Flops(NamedTuple):
    """Analytic FLOPs, 1 multiply-accumulate = 2, backward = 2 x forward."""

    encode: float  # one observation through the encoder
    act: float  # the head's part of choosing one action
    update: float  # one update of encoder and head, per example, mean over the update cycle
    update_frozen: float  # the same on stored latents


class Agent(NamedTuple):
    """A learner as pure functions; they compile nothing and hold no state.

    init(key) -> AgentState
    view(obs, key=None) -> obs as the encoder takes it: with a key, one of the random views that
        replay stores; without, the view to act on. obs u8[B, H, W, k*C] as rendered.
    encode(encoder, view) -> latent pytree with leaves f32[B, ...]
    act(state, latent, key, greedy) -> action f32[B, A] or i32[B]; greedy is for evaluation
    update(state, transition, key) -> (state, metrics, errors): metrics are f32[] by name, errors
        f32[B] say how wrong the agent was about each transition, for prioritised replay
    freeze(state) -> state: the encoder, or as much of it as freezes, moves to `frozen`; its
        optimiser state and target go
    flops: analytic costs
    random_views: whether views with a key are random; if not, copies of an observation are alike
    signed_latents: whether latents can be negative
    """

    init: Callable[[Key], AgentState]
    view: Callable[..., Array]
    encode: Callable[[PyTree, Array], PyTree]
    act: Callable[[AgentState, PyTree, Key, bool], Array]
    update: Callable[[AgentState, Transition, Key], tuple[AgentState, dict[str, Array], Array]]
    freeze: Callable[[AgentState], AgentState]
    flops: Flops
    random_views: bool
    signed_latents: bool
