"""``check_mixer``: the doctor for mixers of agents' values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor

from ctde_kit.errors import UserError
from ctde_kit.specs import one_hot
from ctde_kit.testing.comparing import difference, gradients, number
from ctde_kit.testing.entry_names import as_tuple
from ctde_kit.testing.findings import NotApplicable, Report, Violation, examine, rule

WEIGHTS, BUMPS, CHOICES, JOINT = 6, (0.1, 1.0, 10.0), 3, 64


@dataclass
class MixerCase:
    """What the rules of mixers check: a mixer, and data that it reads.

    Args:
        mixer: reads values, writes the team's.
        data: what it reads, ``[B]``.
        team_value: where it writes.
        value_name: the name of the agents' values that it reads.
        best_name: the name of their best values, where it reads them.
    """

    mixer: TensorDictModuleBase
    data: TensorDictBase
    team_value: NestedKey
    value_name: str
    best_name: str

    def keys(self, name: str) -> list[tuple[str, ...]]:
        """The entries of this name that the mixer reads, one per group."""
        return [as_tuple(key) for key in self.mixer.in_keys if as_tuple(key)[-1] == name]

    @cached_property
    def sizes(self) -> list[int]:
        """How many agents each group has."""
        return [self.data.get(key).shape[self.data.ndim] for key in self.keys(self.value_name)]

    def mix(self, data: TensorDictBase) -> Tensor:
        """The team's value."""
        return self.mixer(data.clone()).get(self.team_value)

    def inputs(self) -> TensorDictBase:
        """Made-up values and states, everyone alive."""
        made = self.data.clone()
        for key, value in list(made.items(True, True)):
            if value.is_floating_point():
                made.set(key, torch.randn_like(value))
            elif as_tuple(key)[-1] == "mask":
                made.set(key, torch.ones_like(value))
        return self.with_values(made, 3 * torch.randn(*made.shape, sum(self.sizes)))

    def with_values(self, data: TensorDictBase, values: Tensor, best: Tensor | None = None) -> TensorDictBase:
        """A copy with these values ``[*B, N]`` of all agents; ``best``: their best ones, where those are read."""
        changed = data.clone()
        best = values + 25 if best is None else best
        for name, chosen in ((self.value_name, values), (self.best_name, best)):
            for key, part in zip(self.keys(name), chosen.split(self.sizes, -1), strict=False):
                changed.set(key, part.unsqueeze(-1).clone())
        return changed

    def with_actions(self, data: TensorDictBase, choice: Tensor) -> TensorDictBase:
        """A copy with these actions ``[*B, N]``, where they are read."""
        changed = data.clone()
        for key, part in zip(self.keys("action"), choice.split(self.sizes, -1), strict=False):
            like = data.get(key)
            changed.set(key, part if like.shape == part.shape else one_hot(part, like.shape[-1]).to(like.dtype))
        return changed

    def draw_weights(self) -> None:
        """Give the mixer other random weights."""
        with torch.no_grad():
            for parameter in self.mixer.parameters():
                parameter.copy_(torch.randn_like(parameter))


@rule("Each agent picks its own best action: the team's best only where the mix never falls with an agent's value.")
def monotonic(case: MixerCase) -> str:
    """The team's value never falls where one agent's rises, for random weights, states and values."""
    least = float("inf")
    for data in _with_random_weights(case):
        values = torch.cat([data.get(key).squeeze(-1) for key in case.keys(case.value_name)], -1)
        with torch.no_grad():
            before = case.mix(data)
            for agent in range(values.shape[-1]):
                for bump in BUMPS:
                    risen = values.clone()
                    risen[..., agent] += bump
                    slope = (case.mix(case.with_values(data, risen, best=values + 25)) - before) / bump
                    scale = 1e-4 * (1 + before.abs().max().item()) / bump
                    least = min(least, slope.min().item())
                    if slope.min().item() < -scale:
                        raise Violation(
                            f"the team's value falls by {number(-slope.min().item())} per unit of agent {agent}'s "
                            "value, expected never"
                        )
    return f"least slope {number(least)} over {WEIGHTS} random weights"


def _with_random_weights(case: MixerCase) -> Iterator[TensorDictBase]:
    """Made-up inputs, each for other random weights; the mixer's own are put back."""
    kept = [parameter.detach().clone() for parameter in case.mixer.parameters()]
    try:
        for _ in range(WEIGHTS):
            case.draw_weights()
            yield case.inputs()
    finally:
        with torch.no_grad():
            for parameter, value in zip(case.mixer.parameters(), kept, strict=True):
                parameter.copy_(value)


@rule("Execution is decentralized: a joint action that is better than everyone's own best one can never be found.")
def argmax_per_agent(case: MixerCase) -> str:
    """No joint action has a larger team value than each agent's best action."""
    shortfall = 0.0
    for data in _with_random_weights(case):
        table = 3 * torch.randn(*data.shape, sum(case.sizes), CHOICES)
        best, index = table.max(-1)
        with torch.no_grad():
            top = case.mix(case.with_actions(case.with_values(data, best, best), index))
            choice = torch.randint(CHOICES, (JOINT, *index.shape))
            values = table.expand(JOINT, *table.shape).gather(-1, choice.unsqueeze(-1)).squeeze(-1)
            many = data.expand(JOINT, *data.shape).reshape(-1)
            valued = case.with_values(many, values.flatten(0, 1), best.repeat(JOINT, 1))
            other = case.mix(case.with_actions(valued, choice.flatten(0, 1))).unflatten(0, (JOINT, -1))
            shortfall = max(shortfall, ((other - top) / (1 + top.abs())).max().item())
    if shortfall > 1e-4:
        raise Violation(f"a joint action is {number(shortfall)} better than the agents' own best actions, expected 0")
    return f"{WEIGHTS * JOINT} random joint actions, none is better than the agents' own best ones"


