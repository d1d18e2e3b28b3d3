"""Recipes: the kit's parts wired into algorithms, and their command lines; names are imported when first used.

``MAPPOConfig(task=VmasTask("vmas/navigation")).build()`` gives a recipe's parts, ``iterate`` trains them, and ``load``
gives back what a command line's run left behind.
"""

from typing import TYPE_CHECKING

from ctde_kit.lazy import lazy_face

if TYPE_CHECKING:
    from ctde_kit.recipes.coma import COMAConfig
    from ctde_kit.recipes.commands.loading import LoadedRun, load
    from ctde_kit.recipes.commands.named_tasks import named_task
    from ctde_kit.recipes.commands.population_runs import resume_population, start_population
    from ctde_kit.recipes.commands.running import resume, start
    from ctde_kit.recipes.configs.channel_networks import BiCNetNetwork, CommNetNetwork, TarMACNetwork
    from ctde_kit.recipes.configs.critics import AttentionCriticConfig, CounterfactualCriticConfig, ValueCriticConfig
    from ctde_kit.recipes.configs.distributed_options import OneProcess, RayDistribution
    from ctde_kit.recipes.configs.explorations import (
        GaussianExploration,
        GumbelExploration,
        OrnsteinUhlenbeckExploration,
    )
    from ctde_kit.recipes.configs.information_bounds import NoMutualInformation, VariationalInformation
    from ctde_kit.recipes.configs.loggers import LoggerConfig
    from ctde_kit.recipes.configs.mixers import NoMixer, QMixerConfig, QPLEXMixerConfig, VDNMixerConfig
    from ctde_kit.recipes.configs.networks import GRUNetwork, MLPNetwork
    from ctde_kit.recipes.configs.opponents import (
        GreedyChaseOpponent,
        HeuristicOpponent,
        RandomOpponent,
        RunOpponent,
        ZeroOpponent,
    )
    from ctde_kit.recipes.configs.populations import SyncConfig
    from ctde_kit.recipes.configs.recipe import CheckpointConfig, EvaluationConfig, RecipeConfig
    from ctde_kit.recipes.configs.replays import EpisodeForm, ReplayConfig, SequenceForm, TransitionForm
    from ctde_kit.recipes.configs.return_forms import NStepReturns, TDLambdaReturns
    from ctde_kit.recipes.configs.shared_critic import SharedCriticConfig
    from ctde_kit.recipes.configs.target_rules import HardTarget, PolyakTarget
    from ctde_kit.recipes.configs.tasks.cue_task import CueTask
    from ctde_kit.recipes.configs.tasks.lbf_task import LbfTask
    from ctde_kit.recipes.configs.tasks.matrix_task import MatrixTask
    from ctde_kit.recipes.configs.tasks.pettingzoo_task import PettingZooTask
    from ctde_kit.recipes.configs.tasks.recall_task import RecallTask
    from ctde_kit.recipes.configs.tasks.smax_task import SmaxTask
    from ctde_kit.recipes.configs.tasks.torchrl_task import TorchRLTask
    from ctde_kit.recipes.configs.tasks.vmas_task import VmasTask
    from ctde_kit.recipes.configs.weightings import CentralWeighting, NoWeighting, OptimisticWeighting
    from ctde_kit.recipes.happo import HAPPOConfig
    from ctde_kit.recipes.maddpg import MADDPGConfig
    from ctde_kit.recipes.mappo import MAPPOConfig
    from ctde_kit.recipes.masac import MASACConfig
    from ctde_kit.recipes.pqn import PQNConfig
    from ctde_kit.recipes.qmix import QMIXConfig
    from ctde_kit.recipes.wiring.run_evaluations import evaluation_env
    from ctde_kit.training import iterate

