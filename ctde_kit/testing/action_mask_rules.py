"""What a policy must do with action masks: sampling, greedy actions and log-probabilities."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential
from torch import Tensor
from torchrl.data import MultiCategorical
from torchrl.modules import set_recurrent_mode

from ctde_kit.specs import one_hot
from ctde_kit.testing.comparing import number
from ctde_kit.testing.findings import NotApplicable, Violation, rule
from ctde_kit.testing.policy_case import PolicyCase

ROWS = 40
# The largest log-probability of an action that counts as forbidden.
FORBIDDEN = -15.0


@rule("A forbidden action crashes the env or becomes another one, so that what is learned from is not what was done.")
def masks_are_obeyed(case: PolicyCase) -> str:
    """No sampled and no greedy action is forbidden."""
    inputs, mask = _masked_inputs(case)
    for greedy in (True, False):
        action = case.act(inputs, greedy=greedy).get(case.names["action"])
        broken = _choices(case, action, mask) & ~mask
        if broken.any():
            raise Violation(
                f"{int(broken.any(-1).sum())} of {broken[..., 0].numel()} {'greedy' if greedy else 'sampled'} actions "
                "are forbidden by the mask, expected 0"
            )
    return f"{2 * mask[..., 0].numel()} greedy and sampled actions are allowed"


@rule("Log-probabilities without the mask belong to another policy: ratio, KL and entropy are off.")
def masks_in_log_probs(case: PolicyCase) -> str:
    """Allowed actions share all probability, forbidden ones have none."""
    inputs, mask = _masked_inputs(case)
    if not isinstance(case.policy, ProbabilisticTensorDictSequential):
        raise NotApplicable(f"{type(case.policy).__name__} has no get_dist")
    action = case.act(inputs).get(case.names["action"])
    if action.shape[:-1] == mask.shape[:-1] and action.shape != mask.shape:
        raise NotApplicable("several choices per agent")
    log_prob = torch.stack([_log_prob(case, inputs, action, choice) for choice in range(mask.shape[-1])], -1)
    if log_prob[~mask].max() > FORBIDDEN:
        worst = number(float(log_prob[~mask].exp().max()))
        raise Violation(f"a forbidden action has probability {worst}, expected 0")
    total = log_prob.exp().masked_fill(~mask, 0).sum(-1)
    gap = float((total - 1).abs().max())
    if gap > 1e-4:
        raise Violation(f"the probabilities of allowed actions sum to {number(float(total.min()))}, expected 1")
    return f"allowed actions sum to 1, off by {number(gap)}"


def _log_prob(case: PolicyCase, inputs: TensorDictBase, like: Tensor, choice: int) -> Tensor:
    index = torch.full(inputs.get(case.names["action_mask"]).shape[:-1], choice)
    size = inputs.get(case.names["action_mask"]).shape[-1]
    action = one_hot(index, size) if like.shape != index.shape else index
    assert isinstance(case.policy, ProbabilisticTensorDictSequential)
    with torch.no_grad(), set_recurrent_mode(False):
        return case.policy.get_dist(inputs.clone()).log_prob(action.to(like.dtype))


def _masked_inputs(case: PolicyCase) -> tuple[TensorDictBase, Tensor]:
    """Inputs with random masks, each of which allows something."""
    key = case.names["action_mask"]
    if key not in case.data.keys(True, True):
        raise NotApplicable(f"the data have no {key!r}")
    inputs = case.inputs(ROWS)
    mask = torch.rand(inputs.get(key).shape) < 0.4
    for part in mask.split(_sizes(case, mask), -1):
        part |= one_hot(torch.randint(part.shape[-1], part.shape[:-1]), part.shape[-1])
    return inputs.set(key, mask), mask


def _sizes(case: PolicyCase, mask: Tensor) -> list[int]:
    spec = case.action_spec
    if isinstance(spec, MultiCategorical):
        return [int(n) for n in torch.as_tensor(spec.nvec).reshape(-1, spec.shape[-1])[0]]
    return [mask.shape[-1]]


def _choices(case: PolicyCase, action: Tensor, mask: Tensor) -> Tensor:
    """Actions as one-hot booleans in the mask's shape."""
    if action.shape == mask.shape:
        return action.bool()
    if action.shape == mask.shape[:-1]:
        return one_hot(action, mask.shape[-1])
    sizes = _sizes(case, mask)
    if len(sizes) != action.shape[-1]:
        raise NotApplicable(
            f"several choices per agent: give env, whose spec of {case.names['action']} has their sizes"
        )
    return torch.cat([one_hot(action[..., k], n) for k, n in enumerate(sizes)], -1)
