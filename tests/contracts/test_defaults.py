"""Defaults of losses and returns agree with those of the recipes that build them."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, fields
from typing import Any

import pytest
from ctde_kit.recipes.maddpg import MADDPGConfig
from ctde_kit.recipes.mappo import MAPPOConfig
from ctde_kit.recipes.qmix import QMIXConfig

from ctde_kit.objectives import AdvantageEstimator, MADDPGLoss, MAPPOLoss, PolicyInference, QMixLoss

# The recipe's option for an argument that is called otherwise there.
OPTIONS = {
    (MAPPOLoss, "value_loss"): "loss_critic_type",
    (QMixLoss, "value_loss"): "loss_function",
    (MADDPGLoss, "value_loss"): "loss_function",
    (AdvantageEstimator, "normalize"): "normalize_advantage",
    (PolicyInference, "entropy_coeff"): "inference_entropy",
    (PolicyInference, "deviation"): "inference_deviation",
}
# What the recipe chooses by an object or another option.
OTHERWISE = {"value_norm", "mixer", "returns"}


@pytest.mark.parametrize(
    ("part", "config", "count"),
    [
        (MAPPOLoss, MAPPOConfig, 6),
        (AdvantageEstimator, MAPPOConfig, 1),
        (QMixLoss, QMIXConfig, 2),
        (MADDPGLoss, MADDPGConfig, 5),
        (PolicyInference, MADDPGConfig, 2),
    ],
)
def test_a_part_and_its_recipe_have_the_same_defaults(part: Any, config: Any, count: int) -> None:
    defaults = {field.name: field.default for field in fields(config) if field.default is not MISSING}
    checked = 0
    for name, parameter in inspect.signature(part.__init__).parameters.items():
        option = OPTIONS.get((part, name), name)
        if parameter.default is not parameter.empty and option in defaults and name not in OTHERWISE:
            assert parameter.default == defaults[option], name
            checked += 1
    assert checked == count
