"""The critics of a run that attend to agents."""

from __future__ import annotations

from ctde_kit.modules import AttentionCritic
from ctde_kit.protocols import HoldsLosses
from ctde_kit.training import Parts


def attention_critics(parts: Parts) -> dict[str, AttentionCritic]:
    """The critics of a run that attend to agents, by group, without their target networks."""
    if not isinstance(parts.update, HoldsLosses):
        return {}
    attending = [part for part in parts.update.losses.modules() if isinstance(part, AttentionCritic)]
    return {critic.group.name: critic for critic in attending if any(p.requires_grad for p in critic.parameters())}
