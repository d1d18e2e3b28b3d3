"""A transform that gives any env an agent-specific global state."""

from __future__ import annotations

from dataclasses import replace

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.data import Composite, TensorSpec, Unbounded
from torchrl.envs.transforms import Transform

from ctde_kit.entries import alive_next
from ctde_kit.errors import UserError
from ctde_kit.keys import NEXT, STATE, Key
from ctde_kit.specs import TeamSpec


class AgentState(Transform):
    """Writes ``(group, "state")`` ``[n_envs, n_agents, S]``: the global state, then the agent's own observation.

    Yu et al. 2022, "The Surprising Effectiveness of PPO in Cooperative Multi-Agent Games", section 5.2 (the
    agent-specific global state; the pruned form, which leaves out features that appear twice, differs from task to
    task). The global state is the root ``state`` ``[n_envs, state_dim]``, or, where there is none, the observations of
    all agents of all groups, concatenated. S is the size of the global state plus the group's ``observation_dim``.

    Observations and rows of dead agents are zero. Under ``next``, agents that a time limit stopped are not dead, since
    they are bootstrapped from what they see there.

    Args:
        team: all groups; ``with_agent_states`` gives its spec with these states.

    Raises:
        UserError: where the env writes an agent-specific state already.

    >>> from torchrl.envs import TransformedEnv
    >>> from ctde_kit.envs.transforms import AgentState
    >>> from ctde_kit.envs.vmas import VmasEnv
    >>> from ctde_kit.specs import TeamSpec
    >>> env = VmasEnv("simple_tag", num_envs=5)
    >>> env = TransformedEnv(env, AgentState(TeamSpec.from_env(env)))
    >>> env.reset()["adversary", "state"].shape
    torch.Size([5, 3, 78])
    """

    stateless = True

    def __init__(self, team: TeamSpec):
        keys: list[Key] = [group.keys.observation for group in team]
        super().__init__(
            in_keys=[*keys, *([] if team.state_dim is None else [STATE])], out_keys=[group.keys.state for group in team]
        )
        self.team = team

    def _reset(self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase) -> TensorDictBase:
        # After a partial reset TorchRL takes over only the rows that were reset.
        alive = {group.name: tensordict_reset.get(group.keys.mask) for group in self.team if group.mask}
        return self._write(tensordict_reset, alive)

    def _step(self, tensordict: TensorDictBase, next_tensordict: TensorDictBase) -> TensorDictBase:
        masked = [group.keys for group in self.team if group.mask]
        step = tensordict.select(*(keys.mask for keys in masked)).set(NEXT, next_tensordict)
        alive = {keys.group: alive_next(step, keys) for keys in masked}
        return self._write(next_tensordict, alive)

    def _write(self, tensordict: TensorDictBase, alive: dict[str, Tensor]) -> TensorDictBase:
        observations = {}
        for group in self.team:
            observed = tensordict.get(group.keys.observation)
            if group.mask:
                observed = observed.masked_fill(~alive[group.name].unsqueeze(-1), 0)
            observations[group.name] = observed
        if self.team.state_dim is None:
            state = torch.cat([observed.flatten(-2) for observed in observations.values()], -1)
        else:
            state = tensordict.get(STATE)
        for group in self.team:
            rows = state.unsqueeze(-2).expand(*state.shape[:-1], group.n_agents, state.shape[-1])
            if group.mask:
                rows = rows.masked_fill(~alive[group.name].unsqueeze(-1), 0)
            tensordict.set(group.keys.state, torch.cat([rows, observations[group.name]], -1))
        return tensordict

    def transform_observation_spec(self, observation_spec: TensorSpec) -> TensorSpec:
        spec = observation_spec
        assert isinstance(spec, Composite)
        for group in with_agent_states(self.team):
            assert group.state_dim is not None
            key: Key = group.keys.state
            if key in spec.keys(True, True):
                raise UserError(f"AgentState: the env writes key {key} already; leave the transform out")
            spec[key] = Unbounded(torch.Size((*spec.shape, group.n_agents, group.state_dim)), device=spec.device)
        return spec


def with_agent_states(team: TeamSpec) -> TeamSpec:
    """The spec of a team whose env has ``AgentState``.

    >>> from ctde_kit.envs.transforms import with_agent_states
    >>> from ctde_kit.specs import ActionSpec, GroupSpec, TeamSpec
    >>> group = GroupSpec("agents", 3, 5, ActionSpec("categorical", (4,)))
    >>> with_agent_states(TeamSpec((group,)))["agents"].state_dim
    20
    """
    shared = team.observation_dim if team.state_dim is None else team.state_dim
    return replace(
        team, groups=tuple(replace(group, state_dim=shared + group.observation_dim) for group in team.groups)
    )
