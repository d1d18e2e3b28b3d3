"""The typed schemas under hydra's configuration files, all from the closed table of choices."""

from __future__ import annotations

import uuid
from functools import cache
from typing import get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from ctde_kit.recipes.commands.recipes import RECIPES
from ctde_kit.recipes.configs.choices import CHOICES
from ctde_kit.recipes.configs.command_options import CriticLayoutsConfig, CrossPlayConfig
from ctde_kit.recipes.configs.critics import CriticConfig
from ctde_kit.recipes.configs.distributed_options import DistributionConfig
from ctde_kit.recipes.configs.explorations import ExplorationConfig
from ctde_kit.recipes.configs.information_bounds import MutualInformationConfig
from ctde_kit.recipes.configs.loggers import LoggerConfig
from ctde_kit.recipes.configs.mixers import MixerConfig
from ctde_kit.recipes.configs.networks import NetworkConfig
from ctde_kit.recipes.configs.opponents import OpponentConfig
from ctde_kit.recipes.configs.policy_options import EvaluateConfig, ExportConfig, WatchConfig
from ctde_kit.recipes.configs.replays import ReplayConfig, ReplayForm
from ctde_kit.recipes.configs.return_forms import ReturnConfig
from ctde_kit.recipes.configs.target_rules import TargetConfig
from ctde_kit.recipes.configs.tasks.task import TaskConfig
from ctde_kit.recipes.configs.weightings import WeightingConfig

# The folder of conf/ whose files choose among the classes of each declared type.
FOLDERS = {
    TaskConfig: "task",
    NetworkConfig: "network",
    CriticConfig: "critic",
    MixerConfig: "mixer",
    WeightingConfig: "weighting",
    MutualInformationConfig: "mutual_information",
    DistributionConfig: "distributed",
    ReplayForm: "replay_form",
    ReturnConfig: "returns",
    TargetConfig: "target",
    ExplorationConfig: "exploration",
    OpponentConfig: "opponent",
}
# Folders whose files set options of one class; those of a replay choose its form, too.
SINGLE = {"replay": ReplayConfig, "logger": LoggerConfig}


@cache
def register_schemas() -> None:
    """Make the schemas known to hydra."""
    store = ConfigStore.instance()
    for declared, folder in FOLDERS.items():
        for name, config in CHOICES[declared].items():
            store.store(group=f"schema/{folder}", name=name, node=schema(config))
    for folder, config in SINGLE.items():
        store.store(group=f"schema/{folder}", name=folder, node=schema(config))
    for config in {recipe.config for recipe in RECIPES.values()}:
        store.store(name=f"{config.algorithm}_schema", node=schema(config))
    store.store(name="cross_play_schema", node=schema(CrossPlayConfig))
    store.store(name="evaluate_schema", node=schema(EvaluateConfig))
    store.store(name="export_schema", node=schema(ExportConfig))
    store.store(name="watch_schema", node=schema(WatchConfig))
    store.store(name="critic_layouts_schema", node=schema(CriticLayoutsConfig))
    OmegaConf.register_new_resolver("unique", lambda: uuid.uuid4().hex[:6], replace=True, use_cache=True)


def schema(config: type) -> DictConfig:
    """The options of a dataclass with their types; what is chosen among several classes is left for a file to choose.

    Otherwise the options of the default choice would stay beside those of the chosen one.
    """
    node = OmegaConf.structured(config)
    for name, declared in get_type_hints(config).items():
        if declared in FOLDERS or declared in SINGLE.values():
            node[name] = MISSING
    return node
