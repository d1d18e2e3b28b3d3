"""Every actor network with every critic, or mixer, in every loss that fits, built as the command line builds them.

``tests/programs/pairs.py`` writes them into ``docs/parts.md``.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import torch

from ctde_kit.errors import UserError
from ctde_kit.recipes.commands.option_words import in_options
from ctde_kit.recipes.commands.options import options_of
from ctde_kit.training import CriticThenActor, Parts, UpdateWithTargets
from tests.contracts.tiny_env import TinyTask
from tests.recipes.command_line import composed

FITS = "fits"

# Layouts beyond the configurations of conf/critic, and what those need.
LAYOUTS: dict[str, list[str]] = {
    "agent_state": ["critic=agent_state", "critic.build_state=true"],
    "centralized, one head": ["critic=centralized", "critic.heads=one"],
    "centralized, one network per agent": [
        "critic=centralized",
        "critic.heads=network",
        "critic.network.share_params=false",
    ],
    "centralized, one network per cluster": [
        "critic=centralized",
        "critic.heads=network",
        "critic.network.share_params=[0,0,1]",
    ],
    "centralized, one network per agent, averaged": [
        "critic=centralized",
        "critic.heads=network",
        "critic.network.share_params=false",
        "critic.average_every=2",
    ],
    "centralized, random order": ["critic=centralized", "critic.ordering=random"],
}
# Those of COMA, which has critics of its own.
COUNTERFACTUAL: dict[str, list[str]] = {
    "counterfactual": [],
    "counterfactual, own observation first": ["critic.ordering=own_first"],
    "counterfactual, the global state": ["critic.sees=state"],
    "counterfactual, agent_state": ["critic.sees=agent_state", "critic.build_state=true"],
    "counterfactual, one network per agent, averaged": ["critic.network.share_params=false", "critic.average_every=2"],
    "counterfactual, gru": ["network@critic.network=gru"],
    "counterfactual, commnet": ["network@critic.network=commnet"],
}
LOSSES = {
    "mappo": "MAPPO: actors, critics of states",
    "maddpg": "MADDPG: actors, critics of actions",
    "facmac": "FACMAC: actors, critics of actions, with `mixer=qmix`",
    "coma": "COMA: actors, critics of every action",
}
SIZES = {
    "mappo": ["frames_per_batch=24", "minibatch_frames=12", "sequence_length=null"],
    "maddpg": ["frames_per_batch=24", "replay=sequences", "replay.form.length=3", "replay.batch_size=4"],
    "qmix": ["frames_per_batch=24", "replay=sequences", "replay.form.length=3", "replay.batch_size=4"],
}
SIZES["coma"] = SIZES["mappo"]
SIZES["facmac"] = SIZES["maddpg"]


def names(group: str) -> list[str]:
    """The configurations in a folder of ``conf``."""
    return options_of(group)


def critics(algorithm: str) -> dict[str, list[str]]:
    """The overrides of each critic of a loss: every configuration, more layouts, and other networks."""
    if algorithm == "coma":
        return COUNTERFACTUAL
    elsewhere = {"counterfactual"} if algorithm == "mappo" else {"counterfactual", "shared"}
    configurations = [name for name in names("critic") if name not in elsewhere]
    found = {name: LAYOUTS.get(name, [f"critic={name}"]) for name in configurations}
    found |= LAYOUTS
    for network in names("network"):
        if network != "mlp":
            for name in ("centralized", "decentralized", "attention"):
                found[f"{name}, {network}"] = [f"critic={name}", f"network@critic.network={network}"]
    found["centralized, random order, gru"] = [*LAYOUTS["centralized, random order"], "network@critic.network=gru"]
    return found


@functools.cache
def configuration(algorithm: str, *overrides: str) -> Any:
    """The recipe's configuration as the command line composes it."""
    return composed(algorithm, "task=memory/recall", "device=cpu", *SIZES[algorithm], *overrides)


def build(algorithm: str, actor: str, *overrides: str, continuous: bool) -> Parts:
    """The parts of a run on the tiny env."""
    config = configuration(algorithm, *overrides)
    network = configuration(algorithm, f"network@actor={actor}").actor
    config = dataclasses.replace(config, actor=network, task=TinyTask(continuous_actions=continuous), total_frames=1000)
    return config.build()


def learn(parts: Parts) -> dict[str, torch.Tensor]:
    """One update; gives the gradient of every parameter that learns, zeros where it got none."""
    parts.buffer.extend(parts.prepare(parts.collector.rollout()))
    minibatch = parts.buffer.sample() if hasattr(parts.buffer, "sample") else next(iter(parts.buffer))
    parts.update(minibatch)
    if isinstance(parts.update, CriticThenActor):
        critics, update = gradients(parts.update.critic.losses), parts.update.actor
        parts.update.step_actor(parts.buffer.items)  # type: ignore[attr-defined]
        actors = {name: value for name, value in gradients(update.losses).items() if "actor_network" in name}
        return critics | actors
    whole: Any = parts.update.update if isinstance(parts.update, UpdateWithTargets) else parts.update
    return gradients(whole.losses)


def gradients(losses: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The gradient of every parameter that learns, zeros where it got none."""
    learned = {name: p for name, p in losses.named_parameters() if p.requires_grad}
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in learned.items()}


def outcome(algorithm: str, actor: str, *overrides: str) -> str:
    """``FITS``, or the one line that refuses.

    Raises:
        AssertionError: where a part that learns has no gradient, or one that is not finite.
    """
    torch.manual_seed(0)
    continuous = algorithm in LOSSES and algorithm != "coma"
    try:
        parts = build(algorithm, actor, *overrides, continuous=continuous)
        learned = learn(parts)
    except UserError as error:
        refusal = in_options(str(error))
        if "\n" in refusal:
            raise AssertionError(f"{algorithm} {actor} {overrides}: more than one line: {refusal}") from error
        return refusal
    for name, gradient in learned.items():
        assert gradient.isfinite().all(), f"{algorithm} {actor} {overrides}: {name}"
        assert gradient.any(), f"{algorithm} {actor} {overrides}: {name} has no gradient"
    return FITS


def pairs() -> Iterator[tuple[str, str, str, list[str]]]:
    """Algorithm, row of its table, actor network, overrides."""
    for algorithm in LOSSES:
        for row, overrides in critics(algorithm).items():
            for actor in names("network"):
                yield algorithm, row, actor, overrides
    for mixer in names("mixer"):
        for actor in names("network"):
            yield "qmix", mixer, actor, [f"mixer={mixer}"]
