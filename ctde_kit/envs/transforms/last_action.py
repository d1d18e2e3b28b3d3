"""A transform that shows each agent its action of the step before."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torchrl.data import Composite, TensorSpec, Unbounded
from torchrl.envs.transforms import Transform

from ctde_kit.keys import Key
from ctde_kit.specs import TeamSpec


class LastAction(Transform):
    """Writes ``(group, "last_action")`` ``[n_envs, n_agents, A]``: the previous action, zeros after a reset.

    Reads ``(group, "action")`` in the environment's form. Choices are one-hot, several of one agent side by side. Under
    ``next`` stands the action of this step, which is the last action once the next observation is the current one.

    Args:
        team: whose actions they are.

    >>> from torchrl.envs import TransformedEnv
    >>> from ctde_kit.envs.games import MatrixGameEnv
    >>> from ctde_kit.envs.transforms import LastAction
    >>> from ctde_kit.specs import TeamSpec
    >>> env = MatrixGameEnv(5, [[11, -30, 0], [-30, 7, 0], [0, 6, 5]])
    >>> env = TransformedEnv(env, LastAction(TeamSpec.from_env(env)))
    >>> env.reset()["agents", "last_action"].shape
    torch.Size([5, 2, 3])
    """

    stateless = True

    def __init__(self, team: TeamSpec):
        super().__init__(
            in_keys=[group.keys.action for group in team], out_keys=[group.keys.last_action for group in team]
        )
        self.groups = tuple(team)

    def _reset(self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase) -> TensorDictBase:
        # After a partial reset TorchRL takes over only the rows that were reset.
        for group in self.groups:
            shape = (*tensordict_reset.batch_size, group.n_agents, group.action.vector_dim)
            device = tensordict_reset.get(group.keys.observation).device
            tensordict_reset.set(group.keys.last_action, torch.zeros(shape, device=device))
        return tensordict_reset

    def _step(self, tensordict: TensorDictBase, next_tensordict: TensorDictBase) -> TensorDictBase:
        for group in self.groups:
            next_tensordict.set(group.keys.last_action, group.action.vector(tensordict.get(group.keys.action)))
        return next_tensordict

    def transform_observation_spec(self, observation_spec: TensorSpec) -> TensorSpec:
        spec = observation_spec
        assert isinstance(spec, Composite)
        for group in self.groups:
            shape = (*spec.shape, group.n_agents, group.action.vector_dim)
            key: Key = group.keys.last_action
            spec[key] = Unbounded(torch.Size(shape), device=spec.device)
        return spec
