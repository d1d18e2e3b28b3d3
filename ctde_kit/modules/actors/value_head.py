"""A network that gives an agent's policy and its value: how its outputs are told apart."""

from __future__ import annotations

from torch import Tensor, nn

from ctde_kit.modules.networks.agent_network import Split, SplitPerAgent


class ValueHead(nn.Module):
    """Splits outputs ``[*B, n_agents, G + 1]`` into a policy's G and the agent's value ``[*B, n_agents, 1]``, the last.

    Args:
        policy: splits the G outputs further, such as ``LearnedScale``; ``None``: they are one entry.

    >>> import torch
    >>> from ctde_kit.modules.actors.value_head import ValueHead
    >>> logits, value = ValueHead()(torch.arange(8.0).reshape(2, 4))
    >>> logits.shape, value.flatten()
    (torch.Size([2, 3]), tensor([3., 7.]))
    """

    def __init__(self, policy: Split | None = None):
        super().__init__()
        self.policy = policy

    def forward(self, outputs: Tensor) -> tuple[Tensor, ...]:
        of_policy, value = outputs[..., :-1], outputs[..., -1:]
        parts = (of_policy,) if self.policy is None else self.policy(of_policy)
        return (*parts, value)

    def for_agent(self, agent: int) -> ValueHead:
        """The split of one agent, on the same storage."""
        return ValueHead(self.policy.for_agent(agent) if isinstance(self.policy, SplitPerAgent) else self.policy)
