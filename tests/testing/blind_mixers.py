"""A mixer of a user's and a learner's checkpoint, and how users break such ones; written before the doctor was read."""

from __future__ import annotations

from typing import Any

import torch
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torch.nn import functional


class HyperMixer(nn.Module):
    """QMIX's mixer: ``[*B, n_agents, 1]`` and the state ``[*B, S]`` to ``[*B, 1]``, weights from hypernetworks."""

    def __init__(self, n_agents: int, state_dim: int, hidden: int = 16):
        super().__init__()
        self.n_agents, self.hidden = n_agents, hidden
        self.weight_1, self.bias_1 = nn.Linear(state_dim, n_agents * hidden), nn.Linear(state_dim, hidden)
        self.weight_2 = nn.Linear(state_dim, hidden)
        self.bias_2 = nn.Sequential(nn.Linear(state_dim, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, chosen_action_value: Tensor, state: Tensor) -> Tensor:
        values = chosen_action_value.transpose(-2, -1)
        weight = self.weight_1(state).abs().unflatten(-1, (self.n_agents, self.hidden))
        hidden = self.activation(values @ weight + self.bias_1(state).unsqueeze(-2))
        return (hidden @ self.weight_2(state).abs().unsqueeze(-1)).squeeze(-1) + self.bias_2(state)

    def activation(self, values: Tensor) -> Tensor:
        return functional.elu(values)


class SmoothHyperMixer(HyperMixer):
    """Broken: GELU in the place of ELU. It falls before it rises, so weights above zero do not make it monotone."""

    def activation(self, values: Tensor) -> Tensor:
        return functional.gelu(values)


def mixer_module(mixer: nn.Module) -> TensorDictModule:
    return TensorDictModule(mixer, [("agents", "chosen_action_value"), "state"], ["chosen_action_value"])


class Learner:
    """An actor as it learns, compiled, with its optimizer, and what a checkpoint holds of them."""

    def __init__(self, actor: nn.Module):
        self.actor = actor
        self.compiled = torch.compile(actor, backend="eager")
        self.optimizer = torch.optim.Adam(actor.parameters(), lr=1e-3)

    def state_dict(self) -> dict[str, Any]:
        return {"actor": self.actor.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.actor.load_state_dict(state["actor"])
        self.optimizer.load_state_dict(state["optimizer"])


class ForgivingLearner(Learner):
    """Broken: saves the compiled module, whose names begin with ``_orig_mod.``, and loads with ``strict=False``.

    No name fits, nothing is loaded, nobody says so.
    """

    def state_dict(self) -> dict[str, Any]:
        return {"actor": self.compiled.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.actor.load_state_dict(state["actor"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
