"""Networks, actors, critics, mixers and channels between agents, as TensorDict modules.

``networks`` reads inputs and computes; ``communication`` lets agents talk; ``actors``, ``critics`` and ``mixers`` are
built on them; ``normalization`` standardizes observations and scales rewards by running statistics;
``export`` writes trained actors to files.
"""

from ctde_kit.modules.actors.action_predictors import ActionPredictors
from ctde_kit.modules.actors.deterministic_actor import MultiAgentDeterministicActor
from ctde_kit.modules.actors.distributions import MaskedCategorical, MaskedMultiCategorical, TanhNormal
from ctde_kit.modules.actors.epsilon_floor import EpsilonFloor
from ctde_kit.modules.actors.foreign_parts import as_action_value_critic, as_deterministic_actor, as_q_actor
from ctde_kit.modules.actors.frozen_actor import FrozenActor
from ctde_kit.modules.actors.greedy_chase import GreedyChase
from ctde_kit.modules.actors.inferred_policies import InferredPolicies
from ctde_kit.modules.actors.learned_scale import LearnedScale
from ctde_kit.modules.actors.noise import GaussianNoise, GumbelNoise, OrnsteinUhlenbeckNoise
from ctde_kit.modules.actors.q_actor import MultiAgentQActor
from ctde_kit.modules.actors.random_actor import RandomActor
from ctde_kit.modules.actors.stochastic_actor import MultiAgentActor
from ctde_kit.modules.actors.sub_policy_draw import SubPolicyDraw
from ctde_kit.modules.actors.team_latent import TeamLatent
from ctde_kit.modules.actors.team_policy import TeamPolicy
from ctde_kit.modules.actors.zero_actor import ZeroActor
from ctde_kit.modules.communication.bicnet import BidirectionalRNN, MultiAgentBiCNet
from ctde_kit.modules.communication.channel_network import MultiAgentChannelNetwork
from ctde_kit.modules.communication.commnet import MeanMessages, MultiAgentCommNet
from ctde_kit.modules.communication.tarmac import MultiAgentTarMAC, TargetedMessages
from ctde_kit.modules.communication.team_channel import TeamChannel
from ctde_kit.modules.critics.action_value_critic import ActionValueCritic, action_value_critic
from ctde_kit.modules.critics.attention_critic import AttentionCritic
from ctde_kit.modules.critics.counterfactual_critic import CounterfactualCritic, counterfactual_critic
from ctde_kit.modules.critics.random_order_critic import RandomOrderCritic
from ctde_kit.modules.critics.value_critic import value_critic
from ctde_kit.modules.critics.value_norm import ValueNorm
from ctde_kit.modules.mixers.feed_forward_mixer import FeedForwardMixer
from ctde_kit.modules.mixers.mixing import mixer_state
from ctde_kit.modules.mixers.qmixer import QMixer
from ctde_kit.modules.mixers.qplex_mixer import QPLEXMixer
from ctde_kit.modules.mixers.vdn_mixer import VDNMixer
from ctde_kit.modules.networks.agent_network import AgentNetwork
from ctde_kit.modules.networks.gru import MultiAgentGRU
from ctde_kit.modules.networks.inputs import Input, agent_state, global_state, own_observation, team_observation
from ctde_kit.modules.networks.mlp import MultiAgentMLP
from ctde_kit.modules.networks.sub_policies import SubPolicies
from ctde_kit.modules.normalization.observation_norm import ObservationNorm
from ctde_kit.modules.normalization.reward_norm import RewardNorm
from ctde_kit.modules.normalization.running_moments import RunningMoments

__all__ = [
    "ActionPredictors",
    "ActionValueCritic",
    "AgentNetwork",
    "AttentionCritic",
    "BidirectionalRNN",
    "CounterfactualCritic",
    "EpsilonFloor",
    "FeedForwardMixer",
    "FrozenActor",
    "GaussianNoise",
    "GreedyChase",
    "GumbelNoise",
    "InferredPolicies",
    "Input",
    "LearnedScale",
    "MaskedCategorical",
    "MaskedMultiCategorical",
    "MeanMessages",
    "MultiAgentActor",
    "MultiAgentBiCNet",
    "MultiAgentChannelNetwork",
    "MultiAgentCommNet",
    "MultiAgentDeterministicActor",
    "MultiAgentGRU",
    "MultiAgentMLP",
    "MultiAgentQActor",
    "MultiAgentTarMAC",
    "ObservationNorm",
    "OrnsteinUhlenbeckNoise",
    "QMixer",
    "QPLEXMixer",
    "RandomActor",
    "RandomOrderCritic",
    "RewardNorm",
    "RunningMoments",
    "SubPolicies",
    "SubPolicyDraw",
    "TanhNormal",
    "TargetedMessages",
    "TeamChannel",
    "TeamLatent",
    "TeamPolicy",
    "VDNMixer",
    "ValueNorm",
    "ZeroActor",
    "action_value_critic",
    "agent_state",
    "as_action_value_critic",
    "as_deterministic_actor",
    "as_q_actor",
    "counterfactual_critic",
    "global_state",
    "mixer_state",
    "own_observation",
    "team_observation",
    "value_critic",
]
