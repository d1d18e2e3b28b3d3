"""TorchRL transforms that add agent-specific states and last actions, or flatten entries into float vectors."""

from ctde_kit.envs.transforms.agent_state import AgentState, with_agent_states
from ctde_kit.envs.transforms.flat_vectors import FlatVectors, flat_vectors
from ctde_kit.envs.transforms.last_action import LastAction

__all__ = ["AgentState", "FlatVectors", "LastAction", "flat_vectors", "with_agent_states"]
