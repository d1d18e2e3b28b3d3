"""The policies of all groups as one TensorDict module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase, TensorDictSequential

from ctde_kit.errors import UserError
from ctde_kit.keys import LATENT
from ctde_kit.modules.actors.team_latent import TeamLatent
from ctde_kit.protocols import GroupActor


class TeamPolicy(TensorDictSequential):
    """The policies of all groups, one after the other, as one TensorDict module.

    Reads and writes what they read and write, such as ``(group, "observation")`` ``[*B, n_agents, F]`` and
    ``(group, "action")`` ``[*B, n_agents, ...]`` of every group.

    A group's policy may learn (``MultiAgentActor``, ``MultiAgentQActor``), be frozen (``FrozenActor``) or be scripted
    (``RandomActor``, ``GreedyChase``, your own class). Only those in ``learners`` belong in losses and optimizers.

    Args:
        actors: the policy of each group, in the env's order.
        latent: draws what all groups share while training, before they act; ``None``: nothing.

    >>> from ctde_kit.envs.vmas import VmasEnv
    >>> from ctde_kit.modules import GreedyChase, MultiAgentActor, MultiAgentMLP, TeamPolicy, own_observation
    >>> from ctde_kit.specs import TeamSpec
    >>> env = VmasEnv("simple_tag", num_envs=4)
    >>> team = TeamSpec.from_env(env)
    >>> prey = MultiAgentActor(team["agent"], own_observation(team["agent"]), MultiAgentMLP(14, 4, n_agents=1))
    >>> policy = TeamPolicy({"adversary": GreedyChase(team["adversary"]), "agent": prey})
    >>> list(policy.learners)
    ['agent']
    """

    def __init__(self, actors: Mapping[str, GroupActor], latent: TeamLatent | None = None):
        super().__init__([*actors.values()])
        self.groups, self.latent = list(actors), latent
        if latent is not None:  # it draws what the actors read
            read: Any = [key for key in self.in_keys if key != LATENT]
            written: Any = [LATENT, *self.out_keys]
            self.in_keys, self.out_keys = read, written

    def forward(self, tensordict: TensorDictBase, *args: Any, **kwargs: Any) -> TensorDictBase:
        if self.latent is not None and isinstance(tensordict, TensorDictBase):  # tensors by keyword are execution's
            tensordict = self.latent(tensordict)
        return super().forward(tensordict, *args, **kwargs)

    @property
    def actors(self) -> dict[str, GroupActor]:
        modules: Any = self.module  # a ModuleList, which does not say that it holds `GroupActor`s
        return dict(zip(self.groups, modules, strict=True))

    @property
    def learners(self) -> dict[str, GroupActor]:
        """The policies that learn: those with a parameter that requires a gradient."""
        return {
            group: actor
            for group, actor in self.actors.items()
            if any(parameter.requires_grad for parameter in actor.parameters())
        }

    @property
    def decentralized(self) -> bool:
        """Whether every agent needs only its own data to act."""
        return all(actor.decentralized for actor in self.actors.values())

    def for_agent(self, group: str, agent: int) -> TensorDictModuleBase:
        """The policy of one agent of one group.

        Raises:
            UserError: where there is no such group.
        """
        if group not in self.groups:
            raise UserError(f"group={group!r}: there is no such group; expected one of {', '.join(self.groups)}")
        return self.actors[group].for_agent(agent)
