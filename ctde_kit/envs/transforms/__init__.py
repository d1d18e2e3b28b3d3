"""TorchRL transforms that add observations: agent-specific states and last actions."""

from ctde_kit.envs.transforms.agent_state import AgentState, with_agent_states
from ctde_kit.envs.transforms.last_action import LastAction

__all__ = ["AgentState", "LastAction", "with_agent_states"]
