"""Cooperative matrix games, vectorized."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Categorical, Unbounded
from torchrl.envs import EnvBase

from ctde_kit.envs.games.specs_by_group import done_specs, specs_by_group
from ctde_kit.errors import UserError
from ctde_kit.keys import DONE, STATE, TERMINATED, TRUNCATED, GroupKeys
from ctde_kit.protocols import StateDict
from ctde_kit.specs import one_hot

Nested: TypeAlias = "float | Sequence[Nested]"
Table: TypeAlias = "Tensor | Sequence[Nested]"
"""A tensor, or lists of lists of numbers."""
END = -1


class MatrixGameEnv(EnvBase):
    """A deterministic matrix game in which all agents choose at once and all get the payoff of their joint action.

    A game of one step has one table of payoffs. A game of several steps has one table per state and says which state
    follows, so that a choice decides which table is played next.

    Observation ``[n_envs, n_agents, n_states]`` and the root ``state`` ``[n_envs, n_states]``: the one-hot state of the
    game, zeros once it is over. Action: int ``[n_envs, n_agents]``. Reward ``[n_envs, n_agents, 1]``: the payoff, the
    same for all agents. Games end (``terminated``) by themselves.

    Args:
        num_envs: games in the batch.
        payoff: ``[n_actions, ..., n_actions]`` with one axis per agent; with ``next_state``, one such table per state,
            ``[n_states, n_actions, ..., n_actions]``. Games start in state 0.
        next_state: of ``payoff``'s shape: the state that follows, a later one, or -1 where the game ends.
        device: where the env lives.

    Raises:
        UserError: for tables of unequal sides, and for a next state that is not a later one.

    >>> import torch
    >>> from ctde_kit.envs.games import MatrixGameEnv
    >>> env = MatrixGameEnv(3, [[11, -30, 0], [-30, 7, 0], [0, 6, 5]])
    >>> action = torch.tensor([[0, 0], [0, 1], [2, 1]])
    >>> env.step(env.reset().set(("agents", "action"), action))["next", "agents", "reward"][:, 0].flatten()
    tensor([ 11., -30.,   6.])
    """

    def __init__(
        self,
        num_envs: int,
        payoff: Table,
        next_state: Table | None = None,
        *,
        device: torch.device | str = "cpu",
    ):
        tables = _tensor("payoff", payoff, torch.float32)
        follows = torch.full(tables.shape, END) if next_state is None else _tensor("next_state", next_state, torch.long)
        if next_state is None:
            tables, follows = tables.unsqueeze(0), follows.unsqueeze(0)
        _check(tables, follows)
        super().__init__(device=torch.device(device), batch_size=torch.Size([num_envs]))
        self.payoff, self.next_state = tables.to(self.device), follows.to(self.device)
        self.n_states, self.n_actions, self.n_agents = len(tables), tables.shape[1], tables.ndim - 1
        self.group_map = {GroupKeys().group: [f"agent_{i}" for i in range(self.n_agents)]}
        self.stage = torch.zeros(num_envs, dtype=torch.long, device=self.device)
        self._make_specs()

    def _make_specs(self) -> None:
        group, batch = GroupKeys().group, self.batch_size
        agents = torch.Size((*batch, self.n_agents))
        observations = specs_by_group("observation", {group: Unbounded(torch.Size((*agents, self.n_states)))})
        observations[STATE] = Unbounded(torch.Size((*batch, self.n_states)))
        self.observation_spec = observations
        self.action_spec = specs_by_group("action", {group: Categorical(self.n_actions, shape=agents)})
        self.reward_spec = specs_by_group("reward", {group: Unbounded(torch.Size((*agents, 1)))})
        self.done_spec = done_specs(batch[0])
        self.to(self.device)

    def _set_seed(self, seed: int | None) -> None:
        """Does nothing, since the game is not random."""

    def _reset(self, tensordict: TensorDictBase | None = None, **_: object) -> TensorDictBase:
        mask = None if tensordict is None else tensordict.get("_reset", None)
        self.stage = torch.zeros_like(self.stage) if mask is None else self.stage.masked_fill(mask.squeeze(-1), 0)
        return self._output()

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        keys = GroupKeys()
        joint = (self.stage, *tensordict.get(keys.action).unbind(-1))
        payoff = self.payoff[joint]
        self.stage = self.next_state[joint]
        return self._output().set(keys.reward, payoff[:, None, None].expand(-1, self.n_agents, 1).clone())

    def _output(self) -> TensorDict:
        done = (self.stage == END).unsqueeze(-1)
        state = one_hot(self.stage, self.n_states).float()
        observation = state.unsqueeze(1).expand(-1, self.n_agents, -1).clone()
        agents = TensorDict({"observation": observation}, observation.shape[:2], device=self.device)
        flags = {DONE: done, TERMINATED: done.clone(), TRUNCATED: torch.zeros_like(done)}
        return TensorDict({GroupKeys().group: agents, STATE: state, **flags}, self.batch_size, device=self.device)

    def state_dict(self) -> StateDict:
        """The state of each game."""
        return {"stage": self.stage.clone()}

    def load_state_dict(self, state_dict: StateDict) -> None:
        self.stage = state_dict["stage"].to(self.device, copy=True)


def _tensor(name: str, values: Table, dtype: torch.dtype) -> Tensor:
    try:
        return torch.as_tensor(values, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}: expected a table of numbers with sides of one length, found {values}") from error


def _check(tables: Tensor, follows: Tensor) -> None:
    if tables.shape != follows.shape:
        raise UserError(f"next_state: expected payoff's shape {list(tables.shape)}, found {list(follows.shape)}")
    if tables.ndim < 2 or len(set(tables.shape[1:])) > 1:
        raise UserError(f"payoff: expected equally many actions for each agent, found {list(tables.shape[1:])}")
    here = torch.arange(len(tables)).reshape(-1, *[1] * (tables.ndim - 1))
    wrong = (follows != END) & ((follows <= here) | (follows >= len(tables)))
    if wrong.any():
        raise UserError(
            f"next_state: expected {END} or a later one of the {len(tables)} states, found {follows[wrong][0].item()}"
        )
