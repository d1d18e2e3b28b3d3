"""TensorDict-keyed parts for centralized training and decentralized execution (CTDE), on TorchRL.

``import ctde_kit as ck`` gives the names below; each is imported when it is first used. The packages hold more:
``ck.modules``, ``ck.objectives``, ``ck.envs``, ``ck.collectors``, ``ck.data``, ``ck.training``, ``ck.graph``,
``ck.distributed``, ``ck.testing``.
"""

from typing import TYPE_CHECKING

from ctde_kit.lazy import lazy_face

if TYPE_CHECKING:
    from ctde_kit import collectors, data, distributed, envs, graph, modules, objectives, testing, training
    from ctde_kit.collectors import RolloutCollector
    from ctde_kit.data import OnPolicyBuffer, Replay
    from ctde_kit.envs.vmas import VmasEnv
    from ctde_kit.errors import UserError
    from ctde_kit.keys import GroupKeys
    from ctde_kit.modules import (
        MultiAgentActor,
        MultiAgentDeterministicActor,
        MultiAgentGRU,
        MultiAgentMLP,
        MultiAgentQActor,
        ObservationNorm,
        QMixer,
        QPLEXMixer,
        RewardNorm,
        TeamPolicy,
        ValueNorm,
        VDNMixer,
        action_value_critic,
        own_observation,
        value_critic,
    )
    from ctde_kit.objectives import (
        AdvantageEstimator,
        MADDPGLoss,
        MAPPOLoss,
        QMixLoss,
        TeamReward,
    )
    from ctde_kit.specs import GroupSpec, TeamSpec
    from ctde_kit.training import GradientStep, Parts, evaluate, iterate

__version__ = "0.1.0"

_PACKAGES = ("collectors", "data", "distributed", "envs", "graph", "modules", "objectives", "testing", "training")
_NAMES = {
    "ctde_kit.collectors": ("RolloutCollector",),
    "ctde_kit.data": ("OnPolicyBuffer", "Replay"),
    "ctde_kit.envs.vmas": ("VmasEnv",),
    "ctde_kit.errors": ("UserError",),
    "ctde_kit.keys": ("GroupKeys",),
    "ctde_kit.modules": (
        "MultiAgentActor",
        "MultiAgentDeterministicActor",
        "MultiAgentGRU",
        "MultiAgentMLP",
        "MultiAgentQActor",
        "ObservationNorm",
        "QMixer",
        "QPLEXMixer",
        "RewardNorm",
        "TeamPolicy",
        "VDNMixer",
        "ValueNorm",
        "action_value_critic",
        "own_observation",
        "value_critic",
    ),
    "ctde_kit.objectives": ("AdvantageEstimator", "MADDPGLoss", "MAPPOLoss", "QMixLoss", "TeamReward"),
    "ctde_kit.specs": ("GroupSpec", "TeamSpec"),
    "ctde_kit.training": ("GradientStep", "Parts", "evaluate", "iterate"),
}

__all__ = [
    "AdvantageEstimator",
    "GradientStep",
    "GroupKeys",
    "GroupSpec",
    "MADDPGLoss",
    "MAPPOLoss",
    "MultiAgentActor",
    "MultiAgentDeterministicActor",
    "MultiAgentGRU",
    "MultiAgentMLP",
    "MultiAgentQActor",
    "ObservationNorm",
    "OnPolicyBuffer",
    "Parts",
    "QMixLoss",
    "QMixer",
    "QPLEXMixer",
    "Replay",
    "RewardNorm",
    "RolloutCollector",
    "TeamPolicy",
    "TeamReward",
    "TeamSpec",
    "UserError",
    "VDNMixer",
    "ValueNorm",
    "VmasEnv",
    "__version__",
    "action_value_critic",
    "collectors",
    "data",
    "distributed",
    "envs",
    "evaluate",
    "graph",
    "iterate",
    "modules",
    "objectives",
    "own_observation",
    "testing",
    "training",
    "value_critic",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {name: f"ctde_kit.{name}" for name in (*_PACKAGES, "recipes")}
    | {name: module for module, names in _NAMES.items() for name in names},
    (*_PACKAGES, "recipes"),
)
