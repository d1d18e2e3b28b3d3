"""The closed table of what a name in a configuration can build; nothing else is ever built from a file."""

from __future__ import annotations

from collections.abc import Mapping

from ctde_kit.recipes.configs.actors import (
    ActorConfig,
    DeterministicActorConfig,
    QActorConfig,
    StochasticActorConfig,
)
from ctde_kit.recipes.configs.channel_networks import BiCNetNetwork, CommNetNetwork, TarMACNetwork
from ctde_kit.recipes.configs.critics import (
    AttentionCriticConfig,
    CounterfactualCriticConfig,
    CriticConfig,
    ValueCriticConfig,
)
from ctde_kit.recipes.configs.distributed_options import (
    DistributionConfig,
    OneProcess,
    PopulationMember,
    RayDistribution,
)
from ctde_kit.recipes.configs.explorations import (
    ExplorationConfig,
    GaussianExploration,
    GumbelExploration,
    OrnsteinUhlenbeckExploration,
)
from ctde_kit.recipes.configs.information_bounds import (
    MutualInformationConfig,
    NoMutualInformation,
    VariationalInformation,
)
from ctde_kit.recipes.configs.mixers import MixerConfig, NoMixer, QMixerConfig, QPLEXMixerConfig, VDNMixerConfig
from ctde_kit.recipes.configs.networks import GRUNetwork, MLPNetwork, NetworkConfig
from ctde_kit.recipes.configs.opponents import (
    FrozenActorConfig,
    GreedyChaseOpponent,
    HeuristicOpponent,
    OpponentConfig,
    RandomOpponent,
    RunOpponent,
    ZeroOpponent,
)
from ctde_kit.recipes.configs.replays import EpisodeForm, ReplayForm, SequenceForm, TransitionForm
from ctde_kit.recipes.configs.return_forms import NStepReturns, ReturnConfig, TDLambdaReturns
from ctde_kit.recipes.configs.shared_critic import SharedCriticConfig
from ctde_kit.recipes.configs.target_rules import HardTarget, PolyakTarget, TargetConfig
from ctde_kit.recipes.configs.tasks.cue_task import CueTask
from ctde_kit.recipes.configs.tasks.lbf_task import LbfTask
from ctde_kit.recipes.configs.tasks.matrix_task import MatrixTask
from ctde_kit.recipes.configs.tasks.pettingzoo_task import PettingZooTask
from ctde_kit.recipes.configs.tasks.recall_task import RecallTask
from ctde_kit.recipes.configs.tasks.smax_task import SmaxTask
from ctde_kit.recipes.configs.tasks.task import TaskConfig
from ctde_kit.recipes.configs.tasks.torchrl_task import TorchRLTask
from ctde_kit.recipes.configs.tasks.vmas_task import VmasTask
from ctde_kit.recipes.configs.weightings import CentralWeighting, NoWeighting, OptimisticWeighting, WeightingConfig

# By the type that an option is declared with, the classes it can be and the names (`kind`) they have in files.
CHOICES: Mapping[type, Mapping[str, type]] = {
    TaskConfig: {
        "vmas": VmasTask,
        "pettingzoo": PettingZooTask,
        "lbf": LbfTask,
        "recall": RecallTask,
        "matrix": MatrixTask,
        "cue": CueTask,
        "torchrl": TorchRLTask,
        "smax": SmaxTask,
    },
    NetworkConfig: {
        "mlp": MLPNetwork,
        "gru": GRUNetwork,
        "bicnet": BiCNetNetwork,
        "commnet": CommNetNetwork,
        "tarmac": TarMACNetwork,
    },
    CriticConfig: {
        "value": ValueCriticConfig,
        "attention": AttentionCriticConfig,
        "counterfactual": CounterfactualCriticConfig,
        "shared": SharedCriticConfig,
    },
    MixerConfig: {"none": NoMixer, "vdn": VDNMixerConfig, "qmix": QMixerConfig, "qplex": QPLEXMixerConfig},
    WeightingConfig: {"none": NoWeighting, "optimistic": OptimisticWeighting, "central": CentralWeighting},
    MutualInformationConfig: {"none": NoMutualInformation, "variational": VariationalInformation},
    DistributionConfig: {"none": OneProcess, "ray": RayDistribution, "member": PopulationMember},
    ReplayForm: {"transitions": TransitionForm, "sequences": SequenceForm, "episodes": EpisodeForm},
    ReturnConfig: {"n_step": NStepReturns, "td_lambda": TDLambdaReturns},
    TargetConfig: {"polyak": PolyakTarget, "hard": HardTarget},
    ExplorationConfig: {
        "gaussian": GaussianExploration,
        "ornstein_uhlenbeck": OrnsteinUhlenbeckExploration,
        "gumbel": GumbelExploration,
    },
    OpponentConfig: {
        "frozen": FrozenActorConfig,
        "random": RandomOpponent,
        "zero": ZeroOpponent,
        "heuristic": HeuristicOpponent,
        "greedy_chase": GreedyChaseOpponent,
        "run": RunOpponent,
    },
    ActorConfig: {
        "stochastic": StochasticActorConfig,
        "q": QActorConfig,
        "deterministic": DeterministicActorConfig,
        "frozen": FrozenActorConfig,
        "random": RandomOpponent,
        "zero": ZeroOpponent,
        "heuristic": HeuristicOpponent,
        "greedy_chase": GreedyChaseOpponent,
    },
}
