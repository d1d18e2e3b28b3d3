"""The critics of a run that attend to agents."""

from __future__ import annotations

from typing import Any

from ctde_kit.modules import AttentionCritic
from ctde_kit.training import Parts


def attention_critics(parts: Parts) -> dict[str, AttentionCritic]:
    """By group, the critics of a run that attend; their target networks are left out."""
    losses: Any = getattr(parts.update, "losses", None)
    attending = [] if losses is None else [part for part in losses.modules() if isinstance(part, AttentionCritic)]
    return {critic.group.name: critic for critic in attending if any(p.requires_grad for p in critic.parameters())}
