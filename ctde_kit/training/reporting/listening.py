"""A record of whom agents listen to over an episode, for channels with weights."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from ctde_kit.specs import TeamSpec
from ctde_kit.training.reporting.attention_plot import agent_labels


@runtime_checkable
class WeightedChannel(Protocol):
    """A channel whose agents weigh what others say, such as TarMAC's ``TargetedMessages``."""

    def first_weights(self, hidden: Tensor, mask: Tensor | None = None, /) -> Tensor:
        """``[*B, n, n]``: one row per listener."""
        ...


class ListeningRecord:
    """Records at every step how much each agent of the only group listens to each other agent.

    Args:
        policy: of the team, with a weighted channel in it: ``listening_channels(policy)``.
        team: of one group.
        env: which env of the batch.

    >>> import ctde_kit as ck
    >>> from ctde_kit.training import record_episode
    >>> from ctde_kit.training.reporting import ListeningRecord
    >>> env = ck.VmasEnv("navigation", num_envs=1, max_steps=5, scenario_kwargs={"n_agents": 3})
    >>> team = ck.TeamSpec.from_env(env)
    >>> inputs = ck.own_observation(team["agents"])
    >>> network = ck.modules.MultiAgentTarMAC(inputs.features, 4, 3, hidden_size=8)
    >>> actor = ck.MultiAgentActor(team["agents"], inputs, network)
    >>> record = ListeningRecord(actor, team)
    >>> _ = record_episode(env, actor, None, seed=0, watch=record)
    >>> record.weights["agents"].shape
    torch.Size([5, 3, 3])
    """

    title = "who listens to whom"

    def __init__(self, policy: nn.Module, team: TeamSpec, env: int = 0):
        self.team, self.env = team, env
        (self._group,) = team
        self._heard: list[tuple[Tensor, ...]] = []
        self._steps: list[Tensor] = []
        self._channel = listening_channels(policy)[0]
        self._channel.register_forward_pre_hook(lambda _, given: self._heard.append(given))

    @torch.no_grad()
    def __call__(self, tensordict: TensorDictBase) -> None:
        """Record one env of a step ``[n_envs]``, in which the policy has just acted."""
        assert isinstance(self._channel, WeightedChannel)
        weights = self._channel.first_weights(*self._heard[-1])
        self._heard.clear()
        self._steps.append(weights[self.env].cpu())

    @property
    def weights(self) -> dict[str, Tensor]:
        """The recorded weights ``[T, n_agents, n_agents]``."""
        return {self._group.name: torch.stack(self._steps)}

    @property
    def labels(self) -> list[str]:
        """The names of the agents."""
        return agent_labels(self.team)


def listening_channels(policy: nn.Module) -> list[nn.Module]:
    """The channels in ``policy`` whose agents weigh what others say."""
    return [module for module in policy.modules() if isinstance(module, WeightedChannel)]