@rule("A dead agent's value is made up; in the mix it moves what the living learn.")
def dead_agents_are_left_out(case: MixerCase) -> str:
    """A dead agent's value, infinite or not, changes nothing and gets no gradient."""
    masks = case.keys("mask")
    if not masks:
        raise NotApplicable("the mixer reads no mask")
    data = case.inputs()
    agent = sum(case.sizes[: [key[0] for key in case.keys(case.value_name)].index(masks[0][0])])
    data.get(masks[0])[..., 0] = False
    values = torch.cat([data.get(key).squeeze(-1) for key in case.keys(case.value_name)], -1)
    before = case.mix(case.with_values(data, values, values))
    for garbage in (100.0, torch.finfo(values.dtype).min, -torch.inf):
        changed = values.clone()
        changed[..., agent] = garbage
        changed.requires_grad_()
        mixed = case.mix(case.with_values(data, changed, changed.detach()))
        gap = difference(before, mixed)
        if gap > 1e-4 * (1 + before.abs().max().item()):
            raise Violation(f"a dead agent's value of {number(garbage)} moves the team's by {number(gap)}, expected 0")
        (gradient,) = gradients(mixed.sum(), [changed])
        if gradient is not None and (not gradient.isfinite().all() or gradient[..., agent].abs().max() > 0):
            raise Violation(f"a dead agent's value of {number(garbage)} gets a gradient, or spoils the others'")
    return "values of 100, the least float and -inf of a dead agent change nothing"


@rule("Transitions and sequences are mixed alike; a mixer that reads the batch shape mixes envs or time steps.")
def batch_shapes(case: MixerCase) -> str:
    """Each row is mixed by itself, as ``[B]`` and as ``[B, T]``."""
    data = case.inputs()
    rows = len(data) // 2 * 2
    if rows < 4:
        raise NotApplicable(f"{len(data)} rows are too few")
    data = data.split(rows)[0]
    with torch.no_grad():
        flat = case.mix(data)
        if flat.shape != (*data.shape, 1):
            raise Violation(
                f"the team's value of {list(data.shape)} is {list(flat.shape)}, expected {[*data.shape, 1]}"
            )
        folded = case.mix(data.reshape(rows // 2, 2)).reshape(rows, 1)
        single = torch.cat([case.mix(part) for part in data.split(1)])
    gap = max(difference(flat, folded), difference(flat, single))
    if gap > 1e-4 * (1 + flat.abs().max().item()):
        raise Violation(f"rows are mixed differently alone or along time: {number(gap)} off")
    return f"[{rows}], [{rows // 2}, 2] and single rows, off by {number(gap)}"


MIXER_RULES = (monotonic, argmax_per_agent, dead_agents_are_left_out, batch_shapes)


def check_mixer(
    mixer: TensorDictModuleBase,
    data: TensorDictBase,
    *,
    team_value: NestedKey | None = None,
    value_name: str = "chosen_action_value",
    best_name: str = "max_action_value",
    raises: bool = True,
) -> Report:
    """Check a mixer against the rules of value decomposition: monotonic, greedy per agent, without dead agents.

    Args:
        mixer: a TensorDict module that reads agents' values and writes the team's, such as TorchRL's ``QMixer`` in a
            ``TensorDictModule``.
        data: what it reads, in the right shapes ``[B, ...]``; the doctor draws values and states itself.
        team_value: where it writes; ``None``: the first of its ``out_keys``.
        value_name: the last part of the keys of agents' values ``[*B, n_agents, 1]``.
        best_name: the last part of the keys of their best values, where it reads those (as QPLEX does).
        raises: whether a broken rule is an error; else the report says so.

    Raises:
        RuleBroken: where a rule is broken.

    >>> import torch
    >>> from tensordict import TensorDict
    >>> from tensordict.nn import TensorDictModule
    >>> from torchrl.modules.models.multiagent import QMixer
    >>> from ctde_kit.testing import check_mixer
    >>> values = ("agents", "chosen_action_value")
    >>> mixer = TensorDictModule(QMixer((7,), 8, 3, "cpu"), [values, "state"], ["chosen_action_value"])
    >>> data = TensorDict({values: torch.zeros(6, 3, 1), "state": torch.zeros(6, 7)}, [6])
    >>> check_mixer(mixer, data)["argmax_per_agent"].figure
    "384 random joint actions, none is better than the agents' own best ones"
    """
    case = MixerCase(
        mixer, data.detach(), mixer.out_keys[0] if team_value is None else team_value, value_name, best_name
    )
    if not case.keys(value_name):
        raise UserError(f"value_name={value_name!r}: the mixer reads {list(mixer.in_keys)}, none of which ends with it")
    return examine(f"check_mixer: {type(mixer).__name__}", MIXER_RULES, case, raises)