_NAMES = {
    "ctde_kit.recipes.coma": ("COMAConfig",),
    "ctde_kit.recipes.commands.loading": ("LoadedRun", "load"),
    "ctde_kit.recipes.commands.named_tasks": ("named_task",),
    "ctde_kit.recipes.commands.population_runs": ("resume_population", "start_population"),
    "ctde_kit.recipes.commands.running": ("resume", "start"),
    "ctde_kit.recipes.configs.channel_networks": ("BiCNetNetwork", "CommNetNetwork", "TarMACNetwork"),
    "ctde_kit.recipes.configs.critics": (
        "AttentionCriticConfig",
        "CounterfactualCriticConfig",
        "ValueCriticConfig",
    ),
    "ctde_kit.recipes.configs.distributed_options": ("OneProcess", "RayDistribution"),
    "ctde_kit.recipes.configs.explorations": (
        "GaussianExploration",
        "GumbelExploration",
        "OrnsteinUhlenbeckExploration",
    ),
    "ctde_kit.recipes.configs.information_bounds": ("NoMutualInformation", "VariationalInformation"),
    "ctde_kit.recipes.configs.loggers": ("LoggerConfig",),
    "ctde_kit.recipes.configs.mixers": ("NoMixer", "QMixerConfig", "QPLEXMixerConfig", "VDNMixerConfig"),
    "ctde_kit.recipes.configs.networks": ("GRUNetwork", "MLPNetwork"),
    "ctde_kit.recipes.configs.opponents": (
        "GreedyChaseOpponent",
        "HeuristicOpponent",
        "RandomOpponent",
        "RunOpponent",
        "ZeroOpponent",
    ),
    "ctde_kit.recipes.configs.populations": ("SyncConfig",),
    "ctde_kit.recipes.configs.recipe": ("CheckpointConfig", "EvaluationConfig", "RecipeConfig"),
    "ctde_kit.recipes.configs.replays": ("EpisodeForm", "ReplayConfig", "SequenceForm", "TransitionForm"),
    "ctde_kit.recipes.configs.return_forms": ("NStepReturns", "TDLambdaReturns"),
    "ctde_kit.recipes.configs.shared_critic": ("SharedCriticConfig",),
    "ctde_kit.recipes.configs.target_rules": ("HardTarget", "PolyakTarget"),
    "ctde_kit.recipes.configs.tasks.cue_task": ("CueTask",),
    "ctde_kit.recipes.configs.tasks.lbf_task": ("LbfTask",),
    "ctde_kit.recipes.configs.tasks.matrix_task": ("MatrixTask",),
    "ctde_kit.recipes.configs.tasks.pettingzoo_task": ("PettingZooTask",),
    "ctde_kit.recipes.configs.tasks.recall_task": ("RecallTask",),
    "ctde_kit.recipes.configs.tasks.smax_task": ("SmaxTask",),
    "ctde_kit.recipes.configs.tasks.torchrl_task": ("TorchRLTask",),
    "ctde_kit.recipes.configs.tasks.vmas_task": ("VmasTask",),
    "ctde_kit.recipes.configs.weightings": ("CentralWeighting", "NoWeighting", "OptimisticWeighting"),
    "ctde_kit.recipes.happo": ("HAPPOConfig",),
    "ctde_kit.recipes.maddpg": ("MADDPGConfig",),
    "ctde_kit.recipes.mappo": ("MAPPOConfig",),
    "ctde_kit.recipes.masac": ("MASACConfig",),
    "ctde_kit.recipes.pqn": ("PQNConfig",),
    "ctde_kit.recipes.qmix": ("QMIXConfig",),
    "ctde_kit.training": ("iterate",),
    "ctde_kit.recipes.wiring.run_evaluations": ("evaluation_env",),
}

__all__ = [
    "AttentionCriticConfig",
    "BiCNetNetwork",
    "COMAConfig",
    "CentralWeighting",
    "CheckpointConfig",
    "CommNetNetwork",
    "CounterfactualCriticConfig",
    "CueTask",
    "EpisodeForm",
    "EvaluationConfig",
    "GRUNetwork",
    "GaussianExploration",
    "GreedyChaseOpponent",
    "GumbelExploration",
    "HAPPOConfig",
    "HardTarget",
    "HeuristicOpponent",
    "LbfTask",
    "LoadedRun",
    "LoggerConfig",
    "MADDPGConfig",
    "MAPPOConfig",
    "MASACConfig",
    "MLPNetwork",
    "MatrixTask",
    "NStepReturns",
    "NoMixer",
    "NoMutualInformation",
    "NoWeighting",
    "OneProcess",
    "OptimisticWeighting",
    "OrnsteinUhlenbeckExploration",
    "PQNConfig",
    "PettingZooTask",
    "PolyakTarget",
    "QMIXConfig",
    "QMixerConfig",
    "QPLEXMixerConfig",
    "RandomOpponent",
    "RayDistribution",
    "RecallTask",
    "RecipeConfig",
    "ReplayConfig",
    "RunOpponent",
    "SequenceForm",
    "SharedCriticConfig",
    "SmaxTask",
    "SyncConfig",
    "TDLambdaReturns",
    "TarMACNetwork",
    "TorchRLTask",
    "TransitionForm",
    "VDNMixerConfig",
    "ValueCriticConfig",
    "VariationalInformation",
    "VmasTask",
    "ZeroOpponent",
    "evaluation_env",
    "iterate",
    "load",
    "named_task",
    "resume",
    "resume_population",
    "start",
    "start_population",
]

__getattr__, __dir__ = lazy_face(__name__, {name: module for module, names in _NAMES.items() for name in names})
