"""What every policy must do: own data alone, no noise in evaluation, log-probabilities that can be reproduced."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol, runtime_checkable

import torch
from tensordict import TensorDict, TensorDictBase, cat
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.modules import set_recurrent_mode

from ctde_kit.errors import one_line
from ctde_kit.keys import LATENT, STATE
from ctde_kit.testing.comparing import difference, moved, number
from ctde_kit.testing.entry_names import as_tuple
from ctde_kit.testing.findings import NotApplicable, Violation, rule
from ctde_kit.testing.policy_case import PolicyCase

CLOSE = 1e-4


@runtime_checkable
class RunsOneAgent(Protocol):
    """A group's policy that gives the policy of one agent alone."""

    def for_agent(self, agent: int, /) -> TensorDictModuleBase:
        """The policy of one agent, which reads entries without the agent axis."""
        ...


@rule("At execution an agent has its own data alone: a policy that read others' in training cannot be run.")
def own_data_alone(case: PolicyCase) -> str:
    """Agent i's outputs do not move with agent j's inputs, unless the policy says that they do."""
    n_agents = case.need_agents()
    if case.decentralized is False:
        raise NotApplicable("the policy says that it is not decentralized")
    inputs, axis = case.inputs(5), 1
    before = case.outputs(case.act(inputs), hidden=True)
    if STATE in inputs:
        _check_moves(before, case, inputs.clone().set(STATE, moved(inputs.get(STATE))), None, "the global state")
    for agent in range(n_agents):
        changed = inputs.clone()
        for key in case.in_keys:
            value = changed.get(key, None)
            if value is None or not value.is_floating_point() or not case.names.has_agents(key):
                continue
            value.select(axis, agent).copy_(moved(value.select(axis, agent), 3.0))
        _check_moves(before, case, changed, agent, f"agent {agent}'s data")
    return f"{n_agents} agents, no output moves with another agent's data"


def _check_moves(
    before: dict[tuple[str, ...], Tensor], case: PolicyCase, changed: TensorDictBase, agent: int | None, what: str
) -> None:
    after = case.outputs(case.act(changed), hidden=True)
    for key, value in before.items():
        if case.names.has_agents(key) and value.shape == after[key].shape:
            for other in range(value.shape[1]):
                gap = difference(value[:, other], after[key][:, other])
                if other != agent and gap > CLOSE:
                    raise Violation(
                        f"agent {other}'s {key} moves by {number(gap)} with {what}, expected 0; pass "
                        "decentralized=False if agents are meant to see it"
                    )


@rule("Where agents and envs are folded in the wrong order, a row's place in the batch says whose network it gets.")
def batch_shapes(case: PolicyCase) -> str:
    """Each row of a batch is acted on by itself: alone, in another order, and as ``[B, T]`` where that is taken."""
    inputs = case.inputs(6)
    for key in case.hidden_keys:
        if inputs.get(key, None) is not None:
            inputs.set(key, 0.5 * torch.randn_like(inputs.get(key)))
    whole = case.outputs(case.act(inputs), hidden=True)
    backward = torch.arange(5, -1, -1)
    tried: dict[str, TensorDictBase] = {
        "alone": cat([_written(case, inputs[row : row + 1]) for row in range(6)]),
        "in another order": _written(case, inputs[backward])[backward],
    }
    if not case.hidden_keys:
        with suppress(Exception):  # networks that take [B, n_agents, F] alone are also right
            folded = _written(case, inputs.reshape(3, 2))
            if not _reads_sequences(case, inputs.reshape(3, 2), folded, whole):
                tried["as [3, 2]"] = folded.reshape(6)
    worst = 0.0
    for how, found in tried.items():
        for key, value in whole.items():
            if value.is_floating_point():
                worst = max(worst, difference(value, found.get(key)))
            if worst > CLOSE:
                raise Violation(f"{key} of a row is {number(worst)} off {how}, expected the same wherever a row stands")
    return f"6 rows, {', '.join(tried)}, off by {number(worst)}"


def _reads_sequences(
    case: PolicyCase, inputs: TensorDictBase, found: TensorDictBase, whole: Mapping[tuple[str, ...], Tensor]
) -> bool:
    """Whether the policy takes ``[3, 2]`` as three sequences, whose second steps do not act as single rows do."""
    order = torch.tensor([2, 0, 1])
    reordered = _written(case, inputs[order])
    alone = {key: value.unflatten(0, (3, 2)) for key, value in whole.items() if value.is_floating_point()}
    return all(
        difference(found.get(key)[order], reordered.get(key)) <= CLOSE
        and difference(value[:, 0], found.get(key)[:, 0]) <= CLOSE
        for key, value in alone.items()
    ) and any(difference(value[:, 1], found.get(key)[:, 1]) > CLOSE for key, value in alone.items())


def _written(case: PolicyCase, inputs: TensorDictBase) -> TensorDictBase:
    return TensorDict(dict(case.outputs(case.act(inputs), hidden=True)), inputs.batch_size)


@rule("Evaluation measures the policy, and not its exploration: noise there makes figures worse and unrepeatable.")
def no_noise_in_evaluation(case: PolicyCase) -> str:
    """Under ``ExplorationType.DETERMINISTIC`` and ``eval()`` the same input gives the same action."""
    inputs, key = case.inputs(7), case.names["action"]
    torch.manual_seed(1)
    first = case.act(inputs).get(key)
    torch.manual_seed(2)
    gap = difference(first, case.act(inputs).get(key))
    if gap > 0:
        raise Violation(f"the same input gave actions that differ by {number(gap)} in evaluation, expected 0")
    return "the same action twice"


