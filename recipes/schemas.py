"""The typed schemas under hydra's configuration files."""

from __future__ import annotations

from typing import Any

from ctde_kit.recipes.attention_critics import AttentionCriticConfig
from ctde_kit.recipes.channels import BiCNetNetwork, CommNetNetwork, TarMACNetwork
from ctde_kit.recipes.critics import ValueCriticConfig
from ctde_kit.recipes.cross_play import CrossPlayConfig
from ctde_kit.recipes.cue_task import CueTask
from ctde_kit.recipes.explorations import GaussianExploration, GumbelExploration, OrnsteinUhlenbeckExploration
from ctde_kit.recipes.loggers import LoggerConfig
from ctde_kit.recipes.maddpg import MADDPGConfig
from ctde_kit.recipes.mappo import MAPPOConfig
from ctde_kit.recipes.matrix_task import MatrixTask
from ctde_kit.recipes.mixers import NoMixer, QMixerConfig, QPLEXMixerConfig, VDNMixerConfig
from ctde_kit.recipes.networks import GRUNetwork, MLPNetwork
from ctde_kit.recipes.opponents import GreedyChaseOpponent, RandomOpponent, RunOpponent
from ctde_kit.recipes.pqn import PQNConfig
from ctde_kit.recipes.qmix import QMIXConfig
from ctde_kit.recipes.replays import EpisodeForm, ReplayConfig, SequenceForm, TransitionForm
from ctde_kit.recipes.studies.critic_layouts.report import CriticLayoutsConfig
from ctde_kit.recipes.target_rules import HardTarget, PolyakTarget
from ctde_kit.recipes.tasks import LbfTask, PettingZooTask, RecallTask, VmasTask

SCHEMAS: dict[tuple[str | None, str], Any] = {
    (None, "mappo_schema"): MAPPOConfig,
    (None, "qmix_schema"): QMIXConfig,
    (None, "pqn_schema"): PQNConfig,
    (None, "cross_play_schema"): CrossPlayConfig,
    (None, "maddpg_schema"): MADDPGConfig,
    (None, "critic_layouts_schema"): CriticLayoutsConfig,
    ("schema/task", "vmas"): VmasTask,
    ("schema/task", "pettingzoo"): PettingZooTask,
    ("schema/task", "lbf"): LbfTask,
    ("schema/task", "recall"): RecallTask,
    ("schema/task", "matrix"): MatrixTask,
    ("schema/task", "cue"): CueTask,
    ("schema/network", "mlp"): MLPNetwork,
    ("schema/network", "gru"): GRUNetwork,
    ("schema/network", "bicnet"): BiCNetNetwork,
    ("schema/network", "commnet"): CommNetNetwork,
    ("schema/network", "tarmac"): TarMACNetwork,
    ("schema/critic", "value"): ValueCriticConfig,
    ("schema/critic", "attention"): AttentionCriticConfig,
    ("schema/mixer", "none"): NoMixer,
    ("schema/mixer", "vdn"): VDNMixerConfig,
    ("schema/mixer", "qmix"): QMixerConfig,
    ("schema/mixer", "qplex"): QPLEXMixerConfig,
    ("schema/replay", "replay"): ReplayConfig,
    ("schema/replay_form", "transitions"): TransitionForm,
    ("schema/replay_form", "sequences"): SequenceForm,
    ("schema/replay_form", "episodes"): EpisodeForm,
    ("schema/target", "polyak"): PolyakTarget,
    ("schema/target", "hard"): HardTarget,
    ("schema/opponent", "random"): RandomOpponent,
    ("schema/opponent", "greedy_chase"): GreedyChaseOpponent,
    ("schema/opponent", "run"): RunOpponent,
    ("schema/exploration", "gaussian"): GaussianExploration,
    ("schema/exploration", "ornstein_uhlenbeck"): OrnsteinUhlenbeckExploration,
    ("schema/exploration", "gumbel"): GumbelExploration,
    ("schema/logger", "logger"): LoggerConfig,
}
