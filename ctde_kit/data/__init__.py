"""Buffers of experience: one on-policy batch, or a replay of transitions, sequences or episodes."""

from ctde_kit.data.episodes import Episodes
from ctde_kit.data.on_policy import OnPolicyBuffer
from ctde_kit.data.priority import Prioritized, PrioritySampler
from ctde_kit.data.replay import Replay
from ctde_kit.data.sequences import Sequences
from ctde_kit.data.transitions import Transitions

__all__ = ["Episodes", "OnPolicyBuffer", "Prioritized", "PrioritySampler", "Replay", "Sequences", "Transitions"]