@rule("What a team draws together is known in training alone: an agent that needed it could not be run by itself.")
def no_shared_latent_in_execution(case: PolicyCase) -> str:
    """Without the root key ``latent`` the policy acts as with the latent's mean, zero, and repeats itself."""
    if (LATENT,) not in case.in_keys:
        raise NotApplicable(f"the policy reads no root key {LATENT!r}")
    inputs, key = case.inputs(7).exclude(LATENT), case.names["action"]
    actions = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        try:
            actions.append(case.act(inputs).get(key))
        except Exception as error:
            raise Violation(f"without {LATENT!r} it raises {type(error).__name__}, expected an action") from error
    if (gap := difference(*actions)) > 0:
        raise Violation(f"without {LATENT!r} actions differ by {number(gap)} from draw to draw, expected 0")
    stored = case.data.get(LATENT, None)
    if stored is None:
        return "the same action twice without it"
    gap = difference(actions[0], case.act(inputs.set(LATENT, stored.new_zeros(7, stored.shape[-1]))).get(key))
    if gap > CLOSE:
        raise Violation(f"without {LATENT!r} actions are {number(gap)} off those with its mean, expected 0")
    return "the action without it is the one with its mean"


@rule("An action outside the spec is clipped or refused by the env, and is not the one that is learned from.")
def actions_in_spec(case: PolicyCase) -> str:
    """Sampled and greedy actions are what the env takes."""
    spec = case.action_spec
    if spec is None:
        raise NotApplicable("give env, whose spec says what it takes")
    batch = spec.shape[: case.data.ndim - 1]
    for greedy in (True, False):
        action = case.act(case.inputs(*batch), greedy=greedy).get(case.names["action"])
        if action.shape != spec.shape or action.dtype != spec.dtype or not spec.is_in(action):
            raise Violation(
                f"key {case.names['action']}: {'greedy' if greedy else 'sampled'} actions {list(action.shape)} "
                f"{action.dtype} from {action.min().item():.3g} to {action.max().item():.3g} are outside "
                f"{one_line(spec, 160)}"
            )
    return f"greedy and sampled actions {list(spec.shape)}"


@rule("PPO's ratio starts at 1 only where the stored log-probability is the policy's own of the stored action.")
def log_prob_again(case: PolicyCase) -> str:
    """The distribution gives the stored action the stored log-probability."""
    policy, key = case.policy, case.names["sample_log_prob"]
    stored = case.data.get(key, None)
    if stored is None:
        raise NotApplicable(f"the data have no {key!r}")
    if not isinstance(policy, ProbabilisticTensorDictSequential):
        raise NotApplicable(f"{type(policy).__name__} has no get_dist")
    found = log_probs(policy, case.data, case.names["action"])
    gap = difference(_masked(case, found), _masked(case, stored))
    if gap > 1e-3:
        raise Violation(f"log-probabilities of stored actions differ by {number(gap)} from the stored ones, expected 0")
    return f"differ by {number(gap)}"


@torch.no_grad()
def log_probs(policy: ProbabilisticTensorDictSequential, data: TensorDictBase, action: NestedKey) -> Tensor:
    """The log-probability of the actions in ``data`` ``[*B, T]``, along time for recurrent policies."""
    with set_recurrent_mode(True):
        return policy.get_dist(data.clone()).log_prob(data.get(action))


def _masked(case: PolicyCase, log_prob: Tensor) -> Tensor:
    alive = case.data.get(case.names["mask"], None)
    return log_prob if alive is None or alive.shape != log_prob.shape else log_prob.masked_fill(~alive, 0)


@rule("What is exported and run by one agent must do what the team's policy did in training.")
def for_agent_is_the_slice(case: PolicyCase) -> str:
    """``for_agent(i)`` on agent i's data does what the group's policy does for agent i."""
    n_agents = case.need_agents()
    if not isinstance(case.policy, RunsOneAgent):
        raise NotApplicable("the policy has no for_agent(agent)")
    if case.decentralized is False:
        raise NotApplicable("the policy says that it is not decentralized")
    inputs = case.inputs(5)
    for key in case.hidden_keys:
        inputs.set(key, 0.5 * torch.randn_like(inputs.get(key)))
    whole, worst = case.outputs(case.act(inputs), hidden=True), 0.0
    for agent in range(n_agents):
        single = PolicyCase(case.policy.for_agent(agent), case.data, case.names, None, 1)
        written = single.act(_of_one(case, inputs, agent))
        for key, value in whole.items():
            found = written.get(key, None)
            if found is None or not case.names.has_agents(key):
                continue
            # A hidden state keeps the agent axis.
            expected = value[:, agent : agent + 1] if found.ndim == value.ndim else value[:, agent]
            if found.shape != expected.shape:
                raise Violation(f"for_agent({agent}) gives {key} {list(found.shape)}, expected {list(expected.shape)}")
            worst = max(worst, difference(found, expected))
            if worst > CLOSE:
                raise Violation(f"for_agent({agent})'s {key} is {number(worst)} off the group's, expected 0")
    return f"{n_agents} agents, differ by {number(worst)}"


def _of_one(case: PolicyCase, inputs: TensorDictBase, agent: int) -> TensorDictBase:
    """One agent's entries without the agent axis; its hidden state keeps it."""
    single = inputs.empty()
    for key, value in inputs.items(True, True):
        key = as_tuple(key)
        if not case.names.has_agents(key):
            single.set(key, value)
        else:
            single.set(key, value[:, agent : agent + 1] if key in case.hidden_keys else value[:, agent])
    return single
