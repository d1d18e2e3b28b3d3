"""Teams and rollouts made by hand: all sizes differ and exceed 1, so that a wrong axis cannot pass unnoticed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn
from torchrl.envs.transforms import Transform
from torchrl.envs.utils import ExplorationType, set_exploration_type

from ctde_kit.keys import GroupKeys, next_key
from ctde_kit.modules import (
    AgentNetwork,
    LearnedScale,
    MultiAgentActor,
    MultiAgentGRU,
    MultiAgentMLP,
    MultiAgentQActor,
    agent_state,
    own_observation,
)
from ctde_kit.specs import ActionSpec, GroupSpec, TeamSpec

N_ENVS, LENGTH, HIDDEN = 4, 7, 12
KINDS = ("continuous", "categorical", "one_hot", "multi_discrete")
SHARINGS: tuple[Any, ...] = (True, False, "mapped")


def group_spec(name: str = "agents", n_agents: int = 3, kind: str = "categorical", **options: Any) -> GroupSpec:
    """A group with 5 features and 2 action dimensions or 6 choices; agents differ in their bounds."""
    sizes = {"continuous": (2,), "categorical": (6,), "one_hot": (6,), "multi_discrete": (2, 6)}[kind]
    low = high = ()
    if kind == "continuous":
        low = tuple((-1.0 - i, 0.5 * i) for i in range(n_agents))
        high = tuple((1.0, 1.0 + i) for i in range(n_agents))
    options = {"observation_dim": 5, **options}
    return GroupSpec(name, n_agents, action=ActionSpec(kind, sizes, low, high), **options)


def sharing(share: Any, n_agents: int) -> Any:
    """``share_params`` for any number of agents; where ``share`` is "mapped", the second and third have one set."""
    return [(i + 1) // 2 for i in range(n_agents)] if share == "mapped" else share


def make_network(recurrent: bool, share: Any = True) -> Any:
    """A factory ``(in_features, out_features, n_agents) -> network`` of small networks."""

    def make(in_features: int, out_features: int, n_agents: int) -> nn.Module:
        share_params = sharing(share, n_agents)
        if recurrent:
            return MultiAgentGRU(
                in_features, out_features, n_agents, share_params=share_params, hidden_size=HIDDEN, num_cells=(9,)
            )
        return MultiAgentMLP(in_features, out_features, n_agents, share_params=share_params, num_cells=(9,))

    return make


class CountingTransform(Transform):
    """A transform that no graph can hold: it counts its calls in Python."""

    calls = 0

    def _call(self, next_tensordict: TensorDictBase) -> TensorDictBase:
        self.calls += 1
        return next_tensordict.set("calls", torch.full((*next_tensordict.batch_size, 1), float(self.calls)))


def make_actor(
    group: GroupSpec,
    recurrent: bool = False,
    share: Any = True,
    agent_id: bool = False,
    learned_scale: bool = False,
    latent_dim: int = 0,
    value_head: bool = False,
) -> MultiAgentActor:
    """A small actor; with ``learned_scale`` the deviation of its continuous actions is a parameter."""
    inputs = own_observation(group, agent_id=agent_id, latent_dim=latent_dim)
    outputs = group.action.sizes[0] if learned_scale else group.action.n_parameters
    network = make_network(recurrent, share)(inputs.features, outputs + value_head, group.n_agents)
    scale = LearnedScale(outputs, group.n_agents, sharing(share, group.n_agents)) if learned_scale else None
    return MultiAgentActor(group, inputs, network, scale, value_head=value_head)


def make_q_actor(
    group: GroupSpec, recurrent: bool = False, share: Any = True, agent_id: bool = False, **options: Any
) -> MultiAgentQActor:
    """A small Q actor that always explores."""
    inputs = own_observation(group, agent_id=agent_id, **options)
    network = make_network(recurrent, share)(inputs.features, group.action.sizes[0], group.n_agents)
    return MultiAgentQActor(group, inputs, network, epsilon=1.0)


def observe(team: TeamSpec, *batch: int) -> TensorDict:
    """Random root entries: what a reset gives, without flags."""
    data = TensorDict({}, batch)
    if team.state_dim is not None:
        data.set("state", torch.randn(*batch, team.state_dim))
    for group in team:
        keys, shape = group.keys, (*batch, group.n_agents)
        data.set(keys.observation, torch.randn(*shape, group.observation_dim))
        if group.state_dim is not None:
            data.set(keys.state, torch.randn(*shape, group.state_dim))
        if group.action_mask:
            allowed = torch.rand(*shape, sum(group.action.sizes)) < 0.6
            allowed[..., 0, :] = False  # the first agent may do nothing
            data.set(keys.action_mask, allowed)
        if group.mask:
            data.set(keys.mask, torch.rand(shape) < 0.7)
    return data


def with_hidden(data: TensorDictBase, networks: Iterable[AgentNetwork]) -> TensorDictBase:
    """Add zero hidden states, as an env's primer does."""
    for network in networks:
        if network.hidden_key is not None:
            data.set(network.hidden_key, torch.zeros(*data.shape, network.inputs.n_agents, HIDDEN))
    return data


