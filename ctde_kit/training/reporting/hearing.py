"""A record of how much each agent's messages move the others over an episode, for channels without weights."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from ctde_kit.capability import Capability
from ctde_kit.specs import TeamSpec
from ctde_kit.training.reporting.attention_plot import agent_labels
from ctde_kit.training.reporting.listening import WeightedChannel


@runtime_checkable
class TalksThroughChannel(Capability, Protocol):
    """A network whose agents talk, such as CommNet's or BiCNet's."""

    @property
    def channel(self) -> nn.Module:
        """Maps encodings ``[*B, N, H]`` and a mask ``[*B, N]`` of living agents to what each agent has heard."""
        ...


class HearingRecord:
    """Records at every step how much what an agent hears would change if another agent were silent.

    It is the norm of the change in the channel's output, as a share of the episode's largest. Where a channel has
    weights, as TarMAC's has, ``ListeningRecord`` shows them.

    Args:
        policy: of the team, with one channel in it: ``unweighted_channels(policy)``.
        team: all groups; N is the number of their agents, in the order of the groups.
        env: which env of the batch.

    >>> import ctde_kit as ck
    >>> from ctde_kit.training import record_episode
    >>> from ctde_kit.training.reporting import HearingRecord
    >>> env = ck.VmasEnv("navigation", num_envs=1, max_steps=5, scenario_kwargs={"n_agents": 3})
    >>> team = ck.TeamSpec.from_env(env)
    >>> inputs = ck.own_observation(team["agents"])
    >>> network = ck.modules.MultiAgentCommNet(inputs.features, 4, 3, hidden_size=8)
    >>> actor = ck.MultiAgentActor(team["agents"], inputs, network)
    >>> record = HearingRecord(actor, team)
    >>> _ = record_episode(env, actor, None, seed=0, watch=record)
    >>> record.weights["agents"].shape
    torch.Size([5, 3, 3])
    """

    title = "who is moved by whom"

    def __init__(self, policy: nn.Module, team: TeamSpec, env: int = 0):
        self.team, self.env = team, env
        self._said: tuple[Tensor | None, ...] = ()
        self._steps: list[Tensor] = []
        (self._channel,) = unweighted_channels(policy)
        self._channel.register_forward_pre_hook(self._note)

    def _note(self, channel: nn.Module, given: tuple[Tensor | None, ...]) -> None:
        self._said = given

    @torch.no_grad()
    def __call__(self, tensordict: TensorDictBase) -> None:
        """Record one env of a step ``[n_envs]``, in which the policy has just acted."""
        encoded, *masks = self._said
        assert encoded is not None
        said, alive = encoded[self.env], torch.ones(encoded.shape[-2], dtype=torch.bool, device=encoded.device)
        for mask in masks:
            alive = alive if mask is None else mask[self.env]
        silenced = alive & ~torch.eye(len(alive), dtype=torch.bool, device=alive.device)
        # `forward`, since other records of this channel would take note of a call.
        heard = self._channel.forward(said.unsqueeze(0), alive.unsqueeze(0))
        without = self._channel.forward(said.expand(len(alive), *said.shape), silenced)
        moved = (without - heard).norm(dim=-1).transpose(0, 1).fill_diagonal_(0)
        self._steps.append(moved.cpu())

    @property
    def weights(self) -> dict[str, Tensor]:
        """The recorded shares ``[T, n_agents, N]`` for each group."""
        moved = torch.stack(self._steps)
        shares = moved / moved.max().clamp(min=1e-12)
        groups = list(self.team)
        rows = shares.split([group.n_agents for group in groups], 1)
        return {group.name: part for group, part in zip(groups, rows, strict=True)}

    @property
    def labels(self) -> list[str]:
        """The names of the N agents."""
        return agent_labels(self.team)


def unweighted_channels(policy: nn.Module) -> list[nn.Module]:
    """The channels in ``policy`` through which agents talk without saying whom they listen to."""
    channels = [module.channel for module in policy.modules() if isinstance(module, TalksThroughChannel)]
    return [channel for channel in dict.fromkeys(channels) if not isinstance(channel, WeightedChannel)]
