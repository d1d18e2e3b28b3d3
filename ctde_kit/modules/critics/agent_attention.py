"""Attention of agents over agents."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ctde_kit.errors import UserError


class AgentAttention(nn.Module):
    """Multi-head attention of each agent over the others (Iqbal & Sha 2019, eqs. 5 and 6).

    ``attended_i = sum over j != i of weight_ij * leaky_relu(V e_j)``; ``weight_ij`` is the softmax over ``j`` of
    ``(W_q e_i) . (W_k e_j) / sqrt(d)``; each head has its own matrices. Nobody attends to dead agents. An agent attends
    to itself if no other is alive, so that its weights still sum to 1. A dead agent's weights are over the living; they
    are zero if there are none.

    Args:
        embed_dim: E, features of one agent.
        n_heads: a divisor of E.

    Raises:
        UserError: for a number of heads that does not divide E.

    >>> attention = AgentAttention(8, n_heads=2)
    >>> e = torch.randn(5, 3, 8)
    >>> attended, weight = attention(e, e)
    >>> attended.shape, weight.shape
    (torch.Size([5, 3, 8]), torch.Size([5, 2, 3, 3]))
    """

    def __init__(self, embed_dim: int, n_heads: int):
        super().__init__()
        if n_heads < 1 or embed_dim % n_heads:
            raise UserError(f"AgentAttention: n_heads={n_heads}, expected a divisor of embed_dim={embed_dim}")
        self.n_heads = n_heads
        self.query, self.key, self.value = (nn.Linear(embed_dim, embed_dim, bias=False) for _ in range(3))

    def forward(self, own: Tensor, team: Tensor, alive: Tensor | None = None, first: int = 0) -> tuple[Tensor, Tensor]:
        """The attended features ``[*B, n, E]``, and the weights ``[*B, n_heads, n, N]``.

        Args:
            own: embeddings of the agents that attend, ``[*B, n, E]``; they may differ from those in ``team``.
            team: embeddings of all agents, ``[*B, N, E]``.
            alive: bool ``[*B, N]``; ``None``: all are alive.
            first: the index in ``team`` of the first agent that attends.
        """
        n_agents, n_team = own.shape[-2], team.shape[-2]
        row, column = torch.arange(n_agents, device=own.device), torch.arange(n_team, device=own.device)
        is_own = column == (first + row).unsqueeze(-1)
        allowed = _allowed(is_own, alive)
        weight = self._weight(own, team, allowed)
        if alive is not None:
            # Where an agent may attend to nobody, the softmax is not zero.
            weight = weight.masked_fill(~allowed.unsqueeze(-3), 0)
        values = self._heads(nn.functional.leaky_relu(self.value(team)))
        if alive is None and n_team > 1:
            return self._joined(weight @ values), weight
        own_values = self._heads(nn.functional.leaky_relu(self.value(own)))
        attended_self = (weight * is_own).sum(-1, keepdim=True) * own_values
        return self._joined(weight.masked_fill(is_own, 0) @ values + attended_self), weight

    def _weight(self, own: Tensor, team: Tensor, allowed: Tensor) -> Tensor:
        queries, keys = self._heads(self.query(own)), self._heads(self.key(team))
        lowest = torch.finfo(own.dtype).min
        bias = torch.zeros_like(allowed, dtype=own.dtype).masked_fill(~allowed, lowest).unsqueeze(-3)
        shape = (*queries.shape[:-1], keys.shape[-2])
        scores = torch.baddbmm(
            bias.expand(shape).reshape(-1, *shape[-2:]),
            queries.reshape(-1, *queries.shape[-2:]),
            keys.reshape(-1, *keys.shape[-2:]).transpose(1, 2),
            alpha=queries.shape[-1] ** -0.5,
        )
        return scores.softmax(-1).reshape(shape)

    def _heads(self, x: Tensor) -> Tensor:
        """``[*B, n, E]`` as ``[*B, n_heads, n, E / n_heads]``."""
        return x.unflatten(-1, (self.n_heads, -1)).transpose(-2, -3)

    @staticmethod
    def _joined(x: Tensor) -> Tensor:
        return x.transpose(-2, -3).flatten(-2)


def _allowed(is_own: Tensor, alive: Tensor | None) -> Tensor:
    """The agents to which each agent may attend, bool ``[*B, n, N]``."""
    if alive is None:
        return ~is_own if is_own.shape[-1] > 1 else is_own
    living = alive.unsqueeze(-2)
    others = living & ~is_own
    return others | (is_own & living & ~others.any(-1, keepdim=True))
