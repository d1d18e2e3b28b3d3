"""Networks, actors and critics as TensorDict modules."""

from ctde_kit.modules.action_value import ActionValueCritic, action_value_critic
from ctde_kit.modules.actor import MultiAgentActor, SingleAgentActor, TeamPolicy
from ctde_kit.modules.attention import AgentAttention
from ctde_kit.modules.attention_critic import AttentionCritic
from ctde_kit.modules.bicnet import BidirectionalRNN, MultiAgentBiCNet
from ctde_kit.modules.channel import ChannelEncoder
from ctde_kit.modules.commnet import MeanMessages, MultiAgentCommNet
from ctde_kit.modules.critic import ValuePerAgent, value_critic
from ctde_kit.modules.deterministic_actor import MultiAgentDeterministicActor, SingleAgentDeterministicActor
from ctde_kit.modules.distributions import MaskedCategorical, MaskedMultiCategorical, TanhNormal
from ctde_kit.modules.frozen_actor import FrozenActor
from ctde_kit.modules.greedy_chase import GreedyChase
from ctde_kit.modules.gru import MultiAgentGRU
from ctde_kit.modules.inferred_policies import InferredPolicies
from ctde_kit.modules.inputs import Input, agent_state, global_state, own_observation, team_observation
from ctde_kit.modules.linear import AgentLinear
from ctde_kit.modules.mixing import mixer_state
from ctde_kit.modules.mlp import MultiAgentMLP
from ctde_kit.modules.network import AgentNetwork
from ctde_kit.modules.noise import GaussianNoise, GumbelNoise, OrnsteinUhlenbeckNoise
from ctde_kit.modules.q_actor import MultiAgentQActor, SingleAgentQActor
from ctde_kit.modules.qmixer import QMixer
from ctde_kit.modules.qplex import QPLEXMixer
from ctde_kit.modules.random_actor import RandomActor
from ctde_kit.modules.random_order import RandomOrderCritic
from ctde_kit.modules.scale import LearnedScale
from ctde_kit.modules.sharing import ShareParams
from ctde_kit.modules.sub_policies import SubPolicies, SubPolicyDraw
from ctde_kit.modules.tarmac import MultiAgentTarMAC, TargetedMessages
from ctde_kit.modules.team_channel import GroupNetwork, TeamChannel, TeamInput
from ctde_kit.modules.value_norm import ValueNorm
from ctde_kit.modules.vdn import VDNMixer

__all__ = [
    "ActionValueCritic",
    "AgentAttention",
    "AgentLinear",
    "AgentNetwork",
    "AttentionCritic",
    "BidirectionalRNN",
    "ChannelEncoder",
    "FrozenActor",
    "GaussianNoise",
    "GreedyChase",
    "GroupNetwork",
    "GumbelNoise",
    "InferredPolicies",
    "Input",
    "LearnedScale",
    "MaskedCategorical",
    "MaskedMultiCategorical",
    "MeanMessages",
    "MultiAgentActor",
    "MultiAgentBiCNet",
    "MultiAgentCommNet",
    "MultiAgentDeterministicActor",
    "MultiAgentGRU",
    "MultiAgentMLP",
    "MultiAgentQActor",
    "MultiAgentTarMAC",
    "OrnsteinUhlenbeckNoise",
    "QMixer",
    "QPLEXMixer",
    "RandomActor",
    "RandomOrderCritic",
    "ShareParams",
    "SingleAgentActor",
    "SingleAgentDeterministicActor",
    "SingleAgentQActor",
    "SubPolicies",
    "SubPolicyDraw",
    "TanhNormal",
    "TargetedMessages",
    "TeamChannel",
    "TeamInput",
    "TeamPolicy",
    "VDNMixer",
    "ValueNorm",
    "ValuePerAgent",
    "action_value_critic",
    "agent_state",
    "global_state",
    "mixer_state",
    "own_observation",
    "team_observation",
    "value_critic",
]