def endings(n_envs: int = N_ENVS, length: int = LENGTH) -> tuple[Tensor, Tensor]:
    """``done`` and ``terminated`` ``[n_envs, T]``: some envs terminate, some are truncated, at different steps."""
    done = torch.zeros(n_envs, length, dtype=torch.bool)
    terminated = done.clone()
    done[0, 2] = terminated[0, 2] = True
    done[1, 4] = True
    done[2, length - 1] = True
    return done, terminated


@torch.no_grad()
def collect(
    team: TeamSpec,
    actors: Mapping[str, MultiAgentActor | MultiAgentQActor],
    done: Tensor,
    terminated: Tensor,
    next_root: TensorDictBase | None = None,
) -> tuple[TensorDictBase, TensorDictBase]:
    """A batch ``[n_envs, T]`` collected step by step, and what the next batch starts from."""
    n_envs, length = done.shape
    if next_root is None:
        next_root = observe(team, n_envs).set("is_init", torch.ones(n_envs, 1, dtype=torch.bool))
        with_hidden(next_root, [actor.agent_network for actor in actors.values()])
    steps = []
    for t in range(length):
        step = next_root.copy()
        with set_exploration_type(ExplorationType.RANDOM):
            for actor in actors.values():
                step = actor(step)
        following = observe(team, n_envs)
        step.setdefault("next", TensorDict({}, [n_envs])).update(following)
        step.set(("next", "done"), done[:, t, None]).set(("next", "terminated"), terminated[:, t, None])
        for group in team:
            step.set(("next", *group.keys.reward), torch.randn(n_envs, group.n_agents, 1))
        steps.append(step)
        next_root = where(done[:, t], observe(team, n_envs), following).set("is_init", done[:, t, None])
        for actor in actors.values():
            if actor.agent_network.hidden_key is not None:
                next_root.set(actor.agent_network.hidden_key, step.get(next_key(actor.agent_network.hidden_key)))
    return torch.stack(steps, 1).contiguous(), next_root


def where(flags: Tensor, here: TensorDictBase, there: TensorDictBase) -> TensorDict:
    """Rows of ``here`` where ``flags``, else of ``there``."""
    result = TensorDict({}, flags.shape)
    for key, value in here.items(True, True):
        shape = (-1, *[1] * (value.ndim - 1))
        result.set(key, torch.where(flags.reshape(shape), value, there.get(key)))
    return result


def add_targets(batch: TensorDictBase, keys: GroupKeys) -> TensorDictBase:
    """Random advantages, value targets and old values, for losses without an estimator."""
    shape = batch.get(("next", *keys.reward)).shape
    for key in (keys.advantage, keys.value_target, keys.state_value):
        batch.set(key, torch.randn(shape))
    return batch


def identity_group(n_agents: int = 2, **options: Any) -> GroupSpec:
    """A group whose actor's logits are its observation (2 choices) and whose critic's value is its ``state``."""
    action = ActionSpec("categorical", (2,))
    return GroupSpec("agents", n_agents, observation_dim=2, action=action, state_dim=1, **options)


def identity_actor(group: GroupSpec) -> MultiAgentActor:
    """Logits, or location and scale, are what stands in the observation."""
    return MultiAgentActor(group, own_observation(group), nn.Identity())


def identity_critic(group: GroupSpec) -> AgentNetwork:
    """The value is what stands in ``(group, "state")``."""
    return AgentNetwork(agent_state(group), nn.Identity(), [group.keys.state_value])
