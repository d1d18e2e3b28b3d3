"""The small interfaces that the packages share without importing each other.

A protocol that extends ``Capability`` may be asked for with ``isinstance``; the others are for type checkers alone.
"""

from ctde_kit.protocols.group_policies import (
    DrawsSubPolicies,
    GivesProbabilities,
    GroupActor,
    HasGroup,
    LearnsActions,
    LearnsDistribution,
    PolicyBeliefs,
    ProvidesPrimer,
    SamplesEntropy,
    SamplesUnsquashed,
    SplitsIntoAgents,
)
from ctde_kit.protocols.network_capabilities import (
    DeclaresEntries,
    DrawsOrders,
    HasForAgent,
    KeepsHiddenState,
    RecurrentModule,
    SaysCentralized,
    SaysDecentralized,
    SaysReadsMask,
    SaysRecurrent,
    SwapsOwnAction,
)
from ctde_kit.protocols.running_scales import ObservationStatistics, ReturnScale, RewardScale, SharedWithTargets
from ctde_kit.protocols.saved_state import PureEnv, ReportsCapture, StateAccess, StateDict, Stateful
from ctde_kit.protocols.training_parts import (
    ExperienceBuffer,
    ExperienceCollector,
    HoldsItems,
    HoldsLosses,
    Learner,
    ReplayBuffer,
    SequentialLoss,
    TargetRule,
)

__all__ = [
    "DeclaresEntries",
    "DrawsOrders",
    "DrawsSubPolicies",
    "ExperienceBuffer",
    "ExperienceCollector",
    "GivesProbabilities",
    "GroupActor",
    "HasForAgent",
    "HasGroup",
    "HoldsItems",
    "HoldsLosses",
    "KeepsHiddenState",
    "Learner",
    "LearnsActions",
    "LearnsDistribution",
    "ObservationStatistics",
    "PolicyBeliefs",
    "ProvidesPrimer",
    "PureEnv",
    "RecurrentModule",
    "ReplayBuffer",
    "ReportsCapture",
    "ReturnScale",
    "RewardScale",
    "SamplesEntropy",
    "SamplesUnsquashed",
    "SaysCentralized",
    "SaysDecentralized",
    "SaysReadsMask",
    "SaysRecurrent",
    "SequentialLoss",
    "SharedWithTargets",
    "SplitsIntoAgents",
    "StateAccess",
    "StateDict",
    "Stateful",
    "SwapsOwnAction",
    "TargetRule",
]
