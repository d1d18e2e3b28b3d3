"""A scripted policy for the predators of tag games."""

from __future__ import annotations

from itertools import product

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor

from ctde_kit.errors import UserError
from ctde_kit.modules.networks.inputs import entry
from ctde_kit.specs import GroupSpec, one_hot

# The push along x and y of each action in MPE's particle games: nothing, left, right, down, up.
MPE_PUSHES = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
# The same for VMAS: each choice along x with each along y, out of nothing, backwards, forwards.
VMAS_PUSHES = tuple(product((0, -1, 1), repeat=2))
AXES = 2  # x and y


class GreedyChase(TensorDictModuleBase):
    """A scripted policy: each agent of the group accelerates straight toward the prey that is nearest to it.

    Reads ``(group, "observation")`` ``[*B, n_agents, F]`` of a predator of ``simple_tag``, VMAS's or MPE2's: its
    velocity and position, then the relative positions of ``n_landmarks`` obstacles, of the other predators, and of the
    prey, then the prey's velocities. Writes ``(group, "action")``: the largest continuous forces, VMAS's two or MPE2's
    five; or the discrete action whose push points most nearly toward the prey. It ignores the exploration type. It has
    no parameters, so it is never trained.

    Args:
        group: the predators' spec.
        n_prey: how many prey are observed.
        n_landmarks: how many obstacles are observed.

    Raises:
        UserError: where observations or actions are not those of a predator of ``simple_tag``.

    >>> from ctde_kit.envs.vmas import VmasEnv
    >>> from ctde_kit.modules import GreedyChase
    >>> from ctde_kit.specs import TeamSpec
    >>> env = VmasEnv("simple_tag", num_envs=4)
    >>> chase = GreedyChase(TeamSpec.from_env(env)["adversary"])
    >>> chase(env.reset())["adversary", "action"].abs().amax(-1)[0]
    tensor([1., 1., 1.])
    """

    pushes: Tensor
    in_keys: list[NestedKey]
    out_keys: list[NestedKey]

    def __init__(self, group: GroupSpec, n_prey: int = 1, n_landmarks: int = 2):
        super().__init__()
        self.group = group
        self.first = AXES * (2 + n_landmarks + group.n_agents - 1)
        self.n_prey = n_prey
        expected = self.first + 2 * AXES * n_prey
        if group.observation_dim != expected:
            raise UserError(
                f"GreedyChase: expected the {expected} features of a predator of simple_tag (n_prey={n_prey}, "
                f"n_landmarks={n_landmarks}), found {group.observation_dim} in group {group.name!r}; choose the "
                "predators' group, or set n_landmarks"
            )
        self.register_buffer("pushes", torch.tensor(_pushes(group), dtype=torch.float32), persistent=False)
        self.in_keys, self.out_keys = [group.keys.observation], [group.keys.action]

    @property
    def decentralized(self) -> bool:
        return True

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        observation = entry(tensordict, self.group.keys.observation)
        prey = observation[..., self.first : self.first + AXES * self.n_prey].unflatten(-1, (self.n_prey, AXES))
        nearest = prey.square().sum(-1).argmin(-1)
        toward = prey.gather(-2, nearest[..., None, None].expand(*nearest.shape, 1, AXES)).squeeze(-2)
        return tensordict.set(self.group.keys.action, self._action(toward))

    def _action(self, toward: Tensor) -> Tensor:
        action = self.group.action
        if not action.discrete:
            direction = toward / toward.abs().amax(-1, keepdim=True).clamp(min=1e-8)
            forces = direction @ self.pushes.T
            return forces if action.sizes[0] == AXES else forces.clamp(min=0)
        index = (toward @ self.pushes.T).argmax(-1)
        return one_hot(index, action.sizes[0]).long() if action.kind == "one_hot" else index

    def for_agent(self, agent: int) -> TensorDictModuleBase:
        """The policy of one agent alone: it reads and writes entries without the agent axis.

        Raises:
            UserError: for an index that the group lacks.
        """
        self.group.check_agent(agent)
        return self  # nothing in it depends on the agent axis


def _pushes(group: GroupSpec) -> tuple[tuple[int, ...], ...]:
    action = group.action
    size = action.sizes[0]
    known = {5: MPE_PUSHES, 9: VMAS_PUSHES} if action.discrete else {5: MPE_PUSHES, AXES: ((1, 0), (0, 1))}
    if action.kind == "multi_discrete" or size not in known:
        raise UserError(
            f"GreedyChase: group {group.name!r} has {action.kind} actions of size {size}: expected one of "
            f"{sorted(known)}, those of simple_tag; use another policy"
        )
    return known[size]
