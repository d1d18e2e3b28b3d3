"""Defaults of losses and returns agree with those of the recipes that build them."""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import MISSING, fields
from typing import Any

import pytest

from ctde_kit.errors import UserError
from ctde_kit.objectives import (
    AdvantageEstimator,
    COMAActorLoss,
    COMACriticLoss,
    MADDPGLoss,
    MAPPOLoss,
    MASACLoss,
    PolicyInference,
    QMixLoss,
)
from ctde_kit.recipes import COMAConfig, HAPPOConfig, MADDPGConfig, MAPPOConfig, MASACConfig, PQNConfig, QMIXConfig
from ctde_kit.recipes.commands.recipes import RECIPES
from tests.recipes.command_line import composed

# The recipe's option for an argument that is called otherwise there.
OPTIONS = {
    (AdvantageEstimator, "normalize"): "normalize_advantage",
    (PolicyInference, "entropy_coeff"): "inference_entropy",
    (PolicyInference, "deviation"): "inference_deviation",
}
# What sets a recipe apart from the first one of its configuration.
APART = {
    "ippo": {"critic"},
    "a2c": {"epochs", "frames_per_batch", "lmbda", "minibatch_frames", "normalize_advantage", "value_loss"},
    "vdn": {"mixer"},
    "iql": {"mixer"},
    "qplex": {"mixer"},
    "iddpg": {"critic"},
    "facmac": {"critic", "mixer"},
    "isac": {"critic"},
}
# What the recipe chooses by an object or another option.
OTHERWISE = {"value_norm", "mixer", "returns", "twin_critics"}


@pytest.mark.parametrize(
    ("part", "config", "count"),
    [
        (MAPPOLoss, MAPPOConfig, 6),
        (AdvantageEstimator, MAPPOConfig, 1),
        (QMixLoss, QMIXConfig, 2),
        (MADDPGLoss, MADDPGConfig, 5),
        (PolicyInference, MADDPGConfig, 2),
        (MASACLoss, MASACConfig, 9),
        (COMACriticLoss, COMAConfig, 2),
        (COMAActorLoss, COMAConfig, 1),
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


@pytest.mark.parametrize("name", RECIPES)
def test_a_configuration_without_arguments_is_the_plain_command(name: str) -> None:
    config = composed(name)
    if config.algorithm == type(config)().algorithm:
        assert type(config)() == config
    else:
        # The other recipes of a configuration change what sets them apart, and cannot be named without.
        with pytest.raises(UserError, match=rf"algorithm={name}: expected (critic|mixer|epochs)="):
            dataclasses.replace(type(config)(), algorithm=name)
        differing = {
            field.name for field in fields(config) if getattr(config, field.name) != getattr(type(config)(), field.name)
        }
        assert differing == {"algorithm", *APART[name]}


def test_without_arguments_a_configuration_builds_its_parts() -> None:
    for config in (MAPPOConfig, HAPPOConfig, QMIXConfig, MADDPGConfig, MASACConfig, PQNConfig, COMAConfig):
        parts = config(device="cpu", compile="off").build()
        assert parts.collector.env.batch_size == (60,)
